"""Write the contract's JSON files from the azure-ai-ml wheel.

    pip download azure-ai-ml==1.32.0 --no-deps
    python -m emulator.contract.generate azure_ai_ml-1.32.0-py3-none-any.whl

The wheel is read as text (its syntax trees), never imported or run. Of each api-version that
today's azure-ai-ml calls, it takes the operations in SELECTION and all types that they need.
What is left out of a closed set of subtypes stands in the JSON as null: a kind that Azure knows and
this Azure does not rehearse.
"""

import argparse
import ast
import json
import re
import sys
import zipfile
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
CLIENTS = "azure/ai/ml/_restclient/"
WORKSPACE = (
    "/subscriptions/{subscriptionId}/resourceGroups/{resourceGroupName}"
    "/providers/Microsoft.MachineLearningServices/workspaces/{workspaceName}"
)
REGISTRY = WORKSPACE.replace("workspaces/{workspaceName}", "registries/{registryName}")

OWNERS = {"workspaceName", "registryName"}
"""Names whose pattern is left to whoever made the workspace or the registry."""

ANY = r"[A-Z]+ (/\w+/v1\.0)?\{workspace\}"
JOBS = ANY + r"/jobs(/\{id\}(/cancel)?)?"
ENDPOINTS = ANY + r"/onlineEndpoints(/\{endpointName\}(/listKeys|/regenerateKeys|/token)?)?"
DEPLOYMENTS = (
    ANY + r"/onlineEndpoints/\{endpointName\}/deployments(/\{deploymentName\}(/getLogs|/skus)?)?"
)
COMPUTES = ANY + r"/computes(/\{computeName\}(/listNodes)?)?"
DATASTORES = ANY + r"/datastores(/\{name\}(/listSecrets)?)?"
WORKSPACES = r"GET (\{workspace\}|/subscriptions/\{subscriptionId\}/.*/workspaces)"
SIZES = r"GET .*/locations/\{location\}/(usages|vmSizes)"


def _assets(*kinds: str) -> str:
    version = r"/versions(/\{version\}(/startPendingUpload)?)?"
    return rf"{ANY}/({'|'.join(kinds)})(/\{{name\}}({version})?)?"


SELECTION = {
    "v2021_10_01_dataplanepreview": [
        r"GET \{registry\}/(models|components)(/\{name\}(/versions(/\{version\})?)?)?"
    ],
    "v2022_02_01_preview": [ENDPOINTS, DEPLOYMENTS],
    "v2023_04_01": [_assets("codes")],
    "v2023_04_01_preview": [_assets("data", "environments"), JOBS, ENDPOINTS, DEPLOYMENTS],
    "v2023_08_01_preview": [_assets("models"), COMPUTES, WORKSPACES, SIZES],
    "v2024_01_01_preview": [JOBS, _assets("components")],
    "v2024_10_01_preview": [WORKSPACES, DATASTORES, JOBS],
    "v2025_01_01_preview": [JOBS],
    "runhistory": [ANY + r"/runs/\{runId\}(/details|/children)?", ANY + r"/rundata"],
    "dataset_dataplane": [ANY + r"/dataversion/batchGetResolvedUris"],
    "model_dataplane": [ANY + r"/models/batchGetResolvedUris"],
    "registry_discovery": [r"GET .*/registries/\{registryName\}/discovery"],
}
"""By the wheel's package, patterns of the operations that are rehearsed."""

LEFT_OUT = {
    *("AutoMLJob", "LabelingJobProperties", "SparkJob", "SweepJob", "DistillationJob"),
    *("AKS", "DataFactory", "Databricks", "DataLakeAnalytics", "HDInsight", "SynapseSpark"),
    *("VirtualMachine", "ComputeInstance", "Kubernetes", "KubernetesOnlineDeployment"),
}
"""Subtypes that nobody rehearses, with what only they need."""


class Wheel:
    """The syntax trees of one generated client."""

    def __init__(self, wheel: zipfile.ZipFile, package: str) -> None:
        self.root = f"{CLIENTS}{package}/"
        self.wheel = wheel
        self.classes = {
            node.name: node
            for node in self._tree("models/_models_py3.py").body
            if isinstance(node, ast.ClassDef)
        }

    def _tree(self, name: str) -> ast.Module:
        return ast.parse(self.wheel.read(self.root + name))

    def enums(self) -> dict[str, list[str]]:
        """Values of each enumeration."""
        return {
            node.name: [
                str(item.value.value)
                for item in node.body
                if isinstance(item, ast.Assign) and isinstance(item.value, ast.Constant)
            ]
            for name in self._names("models/")
            if name.endswith("_enums.py")
            for node in self._tree(name).body
            if isinstance(node, ast.ClassDef)
        }

    def operations(self) -> dict[str, dict[str, Any]]:
        """`METHOD path` -> body types of request and responses, and patterns of names."""
        found: dict[str, dict[str, Any]] = {}
        for name in self._names("operations/"):
            tree = self._tree(name)
            builders = {
                node.name: _builder(node) for node in tree.body if isinstance(node, ast.FunctionDef)
            }
            methods = [
                method
                for node in tree.body
                if isinstance(node, ast.ClassDef)
                for method in node.body
                if isinstance(method, ast.FunctionDef)
            ]
            for node in methods:
                used = {call for call in _called(node) if call in builders}
                if len(used) != 1:
                    continue
                method, path, names = builders[used.pop()]
                path = path.replace(WORKSPACE, "{workspace}").replace(REGISTRY, "{registry}")
                key = f"{method} {path}"
                found[key] = {**_bodies(node), **({"names": names} if names else {})}
        return found

    def _names(self, folder: str) -> list[str]:
        start = self.root + folder
        return sorted(
            name.removeprefix(self.root)
            for name in self.wheel.namelist()
            if re.fullmatch(re.escape(start) + r"_\w+\.py", name)
        )


def _called(function: ast.FunctionDef) -> set[str]:
    calls = [node.func for node in ast.walk(function) if isinstance(node, ast.Call)]
    return {call.id for call in calls if isinstance(call, ast.Name)}


def _builder(function: ast.FunctionDef) -> tuple[str, str, dict[str, str]]:
    """Method, path template, and the patterns of names in it."""
    method, path, names = "", "", {}
    for node in ast.walk(function):
        if isinstance(node, ast.Call):
            if ast.unparse(node.func) == "HttpRequest":
                method = next(_text(k.value) for k in node.keywords if k.arg == "method")
            elif len(node.args) == 2 and ast.unparse(node.args[0]) == "'template_url'":
                path = _text(node.args[1])
        elif isinstance(node, ast.Dict):
            for key, value in zip(node.keys, node.values, strict=True):
                if isinstance(value, ast.Call) and key is not None:
                    for keyword in value.keywords:
                        if keyword.arg == "pattern" and _text(key) not in OWNERS:
                            names[_text(key)] = _text(keyword.value)
    return method, path, names


def _text(node: ast.expr) -> str:
    return str(ast.literal_eval(node))


def _bodies(function: ast.FunctionDef) -> dict[str, Any]:
    """Type of the request's body, and of each accepted status' body (null: none)."""
    request, statuses, common = None, [], None
    by_status: dict[int, str] = {}
    for node in ast.walk(function):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Compare):
            if isinstance(node.test.ops[0], ast.NotIn):
                statuses = ast.literal_eval(node.test.comparators[0])
            elif isinstance(node.test.ops[0], ast.Eq):
                kind = _deserialized(node)
                if kind:
                    by_status[ast.literal_eval(node.test.comparators[0])] = kind
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "self._serialize.body":
            request = _text(node.args[1])
    if not by_status:
        common = _deserialized(function)
    return {
        "request": request,
        "responses": {str(status): by_status.get(status, common) for status in statuses},
    }


def _deserialized(node: ast.AST) -> str | None:
    for call in ast.walk(node):
        if (
            isinstance(call, ast.Call)
            and ast.unparse(call.func) == "self._deserialize"
            and ast.unparse(call.args[-1]) == "pipeline_response"
        ):
            return _text(call.args[0])
    return None


def _attribute(node: ast.ClassDef, name: str) -> dict[str, Any]:
    for item in node.body:
        if isinstance(item, ast.Assign) and ast.unparse(item.targets[0]) == name:
            value: dict[str, Any] = ast.literal_eval(item.value)
            return value
    return {}


ENUM = re.compile(r":vartype (\w+):\s+((?:list|dict)\[.*?)?str\s+or\s+~[\w.]+\.models\.(\w+)")


def _types(node: ast.ClassDef) -> dict[str, dict[str, Any]]:
    """The type, and one more for each nested object that the generated class has flattened.

    A type has members (name on the wire -> type), which of them are required or read-only, and
    for a base type the member that tells which of its subtypes it is.
    """
    # An enumeration is a plain str in the map; only the docstring names it.
    enums = {found[1]: found[3] for found in ENUM.finditer(ast.get_docstring(node) or "")}
    rules = _attribute(node, "_validation")
    subtypes = _attribute(node, "_subtype_map")
    made: dict[str, dict[str, Any]] = {node.name: {"members": {}}}
    for name, value in _attribute(node, "_attribute_map").items():
        if not value["key"]:  # members that it does not name; only envelopes of errors have them
            continue
        owner = node.name
        *outer, member = re.split(r"(?<!\\)\.", value["key"])
        for part in outer:
            made[owner]["members"][part] = f"{owner}.{part}"
            owner = f"{owner}.{part}"
            made.setdefault(owner, {"members": {}})
        member = member.replace("\\.", ".")
        made[owner]["members"][member] = value["type"].replace("str", enums.get(name, "str"))
        for rule in ("required", "readonly"):
            if rules.get(name, {}).get(rule):
                made[owner].setdefault(rule, []).append(member)
        if name in subtypes:
            made[owner]["by"] = member
            made[owner]["subtypes"] = {
                kind: subtype if subtype not in LEFT_OUT else None
                for kind, subtype in subtypes[name].items()
            }
    return made


def name_of(package: str) -> str:
    """The api-version, or the data plane's name."""
    return re.sub(r"^v(?=\d)", "", package).replace("_", "-")


def contract(wheel: zipfile.ZipFile, package: str, patterns: list[str]) -> dict[str, Any]:
    """Operations, types and enumerations of one api-version."""
    client = Wheel(wheel, package)
    enums = client.enums()
    wanted = re.compile("|".join(patterns))
    operations = {k: v for k, v in client.operations().items() if wanted.fullmatch(k)}
    types: dict[str, Any] = {}
    used: set[str] = set()
    waiting = [
        kind
        for operation in operations.values()
        for kind in (operation["request"], *operation["responses"].values(), "ErrorResponse")
        if kind
    ]
    while waiting:
        name = waiting.pop().strip("[]{}")
        if name in enums:
            used.add(name)
        if name in types or name not in client.classes:
            continue
        made = _types(client.classes[name])
        types.update(made)
        for kind in made.values():
            waiting += kind["members"].values()
            waiting += [subtype for subtype in kind.get("subtypes", {}).values() if subtype]
    return {
        "api_version": name_of(package) if package.startswith("v") else "",
        "operations": operations,
        "types": types,
        "enums": {name: sorted(enums[name]) for name in used},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("wheel", type=Path)
    arguments = parser.parse_args()
    with zipfile.ZipFile(arguments.wheel) as wheel:
        for package, patterns in SELECTION.items():
            made = contract(wheel, package, patterns)
            path = FOLDER / f"{name_of(package)}.json"
            text = json.dumps({"source": arguments.wheel.name, **made}, indent=1, sort_keys=True)
            path.write_text(f"{text}\n", encoding="utf-8")
            sys.stderr.write(
                f"{path.name}: {len(made['operations'])} operations, {len(made['types'])} types,"
                f" {path.stat().st_size // 1024} KiB\n"
            )


if __name__ == "__main__":
    main()
