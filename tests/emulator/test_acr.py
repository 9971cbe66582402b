"""The container registry's login, and what it passes on."""

import hashlib
import io
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from emulator.server import Server
from tests import registry as plain
from tests.local_azure import bare_azure, environment, session

HOST = "https://homeportrehearsal.azurecr.io"


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a plain registry."""
    with plain.registry(tmp_path_factory.mktemp("registry")) as address:
        yield f"http://{address}"


def log_in(server: Server, scope: str) -> requests.Session:
    """A client with an access token for `scope`, got by all the steps."""
    client = session(server, "")
    tokens = server.azure.tokens
    entra = tokens.issue("https://management.azure.com", tokens.client_id)
    service = "homeportrehearsal.azurecr.io"
    form = {"grant_type": "access_token", "service": service, "access_token": entra}
    refresh = client.post(f"{HOST}/oauth2/exchange", data=form).json()["refresh_token"]
    form = {"grant_type": "refresh_token", "service": service, "scope": scope}
    answer = client.post(f"{HOST}/oauth2/token", data={**form, "refresh_token": refresh})
    client.headers["Authorization"] = f"Bearer {answer.json()['access_token']}"
    return client


def test_a_client_without_a_token_learns_what_to_ask_for(bare: Server) -> None:
    answer = session(bare, "").get(f"{HOST}/v2/homeport/manifests/latest")
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"] == (
        f'Bearer realm="{HOST}/oauth2/token",service="homeportrehearsal.azurecr.io",'
        'scope="repository:homeport:pull"'
    )
    assert answer.json()["errors"][0]["code"] == "UNAUTHORIZED"


@pytest.mark.parametrize(
    ("scope", "method", "status"),
    [
        ("repository:homeport:pull", "GET", 503),
        ("repository:homeport:pull", "PUT", 401),
        ("repository:homeport:pull,push", "PUT", 503),
        ("repository:other:pull,push", "GET", 401),
    ],
)
def test_a_token_opens_what_it_was_issued_for(
    bare: Server, scope: str, method: str, status: int
) -> None:
    client = log_in(bare, scope)
    answer = client.request(method, f"{HOST}/v2/homeport/manifests/latest", data=b"x" * 100_000)
    assert answer.status_code == status
    if status == 503:
        assert "without a registry" in answer.json()["errors"][0]["message"]


def test_a_token_of_elsewhere_is_not_exchanged(bare: Server) -> None:
    answer = session(bare, "").post(f"{HOST}/oauth2/exchange", data={"access_token": "a.b.c"})
    assert answer.status_code == 401


def test_an_access_token_is_no_refresh_token(bare: Server) -> None:
    client = log_in(bare, "repository:homeport:pull")
    access = str(client.headers["Authorization"]).removeprefix("Bearer ")
    answer = client.post(f"{HOST}/oauth2/token", data={"refresh_token": access})
    assert answer.status_code == 401


@pytest.mark.parametrize("chunked", [False, True])
def test_blobs_pass_through_in_both_directions(
    registry: str, tmp_path: Path, chunked: bool
) -> None:
    blob = os.urandom(5_000_000)
    digest = f"sha256:{hashlib.sha256(blob).hexdigest()}"
    with bare_azure(tmp_path / "azure", registry=registry) as server:
        client = log_in(server, "repository:homeport:pull,push")
        place = client.post(f"{HOST}/v2/homeport/blobs/uploads/").headers["Location"]
        assert place.startswith("/v2/homeport/blobs/uploads/")
        body = iter([blob[:1_000_000], blob[1_000_000:]]) if chunked else blob
        put = client.put(f"{HOST}{place}", params={"digest": digest}, data=body)
        assert put.status_code == 201
        head = client.head(f"{HOST}/v2/homeport/blobs/{digest}")
        assert head.headers["Content-Length"] == str(len(blob))
        assert client.get(f"{HOST}/v2/homeport/blobs/{digest}").content == blob
        assert server.report()["problems"] == []


@pytest.mark.slow
def test_azures_own_client_pushes_and_reads_back(registry: str, tmp_path: Path) -> None:
    from azure.containerregistry import ContainerRegistryClient
    from azure.core.exceptions import ResourceNotFoundError
    from azure.identity import DefaultAzureCredential

    layer = os.urandom(6_000_000)  # more than one of its chunks
    with (
        bare_azure(tmp_path / "azure", registry=registry) as server,
        environment(server),
        DefaultAzureCredential() as credential,
        ContainerRegistryClient(HOST, credential) as client,
    ):
        config, size = client.upload_blob("homeport", io.BytesIO(b"{}"))
        digest, length = client.upload_blob("homeport", io.BytesIO(layer))
        kind = "application/vnd.oci.image"
        manifest = {
            "schemaVersion": 2,
            "mediaType": f"{kind}.manifest.v1+json",
            "config": {"mediaType": f"{kind}.config.v1+json", "digest": config, "size": size},
            "layers": [
                {"mediaType": f"{kind}.layer.v1.tar", "digest": digest, "size": length},
            ],
        }
        pushed = client.set_manifest("homeport", manifest, tag="serve-1")
        assert client.get_manifest("homeport", "serve-1").digest == pushed
        assert b"".join(client.download_blob("homeport", digest)) == layer
        with pytest.raises(ResourceNotFoundError):
            client.get_manifest("homeport", "nothing")
        assert server.report()["problems"] == []
