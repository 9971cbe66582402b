from typing import Any

import pytest
import requests

from scripts.azure import history
from scripts.azure.history import Reader
from tests.scripts.azure.stand_ins import cloud_of

LOG = "user_logs/std_log.txt"
ADDRESS = "https://storage/log?sig=secret"


class Answer:
    def __init__(self, status: int, content: bytes = b"", content_range: str = "") -> None:
        self.status_code = status
        self.content = content
        self.headers = {"Content-Range": content_range}


class Storage:
    """A log that grows; answers with ranges, or with what is put in `wrong`."""

    def __init__(self, text: bytes = b"") -> None:
        self.text = text
        self.wrong: list[Answer | Exception] = []

    def get(
        self, address: str, headers: dict[str, str] | None = None, timeout: float = 0
    ) -> Answer:
        if self.wrong:
            wrong = self.wrong.pop(0)
            if isinstance(wrong, Exception):
                raise wrong
            return wrong
        start = int((headers or {"Range": "bytes=0-"})["Range"][6:-1])
        if start >= len(self.text):
            return Answer(416, content_range=f"bytes */{len(self.text)}")
        return Answer(206, self.text[start:])


def read(reader: Reader, storage: Any, name: str = LOG) -> bool:
    return reader.read_on(storage, {name: ADDRESS})


def test_lines_come_as_they_are_written_and_once() -> None:
    lines: list[str] = []
    reader, storage = Reader(lines.append), Storage(b"one\ntw")
    assert read(reader, storage)
    assert lines == ["one"]
    assert not read(reader, storage)
    storage.text += b"o\nthree"
    assert read(reader, storage)
    reader.finish()
    assert lines == ["one", "two", "three"]


def test_a_character_that_is_cut_by_a_look_is_whole_in_the_end() -> None:
    lines: list[str] = []
    whole = "首都\n".encode()
    reader, storage = Reader(lines.append), Storage(whole[:4])
    read(reader, storage)
    storage.text = whole
    read(reader, storage)
    assert lines == ["首都"]


@pytest.mark.parametrize(
    "wrong",
    [
        Answer(403, b"<?xml version='1.0'?><Error>expired</Error>"),
        Answer(404, b"<?xml version='1.0'?>"),
        Answer(503),
        requests.ConnectionError("reset"),
    ],
    ids=["SAS ended", "not there yet", "busy", "reset"],
)
def test_an_error_is_never_shown_as_the_log_and_the_next_look_goes_on(
    wrong: Answer | Exception,
) -> None:
    lines: list[str] = []
    reader, storage = Reader(lines.append), Storage(b"one\n")
    read(reader, storage)
    storage.text += b"two\n"
    storage.wrong = [wrong]
    assert not read(reader, storage)
    assert read(reader, storage)
    assert lines == ["one", "two"]


def test_a_server_without_ranges_repeats_nothing() -> None:
    lines: list[str] = []
    reader, storage = Reader(lines.append), Storage(b"one\n")
    read(reader, storage)
    storage.wrong = [Answer(200, b"one\ntwo\n")]
    read(reader, storage)
    assert lines == ["one", "two"]


def test_a_log_that_starts_anew_on_another_machine_is_read_from_its_start(
    capsys: pytest.CaptureFixture[str],
) -> None:
    lines: list[str] = []
    reader, storage = Reader(lines.append), Storage(b"a long first log\n")
    read(reader, storage)
    storage.text = b"new\n"
    read(reader, storage)
    read(reader, storage)
    assert lines == ["a long first log", "new"]
    assert "on another machine" in capsys.readouterr().err


def test_a_progress_bar_is_shown_as_it_ends() -> None:
    lines: list[str] = []
    read(Reader(lines.append), Storage(b"1 %\r50 %\r100 %\nnext\r\n"))
    assert lines == ["100 %", "next"]


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        (["system_logs/lifecycler.log", LOG], LOG),
        (
            ["user_logs/std_log_process_1.txt", "user_logs/std_log_process_0.txt"],
            "user_logs/std_log_process_0.txt",
        ),
        (["system_logs/cs_capability/cs.log"], ""),
    ],
)
def test_of_many_logs_that_of_the_first_process_is_read(names: list[str], chosen: str) -> None:
    reader = Reader(lambda line: None)
    storage: Any = Storage(b"x\n")
    reader.read_on(storage, dict.fromkeys(names, ADDRESS))
    assert reader.name == chosen


def test_a_job_is_followed_to_its_end_and_what_comes_late_is_shown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    storage = Storage(b"one\n")
    looks: list[dict[str, Any]] = [
        {"status": "Queued", "logFiles": {}},
        {"status": "Running", "logFiles": {LOG: ADDRESS}},
        {
            "status": "Failed",
            "logFiles": {LOG: ADDRESS},
            "startTimeUtc": "2026-01-01T00:00:00Z",
            "endTimeUtc": "2026-01-01T01:30:00Z",
            "error": {"error": {"code": "UserError", "message": "It broke."}},
        },
    ]

    def details(path: str, **_: Any) -> Any:
        assert path.endswith("/runs/job/details")
        if len(looks) == 1:
            storage.text = b"one\ntwo\nlast"
        return looks.pop(0) if len(looks) > 1 else looks[0]

    monkeypatch.setattr(requests.Session, "get", lambda _, *args, **kw: storage.get(*args, **kw))
    lines: list[str] = []
    end = history.follow(cloud_of(get=details), "job", lines.append, sleep=lambda seconds: None)
    assert lines == ["one", "two", "last"]
    assert (end.status, end.error, end.hours) == ("Failed", "It broke.", 1.5)
