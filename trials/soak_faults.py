"""What clients and machines get wrong, one of each: a clear sentence, and a server that goes on.

    python -m trials.soak_faults MODEL       the table alone

Of clients: parameters, bodies and framing. Of machines: a full disk, half a model, settings that
cannot be. `requests` needs a server that runs; `starts` begins one for each.
"""

import json
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.table import ChildError
from trials.server import COMMAND, HOST, launched, started
from trials.soak_asks import read
from trials.soak_judge import Fault

MIB = 2**20
START_SECONDS = 120.0
GZIP_BOMB = bytes.fromhex("1f8b08000000000000ff") + b"\x00" * 512
LEAVE_OUT = "\x00"


@dataclass(frozen=True, kw_only=True, slots=True)
class Wrong:
    """One request that cannot be answered."""

    name: str
    body: bytes
    path: str = "/score"
    headers: Mapping[str, str] = field(default_factory=dict)
    """Beside or instead of Content-Type and Content-Length; LEAVE_OUT leaves one out."""
    statuses: tuple[int, ...] = (400,)
    words: str = ""
    """What the sentence must name."""
    ends: bool = False
    """The client closes its side after the body."""


def _fields(name: str, words: str = "", **fields: Any) -> Wrong:
    body = json.dumps({"prompt": "x", **fields}).encode()
    return Wrong(name=name, body=body, words=words or next(iter(fields)))


def _chat(name: str, words: str, **fields: Any) -> Wrong:
    turns = [{"role": "user", "content": "x"}]
    body = json.dumps({"messages": turns, **fields}).encode()
    return Wrong(name=name, body=body, path="/v1/chat/completions", words=words)


WRONG = (
    _fields("10**9 new tokens", max_new_tokens=10**9),
    _fields("no new tokens", max_new_tokens=0),
    _fields("temperature -1", words="temperature", do_sample=True, temperature=-1),
    _fields("temperature NaN", words="NaN", do_sample=True, temperature=float("nan")),
    _fields("temperature 10**400", words="temperature", do_sample=True, temperature=10**400),
    _fields("top_p 0", words="top_p", do_sample=True, top_p=0),
    _fields("top_k 10**18", words="top_k", do_sample=True, top_k=10**18),
    _fields("seed 10**30", words="seed", do_sample=True, seed=10**30),
    _fields("10**5 stop texts", stop=["x"] * 10**5),
    _fields("a prompt of 100,000 words", words="tokens", prompt="word " * 10**5),
    _chat("temperature 1e308", "temperature", temperature=1e308),
    _chat("n 10**6", "n must", n=10**6),
    _chat("n -1", "n must", n=-1),
    _chat("max_tokens as text", "max_tokens", max_tokens="9" * 1000),
    Wrong(name="nothing", body=b"", words="empty"),
    Wrong(name="half a letter of UTF-8", body='{"prompt": "日'.encode()[:-1], words="UTF-8"),
    Wrong(name="100,000 brackets", body=b"[" * 100_000, words="nested"),
    Wrong(name="100,000 objects", body=b'{"prompt":' * 100_000, words="nested"),
    Wrong(name="a key twice", body=b'{"prompt": "a", "prompt": "b"}', words="twice"),
    Wrong(name="NaN in a list", body=b'[{"prompt": "a", "top_p": NaN}]', words="NaN"),
    Wrong(name="a list of 10,000", body=json.dumps([{"prompt": "x"}] * 10**4).encode()),
    Wrong(
        name="a form",
        body=b"--x\r\nContent-Disposition: form-data; name=prompt\r\n\r\nhi\r\n--x--\r\n",
        headers={"Content-Type": "multipart/form-data; boundary=x"},
        words="JSON",
    ),
    Wrong(
        name="a gzip bomb",
        body=GZIP_BOMB,
        headers={"Content-Encoding": "gzip"},
        statuses=(400, 415),
        words="Content-Encoding",
    ),
    Wrong(name="2 MiB", body=b'{"prompt": "%s"}' % (b"a" * 2 * MIB), statuses=(413,), words="over"),
    Wrong(
        name="2 MiB in chunks, of no length",
        body=b"".join(b"10000\r\n" + b"a" * 0x10000 + b"\r\n" for _ in range(32)) + b"0\r\n\r\n",
        headers={"Transfer-Encoding": "chunked", "Content-Length": LEAVE_OUT},
        statuses=(413,),
        words="over",
    ),
    Wrong(
        name="a chunk that is none",
        body=b"zz\r\nabc\r\n0\r\n\r\n",
        headers={"Transfer-Encoding": "chunked", "Content-Length": LEAVE_OUT},
    ),
    Wrong(name="a length that is none", body=b"{}", headers={"Content-Length": "many"}),
    Wrong(name="a negative length", body=b"{}", headers={"Content-Length": "-2"}),
    Wrong(
        name="a length over the body's", body=b'{"prompt": "x"}', headers={"Content-Length": "99"}
    ),
    Wrong(
        name="a length below the body's", body=b'{"prompt": "x"}', headers={"Content-Length": "5"}
    ),
    Wrong(
        name="a length and chunks",
        body=b"0\r\n\r\n",
        headers={"Content-Length": "5", "Transfer-Encoding": "chunked"},
    ),
    Wrong(
        name="a header of 100,000 bytes",
        body=b"{}",
        headers={"X": "a" * 10**5},
        statuses=(400, 431),
    ),
    Wrong(
        name="an id of 10,000 letters",
        body=b"{}",
        headers={"x-request-id": "a" * 10**4},
        statuses=(400, 431),
    ),
)


RIGHT = Wrong(name="a right one", body=b'{"prompt": "x", "max_new_tokens": 1}')


def requests(port: int) -> list[Fault]:
    """Send each, and after each a right one."""
    faults = []
    for wrong in WRONG:
        status, sentence = send(port, wrong)
        alive = send(port, RIGHT)[0] == 200
        met = alive and status in wrong.statuses and wrong.words in sentence and sentence != ""
        said = f"{status} {sentence}" if alive else f"{status}, and the next is not answered"
        expected = " or ".join(map(str, wrong.statuses))
        faults.append(Fault(name=wrong.name, expected=expected, said=said, met=met))
    return faults


def send(port: int, wrong: Wrong) -> tuple[int, str]:
    """Status and sentence of the reply; 0 where there is none."""
    headers = {
        "Host": f"{HOST}:{port}",
        "Content-Type": "application/json",
        "Content-Length": str(len(wrong.body)),
        "Connection": "close",
        **wrong.headers,
    }
    lines = [f"{name}: {value}" for name, value in headers.items() if value != LEAVE_OUT]
    head = "\r\n".join([f"POST {wrong.path} HTTP/1.1", *lines])
    raw = bytearray()
    with socket.create_connection((HOST, port), timeout=30) as connection:
        try:
            connection.sendall(head.encode() + b"\r\n\r\n" + wrong.body)
            if wrong.ends:
                connection.shutdown(socket.SHUT_WR)
        except OSError:  # refused before all of it was sent; the reply may be there
            pass
        try:
            while piece := connection.recv(65536):
                raw += piece
        except OSError:
            pass
    if not raw:
        return 0, "no answer"
    status = int(raw.split(b" ", 2)[1])
    said = read(bytes(raw))
    text = said.text
    if not text or text == "None":  # gunicorn's own page, from before there is a request
        text = raw.partition(b"\r\n\r\n")[2].decode(errors="replace")
    return status, " ".join(text.split())


@dataclass(frozen=True, kw_only=True, slots=True)
class Start:
    """One server that cannot start, or does so nonetheless."""

    name: str
    words: str
    """In the sentence that ends its log; of one that starts, anywhere in it."""
    code: int | None = 3
    """Its exit code; None for one that must serve."""
    environ: Mapping[str, str] = field(default_factory=dict)
    spoil: Callable[[Path], object] = lambda folder: None
    """Makes the fault in a folder of links to the model's files."""
    most_bytes: int = 0
    """The largest file that it can write, as on a full disk; 0 for no limit."""


def _half(folder: Path) -> None:
    weights = min(folder.glob("*.safetensors"))
    with weights.open("rb") as file:
        start = file.read(min(MIB, weights.stat().st_size // 2))
    weights.unlink()
    weights.write_bytes(start)


def _without_a_shard(folder: Path) -> None:
    weights = min(folder.glob("*.safetensors"))
    weights.rename(folder / "model-00001-of-00002.safetensors")
    shards = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    index = folder / "model.safetensors.index.json"
    index.unlink(missing_ok=True)
    index.write_text(json.dumps({"weight_map": shards}))


def _broken(name: str, text: str) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        (folder / name).write_text(text)

    return spoil


STARTS = (
    Start(name="no model folder", words="is not a folder", spoil=shutil.rmtree),
    Start(name="half a weight file", words="cut short", spoil=_half),
    Start(name="a shard is missing", words="half a model", spoil=_without_a_shard),
    Start(
        name="config.json is cut off",
        words="config.json",
        spoil=_broken("config.json", '{"model_type": "gpt_oss", "hid'),
    ),
    Start(
        name="tokenizer.json is cut off",
        words="tokenizer",
        spoil=_broken("tokenizer.json", '{"version": "1.0", "trunc'),
    ),
    Start(
        name="a dtype that there is not",
        words="SERVE_DTYPE=int3 cannot be used",
        code=2,
        environ={"SERVE_DTYPE": "int3"},
    ),
    Start(
        name="a dtype that the engine cannot",
        words="has no float16",
        environ={"SERVE_DTYPE": "float16", "SERVE_ENGINE": "openvino", "SERVE_DEVICE": "cpu"},
    ),
    Start(name="disk full: the log", words="", code=None, most_bytes=2048),
    Start(
        name="disk full: the engine's cache",
        words="cannot hold the conversion",
        code=None,
        most_bytes=64 * 1024,
    ),
)
LIMITED = (
    "import os, resource, sys; most = int(sys.argv[1]);"
    "resource.setrlimit(resource.RLIMIT_FSIZE, (most, most));"
    "os.execv(sys.executable, [sys.executable, '-m', 'serve'])"
)


def starts(
    model: Path, folder: Path, chosen: Sequence[Start] = STARTS, *, engine: str = "auto"
) -> list[Fault]:
    """Start a server for each, two at a time."""
    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(lambda start: _start(start, model, folder, engine), chosen))


def _start(start: Start, model: Path, folder: Path, engine: str) -> Fault:
    place = folder / start.name.replace(" ", "-").replace(":", "")
    shutil.rmtree(place, ignore_errors=True)
    spoilt = place / "model"
    spoilt.mkdir(parents=True)
    for file in model.iterdir():
        (spoilt / file.name).symlink_to(file.resolve())
    start.spoil(spoilt)
    argv = (
        COMMAND if not start.most_bytes else (sys.executable, "-c", LIMITED, str(start.most_bytes))
    )
    cache = str((place / "cache").absolute())
    environ = {"SERVE_ENGINE": engine, "SERVE_ENGINE_CACHE": cache, **start.environ}
    with launched(spoilt, place, environ, argv) as server:
        try:
            if start.code is None:
                server.wait(START_SECONDS)
                status, said = send(server.port, RIGHT)
                met = status == 200 and start.words in server.log()
            else:
                code = server.process.wait(START_SECONDS)
                said = server.watched.last_words()
                met = code == start.code and start.words in said and said.startswith("serve: ")
                met = met and "Traceback" not in server.log()
                said = f"exit code {code}; {said}"
        except (ChildError, subprocess.TimeoutExpired) as error:
            met, said = False, str(error)
    expected = "serves" if start.code is None else f"exit code {start.code}"
    return Fault(name=start.name, expected=expected, said=said, met=met)


def shown(faults: Sequence[Fault]) -> str:
    """One line each: what, the verdict, what it said."""
    wide = max(len(fault.name) for fault in faults)
    return "\n".join(
        f"{fault.name.ljust(wide)}  {'met   ' if fault.met else 'MISSED'}  {fault.said[:150]}"
        for fault in faults
    )


def main(model: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        with started(model, Path(folder)) as server:
            print(shown(requests(server.port)), flush=True)
        print(shown(starts(model, Path(folder))))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
