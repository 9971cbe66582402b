"""What Azure ML's machines have and cost: azure/prices.yml, and over it the user's own file.

    instance = find("Standard_NC40ads_H100_v5")

CLOUD_PRICES names a file of the same form with the prices of your region or contract. A price that
nobody has written down is None, never 0. Nothing here asks Azure.
"""

import copy
import difflib
import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import yaml

from scripts.errors import UsageError
from scripts.settings import ROOT, environment, relative

TABLE = ROOT / "azure/prices.yml"
OWN = "CLOUD_PRICES"
UPGRADE_RESERVE = 1.2
"""Azure keeps room for an endpoint's upgrade: https://learn.microsoft.com/azure/machine-learning/
how-to-manage-quotas, "Virtual machine quota allocation for deployment"."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    """One machine by Azure's name."""

    name: str
    gpus: int = 0
    gpu: str = ""
    gpu_memory_gib: float = 0
    """Of one GPU."""
    cores: int
    memory_gib: float
    family: str
    """Whose cores count against the quota."""
    per_hour: float | None
    """US dollars; None where it is not known."""
    spot_per_hour: float | None = None
    """US dollars of a low-priority machine; None where it is not known."""
    quota_checked: bool = True
    """Whether an endpoint needs quota for 1.2 times its machines."""
    as_of: str = ""
    source: str = ""
    checked: bool = False
    """Whether the price was compared with a published list."""

    @property
    def unknown_price(self) -> str:
        """What to do where the price is not known."""
        return (
            f"the price of {self.name} is not known: write instances: {{{self.name}: "
            f"{{per_hour: …}}}} into a YAML file and set {OWN} to it."
        )

    def price(self) -> float:
        """US dollars per hour; UsageError where it is not known."""
        if self.per_hour is None:
            raise UsageError(self.unknown_price)
        return self.per_hour

    def serving_cores(self, count: int) -> int:
        """Cores of quota that an endpoint with `count` of them needs."""
        machines = math.ceil(round(UPGRADE_RESERVE * count, 6)) if self.quota_checked else count
        return machines * self.cores


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """All machines that are known, by name."""

    currency: str
    region: str
    as_of: str
    instances: Mapping[str, Instance]

    def find(self, name: str) -> Instance:
        """The machine of that name in any case; UsageError with the nearest one otherwise."""
        known = {instance.casefold(): instance for instance in self.instances}
        found = known.get(name.casefold())
        if found:
            return self.instances[found]
        near = difflib.get_close_matches(name.casefold(), known, n=1, cutoff=0)
        raise UsageError(
            f"machine {name!r} is not in {relative(TABLE)}; the nearest is {known[near[0]]}. If "
            f"Azure has it, add it to a file of the same form and set {OWN} to that."
        )


def find(name: str) -> Instance:
    """The machine of that name, with the user's own price where there is one."""
    return table().find(name)


def per_hour(name: str, *, spot: bool = False) -> float | None:
    """US dollars per hour of one machine, None where nobody has written it down.

    A low-priority machine whose own price is not known counts as a dedicated one, which is more.
    """
    try:
        found = find(name)
    except UsageError:
        return None
    if spot and found.spot_per_hour is not None:
        return found.spot_per_hour
    return found.per_hour


def per_million(model: str) -> float | None:
    """US dollars for a million trained tokens of a catalog's model, on the service's own machines.

    None where nobody has written it down; `model` is `registry/name`.
    """
    named = environment().get(OWN, "")
    for path in [*([Path(named)] if named else []), TABLE]:
        price = (_read(path).get("finetuning") or {}).get(model)
        if price is not None:
            if not _is_number(price) or price <= 0:
                raise UsageError(f"{path}: finetuning: {model} is {price}: give dollars above 0.")
            return float(price)
    return None


def table(own: Path | None = None) -> Table:
    """The table with the user's file over it: `own`, or the one that CLOUD_PRICES names."""
    values = _read(TABLE)
    named = environment().get(OWN, "")
    own = own or (Path(named) if named else None)
    if own:
        _put_over(values, _read(own), own)
    sources = values["sources"]
    return Table(
        currency=values["currency"],
        region=values["region"],
        as_of=values["as_of"],
        instances={
            name: _instance(name, row, sources, own) for name, row in values["instances"].items()
        },
    )


def _read(path: Path) -> dict[str, Any]:
    try:
        values = copy.deepcopy(_parsed(path.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or error
        raise UsageError(f"{OWN}={path} cannot be read: {why}; mend or unset it.") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UsageError(f"{path} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict) or not isinstance(values.get("instances"), dict):
        raise UsageError(f"{path} has no section `instances`: see {relative(TABLE)} for the form.")
    for section in ("sources", "finetuning"):
        if not isinstance(values.get(section) or {}, dict):
            raise UsageError(f"{path}: {section} must be names and values: see {relative(TABLE)}.")
    return values


@functools.cache
def _parsed(text: str) -> Any:
    """Kept, since a verb asks for many prices and reading the table takes 20 ms."""
    return yaml.safe_load(text)


def _put_over(values: dict[str, Any], own: dict[str, Any], path: Path) -> None:
    """The user's rows over ours; a row's other fields stay, and it says where its price is from."""
    unknown = set(own) - set(values)
    if unknown:
        raise UsageError(
            f"{path}: unknown section {min(map(str, unknown))}; see {relative(TABLE)}."
        )
    values.update({k: v for k, v in own.items() if k in ("currency", "region", "as_of")})
    for name, source in (own.get("sources") or {}).items():
        if not isinstance(source, dict):
            raise UsageError(f"{path}: sources: {name} must be fields and values.")
        values["sources"][name] = source
    values["sources"][OWN] = {"as_of": str(own.get("as_of", "")), "source": str(path), "checked": 1}
    names = {name.casefold(): name for name in values["instances"]}
    for name, row in own["instances"].items():
        if not isinstance(row, dict):
            raise UsageError(f"{path}: {name} must be fields and values, as {{per_hour: 1.5}}.")
        known = names.get(str(name).casefold(), str(name))
        values["instances"][known] = {
            **values["instances"].get(known, {}),
            **({"source": OWN} if "per_hour" in row else {}),
            **row,
        }


def _is_number(value: Any) -> bool:
    """A finite one; true and false are none."""
    return type(value) in (int, float) and abs(value) < math.inf


def _instance(
    name: str, row: Mapping[str, Any], sources: Mapping[str, Any], own: Path | None
) -> Instance:
    where = f"{own or relative(TABLE)}: {name}"
    known = {field.name for field in fields(Instance)} - {"name", "as_of", "checked"}
    for key in row:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1, cutoff=0)
            raise UsageError(f"{where}: unknown field {key}; did you mean {near[0]}?")
    for key in ("cores", "memory_gib", "family"):
        if key not in row:
            raise UsageError(f"{where}: {key} is missing.")
    for key in row.keys() & {"gpus", "gpu_memory_gib", "cores", "memory_gib"}:
        if not _is_number(row[key]) or row[key] < 0:
            raise UsageError(f"{where}: {key} is {row[key]!r}: give a number.")
    for key in row.keys() & {"gpu", "family", "source"}:
        if not isinstance(row[key], str):
            raise UsageError(f"{where}: {key} is {row[key]!r}: give a name.")
    for key in ("per_hour", "spot_per_hour"):
        price = row.get(key)
        if price is not None and not (_is_number(price) and price > 0):
            raise UsageError(f"{where}: {key} is {price}: give dollars above 0, or null.")
    origin = sources.get(row.get("source", ""), {})
    return Instance(
        **{
            **row,
            "name": name,
            "per_hour": row.get("per_hour"),
            "as_of": str(origin.get("as_of", "")),
            "source": " ".join(str(origin.get("source", "")).split()),
            "checked": bool(origin.get("checked", False)),
        }
    )
