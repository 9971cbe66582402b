"""The soak's probes: GET / and GET /livez five times a second each, from a process of its own.

    python -m trials.soak_probe PORT      until its stdin closes; then prints every probe as JSON

Each probe starts at its time, however long the one before takes, and gives up after two seconds,
as Azure ML's do. Apart from the load, so that the load generator's own work delays none.
"""

import http.client
import json
import select
import sys
import time
from concurrent.futures import Future, ThreadPoolExecutor

HOST = "127.0.0.1"
PATHS = ("/", "/livez")
EVERY = 0.2
SECONDS = 2.0

Probe = tuple[str, float, float, int]
"""Path, when (time.monotonic(), one clock for all processes), seconds, status or 0 for none."""


def probe(port: int, path: str, planned: float) -> Probe:
    connection = http.client.HTTPConnection(HOST, port, timeout=SECONDS)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        response.read()
        status = response.status
    except (OSError, http.client.HTTPException):
        status = 0
    finally:
        connection.close()
    return path, planned, time.monotonic() - planned, status


def main(port: int) -> None:
    waiting: list[Future[Probe]] = []
    due = time.monotonic()
    with ThreadPoolExecutor(max_workers=int(len(PATHS) * SECONDS / EVERY) + 4) as pool:
        while not select.select([sys.stdin], [], [], max(due - time.monotonic(), 0))[0]:
            waiting += [pool.submit(probe, port, path, due) for path in PATHS]
            due = max(due + EVERY, time.monotonic() - SECONDS)  # it was suspended: no crowd after
    print(json.dumps([future.result() for future in waiting]))


if __name__ == "__main__":
    main(int(sys.argv[1]))
