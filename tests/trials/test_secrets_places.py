"""A mark is found in every kind of place, and what may be there is told from what may not."""

import gzip
import io
import os
import sqlite3
import subprocess
import sys
import tarfile
import time
import zipfile
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from trials import secrets
from trials.secrets_markers import Finder, new_tag, plant
from trials.secrets_places import Finding, Searched, Watch, in_folder, label

TAG = new_tag()
VALUE = plant(TAG, "HF_TOKEN").value
FINDER = Finder(TAG, ["HF_TOKEN"])


def archive(files: dict[str, bytes], mode: str = "w") -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode) as tar:  # type: ignore[call-overload]
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return out.getvalue()


def zipped(path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as made:
        made.writestr("inside.txt", f"x {VALUE}")


def database(path: Path) -> None:
    with closing(sqlite3.connect(path)) as store, store:
        store.execute("CREATE TABLE params (value TEXT)")
        store.execute("INSERT INTO params VALUES (?)", (VALUE,))


PLACES: dict[str, Callable[[Path], object]] = {
    "a log": lambda path: path.write_text(f"2026 GET /?key={VALUE} 200"),
    "a gzip file": lambda path: path.write_bytes(gzip.compress(VALUE.encode())),
    "a zip file": zipped,
    "a tar file": lambda path: path.write_bytes(archive({"a/b": VALUE.encode()})),
    "a gzip tar file": lambda path: path.write_bytes(archive({"a": VALUE.encode()}, "w:gz")),
    "a name in a tar file": lambda path: path.write_bytes(archive({f"x-{TAG}": b""})),
    "a layer in an image": lambda path: path.write_bytes(
        archive({"manifest.json": b"[]", "ab/layer.tar": archive({"etc/x": VALUE.encode()})})
    ),
    "a packed layer in an image": lambda path: path.write_bytes(
        archive({"blobs/sha256/ab": gzip.compress(archive({"etc/x": VALUE.encode()}))})
    ),
    "an image's config": lambda path: path.write_bytes(
        archive({"ab.json": f'{{"config":{{"Env":["HF_TOKEN={VALUE}"]}}}}'.encode()})
    ),
    "a database": database,
    "a link": lambda path: path.symlink_to(f"/nowhere/{VALUE.replace('/', '')}"),
    "a folder's name": lambda path: (path / TAG).mkdir(parents=True),
}


@pytest.mark.parametrize("put", PLACES.values(), ids=list(PLACES))
def test_a_mark_is_found_in(put: Callable[[Path], object], tmp_path: Path) -> None:
    (tmp_path / "else").write_text("nothing")
    put(tmp_path / "here")
    searched = in_folder(tmp_path, FINDER)
    assert {finding.where.partition("!")[0].partition("/")[0] for finding in searched.findings} == {
        "here"
    }
    assert searched.files >= 1


def test_skipped_folders_and_broken_archives_do_not_end_the_search(tmp_path: Path) -> None:
    (tmp_path / "skipped").mkdir()
    (tmp_path / "skipped/x").write_text(VALUE)
    (tmp_path / "broken.gz").write_bytes(gzip.compress(b"x" * 5000)[:40])
    (tmp_path / "broken.zip").write_bytes(b"PK\x03\x04" + b"x" * 50)
    (tmp_path / "z").write_text(VALUE)
    found = in_folder(tmp_path, FINDER, skip=("skipped",)).findings
    assert [finding.where for finding in found] == ["z"]


def test_the_command_line_and_the_environment_of_a_process_are_seen() -> None:
    sleeps = [sys.executable, "-c", "import time; time.sleep(0.5)"]
    with Watch() as watch:
        time.sleep(0.05)
        subprocess.run([*sleeps, f"--token={VALUE}"], check=True)
        subprocess.run(sleeps, env={**os.environ, "HF_TOKEN": VALUE}, check=True)
    python = label(sys.executable.encode() + b"\0")
    found = {finding.where for finding in watch.processes(FINDER).findings}
    assert found == {f"{python}: its command line", f"{python}: variable HF_TOKEN"}


@pytest.mark.parametrize(
    ("line", "name"),
    [
        (b"/x/.venv/bin/python\0-m\0scripts.ask\0", "python -m scripts.ask"),
        (b"python3\0-u\0/x/run.py\0--flag\0", "python3 run.py"),
        (b"docker\0compose\0--progress\0plain\0run\0train\0", "docker compose plain run"),
        (b"make\0-s\0ask\0", "make"),
    ],
)
def test_a_process_is_called_by_what_it_runs(line: bytes, name: str) -> None:
    assert label(line) == name


def test_only_what_is_allowed_by_name_and_place_is_no_finding(
    capsys: pytest.CaptureFixture[str],
) -> None:
    fine = Finding("HF_TOKEN of .env", ".env", "as it is")
    wrong = [
        Finding("HF_TOKEN of .env", "outputs/x.log", "as it is"),
        Finding("HF_TOKEN of .env", "sub/.env", "as it is"),
        Finding("the prompt", ".env", "as it is"),
    ]
    allowed: Counter[str] = Counter()
    row = secrets._row(secrets.FILES, Searched([fine, *wrong], 4, 100), allowed)
    assert (row.value, row.met) == (3, False)
    assert allowed.total() == 1
    said = capsys.readouterr().err
    assert said.count("FOUND") == 3
    row = secrets._row("processes", Searched([fine], 1, 1), allowed)
    assert row.met is False  # there it may not be
