import dataclasses
import datetime
import typing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.drawn import QUICK, YAML
from train.errors import InputError
from train.recipe import ENV_PREFIX, Recipe, dump, load

ROOT = Path(__file__).parents[2]

MINIMAL = """
name: small
model: {base: tiny}
data: {train: rows.jsonl}
"""


def recipe(tmp_path: Path, text: str = MINIMAL) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    return path


@pytest.mark.parametrize("path", sorted((ROOT / "recipes").glob("*.yaml")), ids=lambda p: p.stem)
def test_every_recipe_that_we_ship_loads_under_its_own_name(path: Path) -> None:
    assert load(path, environ={}).name == path.stem


def test_the_command_line_overrides_the_environment_which_overrides_the_file(
    tmp_path: Path,
) -> None:
    path = recipe(tmp_path, MINIMAL + "training: {max_steps: 1, seed: 1, epochs: 1}\n")
    environ = {"RECIPE_TRAINING__SEED": "2", "RECIPE_TRAINING__EPOCHS": "2", "RECIPE": "other"}
    training = load(path, ["training.epochs=3"], environ).training
    assert (training.max_steps, training.seed, training.epochs) == (1, 2, 3.0)


def test_a_dumped_recipe_loads_as_the_same_recipe(tmp_path: Path) -> None:
    loaded = load(recipe(tmp_path), ["lora.target_parameters=[mlp.experts.down_proj]"], {})
    assert load(recipe(tmp_path, dump(loaded)), environ={}) == loaded


def test_numbers_that_yaml_reads_as_text_are_numbers(tmp_path: Path) -> None:
    assert (
        load(recipe(tmp_path), ["training.learning_rate=2e-4"], {}).training.learning_rate == 2e-4
    )


def test_the_steps_of_the_traffic_are_a_list_of_numbers(tmp_path: Path) -> None:
    loaded = load(recipe(tmp_path), ["cloud.traffic_steps=[5, 50, 100]"], {})
    assert loaded.cloud.traffic_steps == [5, 50, 100]


def test_a_dump_has_no_cloud_since_that_is_no_part_of_what_is_trained(tmp_path: Path) -> None:
    here, there = (load(recipe(tmp_path), [f"cloud.nodes={n}"], {}) for n in (1, 2))
    assert dump(here) == dump(there)


def test_an_unquoted_date_is_taken_as_its_text(tmp_path: Path) -> None:
    path = recipe(tmp_path, MINIMAL.replace("rows.jsonl", "rows.jsonl, current_date: 2026-02-03"))
    assert load(path, environ={}).data.current_date == str(datetime.date(2026, 2, 3))


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("training.learning_rat=1", "did you mean learning_rate?"),
        ("training.max_seq_length=1", "here it is training.max_length"),
        ("training.warmup_ratio=0.1", "here it is training.warmup"),
        ("training.max_steps=ten", "training.max_steps is 'ten'; it must be int"),
        ("training.packing=1", "training.packing is 1; it must be bool"),
        ("training.max_steps=0", "training.max_steps is 0"),
        ("training.learning_rate=-1", "training.learning_rate is -1.0"),
        ("lora.r=0", "lora.r is 0"),
        ("data.form=alpaca", "data.form is 'alpaca'; it must be 'auto'"),
        ("data.max_bad_rows=-1", "data.max_bad_rows is -1"),
        ("cloud.traffic_steps=[100, 10]", "use rising percentages that end with 100"),
        ("cloud.traffic_steps=[a]", "cloud.traffic_steps is ['a']; it must be list[int]"),
        ("lora.target_parameters=[1]", "lora.target_parameters is [1]; it must be list[str]"),
        ("cloud.max_hours=0", "cloud.max_hours is 0.0: it must be more than 0"),
        ("name=a/b", "name is 'a/b'"),
        ("name.x=1", "name is a value, not a section"),
        ("training", "write section.key=value"),
    ],
)
def test_a_wrong_value_is_named_with_its_place_and_remedy(
    tmp_path: Path, override: str, sentence: str
) -> None:
    with pytest.raises(InputError) as caught:
        load(recipe(tmp_path), [override], {})
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_dropout_with_adapted_experts_is_refused_before_training(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"set lora\.dropout to 0"):
        load(recipe(tmp_path), ["lora.dropout=0.1", "lora.target_parameters=[mlp.x]"], {})


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("name: x\nmodel: {base: tiny}\n", "data is missing"),
        ("name: x\nmodel: tiny\ndata: {train: x}\n", "model must be a section"),
        ("- a\n", "holds list, not keys and values"),
        ("name: [", "is not YAML"),
    ],
)
def test_a_broken_file_is_one_sentence(tmp_path: Path, text: str, sentence: str) -> None:
    with pytest.raises(InputError) as caught:
        load(recipe(tmp_path, text), environ={})
    assert sentence in str(caught.value)


def test_a_missing_recipe_lists_those_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    with pytest.raises(InputError, match=r"recipes/nope.yaml does not exist.*recipes/tiny-ja.yaml"):
        load("recipes/nope.yaml", environ={})


SHIPPED = ROOT / "recipes/tiny-ja.yaml"
KEYS = [
    f"{section.name}.{key.name}"
    for section in dataclasses.fields(Recipe)
    if dataclasses.is_dataclass(kind := typing.get_type_hints(Recipe)[section.name])
    for key in dataclasses.fields(kind)
] + [field.name for field in dataclasses.fields(Recipe)]


@QUICK
@given(
    st.lists(st.tuples(st.sampled_from(KEYS) | st.text(max_size=9), YAML), min_size=1, max_size=3)
)
def test_any_override_gives_a_recipe_or_one_sentence(given: list[tuple[str, str]]) -> None:
    lines = [f"{key}={value}" for key, value in given]
    environ = {f"{ENV_PREFIX}{key.upper().replace('.', '__')}": v for key, v in given[:1]}
    for arguments in ((lines, dict[str, str]()), ([], environ)):
        try:
            load(SHIPPED, *arguments)
        except InputError as error:
            assert str(error)


@QUICK
@given(st.data())
def test_any_text_gives_a_recipe_or_one_sentence(tmp_path: Path, data: st.DataObject) -> None:
    lines = SHIPPED.read_text(encoding="utf-8").splitlines()
    at = data.draw(st.integers(0, len(lines) - 1))
    lines[at] = data.draw(st.just(lines[at] + " ") | st.just("")) + data.draw(YAML)
    file = tmp_path / "mine.yaml"
    text = "\n".join(lines[: data.draw(st.integers(at + 1, len(lines)))])
    file.write_bytes(data.draw(st.just(text.encode("utf-8", "replace")) | st.binary(max_size=40)))
    try:
        load(file, environ={})
    except InputError as error:
        assert str(error)
