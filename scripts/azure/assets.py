"""What a job needs of this machine, in the workspace: rows, base model, adapter, image, recipe.

    needs = gather(recipe)                       # hashes files, asks nobody
    inputs = bring(cloud, needs)                 # uploads what is not there: the job's inputs

The version of an asset is made of its content, so what is there is found again and not uploaded
twice, and an upload that broke goes on. It is the caller's to decide that bytes may leave.
"""

import dataclasses
import glob
import hashlib
import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from scripts.azure import names, retry
from scripts.azure.blobs import Content, Datastore, read, uri
from scripts.azure.client import Cloud, NotFound
from scripts.azure.tags import BASE, REVISION, own
from scripts.console import say
from scripts.errors import UsageError
from scripts.settings import ROOT
from train.recipe import Recipe, dump

if TYPE_CHECKING:
    from azure.ai.ml import Input

Kind = Literal["data", "model"]

KEYS = {
    "train": "data.train",
    "validation": "data.validation",
    "adapter": "model.adapter",
    "base": "model.base",
}
"""Inputs of the job, and the recipe's key of each."""
VERSION_DIGITS = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Asset:
    """Files of this machine under the name and version that the workspace knows them by."""

    kind: Kind
    name: str
    files: Mapping[str, Content]
    tags: Mapping[str, str] = field(default_factory=dict)

    @property
    def version(self) -> str:
        """Hash over the names and contents of the files."""
        lines = (f"{name}\0{file.sha256}\n" for name, file in sorted(self.files.items()))
        return hashlib.sha256("".join(lines).encode()).hexdigest()[:VERSION_DIGITS]

    @property
    def id(self) -> str:
        return f"azureml:{self.name}:{self.version}"

    @property
    def size(self) -> int:
        return sum(file.size for file in self.files.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """What the job of a recipe reads."""

    recipe: Recipe
    """The recipe with the workspace's names in place of this machine's paths."""
    assets: Mapping[str, Asset]
    """By the job's input: what is to be uploaded where it is not there."""
    given: Mapping[str, str]
    """By the job's input: assets that the recipe names itself (azureml:…)."""

    @property
    def data_hash(self) -> str:
        """Changes with any byte that is uploaded and any asset that is named."""
        named = {**self.given, **{key: asset.id for key, asset in self.assets.items()}}
        return hashlib.sha256(json.dumps(named, sort_keys=True).encode()).hexdigest()

    def job_name(self, image: str) -> str:
        """Name of the job without its attempt, for the image of that reference by digest."""
        digest = image.rpartition("@")[2]
        recipe_hash = names.recipe_hash(self.recipe)
        return names.job_name(self.recipe.name, digest, recipe_hash, self.data_hash)


def gather(recipe: Recipe) -> Needs:
    """Read and hash what the recipe names on this machine; UsageError where it is not there."""
    assets: dict[str, Asset] = {}
    given: dict[str, str] = {}
    for key, place in _places(recipe).items():
        if place.startswith("azureml:"):
            given[key] = place
        elif key == "base":
            assets[key] = base_asset(place, folder(ROOT / place))
        elif not place.startswith("hf://"):  # which the job downloads
            assets[key] = Asset(
                kind="data", name=f"{names.slug(recipe.name)}-{key}", files=rows(place, KEYS[key])
            )
    named = {**given, **{key: asset.id for key, asset in assets.items()}}
    return Needs(recipe=replaced(recipe, named), assets=assets, given=given)


def _places(recipe: Recipe) -> dict[str, str]:
    """What the recipe names, by input; a base on the hub or `tiny` is none."""
    base = recipe.model.base
    local = base != "tiny" and ((ROOT / base).is_dir() or base.startswith("azureml:"))
    places = {
        "train": recipe.data.train,
        "validation": recipe.data.validation,
        "adapter": recipe.model.adapter,
        "base": base if local else None,
    }
    return {key: place for key, place in places.items() if place}


def replaced(recipe: Recipe, named: Mapping[str, str]) -> Recipe:
    """The recipe with the named inputs at their keys."""
    values: dict[str, dict[str, Any]] = {"data": {}, "model": {}}
    for key, name in named.items():
        section, _, entry = KEYS[key].partition(".")
        values[section][entry] = name
    return dataclasses.replace(
        recipe,
        data=dataclasses.replace(recipe.data, **values["data"]),
        model=dataclasses.replace(recipe.model, **values["model"]),
    )


def rows(place: str, key: str) -> dict[str, Content]:
    """A file, folder or pattern of files with rows, by the names that they get in the asset."""
    path = ROOT / place
    if path.is_dir():
        return folder(path)
    if path.is_file():
        return {path.name: read(path)}
    found = sorted(
        file for name in glob.glob(str(path), recursive=True) if (file := Path(name)).is_file()
    )
    if not found:
        raise UsageError(f"{key}: no file is at {place}; correct the path in the recipe.")
    top = path.parent if len(found) == 1 else Path(_common(found))
    return {file.relative_to(top).as_posix(): read(file) for file in found}


def folder(path: Path) -> dict[str, Content]:
    """All files below the folder, but those whose names begin with a dot."""
    relative = sorted(f.relative_to(path) for f in path.rglob("*") if f.is_file())
    visible = [name for name in relative if not any(part.startswith(".") for part in name.parts)]
    if not visible:
        raise UsageError(f"{path} holds no file: name a folder that does.")
    size = sum((path / name).stat().st_size for name in visible)
    if size > 1_000_000_000:
        say(f"data:   reading {size / 1e9:.1f} GB of {path} for their hash")
    return {name.as_posix(): read(path / name) for name in visible}


def _common(files: Sequence[Path]) -> str:
    import os

    return os.path.commonpath([file.parent for file in files])


def base_asset(base: str, files: Mapping[str, Content], revision: str = "") -> Asset:
    """A base model as the asset that cloud-train finds again."""
    return Asset(
        kind="model",
        name=f"base-{names.slug(Path(base).name)}",
        files=files,
        tags={BASE: base, REVISION: revision},
    )


def staged(cloud: Cloud, recipe: Recipe) -> str | None:
    """The staged model of the recipe's hub base, `azureml:name:version`; None where there is none.

    With model.revision only one of that very commit.
    """
    base, revision = recipe.model.base, recipe.model.revision
    if base == "tiny" or base.startswith("azureml:") or (ROOT / base).is_dir():
        return None
    for model in versions(cloud, base_asset(base, {}).name):
        tags = model.tags or {}
        if tags.get(BASE) == base and revision in (None, tags.get(REVISION)):
            return f"azureml:{model.name}:{model.version}"
    return None


def with_staged(cloud: Cloud, needs: Needs) -> Needs:
    """The needs with the base taken from the workspace, where it was staged."""
    asset = staged(cloud, needs.recipe)
    if asset is None:
        return needs
    say(f"base:   {needs.recipe.model.base} is staged as {asset}")
    return dataclasses.replace(
        needs,
        recipe=replaced(needs.recipe, {"base": asset}),
        given={**needs.given, "base": asset},
    )


def versions(cloud: Cloud, name: str) -> list[Any]:
    """The models of that name, the newest first; none where there is none."""
    try:
        found = retry.call(f"list models {name}", lambda: list(cloud.ml.models.list(name=name)))
    except NotFound:
        return []
    return sorted(found, key=lambda model: model.creation_context.created_at, reverse=True)


def bring(cloud: Cloud, needs: Needs) -> "dict[str, Input]":
    """Upload and register what is not there; the job's inputs, the recipe among them."""
    from azure.ai.ml import Input

    inputs = {
        key: Input(
            type="custom_model" if asset.kind == "model" else "uri_folder",
            path=register(cloud, asset),
            mode="download",
        )
        for key, asset in needs.assets.items()
    }
    for key, place in needs.given.items():
        inputs[key] = Input(type=_type(cloud, key, place), path=place, mode="download")
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "recipe.yaml"
        file.write_text(dump(needs.recipe), encoding="utf-8")
        path = register_data(cloud, f"{names.slug(needs.recipe.name)}-recipe", file)
    inputs["recipe"] = Input(type="uri_file", path=path, mode="download")
    return inputs


def register_data(cloud: Cloud, name: str, path: Path) -> str:
    """Upload a file (then it is a uri_file) or folder once; `azureml:name:version`."""
    if path.is_dir():
        return register(cloud, Asset(kind="data", name=name, files=folder(path)))
    return register(cloud, Asset(kind="data", name=name, files={path.name: read(path)}), file=True)


def register(cloud: Cloud, asset: Asset, *, file: bool = False) -> str:
    """Upload and register the asset unless that was done; `azureml:name:version`.

    `file`: its one file is the asset, not the folder around it.
    """
    from scripts.azure import specs

    collection = cloud.ml.models if asset.kind == "model" else cloud.ml.data

    def there() -> bool:
        try:
            retry.call(f"look for {asset.id}", lambda: collection.get(asset.name, asset.version))
        except NotFound:
            return False
        return True

    if there():
        say(f"{asset.kind}:{' ' * (7 - len(asset.kind) - 1)} {asset.id} (there already)")
        return asset.id
    prefix = f"homeport/{asset.kind}/{asset.name}/{asset.version}"
    Datastore(cloud).upload(asset.files, prefix)
    place = uri(f"{prefix}/{next(iter(asset.files))}" if file else f"{prefix}/")
    if asset.kind == "model":
        from azure.ai.ml.entities import Model

        entity: Any = Model(
            name=asset.name,
            version=asset.version,
            type="custom_model",
            path=place,
            tags=own(asset.tags),
        )
    else:
        entity = specs.data(asset.name, asset.version, place, tags=asset.tags)
        entity.type = "uri_file" if file else "uri_folder"
    # where a reply was lost, the second try finds it
    retry.call(f"register {asset.id}", lambda: there() or collection.create_or_update(entity))
    say(f"{asset.kind}:{' ' * (7 - len(asset.kind) - 1)} {asset.id}")
    return asset.id


def environment(cloud: Cloud, role: str, image: str) -> str:
    """Register the image of that reference by digest as an environment; `azureml:name:version`."""
    from scripts.azure import specs

    entity = specs.environment(role, image)
    name, version = str(entity.name), str(entity.version)
    try:
        retry.call(f"look for {name}:{version}", lambda: cloud.ml.environments.get(name, version))
    except NotFound:
        retry.call(
            f"register {name}:{version}", lambda: cloud.ml.environments.create_or_update(entity)
        )
    return f"azureml:{name}:{version}"


def _type(cloud: Cloud, key: str, place: str) -> str:
    """Type of the asset that the recipe names itself."""
    if key == "base":
        return "custom_model"
    if place.startswith("azureml://"):
        return "uri_folder" if place.endswith("/") else "uri_file"
    name, _, version = place.removeprefix("azureml:").partition(":")
    label = name.partition("@")[2]
    try:
        data = retry.call(
            f"look for {place}",
            lambda: (
                cloud.ml.data.get(name.partition("@")[0], label=label)
                if label
                else cloud.ml.data.get(name, version)
            ),
        )
    except NotFound:
        raise UsageError(
            f"{KEYS[key]}: there is no data asset {place} in workspace {cloud.workspace.name}: "
            "az ml data list"
        ) from None
    return str(data.type)
