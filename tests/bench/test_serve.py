import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from bench import serve, serve_inputs, serve_load, serve_report, serve_watch
from bench.serve_cells import (
    JUDGED,
    MIXED,
    Cell,
    CellError,
    Load,
    better,
    cell,
    grid,
    percentile,
    roofline,
)
from bench.serve_inputs import Prompts
from bench.serve_sides import BARE, LLAMA_CPP, OURS, RIVALS, SEED, TRANSFORMERS, VLLM, ours
from bench.serve_watch import Watched
from bench.table import ChildError, child

USAGE = {"prompt_tokens": 3, "completion_tokens": 2}
SMALL = {
    "num_hidden_layers": 2,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "tie_word_embeddings": True,
}


class Handler(BaseHTTPRequestHandler):
    """Answers in each way that a server may frame an answer."""

    protocol_version = "HTTP/1.1"
    connections: set[int]
    under_way = 0
    most_under_way = 0
    lock = threading.Lock()

    def do_GET(self) -> None:
        if self.path == "/stuck":
            time.sleep(2.5)
        self._whole(b"ok")

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        type(self).connections.add(id(self.connection))
        with self.lock:
            type(self).under_way += 1
            type(self).most_under_way = max(self.most_under_way, self.under_way)
        time.sleep(0.02)
        with self.lock:
            type(self).under_way -= 1
        text = json.dumps({"output": "ab", "usage": USAGE}).encode()
        match self.path:
            case "/whole":
                self._whole(text)
            case "/close":
                self._whole(text, close=True)
            case "/refused":
                self._whole(b'{"error": "too many"}', status=429)
            case "/cut":
                self._whole(text[:-5])
            case "/chunked":
                self._chunks([text[:7], text[7:]])
            case "/stream":
                usage = {"choices": [], "usage": USAGE}
                events = [{"choices": [{"delta": {"role": "assistant", "content": ""}}]}]
                events += [{"choices": [{"delta": {"content": letter}}]} for letter in "ab"]
                lines = [f"data: {json.dumps(event)}\n\n".encode() for event in [*events, usage]]
                self._chunks([*lines, b"data: [DONE]\n\n"], kind="text/event-stream", wait=0.1)

    def _whole(self, body: bytes, *, status: int = 200, close: bool = False) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        if close:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)

    def _chunks(
        self, pieces: list[bytes], *, kind: str = "application/json", wait: float = 0
    ) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for piece in [*pieces, b""]:
            self.wfile.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
            time.sleep(wait)

    def handle(self) -> None:
        with contextlib.suppress(ConnectionError):  # a probe that was given up
            super().handle()

    def log_message(self, *_: Any) -> None:
        """Not a word."""


@pytest.fixture
def port() -> Iterator[int]:
    Handler.connections, Handler.most_under_way = set(), 0
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


def load(port: int, path: str, count: int = 6, **more: Any) -> dict[str, Any]:
    job = {
        "port": port,
        "callers": 3,
        "asks": [(path, "{}")] * count,
        "warm": [(path, "{}")],
        "probe": "/",
        "limit_seconds": 20.0,
        "server": [],
        "layer": [os.getpid()],
    }
    return serve_load.run(serve_load.Job(**{**job, **more}))


def measured(side: str = OURS, **more: Any) -> Cell:
    figures: dict[str, Any] = {
        "shape": JUDGED,
        "callers": 16,
        "streamed": False,
        "requests": 48,
        "tokens_per_second": 1000.0,
        "p50": 1.0,
        "p95": 1.1,
        "p99": 1.2,
        "first_p50": None,
        "first_p95": None,
        "probe": None,
        "layer_cpu": None,
        "load_cpu": 0.02,
        "others": 0.0,
    }
    return Cell(side=side, **{**figures, **more})


@pytest.mark.parametrize("path", ["/whole", "/close", "/chunked"])
def test_an_answer_is_read_however_it_is_framed(port: int, path: str) -> None:
    done = load(port, path)
    assert len(done["answers"]) == 6
    assert {answer["error"] for answer in done["answers"]} == {""}
    assert {(a["prompt_tokens"], a["new_tokens"], a["first"]) for a in done["answers"]} == {
        (3, 2, None)
    }
    assert all(0.02 <= answer["seconds"] <= done["seconds"] for answer in done["answers"])


def test_as_many_requests_are_under_way_as_there_are_callers(port: int) -> None:
    load(port, "/whole", count=12)
    assert Handler.most_under_way == 3


def test_a_stream_says_when_its_first_text_came_not_its_first_event(port: int) -> None:
    answers = load(port, "/stream")["answers"]
    assert {(a["prompt_tokens"], a["new_tokens"], a["error"]) for a in answers} == {(3, 2, "")}
    for answer in answers:
        assert 0.1 <= answer["first"] < answer["seconds"] - 0.2


@pytest.mark.parametrize(
    ("path", "error"),
    [("/refused", '429 Too Many Requests {"error": "too many"}'), ("/cut", "an answer cut short")],
)
def test_what_is_no_answer_is_an_error_with_the_servers_words(
    port: int, path: str, error: str
) -> None:
    assert all(error in answer["error"] for answer in load(port, path)["answers"])


def test_a_server_that_is_not_there_is_an_error_of_each_request() -> None:
    answers = load(serve.free_port(), "/whole")["answers"]
    assert [answer["error"] for answer in answers] == ["no answer"] * 6


def test_a_request_past_the_limit_is_an_error(port: int) -> None:
    answers = load(port, "/stream", limit_seconds=0.7)["answers"]
    assert any(answer["error"] for answer in answers)


def test_the_probe_is_timed_beside_the_load_and_gives_up_after_two_seconds(port: int) -> None:
    assert all(0 < probe < 0.5 for probe in load(port, "/stream", count=9)["probes"])
    slow = load(port, "/stream", count=18, probe="/stuck")["probes"]
    assert slow
    assert all(2 <= probe < 2.4 for probe in slow)


@pytest.mark.parametrize(("percent", "value"), [(50, 2.0), (95, 4.0), (99, 4.0), (0, 1.0)])
def test_a_percentile_is_a_value_that_was_there(percent: int, value: float) -> None:
    assert percentile([4.0, 1.0, 3.0, 2.0], percent) == value


def answered(**more: Any) -> dict[str, Any]:
    answer = {"seconds": 2.0, "first": 0.5, "prompt_tokens": 64, "new_tokens": 64, "error": ""}
    return {"seconds": 4.0, "other_seconds": 0.0, "answers": [answer | more, answer]}


def test_a_cell_counts_tokens_over_the_whole_run_and_cpu_per_request() -> None:
    done = answered() | {"layer_seconds": 0.01, "probes": [0.01, 0.03], "cpu_seconds": 0.2}
    made = cell(
        OURS, Load(shape=JUDGED, callers=1), streamed=True, measured=done, asked=[(64, 64)] * 2
    )
    assert made.tokens_per_second == 32
    assert (made.first_p50, made.probe, made.layer_cpu) == (0.5, 0.03, 0.005)
    assert made.load_cpu == 0.05
    assert roofline(made, 640e6, 10_000_000) == 0.5


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"error": "500 broken"}, "1 of 2 requests failed, first: 500 broken"),
        ({"new_tokens": 12}, "64 tokens in and 64 out was counted as 64 in and 12 out"),
        ({"prompt_tokens": 65}, "64 tokens in and 64 out was counted as 65 in and 64 out"),
    ],
)
def test_a_cell_is_refused_where_an_answer_is_not_what_was_asked(
    wrong: dict[str, Any], said: str
) -> None:
    with pytest.raises(CellError, match=said):
        cell(
            OURS,
            Load(shape=JUDGED, callers=1),
            streamed=False,
            measured=answered(**wrong),
            asked=[(64, 64)] * 2,
        )


def test_of_two_measurements_the_less_disturbed_counts() -> None:
    slow, fast = measured(tokens_per_second=500.0), measured(tokens_per_second=600.0)
    assert better(slow, fast) == better(fast, slow) == fast
    late = measured(streamed=True, first_p50=0.2, tokens_per_second=700.0)
    soon = measured(streamed=True, first_p50=0.1)
    assert better(late, soon) == better(soon, late) == soon


def test_the_grid_has_one_line_for_both_ways_of_asking() -> None:
    cells = [
        measured(probe=0.01, layer_cpu=0.0021),
        measured(streamed=True, first_p50=0.1, first_p95=0.2, probe=0.03, layer_cpu=0.009),
        measured(side=SEED),
    ]
    head, one, other = grid(cells, 32e9, 200_000_000).splitlines()
    assert head.split()[:3] == ["load", "callers", "side"]
    line = "64/64 16 homeport 1,000 39% 1.00 1.10 1.20 100 200 30 2.10 9.00 2% 0%"
    assert " ".join(one.split()) == line
    assert " ".join(other.split()) == "64/64 16 seed score.py 1,000 39% 1.00 1.10 1.20 0%"


@pytest.mark.parametrize("good", [True, False])
def test_every_promise_is_held_against_the_load_at_16_callers(good: bool) -> None:
    rivals = {SEED: 80.0, TRANSFORMERS: 490.0, BARE: 1100.0, VLLM: 990.0, LLAMA_CPP: 990.0}
    worse = 1.0 if good else 1.3
    cells = [
        measured(probe=0.1 * worse, layer_cpu=0.003 * worse),
        measured(streamed=True, first_p50=0.15 * worse, probe=0.1 * worse, layer_cpu=1.0),
        measured(side=BARE, streamed=True, first_p50=0.1),
        measured(callers=64, tokens_per_second=1.0, probe=9.0, layer_cpu=9.0),
        *(measured(side=name, tokens_per_second=speed * worse) for name, speed in rivals.items()),
    ]
    peaks = dict.fromkeys([OURS, *rivals], 2**30)
    by_key = {(c.side, c.shape, c.callers, c.streamed): c for c in cells}
    results = serve_report.report(by_key, peaks, 32e9, 200_000_000)
    judged = [result for result in results if result.target]
    assert [result.baseline for result in judged[:6]] == [*rivals, BARE]
    assert [result.met for result in judged] == [good] * 9
    assert [r.ratio for r in judged[:5]] == [1000 / (speed * worse) for speed in rivals.values()]


def test_what_could_not_be_had_has_no_row() -> None:
    only = {(OURS, JUDGED, 16, False): measured()}
    results = serve_report.report(only, {OURS: 2**30}, 32e9, 200_000_000)
    assert not [result for result in results if result.target]
    assert results[0].value == 1000


def test_an_ended_process_takes_its_descendants_with_it(tmp_path: Path) -> None:
    stubborn = (
        "import signal, time; signal.signal(15, signal.SIG_IGN); print(flush=True); time.sleep(60)"
    )
    code = f"""
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "{stubborn}"], stdout=-1)
child.stdout.read(1)  # the newline
held = bytearray(100_000_000)
print('{{"pid": %d}}' % child.pid, flush=True)
time.sleep(60)
"""
    argv = [sys.executable, "-c", code]
    with Watched(argv, dict(os.environ), tmp_path / "log", talks=True) as process:
        child_pid = process.answer(20)["pid"]
        assert process.tree() == [process.process.pid, child_pid]
        assert "time.sleep(60)" in serve_watch.command_line(child_pid)
        assert serve_watch.cpu_seconds(process.tree()) > 0
        assert 100_000_000 < serve_watch.memory_bytes(process.tree()) < 200_000_000
    assert not serve_watch.command_line(child_pid)


def test_a_process_that_ends_instead_of_answering_is_an_error(tmp_path: Path) -> None:
    argv = [sys.executable, "-c", "import sys; sys.exit('no such engine')"]
    with (
        Watched(argv, dict(os.environ), tmp_path / "log", talks=True) as process,
        pytest.raises(ChildError, match="it ended: no such engine"),
    ):
        process.answer(20)


def test_a_server_that_ends_at_its_start_says_why(tmp_path: Path) -> None:
    argv = [sys.executable, "-c", "import sys; sys.exit('no such model')"]
    with (
        Watched(argv, dict(os.environ), tmp_path / "log") as server,
        pytest.raises(serve.UnavailableError, match="ended at its start: no such model"),
    ):
        serve.wait_until_ready(server, serve.free_port(), ("/score", "{}"))


def test_the_bench_of_serving_imports_nothing_heavy() -> None:
    # its own memory and time at the start are not to disturb what it measures
    loaded, _ = child(
        "import bench.serve, json, sys; print(json.dumps({'modules': sorted(sys.modules)}))"
    )
    assert not {"torch", "transformers", "tokenizers", "openvino"} & set(loaded["modules"])


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bench-serve") / "small"
    serve_inputs.make(folder, vocabulary=1000, shape=SMALL)
    return folder


@pytest.mark.slow
def test_a_prompt_has_the_length_asked_for_once_the_template_is_applied(made: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(made / "model")
    prompts = Prompts(made / "words.json")
    drawn = [*prompts.equal(50), *prompts.mixed(50)]
    assert {len(prompt.ids) for prompt in drawn[:50]} == {64}
    assert all(16 <= len(p.ids) <= 256 and 16 <= p.new_tokens <= 192 for p in drawn[50:])
    assert len({prompt.text for prompt in drawn}) == 100
    for prompt in drawn:
        message = [{"role": "user", "content": prompt.text}]
        shown = tokenizer.apply_chat_template(message, add_generation_prompt=True, tokenize=False)
        assert tuple(tokenizer(shown)["input_ids"]) == prompt.ids
    again = Prompts(made / "words.json").equal(50)
    assert again == drawn[:50]


@pytest.mark.slow
def test_sides_answer_the_same_requests_and_are_measured(
    made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serve, "MODEL", made)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # two would wait for each other where others compute
    found = serve.Found()
    loads = [Load(shape=JUDGED, callers=2), Load(shape=MIXED, callers=2)]
    model = made / "model"
    seed = next(side for side in RIVALS if side.name == SEED)
    serve.measure(ours("transformers", made, container=False), model, loads, 0, found)
    serve.measure(seed, model, loads, 0, found)
    serve.measure_bare("transformers", model, loads, 0, found)
    for side, streams in ((OURS, True), (SEED, False), (BARE, True)):
        for one in loads:
            whole = found.cells[side, one.shape, 2, False]
            assert whole.tokens_per_second > 0
            assert whole.requests == 8
            assert ((side, one.shape, 2, True) in found.cells) == streams
    stream = found.cells[OURS, JUDGED, 2, True]
    assert stream.first_p50 is not None
    assert stream.first_p50 < stream.p50
    assert stream.layer_cpu is not None
    assert 0 < stream.layer_cpu < 0.1
    assert set(found.peaks) == {OURS, SEED, BARE}


def test_the_command_line_says_what_it_takes() -> None:
    asked = [sys.executable, "-m", "bench.serve", "--help"]
    said = subprocess.run(asked, capture_output=True, text=True, check=True).stdout
    for flag in ("--only", "--callers", "--rounds", "--engine", "--container"):
        assert flag in said
