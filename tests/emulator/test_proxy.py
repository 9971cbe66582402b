"""The CONNECT proxy: who is let through, and what is on record."""

import json

import pytest
import requests

from emulator.server import Server
from tests.local_azure import session


@pytest.mark.parametrize(
    "url",
    [
        "https://huggingface.co/",
        "https://management.azure.com.example.org/",
        "https://management.azure.com:8443/",
        "https://example.com/?management.azure.com",
    ],
)
def test_other_hosts_are_refused_and_make_the_session_red(bare: Server, url: str) -> None:
    with pytest.raises(requests.exceptions.ProxyError, match="403"):
        session(bare).get(url)
    (problem,) = bare.report()["problems"]
    assert "was asked for, and refused" in problem


def test_plain_http_is_refused_too(bare: Server) -> None:
    client = session(bare)
    client.proxies = {"http": bare.proxy_url}
    assert client.get("http://management.azure.com/").status_code == 403
    assert "management.azure.com" in bare.report()["problems"][0]


def test_what_is_dialled_is_on_record(bare: Server) -> None:
    client = session(bare)
    for _ in range(2):  # one connection serves both
        assert client.get("https://eastus.api.azureml.ms/discovery").status_code == 200
    assert bare.report()["hosts"] == {"eastus.api.azureml.ms": 1}
    record = bare.azure.settings.folder / "journal" / "egress.jsonl"
    assert json.loads(record.read_text()) == {"host": "eastus.api.azureml.ms", "allowed": True}


def test_another_authority_is_not_believed(bare: Server) -> None:
    client = session(bare)
    client.verify = True
    with pytest.raises(requests.exceptions.SSLError):
        client.get("https://management.azure.com/")


def test_storage_that_does_not_answer_is_a_problem(bare: Server) -> None:
    with pytest.raises(requests.exceptions.ProxyError, match="502"):
        session(bare).get("https://homeportrehearsal.blob.core.windows.net/")
    assert "does not answer" in bare.report()["problems"][0]


def test_the_control_answers_on_the_same_port(bare: Server) -> None:
    health = requests.get(f"{bare.proxy_url}/health", timeout=5)
    assert health.json() == {"status": "ok", "mode": "host"}
    report = requests.get(f"{bare.proxy_url}/report", timeout=5).json()
    assert report["problems"] == []
    assert "2025-01-01-preview" in report["contract"]
    assert requests.get(f"{bare.proxy_url}/nothing", timeout=5).status_code == 404
