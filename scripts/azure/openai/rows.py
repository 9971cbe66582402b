"""The rows of a recipe as Azure OpenAI takes them: made here, taken as they are, or imported.

    data = gather(cloud, recipe, path)      # checked and counted where they are here
    train, validation = send(data, …)       # ids of the files there

Rows of this machine and of the hub go through train's own data code, which writes the byte-order
mark; rows with pictures, which it does not read, are taken as they stand. Rows in Azure
(`https://…`, `azureml:…`) are imported without being looked at.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from scripts.azure.openai import files, remote, tokens, validate
from scripts.azure.openai.accounts import Account
from scripts.azure.openai.remote import Remote
from scripts.azure.openai.tokens import Tokens
from scripts.azure.openai.validate import Facts
from scripts.console import say
from scripts.errors import UsageError
from scripts.settings import CACHE, ROOT
from train.recipe import Recipe

if TYPE_CHECKING:
    from openai import OpenAI

    from scripts.azure.client import Cloud

ROLES = ("train", "validation")


@dataclass(frozen=True, slots=True, kw_only=True)
class Data:
    """What a job learns from and is measured on, by role."""

    here: Mapping[str, Path]
    away: Mapping[str, Remote]
    facts: Mapping[str, Facts]
    """Of what is here."""
    hash: str
    """Changes with any of it."""
    tokens: Tokens
    """Of the training rows, once."""

    @property
    def line(self) -> str:
        """For people."""
        told = []
        for role in ROLES:
            if role in self.facts:
                facts = self.facts[role]
                images = f", {facts.images} with pictures" if facts.images else ""
                told.append(f"{facts.rows} {role}{images}")
            elif role in self.away:
                told.append(f"{role} from {self.away[role].place}, not looked at")
        return "; ".join(told)


def source_bytes(recipe: Recipe) -> int | None:
    """Size of the training rows as they lie here; None where they are elsewhere."""
    place = recipe.data.train
    if remote.is_remote(place) or place.startswith("hf://"):
        return None
    path = ROOT / place
    if path.is_dir():
        return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    return path.stat().st_size if path.is_file() else None


def gather(cloud: "Cloud", recipe: Recipe, path: Path) -> Data:
    """Make, check and count them; UsageError where Azure OpenAI would refuse them."""
    if recipe.method != "sft":
        raise UsageError(
            f"method is {recipe.method}: the route azure_openai learns answers (sft); "
            "cloud.route=command_job learns preferences too."
        )
    named = {"train": recipe.data.train, "validation": recipe.data.validation}
    away = {
        role: remote.find(cloud, place, f"data.{role}")
        for role, place in named.items()
        if place and remote.is_remote(place)
    }
    if away and any(place and role not in away for role, place in named.items()):
        raise UsageError(
            "data.train and data.validation must both be here or both in Azure: of one that is "
            "here the other is held out or checked together with it."
        )
    here = {} if away else _here(recipe, path)
    facts = {
        role: validate.check(file, least=validate.LEAST_ROWS if role == "train" else 1)
        for role, file in here.items()
    }
    versions = [f"{role} {away[role].version}" for role in sorted(away)]
    versions += [f"{role} {_sha256(here[role])}" for role in sorted(here)]
    return Data(
        here=here,
        away=away,
        facts=facts,
        hash=hashlib.sha256("\n".join(versions).encode()).hexdigest(),
        tokens=tokens.count(here["train"], download=not cloud.workspace.rehearsal)
        if here
        else tokens.estimate(away["train"].bytes),
    )


def _here(recipe: Recipe, path: Path) -> dict[str, Path]:
    from scripts.azure import rows

    own = ROOT / recipe.data.train
    if own.suffix == ".jsonl" and own.is_file() and validate.is_vision(own):
        say("rows:   they have pictures, so they are taken as they stand")
        folder = CACHE / "rows" / f"{recipe.name}-vision"
        given = [("train", recipe.data.train), ("validation", recipe.data.validation)]
        return {
            role: validate.with_bom(ROOT / place, folder / role) for role, place in given if place
        }
    made = rows.prepare(recipe, path, "azure_openai")
    found = {"train": made.train, "validation": made.validation}
    return {role: file for role, file in found.items() if file}


def there(data: Data, service: "OpenAI", recipe: str) -> tuple[str, str]:
    """Ids of what was sent before, as `send` gives them; empty where it was not."""
    known = {file.name: file.id for file in files.listed(service)}
    found = {role: known.get(name, "") for role, name in _names(data, recipe).items()}
    return found["train"], found.get("validation", "")


def send(data: Data, service: "OpenAI", account: Account, recipe: str) -> tuple[str, str]:
    """Ids of the training and the validation file there (empty: none), read by the service."""
    names = _names(data, recipe)
    sent = {
        role: files.upload(service, account, names[role], path) for role, path in data.here.items()
    }
    for role, blob in data.away.items():
        sent[role] = files.bring_in(account, service, names[role], blob.url)
    ready = {role: files.wait(service, file).id for role, file in sent.items()}
    return ready["train"], ready.get("validation", "")


def _names(data: Data, recipe: str) -> dict[str, str]:
    """Names of the files there, by role."""
    hashes = {role: _sha256(path) for role, path in data.here.items()}
    for role, blob in data.away.items():
        text = f"{blob.place} {blob.version}"
        hashes[role] = hashlib.sha256(text.encode()).hexdigest()
    return {role: files.name_of(recipe, role, content) for role, content in hashes.items()}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
