"""Run a verb and keep what it asked of Azure and was answered, with all that is private taken out.

    python -m scripts.azure.recording FILE MODULE [ARGUMENT …]
    python -m scripts.azure.recording outputs/x.json scripts.cloud_status --json

Kept are the control plane, the regions' data plane, and of endpoints only status and headers.
Logins, storage, registry and vault are not kept at all. The file is written once, at the end, after
`sanitised`. That takes out every secret and name that it knows of, which is no proof that nothing
private is left: read a recording before you show it to anyone.
"""

import json
import re
import runpy
import sys
import urllib.parse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from scripts.console import say
from scripts.settings import relative

if TYPE_CHECKING:
    import requests

Exchange = dict[str, Any]
"""method, host, path, query, request, status, headers, response."""

PLANES = re.compile(r"management\.azure\.com|[a-z0-9-]+\.api\.azureml\.ms")
SCORING = re.compile(r"[a-z0-9-]+\.[a-z0-9]+\.inference\.ml\.azure\.com")
HEADERS = (
    "azure-asyncoperation",
    "azureml-model-deployment",
    "content-type",
    "location",
    "ms-azureml-model-error-reason",
    "ms-azureml-model-error-statuscode",
    "retry-after",
    "x-ms-async-operation-timeout",
)
"""Of an answer; of a request none is kept."""

GONE = "REDACTED"
SECRETS = re.compile(
    r"key|primaryKey|secondaryKey|.*(token|secret|password|connectionString|sasUri|credential)"
    r"|content|environmentVariables|instrumentationKey",
    re.IGNORECASE,
)
"""Members whose text is a secret, or (logs, variables) may hold one; what is below them too."""
HARMLESS = {"secretsType", "credentialsType", "credentialType", "tokenType", "datastoreType"}
PEOPLE = re.compile(r"createdBy|lastModifiedBy|userName|userAlias|adminUserName|upn|email", re.I)
NAMES = {
    "subscriptions": "00000000-0000-0000-0000-000000000001",
    "resourceGroups": "rehearsal",
    "providers/Microsoft.MachineLearningServices/workspaces": "homeport",
    "providers/Microsoft.Storage/storageAccounts": "homeportrehearsal",
    "providers/Microsoft.ContainerRegistry/registries": "homeportrehearsal",
    "providers/Microsoft.KeyVault/vaults": "homeportrehearsal",
    "providers/Microsoft.Insights/components": "homeportrehearsal",
}
"""Stand-ins for names, by the part of an ARM id that they follow: those of the rehearsal, so that a
recording can be replayed against it."""
GUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", re.I)
PRIVATE = {
    "SAS": (re.compile(r"\?[^\s\"']*\bsig=[^\s\"']*"), f"?{GONE}"),
    "token": (re.compile(r"\beyJ[\w-]+\.[\w-]+(\.[\w-]+)?"), GONE),
    "key": (re.compile(r"[A-Za-z0-9+/]{40,}={1,2}"), GONE),
    "mail": (re.compile(r"[\w.+-]+@[\w-]+(\.[\w-]+)+"), "someone@example.com"),
    "address": (re.compile(r"\b\d{1,3}(\.\d{1,3}){3}\b"), "192.0.2.1"),
}


def sanitised(exchanges: list[Exchange]) -> list[Exchange]:
    """A copy without secrets, people, addresses and the names of whose Azure it was."""
    cleaned = [
        {
            **exchange,
            **{part: _members(exchange[part]) for part in ("query", "request", "response")},
        }
        for exchange in exchanges
    ]
    text = json.dumps(cleaned, ensure_ascii=False)
    for name, stand_in in _names(text).items():
        text = re.sub(rf"(?<![\w-]){re.escape(name)}(?![\w-])", stand_in, text, flags=re.IGNORECASE)
    for pattern, stand_in in PRIVATE.values():
        text = pattern.sub(stand_in, text)
    known = [NAMES["subscriptions"]]

    def number(found: re.Match[str]) -> str:
        if found[0].lower() not in known:
            known.append(found[0].lower())
        return f"00000000-0000-0000-0000-{known.index(found[0].lower()) + 1:012}"

    result: list[Exchange] = json.loads(GUID.sub(number, text))
    return result


def _members(value: Any) -> Any:
    if isinstance(value, list):
        return [_members(item) for item in value]
    if not isinstance(value, dict):
        return value
    kept = {}
    for name, item in value.items():
        if name in HARMLESS:
            kept[name] = item
        elif SECRETS.fullmatch(name):
            kept[name] = _gone(item)
        elif PEOPLE.fullmatch(name):
            kept[name] = "someone"
        else:
            kept[name] = _members(item)
    return kept


def _gone(value: Any) -> Any:
    """The same shape, but no text that could be secret."""
    if isinstance(value, dict):
        return {n: item if n in HARMLESS else _gone(item) for n, item in value.items()}
    if isinstance(value, list):
        return [_gone(item) for item in value]
    return GONE if isinstance(value, str) else value


def _names(text: str) -> dict[str, str]:
    """Stand-ins by name, longest name first so that none is replaced in part."""
    found = {}
    for part, stand_in in NAMES.items():
        for name in re.findall(rf"/{re.escape(part)}/([^/?\"\s]+)", text, flags=re.IGNORECASE):
            found[name.lower()] = stand_in
    return dict(sorted(found.items(), key=lambda item: -len(item[0])))


@contextmanager
def recorded(path: Path) -> Iterator[None]:
    """Keep what this process asks over `requests`, and write it to `path` at the end."""
    import requests

    exchanges: list[Exchange] = []
    send: Callable[..., requests.Response] = requests.Session.send

    def sent(session: Any, request: "requests.PreparedRequest", **options: Any) -> Any:
        response = send(session, request, **options)
        exchange = _exchange(request, response, streamed=bool(options.get("stream")))
        # A poll that learns nothing new is not kept again.
        if exchange and (exchange["method"] != "GET" or exchange not in exchanges[-20:]):
            exchanges.append(exchange)
        return response

    with patch.object(requests.Session, "send", sent):
        try:
            yield
        finally:
            if exchanges:
                path.parent.mkdir(parents=True, exist_ok=True)
                text = json.dumps(sanitised(exchanges), ensure_ascii=False, indent=1)
                path.write_text(f"{text}\n", encoding="utf-8")
                say(f"kept:   {len(exchanges)} exchanges in {relative(path)}")


def _exchange(
    request: "requests.PreparedRequest", response: "requests.Response", *, streamed: bool
) -> Exchange | None:
    url = urllib.parse.urlsplit(request.url or "")
    host = (url.hostname or "").lower()
    if not PLANES.fullmatch(host) and not SCORING.fullmatch(host):
        return None
    bodies = bool(PLANES.fullmatch(host)) and not streamed
    headers = {name: response.headers[name] for name in HEADERS if name in response.headers}
    return {
        "method": request.method,
        "host": host,
        "path": urllib.parse.unquote(re.sub("^/+", "/", url.path)),
        "query": dict(urllib.parse.parse_qsl(url.query)),
        "request": _json(request.body) if bodies else None,
        "status": response.status_code,
        "headers": headers,
        "response": _json(response.content) if bodies else None,
    }


def _json(body: Any) -> Any:
    try:
        return json.loads(body) if isinstance(body, str | bytes) and body else None
    except ValueError:
        return None


def main() -> None:
    if len(sys.argv) < 3 or sys.argv[1].startswith("-"):
        say((__doc__ or "").partition("\n\n")[0])
        say("usage: python -m scripts.azure.recording FILE MODULE [ARGUMENT …]")
        sys.exit(0 if "--help" in sys.argv else 2)
    path, module = sys.argv[1:3]
    sys.argv = sys.argv[2:]
    with recorded(Path(path)):
        runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
