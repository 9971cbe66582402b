"""Secrets that can be recognised wherever they come out, and the search for them.

    tag = new_tag()
    planted = plant(tag, "HF_TOKEN", prefix="hf_")     # a value that carries the tag and its name
    finder = Finder(tag, {"endpoint key": key})        # and secrets that somebody else made
    finder.search(stream) -> {("HF_TOKEN", "base64"): 1}

A planted value ends in characters that URLs, JSON, HTML and shells write otherwise, and begins with
letters and digits that none of them touches: so one look for the tag finds it in all of these. What
hides even that has a look of its own: Base64 by each of its three alignments, hex, UTF-16.
"""

import base64
import binascii
import hashlib
import html
import io
import json
import re
import secrets
import urllib.parse
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import IO

CHUNK = 4 << 20
AWKWARD = "+/=&%\"'<é"
"""What a value ends in, as far as it may: a header takes ASCII only."""
TAG_LENGTH = 12
NAMED = 8
"""Hex digits that say which of the planted values it is."""
PATTERNS = {
    "a SAS signature": re.compile(rb"[?&;]sig=[A-Za-z0-9%+/]{20,}"),
    "a bearer token": re.compile(rb"eyJ[\w-]{20,4000}\.eyJ[\w-]{20,8000}\.[\w-]{20,}"),
    "a private key": re.compile(rb"-----BEGIN [A-Z ]*PRIVATE KEY-----\s+[A-Za-z0-9+/]{20}"),
}
"""Secrets that are made at run time, by their look."""
LONGEST_PATTERN = 16_000


@dataclass(frozen=True, slots=True)
class Planted:
    """A secret of ours."""

    name: str
    value: str


def new_tag() -> str:
    """Letters and digits that nothing else holds, whose Base64 has letters and digits too.

    Otherwise Base64 for URLs would be a second set of needles.
    """
    while True:
        tag = f"hpt{secrets.token_hex(5)}"[:TAG_LENGTH]
        if all(n.isalnum() for form, n in forms(tag.encode()) if form.startswith("Base64")):
            return tag


def plant(tag: str, name: str, *, prefix: str = "", suffix: str = AWKWARD[:-2]) -> Planted:
    """A value for the secret `name`, such as `hf_<tag><digest of the name>+/=&%"'`."""
    return Planted(name, f"{prefix}{tag}{_digest(name)}{suffix}")


def _digest(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()[:NAMED]


def forms(text: bytes) -> Iterator[tuple[str, bytes]]:
    """How `text` may come out, each without what depends on its neighbours."""
    yield "as it is", text
    for skip in range(3):
        # of a text that begins at any place in what was encoded, whole groups of three bytes
        whole = text[skip : skip + (len(text) - skip) // 3 * 3]
        yield f"Base64 from {skip}", base64.b64encode(whole)
    yield "hex", binascii.hexlify(text)
    yield "UTF-16", text.decode(errors="replace").encode("utf-16-le")


def _read(form: str, text: bytes) -> bytes:
    """What stands at the beginning of `text`, which is in that form."""
    if form.startswith("Base64"):
        return b"??"[: int(form[-1])] + base64.b64decode(text[:32].ljust(32, b"A"))
    if form == "hex":
        return binascii.unhexlify(re.match(rb"(?:[0-9a-f]{2})*", text[:64])[0])  # type: ignore[index]
    return text[:64:2] if form == "UTF-16" else text[:64]


def escaped(text: str) -> Iterator[tuple[str, bytes]]:
    """How a text whose characters are not ours to choose may be written."""
    yield from forms(text.encode())
    for form, other in (
        ("URL", urllib.parse.quote(text, safe="")),
        ("URL", urllib.parse.quote(text)),
        ("JSON", json.dumps(text)[1:-1]),
        ("JSON", json.dumps(text)[1:-1].replace("/", "\\/")),
        ("HTML", html.escape(text)),
    ):
        yield form, other.encode()
    yield "Base64 of URLs", base64.urlsafe_b64encode(text.encode()[: len(text.encode()) // 3 * 3])


class Finder:
    """Looks for all planted values of a tag, for `others` by name, and for PATTERNS."""

    def __init__(
        self,
        tag: str,
        names: list[str],
        others: Mapping[str, str] | None = None,
        *,
        patterns: bool = True,
    ) -> None:
        self._names = {_digest(name).encode(): name for name in names}
        self._tag = list(dict.fromkeys(forms(tag.encode())))
        self._others = [
            (name, form, needle)
            for name, value in (others or {}).items()
            for needle, form in _firsts(escaped(value)).items()
        ]
        self._patterns = PATTERNS if patterns else {}
        longest = [len(needle) for _, _, needle in self._others]
        self._overlap = max([256, *longest, LONGEST_PATTERN if patterns else 0])

    def search(self, stream: IO[bytes]) -> tuple[Counter[tuple[str, str]], int]:
        """What is found in a stream, by secret and form, and the bytes that were read.

        A value that lies across two chunks is found; one in the overlap is counted once.
        """
        found: Counter[tuple[str, str]] = Counter()
        before, size = b"", 0
        while chunk := stream.read(CHUNK):
            size += len(chunk)
            text = before + chunk
            for place, name, form, length in self._hits(text):
                if place + length > len(before):
                    found[(name, form)] += 1
            before = text[-self._overlap :]
        return found, size

    def search_bytes(self, text: bytes) -> Counter[tuple[str, str]]:
        """What is found in bytes that are at hand."""
        return self.search(io.BytesIO(text))[0]

    def _hits(self, text: bytes) -> Iterator[tuple[int, str, str, int]]:
        """Place, secret, form and length of each."""
        for form, needle in self._tag:
            for place in _places(text, needle):
                digest = _read(form, text[place : place + 64])[TAG_LENGTH:][:NAMED]
                yield place, self._names.get(digest, "a planted secret"), form, len(needle)
        for name, form, needle in self._others:
            for place in _places(text, needle):
                yield place, name, form, len(needle)
        for name, pattern in self._patterns.items():
            for match in pattern.finditer(text):
                yield match.start(), name, "as it is", match.end() - match.start()


def _firsts(forms: Iterable[tuple[str, bytes]]) -> dict[bytes, str]:
    """The first form of each needle: most characters are written alike in all."""
    found: dict[bytes, str] = {}
    for form, needle in forms:
        found.setdefault(needle, form)
    return found


def _places(text: bytes, needle: bytes) -> Iterator[int]:
    place = text.find(needle)
    while place >= 0:
        yield place
        place = text.find(needle, place + 1)
