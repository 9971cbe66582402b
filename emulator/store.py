"""Resources by ARM id, as the control plane keeps them.

Ids compare without case, and a resource that is deleted takes its children with it.
"""

import copy
import datetime
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

Resource = dict[str, Any]


class Store:
    """All state of the control plane; safe to use from many threads."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._resources: dict[str, Resource] = {}

    def get(self, arm_id: str) -> Resource | None:
        """A copy of the resource."""
        with self._lock:
            return copy.deepcopy(self._resources.get(arm_id.lower()))

    def put(self, arm_id: str, resource: Resource) -> Resource:
        """Keep the resource under its id, with the id, name, type and times that Azure adds."""
        with self._lock:
            before = self._resources.get(arm_id.lower(), {})
            kept = {
                "id": arm_id,
                "name": arm_id.rpartition("/")[2],
                "type": resource_type(arm_id),
                **copy.deepcopy(resource),
                "systemData": system_data(before.get("systemData")),
            }
            self._resources[arm_id.lower()] = kept
            return copy.deepcopy(kept)

    @contextmanager
    def changed(self, arm_id: str) -> Iterator[Resource]:
        """The resource itself, to be changed while nobody else reads; KeyError without it."""
        with self._lock:
            yield self._resources[arm_id.lower()]

    def children(self, collection_id: str) -> list[Resource]:
        """Copies of the resources directly below `…/jobs` or the like, in the order they came."""
        prefix = f"{collection_id.rstrip('/')}/".lower()
        with self._lock:
            found = [r for i, r in self._resources.items() if i.startswith(prefix)]
            return copy.deepcopy([r for r in found if "/" not in r["id"][len(prefix) :]])

    def every(self) -> list[Resource]:
        """Copies of all resources, in the order they came."""
        with self._lock:
            return copy.deepcopy(list(self._resources.values()))

    def delete(self, arm_id: str) -> bool:
        """Remove the resource and all below it; False where there is none."""
        key = arm_id.lower()
        with self._lock:
            gone = [i for i in self._resources if i == key or i.startswith(f"{key}/")]
            for i in gone:
                del self._resources[i]
            return bool(gone)


def now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat()


def system_data(before: Resource | None = None) -> Resource:
    """Who made and changed it; azure-ai-ml needs lastModifiedAt, which the contract leaves open."""
    made = before or {"createdAt": now(), "createdBy": "rehearsal", "createdByType": "User"}
    return {
        **made,
        "lastModifiedAt": now(),
        "lastModifiedBy": "rehearsal",
        "lastModifiedByType": "User",
    }


def resource_type(arm_id: str) -> str:
    """`Microsoft.X/a/b` of `…/providers/Microsoft.X/a/name/b/name`."""
    provider, *rest = arm_id.rpartition("/providers/")[2].split("/")
    return "/".join([provider, *rest[::2]])
