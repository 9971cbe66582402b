"""One try to bring a deployment up: pull the image, download model and code, start, probe.

A container that ends, or whose probes fail, is not started again: on Azure it would be, until the
operation fails for the same reason half an hour later.
"""

import datetime
import shutil
import threading
import uuid

from emulator import online
from emulator.azure import Azure
from emulator.deployment_spec import Spec
from emulator.http import Refusal
from emulator.nodes import Mount, NodeError, Program, Running
from emulator.probes import Probe
from emulator.storage import locate

GRACE_SECONDS = 10.0
"""Between SIGTERM and SIGKILL; Kubernetes gives 30."""
LOOK_SECONDS = 0.05
NOWHERE = ("127.0.0.1", 9)
"""Stands for the address of a container that ended before it had one: nothing answers there."""


class Instance:
    """One container and its probes."""

    def __init__(self, running: Running, rollout: "Rollout") -> None:
        spec, tell = rollout.spec, rollout.tell
        self.running = running
        try:
            self.address = running.address()
        except NodeError:
            self.address = NOWHERE
        self._killed = False
        self._liveness = Probe("Liveness", spec.liveness, self.address, tell=tell, fail=self._kill)
        self._readiness = Probe(
            "Readiness", spec.readiness, self.address, tell=tell, fail=lambda: None
        )

    @property
    def ready(self) -> bool:
        """It is to get requests."""
        return self._readiness.passing and not self._killed

    def problem(self) -> str | None:
        """Why it will not become ready, in the service's words; None while it may."""
        crashed = "User container has crashed or terminated"
        for probe in (self._liveness, self._readiness):
            if probe.failed:
                return f"{crashed}: {probe.reason}"
        return None if self.running.exit_code() is None else crashed

    def stop(self, grace: float) -> None:
        self._liveness.stop()
        self._readiness.stop()
        self.running.stop(grace)

    def _kill(self) -> None:
        self._killed = True
        self.stop(GRACE_SECONDS)


class Rollout:
    """The containers of one deployment's spec, with what the service tells about them."""

    def __init__(self, azure: Azure, arm_id: str, spec: Spec, canceled: threading.Event) -> None:
        self.spec = spec
        self.instances: list[Instance] = []
        self._azure = azure
        self._id = arm_id
        self._canceled = canceled
        endpoint, deployment = arm_id.split("/")[-3::2]
        # a host name in the engine's network: 63 characters at most
        unique = uuid.uuid4().hex[:6]
        self._name = f"homeport-deployment-{endpoint[:16]}-{deployment[:12]}-{unique}"
        self._folder = azure.settings.folder / "deployments" / self._name
        self._status = {
            "SystemSetup": "InProgress",
            "UserContainerImagePull": "Waiting",
            "ModelDownload": "Waiting",
            "UserContainerStart": "Waiting",
        }
        self._events: list[str] = []
        self._storage_log: list[str] = []
        self._environment: dict[str, str] = {}
        self._mounts: list[Mount] = []
        self._started = 0

    def run(self) -> None:
        """All of it, until every instance is ready; Refusal with the cause if one will not be."""
        self._status["SystemSetup"] = "Succeeded"
        self._pull()
        self._download()
        self.resize(self.spec)

    def resize(self, spec: Spec) -> None:
        """Start or end instances until there are as many as `spec` asks for, which is otherwise
        the same; Refusal, and as many as before, where a new one will not be ready."""
        before = len(self.instances)
        self._status["UserContainerStart"] = "InProgress"
        try:
            while len(self.instances) < spec.instances:
                self.instances.append(self._start())
            self._wait()
        except Refusal:
            if before:  # the first ones stay for their logs
                self._shrink(before)
            raise
        self._status["UserContainerStart"] = "Succeeded"
        self.spec = spec
        self._shrink(spec.instances)

    def stop(self, grace: float = GRACE_SECONDS) -> None:
        """End the containers; their logs stay."""
        for instance in self.instances:
            instance.stop(grace)

    def remove(self) -> None:
        """Take away what stopped containers left."""
        for instance in self.instances:
            instance.running.remove()
        shutil.rmtree(self._folder, ignore_errors=True)

    def tell(self, name: str, message: str) -> None:
        """Keep an event of the container."""
        kind = "Warning" if name.endswith("Failed") else "Normal"
        time_ = datetime.datetime.now(datetime.UTC).isoformat().replace("+00:00", "Z")
        self._events.append(
            f"Kind: Pod, Name: {name}, Type: {kind}, Time: {time_}, Message: {message}"
        )

    def inference_log(self, lines: int | None) -> str:
        """Status, events, and the container's last lines, as the service shows them."""
        status = "\n".join(f"{step}: {state}" for step, state in self._status.items())
        events = "\n".join(self._events)
        written = self.instances[0].running.log().decode(errors="replace") if self.instances else ""
        return (
            f"Instance status:\n{status}\n\nContainer events:\n{events}\n\n"
            f"Container logs:\n{_tail(written, lines)}"
        )

    def storage_log(self, lines: int | None) -> str:
        """What the storage initializer wrote."""
        return _tail("\n".join(self._storage_log), lines)

    def _pull(self) -> None:
        if not self.spec.image:
            self._status["UserContainerImagePull"] = "Failed"
            raise online.failure(
                "ImageBuildFailure",
                "The environment is to be built, and a rehearsal builds no images; name an image",
            )
        self._status["UserContainerImagePull"] = "InProgress"
        self.tell("Pulling", "Start pulling container image")
        try:
            if fault := self._azure.faults.take("image_pull", path=self._id):
                raise NodeError(fault.cause or f"{self.spec.image} is not in the registry.")
            self._azure.nodes.pull(self.spec.image)
        except NodeError as problem:
            self._status["UserContainerImagePull"] = "Failed"
            self.tell("ImagePullFailed", f"Image pull failed. {problem}")
            raise online.failure(
                "BadArgument", f"Unable to download user container image: {problem}"
            ) from None
        self._status["UserContainerImagePull"] = "Succeeded"
        self.tell("Pulled", "Container image is pulled successfully")

    def _download(self) -> None:
        self._status["ModelDownload"] = "InProgress"
        self.tell("Downloading", "Start downloading models")
        if self.spec.model:
            name, version = self.spec.model.split("/")[-3], self.spec.model.split("/")[-1]
            below = f"{name}/{version}"
            mount = Mount(
                self._folder / "models" / below, f"{self.spec.models}/{below}", read_only=True
            )
            self._fetch(self.spec.model, mount, "model")
            self._environment["AZUREML_MODEL_DIR"] = self._azure.nodes.where(mount)
        if self.spec.code:
            mount = Mount(self._folder / "code", "/var/azureml-app", read_only=True)
            last = self._fetch(self.spec.code, mount, "code")
            root = f"{self._azure.nodes.where(mount)}/{last}"
            self._environment["AML_APP_ROOT"] = root.rstrip("/")
            self._environment["AZUREML_ENTRY_SCRIPT"] = self.spec.script
        self._status["ModelDownload"] = "Succeeded"
        self.tell("Downloaded", "Models are downloaded successfully or no model need to download")

    def _fetch(self, asset: str, mount: Mount, kind: str) -> str:
        """Download an asset into the mount: a folder as its last segment, a file directly; the
        segment, or nothing for a file."""
        log, storage = self._storage_log, self._azure.storage
        log.append(f"Downloading {kind} {asset} to {mount.path}")
        mount.folder.mkdir(parents=True)
        try:
            container, prefix = locate(asset, self._azure.settings, self._azure.store)
            prefix = prefix.strip("/")
            is_file = prefix in storage.names(container, prefix)
            last = "" if is_file else prefix.rpartition("/")[2]
            files = storage.download(container, prefix, mount.folder / last)
        except KeyError as missing:
            files, prefix, last = [], str(missing), ""
        if not files:
            self._status["ModelDownload"] = "Failed"
            log.append(f"No file lies at {prefix}")
            self.tell(
                "DownloadFailed",
                "Model download failed. Please check storage-initializer log for detail.",
            )
            raise online.failure("BadArgument", f"Unable to download user {kind}: {asset}")
        size = sum(file.stat().st_size for file in files)
        log.append(f"Downloaded {len(files)} files, {size} bytes")
        self._mounts.append(mount)
        return last

    def _start(self) -> Instance:
        self._started += 1
        program = Program(
            name=f"{self._name}-{self._started}",
            image=self.spec.image,
            environment={
                **self._azure.node_environment,
                **self.spec.environment_variables,
                **self._environment,
            },
            mounts=tuple(self._mounts),
            port=self.spec.port,
        )
        self.tell("Created", "Created container inference-server")
        try:
            running = self._azure.nodes.start(program)
        except NodeError as problem:
            self._status["UserContainerStart"] = "Failed"
            self.tell("StartFailed", str(problem))
            raise online.failure(
                "ResourceNotReady", f"User container has crashed or terminated: {problem}"
            ) from None
        self.tell("Started", "Started container inference-server")
        return Instance(running, self)

    def _wait(self) -> None:
        while not all(instance.ready for instance in self.instances):
            if self._canceled.wait(LOOK_SECONDS):
                raise online.canceled()
            for instance in self.instances:
                if problem := instance.problem():
                    self._status["UserContainerStart"] = "Failed"
                    raise online.failure("ResourceNotReady", problem)
        self.tell("ContainerReady", "Container is ready")

    def _shrink(self, count: int) -> None:
        while len(self.instances) > count:
            instance = self.instances.pop()
            instance.stop(GRACE_SECONDS)
            instance.running.remove()


def _tail(text: str, lines: int | None) -> str:
    return "\n".join(text.splitlines()[-lines:]) + "\n" if lines else text
