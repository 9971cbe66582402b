"""The tags that say what is ours in a workspace, whose it is, and what it is made of."""

from collections.abc import Mapping
from typing import Any

OURS = "homeport"
"""On everything that the verbs make; its value is "1"."""
OWNER = "homeport-owner"
"""Who made it, as Azure names them."""
RECIPE = "homeport-recipe"
"""Name of the recipe."""
IMAGE = "homeport-image"
"""Of a job or deployment: digest of its image."""
MACHINE = "homeport-machine"
"""Of a job whose record does not tell its machine (a pipeline): `1 x Standard_…`, or with ` spot`
after it."""
JOB = "homeport-job"
"""Of a model: the job that trained it."""
BYTES = "homeport-bytes"
"""Of a model: size of its files, which sizes the probes of its deployment."""
BASE = "homeport-base"
"""Of a staged base model: the recipe's `model.base`."""
REVISION = "homeport-revision"
"""Of a staged base model: its commit."""
MODEL = "homeport-model"
"""Of a deployment: the `name:version` that it serves."""
MARK = "homeport-mark"
"""Of a deployment: hash of all that makes it what it is (splits.mark)."""
EXPIRES = "homeport-expires"
"""Of an endpoint: until when it is wanted, in UTC. Nothing deletes it then by itself."""
PREVIOUS = "homeport-previous"
"""Of an endpoint: the deployment that had the traffic before."""


def ours(tags: Mapping[str, str]) -> bool:
    """Whether Homeport made what carries these."""
    return tags.get(OURS) == "1"


def own(tags: Mapping[str, Any] | None = None) -> dict[str, str]:
    """The tags with our mark, as text."""
    return {OURS: "1", **{key: str(value) for key, value in (tags or {}).items()}}
