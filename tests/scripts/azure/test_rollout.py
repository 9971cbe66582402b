"""Rollouts on the local Azure: what a new deployment goes through, and what a failed one leaves."""

import os
import re
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from emulator.faults import Fault
from scripts.azure import endpoints
from tests.scripts.azure.stage import ENDPOINT, Stage, stage
from tests.waiting import until

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with stage(tmp_path_factory.mktemp("stage")) as staged:
        for version in ("1", "2"):
            staged.register(version)
        yield staged


@pytest.fixture
def azure(whole: Stage) -> Iterator[Stage]:
    yield whole
    whole.clear()
    assert whole.kitchen.alive == []
    report = whole.server.azure.journal.report()
    assert report["problems"] == []


def deploy(azure: Stage, version: str, code: int = 0) -> str:
    """Deploy that version; what was told."""
    ran = azure.run("cloud_deploy", "--yes", "--model", f"tiny-ja:{version}")
    assert ran.code == code, ran.told
    return ran.told


def traffic(azure: Stage) -> dict[str, int]:
    found = azure.endpoint()
    assert found
    return found.traffic


def models(azure: Stage) -> dict[str, str]:
    found = azure.endpoint()
    return {d.name: d.model for d in found.deployments} if found else {}


def test_the_first_deployment_is_tried_and_gets_all_traffic(azure: Stage) -> None:
    told = deploy(azure, "1")
    found = azure.endpoint()
    assert found
    (blue,) = found.deployments
    assert blue.name.startswith("blue-")
    assert found.traffic == {blue.name: 100}
    assert blue.tags.items() >= {"homeport": "1", "homeport-recipe": "tiny-ja"}.items()
    assert re.fullmatch(r"sha256:[0-9a-f]{64}", blue.image)
    assert found.expires and found.tags["homeport-owner"] == azure.cloud.owner
    order = [told.index(part) for part in ("making blue", "answered 1 of 1", "moved:", "served:")]
    assert order == sorted(order)


def test_a_second_model_is_blue_greens_green_and_takes_over_step_by_step(azure: Stage) -> None:
    deploy(azure, "1")
    told = deploy(azure, "2")
    (green,) = traffic(azure)
    assert green.startswith("green-")
    assert re.search(r"moved:  90 % to blue-\w+, 10 % to green-\w+", told)
    assert re.search(r"kept:   blue-\w+, without traffic, bills \$\d+\.\d\d per hour", told)
    assert sorted(models(azure).values()) == ["tiny-ja:1", "tiny-ja:2"]


def test_the_same_command_again_makes_and_asks_for_no_second_deployment(azure: Stage) -> None:
    deploy(azure, "1")
    started = len(azure.kitchen.started)
    told = deploy(azure, "1")
    assert "of the same model and image (Succeeded); goes on with it" in told
    assert len(azure.kitchen.started) == started


def test_a_third_model_drops_the_deployment_without_traffic_after_saying_so(azure: Stage) -> None:
    deploy(azure, "1")
    deploy(azure, "2")
    azure.register("3")
    told = deploy(azure, "3")
    assert re.search(r"drops:  blue-\w+, which has no traffic \(\$\d", told)
    assert sorted(models(azure).values()) == ["tiny-ja:2", "tiny-ja:3"]


def test_a_first_deployment_that_crashes_leaves_nothing_and_shows_both_logs(azure: Stage) -> None:
    azure.kitchen.crashes = "Traceback (most recent call last):\nException in init\n"
    told = deploy(azure, "1", code=6)
    assert azure.endpoint() is None
    assert "--- log of storage-initializer" in told
    assert "--- log of inference-server" in told
    assert "Exception in init" in told
    error = told.splitlines()[-1]
    assert "User container has crashed" in error
    assert "Known cause: score.py could not be imported or its init() failed" in error
    assert error.endswith("The endpoint was deleted; nothing of it bills.")


def test_a_second_deployment_that_crashes_leaves_the_first_as_it_was(azure: Stage) -> None:
    deploy(azure, "1")
    before = traffic(azure)
    azure.kitchen.crashes = "boom\n"
    told = deploy(azure, "2", code=6)
    assert told.endswith("The new deployment was deleted; the others serve as before.\n")
    assert traffic(azure) == before
    assert list(models(azure).values()) == ["tiny-ja:1"]


def test_an_endpoint_whose_change_failed_serves_on_and_is_gone_on_with(azure: Stage) -> None:
    deploy(azure, "1")
    deploy(azure, "2")
    before = traffic(azure)
    azure.faults.add(Fault(kind="failed_provisioning", path=f"{ENDPOINT}$", cause="It broke."))
    ran = azure.run("cloud_rollback")
    assert ran.code == 6
    assert re.search(
        r"It broke\..* Next: make cloud-status, then the same again\.$", ran.told.strip()
    )
    found = azure.endpoint()
    assert found and found.state == "Failed"
    told = deploy(azure, "2")  # and not: delete the endpoint
    assert "failed while it was changed" in told
    assert traffic(azure) == before
    found = azure.endpoint()
    assert found and found.state == "Succeeded"


def test_a_deployment_that_does_not_answer_gets_no_traffic(azure: Stage) -> None:
    deploy(azure, "1")
    before = traffic(azure)
    azure.kitchen.status = 500
    told = deploy(azure, "2", code=6)
    assert "was made, but does not answer" in told
    assert "answered 500 (424): the model said no" in told
    assert traffic(azure) == before
    assert "moved:  90" not in told


def test_a_deployment_that_stops_answering_on_the_way_loses_its_traffic(azure: Stage) -> None:
    deploy(azure, "1")
    before = traffic(azure)
    azure.kitchen.stops_after = 2  # the smoke request, and one of the first step
    told = deploy(azure, "2", code=6)
    assert re.search(r"moved:  90 % to blue-\w+, 10 % to green-\w+", told)
    assert re.search(r"moved:  back to blue-\w+", told)
    assert traffic(azure) == before
    assert list(models(azure).values()) == ["tiny-ja:1"]


def test_a_deployment_that_serves_all_is_not_deleted_because_it_fails_once(azure: Stage) -> None:
    azure.kitchen.stops_after = 4  # the first rollout's requests
    deploy(azure, "1")
    before = traffic(azure)
    told = deploy(azure, "1", code=6)
    assert "It had all the traffic before and is left as it is" in told
    assert traffic(azure) == before


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (
            Fault(kind="failed_provisioning", path="deployments", cause="OutOfCapacity: none free"),
            "the region has no such machine free now",
        ),
        (Fault(kind="image_pull", path="deployments", cause="manifest unknown"), "make cloud-push"),
        (Fault(kind="quota", path="deployments"), "Not enough quota available for Standard_"),
    ],
)
def test_what_azure_refuses_is_one_sentence_and_leaves_nothing(
    azure: Stage, fault: Fault, words: str
) -> None:
    azure.faults.add(fault)
    told = deploy(azure, "1", code=6)
    assert words in told.splitlines()[-1]
    assert azure.endpoint() is None


@pytest.mark.parametrize(
    "fault",
    [
        Fault(kind="status", status=429, retry_after=0.2, times=2),
        Fault(kind="status", status=503, retry_after=0.2, times=2),
        Fault(kind="reset", path="onlineEndpoints", times=1),
        Fault(kind="lost_reply", method="PUT", path=f"onlineEndpoints/{ENDPOINT}$"),
        Fault(kind="lost_reply", method="PUT", path="deployments/"),
    ],
    ids=["429", "503", "reset", "endpoint's reply lost", "deployment's reply lost"],
)
def test_what_passes_by_itself_leads_to_one_deployment_all_the_same(
    azure: Stage, fault: Fault
) -> None:
    started = len(azure.kitchen.started)
    azure.faults.add(fault)
    deploy(azure, "1")
    assert list(traffic(azure).values()) == [100]
    assert len(azure.kitchen.started) == started + 1


def test_a_failed_deployment_of_the_same_kind_is_deleted_first(
    azure: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        # as if the process had been killed before it could clean up
        patch.setattr("scripts.azure.rollout._undo", lambda *_: "Killed.")
        azure.kitchen.crashes = "boom\n"
        deploy(azure, "1", code=6)
    azure.kitchen.crashes = ""
    told = deploy(azure, "1")
    assert re.search(r"deploy: blue-\w+ failed before; it is deleted first", told)
    assert list(traffic(azure).values()) == [100]


def test_ctrl_c_says_what_bills_and_the_same_command_goes_on(
    azure: Stage,
) -> None:
    azure.kitchen.pull_seconds = 3.0
    started, pulled = len(azure.kitchen.started), azure.kitchen.pulled

    def interrupt() -> None:
        until(lambda: azure.kitchen.pulled > pulled)
        time.sleep(0.3)  # the answer has come, and the deployment is waited for
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    told: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("scripts.azure.rollout.say", told.append)
        with pytest.raises(KeyboardInterrupt):
            azure.run("cloud_deploy", "--yes", "--model", "tiny-ja:1")
    left = told[-1]
    assert re.match(
        rf"left:  endpoint {ENDPOINT} with blue-\w+ \(Creating\), which bills \$\d+\.\d\d per hour "
        rf"until it is deleted; go on: make cloud-deploy MODEL=tiny-ja:1; "
        rf"delete it: make cloud-down ENDPOINT={ENDPOINT}",
        left,
    )
    again = deploy(azure, "1")
    assert re.search(r"blue-\w+ is there \(Creating\); going on with it", again)
    assert len(azure.kitchen.started) == started + 1
    assert list(traffic(azure).values()) == [100]


def test_where_the_looking_on_breaks_the_deployment_is_followed_by_its_state(
    azure: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    from azure.core.exceptions import ServiceRequestError

    def broken(what: str, poller: Any, progress: Any) -> None:
        from scripts.azure import retry

        raise retry.translate(what, ServiceRequestError("away")) or AssertionError

    monkeypatch.setattr(endpoints, "wait", broken)
    azure.kitchen.pull_seconds = 0.5
    deploy(azure, "1")
    assert list(traffic(azure).values()) == [100]


def test_an_endpoint_that_cannot_be_reached_from_here_keeps_its_deployment(
    azure: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    from scripts.azure import scoring

    monkeypatch.setattr(scoring, "TRIES", 1)
    azure.faults.add(Fault(kind="reset", path="^/score", times=9))
    told = deploy(azure, "1", code=6)
    assert re.search(r"left:  endpoint \S+ with blue-\w+ \(Succeeded\), which bills \$", told)
    assert "cannot be reached" in told.splitlines()[-1]
    assert azure.endpoint()


def test_an_endpoint_of_somebody_else_is_not_touched(azure: Stage) -> None:
    from azure.ai.ml.entities import ManagedOnlineEndpoint

    endpoints.create(azure.cloud, ManagedOnlineEndpoint(name=ENDPOINT, auth_mode="key"))
    told = deploy(azure, "1", code=2)
    assert "was not made by Homeport" in told
    assert models(azure) == {}
