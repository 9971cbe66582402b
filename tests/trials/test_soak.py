"""`make soak`, short: the real server under load, killed, and stopped; every row met."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.serve.conftest import save_model, save_tokenizer
from trials import soak, soak_faults

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_a_short_soak_meets_every_row(tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    save_model(model, save_tokenizer(model))
    words = ("--folder", tmp_path / "soak", "--engine", "transformers", "--no-starts")
    done = subprocess.run(
        [sys.executable, "-m", "trials.soak", "--model", model, *words],
        cwd=ROOT,
        env={**os.environ, "MINUTES": "0.15", "CLIENTS": "8"},
        capture_output=True,
        text=True,
    )
    assert done.returncode in (0, 4), done.stderr
    rows = {row["name"]: row for row in json.loads((tmp_path / "soak.json").read_text())}
    for path in ("/", "/livez"):  # other tests run beside this one, so no more than a bound
        assert rows.pop(f"GET {path}, p99")["value"] < 1000
    assert [row for row in rows.values() if row["met"] is False] == [], done.stdout
    assert sum(row["met"] is True for row in rows.values()) >= 20
    assert "a gzip bomb" in done.stdout
    head, *samples = (tmp_path / "soak" / "memory.csv").read_text().splitlines()
    assert head.startswith("seconds,")
    assert len(samples) > 3


@pytest.mark.slow
def test_a_server_whose_log_has_no_disk_goes_on_answering(tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    save_model(model, save_tokenizer(model))
    (start,) = [one for one in soak_faults.STARTS if one.name == "disk full: the log"]
    (fault,) = soak_faults.starts(model, tmp_path, [start], engine="transformers")
    assert fault.met, fault.said


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--model", "/nowhere"), "/nowhere has no model; train one with `make local-train`"),
        (("--minutes", "0", "--model", "x"), "MINUTES"),
        (("--minutes", "ten"), "invalid float value: 'ten'"),
    ],
)
def test_a_mistake_is_one_sentence_and_exit_code_2(
    words: tuple[str, ...], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        code: object = soak.main(words, {})
    except SystemExit as exited:  # argparse's own
        code = exited.code
    assert code == 2
    assert sentence in capsys.readouterr().err
