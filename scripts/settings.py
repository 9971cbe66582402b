"""Settings of the verbs: the environment, and below it the file .env (see .env.example)."""

import os
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
"""The checkout; every verb works from here."""
OUTPUTS = ROOT / "outputs"
CACHE = ROOT / ".cache"
GIGABYTE = 1_000_000_000


def environment() -> dict[str, str]:
    """The process environment over the values of .env; empty values count as not set."""
    from dotenv import dotenv_values

    given = {name: value for name, value in os.environ.items() if value}
    return {**{k: v for k, v in dotenv_values(ROOT / ".env").items() if v}, **given}


def flag_default(name: str, default: str = "") -> str:
    """Default of a flag: the variable `name`, which the Makefile passes on, or `default`."""
    return environment().get(name, default)


def relative(path: Path) -> str:
    """`path` as the user would type it: relative to the working directory where that is shorter."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def overrides_in(environ: Mapping[str, str]) -> dict[str, str]:
    """The variables that override a recipe, to be handed to wherever training runs."""
    return {name: value for name, value in environ.items() if name.startswith("RECIPE_")}
