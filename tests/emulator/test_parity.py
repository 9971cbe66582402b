"""The local Azure beside recordings of the real one, where somebody has made some.

    make cloud-smoke                                        writes outputs/recordings/<time>/*.json
    HOMEPORT_RECORDINGS=outputs/recordings pytest tests/emulator/test_parity.py

Recordings in tests/recordings/ are read too. Without any, the comparison itself is tested, on a
recording that is made here of the local Azure: that shows no parity with Azure, only that a
difference would be seen.
"""

import copy
import json
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from emulator.contract import check_request, check_response
from emulator.server import Server
from scripts.azure import recording
from scripts.azure.recording import Exchange
from tests.emulator.contract import bodies
from tests.local_azure import bare_azure, environment
from tests.tree import ROOT

FOLDERS = [ROOT / "tests" / "recordings", Path(os.environ.get("HOMEPORT_RECORDINGS", os.devnull))]
RECORDINGS = sorted({path.parent for folder in FOLDERS for path in folder.rglob("*.json")})
"""Folders; the files of one are one session, in the order of their names."""

AGAIN = re.compile(
    r"(GET|PUT|POST) .*/workspaces/homeport"
    r"(/datastores/\w+(/listSecrets)?|/(data|environments|codes)/[^/]+/versions/[^/]+"
    r"|/jobs/[^/]+|/onlineEndpoints/[^/]+|/computes/[^/]+)?",
    re.IGNORECASE,
)
"""What can be asked again by itself. Models, deployments and outputs need bytes that no recording
holds."""
THEIRS = re.compile(
    r"systemData|properties\.(properties|tags|services|workspaceHubConfig|managedNetwork)\b"
)
"""Members below which the service says what nobody reads here."""


def verdicts(exchanges: list[Exchange]) -> Iterator[str]:
    """Where the contract judges otherwise than the service did."""
    for exchange in exchanges:
        method, path = exchange["method"], exchange["path"]
        version = exchange["query"].get("api-version", "")
        wrong = check_request(method, path, version, exchange["request"])
        if wrong and exchange["status"] < 400:
            yield f"{method} {path} was accepted, and we say: {wrong}"
        told = json.dumps(exchange["response"])
        if exchange["status"] == 400 and "Could not find member" in told and not wrong:
            yield f"{method} {path} was refused, and we accept it: {told}"
        for sentence in check_response(
            method, path, version, exchange["status"], exchange["response"]
        ):
            yield f"{method} {path} was answered off the contract: {sentence}"


def differences(exchanges: list[Exchange], server: Server) -> Iterator[str]:
    """Where the local Azure answers another status, or lacks members of the service's answer.

    Only the first of each is asked again: the later ones show what has happened meanwhile.
    """
    token = server.azure.tokens.issue("https://management.azure.com", "parity")
    seen: set[str] = set()
    for exchange in exchanges:
        name = f"{exchange['method']} {exchange['path']}"
        if exchange["host"] != "management.azure.com" or not AGAIN.fullmatch(name) or name in seen:
            continue
        seen.add(name)
        ours = requests.request(
            exchange["method"],
            f"https://management.azure.com{exchange['path']}",
            params=exchange["query"],
            json=exchange["request"],
            headers={"Authorization": f"Bearer {token}"},
            timeout=30,
        )
        if ours.status_code != exchange["status"]:
            yield f"{name}: answered {ours.status_code}, Azure {exchange['status']}: {ours.text}"
        elif lacking := members(exchange["response"]) - members(ours.json()):
            yield f"{name}: our answer lacks {', '.join(sorted(lacking))}"


def members(value: Any, at: str = "") -> set[str]:
    """Paths of all members that have a value."""
    if THEIRS.match(at):
        return set()
    if isinstance(value, dict):
        below = {f"{at}.{name}".lstrip("."): item for name, item in value.items()}
        found = {name for name, item in below.items() if item is not None}
        return found.union(*(members(item, name) for name, item in below.items()))
    if isinstance(value, list):
        return set[str]().union(*(members(item, f"{at}[]") for item in value))
    return set()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with bare_azure(tmp_path / "azure") as server, environment(server):
        yield server


def session(folder: Path) -> list[Exchange]:
    """All of one session; skips one of the local Azure, which would only agree with itself."""
    files = sorted(folder.glob("*.json"))
    exchanges = [exchange for path in files for exchange in json.loads(path.read_bytes())]
    if any("homeport-rehearsal" in json.dumps(exchange["response"]) for exchange in exchanges):
        pytest.skip("recorded in a rehearsal, not on Azure")
    return exchanges


@pytest.mark.parametrize("folder", RECORDINGS, ids=lambda folder: folder.name)
def test_a_recording_gets_its_recorded_verdicts(folder: Path) -> None:
    assert list(verdicts(session(folder))) == []


@pytest.mark.parametrize("folder", RECORDINGS, ids=lambda folder: folder.name)
def test_the_local_azure_answers_what_azure_did(folder: Path, server: Server) -> None:
    assert list(differences(session(folder), server)) == []


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> list[Exchange]:
    """A recording of the local Azure itself."""
    folder = tmp_path_factory.mktemp("recorded")
    with bare_azure(folder / "azure") as server, environment(server):
        return record(server, folder / "recording.json")


@pytest.fixture
def made(recorded: list[Exchange]) -> list[Exchange]:
    """The recording, to be changed."""
    return copy.deepcopy(recorded)


def record(server: Server, path: Path) -> list[Exchange]:
    workspace = server.azure.settings.workspace_id
    token = server.azure.tokens.issue("https://management.azure.com", "me")
    asked: list[tuple[str, str, str, Any]] = [
        ("GET", "", "2024-10-01-preview", None),
        ("PUT", "/environments/train/versions/1", "2023-04-01-preview", bodies.environment()),
        ("PUT", "/data/train/versions/1", "2023-04-01-preview", bodies.data()),
        ("PUT", "/jobs/job1", "2025-01-01-preview", bodies.job()),
        ("PUT", "/jobs/job2", "2025-01-01-preview", with_version(bodies.job())),
        ("PUT", "/computes/cpu-cluster", "2023-08-01-preview", bodies.compute()),
        ("PUT", "/onlineEndpoints/endpoint", "2022-02-01-preview", bodies.endpoint()),
        ("GET", "/onlineEndpoints/absent", "2022-02-01-preview", None),
    ]
    with recording.recorded(path):
        for method, below, version, body in asked:
            requests.request(
                method,
                f"https://management.azure.com{workspace}{below}",
                params={"api-version": version},
                json=body,
                headers={"Authorization": f"Bearer {token}"},
                timeout=30,
            )
    kept: list[Exchange] = json.loads(path.read_bytes())
    assert [exchange["status"] for exchange in kept] == [200, 201, 201, 201, 400, 201, 201, 404]
    return kept


def with_version(body: Any) -> Any:
    """The output's version that the SDK sends and the service refuses."""
    body["properties"]["outputs"]["model"]["assetVersion"] = "1"
    return body


def test_a_recording_of_the_local_azure_agrees_with_it(
    made: list[Exchange], tmp_path: Path
) -> None:
    assert list(verdicts(made)) == []
    with bare_azure(tmp_path / "another") as fresh, environment(fresh):
        assert list(differences(made, fresh)) == []


def otherwise(place: int, **changes: Any) -> Callable[[list[Exchange]], None]:
    return lambda exchanges: exchanges[place].update(changes)


def deeper(place: int, name: str, value: Any) -> Callable[[list[Exchange]], None]:
    return lambda exchanges: exchanges[place]["response"]["properties"].update({name: value})


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (otherwise(4, status=201), "was accepted, and we say"),
        (
            otherwise(3, status=400, response={"error": {"message": "Could not find member"}}),
            "we ac",
        ),
        (deeper(3, "surprise", 1), "answered off the contract"),
        (otherwise(5, query={"api-version": "2031-01-01"}), "No registered resource provider"),
    ],
)
def test_another_verdict_is_seen(
    made: list[Exchange], change: Callable[[list[Exchange]], None], sentence: str
) -> None:
    change(made)
    assert sentence in "".join(verdicts(made))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (otherwise(6, status=202), "answered 201, Azure 202"),
        (deeper(3, "description", "told"), "lacks properties.description"),
    ],
)
def test_another_answer_is_seen(
    made: list[Exchange],
    change: Callable[[list[Exchange]], None],
    sentence: str,
    tmp_path: Path,
) -> None:
    change(made)
    with bare_azure(tmp_path / "another") as fresh, environment(fresh):
        assert sentence in "".join(differences(made, fresh))
