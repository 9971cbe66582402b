"""Jobs and deployments as containers of the pushed images, as Azure's nodes run them.

    nodes = DockerNodes("127.0.0.1:8082", "homeport_rehearsal", ca)

An image is named by the workspace's registry (`<name>.azurecr.io/…@sha256:…`) and comes from the
very registry that was pushed to, which the engine knows by another address. Containers run without
root, capabilities and ways to gain them, and write into their mounts and /tmp alone. With `network`
they are reached by their name there; else on a port of 127.0.0.1, and they cannot reach this Azure.
Folders are mounted by this machine's paths, so a local Azure that is itself a container must see
them under the same ones.
"""

import contextlib
import os
import re
import threading
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emulator.nodes import Mount, NodeError, Program

if TYPE_CHECKING:
    from docker.models.containers import Container

IMAGE = re.compile(r"[a-z0-9]+\.azurecr\.io/([a-z0-9._/-]+)@(sha256:[0-9a-f]{64})", re.IGNORECASE)
CA_PATH = "/etc/homeport-rehearsal/ca.pem"
"""Where a container finds the authority of this Azure's certificates."""
ROLE = {"homeport.role": "rehearsal"}
NOBODY_IN_PARTICULAR = 1000
"""Whom containers run as where the caller is root; the images' own user."""
PROCESSES = 32768
"""As in docker-compose.yml: what forks without end ends there."""
KEPT = ("OMP_NUM_THREADS",)
"""Variables of this process that say what the machine is like, for the containers too."""
UNNAMED = re.compile(r"[^a-zA-Z0-9_.-]")


class DockerNodes:
    """Runs programs by the engine that docker's environment names."""

    mode = "docker"

    def __init__(
        self,
        engine_registry: str,
        network: str | None = None,
        ca: Path | None = None,
        own: Collection[str] = (),
    ) -> None:
        """`engine_registry` is HOST:PORT; NodeError where there is no engine.

        `own` are images of this engine, by their local names, that Azure brings and nobody pushes.
        """
        import docker

        self._registry = engine_registry
        self._network = network
        self._own = frozenset(own)
        self._ca = ca.resolve() if ca else None
        self._lock = threading.Lock()
        self._running: dict[str, DockerContainer] = {}
        self._closed = False
        try:
            self._client = docker.from_env()
        except docker.errors.DockerException as error:
            raise NodeError(f"Docker does not answer: {error}.") from error

    def where(self, mount: Mount) -> str:
        """The path in the container."""
        return mount.path

    def pull(self, image: str) -> None:
        """Have the engine fetch it, which takes no time where it was made here."""
        from docker.errors import APIError

        if image in self._own:
            self._look_for(image)
            return
        repository, digest = self._place(image)
        try:
            self._client.api.pull(repository, tag=digest)
            self._client.images.get(f"{repository}@{digest}")
        except APIError as error:
            raise NodeError(f"{error.explanation or error}.") from error

    def start(self, program: Program) -> "DockerContainer":
        """Create and start the container."""
        from docker.errors import APIError

        uid, gid = _caller()
        for mount in program.mounts:
            _give(mount.folder, uid, gid)
        name = UNNAMED.sub("_", program.name)
        options: dict[str, Any] = {
            "name": name,
            "command": ["bash", "-c", program.command] if program.command else None,
            "environment": self._as_seen(program),
            "user": f"{uid}:{gid}",
            "volumes": self._volumes(program),
            "working_dir": program.folder,
            "shm_size": program.shm_size,
            "init": True,
            "cap_drop": ["ALL"],
            "security_opt": ["no-new-privileges"],
            "read_only": True,
            # HOME too; kernels that are compiled on first use are loaded from there
            "tmpfs": {"/tmp": "exec,mode=1777"},  # noqa: S108 - the container's
            "pids_limit": PROCESSES,
            "labels": ROLE,
        }
        if program.beside:
            options["network_mode"] = f"container:{UNNAMED.sub('_', program.beside)}"
        elif self._network:
            options["network"] = self._network
        elif program.port:
            options["ports"] = {f"{program.port}/tcp": ("127.0.0.1", None)}
        image = program.image
        if image not in self._own:
            image = "@".join(self._place(image))
        with self._lock:
            if self._closed:
                raise NodeError("This Azure is being closed down.")
            try:
                container = self._client.containers.create(image, **options)
            except APIError as error:
                raise NodeError(f"{name}: {error.explanation or error}.") from error
            port = program.port if self._network else None
            running = DockerContainer(container, program.port, (name, port) if port else None)
            self._running[name] = running
        try:
            container.start()
        except APIError as error:
            running.remove()
            raise NodeError(f"{name}: {error.explanation or error}.") from error
        return running

    def close(self) -> None:
        """Remove all containers that were started here."""
        with self._lock:
            self._closed = True
            left = list(self._running.values())
        for running in left:
            running.remove()
        self._client.close()

    def _look_for(self, image: str) -> None:
        from docker.errors import APIError

        try:
            self._client.images.get(image)
        except APIError as error:
            raise NodeError(f"{image} is not on this machine: make rehearse builds it.") from error

    def _place(self, image: str) -> tuple[str, str]:
        """Repository as the engine reaches it, and digest."""
        found = IMAGE.fullmatch(image)
        if not found:
            raise NodeError(
                f"{image} is no image of the workspace's registry by digest, and there is no way "
                "to any other registry."
            )
        return f"{self._registry}/{found[1]}", found[2]

    def _as_seen(self, program: Program) -> dict[str, str]:
        """The environment, with the authority's path in the container for that on this machine."""
        ca = str(self._ca)
        own = {key: CA_PATH if value == ca else value for key, value in program.environment.items()}
        kept = {name: os.environ[name] for name in KEPT if name in os.environ}
        # docker's init then signals the whole group, not just bash, as a node of Azure does
        return {"TINI_KILL_PROCESS_GROUP": "1", **kept, **own}

    def _volumes(self, program: Program) -> dict[str, dict[str, str]]:
        volumes = {
            str(mount.folder.resolve()): {
                "bind": mount.path,
                "mode": "ro" if mount.read_only else "rw",
            }
            for mount in program.mounts
        }
        if self._ca:
            volumes[str(self._ca)] = {"bind": CA_PATH, "mode": "ro"}
        return volumes


class DockerContainer:
    """One container."""

    def __init__(
        self, container: "Container", port: int | None, named: tuple[str, int] | None
    ) -> None:
        self._container = container
        self._port = port
        self._named = named
        """Its name and port in the network, where it is in one."""

    def address(self) -> tuple[str, int]:
        if self._named:
            return self._named
        self._container.reload()
        published = self._container.ports.get(f"{self._port}/tcp")
        if not published:
            raise NodeError(f"{self._container.name} has no port {self._port}.")
        return "127.0.0.1", int(published[0]["HostPort"])

    def log(self) -> bytes:
        return bytes(self._container.logs(stdout=True, stderr=True))

    def exit_code(self) -> int | None:
        self._container.reload()
        if self._container.status in ("created", "running", "restarting", "removing", "paused"):
            return None
        return int(self._container.attrs["State"]["ExitCode"])

    def wait(self, seconds: float) -> int | None:
        import requests

        # docker-py has no exception of its own for a wait that took too long
        with contextlib.suppress(requests.exceptions.RequestException):
            return int(self._container.wait(timeout=seconds)["StatusCode"])
        return self.exit_code()

    def stop(self, grace: float) -> None:
        from docker.errors import APIError

        if self.exit_code() is not None:
            return
        with contextlib.suppress(APIError):  # it has ended meanwhile
            if grace > 0:
                self._container.stop(timeout=max(1, round(grace)))
            else:
                self._container.kill()
        self._container.wait()

    def remove(self) -> None:
        from docker.errors import NotFound

        with contextlib.suppress(NotFound):
            self._container.remove(force=True, v=True)


def _caller() -> tuple[int, int]:
    """Whom containers run as: HOMEPORT_UID and HOMEPORT_GID, else this user unless it is root."""
    uid = int(os.environ.get("HOMEPORT_UID") or os.getuid() or NOBODY_IN_PARTICULAR)
    gid = int(os.environ.get("HOMEPORT_GID") or os.getgid() or NOBODY_IN_PARTICULAR)
    return uid, gid


def _give(folder: Path, uid: int, gid: int) -> None:
    """Let the container's user have the folder; only root can, and only root needs to."""
    if os.getuid() != 0:
        return
    for path in [folder, *folder.rglob("*")]:
        os.chown(path, uid, gid, follow_symlinks=False)
