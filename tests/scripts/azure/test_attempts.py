"""One job comes of it, whoever asks how often; and none works longer than it may."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from scripts.azure import attempts, client, history, jobs
from scripts.azure.client import Cloud
from scripts.azure.jobs import Job
from scripts.azure.routes import Work
from scripts.errors import CloudError
from tests.scripts.azure.stand_ins import cloud_of
from tests.tree import ROOT
from train import recipe as recipes

PATH = ROOT / "recipes/tiny-ja.yaml"
AGAIN = "make cloud-train RECIPE=r"


class Service:
    """Jobs by name, each with the states that it goes through, one at each look."""

    def __init__(self, **states: list[str]) -> None:
        self.states = states
        self.submitted: list[str] = []
        self.canceled: list[str] = []
        self.hours = 0.0
        """For how long a job has worked."""
        self.error = "out of memory"

    @property
    def cloud(self) -> Cloud:
        ml = SimpleNamespace(jobs=SimpleNamespace(begin_cancel=self.cancel))
        return cloud_of(get=self.get, ml=ml)

    def get(self, path: str, **_: Any) -> Any:
        if path.endswith("/details"):
            return self._details(path.split("/")[-2])
        name = path.rpartition("/")[2]
        if name not in self.states:
            raise client.NotFound("none", 404)
        return {"name": name, "properties": {"status": self.states[name][0], "jobType": "Pipeline"}}

    def _details(self, name: str) -> dict[str, Any]:
        left = self.states[name]
        status = left.pop(0) if len(left) > 1 else left[0]
        began = datetime.now(UTC) - timedelta(hours=self.hours)
        return {
            "status": status,
            "startTimeUtc": began.isoformat(),
            "error": {"error": {"message": self.error}} if status == "Failed" else None,
        }

    def cancel(self, name: str) -> Any:
        self.canceled.append(name)
        self.states[name] = ["CancelRequested", "Canceled"]
        return SimpleNamespace(result=lambda: None)

    def submit(self, name: str) -> Job:
        self.submitted.append(name)
        self.states[name or "chosen"] = ["Queued", "Running", "Running", "Completed"]
        return jobs.find(self.cloud, name or "chosen")

    def go(self, base: str = "base", **more: Any) -> attempts.Attempted:
        recipe = recipes.load(PATH, environ={})
        work = Work(cloud=self.cloud, recipe=recipe, path=Path("r"), again=AGAIN)
        return attempts.go(work, base, self.submit, **{"detach": False, **more})


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "LOOK_SECONDS", 0.0)


def test_a_completed_job_is_taken_and_nothing_is_submitted(
    capsys: pytest.CaptureFixture[str],
) -> None:
    service = Service(base=["Completed"])
    done = service.go()
    assert (done.job.name, done.end and done.end.status) == ("base", "Completed")
    assert service.submitted == []
    assert "base has done this already" in capsys.readouterr().err


def test_a_running_job_is_followed_and_nothing_is_submitted(
    capsys: pytest.CaptureFixture[str],
) -> None:
    service = Service(base=["Running", "Running", "Completed"])
    done = service.go()
    assert done.end and done.end.status == "Completed"
    assert service.submitted == []
    assert "base is Running already; nothing is submitted" in capsys.readouterr().err


def test_a_failed_job_says_why_and_the_next_attempt_is_submitted(
    capsys: pytest.CaptureFixture[str],
) -> None:
    service = Service(**{"base": ["Failed"], "base-2": ["Canceled"]})
    assert service.go().job.name == "base-3"
    assert service.submitted == ["base-3"]
    assert "base-2 Canceled: somebody cancelled it" in capsys.readouterr().err

    service = Service(base=["Failed"])
    service.go()
    assert service.submitted == ["base-2"]
    assert "base Failed: out of memory" in capsys.readouterr().err


def test_a_name_that_is_not_known_yet_is_left_to_who_submits() -> None:
    service = Service()
    assert service.go(base="").job.name == "chosen"
    assert service.submitted == [""]


def test_a_job_that_does_not_complete_is_an_error_with_the_command() -> None:
    service = Service(base=["Running", "Failed"])
    with pytest.raises(CloudError, match=f"job base Failed: out of memory Next: {AGAIN} makes"):
        service.go()


def test_each_look_is_handed_on() -> None:
    seen: list[str] = []
    Service(base=["Running", "Running", "Completed"]).go(look=lambda now: seen.append(now.status))
    assert seen == ["Running", "Running", "Completed"]


def test_a_job_that_works_longer_than_it_may_is_cancelled_and_the_limit_is_named(
    capsys: pytest.CaptureFixture[str],
) -> None:
    service = Service(base=["Running"])
    service.hours = 2.1
    with pytest.raises(CloudError, match=r"longer than the 2 h of cloud.max_hours. Next: raise"):
        service.go(max_hours=2)
    assert service.canceled == ["base"]
    assert "base works for longer than 2 h (cloud.max_hours); cancelling it" in (
        capsys.readouterr().err
    )


def test_within_its_limit_a_job_is_left_alone() -> None:
    service = Service()
    service.hours = 1.9
    assert service.go(max_hours=2).end
    assert service.canceled == []


def test_who_does_not_follow_is_told_that_nothing_ends_the_job(
    capsys: pytest.CaptureFixture[str],
) -> None:
    service = Service()
    assert service.go(detach=True, max_hours=2).end is None
    assert "only who follows it ends it after 2 h (cloud.max_hours)" in capsys.readouterr().err
    service = Service()
    service.go(detach=True)
    assert "only who follows" not in capsys.readouterr().err


def test_ctrl_c_says_the_same_and_leaves_the_job(capsys: pytest.CaptureFixture[str]) -> None:
    def interrupt(now: history.Details) -> None:
        raise KeyboardInterrupt

    service = Service()
    with pytest.raises(SystemExit):
        service.go(max_hours=2, look=interrupt)
    told = capsys.readouterr().err
    assert "only who follows it ends it after 2 h" in told
    assert f"follow: {AGAIN}" in told
    assert service.canceled == []


def test_cancelling_the_recipes_job_tells_its_end() -> None:
    service = Service(base=["Running"])
    recipe = recipes.load(PATH, environ={})
    found = attempts.cancel(service.cloud, recipe, "base")
    assert (found["job"], found["status"]) == ("base", "Canceled")
