"""Rows that lie in Azure already: the address that Azure OpenAI imports them from.

    blob = locate(cloud, "azureml:my-rows:3", "data.train")
    blob = locate(cloud, "https://ACCOUNT.blob.core.windows.net/rows/train.jsonl?sv=…", …)

What is in them is not read here, so they are neither checked nor counted: their size says how many
tokens there are about. No log or message of ours shows an address with its signature.
"""

import datetime
from dataclasses import dataclass
from pathlib import PurePosixPath

from scripts.azure import retry
from scripts.azure.blobs import SAS_HOURS, Blob, Datastore
from scripts.azure.blobs import locate as located
from scripts.azure.client import WORKSPACE_API, Cloud, NotFound
from scripts.azure.openai.validate import MOST_BYTES
from scripts.errors import CloudError, UsageError

REMOTE = ("https://", "azureml:")
"""How rows that are not here are named."""
SECONDS = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Remote:
    """One file of rows in a storage account."""

    place: str
    """As people may read it."""
    url: str
    """With what lets the service in."""
    bytes: int
    version: str
    """Changes when the file does."""


def is_remote(place: str | None) -> bool:
    return bool(place) and str(place).startswith(REMOTE)


def find(cloud: Cloud, place: str, key: str) -> Remote:
    """The file; `key` of the recipe names it. UsageError where it cannot be taken."""
    found = _asset(cloud, place, key) if place.startswith("azureml:") else _web(place, key)
    if found.bytes >= MOST_BYTES:
        raise UsageError(
            f"{key}: {found.place} has {found.bytes / 1e6:.0f} MB: Azure OpenAI takes less than "
            "512 MB a file."
        )
    return found


def _web(url: str, key: str) -> Remote:
    import requests

    place = url.partition("?")[0]
    try:
        reply = requests.head(url, timeout=SECONDS, allow_redirects=True)
    except requests.RequestException as error:
        raise CloudError(f"{key}: {place} cannot be reached ({type(error).__name__}).") from None
    if not reply.ok:
        raise UsageError(
            f"{key}: {place} answers {reply.status_code}: give an address that anybody who has it "
            "may read, such as a blob's with its SAS."
        )
    version = reply.headers.get("ETag") or reply.headers.get("Last-Modified") or ""
    size = int(reply.headers.get("Content-Length") or 0)
    return Remote(place=place, url=url, bytes=size, version=version)


def _asset(cloud: Cloud, place: str, key: str) -> Remote:
    """A data asset or datastore path of the workspace, signed for a few hours."""
    uri = place if place.startswith("azureml://") else _path(cloud, place, key)
    name, path = located(uri)
    store = Datastore(cloud, name)
    there = store.listed(path)
    if len(there) != 1:
        raise UsageError(
            f"{key}: {place} holds {len(there)} files: Azure OpenAI imports one; name a uri_file."
        )
    return Remote(
        place=place,
        url=_signed(cloud, name, there[0]),
        bytes=there[0].size,
        version=(there[0].md5 or b"").hex() or f"{uri} {there[0].size}",
    )


def _path(cloud: Cloud, place: str, key: str) -> str:
    name, _, version = place.removeprefix("azureml:").partition(":")
    if not version:
        raise UsageError(f"{key} is {place}: give the version too, azureml:NAME:VERSION.")
    try:
        data = retry.call(f"look for {place}", lambda: cloud.ml.data.get(name, version))
    except NotFound:
        raise UsageError(
            f"{key}: there is no data asset {place} in workspace {cloud.workspace.name}: "
            "az ml data list"
        ) from None
    return str(data.path)


def _signed(cloud: Cloud, datastore: str, blob: Blob) -> str:
    """The blob's address with a signature, made of what the workspace hands out."""
    from azure.storage.blob import BlobSasPermissions, generate_blob_sas

    arm_id = f"{cloud.workspace.id}/datastores/{datastore}"
    store = cloud.rest.get(arm_id, WORKSPACE_API)["properties"]
    account, container = store["accountName"], store["containerName"]
    end = store.get("endpoint") or "core.windows.net"
    if (store.get("credentials") or {}).get("credentialsType") == "None":
        raise UsageError(
            f"datastore {datastore} gives out no key, so {PurePosixPath(blob.path).name} cannot be "
            "signed for Azure OpenAI: give its address with a SAS of your own."
        )
    body = {"expirableSecret": True, "expireAfterHours": SAS_HOURS}
    secret = cloud.rest.post(f"{arm_id}/listSecrets", body, WORKSPACE_API)
    if secret["secretsType"] == "Sas":
        token = str(secret["sasToken"]).removeprefix("?")
    else:
        token = generate_blob_sas(
            account,
            container,
            blob.path,
            account_key=secret["key"],
            permission=BlobSasPermissions(read=True),
            expiry=datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=SAS_HOURS),
        )
    return f"https://{account}.blob.{end}/{container}/{blob.path}?{token}"
