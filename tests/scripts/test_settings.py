"""Secrets go only where they are meant to go."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scripts import settings
from scripts.errors import UsageError
from tests.drawn import QUICK, YAML

SECRETS = (
    "HF_TOKEN",
    "MLFLOW_TRACKING_TOKEN",
    "MLFLOW_TRACKING_PASSWORD",
    "MLFLOW_TRACKING_URI",
    "AZURE_CLIENT_SECRET",
    "AZURE_CLIENT_CERTIFICATE_PASSWORD",
    "OPENAI_API_KEY",
    "GITHUB_TOKEN",
    "AWS_SECRET_ACCESS_KEY",
    "APPLICATIONINSIGHTS_CONNECTION_STRING",
)
VALUE = "s3cret"
PLAIN = ("PORT", "SERVE_KEY_FILE", "AZURE_TENANT_ID", "HTTPS_PROXY", "HF_HOME", "MODEL", "PATH")


@pytest.fixture(autouse=True)
def nothing_aside(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(settings, "_aside", {})
    for name in SECRETS:
        monkeypatch.setenv(name, VALUE)
    yield


def test_what_is_a_secret_is_known_by_its_name() -> None:
    given = dict.fromkeys((*SECRETS, *PLAIN), "x")
    assert sorted(settings.without_secrets(given)) == sorted(PLAIN)


def test_once_put_aside_no_child_inherits_a_secret_and_the_verb_still_has_it() -> None:
    settings.put_secrets_aside()
    settings.put_secrets_aside()  # one verb may run another
    look = f"import os; print(*[name for name, value in os.environ.items() if value == '{VALUE}'])"
    seen = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True)
    assert seen.stdout.split() == []
    assert all(settings.environment()[name] == VALUE for name in SECRETS)


def test_the_login_is_in_the_environment_only_while_the_library_reads_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings.put_secrets_aside()
    with settings.login_shown():
        assert os.environ["AZURE_CLIENT_SECRET"] == VALUE
        assert "HF_TOKEN" not in os.environ
    assert "AZURE_CLIENT_SECRET" not in os.environ
    monkeypatch.setenv("AZURE_CLIENT_SECRET", VALUE)  # of somebody who calls this from Python
    with settings.login_shown():
        pass
    assert os.environ["AZURE_CLIENT_SECRET"] == VALUE


@pytest.mark.parametrize(
    "told",
    [
        "401 for s3cret-token: no",
        "sent {'Authorization': 'Bearer abc.def-gh1'}",
        'sent {"authorization": "basic bWU6cGFzc3dvcmQ="}',
    ],
)
def test_what_a_server_repeats_of_a_login_is_not_said_again(
    told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "s3cret-token")
    said = settings.hidden(told)
    assert not any(word in said for word in ("s3cret", "abc.def", "bWU6"))
    assert "…" in said


def test_sentences_without_secrets_stay_as_they_are() -> None:
    sentence = "basic auth is off: TOKEN s3 is set, bearer x; see http://127.0.0.1/a"
    assert settings.hidden(sentence) == sentence


LINE = st.tuples(
    st.sampled_from(("PORT=", "export A=", "B", "C='", 'D="', "#", "E=${D}", "")), YAML
)
LINES = st.lists(LINE.map("".join), max_size=5).map("\n".join)


@QUICK
@given(LINES.map(lambda text: text.encode("utf-8", "replace")) | st.binary(max_size=40))
def test_any_env_file_is_read_or_refused_by_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    (tmp_path / ".env").write_bytes(content)
    monkeypatch.setattr(settings, "ROOT", tmp_path)
    try:
        assert all(settings.environment().values())
    except UsageError as error:
        assert str(error)
