"""What the service says of itself, for trials."""

import requests

from emulator.server import Server
from tests.local_azure import session


def url(server: Server, below: str) -> str:
    workspace = server.azure.settings.workspace_id
    return f"https://management.azure.com{workspace}{below}"


def hashed(server: Server, name: str) -> list[str]:
    """The sha256 of each resource, where it was asked for."""
    asked = requests.get(f"{server.proxy_url}/resources", params={"hashed": name}, timeout=5)
    return [row["sha256"] for row in asked.json()["resources"]]


def test_it_lists_what_was_made_and_leaves_out_what_was_there(bare: Server) -> None:
    control = f"{bare.proxy_url}/resources"
    assert requests.get(control, timeout=5).json() == {"resources": [], "serving": []}
    made = session(bare).put(
        url(bare, "/onlineEndpoints/mine?api-version=2022-02-01-preview"),
        json={"location": "eastus", "properties": {"authMode": "Key"}},
    )
    assert made.status_code == 201
    (row,) = requests.get(control, timeout=5).json()["resources"]
    assert row["id"].endswith("/onlineEndpoints/mine")
    assert (row["traffic"], row["sha256"]) == ({}, "")


def test_an_asset_is_known_by_its_bytes_where_that_is_asked(bare: Server) -> None:
    storage, settings = bare.azure.storage, bare.azure.settings
    place = "azureml://datastores/workspaceblobstore/paths/{}"
    for version, text in (("1", b"a"), ("2", b"a"), ("3", b"b")):
        storage.write(settings.blob_container, f"rows/{version}/file", text)
        body = {
            "properties": {"dataType": "uri_folder", "dataUri": place.format(f"rows/{version}/")}
        }
        path = f"/data/rows/versions/{version}?api-version=2023-04-01-preview"
        assert session(bare).put(url(bare, path), json=body).status_code == 201
    hashes = hashed(bare, "rows")
    assert hashes[0] == hashes[1] != hashes[2]

    assert hashed(bare, "others") == hashed(bare, "") == [""] * 3  # reading all takes seconds
