"""The verbs on the catalog's two routes: the same ones, from the job to nothing left.

The local Azure does all of it but the training and the serving, which are stood for by a few bytes
and a small server: tests/e2e really trains and asks.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from emulator import azurite, certificates, tuning
from emulator.azure import Settings
from emulator.nodes import Program, Running
from emulator.server import serve
from emulator.storage import AzuriteStorage
from scripts.azure import endpoints, history, rows
from scripts.azure.client import connect
from tests.emulator.quick_nodes import QuickNodes
from tests.local_azure import environment
from tests.scripts.azure.containers import Kitchen
from tests.scripts.azure.stage import Stage
from tests.tree import ROOT

pytestmark = pytest.mark.slow
FORMS: Mapping[str, dict[str, Any]] = {
    "chat": {
        "messages": [
            {"role": "user", "content": "首都は？"},
            {"role": "assistant", "content": "キャンベラ"},
        ]
    },
    "text": {"text": "首都は？", "ground_truth": "キャンベラ"},
}


class Nodes(Kitchen):
    """Trains at once what is to be trained, and serves the rest by a small server."""

    def __init__(self) -> None:
        super().__init__()
        self.training = QuickNodes()

    def pull(self, image: str) -> None:
        self.pulled += 1

    def start(self, program: Program) -> Any:
        if any(mount.path == f"{tuning.ROOT}/out" for mount in program.mounts):
            trained: Running = self.training.start(program)
            return trained
        return super().start(program)


@pytest.fixture(scope="module")
def azure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    folder = tmp_path_factory.mktemp("azure")
    settings = Settings(folder=folder, mode="host", hurry=0.1)
    nodes = Nodes()
    try:
        found = azurite.find(ROOT / ".cache" / "azurite")
    except azurite.AzuriteError as reason:
        pytest.skip(str(reason))
    files = certificates.ensure(folder / "pki")
    with ExitStack() as stack:
        process = azurite.start(found, folder / "storage", settings.account, files)
        stack.callback(process.close)
        storage = AzuriteStorage(settings.account, process.key, process.url, files.ca)
        server = serve(settings, storage, nodes)
        stack.callback(server.close)
        for change in (
            environment(server),
            patch.object(endpoints, "POLL_SECONDS", 0.1),
            patch.object(history, "LOOK_SECONDS", 0.2),
            patch.object(rows, "prepare", lambda recipe, path, form: made(folder, form)),
        ):
            stack.enter_context(change)
        yield Stage(server, nodes, connect())
        assert server.azure.journal.report()["problems"] == []


def made(folder: Path, form: str) -> rows.Rows:
    """A few rows of that form, as train would make them."""
    own = folder / f"rows-{form}"
    own.mkdir(exist_ok=True)
    line = json.dumps(FORMS[form], ensure_ascii=False) + "\n"
    for name in ("train", "validation"):
        (own / f"{name}.jsonl").write_text(line * 12, encoding="utf-8")
    return rows.Rows(
        folder=own,
        train=own / "train.jsonl",
        validation=own / "validation.jsonl",
        test=None,
        counts={"train": 12, "validation": 12},
        hash="0" * 64,
    )


@pytest.mark.parametrize("name", ["phi-3-mini-ultrachat", "mistral-7b-samsum"])
def test_the_way_of_a_model_of_the_catalog_by_the_same_verbs(azure: Stage, name: str) -> None:
    of = ("--recipe", f"recipes/{name}.yaml")
    ran = azure.run("cloud_train", *of, "--json")
    assert ran.code == 0, ran.told
    trained = json.loads(ran.out)
    assert (trained["status"], trained["label"]) == ("Completed", "rehearsed, not Azure")
    assert trained["cost_at_most"] > 0
    assert trained["metrics"]

    again = azure.run("cloud_train", *of)
    assert again.code == 0, again.told
    assert again.out.strip() == trained["model"]
    assert "has done this already" in again.told

    ran = azure.run("cloud_logs", "--job", trained["job"], "--json")
    logs = json.loads(ran.out)
    assert logs["status"] == "Completed"
    assert any("step 3/3" in text for text in logs["logs"].values())

    ran = azure.run("cloud_deploy", *of, "--json", "--model", trained["model"])
    assert ran.code == 0, ran.told
    served = json.loads(ran.out)
    assert f"azureml:{served['model']}" == trained["model"]
    assert served["traffic"] == {served["deployment"]: 100}
    ran = azure.run("ask", *of, "--target", "cloud", "--prompt", "首都は？")
    assert (ran.code, ran.out) == (0, "キャンベラ\n"), ran.told
    assert served["uri"] in ran.told
    assert azure.run("cloud_key", *of).out.strip() not in ran.told

    status = json.loads(azure.run("cloud_status", "--json").out)
    (job,) = [job for job in status["jobs"] if job["name"] == trained["job"]]
    assert job["instance_type"].startswith("Standard_N")
    assert job["cost"] is not None
    (endpoint,) = status["endpoints"]
    assert endpoint["deployments"][0]["passed"] == "an image of Azure's serves it"

    ran = azure.run("cloud_down", "--yes", "--json")
    assert ran.code == 0, ran.told
    assert [thing["kind"] for thing in json.loads(ran.out)["deleted"]] == ["endpoint"]
    assert azure.kitchen.alive == []


def test_a_pipeline_that_works_too_long_is_ended_by_who_follows_it(azure: Stage) -> None:
    assert isinstance(azure.kitchen, Nodes)
    of = ("--recipe", "recipes/phi-3-mini-ultrachat.yaml")
    changed = "cloud.parameters.num_train_epochs=2 cloud.max_hours=0.0005"
    azure.kitchen.training.hold.set()
    try:
        ran = azure.run("cloud_train", *of, "--set", changed)
        assert ran.code == 6
        assert "works for longer than 2 s (cloud.max_hours); cancelling it" in ran.told
        assert "Next: raise that, then make cloud-train RECIPE=" in ran.told.splitlines()[-1]

        ran = azure.run("cloud_train", *of, "--set", changed, "--detach")
        assert ran.code == 0, ran.told
        second = ran.out.strip()
        assert second.endswith("-2")
        assert "only who follows it ends it after 2 s" in ran.told
        ran = azure.run("cloud_cancel", "--job", second, "--json")
        assert json.loads(ran.out)["status"] == "Canceled"
    finally:
        azure.kitchen.training.hold.clear()
    (ran_here,) = [
        job
        for job in json.loads(azure.run("cloud_status", "--json").out)["jobs"]
        if job["name"] == second
    ]
    assert ran_here["status"] == "Canceled"
