"""LoRA adapters without merging, on the real server: alone on their base, and several beside it."""

from pathlib import Path
from typing import Any

import pytest

from tests.serve.test_server import Env, running

pytestmark = pytest.mark.slow


def save_adapter(base: Path, folder: Path, seed: int) -> None:
    """An adapter with random weights that change the answer."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(base)
    wrapped = get_peft_model(model, LoraConfig(r=4, target_modules=["q_proj", "v_proj", "o_proj"]))
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        for name, weight in wrapped.named_parameters():
            if "lora_" in name:
                torch.nn.init.normal_(weight.data, std=0.4)
    wrapped.save_pretrained(folder)


@pytest.fixture(scope="module")
def adapters(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("adapters")
    for seed, name in enumerate(("pirate", "poet")):
        save_adapter(tiny, folder / name, seed)
    return folder


def say(server: Any, model: str | None = None) -> str:
    body: dict[str, Any] = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 16}
    body |= {"temperature": 0, "model": model}
    status, answer, _ = server.ask("POST", "/v1/chat/completions", json_bytes(body))
    assert status == 200, answer
    return str(answer["choices"][0]["message"]["content"])


def json_bytes(body: object) -> bytes:
    import json

    return json.dumps(body).encode()


def test_several_adapters_are_chosen_by_model_and_the_base_stays_itself(
    server_env: Env, adapters: Path, tmp_path: Path
) -> None:
    given = f"pirate={adapters / 'pirate'},poet={adapters / 'poet'}"
    env = server_env(SERVE_ADAPTERS=given, SERVE_ENGINE="auto")
    with running(env, tmp_path / "log") as server:
        listed = [model["id"] for model in server.ask("GET", "/v1/models")[1]["data"]]
        answers = {name: say(server, name) for name in listed}
        assert say(server) == answers["tiny-ja"]
        assert "transformers: adapters are chosen by request" in server.log.read_text()
    assert listed == ["tiny-ja", "pirate", "poet"]
    assert len(set(answers.values())) == 3


def test_an_adapter_alone_is_served_on_its_base(
    server_env: Env, adapters: Path, tmp_path: Path
) -> None:
    env = server_env(SERVE_MODEL=str(adapters / "pirate"), SERVE_ENGINE="auto")
    with running(env, tmp_path / "log") as server:
        listed = [model["id"] for model in server.ask("GET", "/v1/models")[1]["data"]]
        assert listed == ["tiny-ja", "pirate"]
        assert say(server) == say(server, "pirate") != say(server, "tiny-ja")
