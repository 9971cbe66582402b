"""A job's log and state as they come, from run history.

    end = follow(cloud, "tiny-ja-0123456789", print)

The SDK's jobs.stream shows storage errors as if they were the log, so it is not used: run history
names the log files (`/details`), and each look reads on from the byte that it has. A broken
connection, a SAS that has ended, a log that starts anew on another machine: it goes on. Nothing of
the job depends on somebody following.
"""

import codecs
import datetime
import functools
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from scripts.azure import retry
from scripts.azure.client import TIMEOUT_SECONDS, Cloud
from scripts.azure.texts import moment
from scripts.console import say

if TYPE_CHECKING:
    import requests

HISTORY_API = "v1.0"
ENDED = frozenset({"Completed", "Failed", "Canceled"})
LOG = re.compile(r"user_logs/std_log(_process_0+)?\.txt")
"""What the command prints; of several processes the first one's."""
OTHERS = re.compile(r"user_logs/std_log_process_\d+\.txt")
LOOK_SECONDS = 2.0
REHEARSED_LOOK_SECONDS = 0.5
SETTLE_LOOKS = 3
"""Looks after the end for lines that come late."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Details:
    """What run history knows of a job."""

    status: str
    logs: Mapping[str, str]
    """Signed address of each log file; no log or message of ours shows one."""
    error: str
    """The service's words where it failed."""
    started: datetime.datetime | None
    """When its machine began to work."""
    ended: datetime.datetime | None

    @property
    def over(self) -> bool:
        return self.status in ENDED

    @property
    def hours(self) -> float:
        """From the start to the end, or to now."""
        if self.started is None:
            return 0.0
        end = self.ended or (self.started if self.over else datetime.datetime.now(datetime.UTC))
        return max((end - self.started).total_seconds(), 0.0) / 3600


def details(cloud: Cloud, job: str) -> Details:
    """One look at the job; waits long for a network that is away."""
    address = f"{cloud.workspace.api}/history/v1.0{cloud.workspace.id}/runs/{job}/details"
    found = cloud.rest.get(address, HISTORY_API, waits=retry.PATIENT)
    return Details(
        status=found.get("status") or "Unknown",
        logs=found.get("logFiles") or {},
        error=_message(found.get("error")),
        started=moment(found.get("startTimeUtc")),
        ended=moment(found.get("endTimeUtc")),
    )


def follow(
    cloud: Cloud,
    job: str,
    write: Callable[[str], None],
    *,
    look: Callable[[Details], None] | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> Details:
    """Hand each line of the job's log to `write` until the job ends; its state then.

    Says changes of state; `look` gets what is known at each look. Raises CloudError where Azure
    cannot be reached for ten minutes.
    """
    import requests

    reader = Reader(write)
    shown = ""
    with requests.Session() as session:
        while True:
            now = details(cloud, job)
            if now.status != shown:
                shown = now.status
                say(f"job:    {job} {shown}{WAITING.get(shown, '')}")
            reader.read_on(session, now.logs)
            if look:
                look(now)
            if now.over:
                break
            sleep(_pause(cloud))
        for _ in range(SETTLE_LOOKS):
            sleep(min(_pause(cloud), 1.0))
            if not reader.read_on(session, details(cloud, job).logs):
                break
    reader.finish()
    others = [name for name in now.logs if OTHERS.fullmatch(name)]
    if len(others) > 1:
        say(f"logs:   of {len(others)} processes, the first shown; all: make cloud-logs ALL=1")
    return now


WAITING = {
    "Queued": " (waits for a machine)",
    "Preparing": " (the machine starts and pulls the image)",
}


@dataclass(slots=True)
class Reader:
    """Reads on in the main log; a line is written when it is whole."""

    write: Callable[[str], None]
    name: str = ""
    offset: int = 0
    _rest: str = ""
    _decoder: Any = field(default_factory=lambda: codecs.getincrementaldecoder("utf-8")("replace"))

    def read_on(self, session: "requests.Session", logs: Mapping[str, str]) -> bool:
        """Fetch and write what is new; whether there was anything."""
        name = self.name or next(iter(sorted(n for n in logs if LOG.fullmatch(n))), "")
        if name not in logs:
            return False
        self.name = name
        data = self._fetch(session, logs[name])
        if not data:
            return False
        self.offset += len(data)
        *lines, self._rest = (self._rest + self._decoder.decode(data)).split("\n")
        for line in lines:
            self.write(line.rpartition("\r")[2] if "\r" in line.rstrip("\r") else line.rstrip("\r"))
        return True

    def finish(self) -> None:
        """Write the last line, which may have no end."""
        rest = self._rest + self._decoder.decode(b"", final=True)
        if rest:
            self.write(rest)
        self._rest = ""

    def _fetch(self, session: "requests.Session", address: str) -> bytes:
        """The bytes from `offset` on; none where that fails, since the next look asks again."""
        import requests

        try:
            answer = session.get(
                address, headers={"Range": f"bytes={self.offset}-"}, timeout=TIMEOUT_SECONDS
            )
        except requests.RequestException:
            return b""
        if answer.status_code == 416:  # nothing new, or less than before
            size = answer.headers.get("Content-Range", "").rpartition("/")[2]
            if size.isdigit() and int(size) < self.offset:
                say("job:    its log starts anew, on another machine")
                self.offset = 0
            return b""
        if answer.status_code == 206:
            return answer.content
        # a whole answer where a part was asked for; errors (not there yet, a SAS that has ended)
        return answer.content[self.offset :] if answer.status_code == 200 else b""


def until_over(cloud: Cloud, job: str, *, sleep: Callable[[float], None] = time.sleep) -> Details:
    """Wait for the end of a job without its log."""
    while not (now := details(cloud, job)).over:
        sleep(_pause(cloud))
    return now


def _pause(cloud: Cloud) -> float:
    """Seconds between two looks; jobs of a rehearsal are short, and nobody counts its requests."""
    return REHEARSED_LOOK_SECONDS if cloud.workspace.rehearsal else LOOK_SECONDS


def read(cloud: Cloud, job: str, name: str | None = None) -> dict[str, str]:
    """The whole logs that the job has now, by name; only `name` where it is given."""
    import requests

    texts = {}
    with requests.Session() as session:
        for log, address in details(cloud, job).logs.items():
            if name in (None, log):
                get = functools.partial(session.get, address, timeout=TIMEOUT_SECONDS)
                answer = retry.call(f"read {log}", get)
                if answer.status_code == 200:
                    texts[log] = answer.content.decode("utf-8", "replace")
    return texts


def _message(error: Any) -> str:
    """The innermost message of run history's error."""
    while isinstance(error, dict) and isinstance(error.get("error"), dict):
        error = error["error"]
    return str(error.get("message") or error.get("code") or "") if isinstance(error, dict) else ""
