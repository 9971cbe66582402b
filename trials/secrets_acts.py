"""The real things, done in a copy of this checkout with every secret planted in it.

    work = Workplace(folder, tag)       # the copy, its .env, and a server that tells all it is sent
    local(work); cloud(work); docker(work)
    work.said                           # folder: what every verb printed, by verb

Secrets stand in .env and, other values of them, in the environment, which wins. What the verbs make
of it is for secrets.py to look at; here only that they did it is checked, since a verb that ended
early would leave nothing to find.
"""

import contextlib
import http.client
import http.server
import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from trials.secrets_markers import plant

ROOT = Path(__file__).resolve().parent.parent
LEFT_OUT = (".git", ".venv", ".cache", "outputs", "tests", ".env", "config.json", "__pycache__")
NAMES = ("HF_TOKEN", "MLFLOW_TRACKING_TOKEN", "MLFLOW_TRACKING_PASSWORD", "AZURE_CLIENT_SECRET")
"""Secrets that are settings, in .env.example or of Azure's own login."""
OF_FILE, OF_ENVIRONMENT = "of .env", "of the environment"
PROMPT = "the prompt"
SERVE_KEY = "the local server's key"
CLIENT_KEY = "a client's own key"
TRACKER = "the password in MLFLOW_TRACKING_URI"
VAULT = "the hub token in the Key Vault"
ENDPOINT = "the endpoint's key"
QUICK = "training.max_steps=2 evaluation.rows=1 evaluation.max_new_tokens=4"
SECONDS = 600
IN_VAULT = """
import sys
from scripts.azure import vault
from scripts.azure.client import connect
vault.put(connect(), "hub-token", sys.stdin.read())
"""
NEW_KEY = """
import sys
from pathlib import Path
from scripts.azure.client import connect
cloud = connect()
place = f"{cloud.workspace.id}/onlineEndpoints/{sys.argv[1]}/regenerateKeys"
cloud.rest.post(place, {"keyType": "Primary", "keyValue": sys.stdin.read()}, "2023-04-01-preview")
"""
RECORDED = """
import runpy
runpy.run_module("scripts.azure.recording", run_name="__main__")
"""
CONTEXT = """
from types import SimpleNamespace
from scripts.azure import image_build
image_build.build("homeport.azurecr.io", SimpleNamespace(
    role="train", device="cpu", remote_tag="x", revision="x", inputs="x"))
"""


class ActError(RuntimeError):
    """Something that was to be done was not done, so that nothing can be said about it."""


class Telling(http.server.BaseHTTPRequestHandler):
    """A server that repeats in its error all that it was sent, headers and body, as some do."""

    def answer(self) -> None:
        size = int(self.headers.get("Content-Length") or 0)
        sent = {"headers": dict(self.headers), "body": self.rfile.read(size).decode()}
        text = f"not allowed: {json.dumps(sent)}"
        body = json.dumps({"error": text, "error_code": "PERMISSION_DENIED", "message": text})
        self.send_response(401, "Unauthorized")
        self.send_header("X-Error-Message", text.replace("\n", " "))
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())

    do_GET = do_POST = do_PUT = do_PATCH = do_HEAD = answer

    def log_message(self, format: str, *args: object) -> None:
        pass


class Workplace:
    """A copy of the checkout, and how verbs are run in it."""

    def __init__(self, folder: Path, tag: str) -> None:
        self.folder = folder / "home port"
        self.said = folder / "said"
        self.said.mkdir(parents=True)
        self.tag = tag
        self.values: dict[str, str] = {}
        self.port = free_port()
        self.copy()
        self.rehearsal: dict[str, str] = {}
        """Variables of the local Azure, once it is up."""

    def plant(self, name: str, *, prefix: str = "", suffix: str = "") -> str:
        """The value of a secret, from now on looked for."""
        value = plant(self.tag, name, prefix=prefix, **({"suffix": suffix} if suffix else {})).value
        self.values[name] = value
        return value

    def copy(self) -> None:
        """All of the checkout but what is made here, and the settings of somebody with secrets."""
        ignored = shutil.ignore_patterns(*LEFT_OUT, ".*_cache")
        shutil.copytree(ROOT, self.folder, ignore=ignored, symlinks=True)
        cache = self.folder / ".cache"
        cache.mkdir()
        (self.folder / "outputs").mkdir()
        for made in (ROOT / ".cache").glob("tiny-*"):  # a minute to make anew
            shutil.copytree(made, cache / made.name)
        if (ROOT / ".cache/azurite").is_dir():
            (cache / "azurite").symlink_to(ROOT / ".cache/azurite")
        lines = [f"{name}={self.plant(f'{name} {OF_FILE}')}\n" for name in NAMES]
        (self.folder / ".env").write_text("MLFLOW_TRACKING_USERNAME=me\n" + "".join(lines))
        (self.folder / ".env").chmod(0o600)
        key = cache / "serve-key"
        key.write_text(self.plant(SERVE_KEY))
        key.chmod(0o600)
        # what somebody may leave lying in a folder that images copy
        for place in ("train/.env", "serve/.secret", "data/.netrc", ".azureml/token.json"):
            path = self.folder / place
            path.parent.mkdir(exist_ok=True)
            path.write_text(self.values[f"HF_TOKEN {OF_FILE}"])

    def environment(self, *, exported: bool, more: Mapping[str, str]) -> dict[str, str]:
        """Of a verb: the caller's without the settings of ours, and the secrets if `exported`."""
        mine = ("HF_", "MLFLOW_", "AZURE_", "SERVE_", "RECIPE_", "PROMPT")
        kept = {n: v for n, v in os.environ.items() if not n.startswith(mine)}
        prefixes = {"HF_TOKEN": "hf_"}
        secrets = {
            n: self.plant(f"{n} {OF_ENVIRONMENT}", prefix=prefixes.get(n, "")) for n in NAMES
        }
        venv = os.environ.get("HOMEPORT_VENV") or str(ROOT / ".venv")
        return {
            **kept,
            "HOMEPORT_VENV": str(Path(venv).absolute()),
            # not by way of a version manager, whose helpers would have what the user exported
            "PYTHON": sys.executable,
            "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "2"),
            "HF_HUB_OFFLINE": "1",
            **(secrets if exported else {}),
            **more,
        }

    def make(
        self,
        target: str,
        variables: Mapping[str, str] | None = None,
        *,
        fails: bool | None = False,
        exported: bool = False,
    ) -> str:
        """Run a verb as a user does; its stdout.

        ActError where it ends otherwise than expected; with `fails=None` it may do either.
        """
        given = dict(variables or {})
        # by the environment, as make's own command line can be read by all
        prompt = {"PROMPT": given.pop("PROMPT")} if "PROMPT" in given else {}
        words = [f"{name}={value}" for name, value in given.items()]
        environ = self.environment(exported=exported, more={**self.rehearsal, **prompt})
        return self._run(target, ["make", "-s", target, *words], environ, fails=fails)

    def python(self, name: str, program: str, *words: str, stdin: str = "", **more: str) -> str:
        """Run a program with the verbs' own modules."""
        environ = self.environment(exported=False, more={**self.rehearsal, **more})
        return self._run(name, [sys.executable, "-c", program, *words], environ, stdin=stdin)

    def _run(
        self,
        name: str,
        command: list[str],
        environ: Mapping[str, str],
        *,
        fails: bool | None = False,
        stdin: str = "",
    ) -> str:
        print(f"  {name}", file=sys.stderr, flush=True)
        done = subprocess.run(
            command,
            cwd=self.folder,
            env=dict(environ),
            input=stdin,
            capture_output=True,
            text=True,
            timeout=SECONDS,
        )
        number = len(list(self.said.iterdir()))
        (self.said / f"{number:02}-{name}").write_text(f"{done.stdout}\n--\n{done.stderr}")
        if fails is not None and bool(done.returncode) != fails:
            for value in self.values.values():  # this line is printed, too
                done.stderr = done.stderr.replace(value, "…")
            raise ActError(f"{name} ended with {done.returncode}: {done.stderr.strip()[-1500:]}")
        return done.stdout

    def kept(self, name: str, text: str) -> None:
        """Keep what a program of ours was answered."""
        (self.said / f"{len(list(self.said.iterdir())):02}-{name}").write_text(text)


@contextlib.contextmanager
def telling() -> Iterator[str]:
    """Address of a server that answers 401 with all that it was sent."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Telling)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def local(work: Workplace, runtime: str = "host") -> None:
    """Train, serve, ask, read the log, and get all of it wrong."""
    port, prompt = str(work.port), work.plant(PROMPT, prefix="オーストラリアの首都は")
    where = {"RUNTIME": runtime}
    work.make("doctor", {"JSON": "1"}, exported=True, fails=None)  # it may find something
    with telling() as address:
        tracker = work.plant(TRACKER, suffix="0")
        work.rehearsal = {"MLFLOW_TRACKING_URI": f"http://me:{tracker}@{address}"}
        work.make("local-train", {"SET": QUICK, **where}, exported=True)
        work.rehearsal = {"HF_ENDPOINT": f"http://{address}", "HF_HUB_OFFLINE": "0"}
        work.make("local-serve", {"MODEL": "acme/gated", "PORT": port, **where}, fails=True)
        work.rehearsal = {}
    work.make("local-serve", {"PORT": port, "KEY": "1", **where}, exported=True)
    try:
        work.make("ask", {"PROMPT": prompt, "PORT": port})
        work.make("ask", {"PROMPT": prompt, "PORT": "1"}, fails=True)
        for number, (path, headers, body) in enumerate(wrong_requests(work, prompt)):
            work.kept(f"answer-{number}", ask(work.port, path, headers, body))
        if runtime == "host":
            crash(work, prompt)
        work.kept("log", work.make("local-logs", {"PORT": port}))
    finally:
        work.make("local-stop", where)


def wrong_requests(work: Workplace, prompt: str) -> Iterator[tuple[str, dict[str, str], bytes]]:
    """Requests that must not be repeated by log or answer, each wrong in its own way."""
    own, key = work.plant(CLIENT_KEY), work.values[SERVE_KEY]
    chat = {"messages": [{"role": "user", "content": prompt}], "max_tokens": 4}
    sent = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    yield "/v1/chat/completions", sent, json.dumps(chat).encode()
    yield "/v1/chat/completions", sent, json.dumps({**chat, "stream": True}).encode()
    yield "/score", {**sent, "Authorization": f"Bearer {own}"}, json.dumps(chat).encode()
    yield "/score", {"api-key": own}, json.dumps(chat).encode()
    for body in (
        {**chat, "temperature": "hot"},
        {**chat, "messages": [{"role": "narrator", "content": prompt}]},
        {**chat, "messages": [{"role": "user", "content": f"<|start|>{prompt}"}]},
        {**chat, "max_tokens": 10**9},
        {"prompt": [prompt, 5]},
        {"prompt": prompt * 2000},
        {"input_data": {"input_string": [prompt], "parameters": {"x": prompt}}},
    ):
        yield "/score", sent, json.dumps(body).encode()
    yield "/score", sent, json.dumps(chat).encode()[:-3]
    yield "/v1/chat/completions", sent, prompt.encode("utf-16")
    yield f"/v1/models/{own}?api-key={own}", {}, b""
    yield "/nowhere", {**sent, "Cookie": f"session={own}", "Referer": f"http://x/?k={own}"}, b"{"


def crash(work: Workplace, prompt: str) -> None:
    """Let the engine die of a fault with a prompt in it, and its request be told so."""
    body = {"prompt": prompt, "max_new_tokens": 400}
    key = {"Authorization": f"Bearer {work.values[SERVE_KEY]}"}
    answers: list[str] = []
    asking = threading.Thread(
        target=lambda: answers.append(ask(work.port, "/score", key, json.dumps(body).encode()))
    )
    asking.start()
    time.sleep(0.3)
    for process in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            if (
                b"serve.engine.process" in (process / "cmdline").read_bytes()
                and str(work.folder).encode() in (process / "environ").read_bytes()
            ):
                os.kill(int(process.name), signal.SIGSEGV)
    asking.join()
    work.kept("answer-crash", answers[0])


def ask(port: int, path: str, headers: dict[str, str], body: bytes) -> str:
    """Status, headers and body that our server answers."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    try:
        method = "POST" if body else "GET"
        connection.request(method, path, body or None, headers)
        answer = connection.getresponse()
        return f"{answer.status}\n{answer.headers}\n{answer.read().decode(errors='replace')}"
    finally:
        connection.close()


def cloud(work: Workplace) -> None:
    """Plan, train, deploy and ask against a local Azure of this machine, and get it wrong."""
    prompt = work.plant(PROMPT, prefix="オーストラリアの首都は")
    recipe = {"RECIPE": "recipes/rehearsal.yaml"}
    quick = f"{QUICK} cloud.endpoint=quick"
    work.make("rehearsal-up", {"RUNTIME": "host"}, exported=True)
    try:
        lines = (work.folder / ".cache/rehearsal/env").read_text()
        work.rehearsal = dict(word.split("=", 1) for word in shlex.split(lines))
        work.values["the local Azure's own login"] = work.rehearsal["AZURE_CLIENT_SECRET"]
        token = work.plant(VAULT, prefix="hf_")
        work.python("vault", IN_VAULT, stdin=token)
        work.make("cloud-plan", {"SET": quick, "SPECS": "outputs/specs", **recipe})
        tokened = f"{quick} cloud.hub_token_secret=hub-token"
        job = json.loads(
            work.make("cloud-train", {"SET": tokened, "YES": "1", "JSON": "1", **recipe})
        )["job"]
        work.make("cloud-logs", {"JOB": job, **recipe})
        work.make("cloud-download", {"JOB": job, "SET": tokened, **recipe})
        absent = f"{quick} cloud.hub_token_secret=absent training.seed=9"
        work.make("cloud-train", {"SET": absent, "YES": "1", **recipe}, fails=True)
        work.make("cloud-deploy", {"SET": quick, "YES": "1", **recipe})
        work.python("new-key", NEW_KEY, "quick", stdin=work.plant(ENDPOINT))
        time.sleep(1)
        work.make("cloud-key", {"SET": quick, **recipe})
        work.make("ask", {"TARGET": "cloud", "PROMPT": prompt, "SET": quick, **recipe})
        work.make("cloud-status", {"JSON": "1"})
        work.python("recording", RECORDED, "outputs/recording.json", "scripts.cloud_status")
        login = work.rehearsal.pop("AZURE_CLIENT_SECRET")
        work.make("cloud-status", fails=True)  # with the secret of .env
        work.make("cloud-status", fails=True, exported=True)
        work.rehearsal["AZURE_CLIENT_SECRET"] = login
        control = work.rehearsal["HOMEPORT_REHEARSAL_CONTROL"].rpartition(":")[2]
        fault = {"kind": "status", "status": 403, "path": "listSecrets", "times": 1}
        ask(int(control), "/faults", {}, json.dumps(fault).encode())
        work.make("cloud-download", {"JOB": job, "SET": tokened, **recipe}, fails=None)
        work.make("cloud-down", {"YES": "1", "SET": quick, **recipe})
        # what it was asked, and the storage, which go with it
        kept = work.folder / "outputs/local-azure"
        shutil.copytree(work.folder / ".cache/rehearsal", kept)
    finally:
        work.make("rehearsal-down", {"RUNTIME": "host"})
        work.rehearsal = {}


def build(work: Workplace) -> list[Path]:
    """Build both images with secrets lying about; what went to the builder, to be looked at."""
    environ = work.environment(exported=True, more={})
    arguments = [
        f"--build-arg={name}={value}"
        for name, value in (
            ("BASE_IMAGE", environ.get("HOMEPORT_BASE_IMAGE", "")),
            ("TORCH_INDEX", environ.get("HOMEPORT_TORCH_INDEX", "")),
        )
        if value
    ]
    for target in ("train", "serve"):
        tag = f"homeport-secrets-{target}:trial"
        command = ["docker", "build", "-q", "-f", "images/Dockerfile", "--target", target]
        work._run(f"build-{target}", [*command, *arguments, "-t", tag, "."], environ)
    sent = work.folder.parent / "context.tar"
    everything = "FROM scratch\nCOPY . /\n"
    command = ["docker", "build", "-q", "-f", "-", f"--output=type=tar,dest={sent}", "."]
    work._run("context", command, environ, stdin=everything)
    return [sent, pushed(work)]


def pushed(work: Workplace) -> Path:
    """What PUSH=build would send to the registry, taken by a program in the place of az."""
    tools, sent = work.folder.parent / "tools", work.folder.parent / "pushed"
    tools.mkdir()
    az = tools / "az"
    az.write_text(f'#!/bin/sh\ncp -R . "{sent}"; env > "{sent}/its environment"; echo "$@"\n')
    az.chmod(0o755)
    work.python("push-build", CONTEXT, PATH=f"{tools}:{os.environ['PATH']}")
    return sent


def remove() -> None:
    """Take away the images that this trial built."""
    tags = [f"homeport-secrets-{target}:trial" for target in ("train", "serve")]
    command = ["docker", "image", "rm", *tags]
    subprocess.run(command, capture_output=True)
