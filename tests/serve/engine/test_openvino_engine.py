"""OpenVINO GenAI against transformers: the same tokens from the same weights.

    HOMEPORT_OPENVINO_PYTHON=<python> pytest -m slow tests/serve/engine/test_openvino_engine.py

The backend runs in an interpreter that has openvino-genai, usually this one; references are
computed here. All in float32, where a greedy answer must be `generate`'s own: the models have no
near ties.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from serve.engine.environments import installed
from tests.serve.engine import shapes
from tests.serve.engine.shapes import greedy, reference

ROOT = Path(__file__).resolve().parents[3]
PYTHON = os.environ.get("HOMEPORT_OPENVINO_PYTHON", sys.executable)
CONTEXT = 512
PROMPT = [25, 100, 200, 300, 27, 150]
PROMPTS = [[20 + (7 * i + j * j) % 300 for j in range(3 + 17 * i)] for i in range(8)]
"""From 3 to 122 tokens: shorter and longer than the sliding window."""
DRIVER = """
import json, resource, sys
from pathlib import Path
from serve.engine import EngineSpec, Sampling
from serve.engine import openvino_engine
from serve.errors import StartupError

plan = json.load(sys.stdin)
if most := plan["spec"].pop("most_bytes", None):
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
options = {"engine": "openvino", "device": "cpu", "dtype": "float32", "concurrency": 8}
options |= plan["spec"]
if blocks := options.pop("blocks", None):
    openvino_engine._blocks = lambda *_: blocks
options["cache"] = Path(options["cache"]) if options.get("cache") else None
try:
    backend = openvino_engine.load(EngineSpec(root=Path(plan["root"]), **options))
except StartupError as error:
    print(json.dumps({"refused": str(error)}))
    sys.exit()
results = []
for together in plan["rounds"]:
    answers = {}
    for number, asked in enumerate(together):
        asked = dict(asked, stop_ids=frozenset(asked.get("stop_ids", ())))
        answers[number] = {"ids": [], "finish": None, "error": None}
        prompt, cancel = asked.pop("prompt"), asked.pop("cancel", 0)
        answers[number]["cancel"] = cancel
        try:
            backend.add(number, prompt, Sampling(**asked))
        except ValueError as error:
            answers[number]["error"] = str(error)
    for _ in range(5000):
        if all(a["finish"] or a["error"] for a in answers.values()):
            break
        for piece in backend.step():
            answer = answers[piece.id]
            answer["ids"] += piece.ids
            answer["finish"] = answer["finish"] or piece.finish
            answer["error"] = answer["error"] or piece.error
            if answer["cancel"] and len(answer["ids"]) >= answer["cancel"]:
                backend.cancel(piece.id)
                answer["finish"] = "cancelled"
    results.append([answers[number] for number in sorted(answers)])
info = {"version": backend.info.version, "features": sorted(backend.info.features)}
print(json.dumps({"rounds": results, "info": info}))
backend.close()
"""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        "HOMEPORT_OPENVINO_PYTHON" not in os.environ and not installed("openvino"),
        reason="no openvino-genai here; name a Python that has it in HOMEPORT_OPENVINO_PYTHON",
    ),
]

Asked = dict[str, Any]


def drive(root: Path, rounds: Sequence[Sequence[Asked]], **spec: Any) -> dict[str, Any]:
    """One backend, one round of requests at the same time after another."""
    done = subprocess.run(
        [PYTHON, "-c", DRIVER],
        input=json.dumps(
            {"root": str(root), "rounds": rounds, "spec": {"context": CONTEXT} | spec}
        ),
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result | {"log": done.stderr}


def ask(prompt: list[int] = PROMPT, max_new_tokens: int = 24, **sampling: Any) -> Asked:
    return {"prompt": prompt, "max_new_tokens": max_new_tokens, **sampling}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    made = {kind: shapes.save(folder / kind, kind) for kind in shapes.KINDS}
    return made | {"cache": folder / "cache"}


@pytest.fixture(scope="module")
def mistral(folders: dict[str, Path]) -> Any:
    return reference(folders["mistral"])


def save_other(folder: Path, kind: str) -> Path:
    """A tiny random model of an architecture that shapes.py has not."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model(
        kind,
        num_hidden_layers=6 if kind == "gemma3_text" else 2,  # its sixth layer sees everything
        hidden_size=64,
        intermediate_size=128,
        moe_intermediate_size=64,
        num_experts=4,
        num_experts_per_tok=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        vocab_size=400,
        max_position_embeddings=CONTEXT,
        sliding_window=shapes.WINDOW,
        initializer_range=0.5,
        tie_word_embeddings=False,
        eos_token_id=399,
        pad_token_id=0,
    )
    with torch.random.fork_rng():
        torch.manual_seed(7)
        model = AutoModelForCausalLM.from_config(config).eval()
    model.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("kind", [*shapes.KINDS, "gemma3_text", "qwen2", "qwen3", "qwen3_moe"])
def test_greedy_alone_and_among_eight_is_generates_own_answer_with(
    kind: str, folders: dict[str, Path], tmp_path: Path
) -> None:
    folder = folders[kind] if kind in folders else save_other(tmp_path, kind)
    model = reference(folder)
    counts = [40, 3, 17, 1, 64, 9, 30, 22]
    pairs = list(zip(PROMPTS, counts, strict=True))
    expected = [greedy(model, *pair) for pair in pairs]
    assert len(set(expected[4])) > 10
    together = [ask(*pair) for pair in pairs]
    # the second time, prompts are in the prefix cache
    rounds = [*([one] for one in together), together, together]
    answers = drive(folder, rounds, cache=str(folders["cache"]))["rounds"]
    for answer in (*[alone[0] for alone in answers[:-2]], *answers[-2], *answers[-1]):
        assert answer["error"] is None
    assert [alone[0]["ids"] for alone in answers[:-2]] == expected
    assert [answer["ids"] for answer in answers[-2]] == expected
    assert [answer["ids"] for answer in answers[-1]] == expected


def test_bfloat16_differs_only_where_two_tokens_are_nearly_alike(folders: dict[str, Path]) -> None:
    import torch

    rounded = reference(folders["llama"]).to(torch.bfloat16)
    model = reference(folders["llama"]).to(torch.bfloat16).float()
    result = drive(
        folders["llama"],
        [[ask(prompt, 32) for prompt in PROMPTS]],
        dtype="bfloat16",
        cache=str(folders["cache"]),
    )
    for prompt, answer in zip(PROMPTS, result["rounds"][0], strict=True):
        ids = answer["ids"]
        assert len(ids) == 32
        place = slice(len(prompt) - 1, -1)
        with torch.no_grad():
            exact, near = (
                each(torch.tensor([[*prompt, *ids]])).logits[0, place].float()
                for each in (model, rounded)
            )
        lost = exact.max(-1).values - exact[range(len(ids)), ids]
        assert lost.max() <= 2 * (exact - near).abs().max()


def test_a_stop_id_ends_the_answer_and_is_its_last(folders: dict[str, Path], mistral: Any) -> None:
    expected = greedy(mistral, PROMPT, 24)
    rounds = [[ask(stop_ids=[expected[5]])]]
    answer = drive(folders["mistral"], rounds, cache=str(folders["cache"]))["rounds"][0][0]
    assert (answer["ids"], answer["finish"]) == (
        expected[: expected.index(expected[5]) + 1],
        "stop",
    )


def test_sampling_is_the_seeds_and_narrowed_to_one_token_it_is_greedy(
    folders: dict[str, Path], mistral: Any
) -> None:
    hot: dict[str, Any] = {"do_sample": True, "temperature": 1.5}
    narrow: list[dict[str, Any]] = [{"top_k": 1}, {"top_p": 1e-6}, {"min_p": 1.0}]
    rounds = [
        [ask(seed=7, **hot)],
        [ask(seed=7, **hot), *(ask(prompt, **hot) for prompt in PROMPTS[1:])],
        [ask(seed=8, **hot), ask(seed=-1, **hot), ask(seed=-1, **hot), ask(**hot), ask(**hot)],
        [ask(**hot, **one) for one in narrow],
    ]
    alone, among, others, one_left = drive(folders["mistral"], rounds, cache=str(folders["cache"]))[
        "rounds"
    ]
    assert alone[0]["ids"] == among[0]["ids"]
    assert alone[0]["ids"] != others[0]["ids"]
    assert others[1]["ids"] == others[2]["ids"]
    assert others[3]["ids"] != others[4]["ids"]
    assert [answer["ids"] for answer in one_left] == [greedy(mistral, PROMPT, 24)] * 3


def test_the_models_own_sampling_holds_where_a_request_leaves_it_open(
    folders: dict[str, Path], tmp_path: Path, mistral: Any
) -> None:
    for file in folders["mistral"].iterdir():
        (tmp_path / file.name).symlink_to(file)
    settings = tmp_path / "generation_config.json"
    settings.unlink()
    expected = greedy(mistral, PROMPT, 24)
    settings.write_text(json.dumps({"temperature": 2.0, "top_k": 1, "eos_token_id": expected[9]}))
    own, free = drive(tmp_path, [[ask(do_sample=True), ask(do_sample=True, top_k=0, seed=1)]])[
        "rounds"
    ][0]
    assert (own["ids"], own["finish"]) == (expected[: expected.index(expected[9]) + 1], "stop")
    assert free["ids"] != own["ids"]


def test_penalties_are_those_of_transformers_and_openai(
    folders: dict[str, Path], mistral: Any
) -> None:
    import torch

    expected = [greedy(mistral, PROMPT, 24, repetition_penalty=value) for value in (1.3, 3.0)]
    asked = [ask(repetition_penalty=value) for value in (1.3, 3.0)]
    for name in ("presence_penalty", "frequency_penalty"):
        ids: list[int] = []
        for _ in range(24):
            logits = mistral(torch.tensor([[*PROMPT, *ids]])).logits[0, -1].clone()
            for token in set(ids):
                logits[token] -= 2.0 * (1 if name == "presence_penalty" else ids.count(token))
            ids.append(int(logits.argmax()))
        expected.append(ids)
        asked.append(ask() | {name: 2.0})
    result = drive(folders["mistral"], [asked], cache=str(folders["cache"]))
    assert [answer["ids"] for answer in result["rounds"][0]] == expected


def test_a_cancelled_generation_leaves_its_place_and_the_others_alone(
    folders: dict[str, Path], mistral: Any
) -> None:
    long = [ask(prompt, 300, cancel=2) for prompt in PROMPTS[1:]]
    rounds = [[ask(max_new_tokens=60), *long], [ask(prompt) for prompt in PROMPTS]]
    first, second = drive(folders["mistral"], rounds, cache=str(folders["cache"]))["rounds"]
    assert first[0]["ids"] == greedy(mistral, PROMPT, 60)
    assert [answer["finish"] for answer in first[1:]] == ["cancelled"] * 7
    assert [answer["ids"] for answer in second] == [greedy(mistral, p, 24) for p in PROMPTS]


def test_the_longest_answers_are_right_though_the_cache_holds_only_one(
    folders: dict[str, Path], mistral: Any
) -> None:
    prompts = [prompt[-100:] * 3 for prompt in PROMPTS[6:]]
    counts = [CONTEXT - len(prompt) for prompt in prompts]
    asked = [ask(prompt, count) for prompt, count in zip(prompts, counts, strict=True)]
    one = CONTEXT // 32 + 1
    result = drive(folders["mistral"], [asked], cache=str(folders["cache"]), blocks=one)
    expected = [greedy(mistral, p, n) for p, n in zip(prompts, counts, strict=True)]
    assert [answer["ids"] for answer in result["rounds"][0]] == expected


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"prompt": []}, "prompt is empty"),
        ({"prompt": [999_999]}, "outside of 0 to"),
        ({"max_new_tokens": 0}, "max_new_tokens"),
        ({"presence_penalty": 3.0}, "penalty"),
        ({"do_sample": True, "temperature": -1.0}, "temperature"),
    ],
)
def test_what_it_cannot_take_fails_alone(
    asked: Asked, says: str, folders: dict[str, Path], mistral: Any
) -> None:
    rounds = [[ask(**asked), ask()]]
    bad, good = drive(folders["mistral"], rounds, cache=str(folders["cache"]))["rounds"][0]
    assert says in bad["error"]
    assert good["ids"] == greedy(mistral, PROMPT, 24)


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ({"adapters": {"a": "/a"}}, "cannot serve LoRA adapters; set SERVE_ENGINE=transformers"),
        ({"dtype": "float16"}, "set SERVE_DTYPE=bfloat16 or float32"),
        ({"device": "cuda"}, "for CPUs"),
        ({"context": 10**9}, "set a smaller SERVE_CONTEXT"),
    ],
)
def test_what_it_cannot_serve_is_said_at_the_start(
    spec: dict[str, Any], says: str, folders: dict[str, Path]
) -> None:
    assert says in drive(folders["mistral"], [], cache=str(folders["cache"]), **spec)["refused"]


def test_a_context_in_which_rotary_embeddings_change_is_refused(tmp_path: Path) -> None:
    from transformers import AutoConfig, AutoModelForCausalLM

    folder = shapes.save(tmp_path / "phi3", "phi3")
    config = AutoConfig.from_pretrained(folder)
    factors = [1.0 + place for place in range(8)]
    config.rope_parameters = {
        "rope_type": "longrope",
        "rope_theta": 10000.0,
        "partial_rotary_factor": 1.0,
        "short_factor": [1.0] * 8,
        "long_factor": factors,
        "original_max_position_embeddings": 128,
    }
    config.original_max_position_embeddings = 128
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    cache = str(tmp_path / "cache")
    assert "SERVE_CONTEXT=128" in drive(folder, [], cache=cache)["refused"]
    answer = drive(folder, [[ask(PROMPTS[3], 40)]], cache=cache, context=128)["rounds"][0][0]
    assert answer["ids"] == greedy(reference(folder), PROMPTS[3], 40)
    assert "SERVE_CONTEXT=128" in drive(folder, [], cache=cache)["refused"]


def test_an_architecture_that_was_never_compared_is_refused(tmp_path: Path) -> None:
    shapes.save_hybrid(tmp_path)
    assert "not verified for qwen3_next" in drive(tmp_path, [])["refused"]


def test_a_damaged_model_is_refused_and_leaves_nothing_behind(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    model = tmp_path / "model"
    model.mkdir()
    for file in folders["mistral"].iterdir():
        (model / file.name).symlink_to(file)
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").unlink()
    (model / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 3}))
    refused = drive(model, [], cache=str(tmp_path / "cache"))["refused"]
    assert "not a whole model" in refused
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_disk_without_room_for_the_conversion_is_named(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    refused = drive(folders["llama"], [], cache=str(cache), most_bytes=1000)["refused"]
    assert refused.startswith(f"{cache} cannot hold the conversion, with ")
    assert "set SERVE_ENGINE_CACHE" in refused
    assert list(cache.iterdir()) == []


def test_a_conversion_is_made_once_and_anew_for_other_weights(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    made = [drive(folders["llama"], [], cache=str(cache)) for _ in range(2)]
    assert len(list(cache.iterdir())) == 1
    weights = tmp_path / "model"
    weights.mkdir()
    for file in folders["llama"].iterdir():
        (weights / file.name).write_bytes(file.read_bytes())
    os.utime(weights / "model.safetensors", (time.time() - 100,) * 2)
    drive(weights, [], cache=str(cache))
    assert len(list(cache.iterdir())) == 2
    assert made[0]["info"]["version"].startswith("openvino-genai 20")
