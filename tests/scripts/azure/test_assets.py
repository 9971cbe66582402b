import dataclasses
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from emulator.faults import Fault
from emulator.server import Server
from scripts.azure import assets, client
from scripts.azure.blobs import Datastore
from scripts.azure.client import Cloud, NotFound
from scripts.azure.tags import BASE, REVISION
from scripts.errors import UsageError
from tests import local_azure as local
from tests.scripts.azure.stand_ins import cloud_of, requests_of
from train import recipe as recipes
from train.recipe import Recipe


def recipe_of(**sections: dict[str, Any]) -> Recipe:
    recipe = recipes.load("recipes/tiny-ja.yaml", environ={})
    replaced = {key: dataclasses.replace(getattr(recipe, key), **v) for key, v in sections.items()}
    return dataclasses.replace(recipe, **replaced)


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    folder = tmp_path / "rows"
    (folder / "b").mkdir(parents=True)
    (folder / "a.jsonl").write_text('{"a": 1}\n')
    (folder / "b/c.jsonl").write_text('{"c": 1}\n')
    (folder / ".hidden").write_text("x")
    return folder


@pytest.mark.parametrize(
    ("place", "names"),
    [
        ("rows", ["a.jsonl", "b/c.jsonl"]),
        ("rows/a.jsonl", ["a.jsonl"]),
        ("rows/*.jsonl", ["a.jsonl"]),
        ("rows/**/*.jsonl", ["a.jsonl", "b/c.jsonl"]),
    ],
)
def test_a_file_a_folder_and_a_pattern_become_files_of_an_asset(
    tmp_path: Path, rows: Path, place: str, names: list[str]
) -> None:
    assert sorted(assets.rows(str(tmp_path / place), "data.train")) == names


@pytest.mark.parametrize("place", ["none.jsonl", "*.jsonl"])
def test_rows_that_are_not_there_are_named(tmp_path: Path, place: str) -> None:
    with pytest.raises(UsageError, match=r"data\.train: no file is at .*jsonl"):
        assets.rows(str(tmp_path / place), "data.train")


def test_the_version_is_made_of_the_content_alone(tmp_path: Path, rows: Path) -> None:
    first = assets.Asset(kind="data", name="rows", files=assets.folder(rows))
    copy = tmp_path / "copy"
    rows.rename(copy)
    assert assets.Asset(kind="data", name="rows", files=assets.folder(copy)).id == first.id
    (copy / "a.jsonl").write_text('{"a": 2}\n')
    assert assets.Asset(kind="data", name="rows", files=assets.folder(copy)).id != first.id


def test_an_empty_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds no file"):
        assets.folder(tmp_path)


def test_the_recipe_of_the_job_names_what_was_uploaded_and_what_the_hub_has(rows: Path) -> None:
    recipe = recipe_of(
        data={"train": str(rows), "validation": "hf://o/n@1"}, model={"adapter": str(rows)}
    )
    needs = assets.gather(recipe)
    train, adapter = needs.assets["train"], needs.assets["adapter"]
    assert set(needs.assets) == {"train", "adapter"}
    assert needs.recipe.data.train == train.id
    assert needs.recipe.data.validation == "hf://o/n@1"
    assert needs.recipe.model.adapter == adapter.id
    assert needs.recipe.model.base == "tiny"
    assert train.name == "tiny-ja-train"


def test_data_of_the_workspace_is_named_as_it_is() -> None:
    needs = assets.gather(recipe_of(data={"train": "azureml:rows:3"}))
    assert needs.given == {"train": "azureml:rows:3"}
    assert not needs.assets


@pytest.mark.parametrize(
    "change",
    [
        {"data": {"train": "azureml:rows:4"}},
        {"training": {"max_steps": 7}},
    ],
)
def test_the_jobs_name_changes_with_what_is_trained_and_only_with_it(
    change: dict[str, dict[str, Any]],
) -> None:
    same = {"data": {"train": "azureml:rows:3"}}
    image = f"r.azurecr.io/homeport@sha256:{'0' * 64}"
    name = assets.gather(recipe_of(**same)).job_name(image)
    assert name == assets.gather(recipe_of(**same, cloud={"max_hours": 9.0})).job_name(image)
    assert name != assets.gather(recipe_of(**{**same, **change})).job_name(image)
    assert name != assets.gather(recipe_of(**same)).job_name(image.replace("000", "111"))


HUB = {"base": "owner/Model-1B", "revision": None}


def staged_model(day: int, base: str, revision: str) -> Any:
    return SimpleNamespace(
        name="base-model-1b",
        version=str(day),
        tags={BASE: base, REVISION: revision},
        creation_context=SimpleNamespace(created_at=day),
    )


@pytest.mark.parametrize(
    ("model", "found"),
    [
        (HUB, "azureml:base-model-1b:3"),
        ({**HUB, "revision": "aaa"}, "azureml:base-model-1b:2"),
        ({**HUB, "revision": "ccc"}, None),
        ({"base": "tiny"}, None),
    ],
)
def test_the_newest_staged_model_of_the_recipes_commit_is_taken(
    model: dict[str, Any], found: str | None
) -> None:
    there = [
        staged_model(1, "owner/Model-1B", "aaa"),
        staged_model(2, "owner/Model-1B", "aaa"),
        staged_model(3, "owner/Model-1B", "bbb"),
        staged_model(4, "other/Model-1B", "aaa"),
    ]
    cloud = cloud_of(ml=SimpleNamespace(models=SimpleNamespace(list=lambda name: there)))
    needs = assets.with_staged(cloud, assets.gather(recipe_of(model=model)))
    assert needs.given.get("base") == found
    assert needs.recipe.model.base == (found or model["base"])


def test_no_staged_model_is_no_error() -> None:
    def none(name: str) -> Any:
        raise NotFound("none")

    cloud = cloud_of(ml=SimpleNamespace(models=SimpleNamespace(list=none)))
    assert assets.staged(cloud, recipe_of(model=HUB)) is None


@pytest.fixture(scope="module")
def cloud(local_azure: Server) -> Iterator[Cloud]:
    with local.environment(local_azure):
        yield client.connect()


@pytest.mark.slow
def test_what_is_there_is_found_again_and_not_uploaded_twice(
    local_azure: Server, cloud: Cloud, rows: Path
) -> None:
    first = assets.register_data(cloud, "once", rows)
    assert first.startswith("azureml:once:")
    assert assets.register_data(cloud, "once", rows) == first
    assert len(requests_of(local_azure, "PUT", "/data/once/")) == 1
    container = local_azure.azure.settings.blob_container
    version = first.rpartition(":")[2]
    names = local_azure.azure.storage.names(container, f"homeport/data/once/{version}")
    assert [name.rpartition(version)[2] for name in names] == ["/a.jsonl", "/b/c.jsonl"]


@pytest.mark.slow
def test_an_upload_that_broke_goes_on_where_it_was(
    local_azure: Server, cloud: Cloud, rows: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asset = assets.Asset(kind="data", name="broke", files=assets.folder(rows))
    storage, settings = local_azure.azure.storage, local_azure.azure.settings
    prefix = f"homeport/data/broke/{asset.version}"
    storage.write(settings.blob_container, f"{prefix}/a.jsonl", b"half")
    assets.register(cloud, asset)
    assert storage.read(settings.blob_container, f"{prefix}/a.jsonl") == b'{"a": 1}\n'
    again = dataclasses.replace(asset, name="broke")
    capsys.readouterr()
    Datastore(cloud).upload(again.files, prefix)
    assert "upload" not in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize(
    "fault",
    [
        Fault(kind="expired_sas", path="workspaceblobstore"),
        Fault(kind="lost_reply", method="PUT", path="/data/"),
        Fault(kind="status", method="PUT", path="/data/", status=503, retry_after=0.2),
    ],
    ids=lambda fault: fault.kind,
)
def test_faults_while_registering_leave_one_asset(
    local_azure: Server, cloud: Cloud, rows: Path, fault: Fault
) -> None:
    name = f"fault-{fault.kind.replace('_', '-')}"
    local_azure.azure.faults.add(fault)
    made = assets.register_data(cloud, name, rows / "a.jsonl")
    there = list(cloud.ml.data.list(name=name))
    assert [f"azureml:{data.name}:{data.version}" for data in there] == [made]
    assert there[0].type == "uri_file"


@pytest.mark.slow
def test_the_image_is_registered_by_its_digest(cloud: Cloud) -> None:
    image = f"homeportrehearsal.azurecr.io/homeport/train@sha256:{'a' * 64}"
    assert assets.environment(cloud, "train", image) == "azureml:homeport-train:aaaaaaaaaaaa"
    assert assets.environment(cloud, "train", image) == "azureml:homeport-train:aaaaaaaaaaaa"
    assert cloud.ml.environments.get("homeport-train", "aaaaaaaaaaaa").image == image


@pytest.mark.slow
def test_the_inputs_of_a_job_are_the_recipe_its_rows_and_its_staged_base(
    cloud: Cloud, rows: Path
) -> None:
    base = assets.base_asset("owner/base", assets.folder(rows))
    staged = assets.register(cloud, base)
    given = assets.register_data(cloud, "given", rows)
    recipe = recipe_of(
        data={"train": str(rows / "a.jsonl"), "validation": given}, model={"base": "owner/base"}
    )
    needs = assets.with_staged(cloud, assets.gather(recipe))
    inputs = assets.bring(cloud, needs)
    assert {key: i.type for key, i in inputs.items()} == {
        "train": "uri_folder",
        "validation": "uri_folder",
        "base": "custom_model",
        "recipe": "uri_file",
    }
    assert inputs["base"].path == staged


@pytest.mark.slow
def test_data_that_the_workspace_does_not_have_is_named(cloud: Cloud) -> None:
    needs = assets.gather(recipe_of(data={"train": "azureml:nowhere:1"}))
    with pytest.raises(UsageError, match=r"data\.train: there is no data asset azureml:nowhere:1"):
        assets.bring(cloud, needs)
