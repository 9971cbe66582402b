"""The search finds what is planted, however it is written and wherever a chunk ends."""

import base64
import html
import io
import json
import shlex
import urllib.parse
from collections.abc import Callable

import pytest

from trials import secrets_markers
from trials.secrets_markers import Finder, new_tag, plant

TAG = new_tag()
TOKEN = plant(TAG, "HF_TOKEN", prefix="hf_")
OTHER = 'k9+/x==&"made elsewhere"<é>\''

WRITTEN: dict[str, Callable[[str], bytes]] = {
    "as it is": lambda text: text.encode(),
    "for a URL": lambda text: urllib.parse.quote(text, safe="").encode(),
    "as JSON": lambda text: json.dumps(text).encode(),
    "as JSON in JSON": lambda text: json.dumps(json.dumps(text)).encode(),
    "as HTML": lambda text: html.escape(text).encode(),
    "for a shell": lambda text: shlex.quote(text).encode(),
    "as Python": lambda text: repr(text).encode(),
    "as hex": lambda text: text.encode().hex().encode(),
    "as UTF-16": lambda text: text.encode("utf-16-le"),
    "Base64": lambda text: base64.b64encode(text.encode()),
    "Base64, one byte before": lambda text: base64.b64encode(b"u" + text.encode()),
    "Base64, two bytes before": lambda text: base64.b64encode(b"u:" + text.encode()),
    "Base64 for URLs": lambda text: base64.urlsafe_b64encode(b"user:" + text.encode()),
}


@pytest.mark.parametrize("write", WRITTEN.values(), ids=list(WRITTEN))
def test_a_planted_secret_is_found_and_named_however_it_is_written(
    write: Callable[[str], bytes],
) -> None:
    found = Finder(TAG, ["HF_TOKEN"]).search_bytes(b"log: " + write(TOKEN.value) + b" end")
    assert [name for name, _ in found] == ["HF_TOKEN"]


@pytest.mark.parametrize(
    "how", ["as it is", "for a URL", "as JSON", "as HTML", "as hex", "as UTF-16", "Base64"]
)
def test_a_secret_that_others_made_is_found_too(how: str) -> None:
    found = Finder(TAG, [], {"endpoint key": OTHER}).search_bytes(b"x" + WRITTEN[how](OTHER))
    assert {name for name, _ in found} == {"endpoint key"}


@pytest.mark.parametrize(
    "leak",
    [
        b"https://a.blob.core.windows.net/c/x?sv=2024&sig=Zm9vYmFyZm9vYmFyZm9vYmFy%3D",
        b"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6.eyJhdWQiOiJodHRwczovL21h.c2lnbmF0dXJlc2lnbmF0dXJl",
        b"-----BEGIN " + b"PRIVATE KEY-----\nMIIEvQIBADANBgkqhkiG9w0BAQ",
    ],
)
def test_secrets_of_the_run_are_known_by_their_look(leak: bytes) -> None:
    assert sum(Finder(TAG, []).search_bytes(leak).values()) == 1
    assert not Finder(TAG, [], patterns=False).search_bytes(leak)


def test_a_secret_across_two_chunks_is_found_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(secrets_markers, "CHUNK", 1000)
    for before in range(960, 1010, 7):
        text = b"." * before + TOKEN.value.encode() + b"." * 5000
        found, size = Finder(TAG, ["HF_TOKEN"]).search(io.BytesIO(text))
        assert (found.total(), size) == (1, len(text))


def test_what_is_hidden_or_of_another_run_is_no_finding() -> None:
    finder = Finder(TAG, ["HF_TOKEN"])
    assert not finder.search_bytes(b"HF_TOKEN=hf_... sig=\xe2\x80\xa6 " + TAG[:8].encode())
    assert not finder.search_bytes(plant(new_tag(), "HF_TOKEN").value.encode())
