"""Run the local Azure until SIGTERM or Ctrl-C; `ready URL` on stdout says that it answers.

    python -m emulator --folder .cache/rehearsal

FOLDER/env holds the variables that clients need, FOLDER/journal what was asked and answered.
"""

import argparse
import shlex
import shutil
import signal
import socket
import threading
from contextlib import ExitStack
from pathlib import Path

from emulator import azurite, certificates
from emulator.azure import Settings
from emulator.nodes import NodeError, Nodes
from emulator.runner import CACHE
from emulator.server import Server, serve
from emulator.storage import AzuriteStorage

HURRY = 0.1
"""Stand-ins are ready at once, so probes need not wait as long as for a model."""


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m emulator", description=__doc__.split("\n")[0])
    parser.add_argument("--folder", type=Path, required=True, help="for all that it writes")
    parser.add_argument("--mode", choices=("docker", "host"), default="host", help="of the nodes")
    parser.add_argument("--bind", default="127.0.0.1", help="address of the proxy (%(default)s)")
    parser.add_argument(
        "--proxy-port", type=int, default=0, help="port of the proxy; 0: a free one"
    )
    parser.add_argument("--registry", default="", metavar="URL", help="the registry of images")
    parser.add_argument(
        "--engine-registry",
        default="",
        metavar="HOST:PORT",
        help="the same, as the engine dials it",
    )
    parser.add_argument("--network", default="", help="Docker network of jobs and deployments")
    parser.add_argument(
        "--train-image", default="train", metavar="IMAGE", help="trains for Azure's other routes"
    )
    parser.add_argument(
        "--serve-image", default="serve", metavar="IMAGE", help="serves models without an image"
    )
    parser.add_argument(
        "--cache", type=Path, metavar="FOLDER", help="for the tiny base model, which may stay"
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="stand-ins of a second for training and serving: for trials of the cloud verbs",
    )
    parser.add_argument(
        "--really", default="", metavar="NAME", help="with --quick: trains and serves this for real"
    )
    parser.add_argument(
        "--install", action="store_true", help="fetch what it lacks to run, and end; may take long"
    )
    given = parser.parse_args()
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    with ExitStack() as stack:
        try:
            found = azurite.find(Path(".cache/azurite").resolve())
            if given.install:
                return
            server = start(given, found, stack)
        except (azurite.AzuriteError, NodeError, OSError) as problem:
            raise SystemExit(f"error: {problem}") from None
        write_env(given.folder / "env", server)
        print(f"ready {server.proxy_url}", flush=True)  # noqa: T201 - who started us waits for it
        stop.wait()


def start(given: argparse.Namespace, azurite_blob: Path, stack: ExitStack) -> Server:
    """Start all parts, storage by that executable; `stack` ends them."""
    folder = given.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    for before in ("journal", "jobs", "deployments", "nodes", "tuned", "openai"):
        shutil.rmtree(folder / before, ignore_errors=True)
    settings = Settings(
        folder=folder,
        mode=given.mode,
        registry=given.registry,
        train_image=given.train_image,
        serve_image=given.serve_image,
        cache_folder=given.cache.resolve() if given.cache else None,
        hurry=HURRY if given.quick else 1.0,
    )
    files = certificates.ensure(folder / "pki")
    storage = azurite.start(azurite_blob, folder / "storage", settings.account, files)
    stack.callback(storage.close)
    nodes = nodes_of(given, folder / "nodes", files.ca)
    server = serve(
        settings,
        AzuriteStorage(settings.account, storage.key, storage.url, files.ca),
        nodes,
        bind=given.bind,
        proxy_port=given.proxy_port,
        node_host=socket.gethostname() if given.network else "127.0.0.1",
    )
    stack.callback(server.close)
    return server


def nodes_of(given: argparse.Namespace, folder: Path, ca: Path) -> Nodes:
    """Where jobs and deployments are to run."""
    if given.mode == "docker":
        from emulator.nodes.docker import DockerNodes

        own = (given.train_image, given.serve_image)
        return DockerNodes(given.engine_registry, given.network or None, ca, own)
    from emulator.nodes.host import HostNodes
    from emulator.nodes.quick import QuickHostNodes

    nodes = QuickHostNodes(folder, given.really) if given.quick else HostNodes(folder)
    if given.cache:  # runner.CACHE where there are no mounts; job.yml looks below TMPDIR
        given.cache.mkdir(parents=True, exist_ok=True)
        (folder / "tmp" / Path(CACHE).name).symlink_to(given.cache.resolve())
    return nodes


def write_env(path: Path, server: Server) -> None:
    """The client's variables as lines that a shell reads, for this user only."""
    part = path.with_name("env.part")
    part.touch(0o600)
    part.write_text("".join(f"{key}={shlex.quote(value)}\n" for key, value in server.env.items()))
    part.replace(path)


if __name__ == "__main__":
    main()
