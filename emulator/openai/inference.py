"""What a resource's deployments answer, and the list of models.

A request goes to the deployment's own server: the model that was really trained answers. The name
in its `model` is the deployment's, and the answer names the model behind it.
"""

import http.client
import json
from collections.abc import Iterator, Mapping
from functools import partial

from emulator.azure import Azure
from emulator.http import Dropped, Refusal, Reply, Request, Route
from emulator.openai import deployments, plane
from emulator.openai.accounts import MODELS, Account
from emulator.openai.plane import clock

ANSWER_SECONDS = 300
CHUNK = 65536
KEPT = ("content-type", "retry-after", "x-request-id")
"""Headers of the server's answer that are passed on."""


def ask(
    azure: Azure, form: str, account: Account, request: Request, groups: Mapping[str, str]
) -> Reply:
    """POST chat/completions or completions."""
    body = request.json()
    if not isinstance(body, dict):
        raise Refusal(400, "invalidPayload", "The body is no JSON object.")
    name = groups.get("deployment") or str(body.get("model") or "")
    arm_id = f"{account.arm_id}/deployments/{name}"
    running = deployments.hosting(azure, arm_id)
    if not name or azure.store.get(arm_id) is None:
        raise Refusal(
            404,
            "DeploymentNotFound",
            "The API deployment for this resource does not exist. If you created the deployment "
            "within the last 5 minutes, please wait a moment and try again.",
        )
    if running is None or running.served is None or not running.ready:
        raise Refusal(
            404, "DeploymentNotReady", "The deployment is not ready yet. Please try again later."
        )
    sent = json.dumps({key: value for key, value in body.items() if key != "model"})
    connection = http.client.HTTPConnection(*running.served.address, timeout=ANSWER_SECONDS)
    try:
        headers = {"Content-Type": "application/json"}
        connection.request("POST", f"/v1/{form}", sent.encode(), headers)
        response = connection.getresponse()
        told = {k: v for k, v in response.getheaders() if k.lower() in KEPT}
        told |= {"x-ms-region": account.location, "x-ms-deployment-name": name}
        if response.getheader("content-length") is None and response.status == 200:
            return Reply(200, _stream(connection, response), told)
        answer = json.loads(response.read())
    except (OSError, http.client.HTTPException, ValueError):
        connection.close()
        raise Refusal(500, "InternalServerError", "The server had an error.") from None
    connection.close()
    if response.status == 200:
        answer["model"] = running.model.name
    return Reply(response.status, answer, told)


def models(account: Account, request: Request, groups: Mapping[str, str]) -> Reply:
    """GET models: what can be trained, and what has been."""
    return Reply(200, {"object": "list", "data": [_view(n) for n in _names(account)]})


def model(account: Account, request: Request, groups: Mapping[str, str]) -> Reply:
    """GET models/NAME."""
    if groups["model"] not in _names(account):
        raise Refusal(404, "resourceNotFound", f"The model {groups['model']} was not found.")
    return Reply(200, _view(groups["model"]))


def _names(account: Account) -> list[str]:
    tuned = [job.model for job in account.jobs.values() if job.model]
    return [*MODELS, *tuned]


def _view(name: str) -> dict[str, object]:
    can = {"fine_tune": True, "inference": True, "chat_completion": True, "completion": True}
    return {
        "object": "model",
        "id": name,
        "status": "succeeded",
        "created_at": clock(),
        "lifecycle_status": "generally-available",
        "capabilities": can | {"embeddings": False},
    }


def _stream(
    connection: http.client.HTTPConnection, response: http.client.HTTPResponse
) -> Iterator[bytes]:
    try:
        while part := response.read1(CHUNK):
            yield part
    except (OSError, http.client.HTTPException):
        raise Dropped from None
    finally:
        connection.close()


def routes(azure: Azure) -> list[Route]:
    made = [
        plane.route(azure, "GET", "/models", models),
        plane.route(azure, "GET", "/models/(?P<model>[^/]+)", model),
    ]
    for form in ("chat/completions", "completions"):
        handler = partial(ask, azure, form)
        below = rf"/deployments/(?P<deployment>[^/]+)/{form}"
        made.append(plane.route(azure, "POST", f"/{form}", handler, v1=True))
        made.append(plane.route(azure, "POST", below, handler, v1=False))
    return made
