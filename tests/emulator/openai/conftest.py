"""A bare Azure whose trainings take no time, and short ways to ask its Azure OpenAI resources."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from emulator.openai import accounts
from emulator.openai.accounts import Account
from emulator.server import Server
from tests import local_azure
from tests.emulator.openai.small_tuning import SmallTuning

ARM = "https://management.azure.com"
API = "api-version=2024-10-01"
AUDIENCE = "https://cognitiveservices.azure.com"
MODEL = "gpt-4.1-mini-2025-04-14"


def rows_of(count: int = 10, **message: Any) -> bytes:
    """A file of rows as Azure OpenAI takes it; `message` adds to the assistant's."""
    lines = [
        json.dumps(
            {
                "messages": [
                    {"role": "user", "content": f"Frage {number}"},
                    {"role": "assistant", "content": "キャンベラ", **message},
                ]
            },
            ensure_ascii=False,
        )
        for number in range(count)
    ]
    return "\n".join(lines).encode("utf-8-sig")


class Asking:
    """Asks one resource."""

    def __init__(self, server: Server, name: str = "homeportrehearsal") -> None:
        self.server = server
        self.account: Account = accounts.of(server.azure)[name]
        self.control = local_azure.session(server)
        self.data = local_azure.session(server, "")
        self.data.headers["api-key"] = self.account.keys["key1"]
        self.base = f"https://{name}.openai.azure.com/openai/v1"

    def get(self, path: str, status: int = 200) -> Any:
        return self._told(self.data.get(f"{self.base}/{path}"), status)

    def post(self, path: str, body: Any = None, status: int = 201) -> Any:
        return self._told(self.data.post(f"{self.base}/{path}", json=body), status)

    def upload(self, data: bytes, status: str = "processed") -> str:
        """A file, when it has been looked at."""
        answer = self.data.post(
            f"{self.base}/files",
            files={"file": ("rows.jsonl", data)},
            data={"purpose": "fine-tune"},
        )
        made = self._told(answer, 201)
        assert made["status"] == "pending"
        file_id = str(made["id"])
        assert self.wait(f"files/{file_id}", "pending")["status"] == status
        return file_id

    def train(self, **more: Any) -> dict[str, Any]:
        """A job of ten rows, when it has ended."""
        given = {"model": MODEL, "trainingType": "Standard", **more}
        given.setdefault("training_file", self.upload(rows_of()))
        job = self.post("fine_tuning/jobs", given)
        return self.wait(f"fine_tuning/jobs/{job['id']}", "pending", "running")

    def wait(self, path: str, *states: str) -> dict[str, Any]:
        """The object, when its status is none of `states`."""
        ends = time.monotonic() + 30
        while time.monotonic() < ends:
            found: dict[str, Any] = self.get(path)
            if found["status"] not in states:
                return found
            time.sleep(0.02)
        raise AssertionError(f"{path} stays {states}")

    def deploy(self, name: str, model: str, status: int = 201, **more: Any) -> dict[str, Any]:
        """PUT a deployment; when it is provisioned, or refused."""
        headers = more.pop("headers", {})
        body = {
            "sku": {"name": "standard", "capacity": 1},
            "properties": {"model": {"format": "OpenAI", "name": model, "version": "1", **more}},
        }
        url = f"{ARM}{self.account.arm_id}/deployments/{name}?{API}"
        answer = self.control.put(url, json=body, headers=headers)
        told: dict[str, Any] = self._told(answer, status)
        ends = time.monotonic() + 300
        while status < 400 and told["properties"]["provisioningState"] == "Creating":
            assert time.monotonic() < ends
            time.sleep(0.02)
            told = self._told(self.control.get(url), 200)
        return told

    def chat(self, name: str, **more: Any) -> requests.Response:
        body = {"model": name, "messages": [{"role": "user", "content": "?"}], **more}
        return self.data.post(f"{self.base}/chat/completions", json=body)

    @staticmethod
    def _told(answer: requests.Response, status: int) -> Any:
        assert answer.status_code == status, answer.text
        return answer.json() if answer.content else None


@pytest.fixture
def tuning(monkeypatch: pytest.MonkeyPatch) -> SmallTuning:
    """What trains and serves in the tests here."""
    small = SmallTuning()
    monkeypatch.setattr("emulator.tuning.tune", small.tune)
    monkeypatch.setattr("emulator.tuning.serve", small.serve)
    monkeypatch.setattr("emulator.openai.files.LOOK_SECONDS", 0.0)
    monkeypatch.setattr("emulator.openai.training.WAIT_SECONDS", 0.02)
    monkeypatch.setattr("emulator.openai.deployments.NOT_READY_SECONDS", 0.2)
    return small


@pytest.fixture
def azure(tuning: SmallTuning, tmp_path: Path) -> Iterator[Server]:
    """Green to its end, unless the test has read its problems itself."""
    with local_azure.bare_azure(tmp_path / "azure") as server:
        yield server
        assert server.report()["problems"] == []


@pytest.fixture
def home(azure: Server) -> Asking:
    """The resource beside the workspace."""
    return Asking(azure)
