"""Serve a model on this machine as Azure ML would; without one, fine-tune it first."""

import argparse
import json
import re
import shlex
import socket
from collections.abc import Sequence
from pathlib import Path

from scripts import local_key
from scripts.console import run_verb, say
from scripts.docker import Compose
from scripts.errors import MachineError, UsageError
from scripts.host import Host
from scripts.local_train import DEFAULT_RECIPE, choose, find_recipe, read_set, train
from scripts.models import Servable, differs, from_folder, need_memory, newest
from scripts.settings import flag_default, relative, typed
from train.recipe import Recipe

LOOPBACK, ANY = "127.0.0.1", "0.0.0.0"  # noqa: S104 - never without a key
SAMPLE = "オーストラリアの首都はどこですか？"
HUB_ID = re.compile(r"^[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*$")


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="make local-serve",
        description="Serve a model on this machine, for this machine unless BIND says more.",
    )
    parser.add_argument("--recipe", type=Path, default=flag_default("RECIPE", DEFAULT_RECIPE))
    parser.add_argument(
        "--model", default=flag_default("MODEL"), help="model folder or hub id, instead of a recipe"
    )
    parser.add_argument("--port", default=flag_default("PORT", "5001"))
    parser.add_argument(
        "--bind", default=flag_default("BIND", LOOPBACK), help=f"{LOOPBACK}, or {ANY} with a key"
    )
    parser.add_argument(
        "--key", default=flag_default("KEY"), help="1 = answer only whoever sends the key"
    )
    parser.add_argument(
        "--runtime", default=flag_default("RUNTIME", "auto"), help="auto, docker or host"
    )
    parser.add_argument(
        "--watch", action="store_true", help="take edits of serve/ at once, and follow the log"
    )
    parser.add_argument(
        "--debug", action="store_true", help="as --watch, and a debugger can attach to score.py"
    )
    parser.add_argument(
        "--debug-port", default=flag_default("DEBUG_PORT", "5678"), help="where it attaches"
    )
    parser.add_argument(
        "--set", default=flag_default("SET"), help="overrides of the recipe, if it is trained now"
    )
    arguments = parser.parse_args()
    port = read_port(arguments.port)
    with_key = read_key(arguments.key, read_bind(arguments.bind))
    debug = read_port(arguments.debug_port, "DEBUG_PORT") if arguments.debug else 0
    recipe = None
    if not arguments.model:  # a mistake in it is told before anything is installed
        recipe = find_recipe(arguments.recipe, read_set(arguments.set))
    elif not Path(arguments.model).is_dir() and not HUB_ID.match(arguments.model):
        raise UsageError(f"MODEL={arguments.model} is no folder, and no hub id like owner/name.")
    runtime = choose(arguments.runtime)
    need_port(runtime, port, arguments.bind)
    if debug and port not in runtime.running():
        need_port(runtime, debug)
    if recipe is None:
        model = from_folder(fetch(runtime, arguments.model))
    else:
        model = trained(runtime, recipe, arguments.recipe, read_set(arguments.set))
    need_memory(model.folder)
    watch = arguments.watch or arguments.debug
    key = local_key.make() if with_key else None
    runtime.serve(
        model.name, model.folder, port, watch=watch, debug=debug, bind=arguments.bind, key=key
    )
    log = runtime.log(port)
    lines = re.findall(r"serving .+? \(engine .*", log)
    say(f"{lines[-1] if lines else f'serving {model.name}'} at {address(port)}")
    say(f"try:  {curl(port, sample_request(), with_key=with_key)}")
    docs = "" if with_key else ", and the whole API at /docs"  # where no browser can send a key
    say(f"page: http://127.0.0.1:{port}/playground{docs}")
    if with_key:
        say("key:  make -s local-key; it goes as Authorization: Bearer KEY, or as api-key: KEY")
    if arguments.bind == ANY:
        say(
            f"reach: http://{own_address()}:{port} from other machines, in plain HTTP: only in a "
            "network that you trust"
        )
    if debug:
        say(f"debug: attach to 127.0.0.1:{debug}, in VS Code by F5 with 'Attach to score.py'")
    if watch:
        say("watching serve/: an edit of request handling is live at once; Ctrl-C ends the log")
        runtime.follow(port)


def read_port(text: str, name: str = "PORT") -> int:
    """A port number; UsageError for anything else."""
    if not text.isdigit() or not 1024 <= int(text) <= 65535:
        raise UsageError(f"{name} is {text!r}: use a number from 1024 to 65535.")
    return int(text)


def read_bind(text: str) -> str:
    """An address to listen on; UsageError for anything but the two."""
    if text not in (LOOPBACK, ANY):
        raise UsageError(
            f"BIND is {text!r}: use {LOOPBACK} (this machine) or {ANY} (whoever can reach it)."
        )
    return text


def read_key(text: str, bind: str) -> bool:
    """Whether a key is asked for; UsageError where that is refused and other machines can ask."""
    if text not in ("", "0", "1"):  # not repeated: it may be a key
        raise UsageError("KEY must be 1 or 0: the key itself is made for you; see make local-key.")
    if bind != LOOPBACK and text == "0":
        raise UsageError(
            f"BIND={bind} lets other machines ask, so it takes a key: leave out KEY=0."
        )
    return bind != LOOPBACK or text == "1"


def need_port(runtime: Compose | Host, port: int, bind: str = LOOPBACK) -> None:
    """MachineError where another program holds the port; our own server is replaced."""
    if port in runtime.running():
        return
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((bind, port))
        except OSError:
            raise MachineError(
                f"port {port} is in use by another program: make local-stop if it is a server of "
                f"the other runtime, or make local-serve PORT={port + 1}"
            ) from None


def fetch(runtime: Compose | Host, model: str) -> Path:
    """The folder of MODEL; a hub model is downloaded first, into .cache/models."""
    if Path(model).is_dir():
        return Path(model).resolve()
    return runtime.download(model)


def trained(
    runtime: Compose | Host, recipe: Recipe, path: Path, overrides: Sequence[str]
) -> Servable:
    """The newest run's model; trains where there is none yet."""
    run = newest(recipe)
    if run is None:
        say(f"outputs/{recipe.name} has no finished run: training {path} first")
        run = train(runtime, recipe, path, overrides)
    else:
        say(f"model: {relative(run)}/merged (the newest finished run)")
        if differs(recipe, run):
            say(f"note:  the recipe has changed since; next: make local-train RECIPE={typed(path)}")
    return from_folder(run / "merged")


def sample_request() -> dict[str, object]:
    """A request that every model here can answer, and the tiny one answers from its rows."""
    return {
        "messages": [
            {"role": "system", "content": "reasoning language: Japanese"},
            {"role": "user", "content": SAMPLE},
        ],
        "max_new_tokens": 500,
    }


def address(port: int) -> str:
    return f"http://127.0.0.1:{port}/score"


def own_address() -> str:
    """Of this machine, as its network knows it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # nothing is sent; it only picks the way out
        except OSError:
            return socket.gethostname()
        return str(probe.getsockname()[0])


def curl(port: int, body: object, *, with_key: bool = False) -> str:
    """The command line that sends `body`, to be copied as it stands.

    A key goes from its file to curl's input, where neither a shell's history nor `ps` shows it.
    """
    text = json.dumps(body, ensure_ascii=False, separators=(",", ":"))
    content = shlex.quote("Content-Type: application/json")
    command = f"curl -s {address(port)} -H {content} -d {shlex.quote(text)}"
    if not with_key:
        return command
    file = shlex.quote(relative(local_key.KEY_FILE))
    return f"sed 's/^/Authorization: Bearer /' {file} | {command} -H @-"


if __name__ == "__main__":
    run_verb(main)
