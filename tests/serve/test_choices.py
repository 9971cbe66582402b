"""Device, dtype and engine from what the machine has."""

import pytest

from serve.choices import choose
from serve.engine import Hardware
from serve.engine.hardware import cpu_flags, probe
from serve.errors import StartupError
from serve.settings import Settings

LARGE, SMALL = 200_000_000, 1_000_000


def machine(*flags: str, gpu: str | None = None, gpu_bf16: bool = True) -> Hardware:
    reason = "" if gpu else "no NVIDIA GPU found"
    return Hardware(gpu=gpu, no_gpu=reason, gpu_bf16=gpu_bf16, cpu_flags=frozenset(flags))


@pytest.mark.parametrize(
    ("hardware", "parameters", "device", "dtype"),
    [
        (machine(), LARGE, "cpu", "float32"),
        (machine("avx512_bf16"), LARGE, "cpu", "bfloat16"),
        (machine("amx_bf16"), LARGE, "cpu", "bfloat16"),
        (machine("avx512_bf16"), SMALL, "cpu", "float32"),
        (machine(gpu="H100"), SMALL, "cuda", "bfloat16"),
        (machine(gpu="T4", gpu_bf16=False), LARGE, "cuda", "float16"),
    ],
)
def test_auto(hardware: Hardware, parameters: int, device: str, dtype: str) -> None:
    chosen = choose(Settings(), hardware, parameters)
    assert (chosen.device.value, chosen.dtype.value) == (device, dtype)
    assert chosen.engine.value == "transformers"


def test_each_choice_says_why() -> None:
    assert str(choose(Settings(), machine(), LARGE)) == (
        "(engine transformers: the only engine installed, cpu: no NVIDIA GPU found, "
        "float32: this CPU has neither amx_bf16 nor avx512_bf16)"
    )


def test_an_explicit_value_is_taken_whatever_auto_would_say() -> None:
    settings = Settings(device="cpu", dtype="bfloat16", engine="transformers")
    chosen = choose(settings, machine(gpu="H100"), SMALL)
    assert (chosen.device.value, chosen.dtype.value) == ("cpu", "bfloat16")
    assert chosen.dtype.reason == "set by SERVE_DTYPE"


def test_a_gpu_that_is_asked_for_and_absent_is_an_error_not_a_fallback() -> None:
    with pytest.raises(StartupError, match="SERVE_DEVICE=cuda cannot be had: no NVIDIA GPU found"):
        choose(Settings(device="cuda"), machine(), SMALL)


def test_flags_are_read_from_cpuinfo_and_this_machine_can_be_probed() -> None:
    assert cpu_flags("model name\t: x\nflags\t\t: fpu avx512_bf16\n") == {"fpu", "avx512_bf16"}
    assert cpu_flags("") == frozenset()
    seen = probe()
    assert (seen.gpu is None) == bool(seen.no_gpu)
