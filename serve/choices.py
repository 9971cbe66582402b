"""Device, dtype and engine: what is asked for and what the machine has → a value and its reason.

Pure: the machine comes in as a Hardware, the reasons go to the log. An explicit value that cannot
be had is an error, never a fallback.
"""

from collections.abc import Callable
from dataclasses import dataclass

from serve.engine import Hardware, environments
from serve.errors import StartupError
from serve.model import Model
from serve.settings import Settings

BF16_FLAGS = ("amx_bf16", "avx512_bf16")
"""CPU flags of bfloat16 arithmetic; without them it is emulated, and slower than float32."""
BF16_PAYS_FROM = 100_000_000
"""Parameters. A smaller model is bound by overheads, not memory: it keeps float32's accuracy."""
FALLBACK = "transformers"
"""The engine that runs everything."""
OPENVINO_ARCHITECTURES = (
    "gemma3_text",
    "gpt_oss",
    "llama",
    "mistral",
    "phi3",
    "qwen2",
    "qwen3",
)
"""Whose greedy tokens equal transformers' (tests/serve/engine/test_openvino_engine.py)."""
OPENVINO_UP_TO = 4_000_000_000
"""Parameters. Converting takes a second copy of the weights, in memory and on disk."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """A value, and why it was taken."""

    value: str
    reason: str

    def __str__(self) -> str:
        return f"{self.value}: {self.reason}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Choices:
    """All three."""

    engine: Choice
    device: Choice
    dtype: Choice

    def __str__(self) -> str:
        return f"(engine {self.engine}, {self.device}, {self.dtype})"


def choose(
    settings: Settings,
    hardware: Hardware,
    model: Model,
    installed: Callable[[str], bool] = environments.installed,
) -> Choices:
    """Decide all three; StartupError where an explicit value cannot be had."""
    device = choose_device(settings, hardware)
    return Choices(
        engine=choose_engine(settings, device.value, model, installed),
        device=device,
        dtype=choose_dtype(settings, hardware, device.value, model.parameters),
    )


def choose_engine(
    settings: Settings, device: str, model: Model, installed: Callable[[str], bool]
) -> Choice:
    """The fast engine of the device, where it is there and proven; else transformers."""
    if settings.engine != "auto":
        if not installed(settings.engine):
            raise StartupError(
                f"SERVE_ENGINE={settings.engine} cannot be had: it is not installed here; set auto."
            )
        return Choice(value=settings.engine, reason="set by SERVE_ENGINE")
    fast = "vllm" if device == "cuda" else "openvino"
    if not installed(fast):
        return Choice(value=FALLBACK, reason=f"{fast} is not installed here")
    if fast == "vllm":
        return Choice(value=fast, reason="made for NVIDIA GPUs")
    if model.architecture not in OPENVINO_ARCHITECTURES:
        return Choice(value=FALLBACK, reason=f"{model.architecture} is not proven with openvino")
    if model.adapters:
        return Choice(value=FALLBACK, reason="adapters are chosen by request")
    if model.parameters > OPENVINO_UP_TO:
        size = f"{model.parameters / 1e9:.1f}B parameters"
        return Choice(value=FALLBACK, reason=f"{size} are too many to convert at every start")
    return Choice(value=fast, reason="the fastest on CPUs")


def choose_device(settings: Settings, hardware: Hardware) -> Choice:
    if settings.device == "cuda" and hardware.gpu is None:
        raise StartupError(f"SERVE_DEVICE=cuda cannot be had: {hardware.no_gpu}; set auto or cpu.")
    if settings.device != "auto":
        return Choice(value=settings.device, reason="set by SERVE_DEVICE")
    if hardware.gpu is None:
        return Choice(value="cpu", reason=hardware.no_gpu)
    return Choice(value="cuda", reason=f"{hardware.gpu} found")


def choose_dtype(settings: Settings, hardware: Hardware, device: str, parameters: int) -> Choice:
    if settings.dtype != "auto":
        return Choice(value=settings.dtype, reason="set by SERVE_DTYPE")
    if device == "cuda":
        if hardware.gpu_bf16:
            return Choice(value="bfloat16", reason="the GPU computes in it")
        return Choice(value="float16", reason="this GPU has no bfloat16")
    flag = next((flag for flag in BF16_FLAGS if flag in hardware.cpu_flags), None)
    if flag is None:
        return Choice(value="float32", reason="this CPU has neither amx_bf16 nor avx512_bf16")
    size = f"{parameters / 1e6:,.1f}M parameters"
    if parameters <= BF16_PAYS_FROM:
        return Choice(value="float32", reason=f"{size}, and bfloat16 pays beyond 100M")
    return Choice(value="bfloat16", reason=f"{size}, and the CPU has {flag}")
