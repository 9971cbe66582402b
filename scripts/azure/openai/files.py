"""Files of rows on an Azure OpenAI resource: uploaded or imported once, found again by name.

    name = name_of("azure-openai-ja", "train", sha256)
    file = upload(service, account, name, path)        # large ones by parts
    file = bring_in(account, service, name, url)       # from a blob's address
    wait(service, file)

The name holds the hash of what is in it, so the same rows are not sent twice. An upload by parts
that broke goes on with the parts that are there.
"""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scripts.azure.blobs import read
from scripts.azure.openai.accounts import Account
from scripts.azure.openai.client import SCOPE, call
from scripts.azure.retry import NotFound, Refused
from scripts.console import say
from scripts.errors import CloudError
from scripts.settings import CACHE

if TYPE_CHECKING:
    from openai import OpenAI
    from openai.types import FileObject

OURS = "homeport-"
"""Begins the names of the files that we upload."""
PURPOSE = "fine-tune"
WHOLE_BYTES = 100_000_000
"""Above this a file goes by parts: single requests of more than 150 MB have failed later."""
PART_BYTES = 16 << 20
IMPORT_API = "2024-10-21"
"""The import is not among the calls of the versionless API."""
LOOK_SECONDS = 2.0
READY_SECONDS = 1800.0
RENEW_SECONDS = 300
"""An upload by parts that expires sooner than this is begun anew."""
GONE = (400, 404, 409, 410, 413)
"""Statuses of an upload by parts that the service does not know, or not take any more."""
DIGITS = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class File:
    """One uploaded file."""

    id: str
    name: str
    bytes: int
    status: str

    @property
    def ours(self) -> bool:
        return self.name.startswith(OURS)


def name_of(recipe: str, role: str, content: str) -> str:
    """The file's name there; `content` is a hash of it."""
    return f"{OURS}{recipe}-{role}-{content[:DIGITS]}.jsonl"


def listed(service: "OpenAI") -> list[File]:
    """All files of rows there."""
    found = call("list the files", lambda: list(service.files.list(purpose=PURPOSE)))
    return [_file(each) for each in found]


def find(service: "OpenAI", name: str) -> File | None:
    """The file of that name that the service has not refused."""
    there = [file for file in listed(service) if file.name == name and file.status != "error"]
    return there[0] if there else None


def upload(
    service: "OpenAI",
    account: Account,
    name: str,
    path: Path,
    *,
    whole: int = WHOLE_BYTES,
    part: int = PART_BYTES,
    cache: Path = CACHE,
) -> File:
    """The file there under that name, sent unless it was before."""
    content = read(path)
    if file := find(service, name):
        say(f"rows:   {name} (there already)")
        return file
    say(f"rows:   {name}, {content.size / 1e6:.1f} MB")
    if content.size > whole:
        notes = cache / "uploads" / f"{account.name}-{content.sha256[:32]}.json"
        return _by_parts(service, name, path, content.md5.hex(), part, notes)

    def send() -> "FileObject":
        with path.open("rb") as file:
            return service.files.create(file=(name, file, "application/jsonl"), purpose=PURPOSE)

    return _file(call(f"upload {name}", send))


def _by_parts(service: "OpenAI", name: str, path: Path, md5: str, size: int, notes: Path) -> File:
    """Send what is missing of an upload by parts; `notes` remember what is there."""
    known = _noted(notes, size)
    if not known:
        made = call(
            f"begin the upload of {name}",
            lambda: service.uploads.create(
                bytes=path.stat().st_size,
                filename=name,
                mime_type="application/jsonl",
                purpose=PURPOSE,
            ),
        )
        known = {"id": made.id, "expires": made.expires_at, "size": size, "parts": []}
    parts: list[str] = known["parts"]
    if parts:
        say(f"upload: {name} goes on after {len(parts)} parts")
    count = -(-path.stat().st_size // size)
    try:
        with path.open("rb") as file:
            for number in range(len(parts), count):
                file.seek(number * size)
                data = file.read(size)

                def send(data: bytes = data) -> str:
                    return str(service.uploads.parts.create(known["id"], data=data).id)

                parts.append(call(f"upload part {number + 1} of {name}", send))
                notes.parent.mkdir(parents=True, exist_ok=True)
                notes.write_text(json.dumps(known), encoding="utf-8")
                say(f"upload: {name} {100 * len(parts) // count} %")
        done = call(
            f"end the upload of {name}",
            lambda: service.uploads.complete(known["id"], part_ids=parts, md5=md5),
        )
    except Refused as error:
        if error.status in GONE:  # it is not to be gone on with
            notes.unlink(missing_ok=True)
        raise
    notes.unlink(missing_ok=True)
    if done.file is None:
        raise CloudError(f"the upload of {name} ended {done.status}: give the same command again.")
    return _file(done.file)


def _noted(notes: Path, size: int) -> dict[str, Any]:
    """An upload that can be gone on with; empty where there is none."""
    try:
        known: dict[str, Any] = json.loads(notes.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    fits = known.get("size") == size and known.get("expires", 0) > time.time() + RENEW_SECONDS
    return known if fits else {}


def bring_in(account: Account, service: "OpenAI", name: str, url: str) -> File:
    """Have the service read a blob by itself; `url` carries what it needs to be let in."""
    if file := find(service, name):
        say(f"rows:   {name} (there already)")
        return file
    body = {"purpose": PURPOSE, "filename": name, "content_url": url}
    found = account.rest.post(
        f"{account.endpoint}/openai/files/import", body, IMPORT_API, scope=SCOPE, again=False
    )
    say(f"rows:   {name}, imported from {url.partition('?')[0]}")
    return File(
        id=found["id"],
        name=name,
        bytes=int(found.get("bytes") or 0),
        status=str(found.get("status") or "pending"),
    )


def wait(service: "OpenAI", file: File, *, sleep: Callable[[float], None] = time.sleep) -> File:
    """Until the service has read it; CloudError where it refuses it."""
    end = time.monotonic() + READY_SECONDS
    while file.status != "processed":
        found = call(f"read {file.name}", partial(service.files.retrieve, file.id))
        if found.status == "error":
            reason = found.status_details or "it does not say why"
            raise CloudError(
                f"Azure OpenAI refuses {file.name}: {reason}. Correct the rows; nothing was billed."
            )
        file = _file(found)
        if file.status == "processed":
            break
        if time.monotonic() > end:
            raise CloudError(
                f"Azure OpenAI has not read {file.name} within {READY_SECONDS / 60:.0f} min "
                f"({file.status}): give the same command again later."
            )
        sleep(LOOK_SECONDS)
    return file


def delete(service: "OpenAI", file_id: str) -> None:
    """Delete a file; that it is gone already is fine."""
    try:
        call(f"delete {file_id}", lambda: service.files.delete(file_id))
    except NotFound:
        return


def _file(found: "FileObject") -> File:
    return File(id=found.id, name=found.filename, bytes=found.bytes, status=str(found.status))
