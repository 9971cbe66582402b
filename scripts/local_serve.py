"""Serve a model on this machine as Azure ML would; without one, fine-tune it first."""

import argparse
import json
import re
import shlex
import socket
from collections.abc import Sequence
from pathlib import Path

from scripts.console import run_verb, say
from scripts.docker import Compose
from scripts.errors import MachineError, UsageError
from scripts.host import Host
from scripts.local_train import DEFAULT_RECIPE, choose, find_recipe, read_set, train
from scripts.models import Servable, differs, from_folder, need_memory, newest
from scripts.settings import flag_default, relative
from train.recipe import Recipe

SAMPLE = "オーストラリアの首都はどこですか？"
HUB_ID = re.compile(r"^[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*$")


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="make local-serve", description="Serve a model on this machine, on 127.0.0.1."
    )
    parser.add_argument("--recipe", type=Path, default=flag_default("RECIPE", DEFAULT_RECIPE))
    parser.add_argument(
        "--model", default=flag_default("MODEL"), help="model folder or hub id, instead of a recipe"
    )
    parser.add_argument("--port", default=flag_default("PORT", "5001"))
    parser.add_argument(
        "--runtime", default=flag_default("RUNTIME", "auto"), help="auto, docker or host"
    )
    parser.add_argument(
        "--watch", action="store_true", help="take edits of serve/ at once, and follow the log"
    )
    parser.add_argument(
        "--set", default=flag_default("SET"), help="overrides of the recipe, if it is trained now"
    )
    arguments = parser.parse_args()
    port = read_port(arguments.port)
    recipe = None
    if not arguments.model:  # a mistake in it is told before anything is installed
        recipe = find_recipe(arguments.recipe, read_set(arguments.set))
    elif not Path(arguments.model).is_dir() and not HUB_ID.match(arguments.model):
        raise UsageError(f"MODEL={arguments.model} is no folder, and no hub id like owner/name.")
    runtime = choose(arguments.runtime)
    need_port(runtime, port)
    if recipe is None:
        model = from_folder(fetch(runtime, arguments.model))
    else:
        model = trained(runtime, recipe, arguments.recipe, read_set(arguments.set))
    need_memory(model.folder)
    runtime.serve(model.name, model.folder, port, watch=arguments.watch)
    log = runtime.log(port)
    lines = re.findall(r"serving \S+ \(engine .*", log)
    say(f"{lines[-1] if lines else f'serving {model.name}'} at {address(port)}")
    say(f"try:  {curl(port, sample_request())}")
    say(f"page: http://127.0.0.1:{port}/playground, and the whole API at /docs")
    if arguments.watch:
        say("watching serve/: an edit of request handling is live at once; Ctrl-C ends the log")
        runtime.follow(port)


def read_port(text: str) -> int:
    """A port number; UsageError for anything else."""
    if not text.isdigit() or not 1024 <= int(text) <= 65535:
        raise UsageError(f"PORT is {text!r}: use a number from 1024 to 65535.")
    return int(text)


def need_port(runtime: Compose | Host, port: int) -> None:
    """MachineError where another program holds the port; our own server is replaced."""
    if port in runtime.running():
        return
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
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
            say(f"note:  the recipe has changed since; next: make local-train RECIPE={path}")
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


def curl(port: int, body: object) -> str:
    """The command line that sends `body`, to be copied as it stands."""
    text = json.dumps(body, ensure_ascii=False, separators=(",", ":"))
    content = shlex.quote("Content-Type: application/json")
    return f"curl -s {address(port)} -H {content} -d {shlex.quote(text)}"


if __name__ == "__main__":
    run_verb(main)
