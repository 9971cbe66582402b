"""The seed project's score.py under the Azure ML inference server: one request at a time.

    AZUREML_MODEL_DIR=FOLDER azmlinfsrv --entry_script bench/rivals/seed_score.py --port PORT

`init` loads the model with transformers, `run` applies the chat template, calls `generate` and
answers when all of it is there; the server's worker is the default one, without threads. It was the
common way to serve a fine-tuned model on Azure ML, and it is what this project began with.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

from azureml_inference_server_http.api.aml_response import AMLResponse

_model: Any = None
_tokenizer: Any = None


def prepare(cache: Path) -> list[str] | str:
    """The interpreter that runs it: this one, which has the inference server."""
    return [sys.executable]


def command(
    prefix: list[str], model: Path, port: int, slots: int
) -> tuple[list[str], dict[str, str]]:
    server = ["-m", "azureml_inference_server_http", "--entry_script", str(Path(__file__))]
    env = {
        "AZUREML_MODEL_DIR": str(model),
        "AML_APP_ROOT": str(Path(__file__).parent),
        "WORKER_COUNT": "1",
        "GUNICORN_CMD_ARGS": "--bind 127.0.0.1",
        "AML_APP_INSIGHTS_ENABLED": "false",
    }
    return [*prefix, *server, "--port", str(port)], env


def init() -> None:
    """Called once by the inference server."""
    global _model, _tokenizer
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    root = os.environ["AZUREML_MODEL_DIR"]
    _tokenizer = AutoTokenizer.from_pretrained(root)
    _model = AutoModelForCausalLM.from_pretrained(root, dtype=torch.bfloat16).eval()


def run(raw: str) -> AMLResponse:
    """Called for every POST /score."""
    import torch

    asked = json.loads(raw)
    inputs = _tokenizer.apply_chat_template(
        asked["messages"], add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    length = inputs["input_ids"].shape[1]
    with torch.inference_mode():
        ids = _model.generate(**inputs, max_new_tokens=asked["max_new_tokens"], do_sample=False)
    new = ids[0, length:]
    usage = {"prompt_tokens": length, "completion_tokens": len(new)}
    text = _tokenizer.decode(new, skip_special_tokens=True)
    return AMLResponse(json.dumps({"output": text, "usage": usage}), 200)
