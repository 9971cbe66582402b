"""Tokens are counted where tiktoken has its table, and estimated from the bytes otherwise."""

from pathlib import Path
from typing import Any

import pytest

from scripts.azure.openai import tokens
from tests.scripts.azure.openai.conftest import write_rows


class Letters:
    """Every letter is a token."""

    def encode(self, text: str, disallowed_special: Any = ()) -> list[int]:
        return [ord(letter) for letter in text]


@pytest.fixture
def nowhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No table is on this machine."""
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path / "none"))


@pytest.mark.usefixtures("nowhere")
def test_without_the_table_bytes_are_divided_by_three(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "rows.jsonl")
    found = tokens.count(path, download=False)
    assert found.total == -(-path.stat().st_size // 3)
    assert not found.exact
    assert found.how == "estimated, 3 bytes a token"


def test_with_the_table_each_message_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokens, "_encoding", lambda download: Letters())
    found = tokens.count(write_rows(tmp_path / "rows.jsonl", 10), download=False)
    each = len("首都は 1") + len("キャンベラ") + 2 * tokens.EACH_MESSAGE
    assert (found.total, found.longest, found.exact) == (10 * each, each, True)


def test_a_picture_counts_as_its_tiles() -> None:
    encoding: Any = Letters()
    turn = {"role": "user", "content": [{"type": "text", "text": "ab"}, {"type": "image_url"}]}
    assert tokens._message(encoding, turn) == 2 + tokens.EACH_MESSAGE + tokens.EACH_IMAGE


@pytest.mark.usefixtures("nowhere")
def test_the_table_is_looked_for_where_tiktoken_keeps_it(tmp_path: Path) -> None:
    assert not tokens.is_cached()
    (tmp_path / "none").mkdir()
    # the name that tiktoken gives to the table of o200k_base
    (tmp_path / "none" / "fb374d419588a4632f3f557e76b4b70aebbca790").touch()
    assert tokens.is_cached()
