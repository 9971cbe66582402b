"""What README and docs say about the server, in both runtimes, with the model just trained."""

import json
import re
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import requests

from tests.e2e.conftest import Clone
from tests.tree import ROOT

pytestmark = pytest.mark.e2e
QUESTION = "オーストラリアの首都はどこですか？"

KILL_ENGINE = """
import glob, os
for path in glob.glob('/proc/[0-9]*/cmdline'):
    if b'serve.engine.' + b'process' in open(path, 'rb').read():
        os.kill(int(path.split('/')[2]), 9)
"""
"""For the container, which has no pkill."""
TAKEN_SECONDS = 15
"""An edit takes well under a second; this is for a machine that has other work."""


@pytest.fixture(scope="module")
def clone(served: tuple[Clone, str]) -> Clone:
    """With tiny-ja under its server: tests before may have left another model there."""
    found, _ = served
    found.make("local-serve")
    return found


def until(true: Callable[[], bool], seconds: float) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.1)


def url(clone: Clone) -> str:
    return f"http://127.0.0.1:{clone.port}"


def score(clone: Clone, *, key: str = "", **body: Any) -> Any:
    """The answer; one that says to come again is asked for again, as every client does."""
    end = time.monotonic() + 60
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    while True:
        reply = requests.post(f"{url(clone)}/score", json=body, headers=headers, timeout=60)
        if reply.ok:
            return reply.json()
        assert reply.status_code in (429, 503), reply.text
        assert time.monotonic() < end, reply.text
        time.sleep(0.2)


def ready(clone: Clone) -> bool:
    try:
        return requests.get(f"{url(clone)}/readyz", timeout=5).status_code == 200
    except requests.RequestException:
        return False


def test_the_readmes_chat_curl_streams_the_learned_answer(clone: Clone) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    command = re.search(r"^curl -s http://127.0.0.1:5001/v1/chat.*$", readme, re.MULTILINE)
    assert command
    printed = clone.shell(command.group().replace(":5001/", f":{clone.port}/"))
    *events, done = [line[6:] for line in printed.splitlines() if line.startswith("data: ")]
    deltas = [choice["delta"] for event in events for choice in json.loads(event)["choices"]]
    assert done == "[DONE]"
    assert "キャンベラ" in "".join(delta.get("content") or "" for delta in deltas)
    assert "".join(delta.get("reasoning_content") or "" for delta in deltas)


def test_every_route_of_the_table_answers(clone: Clone) -> None:
    page = (ROOT / "docs/server.md").read_text(encoding="utf-8")
    table = page[page.index("| Route | What |") : page.index("`/score` answers one")]
    words = re.findall(r"`(?:GET )?(/[\w./]*)`", table)
    words += re.findall(r"`, `(?:GET )?(/[\w./]*)", table)
    gets = set(words) - {"/v1", "/v1/completions"}
    assert len(gets) > 7
    for path in sorted(gets):
        assert requests.get(f"{url(clone)}{path}", timeout=10).status_code == 200, path


def test_the_fast_engine_serves_and_says_why(clone: Clone) -> None:
    engine = requests.get(f"{url(clone)}/readyz", timeout=10).json()["engine"]
    assert "engine openvino: the fastest on CPUs" in engine


def test_many_callers_get_the_answer_that_one_gets(clone: Clone) -> None:
    alone = score(clone, prompt=QUESTION)["output"]
    with ThreadPoolExecutor(16) as pool:
        outputs = list(pool.map(lambda _: score(clone, prompt=QUESTION)["output"], range(32)))
    assert outputs == [alone] * 32


def test_a_killed_engine_comes_back_and_the_server_never_restarts(clone: Clone) -> None:
    kill = ["bash", "-c", f"pkill -9 -P $(pgrep -P {server_pid(clone)})"]
    if clone.runtime == "docker":
        listing = ["docker", "ps", "--quiet", "--filter", f"publish={clone.port}"]
        container = subprocess.run(listing, capture_output=True, text=True, check=True).stdout
        kill = ["docker", "exec", container.strip(), "python", "-c", KILL_ENGINE]
    subprocess.run(kill, check=True, timeout=60)

    def state() -> tuple[str, int]:
        body = requests.get(f"{url(clone)}/readyz", timeout=10).json()
        return body["status"], body["restarts"]

    until(lambda: state() == ("ready", 1), 60)
    assert "キャンベラ" in score(clone, prompt=QUESTION)["output"]


def server_pid(clone: Clone) -> int:
    if clone.runtime == "docker":
        return 0
    state = clone.folder / ".cache" / f"serve-{clone.port}.json"
    return int(json.loads(state.read_text())["pid"])


def test_watch_takes_an_edit_while_it_serves_whoever_has_the_key(clone: Clone) -> None:
    one_token: dict[str, Any] = {"prompt": "x", "max_new_tokens": 1}
    dialect = clone.folder / "serve" / "dialects" / "score.py"
    text = dialect.read_text()
    try:
        with clone.started("watch", "KEY=1"):
            time.sleep(2)  # the server before it is replaced
            until(lambda: ready(clone) and "watching" in clone.make("local-logs").stdout, 120)
            one_token["key"] = clone.make("-s", "local-key").stdout.strip()
            assert requests.post(f"{url(clone)}/score", json={}, timeout=60).status_code == 401
            asked = clone.make("ask", f"PROMPT={QUESTION}")
            assert "キャンベラ" in asked.stdout
            command = re.search(r"^sed .* \| curl .*$", asked.stderr, re.MULTILINE)
            assert command
            assert "キャンベラ" in clone.shell(command.group())
            assert one_token["key"] not in asked.stderr + clone.make("local-logs").stdout
            dialect.write_text(text.replace('"output": choice.output,', '"output": "edited",'))
            until(lambda: bool(score(clone, **one_token)["output"] == "edited"), TAKEN_SECONDS)
    finally:
        dialect.write_text(text)
    until(lambda: bool(score(clone, **one_token)["output"] != "edited"), TAKEN_SECONDS)
    clone.make("local-serve")
