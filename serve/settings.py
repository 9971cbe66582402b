"""Every setting of the server: environment in, one frozen Settings out, or a sentence why not.

An empty variable counts as unset (Compose writes them so). An unknown SERVE_ name is an error, so
that a slip of the pen does not read as success. Nothing here touches files, the model or torch.
"""

import ipaddress
import math
import os
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, NoReturn, get_args

from serve.errors import StartupError, did_you_mean

PREFIX = "SERVE_"
AZURE_REQUEST_SECONDS = 180
"""Azure's maximum of `request_timeout_ms`, in seconds; beyond it the client has its 408 already."""
DEBUG_REQUEST_SECONDS = 86400
"""The same where someone may sit at a breakpoint; a server that stops does not wait for that."""
DEBUG_DRAIN_SECONDS = 5

AS_GIVEN = ("model", "host", "published", "key_file", "debug_host", "engine_cache", "adapters")
BOOLEANS = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}

Device = Literal["auto", "cpu", "cuda"]
Dtype = Literal["auto", "float32", "bfloat16", "float16"]
EngineName = Literal["auto", "vllm", "openvino", "transformers"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """One field per variable; the field `port` is SERVE_PORT."""

    model: str = ""
    """Model folder; empty searches AZUREML_MODEL_DIR for a config.json."""
    device: Device = "auto"
    """auto takes a CUDA GPU where there is one; a device named is never swapped for another."""
    dtype: Dtype = "auto"
    """auto is bfloat16 where the hardware computes in it and it pays, else float32."""
    engine: EngineName = "auto"
    """auto takes the fastest that is installed and proven for this model and device."""
    context: int = 0
    """Most tokens of prompt and answer together; 0 is what the model was made for."""
    engine_cache: str = ""
    """Folder that keeps what an engine makes of the weights for the next start; else temporary."""
    adapters: str = ""
    """LoRA adapters to serve beside the model, `name=folder` separated by commas."""
    host: str = "127.0.0.1"
    """Address to listen on; where other machines reach it, SERVE_KEY_FILE must be set too."""
    published: str = ""
    """Address at which this machine hands the port on to a container, whose own SERVE_HOST says
    nothing of who reaches it; else unset."""
    key_file: str = ""
    """File that holds a key; then only whoever sends that key is answered, but for probes."""
    port: int = 5001
    """Port to listen on; Azure's probes and scoring route use 5001."""
    request_seconds: float = 120.0
    """Longest that a request may wait and generate; then it is answered with what there is."""
    max_concurrent: int = 64
    """Answers that are generated at the same time."""
    max_queue: int = 64
    """Requests that wait for a place; one more is answered 429 with Retry-After."""
    watch: bool = False
    """true takes edits of request handling while the server runs, and keeps the weights."""
    debug_port: int = 0
    """Port on which a debugger (debugpy) can attach to request handling; 0 is none."""
    debug_host: str = "127.0.0.1"
    """Address of that port: whoever reaches it can run anything here. A container needs 0.0.0.0."""
    log_text: bool = False
    """true writes prompts and answers into the log of requests."""

    def __post_init__(self) -> None:
        reach = self.published or self.host
        if not self.key_file and not _is_loopback(reach):
            name = "published" if self.published else "host"
            raise StartupError(
                f"{PREFIX}{name.upper()}={reach} lets other machines ask, which takes a key: set "
                f"{PREFIX}KEY_FILE to a file that holds one, or take 127.0.0.1; "
                "make local-serve BIND=0.0.0.0 sees to both."
            )
        for name, choices in (("device", Device), ("dtype", Dtype), ("engine", EngineName)):
            if getattr(self, name) not in get_args(choices):
                _refuse(name, getattr(self, name), f"one of {', '.join(get_args(choices))}")
        limit = DEBUG_REQUEST_SECONDS if self.debug_port else AZURE_REQUEST_SECONDS
        if not 1 <= self.request_seconds < limit:
            why = "" if self.debug_port else " (Azure's request timeout ends there)"
            rule = f"at least 1 and below {limit}{why}"
            _refuse("request_seconds", f"{self.request_seconds:g}", rule)
        for name, low, high in (
            ("port", 1, 65535),
            ("debug_port", 0, 65535),
            ("max_concurrent", 1, 256),
            ("max_queue", 0, 4096),
            ("context", 0, 10_000_000),
        ):
            if not low <= getattr(self, name) <= high:
                _refuse(name, getattr(self, name), f"a whole number from {low} to {high}")

    @property
    def threads(self) -> int:
        """Server threads: one per admitted request; eight more, so that probes never wait."""
        return self.max_concurrent + self.max_queue + 8

    @property
    def drain_seconds(self) -> int:
        """How long a stopping server waits for its requests: the longest, and a little more."""
        if self.debug_port:  # one may stand at a breakpoint
            return DEBUG_DRAIN_SECONDS
        return max(120, math.ceil(self.request_seconds) + 10)

    @property
    def bind(self) -> str:
        """host:port, with the brackets that an IPv6 address needs."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @classmethod
    def from_env(cls, environ: Mapping[str, str] = os.environ) -> "Settings":
        """Read SERVE_*; StartupError names the variable, its value and the rule."""
        types = {field.name: type(field.default) for field in fields(cls)}
        given: dict[str, Any] = {}
        for variable, raw in sorted(environ.items()):
            if not variable.startswith(PREFIX) or not raw.strip():
                continue
            name = variable.removeprefix(PREFIX).lower()
            if name not in types:
                near = did_you_mean(variable, [PREFIX + known.upper() for known in types])
                raise StartupError(f"{variable} is not a setting{near}")
            given[name] = _convert(name, raw.strip(), types[name])
        return cls(**given)


def describe() -> str:
    """The settings as help text, one paragraph each, from the docstrings under the fields."""
    lines = []
    for field, doc in zip(fields(Settings), _field_docs(), strict=True):
        default = str(field.default).lower() if type(field.default) is bool else field.default
        default = f"{default:g}" if isinstance(default, float) else default
        lines.append(f"  {PREFIX}{field.name.upper()} ({default if default != '' else 'unset'})")
        lines += textwrap.wrap(doc, 88, initial_indent=" " * 8, subsequent_indent=" " * 8)
    return "\n".join(lines)


def _field_docs() -> list[str]:
    """Python drops the strings under fields, so they are read from the source."""
    import ast
    import inspect

    body = ast.parse(inspect.getsource(Settings)).body[0]
    assert isinstance(body, ast.ClassDef)  # noqa: S101 - for mypy; it is the class above
    strings = [node.value for node in body.body[1:] if isinstance(node, ast.Expr)]
    return [" ".join(str(s.value).split()) for s in strings if isinstance(s, ast.Constant)]


def _is_loopback(host: str) -> bool:
    """A name that is no address may lead anywhere."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _convert(name: str, raw: str, kind: type) -> object:
    if kind is str:
        return raw if name in AS_GIVEN else raw.lower()
    if kind is bool:
        if raw.lower() in BOOLEANS:
            return BOOLEANS[raw.lower()]
        _refuse(name, raw, "true or false")
    try:
        return int(raw) if kind is int else float(raw)
    except ValueError:
        _refuse(name, raw, "a whole number" if kind is int else "a number")


def _refuse(name: str, value: object, rule: str) -> NoReturn:
    raise StartupError(f"{PREFIX}{name.upper()}={value} cannot be used: it must be {rule}.")
