"""What training and hosting cost on Azure OpenAI: the section `openai` of azure/prices.yml.

    training("gpt-4.1-mini-2025-04-14", "GlobalStandard").price     # dollars a million tokens
    hosting("Standard").price                                       # dollars an hour

CLOUD_PRICES goes over it, as over the machines' prices. What nobody has written down is None.
"""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from scripts.azure.prices import OWN, TABLE
from scripts.errors import UsageError
from scripts.settings import environment, relative


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """One price in US dollars."""

    price: float | None
    """None where it is not known."""
    as_of: str = ""
    source: str = ""
    checked: bool = False
    """Whether it was compared with something published."""


def training(model: str, training_type: str) -> Price:
    """For a million tokens of the training file and one epoch."""
    table = _table()
    rows: Mapping[str, Any] = table["training_per_million"]
    known = sorted((name for name in rows if model.startswith(name)), key=len)
    return _price(table, rows[known[-1]], training_type) if known else Price(price=None)


def hosting(sku: str) -> Price:
    """For an hour of a fine-tuned model's deployment."""
    table = _table()
    return _price(table, table["hosting_per_hour"], sku)


def as_of() -> str:
    """When the newest of them was looked up."""
    return max(str(origin.get("as_of", "")) for origin in _table()["sources"].values())


def unknown(what: str, section: str, key: str) -> str:
    """What to do where a price is not known."""
    return (
        f"the price of {what} is not known: write openai: {{{section}: {key}}} and instances: {{}} "
        f"into a YAML file and set {OWN} to it."
    )


def _price(table: Mapping[str, Any], row: Mapping[str, Any], kind: str) -> Price:
    found = {name.casefold(): value for name, value in row.items()}.get(kind.casefold())
    if found is None:
        return Price(price=None)
    origin = table["sources"].get(row.get("source", ""), {})
    return Price(
        price=float(found),
        as_of=str(origin.get("as_of", "")),
        source=" ".join(str(origin.get("source", "")).split()),
        checked=bool(origin.get("checked", False)),
    )


def _table() -> dict[str, Any]:
    values = copy.deepcopy(_section(TABLE))
    if named := environment().get(OWN, ""):
        own = _section(Path(named))
        values["sources"][OWN] = {"as_of": str(own.get("as_of", "")), "source": named, "checked": 1}
        if given := own.get("hosting_per_hour"):
            values["hosting_per_hour"] |= {"source": OWN, **given}
        for model, row in (own.get("training_per_million") or {}).items():
            known = values["training_per_million"].get(model, {})
            values["training_per_million"][model] = {**known, "source": OWN, **row}
    return values


def _section(path: Path) -> dict[str, Any]:
    """The file's section; empty where it has none."""
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{OWN}={path} cannot be read ({error}); mend or unset it.") from None
    except yaml.YAMLError as error:
        raise UsageError(f"{path} is not YAML: {' '.join(str(error).split())}") from None
    section = values.get("openai") if isinstance(values, dict) else None
    if section is not None and not isinstance(section, dict):
        raise UsageError(f"{path}: openai must be sections, as in {relative(TABLE)}.")
    return section or {}
