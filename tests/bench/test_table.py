import json
import os
import re
import sys
from pathlib import Path

import pytest

from bench import __main__ as everything
from bench import table
from bench.table import ChildError, Result, child
from tests.tree import ROOT

RESULTS = [
    Result(
        name="ours",
        value=6117.25,
        unit="tokens/s",
        baseline="theirs",
        ratio=3.064,
        target=">= 3x",
        met=True,
    ),
    Result(name="theirs", value=1996.5, unit="tokens/s"),
    Result(name="loss", value=5.33712, unit="nats", target="within 0.5%", met=False),
]


def test_the_table_is_aligned_and_says_which_targets_were_met() -> None:
    assert table.table(RESULTS).splitlines() == [
        "        value  unit      ratio            target",
        "ours    6,117  tokens/s  3.06x of theirs  >= 3x met",
        "theirs  1,996  tokens/s",
        "loss    5.337  nats                       within 0.5% MISSED",
    ]


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0"), (12.0, "12"), (0.5, "0.5"), (123.456, "123.5"), (0.00042, "0.000420")],
)
def test_numbers_keep_the_digits_that_count(value: float, text: str) -> None:
    assert table.table([Result(name="n", value=value, unit="s")]).splitlines()[1].split()[1] == text


def test_the_results_are_written_as_json_beside_the_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    table.finish("speed", RESULTS)
    written = json.loads((tmp_path / "outputs/bench/speed.json").read_text(encoding="utf-8"))
    assert written[0] == {
        "name": "ours",
        "value": 6117.25,
        "unit": "tokens/s",
        "baseline": "theirs",
        "ratio": 3.064,
        "target": ">= 3x",
        "met": True,
    }
    assert [entry["met"] for entry in written] == [True, None, False]
    assert os.listdir(tmp_path / "outputs/bench") == ["speed.json"]
    assert capsys.readouterr().out.startswith(table.table(RESULTS))


def test_a_child_returns_its_last_line_and_its_own_peak() -> None:
    code = """
import json, os, sys
held = bytearray(200_000_000)
print("something that a library says")
print(json.dumps({"args": sys.argv[1:], "told": os.environ["TOLD"]}))
"""
    result, peak = child(code, ["a", "b c"], {"TOLD": "yes"})
    assert result == {"args": ["a", "b c"], "told": "yes"}
    assert peak > 200_000_000


def test_a_child_may_be_a_module() -> None:
    with pytest.raises(ChildError, match=r"^this ended with 0, no result"):
        child("this")  # a module that prints a poem, and no object


def test_a_child_that_fails_is_an_error_with_its_last_words() -> None:
    with pytest.raises(ChildError, match=r"(?s)code ended with 3.*first.*last"):
        child("import sys; print('first\\nlast', file=sys.stderr); sys.exit(3)")


def test_every_bench_of_the_makefile_has_its_module_and_is_part_of_all() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = re.findall(r"^bench-(\w+): runtime ## .+\n\t@\$\(RUN\) bench\.(\w+)$", makefile, re.M)
    assert targets
    assert all(target == module for target, module in targets)
    assert sorted(module for _, module in targets) == sorted(everything.BENCHES)
    for _, module in targets:
        assert (ROOT / "bench" / f"{module}.py").is_file(), module


def test_importing_a_bench_imports_nothing_heavy() -> None:
    # a child's peak memory is counted from its parent's size on
    loaded, _ = child(
        "import bench.train, json, sys; print(json.dumps({'modules': sorted(sys.modules)}))"
    )
    assert not {"torch", "transformers", "datasets", "pyarrow"} & set(loaded["modules"])


def test_all_benches_run_one_after_the_other_and_the_first_failure_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bench").mkdir()
    for name, code in (("one", 0), ("two", 3), ("three", 4)):
        path = tmp_path / "bench" / f"{name}.py"
        path.write_text(f"open('{name}', 'w').close(); raise SystemExit({code})")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(everything, "BENCHES", ("one", "two", "three"))
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    assert everything.main() == 3
    assert {"one", "two", "three"} < set(os.listdir(tmp_path))
