import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from scripts.azure import registry as module
from scripts.azure import retry
from scripts.azure.registry import Registry, login_server
from scripts.errors import CloudError, UsageError
from tests.scripts.azure.fake_registry import FakeRegistry, Login, fake_registry

ARM_ID = "/subscriptions/s/resourceGroups/g/providers/Microsoft.ContainerRegistry/registries/Homes"


@pytest.fixture
def there() -> Iterator[FakeRegistry]:
    with fake_registry() as registry:
        yield registry


@pytest.fixture
def layer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, str]:
    """Five pieces and a bit."""
    monkeypatch.setattr(module, "PIECE", 1000)
    path = tmp_path / "layer"
    path.write_bytes(os.urandom(5100))
    return path, f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"


def client(there: FakeRegistry, login: Login | None = None) -> Registry:
    return Registry(there.url, "homeport", login or Login(), sleep=lambda seconds: None)


def test_a_layer_goes_in_pieces_with_one_login(
    there: FakeRegistry, layer: tuple[Path, str]
) -> None:
    login, seen = Login(), list[int]()
    client(there, login).upload(*layer, advance=seen.append)
    assert there.blobs == {layer[1]: layer[0].read_bytes()}
    assert seen == [1000] * 5 + [100]
    assert login.scopes == ["https://management.azure.com/.default"]
    assert there.counts["POST oauth2"] == 2
    assert there.received == 5100


def test_a_broken_connection_costs_no_byte_that_arrived(
    there: FakeRegistry, layer: tuple[Path, str], capsys: pytest.CaptureFixture[str]
) -> None:
    there.breaks = 2
    seen: list[int] = []
    client(there).upload(*layer, advance=seen.append)
    assert there.blobs[layer[1]] == layer[0].read_bytes()
    assert there.received == 5100
    assert sum(seen) == 5100
    assert "the connection broke" in capsys.readouterr().err


def test_an_upload_that_the_registry_lost_begins_anew(
    there: FakeRegistry, layer: tuple[Path, str]
) -> None:
    there.breaks = there.loses = 1
    client(there).upload(*layer)
    assert there.blobs[layer[1]] == layer[0].read_bytes()
    assert there.received == 6100


def test_a_token_that_ends_on_the_way_is_renewed(
    there: FakeRegistry, layer: tuple[Path, str]
) -> None:
    there.renews = 1
    client(there).upload(*layer)
    assert there.blobs[layer[1]] == layer[0].read_bytes()
    assert there.counts["POST oauth2"] == 4


def test_the_token_stays_with_the_registry_whatever_location_says(
    there: FakeRegistry, layer: tuple[Path, str]
) -> None:
    there.location = "https://elsewhere.invalid"
    client(there).upload(*layer)
    assert layer[1] in there.blobs


def test_a_busy_registry_is_asked_again(there: FakeRegistry) -> None:
    there.refuses = [429, 503]
    assert client(there).digest("train-1") == ""
    assert there.counts["HEAD manifests"] == 4  # twice refused, once challenged, once answered


def test_a_layer_that_changed_on_its_way_is_refused(
    there: FakeRegistry, layer: tuple[Path, str]
) -> None:
    with pytest.raises(CloudError, match="digest did not match"):
        client(there).upload(layer[0], f"sha256:{'0' * 64}")
    assert not there.blobs


def test_who_may_not_push_is_told_the_role(there: FakeRegistry) -> None:
    there.forbids = True
    with pytest.raises(CloudError, match="az role assignment create --role AcrPush"):
        client(there).digest("train-1")


def test_a_manifest_is_found_by_its_tag(there: FakeRegistry) -> None:
    registry = client(there)
    digest = registry.put_manifest("train-1", b'{"layers": []}')
    assert registry.digest("train-1") == digest
    assert registry.manifest(digest) == {"layers": []}


def cloud(answer: Any, registry_id: str = ARM_ID) -> Any:
    def get(path: str, api_version: str) -> Any:
        assert path == registry_id
        if isinstance(answer, Exception):
            raise answer
        return answer

    workspace = SimpleNamespace(registry_id=registry_id, resource_group="g", name="w")
    return cast("Any", SimpleNamespace(workspace=workspace, rest=SimpleNamespace(get=get)))


def test_the_registry_says_its_own_host() -> None:
    answer = {"properties": {"loginServer": "homes-abc123.azurecr.io"}}
    assert login_server(cloud(answer)) == "homes-abc123.azurecr.io"


def test_who_may_push_but_not_read_its_settings_gets_the_usual_host() -> None:
    refused = retry.Refused("could not read", 403, "AuthorizationFailed")
    assert login_server(cloud(refused)) == "homes.azurecr.io"


def test_another_refusal_is_not_hidden() -> None:
    with pytest.raises(retry.NotFound):
        login_server(cloud(retry.NotFound("gone", 404)))


def test_a_workspace_without_registry_is_told_how_to_get_one() -> None:
    with pytest.raises(UsageError, match="az acr create"):
        login_server(cloud({}, registry_id=""))
