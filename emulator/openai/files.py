"""Files of a resource: uploaded whole, uploaded by parts, or imported from a URL.

A file is `pending` until it has been looked at, then `processed`, or `error` with the reason. An
import is a real GET of the URL; a rehearsal reaches only its own storage account.
"""

import http.client
import re
import shutil
import ssl
import threading
import time
import traceback
import urllib.parse
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from emulator.azure import Azure
from emulator.http import Refusal, Reply, Request, Route
from emulator.openai import plane, rows
from emulator.openai.accounts import Account
from emulator.openai.plane import clock, page

MOST_BYTES = 512_000_000
"""Of a file that is uploaded whole or imported."""
MOST_PART_BYTES = 64 << 20
MOST_UPLOAD_BYTES = 8 << 30
UPLOAD_SECONDS = 3600
"""How long an upload by parts may take."""
LOOK_SECONDS = 0.2
"""That a file stays pending at least."""
PURPOSES = ("fine-tune", "assistants", "batch", "user_data", "evals", "vision")


@dataclass(slots=True, kw_only=True)
class StoredFile:
    """One file."""

    id: str
    filename: str
    purpose: str
    path: Path
    status: str = "pending"
    details: str = ""
    created: int = field(default_factory=clock)

    def view(self) -> dict[str, Any]:
        return {
            "object": "file",
            "id": self.id,
            "purpose": self.purpose,
            "filename": self.filename,
            "bytes": self.path.stat().st_size if self.path.exists() else 0,
            "created_at": self.created,
            "status": self.status,
            **({"status_details": self.details} if self.details else {}),
        }


@dataclass(slots=True, kw_only=True)
class Upload:
    """One upload by parts."""

    id: str
    filename: str
    purpose: str
    bytes: int
    folder: Path
    status: str = "pending"
    parts: dict[str, Path] = field(default_factory=dict)
    file: StoredFile | None = None
    created: int = field(default_factory=clock)

    def view(self) -> dict[str, Any]:
        return {
            "object": "upload",
            "id": self.id,
            "purpose": self.purpose,
            "filename": self.filename,
            "bytes": self.bytes,
            "created_at": self.created,
            "expires_at": self.created + UPLOAD_SECONDS,
            "status": self.status,
            "file": self.file.view() if self.file else None,
        }


def add(account: Account, filename: str, purpose: str, data: bytes = b"") -> StoredFile:
    """Keep a file; nobody has looked at it yet."""
    path = account.folder / "files" / f"file-{uuid.uuid4().hex}"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    kept = StoredFile(id=path.name, filename=filename, purpose=purpose, path=path)
    account.files[kept.id] = kept
    return kept


def find(account: Account, file_id: str) -> StoredFile:
    """The file; Refusal 404 where there is none."""
    kept = account.files.get(file_id)
    if kept is None:
        raise Refusal(404, "resourceNotFound", f"File {file_id} was not found.")
    found: StoredFile = kept
    return found


def create(azure: Azure, account: Account, request: Request, groups: Mapping[str, str]) -> Reply:
    """POST files: a form with `purpose` and `file`."""
    form = form_of(request)
    filename, data = _field(form, "file")
    purpose = _purpose(_field(form, "purpose")[1].decode(errors="replace"))
    if len(data) >= MOST_BYTES:
        raise Refusal(413, "fileTooLarge", "The file must be less than 512 MB in size.")
    kept = add(account, filename or "file", purpose, data)
    return _made(azure, account, kept)


def listed(account: Account, request: Request, groups: Mapping[str, str]) -> Reply:
    """GET files, newest first; `purpose` picks."""
    purpose = request.query.get("purpose", "")
    found = [f for f in account.files.values() if purpose in ("", f.purpose)]
    return page(request, [f.view() for f in reversed(found)])


def get(account: Account, request: Request, groups: Mapping[str, str]) -> Reply:
    """GET files/ID."""
    return Reply(200, find(account, groups["file"]).view())


def content(account: Account, request: Request, groups: Mapping[str, str]) -> Reply:
    """GET files/ID/content."""
    kept = find(account, groups["file"])
    return Reply(200, kept.path.read_bytes(), {"Content-Type": "application/octet-stream"})


def delete(account: Account, request: Request, groups: Mapping[str, str]) -> Reply:
    """DELETE files/ID."""
    kept = find(account, groups["file"])
    del account.files[kept.id]
    kept.path.unlink(missing_ok=True)
    return Reply(200, {"object": "file", "id": kept.id, "deleted": True})


def import_(azure: Azure, account: Account, request: Request, groups: Mapping[str, str]) -> Reply:
    """POST files/import: the service itself reads `content_url`."""
    given = request.json()
    for name in ("purpose", "filename", "content_url"):
        if not isinstance(given.get(name), str) or not given[name]:
            raise Refusal(400, "invalidPayload", f"The field '{name}' is required.")
    kept = add(account, given["filename"], _purpose(given["purpose"]))
    return _made(azure, account, kept, given["content_url"])


def begin_upload(account: Account, request: Request, groups: Mapping[str, str]) -> Reply:
    """POST uploads."""
    given = request.json()
    if not 0 < given["bytes"] <= MOST_UPLOAD_BYTES:
        raise Refusal(400, "invalidPayload", "An upload has between 1 byte and 8 GB.")
    name = f"upload_{uuid.uuid4().hex}"
    folder = account.folder / "uploads" / name
    folder.mkdir(parents=True)
    upload = Upload(
        id=name,
        filename=given["filename"],
        purpose=_purpose(given["purpose"]),
        bytes=given["bytes"],
        folder=folder,
    )
    account.uploads[name] = upload
    return Reply(201, upload.view())


def add_part(account: Account, request: Request, groups: Mapping[str, str]) -> Reply:
    """POST uploads/ID/parts: a form with `data`."""
    upload = _pending(account, groups["upload"])
    data = _field(form_of(request), "data")[1]
    if len(data) > MOST_PART_BYTES:
        raise Refusal(413, "fileTooLarge", "A part has 64 MB at most.")
    name = f"part_{uuid.uuid4().hex}"
    (upload.folder / name).write_bytes(data)
    upload.parts[name] = upload.folder / name
    part = {"object": "upload.part", "id": name, "created_at": clock(), "upload_id": upload.id}
    return Reply(201, part)


def complete(azure: Azure, account: Account, request: Request, groups: Mapping[str, str]) -> Reply:
    """POST uploads/ID/complete: the parts, in the order that is asked for, make the file."""
    upload = _pending(account, groups["upload"])
    wanted = request.json()["part_ids"]
    if unknown := [part for part in wanted if part not in upload.parts]:
        raise Refusal(400, "invalidPayload", f"The upload has no part {unknown[0]}.")
    size = sum(upload.parts[part].stat().st_size for part in wanted)
    if size != upload.bytes:
        sentence = f"The parts have {size} bytes, the upload was begun for {upload.bytes}."
        raise Refusal(400, "invalidPayload", sentence)
    kept = add(account, upload.filename, upload.purpose)
    with kept.path.open("wb") as whole:
        for part in wanted:
            with upload.parts[part].open("rb") as piece:
                shutil.copyfileobj(piece, whole)
    _end_upload(upload, "completed")
    upload.file = kept
    reply = Reply(200, upload.view())
    _look_later(azure, kept)
    return reply


def cancel_upload(account: Account, request: Request, groups: Mapping[str, str]) -> Reply:
    """POST uploads/ID/cancel."""
    upload = _pending(account, groups["upload"])
    _end_upload(upload, "cancelled")
    return Reply(200, upload.view())


def form_of(request: Request) -> dict[str, tuple[str, bytes]]:
    """Filename and bytes of each field of a multipart form."""
    found = re.search(r'boundary="?([^";]+)', request.headers.get("content-type", ""))
    if not found:
        raise Refusal(400, "invalidPayload", "The body is no form (multipart/form-data).")
    fields = {}
    for part in request.body.split(b"--" + found[1].encode())[1:-1]:
        head, _, data = part.partition(b"\r\n\r\n")
        described = head.decode(errors="replace")
        name = re.search(r'[; ]name="([^"]*)"', described)
        filename = re.search(r'filename="([^"]*)"', described)
        if name:
            fields[name[1]] = (filename[1] if filename else "", data.removesuffix(b"\r\n"))
    return fields


def _field(form: dict[str, tuple[str, bytes]], name: str) -> tuple[str, bytes]:
    if name not in form:
        raise Refusal(400, "invalidPayload", f"The field '{name}' is required.")
    return form[name]


def _purpose(purpose: str) -> str:
    if purpose not in PURPOSES:
        raise Refusal(400, "invalidPayload", f"The purpose '{purpose}' is not supported.")
    return purpose


def _pending(account: Account, name: str) -> Upload:
    upload = account.uploads.get(name)
    if upload is None:
        raise Refusal(404, "resourceNotFound", f"Upload {name} was not found.")
    found: Upload = upload
    if found.status == "pending" and clock() > found.created + UPLOAD_SECONDS:
        _end_upload(found, "expired")
    if found.status != "pending":
        raise Refusal(400, "invalidPayload", f"Upload {name} is {found.status}.")
    return found


def _end_upload(upload: Upload, status: str) -> None:
    shutil.rmtree(upload.folder, ignore_errors=True)
    upload.status = status


def _made(azure: Azure, account: Account, kept: StoredFile, url: str = "") -> Reply:
    """The answer shows it as it came; only then it is looked at."""
    location = f"{account.endpoint}openai/v1/files/{kept.id}"
    reply = Reply(201, kept.view(), {"Location": location})
    _look_later(azure, kept, url)
    return reply


def _look_later(azure: Azure, kept: StoredFile, url: str = "") -> None:
    def look() -> None:
        try:
            time.sleep(LOOK_SECONDS)
            flaw = _download(azure, url, kept.path) if url else ""
            if not flaw and kept.purpose == "fine-tune":
                flaw = rows.encoding_flaw(kept.path)
        except FileNotFoundError:
            return  # it was deleted meanwhile
        except Exception:
            azure.journal.problem(f"file {kept.id}: {traceback.format_exc()}")
            flaw = "A bug of the rehearsal."
        kept.details = flaw
        kept.status = "error" if flaw else "processed"

    threading.Thread(target=look, name=kept.id, daemon=True).start()


def _download(azure: Azure, url: str, target: Path) -> str:
    """GET `url` into the file; why not, or nothing."""
    parts = urllib.parse.urlsplit(url)
    own = f"{azure.settings.account}.blob.core.windows.net"
    if parts.scheme != "https" or parts.hostname != own:
        return f"The URL cannot be read: in a rehearsal only https://{own} can be reached."
    try:
        answer = _get(azure, own, f"{parts.path}?{parts.query}")
    except (OSError, http.client.HTTPException) as problem:
        return f"The URL cannot be read: {problem}."
    if answer.status != 200:
        return f"The URL cannot be read: it answers {answer.status} {answer.reason}."
    with target.open("wb") as file:
        shutil.copyfileobj(answer, file)
    return (
        "" if target.stat().st_size < MOST_BYTES else "The file must be less than 512 MB in size."
    )


def _get(azure: Azure, host: str, target: str) -> http.client.HTTPResponse:
    """Ask the storage itself, without the proxy and without any right but what the URL carries."""
    context = ssl.create_default_context(cafile=str(azure.settings.folder / "pki" / "ca.pem"))
    connection = _Storage(host, azure.storage.address, context)
    connection.request("GET", target, headers={"Host": host, "Connection": "close"})
    return connection.getresponse()


class _Storage(http.client.HTTPSConnection):
    """A connection to the storage's address under Azure's name, by which its TLS is verified."""

    def __init__(self, host: str, address: tuple[str, int], context: ssl.SSLContext) -> None:
        super().__init__(host, timeout=60, context=context)
        self._address, self._verified = address, context

    def connect(self) -> None:
        plain = http.client.HTTPConnection(*self._address, timeout=self.timeout)
        plain.connect()
        self.sock = self._verified.wrap_socket(plain.sock, server_hostname=self.host)


def routes(azure: Azure) -> list[Route]:
    file, upload = r"/files/(?P<file>[^/]+)", r"/uploads/(?P<upload>[^/]+)"
    return [
        plane.route(azure, "POST", "/files", partial(create, azure)),
        plane.route(azure, "POST", "/files/import", partial(import_, azure)),
        plane.route(azure, "GET", "/files", listed),
        plane.route(azure, "GET", file, get),
        plane.route(azure, "DELETE", file, delete),
        plane.route(azure, "GET", f"{file}/content", content),
        plane.route(azure, "POST", "/uploads", begin_upload),
        plane.route(azure, "POST", f"{upload}/parts", add_part),
        plane.route(azure, "POST", f"{upload}/complete", partial(complete, azure)),
        plane.route(azure, "POST", f"{upload}/cancel", cancel_upload),
    ]
