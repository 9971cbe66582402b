"""What counts as a wrong end of a verb under a fault, and how the table shows it."""

from dataclasses import replace

import pytest

from scripts.rehearse_matrix import FAULTS, VERBS, Cell, figures, problems, table
from scripts.rehearse_verbs import Done
from scripts.settings import ROOT

REFUSED = "error: could not submit the job: Azure answered 403. Next: make cloud-plan"


def done(code: int | None, err: str = "") -> Done:
    return Done(code=code, out="", err=err, seconds=1.0)


def found(one: Done) -> list[str]:
    return list(problems(one, [e for e in one.err.splitlines() if e.startswith("error: ")]))


@pytest.mark.parametrize("one", [done(0), done(6, REFUSED), done(3, f"azure: …\n{REFUSED}")])
def test_a_good_end_and_one_sentence_with_a_next_command_are_right(one: Done) -> None:
    assert found(one) == []


@pytest.mark.parametrize(
    ("one", "words"),
    [
        (done(None), "it did not end"),
        (done(1, REFUSED), "it ended with 1"),
        (done(0, "Traceback (most recent call last)"), "a traceback"),
        (done(6), "0 sentences"),
        (done(6, f"{REFUSED}\n{REFUSED}"), "2 sentences"),
        (done(6, "error: no."), "no next command: error: no."),
    ],
)
def test_a_wrong_end_is_told(one: Done, words: str) -> None:
    assert words in found(one)


def cell(fault: str, **fields: object) -> Cell:
    usual = Cell(
        route="azure_openai",
        verb="cloud-train",
        fault=fault,
        met=1,
        code=0,
        said="",
        again=0,
        wrong=(),
    )
    return replace(usual, **fields)  # type: ignore[arg-type]


def test_the_table_tells_refused_wrong_and_never_met_apart() -> None:
    names = list(FAULTS)
    cells = [
        cell(names[0]),
        cell(names[1], code=6),
        cell(names[2], code=0, met=0),
        cell(names[3], code=1, wrong=["it ended with 1"]),
    ]
    rows = table(cells).splitlines()
    assert rows[0].split() == ["azure_openai", "train", "deploy", "status", "down"]
    assert [row.split()[-1] for row in rows[1:4]] == ["0", "6", "–"]
    assert "NOT SO" in rows[4]
    told = {figure["name"]: figure for figure in figures(cells, 9.4)}
    assert told["cells as they must be"]["met"] is False
    assert told["cells whose fault was not met"]["value"] == 1
    assert told[f"{names[3]}: cloud-train, azure_openai"]["met"] is False


def test_every_verb_that_speaks_with_azure_is_tried() -> None:
    files = (ROOT / "scripts").glob("cloud_*.py")
    of_azure = {file.stem.replace("_", "-") for file in files} - {"cloud-smoke"}  # which bills
    assert of_azure <= set(VERBS["command_job"])
