"""Specs carry the recipe's values, and refuse what Azure would run otherwise than it reads."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from emulator.server import Server
from scripts.azure import prices, specs
from scripts.azure.probes import probes_for
from scripts.azure.timeouts import Timeouts
from scripts.errors import UsageError
from tests.local_azure import environment
from tests.tree import ROOT
from train import recipe as recipes
from train.recipe import Recipe

DIGEST = "sha256:" + "ab12" * 16
IMAGE = f"mine.azurecr.io/homeport@{DIGEST}"
CPU = prices.find("Standard_E4s_v3")
GPUS = prices.find("Standard_NC48ads_A100_v4")
INPUTS = {
    "recipe": {"type": "uri_file", "path": "recipes/tiny-ja.yaml"},
    "train": {"type": "uri_folder", "path": "azureml:rows:1", "mode": "download"},
}


def recipe(**cloud: object) -> Recipe:
    tiny = recipes.load(ROOT / "recipes/tiny-ja.yaml", environ={})
    changed: Any = cloud
    return dataclasses.replace(tiny, cloud=dataclasses.replace(tiny.cloud, **changed))


def job(recipe: Recipe, **changes: Any) -> dict[str, Any]:
    given: dict[str, Any] = {
        "name": "tiny-2",
        "base_name": "tiny",
        "environment": "azureml:homeport-train:ab12",
        "inputs": INPUTS,
        "instance": CPU,
        "recipe": recipe,
    }
    return specs.fill_job(**{**given, **changes})


def test_a_job_runs_the_recipe_on_the_machine_that_it_names() -> None:
    filled = job(recipe(nodes=3, max_hours=1.5), tags={"homeport-recipe": "tiny-ja"})
    assert filled["name"] == "tiny-2"
    assert filled["resources"]["instance_type"] == "Standard_E4s_v3"
    assert filled["resources"]["instance_count"] == 3
    assert filled["limits"] == {"timeout": 5400}
    assert filled["tags"] == {"homeport": "1", "homeport-recipe": "tiny-ja"}
    assert filled["inputs"]["recipe"]["path"] == str(ROOT / "recipes/tiny-ja.yaml")
    assert filled["inputs"]["train"] == INPUTS["train"]
    assert "compute" not in filled
    assert "queue_settings" not in filled
    assert "identity" not in filled


def test_the_command_hands_every_input_to_the_key_that_it_is_for() -> None:
    extra = {name: {"type": "uri_folder", "path": "azureml:x:1"} for name in specs.OVERRIDES}
    command = job(recipe(), inputs={**INPUTS, **extra})["command"]
    assert command == (
        "python -m train ${{inputs.recipe}} --outputs ${{outputs.runs}} --model ${{outputs.model}} "
        '--cache "${TMPDIR:-/tmp}/homeport" '
        "data.train=${{inputs.train}} "
        "data.validation=${{inputs.validation}} model.base=${{inputs.base}} "
        "model.adapter=${{inputs.adapter}}"
    )


def test_rows_that_the_job_downloads_itself_are_no_input() -> None:
    command = job(recipe(), inputs={"recipe": INPUTS["recipe"]})["command"]
    assert command.endswith('--cache "${TMPDIR:-/tmp}/homeport"')


def test_all_attempts_share_the_folder_of_their_runs() -> None:
    paths = {job(recipe(), name=n)["outputs"]["runs"]["path"] for n in ("tiny", "tiny-2")}
    assert paths == {"azureml://datastores/workspaceblobstore/paths/homeport/tiny/runs"}
    assert job(recipe())["outputs"]["runs"]["mode"] == "rw_mount"


def test_there_is_one_process_for_each_gpu() -> None:
    counts = [
        job(recipe(), instance=instance)["distribution"]["process_count_per_instance"]
        for instance in (CPU, GPUS)
    ]
    assert counts == [1, 2]


def test_serverless_spot_is_asked_of_the_queue_and_cluster_spot_of_the_cluster() -> None:
    assert job(recipe(spot=True))["queue_settings"] == {"job_tier": "spot"}
    mine = recipe(spot=True, compute="mine", nodes=2)
    filled = job(mine)
    assert filled["compute"] == "azureml:mine"
    assert "queue_settings" not in filled
    assert "instance_type" not in filled["resources"]
    cluster = specs.fill_compute(mine)
    assert cluster["tier"] == "low_priority"
    assert (cluster["min_instances"], cluster["max_instances"]) == (0, 2)
    assert cluster["size"] == mine.cloud.instance_type
    assert specs.fill_compute(recipe(compute="mine"))["tier"] == "dedicated"


def test_a_job_that_reads_a_secret_has_an_identity() -> None:
    assert job(recipe(hub_token_secret="hub"))["identity"] == {"type": "managed"}


@pytest.mark.parametrize("hours", [float("inf"), float("nan"), 21 * 24 + 1])
def test_a_job_without_a_time_limit_is_refused(hours: float) -> None:
    with pytest.raises(UsageError, match=r"cloud\.max_hours is .*needs a time limit"):
        job(recipe(max_hours=hours))


def test_spot_jobs_live_for_a_week_at_most() -> None:
    assert specs.timeout_seconds(recipe(max_hours=200)) == 720_000
    with pytest.raises(UsageError, match="at most 168 hours on low-priority machines"):
        specs.timeout_seconds(recipe(max_hours=200, spot=True))


@pytest.mark.parametrize("limits", [{}, None, {"timeout": None}, {"timeout": 0}])
def test_a_job_whose_file_lost_its_limit_is_refused(limits: object) -> None:
    with pytest.raises(UsageError, match=r"no limits\.timeout"):
        specs.check_job({**specs.document("job"), "limits": limits})


@pytest.mark.parametrize(
    "command",
    [
        "train ${inputs.recipe}",
        "train ${ inputs.recipe }",
        "train ${{inputs.recipe}} --outputs ${outputs.runs}",
        "train ${inputs",
    ],
)
def test_a_lost_brace_is_refused(command: str) -> None:
    with pytest.raises(UsageError, match=r"\$\{.*Azure replaces only two braces"):
        specs.check_command(command)


@pytest.mark.parametrize(
    "command", ["train ${{inputs.recipe}}", "train ${{ inputs.recipe }} $HOME ${HOME} ${#inputs}"]
)
def test_two_braces_and_the_shells_own_are_taken(command: str) -> None:
    specs.check_command(command, {"recipe": 1}, {})


def test_an_input_that_the_job_does_not_have_is_refused() -> None:
    with pytest.raises(UsageError, match=r"uses inputs\.rows, which .* has: recipe, train"):
        specs.check_command("train ${{inputs.rows}}", {"recipe": 1, "train": 1}, {})
    with pytest.raises(UsageError, match=r"uses outputs\.model, which .* has: none"):
        specs.check_command("train ${{outputs.model}}", {}, {})


@pytest.mark.parametrize("inputs", [{"train": INPUTS["train"]}, {**INPUTS, "rows": {"path": "x"}}])
def test_inputs_that_the_command_has_no_place_for_are_refused(inputs: Any) -> None:
    with pytest.raises(UsageError, match="the job's inputs are"):
        job(recipe(), inputs=inputs)


@pytest.mark.parametrize(
    "image",
    [
        "mine.azurecr.io/homeport:latest",
        "mine.azurecr.io/homeport",
        f"mine.azurecr.io/homeport:train@{DIGEST}",
        f"mine.azurecr.io/homeport@{DIGEST[:-1]}",
        f"mine.azurecr.io/homeport@{DIGEST.upper()}",
        f"homeport@{DIGEST}",
        "",
    ],
)
def test_an_image_that_is_not_named_by_digest_alone_is_refused(image: str) -> None:
    with pytest.raises(UsageError, match="not named by digest"):
        specs.fill_environment("train", image)


@pytest.mark.parametrize(
    "image", [IMAGE, f"mine.azurecr.io/homeport/train@{DIGEST}", f"localhost:5000/x@{DIGEST}"]
)
def test_an_environments_version_is_of_its_images_digest(image: str) -> None:
    filled = specs.fill_environment("serve", image)
    assert (filled["image"], filled["version"]) == (image, "ab12ab12ab12")


def test_a_deployment_has_the_recipes_machines_and_the_whole_chain_of_limits() -> None:
    limits = Timeouts(generation_seconds=100.5, request_timeout_ms=170_000)
    filled = specs.fill_deployment(
        name="green",
        endpoint="mine",
        model="tiny-ja:7",
        environment="azureml:homeport-serve:ab12",
        recipe=recipe(serve_instances=2),
        probes=probes_for(10**10),
        timeouts=limits,
        tags={"a": "b"},
    )
    assert filled["model"] == "azureml:tiny-ja:7"
    assert (filled["instance_type"], filled["instance_count"]) == ("Standard_E4s_v3", 2)
    assert filled["request_settings"]["request_timeout_ms"] == 170_000
    assert filled["environment_variables"]["SERVE_REQUEST_SECONDS"] == "100.5"
    assert filled["liveness_probe"]["initial_delay"] == probes_for(10**10).initial_delay


def test_a_deployment_whose_limits_do_not_hold_is_refused() -> None:
    with pytest.raises(UsageError, match="Azure gives up"):
        specs.fill_deployment(
            name="green",
            endpoint="mine",
            model="azureml:tiny-ja:7",
            environment="azureml:homeport-serve:ab12",
            recipe=recipe(),
            probes=probes_for(0),
            timeouts=Timeouts(generation_seconds=200),
        )


@pytest.mark.parametrize(
    ("path", "kind", "absolute"),
    [
        ("data/japanese_reasoning.jsonl", "uri_file", str(ROOT / "data/japanese_reasoning.jsonl")),
        ("data", "uri_folder", str(ROOT / "data")),
        ("azureml://datastores/d/paths/x/", "uri_folder", "azureml://datastores/d/paths/x/"),
        ("azureml://datastores/d/paths/x", "uri_file", "azureml://datastores/d/paths/x"),
    ],
)
def test_data_is_a_file_or_a_folder(
    path: str, kind: str, absolute: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    filled = specs.fill_data("rows", "1f", path)
    assert (filled["type"], filled["path"], filled["version"]) == (kind, absolute, "1f")


def test_names_against_azures_rules_are_refused_in_every_spec() -> None:
    with pytest.raises(UsageError, match="the endpoint's name"):
        specs.fill_endpoint("my_endpoint")
    with pytest.raises(UsageError, match="the cluster's name"):
        specs.fill_compute(recipe(compute="gpu-1"))
    with pytest.raises(UsageError, match="the cluster's name"):
        job(recipe(compute="gpu-1"))
    with pytest.raises(UsageError, match="the job's name"):
        job(recipe(), name="a b")


@pytest.mark.slow
def test_entities_are_the_sdks_own_and_carry_the_values(tmp_path: Path) -> None:
    from azure.ai.ml import Input

    environment = specs.environment("serve", IMAGE)
    assert environment.inference_config.scoring_route.path == "/score"
    rows = tmp_path / "rows.jsonl"
    rows.write_text("{}\n")
    inputs = {
        "recipe": Input(type="uri_file", path=str(rows)),
        "train": Input(type="uri_folder", path="azureml:rows:1", mode="download"),
    }
    made = specs.job(
        name="tiny-2",
        base_name="tiny",
        environment=environment,
        recipe=recipe(spot=True, hub_token_secret="hub"),
        inputs=inputs,
        instance=GPUS,
        environment_variables={"A": "b"},
    )
    body = made._to_job()._to_rest_object().serialize()["properties"]
    assert body["limits"]["timeout"] == "PT1H"
    assert body["queueSettings"] == {"jobTier": "Spot"}
    assert body["identity"] == {"identityType": "Managed"}
    assert body["distribution"]["processCountPerInstance"] == 2
    assert body["resources"]["instanceType"] == GPUS.name
    assert body["environmentVariables"]["A"] == "b"
    assert body["inputs"]["recipe"]["uri"] == str(rows)
    assert body["inputs"]["train"]["mode"] == "Download"
    assert body["outputs"]["runs"]["mode"] == "ReadWriteMount"
    assert specs.model(name="m", job="tiny-2").path == (
        "azureml://jobs/tiny-2/outputs/model/paths/merged"
    )
    assert specs.endpoint("mine", {"x": "y"}).tags == {"homeport": "1", "x": "y"}
    assert specs.compute(recipe(compute="mine", spot=True)).tier == "low_priority"
    assert specs.data("rows", "1", rows).type == "uri_file"
    deployment = specs.deployment(
        name="green",
        endpoint="mine",
        model="azureml:tiny-ja:7",
        environment=environment,
        recipe=recipe(),
        probes=probes_for(0),
        timeouts=Timeouts(),
    )
    assert deployment.environment == "homeport-serve:ab12ab12ab12"
    assert deployment.request_settings.request_timeout_ms == 150_000


@pytest.mark.slow
def test_the_local_azure_takes_the_files_as_they_stand(local_azure: Server) -> None:
    """In the order of their comments; what needs the job's model is the rehearsal's."""
    import azure.ai.ml as sdk

    from scripts.azure.client import connect

    with environment(local_azure):
        ml = connect().ml

        def entity(kind: str) -> Any:
            return getattr(sdk, specs.LOADERS[kind])(ROOT / f"azure/{kind}.yml")

        assert ml.data.create_or_update(entity("data")).version == "1"
        for role in ("train", "serve"):
            made = ml.environments.create_or_update(entity(f"environment-{role}"))
            assert made.version == "000000000000"
        made = ml.jobs.create_or_update(entity("job"))
        assert made.name == "tiny-ja"
        ml.jobs.begin_cancel(made.name).result()
        made = ml.online_endpoints.begin_create_or_update(entity("endpoint")).result()
        assert made.auth_mode == "key"
        made = ml.compute.begin_create_or_update(entity("compute")).result()
        assert made.min_instances == 0
    assert local_azure.azure.journal.report()["problems"] == []
