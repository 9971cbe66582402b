"""Device, dtype and engine from what the machine has."""

from pathlib import Path
from typing import Any

import pytest

from serve.choices import choose
from serve.engine import Hardware
from serve.engine.hardware import cpu_flags, probe
from serve.errors import StartupError
from serve.model import Model, ModelDefaults
from serve.settings import Settings

LARGE, SMALL = 200_000_000, 1_000_000


def model(parameters: int = LARGE, architecture: str = "gpt_oss", **more: Any) -> Model:
    return Model(
        root=Path("x"),
        name="x",
        architecture=architecture,
        context=99,
        parameters=parameters,
        defaults=ModelDefaults(),
        tokenizer=Path("x"),
        **more,
    )


def everything(engine: str) -> bool:
    return True


def nothing(engine: str) -> bool:
    return engine == "transformers"


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
    chosen = choose(Settings(), hardware, model(parameters), everything)
    assert (chosen.device.value, chosen.dtype.value) == (device, dtype)
    assert chosen.engine.value == ("vllm" if device == "cuda" else "openvino")


@pytest.mark.parametrize(
    ("served", "why"),
    [
        (model(architecture="mamba"), "mamba is not proven with openvino"),
        (model(adapters={"a": Path("a")}), "adapters are chosen by request"),
        (model(9_000_000_000), "9.0B parameters are too many to convert"),
    ],
)
def test_where_the_fast_engine_is_not_the_right_one_transformers_is_taken(
    served: Model, why: str
) -> None:
    chosen = choose(Settings(), machine(), served, everything).engine
    assert chosen.value == "transformers"
    assert why in chosen.reason


@pytest.mark.parametrize(("gpu", "fast"), [("H100", "vllm"), (None, "openvino")])
def test_an_absent_engine_is_passed_over_but_not_where_it_is_asked_for(
    gpu: str | None, fast: str
) -> None:
    chosen = choose(Settings(), machine(gpu=gpu), model(), nothing).engine
    assert (chosen.value, chosen.reason) == ("transformers", f"{fast} is not installed here")
    with pytest.raises(StartupError, match=f"SERVE_ENGINE={fast} cannot be had"):
        choose(Settings.from_env({"SERVE_ENGINE": fast}), machine(gpu=gpu), model(), nothing)


def test_each_choice_says_why() -> None:
    assert str(choose(Settings(), machine(), model(), everything)) == (
        "(engine openvino: the fastest on CPUs, cpu: no NVIDIA GPU found, "
        "float32: this CPU has neither amx_bf16 nor avx512_bf16)"
    )


def test_an_explicit_value_is_taken_whatever_auto_would_say() -> None:
    settings = Settings(device="cpu", dtype="bfloat16", engine="transformers")
    chosen = choose(settings, machine(gpu="H100"), model(SMALL), everything)
    assert (chosen.device.value, chosen.dtype.value) == ("cpu", "bfloat16")
    assert chosen.dtype.reason == "set by SERVE_DTYPE"


def test_a_gpu_that_is_asked_for_and_absent_is_an_error_not_a_fallback() -> None:
    with pytest.raises(StartupError, match="SERVE_DEVICE=cuda cannot be had: no NVIDIA GPU found"):
        choose(Settings(device="cuda"), machine(), model(SMALL), everything)


def test_flags_are_read_from_cpuinfo_and_this_machine_can_be_probed() -> None:
    assert cpu_flags("model name\t: x\nflags\t\t: fpu avx512_bf16\n") == {"fpu", "avx512_bf16"}
    assert cpu_flags("") == frozenset()
    seen = probe()
    assert (seen.gpu is None) == bool(seen.no_gpu)
