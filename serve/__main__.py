"""Start the model server.

    python -m serve          # answers on 127.0.0.1:5001: /score, /v1/…, /playground, /docs
    python -m serve --help

Prepares the environment and becomes the Azure ML inference server, in the same process: signals
reach it directly. Values already in the environment are kept, as Azure sets its own.
"""

import argparse
import json
import os
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn

from serve import auth, settings
from serve.errors import StartupError

HERE = Path(__file__).resolve().parent
USAGE_ERROR = 2


def environment(given: Mapping[str, str]) -> dict[str, str]:
    """The server's environment; StartupError where what is given cannot work."""
    wanted = settings.Settings.from_env(given)  # wrong settings are told before anything is loaded
    if wanted.key_file:
        auth.read(wanted.key_file)
    env = {name: value for name, value in given.items() if value}
    root = Path(env.setdefault("AML_APP_ROOT", str(HERE / "api")))  # swagger files
    if not root.is_dir():
        raise StartupError(f"AML_APP_ROOT={root} is not a folder; unset it to use {HERE}/api.")
    script = root / env.get("AZUREML_ENTRY_SCRIPT", str(HERE / "score.py"))
    if not script.is_file():
        raise StartupError(
            f"AZUREML_ENTRY_SCRIPT={script} is not a file; unset it to use {HERE}/score.py."
        )
    env["AZUREML_ENTRY_SCRIPT"] = str(script)
    for folder in {root, script.parent}:
        if _is_model_config(folder / "config.json"):
            raise StartupError(
                f"{folder}/config.json is a model's, and the inference server would read it as its "
                "own; keep model folders out of the application's."
            )
    paths = [str(HERE.parent), *env.get("PYTHONPATH", "").split(os.pathsep)]
    env["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(path for path in paths if path))
    config = shlex.quote(str(HERE / "gunicorn.conf.py"))  # gunicorn splits it as a shell would
    arguments = f"-c {config} {env.get('GUNICORN_CMD_ARGS', '')}"
    env["GUNICORN_CMD_ARGS"] = arguments.strip()
    env["WORKER_COUNT"] = "1"  # each worker would load the model again
    if wanted.debug_port:  # a worker at a breakpoint gives no sign of life
        env["WORKER_TIMEOUT"] = "0"
        env["PYDEVD_DISABLE_FILE_VALIDATION"] = "1"  # a warning about Python's own modules
    env.setdefault("APP_INSIGHTS_LOG_RESPONSE_ENABLED", "false")
    # else glibc has pools for each few of a hundred threads, and under load memory keeps growing
    env.setdefault("MALLOC_ARENA_MAX", "2")
    return env


def main() -> NoReturn:
    parser = argparse.ArgumentParser(
        prog="python -m serve",
        description="Serve one fine-tuned model under the Azure ML inference server.",
        epilog=f"settings, all from the environment (default):\n{settings.describe()}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.parse_args()
    try:
        env = environment(os.environ)
    except StartupError as error:
        print(f"serve: {error}", file=sys.stderr)  # noqa: T201 - the program's own message
        sys.exit(USAGE_ERROR)
    command = [sys.executable, "-m", "azureml_inference_server_http"]
    command += ["--entry_script", env["AZUREML_ENTRY_SCRIPT"]]
    command += ["--port", str(settings.Settings.from_env(env).port)]
    os.chdir(env["AML_APP_ROOT"])
    sys.stdout.flush()
    os.execve(sys.executable, command, env)  # noqa: S606 - no shell is wanted


def _is_model_config(path: Path) -> bool:
    try:
        return "model_type" in json.loads(path.read_text())
    except (OSError, ValueError, TypeError):
        return False


if __name__ == "__main__":
    main()
