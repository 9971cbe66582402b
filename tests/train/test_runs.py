from pathlib import Path

import pytest

from train import runs


def always(folder: Path) -> bool:
    return True


def test_an_unfinished_run_of_the_same_recipe_is_gone_on_with(tmp_path: Path) -> None:
    with runs.opened(tmp_path, "name: a\n", always) as first:
        pass
    with runs.opened(tmp_path, "name: a\n", always) as second:
        assert second == first
        assert (second / "recipe.yaml").read_text() == "name: a\n"


@pytest.mark.parametrize(
    ("recipe", "fits", "fresh", "reason"),
    [
        ("name: b\n", True, False, "its recipe differs"),
        ("name: a\n", False, False, "its data has changed"),
        ("name: a\n", True, True, ""),
    ],
)
def test_a_new_run_is_begun_where_the_old_one_does_not_fit_and_the_reason_is_said(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    recipe: str,
    fits: bool,
    fresh: bool,
    reason: str,
) -> None:
    with runs.opened(tmp_path, "name: a\n", always) as first:
        pass
    with (
        caplog.at_level("INFO"),
        runs.opened(tmp_path, recipe, lambda folder: fits, fresh=fresh) as second,
    ):
        assert second != first
    assert reason in caplog.text


def test_a_finished_run_is_never_worked_in_again(tmp_path: Path) -> None:
    with runs.opened(tmp_path, "name: a\n", always) as first:
        runs.write_json(first / "metrics.json", {})
        runs.point_latest(first)
    with runs.opened(tmp_path, "name: a\n", always) as second:
        assert second != first
    assert (tmp_path / "latest").resolve() == first


def test_two_processes_never_work_in_one_folder(tmp_path: Path) -> None:
    with runs.opened(tmp_path, "name: a\n", always) as first:
        with runs.opened(tmp_path, "name: a\n", always) as second:
            assert second != first
        with runs.opened(tmp_path, "name: a\n", always) as third:
            assert third == second


def test_latest_moves_even_over_what_a_lost_machine_left(tmp_path: Path) -> None:
    for name in ("1", "2"):
        (tmp_path / name).mkdir()
    (tmp_path / ".latest-2").symlink_to("1")
    runs.point_latest(tmp_path / "2")
    assert (tmp_path / "latest").resolve().name == "2"


def test_what_is_not_written_yet_reads_as_nothing(tmp_path: Path) -> None:
    assert runs.read_json(tmp_path / "x.json") is None
    runs.write_json(tmp_path / "x.json", {"語": 1})
    assert runs.read_json(tmp_path / "x.json") == {"語": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["x.json"]
