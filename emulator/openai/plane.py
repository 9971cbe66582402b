"""What all requests to a resource's data plane share: who may ask, the forms of the address, the
contract, errors and pages.

    plane.route(azure, "GET", "/files/(?P<file>[^/]+)", get)      get(account, request, groups)

Both forms are answered: `/openai/v1/files`, and `/openai/files?api-version=…` as AzureOpenAI sends
it. The contract is the one of /openai/v1 for both.
"""

import hmac
import json
import re
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from emulator import contract
from emulator.azure import Azure
from emulator.http import Dropped, Refusal, Reply, Request, Route
from emulator.openai import accounts
from emulator.openai.accounts import Account

HOST = r"(?P<account>[a-z0-9-]+)\.openai\.azure\.com"
AUDIENCE = "https://cognitiveservices.azure.com"
VERSION = re.compile(r"\d{4}-\d\d-\d\d(-preview)?|preview|latest")
PAGE = 20
"""Items of a page where the caller does not say."""

Handler = Callable[[Account, Request, Mapping[str, str]], Reply]


def route(
    azure: Azure, method: str, path: str, handler: Handler, *, v1: bool | None = None
) -> Route:
    """Answers `method` on the path below /openai and /openai/v1, or below one of them only."""
    base = {None: "/openai(?P<v1>/v1)?", True: "/openai(?P<v1>/v1)", False: "/openai(?P<v1>)"}[v1]

    def answer(request: Request, groups: Mapping[str, str]) -> Reply:
        account = accounts.of(azure).get(groups["account"].lower())
        if account is None:
            raise Dropped  # on Azure the name would not resolve
        try:
            _require_caller(azure, account, request)
            if not groups["v1"] and not VERSION.fullmatch(request.api_version):
                raise Refusal(404, "404", "Resource not found")
            return _checked(azure, account, request, groups, handler)
        except Refusal as refusal:
            return Reply(refusal.status, error_body(refusal), refusal.headers)

    return Route(method, HOST, base + path, answer)


def refuse_method(*allowed: str) -> Handler:
    """Answers a method that the path does not have: 405."""

    def answer(account: Account, request: Request, groups: Mapping[str, str]) -> Reply:
        raise Refusal(
            405,
            "MethodNotAllowed",
            f"The HTTP method {request.method} is not supported here; ask by {allowed[0]}.",
            headers={"Allow": ", ".join(allowed)},
        )

    return answer


def error_body(refusal: Refusal) -> dict[str, Any]:
    """The data plane's envelope, which has fewer members than the control plane's."""
    return {"error": {"code": refusal.code, "message": str(refusal)}}


def page(request: Request, items: Sequence[Mapping[str, Any]]) -> Reply:
    """The part of `items`, newest first, that `after` and `limit` ask for."""
    ids = [str(item["id"]) for item in items]
    after = request.query.get("after", "")
    begin = ids.index(after) + 1 if after in ids else 0
    limit = int(request.query.get("limit") or PAGE)
    part = [dict(item) for item in items[begin : begin + limit]]
    body = {"object": "list", "data": part, "has_more": begin + limit < len(items)}
    ends = {"first_id": part[0]["id"], "last_id": part[-1]["id"]} if part else {}
    return Reply(200, {**body, **ends})


def clock() -> int:
    """Seconds since 1970, as the data plane tells times."""
    return int(time.time())


def _require_caller(azure: Azure, account: Account, request: Request) -> None:
    """A key of the resource, or a token of its tenant for AUDIENCE; else Refusal 401.

    Below /openai/v1 a key may also come as the Bearer, where openai's own client puts it
    (learn.microsoft.com/azure/ai-services/openai/api-version-lifecycle).
    """
    key = request.headers.get("api-key", "")
    bearer = request.headers.get("authorization", "").removeprefix("Bearer ")
    given = key or (bearer if request.path.startswith("/openai/v1/") else "")
    if any(hmac.compare_digest(given.encode(), own.encode()) for own in account.keys.values()):
        return
    if bearer and not key:
        try:
            claims = azure.tokens.require(request, AUDIENCE)
        except Refusal:
            raise Refusal(
                401,
                "401",
                "Unauthorized. Access token is missing, invalid, audience is incorrect "
                f"({AUDIENCE}), or have expired.",
            ) from None
        if claims["tid"] != account.tenant:
            sentence = f"Token tenant {claims['tid']} does not match resource tenant."
            raise Refusal(401, "Tenant provided in token does not match resource token", sentence)
        return
    raise Refusal(
        401,
        "401",
        "Access denied due to invalid subscription key or wrong API endpoint. Make sure to provide "
        "a valid key for an active subscription and use a correct regional API endpoint for your "
        "resource.",
    )


def _checked(
    azure: Azure, account: Account, request: Request, groups: Mapping[str, str], handler: Handler
) -> Reply:
    """The handler's answer, between the contract's two checks."""
    path = re.sub("^/openai(/v1)?", "/openai/v1", request.path)
    is_json = "json" in request.headers.get("content-type", "")
    body = _parsed(request) if is_json and request.body else None
    if wrong := contract.check_request(request.method, path, "", body):
        azure.journal.problem(f"{request.method} {request.host}{request.path}: {' '.join(wrong)}")
        raise Refusal(400, "invalidPayload", " ".join(wrong))
    reply = handler(account, request, groups)
    answer = reply.body if isinstance(reply.body, dict | list) else None
    for sentence in contract.check_response(request.method, path, "", reply.status, answer):
        azure.journal.problem(f"our answer to {request.method} {request.path}: {sentence}")
    return reply


def _parsed(request: Request) -> Any:
    try:
        return json.loads(request.body)
    except ValueError:
        raise Refusal(400, "invalidPayload", "The body is no JSON.") from None
