"""The deployments that run here: brought up, changed, asked for their logs, and ended.

State that no resource shows is here too: the endpoints' keys. `close(azure)` ends everything.
"""

import secrets
import threading
from weakref import WeakKeyDictionary

from emulator import deployment_spec, online
from emulator.azure import Azure
from emulator.deployment_spec import Spec
from emulator.http import Refusal
from emulator.rollout import Instance, Rollout
from emulator.store import Store

CLOSE_GRACE_SECONDS = 3.0


class Service:
    """One deployment; `apply` and `close` are slow, the rest answers at once."""

    def __init__(self, azure: Azure, arm_id: str) -> None:
        self._azure = azure
        self._id = arm_id
        self._changing = threading.Lock()
        self._lock = threading.Lock()
        self._canceled = threading.Event()
        self._serving: Rollout | None = None
        self._last: Rollout | None = None
        self._in_flight = 0

    @property
    def spec(self) -> Spec | None:
        """Of what serves; None before the first success."""
        return self._serving.spec if self._serving else None

    def apply(self) -> None:
        """Bring the deployment to what its resource says; Refusal with the cause of a failure.

        What served before serves on until the new containers are ready, and if they never are.
        """
        with self._changing:
            if self._canceled.is_set():
                raise online.canceled()
            if fault := self._azure.faults.take("failed_provisioning", path=self._id):
                raise online.failure_of(fault.cause)
            resource = self._azure.store.get(self._id)
            if resource is None:
                raise online.canceled()
            spec = deployment_spec.read(self._azure, resource)
            serving = self._serving
            healthy = serving and len(self.instances()) == serving.spec.instances
            if serving and healthy and spec.differs_in_size_only(serving.spec):
                serving.resize(spec)
            else:
                self._replace(spec)

    def close(self, grace: float) -> None:
        """End it all, and an `apply` that is under way."""
        self._canceled.set()
        with self._changing:
            for rollout in {self._serving, self._last}:
                if rollout:
                    rollout.stop(grace)
                    rollout.remove()
            self._serving = self._last = None

    def inference_log(self, lines: int | None) -> str:
        return self._last.inference_log(lines) if self._last else ""

    def storage_log(self, lines: int | None) -> str:
        return self._last.storage_log(lines) if self._last else ""

    def instances(self) -> list[Instance]:
        """Those that may get requests."""
        serving = self._serving
        return [i for i in list(serving.instances) if i.ready] if serving else []

    def enter(self) -> bool:
        """Take one of the places for requests in flight; False where none is free."""
        spec = self.spec
        with self._lock:
            if spec is None or self._in_flight >= spec.in_flight:
                return False
            self._in_flight += 1
            return True

    def leave(self) -> None:
        with self._lock:
            self._in_flight -= 1

    def _replace(self, spec: Spec) -> None:
        before, failed = self._serving, self._last
        if failed is not None and failed is not before:
            failed.remove()
        self._last = Rollout(self._azure, self._id, spec, self._canceled)
        try:
            self._last.run()
        except Exception:
            self._last.stop()
            raise
        self._serving = self._last
        if before:
            before.stop()
            before.remove()


class Keys:
    """The two keys of an endpoint."""

    def __init__(self) -> None:
        self.values = {"primary": secrets.token_urlsafe(32), "secondary": secrets.token_urlsafe(32)}

    def replace(self, which: str, value: str | None) -> None:
        """Set one to a value, or to a new one; Refusal 400 for any other than the two."""
        if which.lower() not in self.values:
            raise Refusal(400, "BadRequest", f"There is no key '{which}'.")
        self.values[which.lower()] = value or secrets.token_urlsafe(32)


class Fleet:
    """All deployments and keys of one Azure, by ARM id."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._services: dict[str, Service] = {}
        self._keys: dict[str, Keys] = {}

    def service(self, azure: Azure, deployment_id: str) -> Service:
        """The deployment's; made where there is none yet."""
        with self._lock:
            return self._services.setdefault(deployment_id.lower(), Service(azure, deployment_id))

    def keys(self, endpoint_id: str) -> Keys:
        with self._lock:
            return self._keys.setdefault(endpoint_id.lower(), Keys())

    def running(self) -> list[str]:
        """ARM ids of the deployments that have a server."""
        with self._lock:
            services = dict(self._services)
        return [name for name, service in services.items() if service.instances()]

    def close(self, below: str, grace: float) -> None:
        """End the deployments whose ARM id is `below` or lies below it; forget its keys."""
        key = below.lower()
        with self._lock:
            ended = [
                self._services.pop(i)
                for i in list(self._services)
                if i == key or i.startswith(f"{key}/")
            ]
            self._keys.pop(key, None)
        threads = [threading.Thread(target=s.close, args=(grace,), daemon=True) for s in ended]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


_fleets: WeakKeyDictionary[Store, Fleet] = WeakKeyDictionary()
_fleets_lock = threading.Lock()


def fleet(azure: Azure) -> Fleet:
    """The one of this Azure."""
    with _fleets_lock:
        return _fleets.setdefault(azure.store, Fleet())


def close(azure: Azure) -> None:
    """End all containers; for the end of the emulator."""
    fleet(azure).close(azure.settings.workspace_id, CLOSE_GRACE_SECONDS)
