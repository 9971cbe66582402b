"""The sides of bench-serve: how each is started, and how it is asked for the same answer.

Ours, the seed project's score.py, `transformers serve`, and the servers of vLLM and llama.cpp where
they install. Each gets as many places as there are callers at most, the same bfloat16 weights and
all cores. The engine without our server (bench/serve_bare.py) is no HTTP server and not among them.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from bench.rivals import llama_cpp_server, seed_score, transformers_serve, vllm_server
from bench.serve_inputs import Prompt

OURS = "homeport"
BARE = "bare engine"
SEED = "seed score.py"
TRANSFORMERS = "transformers serve"
VLLM = "vLLM"
LLAMA_CPP = "llama.cpp"
IMAGE = "homeport-serve:cpu"
ENGINE_PROCESS = "serve.engine.process"
"""In the command line of our process that computes; what else there is handles requests."""

Ask = tuple[str, str]
"""Path and JSON body."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Side:
    """One server."""

    name: str
    prepare: Callable[[Path], list[str] | str]
    """Sees to it that it is there: what its command begins with, or why it cannot be had."""
    command: Callable[[list[str], Path, int, int], tuple[list[str], dict[str, str]]]
    """From that, the model, a port and the places: arguments and environment."""
    whole: Callable[[Prompt, Path], Ask]
    streamed: Callable[[Prompt, Path], Ask] | None
    """None where it cannot stream."""
    probe: str = "/health"
    most_callers: int | None = None
    most_requests: int | None = None
    """For one that takes minutes over what others do in seconds."""


def environment(more: Mapping[str, str]) -> dict[str, str]:
    """The same for every side: the CPU, all cores, no hub, none of the caller's own settings."""
    dropped = ("SERVE_", "AZUREML_", "AML_", "GUNICORN_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(dropped)}
    cores = os.environ.get("OMP_NUM_THREADS") or str(os.cpu_count() or 1)
    fixed = {
        "CUDA_VISIBLE_DEVICES": "",
        "OMP_NUM_THREADS": cores,
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
    return {**kept, **fixed, **more}


def _score(prompt: Prompt, model: Path) -> Ask:
    body = {"messages": _messages(prompt), "max_new_tokens": prompt.new_tokens}
    return "/score", json.dumps(body)


def _chat(prompt: Prompt, model: Path, *, stream: bool) -> Ask:
    body: dict[str, object] = {
        "model": str(model),
        "messages": _messages(prompt),
        "max_tokens": prompt.new_tokens,
        "temperature": 0,
    }
    return "/v1/chat/completions", json.dumps(body | _streaming(stream))


def _completion(prompt: Prompt, model: Path, *, stream: bool) -> Ask:
    # ids, because these two would put their own start token before a text
    body: dict[str, object] = {
        "model": str(model),
        "prompt": prompt.ids,
        "max_tokens": prompt.new_tokens,
        "temperature": 0,
    }
    return "/v1/completions", json.dumps(body | _streaming(stream))


def _messages(prompt: Prompt) -> list[dict[str, str]]:
    return [{"role": "user", "content": prompt.text}]


def _streaming(stream: bool) -> dict[str, object]:
    return {"stream": True, "stream_options": {"include_usage": True}} if stream else {}


def ours(engine: str, cache: Path, *, container: bool) -> Side:
    """`python -m serve` of this checkout, or the image built from it."""

    def settings(slots: int) -> dict[str, str]:
        return {
            "SERVE_ENGINE": engine,
            "SERVE_DEVICE": "cpu",
            "SERVE_DTYPE": "bfloat16",
            "SERVE_MAX_CONCURRENT": str(slots),
            "SERVE_MAX_QUEUE": str(slots),
        }

    def host(
        prefix: list[str], model: Path, port: int, slots: int
    ) -> tuple[list[str], dict[str, str]]:
        env = {"SERVE_MODEL": str(model), "SERVE_PORT": str(port)}
        kept = {"SERVE_ENGINE_CACHE": str((cache / "engine").absolute())}
        return [*prefix, "-m", "serve"], settings(slots) | env | kept

    def image(
        prefix: list[str], model: Path, port: int, slots: int
    ) -> tuple[list[str], dict[str, str]]:
        mount = "/var/azureml-app/azureml-models/bench/1"
        env = settings(slots) | {"AZUREML_MODEL_DIR": mount}
        words = [word for name, value in env.items() for word in ("-e", f"{name}={value}")]
        words += ["-v", f"{model}:{mount}/model:ro", "-p", f"127.0.0.1:{port}:5001"]
        # the caller's, as in Compose: weights that were made here may be the caller's alone
        words += ["--user", f"{os.getuid()}:{os.getgid()}", "--name", container_name(port)]
        return [*prefix, "run", "--rm", "--init", *words, IMAGE], {}

    def streamed(prompt: Prompt, model: Path) -> Ask:
        path, body = _chat(prompt, model, stream=True)
        asked = json.loads(body)
        del asked["model"]  # it serves one, whatever the folder is called
        return path, json.dumps(asked)

    return Side(
        name=OURS,
        prepare=_docker if container else lambda _: [sys.executable],
        command=image if container else host,
        whole=_score,
        streamed=streamed,
        probe="/",
    )


def container_name(port: int) -> str:
    return f"homeport-bench-{port}"


def container_root(port: int) -> int:
    """The container's first process, as this machine numbers it."""
    ask = ["docker", "inspect", "-f", "{{.State.Pid}}", container_name(port)]
    return int(subprocess.run(ask, capture_output=True, text=True, check=True).stdout)


def _docker(cache: Path) -> list[str] | str:
    try:
        ask = ["docker", "image", "inspect", IMAGE]
        done = subprocess.run(ask, capture_output=True, text=True)
    except FileNotFoundError:
        return "docker is not installed"
    return ["docker"] if done.returncode == 0 else done.stderr.strip().splitlines()[-1]


RIVALS = (
    Side(
        name=SEED,
        prepare=seed_score.prepare,
        command=seed_score.command,
        whole=_score,
        streamed=None,
        probe="/",
        most_callers=16,
        most_requests=16,
    ),
    Side(
        name=TRANSFORMERS,
        prepare=transformers_serve.prepare,
        command=transformers_serve.command,
        whole=lambda prompt, model: _chat(prompt, model, stream=False),
        streamed=lambda prompt, model: _chat(prompt, model, stream=True),
    ),
    Side(
        name=VLLM,
        prepare=vllm_server.prepare,
        command=vllm_server.command,
        whole=lambda prompt, model: _completion(prompt, model, stream=False),
        streamed=lambda prompt, model: _completion(prompt, model, stream=True),
    ),
    Side(
        name=LLAMA_CPP,
        prepare=llama_cpp_server.prepare,
        command=llama_cpp_server.command,
        whole=lambda prompt, model: _completion(prompt, model, stream=False),
        streamed=lambda prompt, model: _completion(prompt, model, stream=True),
    ),
)
