"""Checks requests and answers against the generated contract, closed, in the service's words.

    check_request("PUT", path, "2025-01-01-preview", body)        -> [] or what is wrong with it
    check_response("PUT", path, "2025-01-01-preview", 201, body)  -> likewise

The api-version's contract decides alone: a member, enumeration value or subtype that it does not
know is an error, as it is on Azure. Where recorded traffic shows that the service is otherwise than
its published models, EXCEPTIONS says so. Paths that no contract file names are nobody's error here;
the server answers them with 501. It does not judge what a value refers to.
"""

import functools
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent

EXCEPTIONS: dict[str, dict[str, str]] = {
    # Recorded PUTs and GETs of models (azure-ai-ml's own end-to-end recordings) carry objects and
    # arrays in a flavor's data, where the models say strings.
    "FlavorData": {"data": "{object}"},
    # azure-ai-ml itself reads the hosts by region, which the models do not have.
    "RegistryDiscoveryDto": {"registryFqdns": "{object}"},
}
"""Members by type whose kind recordings of the real service or its own SDK settle, against its
models."""

NOT_ANSWERED: dict[str, set[str]] = {
    # Recorded GETs of datastores (2026-03) name the kind of credentials and keep the secrets back.
    "AccountKeyDatastoreCredentials": {"secrets"},
    "SasDatastoreCredentials": {"secrets"},
}
"""Required members by type that the recorded service leaves out of its answers."""

ENVELOPE = {"id", "name", "type", "systemData"}
"""Read-only members of every resource: clients send them back as they got them, Azure ignores
them."""

DURATION = re.compile(r"-?P(?=.)(\d+D)?(T(?=.)(\d+H)?(\d+M)?(\d+(\.\d+)?S)?)?")
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)?")


@dataclass(frozen=True, slots=True)
class Operation:
    """What one method on one path takes and answers."""

    method: str
    path: re.Pattern[str]
    resource: str
    """`workspaces/jobs` or the like."""
    request: str | None
    responses: dict[str, str | None]
    names: dict[str, re.Pattern[str]]


@dataclass(frozen=True, slots=True)
class Contract:
    """One file: an api-version of the control plane, or a data plane (api_version is empty)."""

    api_version: str
    operations: tuple[Operation, ...]
    types: dict[str, dict[str, Any]]
    enums: dict[str, frozenset[str]]


def versions() -> list[str]:
    """The api-versions of the control plane that are known."""
    return sorted(contract.api_version for contract in _contracts() if contract.api_version)


def check_request(method: str, path: str, api_version: str, body: Any) -> list[str]:
    """What the service would say against the request; `body` is parsed JSON, None without one."""
    known = _find(method, path)
    if not known:
        return []
    for contract, operation, names in known:
        if contract.api_version in ("", api_version):
            wrong = [
                f"The resource name '{names[key]}' does not match the pattern '{pattern.pattern}'."
                for key, pattern in operation.names.items()
                if not pattern.search(names[key])
            ]
            if operation.request and body is not None:
                wrong += _Walk(contract, answer=False).check(operation.request, body)
            elif operation.request and method in ("PUT", "PATCH"):
                wrong.append("The request content was invalid and could not be deserialized: ''.")
            return wrong
    supported = ", ".join(sorted({contract.api_version for contract, _, _ in known}))
    return [
        f"No registered resource provider found for API version '{api_version}' for type"
        f" '{known[0][1].resource}'. The supported api-versions are '{supported}'."
    ]


def check_response(method: str, path: str, api_version: str, status: int, body: Any) -> list[str]:
    """What an answer has that the contract has not; `body` is JSON data, None without one.

    An answer to a request that check_request refuses is judged as an error envelope only.
    """
    for contract, operation, _ in _find(method, path):
        if contract.api_version not in ("", api_version):
            continue
        if status >= 400:
            kind: str | None = "ErrorResponse" if contract.api_version else None
        elif str(status) in operation.responses:
            kind = operation.responses[str(status)]
        else:
            known = ", ".join(operation.responses)
            return [f"Answered {status}, where the contract knows {known}."]
        if kind and body is None:
            return [f"Answered {status} without a body, where the contract has a '{kind}'."]
        return _Walk(contract, answer=True).check(kind, body) if kind else []
    return []


def _find(method: str, path: str) -> list[tuple[Contract, Operation, dict[str, str]]]:
    return [
        (contract, operation, found.groupdict())
        for contract in _contracts()
        for operation in contract.operations
        if operation.method == method and (found := operation.path.fullmatch(path))
    ]


@functools.cache
def _contracts() -> tuple[Contract, ...]:
    return tuple(_read(path) for path in sorted(FOLDER.glob("*.json")))


def _read(path: Path) -> Contract:
    data = json.loads(path.read_bytes())
    types = data["types"]
    for name, members in EXCEPTIONS.items():
        if name in types:
            types[name]["members"].update(members)
    return Contract(
        data["api_version"],
        tuple(_operation(key, value) for key, value in data["operations"].items()),
        types,
        {name: frozenset(value.lower() for value in e) for name, e in data["enums"].items()},
    )


def _operation(key: str, value: dict[str, Any]) -> Operation:
    method, path = key.split(" ")
    provider = (
        "/subscriptions/{subscriptionId}/resourceGroups/{resourceGroupName}/providers"
        "/Microsoft.MachineLearningServices"
    )
    path = path.replace("{workspace}", f"{provider}/workspaces/{{workspaceName}}")
    # the client puts it below the front of the registry's own region
    registry = f"/mferp/managementfrontend{provider}/registries/{{registryName}}"
    path = path.replace("{registry}", registry)
    names = iter(re.findall(r"\{(\w+)\}", path))
    pattern = re.sub(
        r"\\\{\w+\\\}", lambda _: f"(?P<{next(names)}>[^/]+)", re.escape(path.rstrip("/"))
    )
    return Operation(
        method,
        re.compile(f"{pattern}/?", re.IGNORECASE),
        "/".join(path.rpartition("/providers/")[2].split("/")[1::2]),
        value["request"],
        value["responses"],
        {name: re.compile(rule) for name, rule in value.get("names", {}).items()},
    )


class _Walk:
    """One pass over one body."""

    def __init__(self, contract: Contract, *, answer: bool) -> None:
        self.contract = contract
        self.answer = answer

    def check(self, kind: str, value: Any) -> list[str]:
        return list(self._value(kind, value, ""))

    def _value(self, kind: str, value: Any, at: str) -> Iterator[str]:
        if value is None or kind == "object":
            return
        if kind[0] == "[":
            if not isinstance(value, list):
                yield f"Expected an array. Path '{at}'."
                return
            for place, item in enumerate(value):
                yield from self._value(kind[1:-1], item, f"{at}[{place}]")
        elif kind[0] == "{":
            if not isinstance(value, dict):
                yield f"Expected an object. Path '{at}'."
                return
            for name, item in value.items():
                yield from self._value(kind[1:-1], item, _below(at, name))
        elif kind in self.contract.types:
            yield from self._object(kind, value, at)
        else:
            yield from self._scalar(kind, value, at)

    def _object(self, kind: str, value: Any, at: str) -> Iterator[str]:
        if not isinstance(value, dict):
            yield f"Expected an object of type '{kind}'. Path '{at}'."
            return
        while "by" in self.contract.types[kind]:
            by = self.contract.types[kind]["by"]
            subtypes = {n.lower(): t for n, t in self.contract.types[kind]["subtypes"].items()}
            if value.get(by) is None:
                yield f"Required property '{by}' not found in JSON. Path '{at}'."
                return
            chosen = str(value[by]).lower()
            if chosen not in subtypes:
                yield (
                    f"Error converting value \"{value[by]}\" to type '{kind}'."
                    f" Path '{_below(at, by)}'."
                )
                return
            if subtypes[chosen] is None:
                yield f"{by} '{value[by]}' is not rehearsed here. Path '{_below(at, by)}'."
                return
            kind = subtypes[chosen]
        described = self.contract.types[kind]
        members = described["members"]
        for name, item in value.items():
            if name not in members:
                yield (
                    f"Could not find member '{name}' on object of type '{kind}'."
                    f" Path '{_below(at, name)}'."
                )
            elif (
                not self.answer
                and item is not None
                and name not in ENVELOPE
                and (name in described.get("readonly", ()))
            ):
                yield f"Property '{name}' on object of type '{kind}' is read-only. Path '{at}'."
            else:
                yield from self._value(members[name], item, _below(at, name))
        absent = NOT_ANSWERED.get(kind, set()) if self.answer else set()
        for name in described.get("required", ()):
            if value.get(name) is None and name not in absent:
                yield f"Required property '{name}' not found in JSON. Path '{at}'."

    def _scalar(self, kind: str, value: Any, at: str) -> Iterator[str]:
        """Scalars convert where their text allows it, as the service's reader does it."""
        text = str(value).lower() if isinstance(value, bool) else str(value)
        if isinstance(value, dict | list):
            yield f"Unexpected character encountered while parsing value: {text[0]}. Path '{at}'."
            return
        fits = {
            "bool": text.lower() in ("true", "false"),
            "int": bool(re.fullmatch(r"-?\d+(\.0+)?", text)),
            "long": bool(re.fullmatch(r"-?\d+(\.0+)?", text)),
            "float": isinstance(value, int | float) or bool(re.fullmatch(r"-?[\d.eE+-]+", text)),
            "duration": bool(DURATION.fullmatch(text)),
            "iso-8601": bool(TIME.fullmatch(text)),
        }.get(kind, True)
        if kind in self.contract.enums:
            fits = text.lower() in self.contract.enums[kind]
        if not fits:
            yield f"Error converting value {json.dumps(value)} to type '{kind}'. Path '{at}'."


def _below(at: str, name: str) -> str:
    return f"{at}.{name}" if at else name
