"""Which trials of the cloud verbs are asked for, and where they run."""

import pytest

from scripts.errors import UsageError
from scripts.rehearse_trials import Asked, read


@pytest.mark.parametrize(
    ("flags", "asked"),
    [
        (("", "", "7"), Asked()),
        (("1", "", "7"), Asked(faults="1")),
        (("all", "", "7"), Asked(faults="all")),
        (("", "50", "8"), Asked(kills=50, seed=8)),
        (("1", "3", "7"), Asked(faults="1", kills=3)),
    ],
)
def test_flags_say_what_is_tried(flags: tuple[str, str, str], asked: Asked) -> None:
    assert read(*flags) == asked
    assert asked.any is (flags[:2] != ("", ""))


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (("yes", "", "7"), "FAULTS=yes is no choice: 1 runs the named cases, all every fault"),
        (("", "many", "7"), "KILLS=many is no number from 1 on, such as KILLS=50"),
        (("", "0", "7"), "KILLS=0 is no number from 1 on"),
        (("", "5", "-1"), "SEED=-1 is no number"),
    ],
)
def test_a_flag_that_is_none_is_one_sentence(flags: tuple[str, str, str], sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        read(*flags)


def test_stand_ins_are_processes_of_this_machine() -> None:
    assert Asked(kills=1).runtime("") == "host"
    assert Asked(faults="all").runtime("host") == "host"
    assert Asked(faults="1").runtime("docker") == "docker"
    assert Asked().runtime("") == ""
    with pytest.raises(UsageError, match="leave RUNTIME out"):
        Asked(kills=1).runtime("docker")
