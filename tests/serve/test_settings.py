"""Settings from the environment, and the launcher's own part of it."""

import os
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve.__main__ import HERE, environment
from serve.errors import StartupError
from serve.settings import Settings, describe
from tests.drawn import QUICK, YAML


def test_nothing_set_is_the_defaults_and_an_empty_variable_is_not_set() -> None:
    assert Settings.from_env({}) == Settings() == Settings.from_env({"SERVE_PORT": "", "X": "1"})


def test_every_variable_arrives() -> None:
    given = {
        "SERVE_MODEL": "/m",
        "SERVE_DEVICE": "CPU",
        "SERVE_DTYPE": "float32",
        "SERVE_ENGINE": "transformers",
        "SERVE_CONTEXT": "2048",
        "SERVE_ENGINE_CACHE": "/Cache",
        "SERVE_ADAPTERS": "A=/a",
        "SERVE_HOST": "0.0.0.0",  # noqa: S104 - what a container sets
        "SERVE_PUBLISHED": "192.0.2.1",
        "SERVE_KEY_FILE": "/Key",
        "SERVE_PORT": "80",
        "SERVE_REQUEST_SECONDS": "1.5",
        "SERVE_MAX_CONCURRENT": "2",
        "SERVE_MAX_QUEUE": "0",
        "SERVE_WATCH": "True",
        "SERVE_DEBUG_PORT": "5678",
        "SERVE_DEBUG_HOST": "0.0.0.0",  # noqa: S104 - as above
        "SERVE_LOG_TEXT": "1",
    }
    assert len(given) == len(fields(Settings))
    assert Settings.from_env(given) == Settings(
        model="/m",
        device="cpu",
        dtype="float32",
        engine="transformers",
        context=2048,
        engine_cache="/Cache",
        adapters="A=/a",
        host="0.0.0.0",  # noqa: S104 - as above
        published="192.0.2.1",
        key_file="/Key",
        port=80,
        request_seconds=1.5,
        max_concurrent=2,
        max_queue=0,
        watch=True,
        debug_port=5678,
        debug_host="0.0.0.0",  # noqa: S104 - as above
        log_text=True,
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SERVE_DEVICE", "gpu"),
        ("SERVE_DTYPE", "int4"),
        ("SERVE_ENGINE", "triton"),
        ("SERVE_WATCH", "maybe"),
        ("SERVE_PORT", "tcp://10.0.0.1:80"),
        ("SERVE_PORT", "0"),
        ("SERVE_REQUEST_SECONDS", "180"),
        ("SERVE_REQUEST_SECONDS", "nan"),
        ("SERVE_REQUEST_SECONDS", "0"),
        ("SERVE_MAX_CONCURRENT", "0"),
        ("SERVE_MAX_QUEUE", "-1"),
    ],
)
def test_a_value_out_of_range_names_variable_value_and_rule(name: str, value: str) -> None:
    with pytest.raises(StartupError, match=f"^{name}={value} cannot be used: it must be "):
        Settings.from_env({name: value})


@pytest.mark.parametrize(
    ("host", "published", "refused"),
    [
        ("127.0.0.1", "", False),
        ("127.1.2.3", "", False),
        ("::1", "", False),
        ("localhost", "", False),
        ("0.0.0.0", "", True),  # noqa: S104 - as below
        ("::", "", True),
        ("192.0.2.1", "", True),
        ("my-machine", "", True),
        ("0.0.0.0", "127.0.0.1", False),  # noqa: S104 - a container, whose port is published there
        ("127.0.0.1", "0.0.0.0", True),  # noqa: S104 - what it would be for everybody
    ],
)
def test_beyond_this_machine_it_starts_only_with_a_key(
    host: str, published: str, refused: bool, tmp_path: Path
) -> None:
    given = {"SERVE_HOST": host, "SERVE_PUBLISHED": published}
    if refused:
        with pytest.raises(StartupError, match="lets other machines ask, which takes a key: set"):
            Settings.from_env(given)
    else:
        assert Settings.from_env(given).host == host
    (tmp_path / "key").write_text("k" * 43)
    assert environment({**given, "SERVE_KEY_FILE": str(tmp_path / "key")})


def test_an_unknown_variable_names_the_nearest() -> None:
    with pytest.raises(StartupError, match='did you mean "SERVE_DTYPE"'):
        Settings.from_env({"SERVE_DTPYE": "float32"})


def test_threads_exceed_what_is_admitted_and_the_drain_exceeds_the_longest_request() -> None:
    settings = Settings(max_concurrent=3, max_queue=5, request_seconds=150)
    assert settings.threads == 16
    assert settings.drain_seconds == 160
    assert Settings(request_seconds=10).drain_seconds == 120
    assert Settings(host="::1").bind == "[::1]:5001"


def test_the_help_names_every_setting_and_imports_nothing_heavy() -> None:
    code = (
        "import runpy, sys\n"
        "sys.argv = ['serve', '--help']\n"
        "try: runpy.run_module('serve', run_name='__main__')\n"
        "except SystemExit: sys.exit(str({'torch', 'flask'} & set(sys.modules) or ''))\n"
    )
    env = {**os.environ, "PYTHONPATH": str(HERE.parent)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env)
    assert done.stderr == "\n"  # neither was imported
    for field in fields(Settings):
        assert f"  SERVE_{field.name.upper()} (" in done.stdout
    assert describe() in done.stdout


def test_the_launcher_fills_in_what_is_absent_and_keeps_what_azure_sets(tmp_path: Path) -> None:
    env = environment({})
    assert env["AML_APP_ROOT"] == str(HERE / "api")
    assert env["AZUREML_ENTRY_SCRIPT"] == str(HERE / "score.py")
    assert env["GUNICORN_CMD_ARGS"] == f"-c {HERE / 'gunicorn.conf.py'}"
    assert (env["WORKER_COUNT"], env["APP_INSIGHTS_LOG_RESPONSE_ENABLED"]) == ("1", "false")
    assert env["MALLOC_ARENA_MAX"] == "2"
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "score.py").write_text("")
    given = {"AML_APP_ROOT": str(tmp_path), "AZUREML_ENTRY_SCRIPT": "code/score.py"}
    own = {"MALLOC_ARENA_MAX": "4"}
    env = environment({**given, **own, "GUNICORN_CMD_ARGS": "--keep-alive 5", "PYTHONPATH": "/x"})
    assert env["AZUREML_ENTRY_SCRIPT"] == str(tmp_path / "code" / "score.py")
    assert env["GUNICORN_CMD_ARGS"].endswith("gunicorn.conf.py --keep-alive 5")
    assert env["PYTHONPATH"] == f"{HERE.parent}{os.pathsep}/x"
    assert env["MALLOC_ARENA_MAX"] == "4"


def test_the_launcher_refuses_what_cannot_work(tmp_path: Path) -> None:
    with pytest.raises(StartupError, match="AML_APP_ROOT"):
        environment({"AML_APP_ROOT": str(tmp_path / "absent")})
    with pytest.raises(StartupError, match="AZUREML_ENTRY_SCRIPT"):
        environment({"AZUREML_ENTRY_SCRIPT": "absent.py"})
    with pytest.raises(StartupError, match="SERVE_KEY_FILE=/absent: No such file"):
        environment({"SERVE_KEY_FILE": "/absent"})
    (tmp_path / "config.json").write_text('{"model_type": "gpt_oss"}')
    with pytest.raises(StartupError, match="would read it as its own"):
        environment({"AML_APP_ROOT": str(tmp_path)})


@QUICK
@given(
    st.dictionaries(
        st.sampled_from([field.name.upper() for field in fields(Settings)]) | st.text(max_size=9),
        st.text(max_size=12) | YAML,
        max_size=3,
    )
)
def test_any_environment_gives_settings_or_one_sentence(given: dict[str, str]) -> None:
    try:
        Settings.from_env({f"SERVE_{name}": value for name, value in given.items()})
    except StartupError as error:
        assert str(error)
