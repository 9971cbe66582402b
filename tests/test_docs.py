"""docs/ is made from the program: every error sentence has its symptom, every name its meaning."""

import ast
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from scripts import console, errors
from scripts.docs import __main__ as docs
from scripts.docs import drawing, reference, sentences, symptoms
from scripts.docs.sentences import Sentence, literal
from train import errors as train_errors

ROOT = Path(__file__).parents[1]
SENTENCES = sentences.collect()
TROUBLES = (ROOT / "docs/troubleshooting.md").read_text(encoding="utf-8")
ERRORS = (ROOT / "docs/errors.md").read_text(encoding="utf-8")


def test_the_pages_are_as_the_generator_writes_them() -> None:
    stale = [path.name for path, text in docs.pages().items() if path.read_text() != text]
    assert stale == [], "python -m scripts.docs"


def test_every_error_sentence_has_its_symptom() -> None:
    assert len(SENTENCES) > 500
    lost = [one.described for one in SENTENCES if symptoms.of(one) is None]
    assert lost == [], "add a rule to scripts/docs/symptoms.py"


def test_every_symptom_is_a_heading_that_links_to_its_sentences_and_back() -> None:
    named = {symptoms.of(one) for one in SENTENCES}
    for symptom in named:
        assert symptom
        anchor = symptoms.anchor(symptom)
        part = TROUBLES.partition(f"\n### {symptom}\n")[2].partition("\n### ")[0]
        assert f"(errors.md#{anchor})" in part, symptom
        listed = ERRORS.partition(f"\n## {symptom}\n")[2].partition("\n## ")[0]
        assert f"(troubleshooting.md#{anchor})" in listed, symptom
        assert listed.count("\n| ") > 2, symptom
    assert named == {name for name, _ in symptoms.RULES}  # and no rule is left over


def test_there_are_enough_symptoms_and_each_says_what_to_do() -> None:
    parts = TROUBLES.split("\n### ")[1:]
    assert len(parts) >= 35
    for part in parts:
        assert len(part.split()) > 15, part


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ('"it is full"', "it is full"),
        ('f"port {port} is in use: " f"take {port + 1}"', "port … is in use: take …"),
        ('"it has " + what', "it has …"),
        ('f"{a}{b} is not there"', "… is not there"),
        ("str(error)", "…"),
    ],
)
def test_of_a_sentence_the_literal_parts_are_kept(source: str, text: str) -> None:
    assert literal(ast.parse(source, mode="eval").body) == text


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("RUNTIME is …: use auto, docker or host.", "2"),
        ("no server answers on port …; next: make local-serve", "3"),
        ("the request body is over", "HTTP 413"),
        ("… must be true or false.", "HTTP 400"),
        ("Docker has no Compose v2; next: install", "error"),
        ("the GPU's memory is too small: halve training.packs_per_step", "6"),
    ],
)
def test_a_sentence_is_found_with_its_code(text: str, code: str) -> None:
    assert code in {one.code for one in SENTENCES if one.text.startswith(text)}


def test_a_sentence_that_nobody_foresaw_has_no_symptom() -> None:
    unforeseen = Sentence("the moon is in the way.", "2", "UsageError", "scripts/moon.py")
    assert symptoms.of(unforeseen) is None


def test_every_exit_code_stands_in_the_table_and_no_other() -> None:
    ours = {
        0,
        errors.VerbError.exit_code,
        errors.UsageError.exit_code,
        errors.MachineError.exit_code,
        errors.CloudError.exit_code,
        train_errors.InputError.exit_code,
        train_errors.MachineError.exit_code,
        train_errors.VerificationError.exit_code,
        train_errors.Interrupted.exit_code,
        console.INTERRUPTED,
    }
    assert {int(code) for code in reference.CODES} == ours


def test_every_variable_that_is_read_is_explained() -> None:
    used = reference.used()
    assert {"HOMEPORT_VENV", "SERVE_MODEL", "CLOUD_PRICES", "HF_TOKEN", "PORT"} <= used.keys()
    assert reference.unexplained() == {}, "add it to .env.example or scripts/docs/reference.py"


def test_every_setting_of_the_server_is_explained() -> None:
    from serve.settings import PREFIX, Settings

    names = {PREFIX + name.upper() for name in Settings.__dataclass_fields__}
    assert names == reference.server_settings().keys()
    assert all(f"| `{name}` |" in reference.variables() for name in names)


def test_every_variable_of_make_has_a_meaning() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (.*) \|$", reference.make_variables(), re.MULTILINE)
    assert len(rows) > 20
    assert [name for name, meaning in rows if not meaning] == []


@pytest.mark.parametrize("name", drawing.drawings())
def test_the_drawing_is_one_that_stands_alone(name: str) -> None:
    root = ElementTree.fromstring(drawing.drawings()[name])  # noqa: S314 - our own
    assert root.attrib["viewBox"] == f"0 0 {drawing.WIDTH} {drawing.HEIGHT}"
    for part in root.iter():
        assert not [value for value in part.attrib.values() if value.startswith("http")]
        right = float(part.attrib.get("x", 0)) + float(part.attrib.get("width", 0))
        assert right <= drawing.WIDTH
    page = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    assert f'alt="{drawing.ALT}"' in page
    assert name in page
