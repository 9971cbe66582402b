"""Sentences about what libraries and servers said, without the secrets that these repeat."""

import pytest

from train.errors import public, reason


@pytest.mark.parametrize(
    "told",
    [
        "not allowed: hf_secret_token",
        'not allowed: {"headers": {"Authorization": "Bearer hf_other.token1"}}',
        "not allowed: Authorization: Basic bWU6cGFzc3dvcmQ=",
        "cannot connect to http://me:passw0rd@mlflow.example/api",
    ],
)
def test_a_secret_that_a_server_repeats_is_not_said_again(
    told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret_token")
    for said in (public(told), reason(OSError(told))):
        assert not any(word in said for word in ("hf_", "bWU6", "passw0rd"))
    assert public(told).startswith(told[:8])


def test_other_words_stay() -> None:
    text = "Basic training of the bearer: http://host/path?x=1 failed"
    assert public(text) == text
