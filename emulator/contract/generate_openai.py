"""Write the contract of Azure OpenAI from two published wheels, read as text, never imported.

    pip download azure-mgmt-cognitiveservices==13.6.0 openai==3.54.0 --no-deps
    python -m emulator.contract.generate_openai azure_mgmt_cognitiveservices-*.whl openai-*.whl

The management client (MIT) gives accounts and deployments at their api-version; the openai client
(Apache-2.0) gives files, uploads and fine-tuning jobs of the data plane, which has no api-version
below /openai/v1. What Azure is known to say beyond the openai client's types stands in AZURE, each
with its source.
"""

import argparse
import ast
import json
import re
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from emulator.contract.generate import FOLDER, Wheel, _bodies, _builder, _called, _types

ACCOUNT = r".*/Microsoft\.CognitiveServices/accounts"
MANAGEMENT = "|".join(
    (
        rf"GET {ACCOUNT}(/\{{accountName\}})?",
        rf"POST {ACCOUNT}/\{{accountName\}}/listKeys",
        rf"GET {ACCOUNT}/\{{accountName\}}/(models|usages|deployments)",
        rf"[A-Z]+ {ACCOUNT}/\{{accountName\}}/deployments/\{{deploymentName\}}",
    )
)
"""Patterns of the operations that are rehearsed."""
RESOURCES = ("files", "uploads/uploads", "uploads/parts", "models")
TUNING = ("fine_tuning/jobs/jobs", "fine_tuning/jobs/checkpoints")
"""Modules below openai/resources whose operations are rehearsed."""

AZURE: dict[str, dict[str, Any]] = {
    # sent by extra_body; Azure's fine-tuning guide, "training type"
    "JobCreateParams": {"members": {"trainingType": "object"}},
    # BerriAI/litellm, pull request 24687: `pending`, and null for what OpenAI always fills
    "FineTuningJob": {
        "members": {"status": "str", "trainingType": "str", "updated_at": "int", "suffix": "str"},
        "optional": ["organization_id", "result_files"],
    },
    # Azure's REST reference of files: `pending`, `running`, `error`; uploads name no expiry
    "FileObject": {"members": {"status": "str", "updated_at": "int"}},
    # Azure's REST reference of models, which has other members than OpenAI's
    "Model": {
        "members": {
            "capabilities": "object",
            "created_at": "int",
            "deprecation": "object",
            "fine_tune": "str",
            "lifecycle_status": "str",
            "model": "str",
            "status": "str",
        },
        "optional": ["created", "owned_by"],
    },
}
"""By type: members that Azure adds or means otherwise, and required ones that it may leave out."""


class Management(Wheel):
    """The generated client of Microsoft.CognitiveServices."""

    def __init__(self, wheel: zipfile.ZipFile) -> None:
        self.root = "azure/mgmt/cognitiveservices/"
        self.wheel = wheel
        self.classes = {
            node.name: node
            for node in self._tree("models/_models_py3.py").body
            if isinstance(node, ast.ClassDef)
        }

    def operations(self) -> dict[str, dict[str, Any]]:
        """A long-running operation is two methods: one sends, the other reads the answer."""
        found: dict[str, dict[str, Any]] = {}
        for name in self._names("operations/"):
            tree = self._tree(name)
            builders = {
                node.name: _builder(node) for node in tree.body if isinstance(node, ast.FunctionDef)
            }
            for owner in tree.body:
                if isinstance(owner, ast.ClassDef):
                    found |= _operations(owner, builders)
        return found


def _operations(
    owner: ast.ClassDef, builders: dict[str, tuple[str, str, dict[str, str]]]
) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    # of overloads, the last definition is the method itself
    methods = {node.name: node for node in owner.body if isinstance(node, ast.FunctionDef)}
    for name, node in methods.items():
        used = {call for call in _called(node) if call in builders}
        if len(used) != 1:
            continue
        method, path, names = builders[used.pop()]
        reader = methods.get(f"begin{name.removesuffix('_initial')}", node)
        kinds = set(_deserialized(reader))
        bodies = _bodies(node)
        answer = kinds.pop() if len(kinds) == 1 else None
        responses = {s: None if s in ("202", "204") else answer for s in bodies["responses"]}
        bodies["responses"] = responses
        found[f"{method} {path}"] = {**bodies, **({"names": names} if names else {})}
    return found


def _deserialized(function: ast.FunctionDef) -> Iterator[str]:
    for call in ast.walk(function):
        if isinstance(call, ast.Call) and ast.unparse(call.func) == "self._deserialize":
            kind = str(ast.literal_eval(call.args[0]))
            if kind != "str":  # a header
                yield kind


class Client:
    """The openai package."""

    def __init__(self, wheel: zipfile.ZipFile) -> None:
        self._wheel = wheel
        self._types: dict[str, tuple[str, ast.ClassDef | ast.AnnAssign]] = {}
        self.enums: dict[str, list[str]] = {}
        for name in wheel.namelist():
            if re.fullmatch(
                r"openai/types/(fine_tuning/|uploads/|shared\w*/)?(\w+/)?\w+\.py", name
            ):
                self._read(name)

    def _read(self, name: str) -> None:
        for node in ast.parse(self._wheel.read(name)).body:
            if isinstance(node, ast.ClassDef):
                self._types[f"{name}:{node.name}"] = (name, node)
            elif isinstance(node, ast.AnnAssign) and "TypeAlias" in ast.unparse(node.annotation):
                self._types[f"{name}:{ast.unparse(node.target)}"] = (name, node)

    def operations(self, modules: tuple[str, ...]) -> dict[str, dict[str, Any]]:
        """`METHOD path` -> body types of request and answer."""
        found: dict[str, dict[str, Any]] = {}
        for module in modules:
            tree = ast.parse(self._wheel.read(f"openai/resources/{module}.py"))
            for owner in tree.body:
                if isinstance(owner, ast.ClassDef) and not re.match("Async|.*With", owner.name):
                    for node in ast.walk(owner):
                        if isinstance(node, ast.Call):
                            found |= _request(node)
        return found

    def define(self, name: str, types: dict[str, Any]) -> str:
        """Add the type that the public class `name` stands for, and all that it needs."""
        places = [p for p in self._types if p.endswith(f":{name}") and "/beta/" not in p]
        own = [
            p for p in places if re.sub(r"[/_]", "", p.split(":")[0]).endswith(f"{name.lower()}.py")
        ]
        return self._define(sorted(own or places)[0], types, name)

    def _define(self, place: str, types: dict[str, Any], name: str) -> str:
        file, node = self._types[place]
        if isinstance(node, ast.AnnAssign):
            return self._kind(node.value, file, types, name) if node.value else "object"
        if name in types:
            return name
        made: dict[str, Any] = {"members": {}}
        types[name] = made
        for item in node.body:
            if isinstance(item, ast.AnnAssign):
                member = ast.unparse(item.target)
                text = ast.unparse(item.annotation)
                given = bool(re.match(r"Required\[", text))
                if given or not (
                    item.value or "Params" in name or "Param" in name or "Optional[" in text
                ):
                    made.setdefault("required", []).append(member)
                made["members"][member] = self._kind(
                    item.annotation, file, types, f"{name}.{member}"
                )
        return name

    def _kind(self, node: ast.expr | None, file: str, types: dict[str, Any], at: str) -> str:
        """The contract's word for an annotation; a union of several is `object`, unchecked."""
        if isinstance(node, ast.Subscript):
            outer = ast.unparse(node.value)
            inner = node.slice
            if outer in ("Optional", "Required"):
                return self._kind(inner, file, types, at)
            if outer in ("List", "Iterable", "SequenceNotStr"):
                return f"[{self._kind(inner, file, types, at)}]"
            if outer == "Dict" and isinstance(inner, ast.Tuple):
                return f"{{{self._kind(inner.elts[1], file, types, at)}}}"
            if outer == "Literal":
                values = inner.elts if isinstance(inner, ast.Tuple) else [inner]
                self.enums[at] = sorted(str(ast.literal_eval(value)) for value in values)
                return at
            if outer == "Union" and isinstance(inner, ast.Tuple):
                kinds = [e for e in inner.elts if ast.unparse(e) != "None"]
                return self._kind(kinds[0], file, types, at) if len(kinds) == 1 else "object"
        if isinstance(node, ast.Name):
            scalar = {"str": "str", "int": "int", "float": "float", "bool": "bool"}.get(node.id)
            if scalar:
                return scalar
            if f"{file}:{node.id}" in self._types:
                main = at.split(".")[0]
                return self._define(f"{file}:{node.id}", types, f"{main}.{node.id}")
            if any(place.endswith(f":{node.id}") for place in self._types):
                return self.define(node.id, types)
        return "object"


def _request(call: ast.Call) -> dict[str, dict[str, Any]]:
    """The operation that a call of the client's base makes; nothing for other calls."""
    found = re.fullmatch(r"self\._(post|get|delete|get_api_list)", ast.unparse(call.func))
    if not found or not call.args:
        return {}
    path = call.args[0].args[0] if isinstance(call.args[0], ast.Call) else call.args[0]
    given = {keyword.arg: keyword.value for keyword in call.keywords}
    name = "cast_to" if "cast_to" in given else "model"
    answer: str | None = ast.unparse(given[name]).rpartition(".")[2]
    if found[1] == "get_api_list":
        answer = f"Page of {answer}"
    elif answer == "str" or "Binary" in str(answer):  # a file's content
        answer = None
    body = given.get("body")
    request = None
    if isinstance(body, ast.Call) and "files" not in given:  # a form is no JSON
        request = ast.unparse(body.args[1]).rpartition(".")[2]
    method = {"get_api_list": "GET"}.get(found[1], found[1].upper())
    # Azure answers what it has made with 201, openai with 200
    responses = {"200": answer, **({"201": answer} if method == "POST" else {})}
    return {
        f"{method} /openai/v1{ast.literal_eval(path)}": {"request": request, "responses": responses}
    }


def management(wheel: zipfile.ZipFile) -> dict[str, Any]:
    """Accounts and deployments."""
    client = Management(wheel)
    operations = {k: v for k, v in client.operations().items() if re.fullmatch(MANAGEMENT, k)}
    enums, types = client.enums(), {}
    used: set[str] = set()
    waiting = ["ErrorResponse"]
    for operation in operations.values():
        waiting += [
            kind for kind in (operation["request"], *operation["responses"].values()) if kind
        ]
    while waiting:
        name = waiting.pop().strip("[]{}")
        if name in enums:
            used.add(name)
        if name not in types and name in client.classes:
            made = _types(client.classes[name])
            types.update(made)
            for kind in made.values():
                waiting += kind["members"].values()
    version = re.search(
        r'"api_version", "([\d-]+)"', wheel.read(f"{client.root}_configuration.py").decode()
    )
    return {
        "api_version": version[1] if version else "",
        "operations": operations,
        "types": types,
        "enums": {name: sorted(enums[name]) for name in used},
    }


def data_plane(wheel: zipfile.ZipFile) -> dict[str, Any]:
    """Files, uploads, models and fine-tuning jobs."""
    client = Client(wheel)
    operations = client.operations(RESOURCES + TUNING)
    types: dict[str, Any] = {}
    for operation in operations.values():
        for kind in {operation["request"], *operation["responses"].values()} - {None}:
            page, _, item = kind.rpartition("Page of ")
            client.define(item, types)
            if page or kind != item:
                members = {"data": f"[{item}]", "object": "str", "has_more": "bool"}
                ends = dict.fromkeys(("first_id", "last_id"), "str")
                types[kind] = {"members": members | ends, "required": ["data"]}
    for name, known in AZURE.items():
        types[name]["members"].update(known["members"])
        left = [m for m in types[name].get("required", ()) if m not in known.get("optional", ())]
        types[name]["required"] = left
    named = json.dumps(types)
    enums = {name: values for name, values in client.enums.items() if f'"{name}"' in named}
    return {"api_version": "", "operations": operations, "types": types, "enums": enums}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("management", type=Path)
    parser.add_argument("openai", type=Path)
    given = parser.parse_args()
    for name, source, make in (
        ("cognitiveservices-2024-10-01", given.management, management),
        ("openai", given.openai, data_plane),
    ):
        with zipfile.ZipFile(source) as wheel:
            made = make(wheel)
        path = FOLDER / f"{name}.json"
        text = json.dumps({"source": source.name, **made}, indent=1, sort_keys=True)
        path.write_text(f"{text}\n", encoding="utf-8")
        sys.stderr.write(
            f"{path.name}: {len(made['operations'])} operations, {len(made['types'])} types,"
            f" {path.stat().st_size // 1024} KiB\n"
        )


if __name__ == "__main__":
    main()
