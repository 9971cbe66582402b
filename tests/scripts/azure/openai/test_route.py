"""The route's verbs against the local Azure, whose training is small."""

import dataclasses
import json
import re
from pathlib import Path

import pytest

from emulator.faults import Fault
from emulator.openai import accounts as resources
from emulator.server import Server
from scripts.azure.client import Cloud
from scripts.azure.openai import inventory
from scripts.azure.routes import Work, azure_openai
from scripts.errors import CloudError, UsageError
from tests.emulator.openai.small_tuning import SmallTuning
from tests.scripts.azure.openai.conftest import RECIPE, arm_id
from train.recipe import Recipe, load


def jobs_of(server: Server) -> dict[str, object]:
    return resources.of(server.azure)["homeportrehearsal"].jobs


def test_the_plan_names_model_tokens_and_both_prices_offline(recipe: Recipe) -> None:
    planned = azure_openai.plan(recipe, RECIPE, None)
    told = "\n".join(value for _, value in planned.rows)
    assert "gpt-4.1-mini-2025-04-14, Standard" in told
    assert "estimated, 3 bytes a token" in told
    assert "not asked (offline)" in told
    assert re.match(r"costs at most about \$\d", planned.train.line)
    assert planned.deploy.line.startswith("costs $1.70 per hour and its tokens")
    assert planned.values["tokens"] > 1000
    assert not planned.train.unknown


def test_a_model_without_a_price_is_not_trained_unasked() -> None:
    unknown = load(RECIPE, ["cloud.model=gpt-9-2030-01-01"])
    planned = azure_openai.plan(unknown, RECIPE, None)
    assert "CLOUD_PRICES" in planned.train.unknown


def test_a_job_is_trained_once_and_its_best_checkpoint_served(
    azure: Server,
    work: Work,
    tuning: SmallTuning,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    done = azure_openai.train(work)
    assert done.status == "succeeded"
    assert "the lowest validation loss, 1.1000 at step 15" in done.values["reason"]
    assert "training went past it" in done.values["reason"]
    assert [wanted.epochs for wanted in tuning.wanted] == [3]
    folder = tmp_path / "outputs/azure-openai-ja" / done.job
    page = (folder / "curves.html").read_text(encoding="utf-8")
    assert "<polyline" in page and "deployed" in page
    assert (folder / "results.csv").read_text(encoding="utf-8").startswith("step,train_loss")
    assert json.loads((folder / "job.json").read_text())["checkpoint"]["step"] == 15

    again = azure_openai.train(work)
    assert (again.job, again.model) == (done.job, done.model)
    assert len(jobs_of(azure)) == 1
    assert "has done this already" in capsys.readouterr().err

    served = azure_openai.deploy(work)
    assert served["endpoint"] == "homeportrehearsal"
    assert served["model"] == done.model
    assert "does not answer yet" in capsys.readouterr().err
    assert azure_openai.deploy(work)["deployment"] == served["deployment"]
    assert "already" in capsys.readouterr().err

    answer = azure_openai.ask(work.cloud, work.recipe, "首都は？")
    assert answer.output.endswith("3")  # the folder of the third epoch: step 15
    assert answer.by == f"homeportrehearsal, deployment {served['deployment']}"

    line = azure_openai.curl(work.cloud, work.recipe, "首都は？")
    assert "make -s cloud-key RECIPE=recipes/azure-openai-ja.yaml" in line
    key = azure_openai.key(work.cloud, work.recipe)
    assert key and key not in line


def test_a_deployment_that_failed_is_made_anew_by_the_same_command(
    azure: Server, work: Work, tuning: SmallTuning, capsys: pytest.CaptureFixture[str]
) -> None:
    azure_openai.train(work)
    azure.azure.faults.add(Fault(kind="failed_provisioning", path="/deployments/"))
    with pytest.raises(CloudError, match=r"Failed.*make cloud-deploy again makes it anew"):
        azure_openai.deploy(work)
    served = azure_openai.deploy(work)
    assert "which failed before" in capsys.readouterr().err
    assert azure_openai.ask(work.cloud, work.recipe, "?").by.endswith(served["deployment"])


@pytest.mark.slow
def test_other_settings_are_another_job_and_a_model_beside_the_one_before(
    azure: Server, work: Work, tuning: SmallTuning
) -> None:
    first = azure_openai.train(work)
    before = azure_openai.deploy(work)
    changed = dataclasses.replace(work, recipe=load(RECIPE, ["training.seed=7"]))
    second = azure_openai.train(changed)
    assert second.job != first.job
    now = azure_openai.deploy(changed)
    assert now["deployment"] != before["deployment"]
    assert azure_openai.ask(work.cloud, work.recipe, "?").by.endswith(now["deployment"])

    back = azure_openai.rollback(work)
    assert back["deployment"] == before["deployment"]
    again = azure_openai.rollback(work)  # as after a kill: it is not undone
    assert again["deployment"] == before["deployment"]
    assert azure_openai.ask(work.cloud, work.recipe, "?").by.endswith(before["deployment"])

    ended = azure_openai.deploy(work, finish=True)
    assert ended["deleted"] == [now["deployment"]]
    assert ended["deployment"] == before["deployment"]
    with pytest.raises(UsageError, match="before the present one"):
        azure_openai.rollback(work)


@pytest.mark.slow
def test_what_stands_there_is_surveyed_and_deleted(
    azure: Server, work: Work, tuning: SmallTuning
) -> None:
    assert inventory.survey(work.cloud) == ()
    azure_openai.train(work)
    made = azure_openai.deploy(work)
    [hosted] = inventory.survey(work.cloud)
    assert hosted.name == f"homeportrehearsal/{made['deployment']}"
    assert (hosted.ours, hosted.per_hour, hosted.sku) == (True, 1.7, "standard")
    assert inventory.running(work.cloud) == ()
    inventory.delete(work.cloud, hosted)
    assert inventory.survey(work.cloud) == ()
    files = [file for file in inventory.files(work.cloud) if file.ours]
    assert sorted(file.name.rsplit("-", 1)[0] for file in files) == [
        "homeport-azure-openai-ja-train",
        "homeport-azure-openai-ja-validation",
    ]
    for file in files:
        inventory.delete_file(work.cloud, file)
    assert not any(file.ours for file in inventory.files(work.cloud))


@pytest.mark.slow
def test_a_running_job_is_left_found_again_and_cancelled(
    azure: Server, work: Work, tuning: SmallTuning
) -> None:
    tuning.hold.clear()
    left = azure_openai.train(work, detach=True)
    assert azure_openai.train(work, detach=True).job == left.job
    [running] = inventory.running(work.cloud)
    assert (running.job, running.ours) == (left.job, True)
    ended = azure_openai.cancel(work.cloud, work.recipe, "")
    assert (ended["job"], ended["status"]) == (left.job, "cancelled")
    tuning.hold.set()
    assert azure_openai.train(work).job != left.job  # what was cancelled is tried anew


@pytest.mark.slow
def test_the_log_is_followed_on_stdout_and_downloaded_with_the_curves(
    azure: Server,
    work: Work,
    tuning: SmallTuning,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    job = azure_openai.train(work).job
    capsys.readouterr()
    end = azure_openai.logs(work.cloud, work.recipe, "")
    assert (end["job"], end["status"]) == (job, "succeeded")
    assert "Training started." in capsys.readouterr().out
    told = azure_openai.logs(work.cloud, work.recipe, job, every=True)
    assert "step,train_loss" in told["logs"]["results.csv"]
    name, folder = azure_openai.download(work.cloud, work.recipe, "", tmp_path / "here")
    assert name == job
    assert sorted(file.name for file in folder.iterdir()) == [
        "curves.html",
        "events.txt",
        "job.json",
        "results.csv",
    ]


@pytest.mark.slow
def test_without_a_job_or_a_deployment_the_next_command_is_named(work: Work) -> None:
    with pytest.raises(UsageError, match="make cloud-train"):
        azure_openai.deploy(work)
    with pytest.raises(UsageError, match="make cloud-train"):
        azure_openai.logs(work.cloud, work.recipe, "")
    with pytest.raises(UsageError, match="make cloud-deploy"):
        azure_openai.ask(work.cloud, work.recipe, "?")
    with pytest.raises(UsageError, match="no fine-tuning job ftjob-0"):
        azure_openai.cancel(work.cloud, work.recipe, "ftjob-0")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "tenant"), [("homeportelsewhere", ""), ("homeportabroad", "its own")]
)
def test_a_model_is_served_in_another_region_and_in_another_tenant(
    azure: Server, work: Work, tuning: SmallTuning, name: str, tenant: str
) -> None:
    azure_openai.train(work)
    settings = [f"cloud.openai.deploy_to={arm_id(azure, name)}"]
    if tenant:
        settings.append(f"cloud.openai.deploy_tenant={resources.of(azure.azure)[name].tenant}")
    there = dataclasses.replace(work, recipe=load(RECIPE, settings))
    made = azure_openai.deploy(there)
    assert made["endpoint"] == name
    assert azure_openai.ask(there.cloud, there.recipe, "?").by.startswith(f"{name}, ")
    found = inventory.survey(there.cloud, there.recipe)
    assert [(each.name, each.ours) for each in found] == [(f"{name}/{made['deployment']}", True)]
    inventory.delete(there.cloud, found[0])
    assert inventory.survey(there.cloud, there.recipe) == ()


def test_which_resource_is_not_guessed(cloud: Cloud) -> None:
    wrong = load(RECIPE, ["cloud.openai.resource=nowhere"])
    with pytest.raises(UsageError, match=r"no Azure OpenAI resource nowhere.*homeportrehearsal"):
        azure_openai.plan(wrong, RECIPE, cloud)


def test_preferences_are_for_another_route(work: Work) -> None:
    dpo = dataclasses.replace(work, recipe=load(RECIPE, ["method=dpo"]))
    with pytest.raises(UsageError, match="command_job"):
        azure_openai.train(dpo)


@pytest.mark.slow
def test_rows_that_the_service_refuses_cost_a_sentence(
    azure: Server, work: Work, tuning: SmallTuning, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path) -> str:
        return "Line 3 is no JSON object."

    monkeypatch.setattr("emulator.openai.rows.encoding_flaw", refuse)
    with pytest.raises(CloudError, match="Line 3 is no JSON object"):
        azure_openai.train(work)
    assert not jobs_of(azure)
