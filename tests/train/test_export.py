"""Rows for the services of Azure: their forms, what is held out, and what is refused."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.tree import ROOT
from train import export as exports
from train.__main__ import main
from train.data.sources import fingerprint
from train.errors import InputError
from train.export import BOM, Kind, export, load
from train.recipe import Recipe
from train.recipe import load as load_recipe

QUESTION = {"question": "Where?", "answer": "<think>Look.</think>Here."}
TALK = {
    "messages": [
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": "1", "weight": 0},
        {"role": "user", "content": "two"},
        {"role": "assistant", "content": "2", "weight": 1},
        {"role": "user", "content": "three"},
    ]
}
PICTURE = {
    "messages": [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "What is it?"},
                {"type": "image_url", "image_url": {"url": "https://example.org/cat.png"}},
            ],
        },
        {"role": "assistant", "content": "A cat."},
    ]
}


def many(count: int = 40) -> list[dict[str, str]]:
    return [
        {"question": f"How much is {n}?", "answer": f"<think>n</think>{n}"} for n in range(count)
    ]


def write(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def recipe(folder: Path, rows: list[Any], *overrides: str) -> Recipe:
    """A recipe whose training rows are `rows`."""
    folder.mkdir(parents=True, exist_ok=True)
    train = write(folder / "rows.jsonl", rows)
    path = folder / "recipe.yaml"
    path.write_text(f"name: small\nmodel: {{base: tiny}}\ndata: {{train: '{train}'}}\n")
    return load_recipe(path, overrides, environ={})


def lines(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8-sig").splitlines()]


def made(tmp_path: Path, kind: Kind, rows: list[Any], *overrides: str) -> list[Any]:
    """The training rows, with one that is held out put apart."""
    held = write(tmp_path / "held.jsonl", [QUESTION])
    given = recipe(tmp_path, rows, f"data.validation={held}", *overrides)
    export(given, tmp_path / "out", kind, tmp_path / "cache")
    return lines(tmp_path / "out/train.jsonl")


def test_a_chat_keeps_its_reasoning_in_the_models_own_field(tmp_path: Path) -> None:
    (row,) = made(tmp_path, "chat", [QUESTION], "data.persona=Be kind.")
    assert row["messages"] == [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "Where?"},
        {"role": "assistant", "content": "Here.", "thinking": "Look."},
    ]


def test_a_text_is_a_prompt_and_its_answer(tmp_path: Path) -> None:
    assert made(tmp_path, "text", [QUESTION]) == [{"text": "Where?", "ground_truth": "Here."}]


def test_several_turns_in_one_text_are_told_apart_by_their_speakers(tmp_path: Path) -> None:
    (row,) = made(tmp_path, "text", [TALK])
    assert row["text"] == "User: one\n\nAssistant: 1\n\nUser: two\n\nAssistant:"
    assert row["ground_truth"] == "2"


def test_rows_of_summaries_stay_as_they_are_in_texts(tmp_path: Path) -> None:
    rows = lines(ROOT / "data/dialogue_summary.jsonl")
    assert made(tmp_path, "text", rows) == rows


def test_azure_openai_gets_whole_conversations_with_weights_and_a_bom(tmp_path: Path) -> None:
    rows = made(tmp_path, "azure_openai", [TALK] * 10)
    assert rows == [{"messages": TALK["messages"][:4]}] * 10
    for name in ("train", "validation"):
        assert (tmp_path / f"out/{name}.jsonl").read_bytes().startswith(BOM + b"{")


def test_azure_openai_gets_no_reasoning_and_that_is_told(tmp_path: Path) -> None:
    rows = made(tmp_path, "azure_openai", [QUESTION] * 10)
    assert rows[0]["messages"][-1] == {"role": "assistant", "content": "Here."}
    summary = load(tmp_path / "out")
    assert summary
    assert summary["notices"] == {exports.NO_REASONING: 11}


def test_pictures_and_tools_are_passed_on_to_azure_openai_alone(tmp_path: Path) -> None:
    rows = made(tmp_path, "azure_openai", [PICTURE] * 10, "data.persona=Be kind.")
    assert rows[0]["messages"] == [{"role": "system", "content": "Be kind."}, *PICTURE["messages"]]
    with pytest.raises(InputError, match="content has a part of type 'image_url'"):
        made(tmp_path, "chat", [PICTURE])


def test_a_conversation_is_one_chat_unless_it_has_reasoning(tmp_path: Path) -> None:
    plain = [{"role": r, "content": c} for r, c in [("user", "a"), ("assistant", "b")] * 2]
    assert made(tmp_path, "chat", [{"messages": plain}]) == [{"messages": plain}]
    thought = [*plain[:3], {**plain[3], "thinking": "Hm."}]
    rows = made(tmp_path, "chat", [{"messages": thought}])
    assert [len(row["messages"]) for row in rows] == [2, 4]
    assert rows[1]["messages"][-1]["thinking"] == "Hm."


@pytest.mark.parametrize("kind", ["chat", "text", "azure_openai"])
def test_rows_are_held_out_where_the_recipe_names_none(tmp_path: Path, kind: Kind) -> None:
    summary = export(recipe(tmp_path, many()), tmp_path / "out", kind, tmp_path)
    held = 10 if kind == "azure_openai" else 2
    assert summary["counts"] == {"train": 40 - held, "validation": held}
    both = [lines(tmp_path / f"out/{name}.jsonl") for name in ("train", "validation")]
    assert [len(rows) for rows in both] == [40 - held, held]
    whole = export(
        recipe(tmp_path / "w", many(), f"data.validation={tmp_path / 'rows.jsonl'}"),
        tmp_path / "whole",
        kind,
        tmp_path,
    )
    assert whole["counts"] == {"train": 40, "validation": 40}
    rows = lines(tmp_path / "whole/train.jsonl")
    assert sorted(map(json.dumps, both[0] + both[1])) == sorted(map(json.dumps, rows))


def test_the_catalog_gets_validation_rows_even_where_the_share_is_0(tmp_path: Path) -> None:
    given = recipe(tmp_path, many(), "data.validation_share=0")
    assert export(given, tmp_path / "a", "chat", tmp_path)["counts"]["validation"] == 2
    assert export(given, tmp_path / "b", "azure_openai", tmp_path)["counts"] == {"train": 40}
    same = recipe(tmp_path / "same", [QUESTION] * 3, "data.validation_share=0")
    with pytest.raises(InputError, match=r"name some in data\.validation"):
        export(same, tmp_path / "c", "chat", tmp_path)


def test_azure_openai_keeps_ten_rows_to_train_on(tmp_path: Path) -> None:
    given = recipe(tmp_path, many(15))
    assert export(given, tmp_path / "out", "azure_openai", tmp_path)["counts"] == {"train": 15}
    with pytest.raises(InputError, match="has 9 rows to train on, and Azure OpenAI takes 10"):
        export(recipe(tmp_path, many(9)), tmp_path / "out", "azure_openai", tmp_path)


def test_a_test_file_may_have_questions_alone(tmp_path: Path) -> None:
    asked = write(tmp_path / "test.jsonl", [{"messages": TALK["messages"][:1]}] * 2)
    given = recipe(tmp_path, many(), f"data.test={asked}")
    assert export(given, tmp_path / "a", "chat", tmp_path)["counts"]["test"] == 2
    assert lines(tmp_path / "a/test.jsonl")[0] == {"messages": TALK["messages"][:1]}


def test_the_hash_is_that_of_the_rows_and_not_of_the_folder(tmp_path: Path) -> None:
    given = recipe(tmp_path, many())
    one = export(given, tmp_path / "a", "chat", tmp_path)
    assert one["hash"] == export(given, tmp_path / "b", "chat", tmp_path)["hash"]
    files = [tmp_path / f"a/{name}.jsonl" for name in ("train", "validation")]
    assert one["hash"] == fingerprint(files)
    other = export(recipe(tmp_path, many(41)), tmp_path / "c", "chat", tmp_path)
    assert one["hash"] != other["hash"]


def test_a_bad_row_is_named_and_leaves_nothing_that_looks_whole(tmp_path: Path) -> None:
    given = recipe(tmp_path, [*many(), {"question": "and?"}])
    export(recipe(tmp_path / "good", many()), tmp_path / "out", "chat", tmp_path)
    with pytest.raises(InputError, match=r"rows\.jsonl:41: answer is missing"):
        export(given, tmp_path / "out", "chat", tmp_path)
    assert load(tmp_path / "out") is None
    assert not list((tmp_path / "out").glob("*.part*"))


def test_pairs_are_for_a_training_here(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="set method to sft"):
        export(recipe(tmp_path, many(), "method=dpo"), tmp_path / "out", "chat", tmp_path)


def test_a_file_is_replaced_by_one_with_fewer_sets(tmp_path: Path) -> None:
    asked = write(tmp_path / "test.jsonl", many(2))
    export(recipe(tmp_path, many(), f"data.test={asked}"), tmp_path / "out", "chat", tmp_path)
    assert (tmp_path / "out/test.jsonl").exists()
    export(recipe(tmp_path, many()), tmp_path / "out", "chat", tmp_path)
    assert not (tmp_path / "out/test.jsonl").exists()


def test_the_command_prints_what_was_written_as_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe(tmp_path, many())
    flags = ["--rows", str(tmp_path / "out"), "--rows-as", "text", "--cache", str(tmp_path / "c")]
    assert main([str(tmp_path / "recipe.yaml"), *flags]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told == load(tmp_path / "out")
    assert told["form"] == "text"
    assert main([str(tmp_path / "recipe.yaml"), *flags, "method=dpo"]) == 2


@pytest.mark.parametrize("name", ["phi-3-mini-ultrachat", "mistral-7b-samsum", "azure-openai-ja"])
def test_the_rehearsal_of_each_recipe_has_rows_for_its_route(name: str, tmp_path: Path) -> None:
    path = ROOT / f"recipes/{name}.yaml"
    given = load_recipe(path, load_recipe(path, environ={}).rehearsal.set, environ={})
    kinds: dict[str, Kind] = {"azure_openai": "azure_openai", "finetuning_job": "text"}
    kind = kinds.get(given.cloud.route, "chat")
    export(given, tmp_path, kind, tmp_path)
    assert given.rehearsal.prompt
    row = lines(tmp_path / "train.jsonl")[0]
    asked = row["text"] if kind == "text" else row["messages"][-2]["content"]
    answer = row["ground_truth"] if kind == "text" else row["messages"][-1]["content"]
    assert given.rehearsal.prompt == asked
    assert given.rehearsal.answer in answer
