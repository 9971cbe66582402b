"""What request handling is given, and a reload of it leaves alone: made once, by live.py."""

import time
from dataclasses import dataclass, field
from typing import Any

from serve.admission import Admission
from serve.engine import Engine
from serve.metrics import Metrics
from serve.model import Model
from serve.settings import Settings


@dataclass(slots=True, kw_only=True)
class Kept:
    """Everything that is slow to make, or that counts."""

    settings: Settings
    model: Model
    tokenizer: Any
    engine: Engine
    engine_name: str
    admission: Admission
    metrics: Metrics
    created: int = field(default_factory=lambda: int(time.time()))
    """When the model was loaded, in seconds since 1970."""
