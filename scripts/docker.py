"""Train and serve in the containers of docker-compose.yml, as the caller's user.

The model is mounted as Azure ML mounts it: AZUREML_MODEL_DIR=/var/azureml-app/azureml-models/
<name>/<version>, which contains the model's folder.
"""

import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from scripts.child import run_to_end
from scripts.console import is_terminal, say
from scripts.errors import CommandError, MachineError, UsageError
from scripts.handed import VARIABLE, handed
from scripts.runtime import Choice, probe
from scripts.settings import CACHE, GIGABYTE, OUTPUTS, ROOT, SECRET, overrides_in

IMAGE_BYTES = {"cpu": 5 * GIGABYTE, "cuda": 16 * GIGABYTE}
IMAGE_USER = 1000
"""Uid of the images' own user; runs for a caller who is root."""
LOG_TAIL = 15
"""Lines of a server that did not start."""
HOME = "/opt/homeport"
LOGINS = ("AWS_", "DOCKER_", "GOOGLE_")
"""Variables that the engine's credential helpers read."""
CONFINED = (
    *("--network=none", "--read-only", "--tmpfs=/tmp", "--cap-drop=ALL"),
    *("--security-opt=no-new-privileges", "--pids-limit=512"),
)
"""Of a container that only looks into its image; the others have theirs in docker-compose.yml."""
CODE: dict[str, tuple[str, ...]] = {
    "train": ("train", "data"),
    "serve": ("serve",),
    "debug": ("serve",),
    "track": (),
    "azure": ("emulator",),
}
"""Folders that the images copy."""
LOCKS: dict[str, tuple[str, ...]] = {
    "train": ("torch.txt", "train.txt"),
    "serve": ("torch.txt", "serve.txt", "openvino.txt"),
    "debug": ("torch.txt", "serve.txt", "openvino.txt", "debug.txt"),
    "track": ("track.txt",),
    "azure": ("emulator.txt", "azurite/package-lock.json", "registry.yml"),
}
"""What is installed in the images, below images/."""


class Compose:
    """`docker compose` with this checkout's project, device and user."""

    def __init__(self, environ: Mapping[str, str], device: Choice) -> None:
        self.device = device.value
        # a container of a root caller runs as the images' user, and the result is handed over after
        self.as_root = os.getuid() == 0
        uid, gid = (IMAGE_USER, IMAGE_USER) if self.as_root else (os.getuid(), os.getgid())
        self.given = dict(environ)
        # what compose needs of it: not our secrets, but what logs the engine in to registries
        self.environ = {
            **{n: v for n, v in environ.items() if not SECRET.fullmatch(n) or n.startswith(LOGINS)},
            "HOMEPORT_DEVICE": device.value,
            "HOMEPORT_UID": str(uid),
            "HOMEPORT_GID": str(gid),
            "HOMEPORT_REVISION": revision(),
            "COMPOSE_PROJECT_NAME": project(),
            "COMPOSE_FILE": os.pathsep.join(
                ["docker-compose.yml"]
                + (["docker-compose.gpu.yml"] if device.value == "cuda" else [])
            ),
        }
        for folder in (OUTPUTS, CACHE):
            folder.mkdir(exist_ok=True)

    def run(
        self,
        *arguments: str,
        extra: Mapping[str, str] | None = None,
        quiet: bool = False,
        container: str | None = None,
    ) -> int:
        """Run a compose command from the checkout; its output goes to the user's stderr.

        Signals are passed on to `container`, if that is what runs, and its end is waited for.
        """
        progress = "auto" if is_terminal(sys.stderr) else "plain"
        command = ["docker", "compose", "--progress", progress, *arguments]
        environ = {**self.environ, **(extra or {})}
        with networks_locked(fcntl.LOCK_SH):
            if container:
                return run_to_end(command, cwd=ROOT, env=environ, container=container)
            return subprocess.run(
                command,
                cwd=ROOT,
                env=environ,
                stdout=subprocess.DEVNULL if quiet else 2,
                stderr=subprocess.DEVNULL if quiet else None,
            ).returncode

    def build(self, name: str, *, service: str = "", files: str = "") -> None:
        """Build the service's image, unless it was built from these very inputs before.

        Asking the builder would need the base image's registry, even where all layers are here.
        Where `service` is given, it gets the image of this name by the compose files given too.
        """
        image = f"homeport-{name}:{self.device}"
        label = '{{index .Config.Labels "homeport.inputs"}}'
        code, built_from = probe(["docker", "image", "inspect", image, "--format", label])
        now = inputs(name, self.environ)
        if not code and built_from == now:
            say(f"image: {image} (built before)")
            return
        _refuse_logins(self.environ)
        say(f"image: building {image}; the first time takes minutes")
        if code:
            self._need_disk()
        extra = {"HOMEPORT_INPUTS": now, **({"COMPOSE_FILE": files} if files else {})}
        if self.run("build", service or name, extra=extra):
            raise MachineError(
                f"image {image} could not be built; the reason stands above. If the base image or "
                "torch cannot be downloaded, set HOMEPORT_BASE_IMAGE and HOMEPORT_TORCH_INDEX."
            )

    def _need_disk(self) -> None:
        code, root = probe(["docker", "info", "--format", "{{.DockerRootDir}}"])
        if code or not Path(root).is_dir():
            return  # the engine runs in a virtual machine, whose disk is not ours to see
        free = shutil.disk_usage(root).free
        if free < IMAGE_BYTES[self.device]:
            raise MachineError(
                f"the images need {IMAGE_BYTES[self.device] / GIGABYTE:.0f} GB in {root}; it has "
                f"{free / GIGABYTE:.1f} GB free: docker system prune"
            )

    def train(
        self,
        recipe: Path,
        overrides: Sequence[str],
        paths: Mapping[str, Path],
        flags: Sequence[str] = (),
    ) -> None:
        """Train in the container. `paths` are the recipe's files and folders on this machine.

        Those outside the mounted folders are mounted on their own, read-only, and the recipe is
        overridden to find them there.
        """
        self.build("train")
        mounts: list[dict[str, Any]] = []
        moved: list[str] = []
        for key, path in paths.items():
            inside = _inside(path)
            if inside is None:
                inside = f"/mnt/{key}/{path.name}"
                bind = {"type": "bind", "source": str(path), "target": inside}
                mounts.append({**bind, "read_only": True})
            if key != "recipe":
                moved.append(f"{key}={json.dumps(inside)}")  # quoted, as YAML reads it
        recipe_inside = _inside(recipe) or f"/mnt/recipe/{recipe.name}"
        if code := self._run_train(mounts, ["train", *flags, recipe_inside, *overrides, *moved]):
            if "--check" in flags:
                raise CommandError("this cannot be trained yet; the reason stands above.", code)
            raise CommandError("training did not finish; its own message stands above.", code)

    def download(self, model: str) -> Path:
        """Download a hub model into .cache/models; its folder."""
        self.build("train")
        if code := self._run_train([], ["train.download", model, ".cache/models"]):
            raise CommandError(f"{model} was not downloaded; the reason stands above.", code)
        return CACHE / "models" / model.replace("/", "--")

    def _run_train(self, mounts: Sequence[Mapping[str, Any]], module: list[str]) -> int:
        """`python -m MODULE …` in the train container; afterwards all files are the caller's."""
        container = f"{project()}-train-{os.getpid()}"
        names = overrides_in(self.environ)
        variables = [part for name in sorted(names) for part in ("--env", name)]
        files = self.environ["COMPOSE_FILE"]
        with handed(self.given, CACHE) as secrets, mounted(mounts, files) as extra:
            if secrets:
                variables += ["--env", f"{VARIABLE}={HOME}/.cache/{secrets.name}"]
            if self.as_root:
                give(OUTPUTS, IMAGE_USER)
                give_cache(IMAGE_USER)
            try:
                return self.run(
                    *("run", "--rm", "--no-TTY", "--name", container, *variables),
                    *("train", "python", "-m", *module),
                    extra=extra,
                    container=container,
                )
            finally:
                drop_networks()
                if self.as_root:
                    give(OUTPUTS, 0)
                    give_cache(0)

    def serve(
        self,
        name: str,
        folder: Path,
        port: int,
        *,
        watch: bool = False,
        debug: int = 0,
        bind: str = "127.0.0.1",
        key: Path | None = None,
    ) -> None:
        """Start the server on `folder` and wait until it answers.

        With `watch` it runs this checkout's serve/ and takes edits of it; at the port `debug` a
        debugger can attach. The port is this machine's at `bind`; with `key`, the file that
        docker-compose.key.yml names, it answers only whoever sends that.
        """
        if (folder / "adapter_config.json").is_file():
            raise UsageError(
                "an adapter alone is not served in Docker, where its base is not mounted: add "
                "RUNTIME=host, or serve the merged folder."
            )
        files = self.environ["COMPOSE_FILE"].split(os.pathsep)
        files += ["docker-compose.watch.yml"] if watch else []
        files += ["docker-compose.debug.yml"] if debug else []
        files += ["docker-compose.key.yml"] if key else []
        if debug:
            self.build("debug", service="serve", files=os.pathsep.join(files))
        else:
            self.build("serve")
        engine = CACHE / "engine"  # what an engine makes of the weights, kept for the next start
        engine.mkdir(exist_ok=True)
        if self.as_root:
            give(engine, IMAGE_USER)
            if key:
                give(key, IMAGE_USER)
        variables = {
            "COMPOSE_FILE": os.pathsep.join(files),
            "MODEL_FOLDER": str(folder),
            "MODEL_FOLDER_NAME": folder.name,
            "MODEL_NAME": name,
            "PORT": str(port),
            "BIND": bind,
            **({"DEBUG_PORT": str(debug)} if debug else {}),
            "PATHS_FROM_ECLIPSE_TO_PYTHON": json.dumps([[str(ROOT), HOME]]),
        }
        if self.run("up", "--detach", "--wait", "serve", extra=variables):
            say("\n".join(self.log(port).splitlines()[-LOG_TAIL:]))
            self.remove("serve")
            raise MachineError("the server did not start; its last lines stand above.")

    def log(self, port: int) -> str:
        """All that the server wrote since it started."""
        # not by compose, which would clear lines of a terminal where there is none
        return subprocess.run(
            ["docker", "logs", f"{project()}-serve-1"],
            env=self.environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        ).stdout

    def follow(self, port: int) -> None:
        """Show the server's log as it grows, until interrupted."""
        command = ["docker", "logs", "--follow", "--tail", "100", f"{project()}-serve-1"]
        subprocess.run(command, env=self.environ, stdout=2)

    def running(self) -> list[int]:
        """Ports of this checkout's servers that are alive."""
        labels = ("homeport.role=serve", f"com.docker.compose.project={project()}")
        filters = [f"--filter=label={label}" for label in labels]
        code, found = probe(["docker", "ps", "--format={{.Ports}}", *filters])
        # a line reads 127.0.0.1:5001->5001/tcp, 127.0.0.1:5678->5678/tcp
        return [int(port) for port in re.findall(r":(\d+)->5001/", found)] if not code else []

    def up(self, services: Sequence[str]) -> list[str]:
        """Those of the services that have a container, running or not."""
        label = f"label=com.docker.compose.project={project()}"
        shown = '{{.Label "com.docker.compose.service"}}'
        code, found = probe(["docker", "ps", "--all", f"--format={shown}", f"--filter={label}"])
        return [] if code else [name for name in found.split() if name in services]

    def stop(self, port: int) -> bool:
        """End this checkout's server; False where none runs on `port`."""
        if port not in self.running():
            return False
        self.remove("serve")
        return True

    def remove(self, *services: str) -> None:
        """End the services' containers; a network that nothing uses any more goes with them."""
        self.run("rm", "--stop", "--force", *services, quiet=True)
        drop_networks()


def inputs(service: str, environ: Mapping[str, str]) -> str:
    """Hash of all that the service's image is built from: files, their names, and arguments."""
    digest = hashlib.sha256()
    for name in ("DEVICE", "BASE_IMAGE", "TORCH_INDEX", "VLLM"):
        digest.update(f"{name}={environ.get(f'HOMEPORT_{name}', '')}\n".encode())
    images = [ROOT / "images" / name for name in ("Dockerfile", *LOCKS[service])]
    folders = [ROOT / name for name in CODE[service]]
    code = (p for folder in folders for p in folder.rglob("*") if "__pycache__" not in p.parts)
    for path in sorted([*images, *(p for p in code if p.is_file())]):
        digest.update(f"{path.relative_to(ROOT)}\n".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


@contextmanager
def mounted(mounts: Sequence[Mapping[str, Any]], files: str) -> Iterator[dict[str, str]]:
    """COMPOSE_FILE with these mounts of the train container besides.

    No path with a colon fits into the flag for it. In the file a `$` is compose's unless it is two.
    """
    if not mounts:
        yield {}
        return
    more = CACHE / f"mounts-{os.getpid()}.json"
    text = json.dumps({"services": {"train": {"volumes": mounts}}})
    more.write_text(text.replace("$", "$$"))
    try:
        yield {"COMPOSE_FILE": os.pathsep.join([files, os.path.relpath(more, ROOT)])}
    finally:
        more.unlink()


def _refuse_logins(environ: Mapping[str, str]) -> None:
    """UsageError where a build argument holds a password: docker history would show it for ever."""
    for name in ("HOMEPORT_TORCH_INDEX", "HOMEPORT_VLLM"):
        if re.search(r"://[^/\s]*@", environ.get(name, "")):
            raise UsageError(
                f"{name} holds a login, which everyone who gets the image could read: name an "
                "index that asks for none, or a base image that has pip's settings "
                "(HOMEPORT_BASE_IMAGE, HOMEPORT_TORCH_INDEX=pip)."
            )


def _inside(path: Path) -> str | None:
    """Where the train container sees `path`, or None where no mount covers it."""
    for folder in ("outputs", ".cache", "recipes", "data"):
        if path.is_relative_to(ROOT / folder):
            return f"{HOME}/{path.relative_to(ROOT)}"
    return None


def give(folder: Path, uid: int) -> None:
    """Make `folder` and all in it belong to `uid`; only root can, and only root needs to."""
    for path in [folder, *folder.rglob("*")]:
        os.chown(path, uid, uid, follow_symlinks=False)


def give_cache(uid: int) -> None:
    """Make .cache belong to `uid`, but for what a local Azure or a server may be using."""
    os.chown(CACHE, uid, uid)
    for path in CACHE.iterdir():
        if not path.name.startswith(("rehearsal", "serve-key")):
            give(path, uid)


def drop_networks() -> None:
    """Remove this checkout's networks that no container uses; the engine keeps the others.

    An engine has addresses for some thirty networks, which a few idle checkouts would use up.
    While another verb runs compose, which makes a network first and then what uses it, they stay.
    """
    with networks_locked(fcntl.LOCK_EX | fcntl.LOCK_NB) as alone:
        if alone:
            label = f"label=com.docker.compose.project={project()}"
            code, found = probe(["docker", "network", "ls", "--quiet", f"--filter={label}"])
            if not code and found:
                probe(["docker", "network", "rm", *found.split()])


@contextmanager
def networks_locked(how: int) -> Iterator[bool]:
    """A lock that verbs share while they run compose, and one that drops networks has alone.

    False where another verb has it; a disk without locks is taken for free.
    """
    free = True
    with (CACHE / "networks.lock").open("a+") as lock:
        try:
            fcntl.flock(lock, how)
        except BlockingIOError:
            free = False
        except OSError:
            pass
        yield free


def project() -> str:
    """Compose's project name: one per checkout, so that two clones do not stop each other."""
    return f"homeport-{hashlib.sha256(str(ROOT).encode()).hexdigest()[:8]}"


def revision() -> str:
    """The commit of the checkout, for the images' label; marked where the tree differs from it."""
    code, commit = probe(["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=40"])
    return "unknown" if code else commit
