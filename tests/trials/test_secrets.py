"""Planted secrets and prompts do not come out of training and serving on this machine."""

from pathlib import Path

import pytest

from trials.secrets import ALLOWED, trial


@pytest.mark.slow
def test_no_planted_secret_comes_out_of_training_serving_asking_and_failing(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    results = trial(tmp_path, ["local"])
    assert [result.name for result in results if result.met is False] == [], capfd.readouterr().err
    figures = {result.name.partition(" (")[0]: result.value for result in results}
    assert figures["secrets planted"] >= 8
    # had the marks not been planted, nothing could be found either
    for reason in ("the user's own settings", "the user exported it", "the curl that make ask"):
        assert [count for name, count in figures.items() if reason in name and count > 0], reason
    assert len(ALLOWED) <= 10
