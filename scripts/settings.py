"""Settings of the verbs: the environment, and below it the file .env (see .env.example)."""

import os
import re
import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from scripts.errors import UsageError

ROOT = Path(__file__).resolve().parent.parent
"""The checkout; every verb works from here."""
OUTPUTS = ROOT / "outputs"
CACHE = ROOT / ".cache"
GIGABYTE = 1_000_000_000
SECRET = re.compile(r"\w+_(TOKEN|SECRET|PASSWORD|KEY|CONNECTION_STRING)|MLFLOW_TRACKING_URI")
"""Variables whose value is a secret, or (the address of a server) may hold one."""
AUTHORIZATION = re.compile(r"\b(Bearer|Basic) +(?=\S*[\d=])[^\s\"',;\\]{8,}", re.IGNORECASE)
SHORTEST_SECRET = 8
"""Characters; a shorter value would take words out of sentences."""

_aside: dict[str, str] = {}


def environment() -> dict[str, str]:
    """The process environment over the values of .env; empty values count as not set."""
    from dotenv import dotenv_values

    given = {name: value for name, value in os.environ.items() if value}
    try:
        written = dotenv_values(ROOT / ".env")
    except UnicodeDecodeError as error:
        raise UsageError(
            f"{ROOT / '.env'} is not UTF-8 (byte {error.start}): save it so."
        ) from None
    return {**{k: v for k, v in written.items() if v}, **_aside, **given}


def put_secrets_aside() -> None:
    """Take secrets out of this process's environment, which all that it starts would inherit.

    And the question of `make ask`. `environment` still has them, for who hands them on with intent.
    """
    for name in [name for name in os.environ if SECRET.fullmatch(name) or name == "PROMPT"]:
        value = os.environ.pop(name)
        if value:
            _aside[name] = value


def without_secrets(environ: Mapping[str, str]) -> dict[str, str]:
    """What a program may have that needs no secret."""
    return {name: value for name, value in environ.items() if not SECRET.fullmatch(name)}


def hidden(text: str) -> str:
    """`text` without secrets; a server may repeat in its error what it was sent."""
    try:
        known = environment()
    except UsageError:  # of .env, which is perhaps what is being said
        known = {**_aside, **os.environ}
    for name, value in known.items():
        if SECRET.fullmatch(name) and len(value) >= SHORTEST_SECRET:
            text = text.replace(value, "…")
    return AUTHORIZATION.sub(r"\1 …", text)


@contextmanager
def login_shown() -> Iterator[None]:
    """Azure's login in os.environ, the only place where its library looks, while that is made."""
    given = {
        name: value
        for name, value in environment().items()
        if name.startswith("AZURE_") and SECRET.fullmatch(name)
    }
    hidden = given.keys() - os.environ.keys()
    os.environ.update(given)
    try:
        yield
    finally:
        for name in hidden:
            os.environ.pop(name, None)


def flag_default(name: str, default: str = "") -> str:
    """Default of a flag: the variable `name`, which the Makefile passes on, or `default`."""
    return environment().get(name, default)


def relative(path: Path) -> str:
    """`path` as the user would type it: relative to the working directory where that is shorter."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def typed(path: Path) -> str:
    """The same as a word of a command line, whatever stands in it."""
    return shlex.quote(relative(path))


def overrides_in(environ: Mapping[str, str]) -> dict[str, str]:
    """The variables that override a recipe, to be handed to wherever training runs."""
    return {name: value for name, value in environ.items() if name.startswith("RECIPE_")}
