"""What a person sees at a terminal, and what a file gets, through a real pseudo terminal."""

import os
import pty
import subprocess
import sys
from collections.abc import Callable

import pytest

from scripts import help
from scripts.console import say
from tests.tree import ROOT

ESCAPE = "\x1b["
VARIABLES = ("TERM", "NO_COLOR", "FORCE_COLOR", "CLICOLOR_FORCE")
Shown = Callable[..., str]


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> Shown:
    """What a function writes to a terminal, under these variables and no others of colour."""

    def run(speak: Callable[[], None], **variables: str) -> str:
        ours, theirs = pty.openpty()
        with (
            open(ours, "rb", buffering=0) as screen,
            open(theirs, "w") as out,
            monkeypatch.context() as patch,
        ):
            for name in VARIABLES:
                patch.delenv(name, raising=False)
            for name, value in variables.items():
                patch.setenv(name, value)
            patch.setattr(sys, "stdout", out)
            patch.setattr(sys, "stderr", out)
            speak()
            print("the end", flush=True)
            said = b""
            while not said.endswith(b"the end\r\n"):
                said += screen.read(65536)
        return said.decode().replace("\r\n", "\n").removesuffix("the end\n")

    return run


def speak() -> None:
    """An error, and the help of a small Makefile."""
    say("error: PROMPT is empty")
    for line in help.lines(["##@ Local", "ask: setup ## Ask"]):
        print(line)


def test_an_error_is_red_and_headings_are_bold_on_a_terminal(shown: Shown) -> None:
    said = shown(speak, TERM="xterm")
    assert f"{ESCAPE}31merror{ESCAPE}0m: PROMPT is empty\n" in said
    assert f"{ESCAPE}1mLocal{ESCAPE}0m\n  make ask" in said


@pytest.mark.parametrize(
    "variables", [{"TERM": "xterm", "NO_COLOR": "1"}, {"TERM": "dumb"}, {}], ids=str
)
def test_a_terminal_without_colours_or_a_person_without_wish_for_them_gets_none(
    shown: Shown, variables: dict[str, str]
) -> None:
    assert "error: PROMPT is empty\n\nLocal\n" in shown(speak, **variables)


def test_an_empty_no_color_counts_as_unset(shown: Shown) -> None:
    assert ESCAPE in shown(speak, TERM="xterm", NO_COLOR="")


def test_a_file_gets_no_colour_whatever_is_set(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("TERM", "FORCE_COLOR", "CLICOLOR_FORCE"):
        monkeypatch.setenv(name, "xterm")
    speak()
    written = capfd.readouterr()
    assert "error: PROMPT is empty" in written.err
    assert ESCAPE not in written.err + written.out


@pytest.mark.parametrize(
    ("line", "colour"),
    [
        ("error: x", "31"),
        ("  ERROR  disk           full; next: rm", "31"),
        (" NOT SO  the same: 2", "31"),
        ("WARNING  ports          taken", "33"),
        ("note:   old", "33"),
        ("     ok  python", "32"),
        ("passed: rehearsed, not Azure", "32"),
        ("notes of a user: none", ""),
        ("serving tiny-ja, ok", ""),
        ("", ""),
    ],
)
def test_only_the_word_that_a_line_begins_with_has_a_colour(
    shown: Shown, line: str, colour: str
) -> None:
    said = shown(lambda: say(line), TERM="xterm").removesuffix("\n")
    assert (f"{ESCAPE}{colour}m" in said) if colour else (ESCAPE not in said)
    assert said.replace(f"{ESCAPE}{colour}m", "").replace(f"{ESCAPE}0m", "") == line


def test_japanese_is_written_under_every_locale() -> None:
    # an environment in which Python by itself writes ASCII alone
    settings = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    env = {"PATH": os.environ["PATH"], **settings}
    done = subprocess.run(
        ["make", "help", f"PYTHON={sys.executable}"], cwd=ROOT, env=env, capture_output=True
    )
    assert "オーストラリアの首都はどこですか？" in done.stdout.decode()
