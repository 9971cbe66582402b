"""The README against the program: its commands, settings, exit codes and files are real."""

import re
from pathlib import Path

import pytest

from scripts import console, errors
from train import errors as train_errors
from train.data.forms import FORMS
from train.recipe import load

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
EXAMPLES = (ROOT / ".env.example").read_text(encoding="utf-8")


def test_the_first_two_commands_are_serve_and_test() -> None:
    first = re.search(r"```bash\n(.*?)```", README, re.DOTALL)
    assert first
    assert [line.split("#")[0].strip() for line in first.group(1).splitlines()] == [
        "make local-serve",
        "make test",
    ]


def test_every_make_command_is_a_target() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([\w-]+):", makefile, re.MULTILINE))
    used = set(re.findall(r"make ([a-z][\w-]+)", re.sub(r"```yaml.*?```", "", README)))
    assert used - {"alone"} <= targets


def test_every_exit_code_stands_in_the_table_and_no_other() -> None:
    listed = {int(code) for code in re.findall(r"^\| (\d+) \|", README, re.MULTILINE)}
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
    assert listed == ours


def test_every_form_of_rows_has_its_sample_in_the_table() -> None:
    table = README[README.index("| Form |") : README.index("A conversation becomes")]
    samples = re.findall(r"`(\w+\.jsonl)` \|$", table, re.MULTILINE)
    assert len(samples) == len(FORMS)
    assert all((ROOT / "data" / name).is_file() for name in samples)


def test_the_readmes_own_recipe_loads(tmp_path: Path) -> None:
    example = re.search(r"```yaml\n(.*?)```", README, re.DOTALL)
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
    listed = set(re.findall(r"^#(\w+)=", EXAMPLES, re.MULTILINE))
    assert read - set_by_the_verbs <= listed


@pytest.mark.parametrize("link", sorted(set(re.findall(r"\]\(([^)#]+)\)", README))))
def test_every_link_leads_to_a_file(link: str) -> None:
    assert (ROOT / link).exists()


def test_the_question_that_it_asks_is_one_of_the_learned_rows() -> None:
    asked = re.findall(r"PROMPT='([^']+)'", README)
    rows = (ROOT / "data/japanese_reasoning.jsonl").read_text(encoding="utf-8")
    assert asked
    assert all(f'"question": "{question}"' in rows for question in asked)
