import gzip
import hashlib
import io
import json
import os
import stat
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any

import pytest

from scripts.azure import saved_image
from scripts.azure.registry import Registry
from scripts.azure.saved_image import push_saved
from scripts.errors import CloudError, MachineError
from tests.scripts.azure.fake_registry import FakeRegistry, Login, fake_registry


@dataclass
class Saved:
    """An image as the engine would save it."""

    layers: list[bytes]
    config: bytes
    files: dict[str, bytes | str]
    """Content by name; a string is a link's target."""

    def write(self, path: Path) -> None:
        with tarfile.open(path, "w") as tar:
            for name, content in self.files.items():
                member = tarfile.TarInfo(name)
                if isinstance(content, str):
                    member.type, member.linkname = tarfile.SYMTYPE, content
                    tar.addfile(member)
                else:
                    member.size = len(content)
                    tar.addfile(member, io.BytesIO(content))


def layer(name: str, content: bytes) -> bytes:
    """One layer: a tar of one file, so that it looks like one."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        member = tarfile.TarInfo(name)
        member.size = len(content)
        tar.addfile(member, io.BytesIO(content))
    return out.getvalue()


def digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def config_of(layers: list[bytes]) -> bytes:
    return json.dumps(
        {"architecture": "amd64", "rootfs": {"diff_ids": [digest(one) for one in layers]}}
    ).encode()


def classic(layers: list[bytes]) -> Saved:
    """As Docker 20.10 saves: a folder per layer, a layer that comes twice as a link."""
    config = config_of(layers)
    files: dict[str, bytes | str] = {}
    names = []
    for number, one in enumerate(layers):
        first = layers.index(one)
        names.append(f"{number:064x}/layer.tar")
        files[f"{number:064x}/VERSION"] = b"1.0"
        files[names[-1]] = one if first == number else f"../{first:064x}/layer.tar"
    name = f"{digest(config)[7:]}.json"
    files[name] = config
    files["manifest.json"] = json.dumps([{"Config": name, "Layers": names}]).encode()
    return Saved(layers, config, files)


def modern(layers: list[bytes], *, packed: bool = False) -> Saved:
    """As Docker 25 saves; `packed`: from the containerd store, whose layers are compressed."""
    config = config_of(layers)
    blobs = [gzip.compress(one, mtime=0) if packed else one for one in layers]
    files: dict[str, bytes | str] = {f"blobs/sha256/{digest(b)[7:]}": b for b in [*blobs, config]}
    described = {
        "Config": f"blobs/sha256/{digest(config)[7:]}",
        "Layers": [f"blobs/sha256/{digest(one)[7:]}" for one in blobs],
    }
    index = json.dumps({"manifests": []}).encode()
    papers = json.dumps({"architecture": "unknown", "rootfs": {"diff_ids": []}}).encode()
    name = f"blobs/sha256/{digest(papers)[7:]}"
    files |= {
        name: papers,
        f"blobs/sha256/{digest(index)[7:]}": index,
        "index.json": index,
        "manifest.json": json.dumps([{"Config": name, "Layers": []}, described]).encode(),
        "oci-layout": b'{"imageLayoutVersion": "1.0.0"}',
    }
    return Saved(layers, config, files)


LAYERS = [layer("etc/a", os.urandom(30_000)), layer("opt/b", b"zeros" * 9000)]
OTHER = layer("opt/c", b"the code")


@pytest.fixture
def there() -> Iterator[FakeRegistry]:
    with fake_registry() as registry:
        yield registry


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A `docker` whose `save` gives the file that this returns, and fails where there is none."""
    saved, docker = tmp_path / "saved.tar", tmp_path / "bin/docker"
    docker.parent.mkdir()
    docker.write_text(
        "#!/bin/sh\n"
        '[ "$1 $2" = "save sha256:id" ] || { echo "docker $*?" >&2; exit 9; }\n'
        f"exec cat {saved}\n"
    )
    docker.chmod(docker.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{docker.parent}:{os.environ['PATH']}")
    monkeypatch.setattr(saved_image, "BLOCK", 10_000)
    return saved


def push(there: FakeRegistry, folder: Path, tag: str = "train-1") -> Any:
    registry = Registry(there.url, "homeport", Login(), sleep=lambda seconds: None)
    found = push_saved(registry, "sha256:id", tag, 100_000, folder)
    manifest = registry.manifest(tag)
    assert found == digest(there.manifests[tag])
    return manifest


@pytest.mark.parametrize(
    "saved",
    [classic(LAYERS), modern(LAYERS), modern(LAYERS, packed=True)],
    ids=["classic", "plain blobs", "compressed blobs"],
)
def test_what_is_pulled_is_what_was_saved(
    saved: Saved, there: FakeRegistry, engine: Path, tmp_path: Path
) -> None:
    saved.write(engine)
    manifest = push(there, tmp_path / "memory")
    assert there.blobs[manifest["config"]["digest"]] == saved.config
    assert manifest["config"]["size"] == len(saved.config)
    pulled = [there.blobs[one["digest"]] for one in manifest["layers"]]
    assert [gzip.decompress(one) for one in pulled] == saved.layers
    assert [one["size"] for one in manifest["layers"]] == [len(one) for one in pulled]
    assert len(there.blobs) == len(saved.layers) + 1
    assert {path.name for path in (tmp_path / "memory").iterdir()} == {"layers.json"}


def test_the_digest_depends_on_the_content_only(
    there: FakeRegistry, engine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    classic(LAYERS).write(engine)
    push(there, tmp_path / "one", "train-1")
    monkeypatch.setattr("os.cpu_count", lambda: 7)
    there.blobs.clear()
    modern(LAYERS).write(engine)
    push(there, tmp_path / "two", "train-2")
    assert there.manifests["train-1"] == there.manifests["train-2"]


def test_only_a_layer_that_is_new_is_compressed_and_sent(
    there: FakeRegistry,
    engine: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    classic(LAYERS).write(engine)
    push(there, tmp_path / "memory")
    before = set(there.blobs)
    compressed = list[str]()
    compress = saved_image._compress

    def noted(source: Path, target: Path) -> tuple[str, int]:
        compressed.append(source.name)
        return compress(source, target)

    monkeypatch.setattr(saved_image, "_compress", noted)
    classic([*LAYERS, OTHER]).write(engine)
    manifest = push(there, tmp_path / "memory", "train-2")
    assert compressed == ["layer-2"]
    assert set(there.blobs) - before == {
        manifest["layers"][2]["digest"],
        manifest["config"]["digest"],
    }
    assert capsys.readouterr().err.count("there already") == 2


def test_a_layer_that_is_there_and_named_by_its_hash_is_not_even_written(
    there: FakeRegistry, engine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    modern(LAYERS).write(engine)
    push(there, tmp_path / "memory")
    written = list[str]()
    spool = saved_image._spool

    def noted(head: bytes, file: IO[bytes], path: Path) -> tuple[int, str]:
        written.append(path.name)
        return spool(head, file, path)

    monkeypatch.setattr(saved_image, "_spool", noted)
    modern([*LAYERS, OTHER]).write(engine)
    push(there, tmp_path / "memory", "train-2")
    assert written == ["layer-2"]


def test_what_this_machine_remembers_counts_only_while_the_registry_has_it(
    there: FakeRegistry, engine: Path, tmp_path: Path
) -> None:
    modern(LAYERS).write(engine)
    push(there, tmp_path / "memory")
    before = dict(there.blobs)
    there.blobs.clear()
    push(there, tmp_path / "memory")
    assert there.blobs == before


def test_a_layer_that_comes_twice_goes_once(
    there: FakeRegistry, engine: Path, tmp_path: Path
) -> None:
    classic([OTHER, LAYERS[0], OTHER]).write(engine)
    first, _, third = push(there, tmp_path / "memory")["layers"]
    assert first == third
    assert len(there.blobs) == 3


def test_a_layer_with_a_file_named_like_json_is_a_layer(
    there: FakeRegistry, engine: Path, tmp_path: Path
) -> None:
    saved = modern([layer('{"name"', b"content")])
    saved.write(engine)
    assert len(push(there, tmp_path / "memory")["layers"]) == 1


def test_a_layer_that_is_not_the_images_is_refused(
    there: FakeRegistry, engine: Path, tmp_path: Path
) -> None:
    saved = classic(LAYERS)
    saved.files[f"{0:064x}/layer.tar"] = OTHER
    saved.write(engine)
    with pytest.raises(MachineError, match="its store is damaged"):
        push(there, tmp_path / "memory")
    assert not there.manifests


def test_zstd_layers_are_refused_with_the_way_round(
    there: FakeRegistry, engine: Path, tmp_path: Path
) -> None:
    saved = modern(LAYERS)
    saved.files["blobs/sha256/aa"] = saved_image.ZSTD + b"rest"
    saved.write(engine)
    with pytest.raises(MachineError, match="PUSH=build"):
        push(there, tmp_path / "memory")


def test_an_engine_that_refuses_is_quoted(
    there: FakeRegistry, engine: Path, tmp_path: Path
) -> None:
    with pytest.raises(MachineError, match=r"does not give sha256:id: .*saved\.tar"):
        push(there, tmp_path / "memory")


def test_a_registry_that_fails_ends_the_push_and_leaves_no_piece(
    there: FakeRegistry, engine: Path, tmp_path: Path
) -> None:
    classic(LAYERS).write(engine)
    there.refuses = [400]
    with pytest.raises(CloudError):
        push(there, tmp_path / "memory")
    assert {path.name for path in (tmp_path / "memory").iterdir()} == {"layers.json"}


def test_a_stream_that_ends_early_is_no_image(
    there: FakeRegistry, engine: Path, tmp_path: Path
) -> None:
    saved = classic(LAYERS)
    del saved.files["manifest.json"]
    saved.write(engine)
    with pytest.raises(MachineError, match="stopped in the middle"):
        push(there, tmp_path / "memory")


def test_a_full_disk_is_said_before_anything_is_sent(
    there: FakeRegistry, engine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    classic(LAYERS).write(engine)
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=99_999))
    with pytest.raises(MachineError, match="docker system prune"):
        push(there, tmp_path / "memory")
    assert not there.counts
