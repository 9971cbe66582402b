from collections.abc import Callable

import pytest

from scripts.errors import MachineError, UsageError
from scripts.runtime import choose_device, choose_runtime

Answers = dict[str, tuple[int, str]]
WORKING: Answers = {
    "docker version": (0, "20.10.24"),
    "docker compose": (0, "2.26.1"),
    "docker buildx": (0, "github.com/docker/buildx v0.13.1"),
    "docker info": (0, '{"nvidia":{},"runc":{}}'),
    "nvidia-smi -L": (0, "GPU 0: NVIDIA H100 NVL (UUID: GPU-1)"),
}


def machine(changes: Answers) -> Callable[[list[str]], tuple[int, str]]:
    """A machine on which commands answer as WORKING says, but for `changes`."""
    answers = {**WORKING, **changes}
    return lambda command: answers[" ".join(command[:2])]


def test_auto_takes_docker_where_the_engine_answers() -> None:
    choice = choose_runtime("auto", machine({}))
    assert str(choice) == "docker (the Docker engine answers)"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"docker version": (127, "")}, "docker is not installed"),
        (
            {"docker version": (1, "Cannot connect to the Docker daemon")},
            "the Docker engine does not answer (Cannot connect to the Docker daemon)",
        ),
        ({"docker compose": (1, "unknown command")}, "Docker has no Compose v2"),
        ({"docker compose": (0, "1.29.2")}, "Docker has no Compose v2"),
        ({"docker buildx": (1, "")}, "Docker has no buildx"),
    ],
)
def test_what_docker_lacks_is_the_reason_for_the_host_and_the_error_of_an_explicit_choice(
    changes: Answers, reason: str
) -> None:
    choice = choose_runtime("auto", machine(changes))
    assert choice.value == "host"
    assert reason in choice.reason
    with pytest.raises(MachineError, match="RUNTIME=docker, but") as caught:
        choose_runtime("docker", machine(changes))
    assert reason in str(caught.value)


def test_an_explicit_host_is_taken_without_asking_docker() -> None:
    def never(command: list[str]) -> tuple[int, str]:
        raise AssertionError(command)

    assert choose_runtime("host", never).value == "host"


def test_an_unknown_runtime_is_refused_with_the_known_ones() -> None:
    with pytest.raises(UsageError, match="RUNTIME is 'podman': use auto, docker or host"):
        choose_runtime("podman", machine({}))


@pytest.mark.parametrize(
    ("changes", "runtime", "choice"),
    [
        ({}, "docker", "cuda (GPU 0: NVIDIA H100 NVL)"),
        ({}, "host", "cuda (GPU 0: NVIDIA H100 NVL)"),
        ({"nvidia-smi -L": (127, "")}, "host", "cpu (no NVIDIA GPU found)"),
        ({"nvidia-smi -L": (0, "No devices found.")}, "host", "cpu (no NVIDIA GPU found)"),
        (
            {"docker info": (0, '{"runc":{}}')},
            "docker",
            "cpu (Docker lacks the NVIDIA container toolkit, so it cannot use the GPU)",
        ),
    ],
)
def test_the_gpu_is_taken_where_the_runtime_can_use_it(
    changes: Answers, runtime: str, choice: str
) -> None:
    assert str(choose_device({}, runtime, machine(changes))) == choice


def test_an_explicit_device_is_taken_as_it_is() -> None:
    assert choose_device({"HOMEPORT_DEVICE": "cuda"}, "host", machine({})).value == "cuda"
    with pytest.raises(UsageError, match="HOMEPORT_DEVICE is 'gpu'"):
        choose_device({"HOMEPORT_DEVICE": "gpu"}, "host", machine({}))
