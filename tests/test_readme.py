"""README and docs/ against the program: commands, settings, forms, links and files are real."""

import ast
import re
from pathlib import Path

import pytest

from scripts.docs import reference
from scripts.docs.symptoms import anchor
from train.data.forms import FORMS
from train.recipe import load

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = {
    str(path.relative_to(ROOT)): path.read_text(encoding="utf-8")
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
}
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
COMMAND = re.compile(r"(?:`|^)make (?:-s )?((?:[A-Z_]+=\S+ )*)([a-z][\w-]+)([^`\n]*)", re.MULTILINE)
HARDWARE = {"bench-gpu": "a GPU", "cloud-smoke": "a subscription on Azure"}
"""Targets that no test of ours can run, and what they need."""
BY_THE_TESTS = {"test", "check", "make", "help"}
"""They are what runs."""


def commands() -> list[tuple[str, str, str]]:
    """Page, target and what stands behind it, of each make command in the text."""
    return [
        (name, found.group(2), found.group(3))
        for name, text in PAGES.items()
        if name != "docs/errors.md"  # the program's own words, for any target
        for found in COMMAND.finditer(text)
    ]


def test_the_first_two_commands_are_serve_and_test() -> None:
    first = re.search(r"```bash\n(.*?)```", README, re.DOTALL)
    assert first
    assert [line.split("#")[0].strip() for line in first.group(1).splitlines()] == [
        "make local-serve",
        "make test",
    ]


def test_every_make_command_is_a_target() -> None:
    targets = set(re.findall(r"^([\w-]+):", MAKEFILE, re.MULTILINE))
    assert len(commands()) > 80
    assert [one for one in commands() if one[1] not in targets] == []


def test_every_variable_of_a_command_is_handed_to_its_verb() -> None:
    given = {
        (page, target, name)
        for page, target, rest in commands()
        for name in re.findall(r"\b([A-Z_]{2,})=", re.sub(r"(['\"]).*?\1", "", rest))
    }
    assert len(given) > 15
    assert [one for one in given if one[2] not in reference.handed_on()] == []


def test_every_command_is_run_by_a_test() -> None:
    tests = [
        path.read_text() for path in (ROOT / "tests").rglob("*.py") if path.name != "test_readme.py"
    ]
    run = {
        node.value
        for text in tests
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    # a verb is named by its target where make is called, and by its module where main() is
    modules = {value.removeprefix("scripts.").replace("_", "-") for value in run}
    used = {target for _, target, _ in commands()} - HARDWARE.keys() - BY_THE_TESTS
    assert used - run - modules == set()


def test_every_form_of_rows_has_its_sample_in_the_table() -> None:
    page = PAGES["docs/data.md"]
    table = page[page.index("| Form |") : page.index("A conversation becomes")]
    samples = re.findall(r"`(\w+\.jsonl)` \|$", table, re.MULTILINE)
    assert len(samples) == len(FORMS)
    assert all((ROOT / "data" / name).is_file() for name in samples)


@pytest.mark.parametrize("page", ["README.md", "docs/data.md"])
def test_the_readmes_own_recipe_loads(page: str, tmp_path: Path) -> None:
    example = re.search(r"```yaml\n(.*?)```", PAGES[page], re.DOTALL)
    assert example
    (tmp_path / "mine.yaml").write_text(example.group(1))
    assert load(tmp_path / "mine.yaml", environ={}).name == "mine"


def test_the_example_settings_name_every_variable_that_compose_reads() -> None:
    compose = re.sub(r"(?m)#.*$", "", (ROOT / "docker-compose.yml").read_text())
    read = set(re.findall(r"\$\{(\w+)", compose)) | set(
        re.findall(r"^      ([A-Z_]+):$", compose, re.MULTILINE)
    )
    set_by_the_verbs = {
        *("HOMEPORT_UID", "HOMEPORT_GID", "HOMEPORT_REVISION", "HOMEPORT_INPUTS"),
        *("MODEL_FOLDER", "MODEL_FOLDER_NAME", "MODEL_NAME", "MODEL_VERSION"),
        *("HOMEPORT_REHEARSAL", "HOMEPORT_REHEARSAL_BASES"),
        *("HOMEPORT_DOCKER_GID", "COMPOSE_PROJECT_NAME"),
    }
    assert read - set_by_the_verbs <= reference.examples().keys()


@pytest.mark.parametrize("page", PAGES)
def test_every_link_leads_to_a_file_and_a_heading(page: str) -> None:
    prose = re.sub(r"```.*?```", "", PAGES[page], flags=re.DOTALL)
    for link in re.findall(r"\]\(([^)\s]+)\)|srcset=\"([^\"]+)\"|src=\"([^\"]+)\"", prose):
        place, _, heading = "".join(link).partition("#")
        if place.startswith("https://"):
            continue
        target = ((ROOT / page).parent / place).resolve() if place else ROOT / page
        assert target.exists(), (page, place)
        if heading:
            headings = re.findall(r"^#+ (.+)$", target.read_text(encoding="utf-8"), re.MULTILINE)
            assert heading in map(anchor, headings), (page, link)


def test_every_page_is_reached_from_the_readme() -> None:
    reached = set(re.findall(r"\]\((docs/[\w-]+\.md)", README))
    assert PAGES.keys() - {"README.md"} == reached


def test_the_question_that_it_asks_is_one_of_the_learned_rows() -> None:
    asked = [q for text in PAGES.values() for q in re.findall(r"PROMPT='([^'…]+)'", text)]
    rows = (ROOT / "data/japanese_reasoning.jsonl").read_text(encoding="utf-8")
    assert asked
    assert all(f'"question": "{question}"' in rows for question in asked)
