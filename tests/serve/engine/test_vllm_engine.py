"""vLLM, in its own interpreter and process, against transformers in this one.

    HOMEPORT_VLLM_PYTHON=<python> pytest -m slow tests/serve/engine/test_vllm_engine.py

Any build of vLLM that computes on a CPU will do. All in float32, where a greedy answer must be
`generate`'s own, token for token: the models have no near ties.
"""

import json
import math
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from serve.engine import EngineError, EngineSpec, Piece, Sampling
from serve.engine.environments import python
from serve.engine.supervisor import Supervisor
from serve.errors import StartupError
from tests.serve.engine import shapes
from tests.serve.engine.shapes import greedy, reference
from train.tiny import SPECIAL_TOKENS

PYTHON = os.environ.get("HOMEPORT_VLLM_PYTHON") or str(python("vllm"))
CONTEXT = 512
PROMPT = [5, 100, 200, 300, 7, 150]
PROMPTS = [[20 + (7 * i + j * j) % 300 for j in range(3 + 9 * i)] for i in range(8)]
"""From 3 to 66 tokens: shorter and longer than the sliding window."""
ADAPTERS = {"first": 1, "second": 2}
"""Names, and the seeds of their weights."""
SCHEMA = {
    "type": "object",
    "properties": {"on": {"type": "boolean"}, "n": {"enum": [1, 2, 3]}},
    "required": ["on", "n"],
    "additionalProperties": False,
}

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not Path(PYTHON).is_file(),
        reason=f"no vLLM: {PYTHON} is not there; name its Python in HOMEPORT_VLLM_PYTHON",
    ),
]


def spec(root: Path, adapters: Mapping[str, Path] | None = None) -> EngineSpec:
    return EngineSpec(
        engine="vllm",
        root=root,
        device="cpu",
        dtype="float32",
        concurrency=8,
        context=CONTEXT,
        adapters=adapters or {},
    )


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    return {
        "gpt_oss": shapes.save(folder / "gpt_oss", "gpt_oss"),
        "phi3": with_wider_heads(shapes.save(folder / "phi3", "phi3")),
        "mistral": with_wider_heads(shapes.save(folder / "mistral", "mistral")),
    }


def with_wider_heads(folder: Path) -> Path:
    """The same with fewer heads: on a CPU, vLLM's attention takes heads of 32 numbers or more."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(folder)
    config.num_attention_heads, config.num_key_value_heads = 2, 1
    config.head_dim = config.hidden_size // 2
    with torch.random.fork_rng():
        torch.manual_seed(7)
        model = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():  # markers are never the likeliest, so a greedy answer has its full length
        model.lm_head.weight[: len(SPECIAL_TOKENS)] = 0
    model.save_pretrained(folder)
    return folder


def save_adapter(base: Path, folder: Path, seed: int) -> Path:
    """Random LoRA weights, large enough to change every answer."""
    import torch
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"], init_lora_weights=False
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        get_peft_model(reference(base), config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def adapters(folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("adapters")
    return {
        name: save_adapter(folders["mistral"], folder / name, seed)
        for name, seed in ADAPTERS.items()
    }


@pytest.fixture(scope="module")
def engine(folders: dict[str, Path], adapters: dict[str, Path]) -> Iterator[Supervisor]:
    """Mistral, with two adapters."""
    made = Supervisor(spec(folders["mistral"], adapters=adapters), python=PYTHON)
    yield made
    made.close()


@pytest.fixture(scope="module")
def mistral(folders: dict[str, Path]) -> Any:
    return reference(folders["mistral"])


def run_all(engine: Supervisor, asked: Sequence[tuple[list[int], Sampling]]) -> list[Piece]:
    """All at the same time; each as one piece, in this order."""
    answers: dict[int, Piece] = {}
    with engine.session() as session:
        deadline = time.monotonic() + 120
        numbers = [session.start(prompt, how, deadline=deadline) for prompt, how in asked]
        while session.running:
            for piece in session.take(60):
                answer = answers.setdefault(piece.id, Piece(id=piece.id))
                answer.ids += piece.ids
                answer.finish = piece.finish
                if piece.logprobs is not None:
                    answer.logprobs = [*(answer.logprobs or ()), *piece.logprobs]
    return [answers[number] for number in numbers]


def run(engine: Supervisor, prompt: list[int] = PROMPT, **sampling: Any) -> Piece:
    sampling.setdefault("max_new_tokens", 24)
    return run_all(engine, [(prompt, Sampling(**sampling))])[0]


def check_greedy(engine: Supervisor, model: Any) -> None:
    alone = run(engine)
    assert (alone.ids, alone.finish) == (greedy(model, PROMPT, 24), "length")
    counts = [40, 3, 17, 1, 64, 9, 30, 22]
    asked = [
        (prompt, Sampling(max_new_tokens=count))
        for prompt, count in zip(PROMPTS, counts, strict=True)
    ]
    expected = [greedy(model, prompt, count) for prompt, count in zip(PROMPTS, counts, strict=True)]
    assert [piece.ids for piece in run_all(engine, asked)] == expected


def test_greedy_alone_and_among_eight_is_generates_own_answer(
    engine: Supervisor, mistral: Any
) -> None:
    check_greedy(engine, mistral)


@pytest.mark.parametrize("kind", ["gpt_oss", "phi3"])
def test_greedy_is_generates_own_answer_with(kind: str, folders: dict[str, Path]) -> None:
    engine = Supervisor(spec(folders[kind]), python=PYTHON)
    try:
        check_greedy(engine, reference(folders[kind]))
    finally:
        engine.close()


def test_a_stop_id_ends_the_answer_and_is_its_last(engine: Supervisor, mistral: Any) -> None:
    expected = greedy(mistral, PROMPT, 24)
    stop = expected[5]
    piece = run(engine, stop_ids=frozenset([stop]))
    assert (piece.ids, piece.finish) == (expected[: expected.index(stop) + 1], "stop")


def test_a_seed_gives_the_same_answer_alone_and_among_others(engine: Supervisor) -> None:
    sampling: dict[str, Any] = {"do_sample": True, "temperature": 1.5}
    first, other = run(engine, seed=7, **sampling), run(engine, seed=8, **sampling)
    again, *_ = run_all(
        engine,
        [(PROMPT, Sampling(max_new_tokens=24, seed=7, **sampling))]
        + [(prompt, Sampling(max_new_tokens=24, **sampling)) for prompt in PROMPTS[1:]],
    )
    assert first.ids == again.ids
    assert first.ids != other.ids


def test_minus_one_is_a_seed_like_any_other(engine: Supervisor) -> None:
    first, again = (run(engine, do_sample=True, temperature=1.5, seed=-1) for _ in range(2))
    assert first.ids == again.ids


@pytest.mark.parametrize("narrow", [{"top_k": 1}, {"top_p": 1e-6}, {"min_p": 1.0}])
def test_only_the_likeliest_token_is_left_with(
    narrow: dict[str, Any], engine: Supervisor, mistral: Any
) -> None:
    piece = run(engine, do_sample=True, temperature=2.0, **narrow)
    assert piece.ids == greedy(mistral, PROMPT, 24)


def test_the_models_own_sampling_holds_where_a_request_leaves_it_open(
    folders: dict[str, Path], tmp_path: Path, mistral: Any
) -> None:
    for file in folders["mistral"].iterdir():
        (tmp_path / file.name).symlink_to(file)
    settings = tmp_path / "generation_config.json"
    settings.unlink()
    expected = greedy(mistral, PROMPT, 24)
    settings.write_text(json.dumps({"temperature": 2.0, "top_k": 1, "eos_token_id": expected[9]}))
    engine = Supervisor(spec(tmp_path), python=PYTHON)
    try:
        piece = run(engine, do_sample=True)
        assert (piece.ids, piece.finish) == (expected[: expected.index(expected[9]) + 1], "stop")
        assert run(engine, do_sample=True, top_k=0, seed=1).ids != piece.ids
    finally:
        engine.close()


@pytest.mark.parametrize("penalty", [1.3, 3.0])
def test_repetition_is_penalised_as_in_generate(
    penalty: float, engine: Supervisor, mistral: Any
) -> None:
    expected = greedy(mistral, PROMPT, 24, repetition_penalty=penalty)
    assert run(engine, repetition_penalty=penalty).ids == expected


@pytest.mark.parametrize("name", ["presence_penalty", "frequency_penalty"])
def test_the_answers_own_tokens_are_penalised_by(
    name: str, engine: Supervisor, mistral: Any
) -> None:
    import torch

    penalty: dict[str, Any] = {name: 2.0}
    expected: list[int] = []
    for _ in range(24):
        logits = mistral(torch.tensor([[*PROMPT, *expected]])).logits[0, -1].clone()
        for token in set(expected):
            times = 1 if name == "presence_penalty" else expected.count(token)
            logits[token] -= 2.0 * times
        expected.append(int(logits.argmax()))
    assert run(engine, **penalty).ids == expected


def test_logprobs_are_the_models_own_and_the_likeliest_come_first(
    engine: Supervisor, mistral: Any
) -> None:
    import torch

    piece = run(engine, max_new_tokens=6, logprobs=3)
    assert piece.logprobs is not None
    assert len(piece.logprobs) == 6
    for place, (token, logprob) in enumerate(zip(piece.ids, piece.logprobs, strict=True)):
        ids = torch.tensor([[*PROMPT, *piece.ids[:place]]])
        expected = torch.log_softmax(mistral(ids).logits[0, -1].detach(), -1)
        values, tokens = expected.topk(3)
        assert math.isclose(logprob.logprob, float(expected[token]), abs_tol=1e-3)
        assert [each for each, _ in logprob.top] == tokens.tolist()
        assert [value for _, value in logprob.top] == pytest.approx(values.tolist(), abs=1e-3)


def test_logprobs_of_the_chosen_tokens_alone(engine: Supervisor) -> None:
    piece = run(engine, max_new_tokens=3, logprobs=0, do_sample=True, temperature=2.0)
    assert piece.logprobs is not None
    assert [logprob.top for logprob in piece.logprobs] == [()] * 3


def test_an_answer_keeps_to_a_json_schema(engine: Supervisor, folders: dict[str, Path]) -> None:
    from serve.prompt import load_tokenizer

    schema = json.dumps(SCHEMA)
    piece = run(engine, max_new_tokens=200, json_schema=schema, do_sample=True, seed=3)
    answer = json.loads(load_tokenizer(folders["mistral"]).decode(piece.ids[:-1]))
    assert piece.finish == "stop"
    assert set(answer) == {"on", "n"}
    assert answer["n"] in (1, 2, 3)


def test_adapters_answer_side_by_side_as_each_would_alone(
    engine: Supervisor, mistral: Any, folders: dict[str, Path], adapters: dict[str, Path]
) -> None:
    from peft import PeftModel

    expected = [greedy(mistral, PROMPT, 24)]
    for path in adapters.values():
        adapted = PeftModel.from_pretrained(reference(folders["mistral"]), path).eval()
        expected.append(greedy(adapted, PROMPT, 24))
    assert len({tuple(ids) for ids in expected}) == 3
    asked = [(PROMPT, Sampling(max_new_tokens=24, adapter=name)) for name in (None, *adapters)]
    assert [piece.ids for piece in run_all(engine, asked)] == expected


def test_a_cancelled_generation_is_heard_of_no_more_and_frees_its_place(
    engine: Supervisor, mistral: Any
) -> None:
    with engine.session() as session:
        deadline = time.monotonic() + 60
        many = [
            session.start(PROMPT, Sampling(max_new_tokens=480), deadline=deadline) for _ in range(8)
        ]
        assert session.take(30)
        for number in many:
            session.cancel(number)
        assert session.running == frozenset()
        assert session.take(0.2) == []
    assert run(engine).ids == greedy(mistral, PROMPT, 24)


def test_the_longest_answer_that_fits_into_the_context(engine: Supervisor) -> None:
    piece = run(engine, max_new_tokens=CONTEXT - len(PROMPT))
    assert (len(piece.ids), piece.finish) == (CONTEXT - len(PROMPT), "length")


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"prompt": [5] * (CONTEXT + 1)}, "maximum context length is 512"),
        ({"prompt": [999_999]}, "out of vocabulary"),
        ({"do_sample": True, "temperature": 2.5}, "temperature must be in"),
        ({"logprobs": 21}, "greater than max allowed"),
        ({"adapter": "none"}, "no adapter 'none'"),
        ({"json_schema": '{"type": "nothing"}'}, "Grammar error"),
    ],
)
def test_what_vllm_refuses_fails_alone(
    asked: dict[str, Any], says: str, engine: Supervisor, mistral: Any
) -> None:
    with pytest.raises(EngineError, match=says):
        run(engine, **asked)
    assert engine.restarts == 0
    assert run(engine).ids == greedy(mistral, PROMPT, 24)


def test_a_model_without_its_weights_is_refused_in_one_sentence(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_bytes((folders["mistral"] / "config.json").read_bytes())
    with pytest.raises(StartupError, match="does not load"):
        Supervisor(spec(tmp_path), python=PYTHON)
