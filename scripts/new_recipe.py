"""Write a recipe for rows of your own, and check it before it gets its name.

    make new-recipe NAME=mine DATA=/home/me/rows.jsonl [MODEL=tiny]

The check is `make local-check`'s: rows, template, targets, memory. A recipe that fails it is not
written, and one that is there is never overwritten.
"""

import argparse
import re
from pathlib import Path
from typing import Any

import yaml

from scripts.console import run_verb, say
from scripts.errors import UsageError
from scripts.local_train import choose, files, find_recipe
from scripts.settings import CACHE, ROOT, flag_default, relative, typed

FOLDER = ROOT / "recipes"
SAMPLE = "make new-recipe NAME=mine DATA=/home/me/rows.jsonl MODEL=tiny"
EXPERTS = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]
UNWRITABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
SMALL: dict[str, Any] = {
    "model": {"dtype": "float32"},
    "lora": {"r": 128, "alpha": 256, "target_parameters": EXPERTS},
    "training": {"epochs": 20, "learning_rate": 1.2e-3, "warmup": 0.05, "packs_per_step": 2},
    "evaluation": {"rows": 32, "max_new_tokens": 160},
}
"""For the embedded model, which is too small for the defaults: it learns by heart."""
HEAD = """\
# {name}: {model} on {data}.
# Every key, with its default and meaning, is documented in train/recipe.py; what is not here is
# its default. Check it again: make local-check RECIPE=recipes/{name}.yaml
"""


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="make new-recipe", description="Write a recipe for your own rows, and check it."
    )
    parser.add_argument("--name", default=flag_default("NAME"), help="of the recipe and its model")
    parser.add_argument(
        "--data", default=flag_default("DATA"), help="a file, a folder, or hf://owner/name@commit"
    )
    parser.add_argument(
        "--model", default=flag_default("MODEL", "tiny"), help="tiny, a folder, or a hub id"
    )
    parser.add_argument(
        "--runtime", default=flag_default("RUNTIME", "auto"), help="auto, docker or host"
    )
    arguments = parser.parse_args()
    for key in ("name", "data"):
        if not getattr(arguments, key):
            raise UsageError(f"{key.upper()} is not set: {SAMPLE}")
    path = FOLDER / f"{arguments.name}.yaml"
    if path.exists():
        raise UsageError(
            f"{relative(path)} is there already and is not overwritten: choose another NAME, or "
            "edit it."
        )
    draft = CACHE / "new-recipe" / path.name
    draft.parent.mkdir(parents=True, exist_ok=True)
    try:
        data = str(Path(arguments.data).expanduser())  # of DATA=~/… no shell makes a path
        draft.write_text(text(arguments.name, data, arguments.model), encoding="utf-8")
        recipe = find_recipe(draft, [])
        runtime = choose(arguments.runtime)
        runtime.train(draft, [], {"recipe": draft, **files(recipe)}, ["--check"])
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
    say(f"wrote:  {relative(path)}")
    say(f"next:   make local-serve RECIPE={typed(path)}")
    print(relative(path))


def text(name: str, data: str, model: str) -> str:
    """The recipe as YAML."""
    if not name or not all(c.isascii() and (c.isalnum() or c in "-_") for c in name):
        raise UsageError(f"NAME is {name!r}: use letters, digits, - and _ only.")
    for key, value in (("DATA", data), ("MODEL", model)):
        if UNWRITABLE.search(value):
            raise UsageError(f"{key} is {value!r}: it holds a character that no recipe can.")
    values: dict[str, Any] = {"name": name, "model": {"base": model}, "data": {"train": data}}
    if model == "tiny":
        values["model"] |= SMALL["model"]
        values |= {key: value for key, value in SMALL.items() if key != "model"}
    head = HEAD.format(name=name, model=" ".join(model.split()), data=" ".join(data.split()))
    return head + yaml.safe_dump(values, sort_keys=False, allow_unicode=True)


if __name__ == "__main__":
    run_verb(main)
