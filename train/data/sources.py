"""Where rows come from: what a recipe names in `data.train` → files on this machine.

    resolve("data/rows.jsonl", "data.train", cache) -> [Path("data/rows.jsonl")]

    rows.jsonl   rows.json.gz   rows.parquet   rows.csv     one file
    folder/                                                 every such file below it, sorted
    shards/*.parquet                                        what the pattern matches, sorted
    hf://owner/name@revision[/path/inside]                  a dataset of the hub, at one commit
    azureml:name:version   azureml://…                      an Azure ML data asset, where mounted
    …#split[start:end]                                      a split, a part of it (splits.py)

On Azure ML the job mounts its inputs and tells the path of each in $AZURE_ML_INPUT_<name>; the
inputs of a fine-tune are named as the recipe's keys, `train` and `validation`.
"""

import glob
import hashlib
import os
import re
from collections.abc import Sequence
from pathlib import Path

from train.data import splits
from train.data.splits import Split
from train.errors import InputError, reason

TEXT_KINDS = (".jsonl", ".json", ".csv")
KINDS = (*TEXT_KINDS, *(f"{kind}.gz" for kind in TEXT_KINDS), ".parquet")
"""How the names of files with rows end."""
HUB = re.compile(
    r"hf://(?:datasets/)?(?P<id>[\w.-]+/[\w.-]+)(?:@(?P<revision>[^/]+))?(?:/(?P<inside>.*))?"
)
MOUNT = "AZURE_ML_INPUT_"
CHUNK = 1 << 20


def resolve(spec: str, key: str, cache: Path) -> list[Path]:
    """The files that `spec` names; `key` is the recipe's key that it stands at.

    Datasets of the hub are downloaded below `cache`. Raises InputError where there is no such
    file, none of a known kind, or no way to reach it from here.
    """
    place, mark, behind = spec.rpartition("#")
    if not mark or Path(spec).exists():  # a file's own name may have a #
        return _place(spec, key, cache, None)
    split = splits.parse(behind, spec, key)
    files = _place(place, key, cache, split)
    if not split.start and not split.end:
        return files
    return [splits.part(files, split, fingerprint(files), cache, f"{key}: {spec}")]


def _place(spec: str, key: str, cache: Path, split: Split | None) -> list[Path]:
    """The files of a place, those of a split alone where one is named."""
    if spec.startswith("hf://"):
        return _hub(spec, key, cache, split)
    if spec.startswith("azureml:"):
        return _mounted(spec, key, split)
    return _local(Path(spec), spec, key, split)


def fingerprint(paths: Sequence[Path]) -> str:
    """SHA-256 over the names and contents of files: the same rows have the same one anywhere."""
    whole = hashlib.sha256()
    for path in paths:
        with path.open("rb") as stream:
            content = hashlib.file_digest(stream, "sha256").hexdigest()
        whole.update(f"{path.name}\0{content}\n".encode())
    return whole.hexdigest()


def _local(path: Path, spec: str, key: str, split: Split | None) -> list[Path]:
    known = ", ".join(KINDS)
    if path.is_dir():
        if files := _below(path):
            return _of_split(files, path, split, spec, key)
        raise InputError(f"{key}: {spec} holds no file of rows ({known}).")
    if path.exists():
        if _known(path):
            return [path]
        raise InputError(f"{key}: {spec} is of no known kind; its name must end with {known}.")
    if glob.has_magic(spec):
        found = sorted(Path(name) for name in glob.glob(spec, recursive=True))
        files = [file for file in found if file.is_file() and _known(file)]
        if files:
            return _of_split(files, None, split, spec, key)
        raise InputError(f"{key}: no file of rows ({known}) matches {spec}.")
    raise InputError(f"{key}: {spec} does not exist; correct the path in the recipe.")


def _of_split(
    files: list[Path], folder: Path | None, split: Split | None, spec: str, key: str
) -> list[Path]:
    """Those of the files that belong to the split; `folder`, if there is one, is the dataset's."""
    if split is None:
        return files
    inside = {file: file.relative_to(folder) if folder else file for file in files}
    if found := [file for file in files if split.has(inside[file])]:
        return found
    names = ", ".join(str(path) for path in list(inside.values())[:6])
    raise InputError(f"{key}: {spec} has no files of a split {split.name}; there are {names}.")


def _known(path: Path) -> bool:
    return path.name.lower().endswith(KINDS)


def _below(folder: Path) -> list[Path]:
    """Files of rows below `folder`, sorted; names that begin with . or _ are not data."""
    found = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return [
        folder / path
        for path in sorted(found)
        if _known(path) and not any(part.startswith((".", "_")) for part in path.parts)
    ]


def _hub(spec: str, key: str, cache: Path, split: Split | None) -> list[Path]:
    match = HUB.fullmatch(spec)
    if not match:
        raise InputError(f"{key}: {spec} is no hub dataset; write hf://owner/name@revision.")
    name, revision, inside = match["id"], match["revision"], (match["inside"] or "").strip("/")
    if not revision:
        raise InputError(
            f"{key}: {spec} names no revision, so a later run could read other rows; pin one as "
            f"hf://{name}@<commit id>, the newest of which is on the dataset's page under "
            "'Files and versions', or printed by: python -c \"import huggingface_hub as h; "
            f"print(h.HfApi().dataset_info('{name}').sha)\""
        )
    from huggingface_hub import snapshot_download

    patterns = split.patterns(KINDS) if split else [f"*{kind}" for kind in KINDS]
    if inside and _known(Path(inside)):
        patterns = [inside]
    elif inside:
        patterns = [f"{inside}/{pattern}" for pattern in patterns]
    try:
        folder = snapshot_download(
            name,
            repo_type="dataset",
            revision=revision,
            cache_dir=cache / "hub",
            allow_patterns=patterns,
        )
    except Exception as error:  # network, rights and naming errors of the hub share no base class
        raise InputError(
            f"{key}: {spec} could not be downloaded ({reason(error)}); check its name, "
            "revision and the network, and set HF_TOKEN if it is gated."
        ) from None
    return _local(Path(folder) / inside, spec, key, split)


def _mounted(spec: str, key: str, split: Split | None) -> list[Path]:
    variable = MOUNT + key.rpartition(".")[2]
    path = os.environ.get(variable)
    if not path:
        raise InputError(
            f"{key}: {spec} is data of an Azure ML workspace, which only a cloud job mounts (and "
            f"then sets ${variable}); here give a local or mounted path."
        )
    return _local(Path(path), path, f"{key} ({spec}, ${variable})", split)
