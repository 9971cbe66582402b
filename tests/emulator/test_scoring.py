"""What clients of an endpoint get: authentication, routing, limits, failures, streams."""

import json
import time
from collections import Counter
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import requests

from emulator.http import Dropped, Reply, Request
from tests.emulator.small_azure import IMAGE, SmallAzure, SmallNodes
from tests.local_azure import bare_azure
from tests.waiting import until

REASON = "ms-azureml-model-error-reason"
STATUS = "ms-azureml-model-error-statuscode"


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SmallAzure]:
    """With deployments blue, which gives up after a second, and green."""
    small = SmallAzure(tmp_path_factory.mktemp("scoring"))
    small.endpoint()
    small.deploy("blue", requestSettings={"requestTimeout": "PT1S"})
    small.deploy("green", variables={"MINE": "green"}, requestSettings={"requestTimeout": "PT1M"})
    yield small
    small.close()
    assert small.journal.report()["problems"] == []


@pytest.fixture
def azure(shared: SmallAzure) -> SmallAzure:
    """All traffic goes to blue."""
    shared.route_to(blue=100)
    return shared


def seen(reply: Reply) -> dict[str, Any]:
    """What the small server says that it saw."""
    assert reply.status == 200, reply
    assert isinstance(reply.body, bytes)
    found: dict[str, Any] = json.loads(reply.body)
    return found


def test_a_request_reaches_the_model_and_the_answer_says_who_gave_it(azure: SmallAzure) -> None:
    reply = azure.score(body=b'{"a": "\xe3\x81\x82"}', content_type="application/json")
    found = seen(reply)
    assert (found["method"], found["path"], found["body"]) == ("POST", "/score", '{"a": "あ"}')
    assert found["headers"]["content-type"] == "application/json"
    assert reply.headers["azureml-model-deployment"] == "blue"
    assert reply.headers["Content-Type"] == "application/json"
    assert int(reply.headers["ms-azureml-model-time"]) >= 0


def test_the_key_ends_at_the_endpoint(azure: SmallAzure) -> None:
    assert "authorization" not in seen(azure.score())["headers"]


def test_the_request_id_is_the_services_and_the_clients_is_cut(azure: SmallAzure) -> None:
    reply = azure.score(x_request_id="mine", x_ms_client_request_id="c" * 50)
    headers = seen(reply)["headers"]
    assert len(reply.headers["x-request-id"]) == 36
    assert headers["x-request-id"] == reply.headers["x-request-id"]
    assert headers["x-ms-client-request-id"] == "c" * 40


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE"])
def test_any_other_path_goes_to_the_container_as_it_is(azure: SmallAzure, method: str) -> None:
    if method in ("PUT", "PATCH", "DELETE"):
        assert azure.score("/v1/x", method=method).headers[STATUS] == "501"
        return
    found = seen(azure.score("/v1/ü b", method=method, query={"q": "a&b"}))
    assert (found["method"], found["path"]) == (method, "/v1/%C3%BC%20b?q=a%26b")


def test_the_root_says_that_the_endpoint_is_healthy(azure: SmallAzure) -> None:
    assert azure.score("/", method="GET").body == b"Healthy"


@pytest.mark.parametrize(
    ("authorization", "why"),
    [
        ("", b"key_auth_bad_header_forbidden"),
        ("Basic abc", b"key_auth_bad_header_forbidden"),
        ("Bearer ", b"key_auth_bad_header_forbidden"),
        ("Bearer wrong", b"key_auth_access_denied"),
        ("Bearer schlüssel", b"key_auth_access_denied"),
    ],
)
def test_without_the_key_nobody_scores(azure: SmallAzure, authorization: str, why: bytes) -> None:
    reply = azure.score(authorization=authorization)
    assert (reply.status, reply.body) == (401, why)
    assert "azureml-model-deployment" not in reply.headers


def test_both_keys_open_and_an_old_key_does_not(azure: SmallAzure) -> None:
    keys = azure.call("POST", "onlineEndpoints/geo/listKeys").body
    assert isinstance(keys, dict)
    for key in keys.values():
        assert azure.score(authorization=f"bearer {key}").status == 200
    azure.call("POST", "onlineEndpoints/geo/regenerateKeys", {"keyType": "Primary"})
    assert azure.score(authorization=f"Bearer {keys['primaryKey']}").status == 401


def test_a_token_of_the_endpoint_opens_it(azure: SmallAzure) -> None:
    azure.endpoint(authMode="AMLToken", traffic={"blue": 100})
    azure.endpoint("other", authMode="AMLToken")
    tokens = {}
    for name in ("geo", "other"):
        body = azure.call("POST", f"onlineEndpoints/{name}/token").body
        assert isinstance(body, dict)
        assert body["expiryTimeUtc"] > time.time()
        tokens[name] = f"Bearer {body['accessToken']}"
    assert azure.score(authorization=tokens["geo"]).status == 200
    assert azure.score(authorization=tokens["other"]).status == 401
    assert azure.score(authorization="Bearer a.b.c").status == 401


def test_an_entra_token_opens_an_endpoint_of_that_mode(azure: SmallAzure) -> None:
    azure.endpoint(authMode="AADToken", traffic={"blue": 100})
    for audience, status in (("https://ml.azure.com", 200), ("https://graph.microsoft.com", 401)):
        token = azure.azure.tokens.issue(audience, "me")
        assert azure.score(authorization=f"Bearer {token}").status == status


def test_traffic_is_split_by_its_weights(azure: SmallAzure) -> None:
    azure.route_to(blue=80, green=20)
    names = Counter(azure.score().headers["azureml-model-deployment"] for _ in range(200))
    assert 15 <= names["green"] <= 65  # more than 4 standard deviations around 40 of 200
    assert names["blue"] == 200 - names["green"]


def test_the_header_pins_a_deployment_also_one_without_traffic(azure: SmallAzure) -> None:
    reply = azure.score(azureml_model_deployment="GREEN")
    assert seen(reply)["environment"]["MINE"] == "green"
    assert reply.headers["azureml-model-deployment"] == "green"


@pytest.mark.parametrize("pin", ["red", ""])
def test_without_a_deployment_to_route_to_it_is_404(azure: SmallAzure, pin: str) -> None:
    azure.route_to()
    reply = azure.score(azureml_model_deployment=pin)
    assert reply.status == 404
    assert isinstance(reply.body, bytes)
    assert reply.body.startswith(b"No valid deployments to route to.")


def test_an_endpoint_that_is_not_there_has_no_address(azure: SmallAzure) -> None:
    request = Request(method="POST", host="none.eastus.inference.ml.azure.com", path="/score")
    with pytest.raises(Dropped):
        azure.ask(request)


@pytest.mark.parametrize("status", [201, 204, 400, 429, 500, 503])
def test_whatever_else_than_200_becomes_424(azure: SmallAzure, status: int) -> None:
    reply = azure.score(f"/status/{status}")
    assert (reply.status, reply.headers[STATUS]) == (424, str(status))
    assert reply.headers[REASON] == "model_error"
    assert reply.body == (b"" if status == 204 else b'{"error": "as asked"}')


def test_a_container_that_is_gone_becomes_424(azure: SmallAzure) -> None:
    azure.deploy("gone")
    azure.nodes.alive[-1].stop(1)
    reply = azure.score(azureml_model_deployment="gone")
    assert (reply.status, reply.headers[STATUS]) == (424, "502")


def test_a_deployment_that_never_came_up_becomes_424(azure: SmallAzure) -> None:
    azure.deploy("red", variables={"EXIT": "1"})
    reply = azure.score(azureml_model_deployment="red")
    assert (reply.status, reply.headers[REASON]) == (424, "model_not_ready")


@pytest.mark.slow
def test_longer_than_the_request_timeout_is_408(azure: SmallAzure) -> None:
    began = time.monotonic()
    reply = azure.score("/slow", query={"seconds": "3"})
    assert 0.9 < time.monotonic() - began < 2.9
    assert (reply.status, reply.body) == (408, b"upstream request timeout")


def test_more_than_twice_the_concurrency_is_429(azure: SmallAzure) -> None:
    begun = [
        azure.score("/stream", query={"seconds": "0"}, azureml_model_deployment="green")
        for _ in range(2)
    ]
    reply = azure.score(azureml_model_deployment="green")
    assert (reply.status, reply.body) == (429, b"")
    assert reply.headers[REASON] == "too_many_pending_request"
    for answer in begun:
        assert isinstance(answer.body, Iterator)
        assert b"".join(answer.body).endswith(b"part 2\n")
    assert azure.score(azureml_model_deployment="green").status == 200


@pytest.mark.slow
def test_instances_and_concurrency_multiply_the_places(azure: SmallAzure) -> None:
    settings = {"maxConcurrentRequestsPerInstance": 2, "requestTimeout": "PT1M"}
    azure.deploy("wide", capacity=2, requestSettings=settings)

    def ask() -> int:
        return azure.score("/slow", query={"seconds": "2"}, azureml_model_deployment="wide").status

    with ThreadPoolExecutor(9) as pool:
        statuses = Counter(pool.map(lambda _: ask(), range(9)))
    assert statuses == {200: 8, 429: 1}


def test_a_stream_comes_as_it_is_made(azure: SmallAzure) -> None:
    reply = azure.score("/stream", query={"seconds": "0.2"})
    assert isinstance(reply.body, Iterator)
    began = time.monotonic()
    came = [(part, time.monotonic() - began) for part in reply.body]
    assert b"".join(part for part, _ in came) == b"part 0\npart 1\npart 2\n"
    assert came[-1][1] - came[0][1] > 0.3


@pytest.mark.slow
def test_a_stream_breaks_off_at_the_request_timeout(azure: SmallAzure) -> None:
    reply = azure.score("/stream", query={"seconds": "0.6"})
    assert isinstance(reply.body, Iterator)
    parts = []
    with pytest.raises(Dropped):
        for part in reply.body:
            parts.append(part)
    assert parts in ([b"part 0\n"], [b"part 0\n", b"part 1\n"])


@pytest.mark.parametrize("leave", ["close", "forget"])
def test_a_stream_that_is_left_holds_no_place(azure: SmallAzure, leave: str) -> None:
    replies = [azure.score("/stream", query={"seconds": "0.1"}) for _ in range(2)]
    assert azure.score().status == 429
    for reply in replies:
        assert isinstance(reply.body, Generator)
        if leave == "close":  # as the server does
            reply.body.close()
    del reply
    replies.clear()
    assert azure.score().status == 200


def test_mirrored_requests_reach_the_shadow_and_change_no_answer(azure: SmallAzure) -> None:
    azure.endpoint(traffic={"blue": 100}, mirrorTraffic={"green": 50})
    before = azure.nodes.started[1].log().count(b"POST /mirrored")
    for _ in range(40):
        assert azure.score("/mirrored").headers["azureml-model-deployment"] == "blue"
    until(lambda: azure.nodes.started[1].log().count(b"POST /mirrored") > before)
    assert 0 < azure.nodes.started[1].log().count(b"POST /mirrored") < 40


@pytest.mark.slow
def test_over_tls_a_stream_arrives_in_parts_and_leaving_frees_the_place(tmp_path: Path) -> None:
    nodes = SmallNodes(tmp_path)
    with bare_azure(tmp_path / "azure", nodes=nodes) as server:
        azure = SmallAzure(tmp_path / "small", azure=server.azure)
        azure.environment = azure.asset("environments/x/versions/1", image=IMAGE)
        azure.endpoint()
        azure.deploy(requestSettings={"requestTimeout": "PT2S"})
        azure.route_to(blue=100)
        session = requests.Session()
        session.trust_env = False
        session.proxies = {"https": server.proxy_url}
        session.verify = server.env["REQUESTS_CA_BUNDLE"]
        session.headers["Authorization"] = f"Bearer {azure.key()}"
        url = "https://geo.eastus.inference.ml.azure.com"

        answer = session.post(f"{url}/stream?seconds=0.2", stream=True, timeout=10)
        came = [(time.monotonic(), part) for part in answer.iter_content(None)]
        assert b"".join(part for _, part in came) == b"part 0\npart 1\npart 2\n"
        assert came[-1][0] - came[0][0] > 0.3

        for _ in range(2):  # the deployment has two places
            left = session.post(f"{url}/stream?seconds=0.3", stream=True, timeout=10)
            next(left.iter_content(None))
            left.close()
        until(lambda: session.post(f"{url}/score", json={}, timeout=10).status_code != 429)

        late = session.post(f"{url}/stream?seconds=3", stream=True, timeout=10)
        with pytest.raises(requests.exceptions.ChunkedEncodingError):
            list(late.iter_content(None))
        assert server.azure.journal.report()["problems"] == []
        azure.close()
