"""The workspace's container registry: its name, what it holds, uploads that survive broken lines.

    registry = Registry(f"https://{login_server(cloud)}", "homeport", cloud.credential)
    digest = registry.digest("train-0123456789ab")      # empty: not there

It speaks the Docker Registry HTTP API V2 and Azure's token exchange: the login's token becomes a
registry token for this one repository; no password is anywhere. azure-containerregistry 1.2.0 is
not used: it sends every request without a token first, so each piece of 4 MB goes twice, with two
requests for tokens, and a lost piece means to begin anew.
"""

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from scripts.azure import retry
from scripts.console import say
from scripts.errors import CloudError, UsageError

if TYPE_CHECKING:
    from azure.core.credentials import TokenCredential
    from azure.core.rest import HttpResponse

    from scripts.azure.client import Cloud

API_VERSION = "2023-07-01"
"""Of Microsoft.ContainerRegistry/registries."""
AUDIENCE = "https://management.azure.com/.default"
MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
"""Schema 2, which everything that pulls images on Azure takes."""
ACCEPT = f"{MANIFEST}, application/vnd.oci.image.manifest.v1+json"
PIECE = 16 * 1024 * 1024
"""Bytes per PATCH: what a broken connection costs at the most."""


def login_server(cloud: "Cloud") -> str:
    """Host name of the workspace's registry; UsageError where the workspace has none."""
    arm_id = cloud.workspace.registry_id
    if not arm_id:
        group, name = cloud.workspace.resource_group, cloud.workspace.name
        raise UsageError(
            f"workspace {name} has no container registry: az acr create --resource-group {group} "
            f"--name NAME --sku Basic, then az ml workspace update --resource-group {group} "
            f"--name {name} --container-registry ID-OF-IT --update-dependent-resources"
        )
    name = arm_id.rpartition("/")[2]
    try:
        found = cloud.rest.get(arm_id, API_VERSION)
    except retry.Refused as error:
        if error.status != 403:
            raise
        # the role to push (AcrPush) does not include reading the registry's settings
        say(f"image:  the registry's settings may not be read; taking {name}.azurecr.io")
        return f"{name}.azurecr.io".lower()
    return str(found["properties"]["loginServer"])


class Registry:
    """One repository of a registry."""

    def __init__(
        self,
        endpoint: str,
        repository: str,
        credential: "TokenCredential",
        *,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        from azure.core import PipelineClient

        self.endpoint = endpoint
        self.repository = repository
        self._credential = credential
        self._sleep = sleep
        self._client: Any = PipelineClient(base_url=endpoint, policies=[])
        self._token = ""
        self._login = threading.Lock()

    def digest(self, tag: str) -> str:
        """`sha256:…` of the manifest that `tag` names; empty where there is none."""
        found = self._call("look an image up", "HEAD", f"manifests/{tag}", missing=True)
        return found.headers["Docker-Content-Digest"] if found else ""

    def manifest(self, reference: str) -> Any:
        """The manifest of a tag or digest."""
        return self._call("read an image's manifest", "GET", f"manifests/{reference}").json()

    def has(self, digest: str) -> bool:
        """Whether the blob is there."""
        found = self._call("look a layer up", "HEAD", f"blobs/{digest}", missing=True)
        return found is not None

    def put_manifest(self, tag: str, manifest: bytes) -> str:
        """Name the blobs as one image; its digest as the registry computed it."""
        done = self._call(
            "push the manifest", "PUT", f"manifests/{tag}", manifest, {"Content-Type": MANIFEST}
        )
        return str(done.headers["Docker-Content-Digest"])

    def upload(
        self,
        path: Path,
        digest: str,
        advance: Callable[[int], None] = lambda count: None,
    ) -> None:
        """Upload a file as the blob `digest`; goes on where a broken connection left it.

        `advance` is told of bytes as the registry has them. The registry checks the digest.
        """
        what = "push a layer"
        waits = iter(retry.WAITS)
        size = path.stat().st_size
        location, offset = self._begin(), 0
        with path.open("rb") as file:
            while offset < size:
                file.seek(offset)
                piece = file.read(PIECE)
                try:
                    done = self._send("PATCH", location, piece, BYTES)
                    location, reached = done.headers["Location"], offset + len(piece)
                except Exception as error:
                    if not retry.transient(error) or (wait := next(waits, None)) is None:
                        raise retry.translate(what, error) or error from error
                    say(f"image:  the connection broke; {what} again in {wait:.0f} s")
                    self._sleep(retry.retry_after(error) or wait)
                    location, reached = self._reached(location)
                advance(reached - offset)
                offset = reached
        parts = urlsplit(location)
        query = urlencode([*parse_qsl(parts.query), ("digest", digest)])
        retry.call(
            what,
            lambda: self._send("PUT", f"{parts.path}?{query}", b"", BYTES),
            sleep=self._sleep,
        )

    def close(self) -> None:
        self._client.close()

    def _begin(self) -> str:
        done = self._call("begin to push a layer", "POST", "blobs/uploads/", b"")
        return str(done.headers["Location"])

    def _reached(self, location: str) -> tuple[str, int]:
        """Where an upload goes on, and the bytes that the registry has; a lost one begins anew."""
        try:
            found = retry.call(
                "ask how far a layer is", lambda: self._send("GET", location), sleep=self._sleep
            )
        except retry.NotFound:
            return self._begin(), 0
        last = int(found.headers["Range"].partition("-")[2])  # "0-0" stands for none, or one
        return found.headers.get("Location", location), last + 1 if last else 0

    def _call(
        self,
        what: str,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: dict[str, str] | None = None,
        *,
        missing: bool = False,
    ) -> Any:
        """The answer, after retries; with `missing`, None for 404."""
        place = f"/v2/{self.repository}/{path}"
        try:
            return retry.call(
                what, lambda: self._send(method, place, body, headers), sleep=self._sleep
            )
        except retry.NotFound:
            if missing:
                return None
            raise
        except retry.Refused as error:
            if error.status in (401, 403):
                raise self._forbidden(str(error)) from error
            raise

    def _send(
        self,
        method: str,
        place: str,
        body: bytes | None = None,
        headers: dict[str, str] | None = None,
    ) -> "HttpResponse":
        """One request to this registry, whatever host `place` names: no other gets a token."""
        parts = urlsplit(place)
        url = f"{self.endpoint}{parts.path}" + (f"?{parts.query}" if parts.query else "")
        sent = self._token
        answer = self._once(method, url, body, headers, sent)
        challenge = answer.headers.get("WWW-Authenticate", "")
        if answer.status_code == 401 and challenge.lower().startswith("bearer"):
            with self._login:
                if self._token == sent:  # else another thread has just logged in
                    self._token = self._exchange()
            answer = self._once(method, url, body, headers, self._token)
        if answer.status_code >= 400:
            from azure.core.exceptions import HttpResponseError

            raise HttpResponseError(message=_reason(answer), response=answer)
        return answer

    def _once(
        self,
        method: str,
        url: str,
        body: bytes | None,
        headers: dict[str, str] | None,
        token: str,
    ) -> "HttpResponse":
        from azure.core.rest import HttpRequest

        every = {"Accept": ACCEPT, **(headers or {})}
        if token:
            every["Authorization"] = f"Bearer {token}"
        if body is not None:
            every["Content-Length"] = str(len(body))
        answer: HttpResponse = self._client.send_request(
            HttpRequest(method, url, headers=every, content=body)
        )
        return answer

    def _exchange(self) -> str:
        """A registry token for this repository, by the login's token."""
        service = urlsplit(self.endpoint).netloc
        login = self._credential.get_token(AUDIENCE).token
        refresh = self._form(
            "/oauth2/exchange",
            {"grant_type": "access_token", "service": service, "access_token": login},
        )["refresh_token"]
        return str(
            self._form(
                "/oauth2/token",
                {
                    "grant_type": "refresh_token",
                    "service": service,
                    "scope": f"repository:{self.repository}:pull,push",
                    "refresh_token": refresh,
                },
            )["access_token"]
        )

    def _form(self, path: str, fields: dict[str, str]) -> Any:
        kind = {"Content-Type": "application/x-www-form-urlencoded"}
        body = urlencode(fields).encode()
        answer = self._once("POST", f"{self.endpoint}{path}", body, kind, "")
        if answer.status_code in (401, 403):
            raise self._forbidden(_reason(answer))
        if answer.status_code >= 400:
            from azure.core.exceptions import HttpResponseError

            raise HttpResponseError(message=_reason(answer), response=answer)
        return answer.json()

    def _forbidden(self, said: str) -> CloudError:
        name = urlsplit(self.endpoint).netloc.partition(".")[0]
        return CloudError(
            f"registry {name} refuses the push ({said}): az role assignment create --role AcrPush "
            f"--assignee YOUR-SIGN-IN --scope $(az acr show --name {name} --query id --output tsv)"
        )


BYTES = {"Content-Type": "application/octet-stream"}


def _reason(answer: "HttpResponse") -> str:
    """The registry's own words; both its envelopes are in use."""
    try:
        body = answer.json()
        first = body["errors"][0] if "errors" in body else body["error"]
        return " ".join(str(first["message"]).split())
    except Exception:  # HEAD has no body, and a proxy answers in HTML
        return f"HTTP {answer.status_code} {answer.reason or ''}".strip()
