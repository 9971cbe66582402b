"""The dev container and the editor's settings against the program: targets, paths, ports, pins."""

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

from tests.tree import ROOT, files

FILES = sorted([*(ROOT / ".vscode").glob("*.json"), ROOT / ".devcontainer/devcontainer.json"])
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
DOCKERFILE = (ROOT / ".devcontainer/Dockerfile").read_text(encoding="utf-8")
EXAMPLES = (ROOT / ".env.example").read_text(encoding="utf-8")


def read(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((ROOT / name).read_text(encoding="utf-8"))
    return found


CONTAINER = read(".devcontainer/devcontainer.json")
SETTINGS = read(".vscode/settings.json")
CONFIGURATIONS = read(".vscode/launch.json")["configurations"]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_every_file_is_plain_json_without_a_key_twice(file: Path) -> None:
    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        assert len(dict(pairs)) == len(pairs), file
        return dict(pairs)

    json.loads(file.read_text(encoding="utf-8"), object_pairs_hook=once)


def test_every_task_and_command_is_a_target_with_variables_that_it_reads() -> None:
    targets = set(re.findall(r"^([\w-]+):", MAKEFILE, re.MULTILINE))
    handed = set(re.findall(r"[A-Z_]+", " ".join(re.findall(r"^export (.*)", MAKEFILE, re.M))))
    tasks = read(".vscode/tasks.json")
    inputs = {one["id"]: one["default"] for one in tasks["inputs"]}
    for task in tasks["tasks"]:
        target, *variables = task["args"]
        assert task["command"] == "make"
        assert task["label"] == f"make {target}"
        assert target in targets
        for variable in variables:
            name, _, value = variable.partition("=")
            assert name in handed
            assert re.fullmatch(r"\$\{input:(\w+)\}", value)[1] in inputs  # type: ignore[index]
    assert (ROOT / inputs["recipe"]).is_file()
    assert CONTAINER["postCreateCommand"].split()[1] in targets
    assert {one["label"].split()[1] for one in CONTAINER["portsAttributes"].values()} <= targets


def test_the_forwarded_ports_are_those_of_the_verbs() -> None:
    ports = dict(re.findall(r"^#((?:\w+_)?PORT)=(\d+)$", EXAMPLES, re.MULTILINE))
    theirs = [int(ports[name]) for name in ("PORT", "TRACK_PORT", "DEBUG_PORT")]
    assert CONTAINER["forwardPorts"] == theirs
    assert list(CONTAINER["portsAttributes"]) == [str(port) for port in theirs]
    (attach,) = [one for one in CONFIGURATIONS if one["name"] == "Attach to score.py"]
    assert attach["connect"] == {"host": "127.0.0.1", "port": int(ports["DEBUG_PORT"])}
    assert "'Attach to score.py'" in (ROOT / "scripts/local_serve.py").read_text()


def test_the_interpreter_is_the_one_that_make_setup_makes() -> None:
    default = re.search(r"^HOMEPORT_VENV := (\S+)$", MAKEFILE, re.MULTILINE)
    assert default
    setting = "python.defaultInterpreterPath"
    assert SETTINGS[setting] == f"${{workspaceFolder}}/{default[1]}/bin/python"
    inside = CONTAINER["customizations"]["vscode"]["settings"][setting]
    assert inside == CONTAINER["containerEnv"]["HOMEPORT_VENV"] + "/bin/python"
    assert f"/home/{CONTAINER['remoteUser']}/" in inside


def test_the_editor_runs_the_tests_and_tools_that_make_check_runs() -> None:
    marks = re.search(r'pytest .*-m "(not e2e and not slow)"', MAKEFILE)
    assert marks
    assert SETTINGS["python.testing.pytestArgs"] == ["-m", marks[1]]
    assert SETTINGS["[python]"]["editor.rulers"] == [
        int(re.findall(r"line-length = (\d+)", (ROOT / "pyproject.toml").read_text())[0])
    ]
    locked = (ROOT / "host.txt").read_text()
    for tool in ("ruff", "mypy"):
        assert re.search(rf"^{tool}==", locked, re.MULTILINE)


def test_a_yaml_file_has_the_schema_that_it_names_itself() -> None:
    for path in (ROOT / "azure").glob("*.yml"):
        named = re.findall(r"^\$schema: (\S+)", path.read_text(), re.MULTILINE)
        mapped = [
            schema
            for schema, pattern in SETTINGS["yaml.schemas"].items()
            if path.relative_to(ROOT).match(pattern)
        ]
        assert mapped == named, path
    for pattern in SETTINGS["yaml.schemas"].values():
        assert list(ROOT.glob(pattern)), pattern


def test_every_extension_that_a_setting_needs_is_recommended_here_and_in_the_container() -> None:
    recommended = read(".vscode/extensions.json")["recommendations"]
    assert CONTAINER["customizations"]["vscode"]["extensions"] == recommended
    assert {one["type"] for one in CONFIGURATIONS} == {"debugpy"}
    assert "ms-python.debugpy" in recommended


def test_the_dev_container_stands_on_the_pinned_base_of_the_images() -> None:
    pin = re.compile(r"^ARG DEBIAN=(\S+@sha256:[0-9a-f]{64})$", re.MULTILINE)
    (base,) = pin.findall(DOCKERFILE)
    assert pin.findall((ROOT / "images/Dockerfile").read_text()) == [base]
    assert re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE) == ["${BASE_IMAGE:-$DEBIAN}"]
    assert "features" not in CONTAINER  # which would be downloaded by a tag
    assert "image" not in CONTAINER


def test_its_user_may_do_what_its_commands_do() -> None:
    user = CONTAINER["remoteUser"]
    assert re.search(rf"useradd --uid 1000 .*--groups docker {user} ", DOCKERFILE)
    assert f"{user} ALL=(root) NOPASSWD:ALL" in DOCKERFILE
    start = ROOT / CONTAINER["postStartCommand"].removeprefix("sudo ")
    assert os.access(start, os.X_OK)
    assert (ROOT / re.findall(r"^exec (\S+)$", start.read_text(), re.MULTILINE)[0]).is_file()
    packages = set(DOCKERFILE.split())
    assert {"docker.io", "git", "make", "npm", "python3", "python3-venv"} <= packages
    assert ROOT / ".devcontainer/start" in files()
