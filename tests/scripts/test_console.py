"""What a person sees at a terminal, and what a file gets, through a real pseudo terminal."""

import os
import pty
import subprocess
import sys

import pytest

from tests.tree import ROOT

ASK = [sys.executable, "-m", "scripts.ask"]  # without PROMPT: an error, and nothing is started
HELP = [sys.executable, "-m", "scripts.help", "Makefile"]
ESCAPE = "\x1b["


def shown(command: list[str], **variables: str) -> str:
    """What a command writes to a terminal."""
    keep = {"PATH": os.environ["PATH"], "HOME": "/"}
    ours, theirs = pty.openpty()
    try:
        process = subprocess.Popen(
            command, cwd=ROOT, env={**keep, **variables}, stdin=theirs, stdout=theirs, stderr=theirs
        )
        os.close(theirs)
        said = b""
        while True:
            try:
                part = os.read(ours, 65536)
            except OSError:  # how Linux says that nobody writes any more
                break
            if not part:
                break
            said += part
        process.wait(60)
    finally:
        os.close(ours)
    return said.decode()


def test_an_error_is_red_and_headings_are_bold_on_a_terminal() -> None:
    assert f"{ESCAPE}31merror{ESCAPE}0m: PROMPT is empty" in shown(ASK, TERM="xterm")
    assert f"{ESCAPE}1mLocal{ESCAPE}0m" in shown(HELP, TERM="xterm")


@pytest.mark.parametrize(
    "variables", [{"TERM": "xterm", "NO_COLOR": "1"}, {"TERM": "dumb"}, {}], ids=str
)
def test_a_terminal_without_colours_or_a_person_without_wish_for_them_gets_none(
    variables: dict[str, str],
) -> None:
    assert ESCAPE not in shown(ASK, **variables) + shown(HELP, **variables)


def test_an_empty_no_color_counts_as_unset() -> None:
    assert ESCAPE in shown(ASK, TERM="xterm", NO_COLOR="")


@pytest.mark.parametrize("variables", [{}, {"FORCE_COLOR": "1", "CLICOLOR_FORCE": "1"}], ids=str)
def test_a_file_gets_no_colour_whatever_is_set(variables: dict[str, str]) -> None:
    env = {"PATH": os.environ["PATH"], "TERM": "xterm", **variables}
    done = [
        subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
        for command in (ASK, HELP)
    ]
    assert "error: PROMPT is empty" in done[0].stderr
    assert "make local-serve" in done[1].stdout
    assert ESCAPE not in "".join(one.stdout + one.stderr for one in done)


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
def test_only_the_word_that_a_line_begins_with_has_a_colour(line: str, colour: str) -> None:
    code = f"from scripts.console import say; say({line!r})"
    said = shown([sys.executable, "-c", code], TERM="xterm").rstrip("\r\n")
    assert (f"{ESCAPE}{colour}m" in said) if colour else (ESCAPE not in said)
    assert said.replace(f"{ESCAPE}{colour}m", "").replace(f"{ESCAPE}0m", "") == line


@pytest.mark.parametrize("locale", ["C", "POSIX", "xx_XX.ISO-8859-1"])
def test_japanese_is_written_under_every_locale(locale: str) -> None:
    env = {"PATH": os.environ["PATH"], "LC_ALL": locale, "HOMEPORT_VENV": sys.prefix}
    command = ["make", "-s", "ask", f"PYTHON={sys.executable}", "PROMPT=首都は？", "PORT=1025"]
    helped = subprocess.run(["make", "help"], cwd=ROOT, env=env, capture_output=True)
    assert "オーストラリアの首都はどこですか？" in helped.stdout.decode()
    asked = subprocess.run(command, cwd=ROOT, env=env, capture_output=True)
    assert "首都は？" in asked.stderr.decode()
    assert b"Traceback" not in asked.stderr
