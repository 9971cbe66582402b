"""The files of azure/, held against Azure ML's own schema by the SDK that `az ml` is made of."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from scripts.azure import specs
from scripts.azure.timeouts import Timeouts
from scripts.errors import UsageError
from tests.tree import ROOT
from train import recipe as recipes

FILES = sorted(path.stem for path in (ROOT / "azure").glob("*.yml"))
OURS = {"prices", "catalog", "image-build", "finetuning-job"}
"""Not of a published schema of Azure ML: our tables, a task of the container registry, and a
fine-tuning job, which tests/scripts/azure/test_forms.py holds against the SDK."""
KINDS = [name for name in FILES if name not in OURS]
SCHEMAS = {
    "data": "data",
    "environment-train": "environment",
    "environment-serve": "environment",
    "job": "commandJob",
    "model": "model",
    "endpoint": "managedOnlineEndpoint",
    "deployment": "managedOnlineDeployment",
    "deployment-model": "managedOnlineDeployment",
    "compute": "amlCompute",
}
TINY = recipes.load(ROOT / "recipes/tiny-ja.yaml", environ={})


def raw(kind: str) -> dict[str, Any]:
    values: dict[str, Any] = yaml.safe_load((ROOT / f"azure/{kind}.yml").read_text())
    return values


def load(path: Path, kind: str) -> Any:
    import azure.ai.ml as sdk

    return getattr(sdk, {**specs.LOADERS, **specs.OF_ROUTES}[kind])(path)


def test_every_file_is_known_and_names_its_published_schema() -> None:
    assert set(KINDS) == set(SCHEMAS) == {*specs.LOADERS, *specs.OF_ROUTES}
    for kind, name in SCHEMAS.items():
        published = f"https://azuremlschemas.azureedge.net/latest/{name}.schema.json"
        assert raw(kind)["$schema"] == published


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_the_sdk_takes_the_file_as_it_stands(kind: str) -> None:
    entity = load(ROOT / f"azure/{kind}.yml", kind)
    assert entity.name == raw(kind)["name"]
    if kind == "job":
        assert entity._validate().passed


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_the_sdk_refuses_a_field_that_the_schema_does_not_have(kind: str) -> None:
    with pytest.raises(UsageError, match=r"not of Azure ML's schema: .*no_such_field"):
        specs.entity(kind, {**specs.document(kind), "no_such_field": 1})


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "key", "value"),
    [
        ("job", "limits", {"timeout": "soon"}),
        ("job", "distribution", {"type": "carrier pigeon"}),
        ("job", "outputs", {"runs": {"type": "uri_folder", "mode": "copy"}}),
        ("environment-serve", "inference_config", {"liveness_route": {"port": 5001, "path": "/"}}),
        ("endpoint", "auth_mode", "password"),
        ("deployment", "instance_count", "many"),
        ("compute", "tier", "cheap"),
    ],
)
def test_the_sdk_refuses_a_value_that_the_schema_does_not_have(
    kind: str, key: str, value: object
) -> None:
    with pytest.raises(UsageError, match="schema"):
        specs.entity(kind, {**specs.document(kind), key: value})


def test_the_files_hold_the_values_of_the_smallest_recipe() -> None:
    job, deployment, compute = raw("job"), raw("deployment"), raw("compute")
    assert job["resources"]["instance_type"] == compute["size"] == TINY.cloud.instance_type
    assert job["limits"]["timeout"] == TINY.cloud.max_hours * 3600
    assert deployment["instance_type"] == TINY.cloud.serve_instance_type
    assert raw("data")["path"] == f"../{TINY.data.train}"
    assert job["inputs"]["recipe"]["path"] == "../recipes/tiny-ja.yaml"
    limits = Timeouts()
    assert deployment["request_settings"]["request_timeout_ms"] == limits.request_timeout_ms
    seconds = deployment["environment_variables"]["SERVE_REQUEST_SECONDS"]
    assert float(seconds) == limits.generation_seconds


def test_the_files_fit_together() -> None:
    job, deployment = raw("job"), raw("deployment")

    def reference(kind: str) -> str:
        return f"azureml:{raw(kind)['name']}:{raw(kind)['version']}"

    assert job["inputs"]["train"]["path"] == reference("data")
    assert job["environment"] == reference("environment-train")
    assert deployment["environment"] == reference("environment-serve")
    assert deployment["endpoint_name"] == raw("endpoint")["name"]
    assert deployment["model"].startswith(f"azureml:{raw('model')['name']}:")
    assert raw("model")["path"] == f"azureml://jobs/{job['name']}/{specs.MERGED}"


def test_the_job_is_one_that_we_would_send() -> None:
    specs.check_job(raw("job"))


@pytest.mark.parametrize("role", ["train", "serve"])
def test_images_are_named_by_digest_and_by_no_tag(role: str) -> None:
    image = raw(f"environment-{role}")["image"]
    specs.check_image(image)
    assert raw(f"environment-{role}")["version"] == specs.environment_version(image)


@pytest.mark.parametrize("kind", KINDS)
def test_no_file_refers_to_what_a_name_means_today(kind: str) -> None:
    """`@latest` and `:latest` can mean something else tomorrow."""
    assert "latest" not in yaml.safe_dump({**raw(kind), "$schema": ""})


def test_the_endpoint_needs_a_key_and_the_cluster_has_no_node_at_rest() -> None:
    assert raw("endpoint")["auth_mode"] == "key"
    assert raw("compute")["min_instances"] == 0
    assert raw("compute")["idle_time_before_scale_down"] <= 300
    assert raw("compute")["ssh_public_access_enabled"] is False


def test_the_server_is_asked_where_it_listens() -> None:
    config = raw("environment-serve")["inference_config"]
    assert {key: (route["port"], route["path"]) for key, route in config.items()} == {
        "liveness_route": (5001, "/"),
        "readiness_route": (5001, "/"),
        "scoring_route": (5001, "/score"),
    }
    assert "inference_config" not in raw("environment-train")
