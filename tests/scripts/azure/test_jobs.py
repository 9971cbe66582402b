import re
import signal
import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from emulator.faults import Fault
from emulator.server import Server
from scripts.azure import assets, client, history, jobs, specs
from scripts.azure.client import Cloud
from scripts.azure.history import Details
from scripts.azure.jobs import Job
from scripts.azure.texts import moment
from scripts.errors import CloudError
from tests import local_azure as local
from tests.scripts.azure.stand_ins import cloud_of, requests_of

IMAGE = f"homeportrehearsal.azurecr.io/homeport/train@sha256:{'a' * 64}"


@pytest.fixture(scope="module")
def cloud(local_azure: Server) -> Iterator[Cloud]:
    with local.environment(local_azure):
        yield client.connect()


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look at jobs more often than at real ones."""
    monkeypatch.setattr(history, "LOOK_SECONDS", 0.2)


def command(cloud: Cloud, name: str, text: str) -> Any:
    """A job that runs `text` in a shell."""
    from azure.ai.ml import command as make

    return make(
        name=name,
        command=text,
        environment=assets.environment(cloud, "train", IMAGE),
        resources={"instance_type": "Standard_DS3_v2", "instance_count": 1},
        tags={"homeport": "1", "homeport-recipe": "shell"},
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    "fault",
    [
        None,
        Fault(kind="lost_reply", method="PUT", path="/jobs/"),
        Fault(kind="reset", method="PUT", path="/jobs/"),
        Fault(kind="status", method="PUT", path="/jobs/", status=429, retry_after=0.2),
        Fault(kind="status", method="PUT", path="/jobs/", status=503, retry_after=0.2),
    ],
    ids=lambda fault: f"{fault.kind} {fault.status}" if fault else "no fault",
)
def test_one_job_comes_of_it_whatever_happens_to_the_request(
    local_azure: Server, cloud: Cloud, fault: Fault | None, request: pytest.FixtureRequest
) -> None:
    name = f"once-{request.node.callspec.id.replace(' ', '-').replace('_', '-')}"
    if fault:
        local_azure.azure.faults.add(fault)
    job = jobs.submit(cloud, command(cloud, name, "true"))
    assert job.name == name
    sent = requests_of(local_azure, "PUT", f"/jobs/{name}")
    assert len(sent) == (1 if fault is None or fault.kind == "lost_reply" else 2)
    assert [j.name for j in jobs.attempts(cloud, name)] == [name]


@pytest.mark.slow
def test_a_job_that_is_there_is_found_and_not_sent_again(local_azure: Server, cloud: Cloud) -> None:
    jobs.submit(cloud, command(cloud, "there", "true"))
    assert jobs.submit(cloud, command(cloud, "there", "true")).name == "there"
    assert len(requests_of(local_azure, "PUT", "/jobs/there")) == 1


@pytest.mark.slow
def test_lines_come_while_the_job_runs_and_the_end_says_state_time_and_cost(
    cloud: Cloud, capsys: pytest.CaptureFixture[str]
) -> None:
    jobs.submit(cloud, command(cloud, "speaks", "echo 首都; sleep 3; echo キャンベラ"))
    seen: list[tuple[str, str]] = []
    end = jobs.follow(cloud, "speaks", lambda line: seen.append((line, status(cloud, "speaks"))))
    assert [line for line, _ in seen if line in ("首都", "キャンベラ")] == ["首都", "キャンベラ"]
    assert dict(seen)["首都"] == "Running"
    assert end.status == "Completed"
    assert 2 < end.hours * 3600 < 30
    told = capsys.readouterr().err
    assert re.search(r"speaks Completed after \d+ s of work; it cost at most \$0\.0\d+ ", told)


def status(cloud: Cloud, name: str) -> str:
    return jobs.find(cloud, name).status


@pytest.mark.slow
def test_a_failure_is_told_by_its_known_cause_and_by_what_the_program_said(cloud: Cloud) -> None:
    jobs.submit(cloud, command(cloud, "fails", "echo 'error: rows.jsonl is bad.' >&2; exit 2"))
    end = jobs.follow(cloud, "fails", lambda line: None)
    assert end.status == "Failed"
    assert "exited with status code 2" in end.error
    why = jobs.why(cloud, jobs.find(cloud, "fails"), end)
    assert "train refused its input (exit code 2)" in why
    assert why.endswith("It said: rows.jsonl is bad.")


@pytest.mark.slow
def test_cancelling_waits_for_the_end_and_twice_is_as_good_as_once(cloud: Cloud) -> None:
    jobs.submit(cloud, command(cloud, "cancelled", "sleep 60"))
    assert jobs.cancel(cloud, "cancelled").status == "Canceled"
    assert jobs.cancel(cloud, "cancelled").status == "Canceled"


@pytest.mark.slow
def test_ctrl_c_leaves_the_job_alone_and_says_how_to_come_back(
    cloud: Cloud, capsys: pytest.CaptureFixture[str]
) -> None:
    jobs.submit(cloud, command(cloud, "left", "echo begun; sleep 30"))

    def interrupt(line: str) -> None:
        signal.raise_signal(signal.SIGINT)

    with pytest.raises(SystemExit) as ended:
        jobs.follow(cloud, "left", interrupt, command="make cloud-train RECIPE=r")
    assert ended.value.code == 130
    told = capsys.readouterr().err
    assert "make cloud-train RECIPE=r" in told
    assert "make cloud-cancel JOB=left" in told
    assert not jobs.find(cloud, "left").over
    jobs.cancel(cloud, "left")


@pytest.mark.slow
def test_following_survives_a_network_that_breaks(local_azure: Server, cloud: Cloud) -> None:
    jobs.submit(cloud, command(cloud, "broken", "for i in 1 2 3; do echo line $i; sleep 1; done"))
    for kind in ("reset", "lost_reply"):
        local_azure.azure.faults.add(Fault(kind=kind, method="GET", path="runs/broken/details"))
    local_azure.azure.faults.add(
        Fault(kind="status", path="runs/broken/details", status=503, retry_after=0.2)
    )
    lines: list[str] = []
    assert jobs.follow(cloud, "broken", lines.append).status == "Completed"
    assert [line for line in lines if line.startswith("line")] == ["line 1", "line 2", "line 3"]


@pytest.mark.slow
def test_our_jobs_are_listed_newest_first_and_by_recipe(cloud: Cloud) -> None:
    for name in ("older", "newer"):
        jobs.submit(cloud, command(cloud, name, "true"))
    listed = [job.name for job in jobs.newest_first(cloud, "shell")]
    assert listed.index("newer") < listed.index("older")
    assert jobs.newest_first(cloud, "another recipe") == []
    assert jobs.named_or_newest(cloud, "older", "shell").name == "older"
    with pytest.raises(CloudError, match="recipe none has no job"):
        jobs.named_or_newest(cloud, "", "none")
    with pytest.raises(CloudError, match="there is no job nowhere"):
        jobs.named_or_newest(cloud, "nowhere", "")


@pytest.mark.slow
def test_two_at_once_make_one_job(local_azure: Server, cloud: Cloud) -> None:
    job = command(cloud, "twins", "true")
    threads = [threading.Thread(target=jobs.submit, args=(cloud, job)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [j.name for j in jobs.attempts(cloud, "twins")] == ["twins"]


def a_job(**changed: Any) -> Job:
    values: dict[str, Any] = {
        "name": "j",
        "status": "Completed",
        "tags": {},
        "created": "2026-01-01T00:00:00Z",
        "instance": "Standard_NC40ads_H100_v5",
        "nodes": 2,
        "spot": False,
        "studio": "",
    }
    return Job(**{**values, **changed})


def ended(hours: float) -> Details:
    end = moment(f"2026-01-01T{int(hours):02}:00:00Z")
    start = moment("2026-01-01T01:00:00Z")
    return Details(status="Completed", logs={}, error="", started=start, ended=end)


def test_the_cost_counts_from_the_submission_on_all_machines() -> None:
    from scripts.azure import prices

    price = prices.find("Standard_NC40ads_H100_v5").price()
    assert a_job().cost_at_most(ended(3)) == pytest.approx(2 * 3 * price)
    assert a_job(instance="Standard_Unknown").cost_at_most(ended(3)) is None
    assert "of unknown price" in jobs.ended(a_job(instance=""), ended(3))


def test_attempts_are_counted_until_a_name_is_free() -> None:
    there = {"base": "Failed", "base-2": "Canceled", "base-4": "Completed"}

    def get(path: str, **_: Any) -> Any:
        name = path.rpartition("/")[2]
        if name not in there:
            raise client.NotFound("none", 404)
        return {"name": name, "properties": {"status": there[name]}}

    found = jobs.attempts(cloud_of(get=get), "base")
    assert [(job.name, job.status) for job in found] == [("base", "Failed"), ("base-2", "Canceled")]


@pytest.mark.parametrize(("there", "made"), [(True, 0), (False, 1)])
def test_a_cluster_is_made_only_where_it_is_not(
    there: bool, made: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[Any] = []

    def get(name: str) -> None:
        if not there:
            raise client.NotFound("none", 404)

    def begin(entity: Any) -> Any:
        calls.append(entity)
        return SimpleNamespace(result=lambda: None)

    monkeypatch.setattr(specs, "compute", lambda recipe, tags: "entity")
    compute = SimpleNamespace(get=get, begin_create_or_update=begin)
    recipe: Any = SimpleNamespace(cloud=SimpleNamespace(compute="cluster"))
    jobs.ensure_compute(cloud_of(ml=SimpleNamespace(compute=compute)), recipe, {})
    assert len(calls) == made
