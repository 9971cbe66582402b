"""The guides' flows (seed_flows.py) with the unpatched SDK, in the pinned version and the newest.

What is trained stands in here: that it is really trained is told by the tests of the jobs
themselves. Here the SDK's requests are served, contract-checked, and lead to a model.
"""

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from emulator import tuning
from emulator.server import Server
from tests import local_azure as local
from tests.emulator.test_sdk_session import newest, pinned

pytestmark = pytest.mark.slow

FLOWS = Path(__file__).parent / "seed_flows.py"
SECONDS = 400


def stand_in(azure: Any, wanted: tuning.Wanted, **_: Any) -> tuning.Tuned:
    """A model that nobody trained."""
    folder = azure.settings.folder / "tuned" / wanted.name / "out" / "model"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text('{"model_type": "llama"}')
    (folder / "model.safetensors").write_bytes(wanted.rows.read_bytes())
    (folder / "tokenizer.json").write_text("{}")
    return tuning.Tuned(folder=folder, losses=(tuning.Step(1, 2.0, 3.0), tuning.Step(2, 1.0, 2.0)))


@pytest.fixture(scope="module")
def azure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tuning, "tune", stand_in)
        with local.local_azure(tmp_path_factory.mktemp("azure"), hurry=0.1) as server:
            yield server


@pytest.fixture(scope="module", params=[pinned, newest], ids=["pinned", "newest"])
def facts(
    request: pytest.FixtureRequest, azure: Server, tmp_path_factory: pytest.TempPathFactory
) -> Any:
    folder = tmp_path_factory.mktemp("flows")
    environment = {name: os.environ[name] for name in ("PATH", "TMPDIR") if name in os.environ}
    environment |= azure.env
    environment |= {"HOME": str(folder), "AZUREML_DISABLE_ON_DISK_CACHE": "true"}
    done = subprocess.run(
        [request.param(), str(FLOWS), str(folder), request.param.__name__],
        env=environment,
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    assert done.returncode == 0, done.stderr[-5000:]
    found = json.loads((folder / "facts.json").read_text())
    print(found["version"], found["seconds"])
    return found


def flow(facts: Any, name: str) -> Any:
    if "raised" in facts[name]:
        pytest.fail(f"{name} with azure-ai-ml {facts['version']}:\n{facts[name]['raised']}")
    return facts[name]


def test_the_catalog_is_read_by_label_and_by_version(facts: Any) -> None:
    catalog = flow(facts, "catalog")
    registry = "azureml://registries/azureml"
    assert catalog["model"] == [
        f"{registry}/models/Phi-3-mini-4k-instruct/versions/15",
        "mlflow_model",
    ]
    assert catalog["component"] == f"{registry}/components/chat_completion_pipeline/versions/0.0.82"
    assert (catalog["same"], catalog["allowed"]) == (True, True)
    assert "Phi-4" in catalog["listed"]


def test_a_model_s_defaults_are_not_all_inputs_of_the_component(facts: Any) -> None:
    assert "'learning_rate_min'" in flow(facts, "catalog")["refused"]


def test_a_pipeline_trains_and_its_model_is_registered(facts: Any) -> None:
    ran = flow(facts, "pipeline")
    assert (ran["gpus"], ran["status"]) == (2, "Completed")
    assert ran["children"] > 0
    assert "trained_model" in ran["outputs"]
    assert ran["model"] == ["mlflow_model", f"{facts['prefix']}-pipeline"]
    assert {"MLmodel", "model.safetensors"} <= set(ran["files"])


def test_a_fine_tuning_job_registers_its_model(facts: Any) -> None:
    ran = flow(facts, "finetuning")
    assert ran["status"] == "Completed"
    assert ran["kind"] == "CustomModelFineTuningJob"
    kind, name = ran["model"]
    assert kind == "mlflow_model"
    assert name.startswith(f"{facts['prefix']}-text")
    assert {"MLmodel", "model.safetensors"} <= set(ran["files"])


def test_what_the_sdk_gets_wrong_about_fine_tuning_jobs_is_known(facts: Any) -> None:
    ran = flow(facts, "finetuning")
    assert ran["without validation"] == "UnboundLocalError"
    assert bool(ran["sent"]) is facts["version"].startswith("1.34.")


def test_nothing_in_it_was_a_problem(azure: Server, facts: Any) -> None:
    assert azure.report()["problems"] == []
