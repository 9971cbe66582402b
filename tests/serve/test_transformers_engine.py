"""The engine against transformers itself."""

import json
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import torch

from serve.engine import EngineSpec, Generation, Sampling, load
from serve.engine.transformers_engine import TransformersEngine
from serve.errors import StartupError

PROMPT = [5, 100, 200, 300, 7, 150]


def spec(root: Path) -> EngineSpec:
    return EngineSpec(
        engine="transformers", root=root, device="cpu", dtype="float32", concurrency=4
    )


@pytest.fixture(scope="module")
def engine(tiny: Path) -> Iterator[TransformersEngine]:
    made = load(spec(tiny))
    assert isinstance(made, TransformersEngine)
    yield made
    made.close()


@pytest.fixture(scope="module")
def reference(tiny: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(tiny, attn_implementation="eager").eval()


def soon(seconds: float = 60) -> float:
    return time.monotonic() + seconds


def run(engine: TransformersEngine, prompt: list[int], **sampling: Any) -> tuple[list[int], Any]:
    sampling.setdefault("max_new_tokens", 16)
    generation = engine.generate(prompt, Sampling(**sampling), deadline=soon())
    with closing(generation):
        return list(generation), generation.finish_reason


def greedy(reference: Any, prompt: list[int], count: int) -> list[int]:
    out = reference.generate(torch.tensor([prompt]), max_new_tokens=count, do_sample=False)
    return [int(token) for token in out[0, len(prompt) :]]


def test_greedy_is_generates_own_answer(engine: TransformersEngine, reference: Any) -> None:
    assert run(engine, PROMPT, max_new_tokens=24) == (greedy(reference, PROMPT, 24), "length")


def test_greedy_is_the_same_with_others_beside_it(
    engine: TransformersEngine, reference: Any
) -> None:
    prompts = [PROMPT, PROMPT[::-1], [9] * 50, [11, 12]]
    got: dict[int, list[int]] = {}

    def ask(index: int) -> None:
        got[index] = run(engine, prompts[index], max_new_tokens=24)[0]

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(len(prompts))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert got == {i: greedy(reference, prompt, 24) for i, prompt in enumerate(prompts)}


def test_a_stop_id_ends_the_answer_and_is_its_last(
    engine: TransformersEngine, reference: Any
) -> None:
    expected = greedy(reference, PROMPT, 24)
    stop = expected[5]
    first = expected.index(stop)
    got = run(engine, PROMPT, max_new_tokens=24, stop_ids=frozenset([stop]))
    assert got == (expected[: first + 1], "stop")


def test_the_models_own_stop_ids_hold(engine: TransformersEngine) -> None:
    assert engine._stops == {2, 8}


def test_sampling_differs_follows_the_seed_and_keeps_to_its_own_parameters(
    engine: TransformersEngine, reference: Any
) -> None:
    torch.manual_seed(1)
    first, _ = run(engine, PROMPT, do_sample=True, temperature=1.5)
    second, _ = run(engine, PROMPT, do_sample=True, temperature=1.5)
    torch.manual_seed(1)
    again, _ = run(engine, PROMPT, do_sample=True, temperature=1.5)
    assert first != second
    assert first == again  # so nothing in between sets or shares a seed
    narrow, _ = run(engine, PROMPT, do_sample=True, temperature=5.0, top_p=1e-6)
    assert narrow == greedy(reference, PROMPT, 16)


def test_requests_leave_the_models_generation_config_alone(engine: TransformersEngine) -> None:
    before = engine._model.generation_config.to_dict()
    run(engine, PROMPT, do_sample=True, temperature=0.3, stop_ids=frozenset([4]))
    assert engine._model.generation_config.to_dict() == before


def test_the_deadline_ends_an_answer_with_what_there_is(engine: TransformersEngine) -> None:
    started = time.monotonic()
    generation = engine.generate(PROMPT, Sampling(max_new_tokens=4000), deadline=soon(0.3))
    got = list(generation)
    assert generation.finish_reason == "deadline"
    assert 0 < len(got) < 4000
    assert time.monotonic() - started < 3


def test_the_reader_is_released_though_the_model_computes_on(
    engine: TransformersEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = threading.Event()

    def slow(*args: Any, **kwargs: Any) -> None:
        done.wait(10)

    monkeypatch.setattr(engine._model, "generate", slow)
    generation = engine.generate(PROMPT, Sampling(max_new_tokens=5), deadline=soon(0.1))
    started = time.monotonic()
    assert list(generation) == []
    assert generation.finish_reason == "deadline"
    assert time.monotonic() - started < 3
    done.set()


def test_the_deadline_stops_the_work_though_nobody_reads(engine: TransformersEngine) -> None:
    engine.generate(PROMPT, Sampling(max_new_tokens=4000), deadline=soon(0.2))
    end = soon(3)
    while engine._open:
        assert time.monotonic() < end, "still generating"
        time.sleep(0.01)


def test_closing_stops_the_work(engine: TransformersEngine) -> None:
    generation: Generation = engine.generate(PROMPT, Sampling(max_new_tokens=4000), deadline=soon())
    next(generation)
    generation.close()
    assert generation.finish_reason == "cancelled"
    assert list(generation) == []
    end = soon(5)
    while engine._open:
        assert time.monotonic() < end, "still generating"
        time.sleep(0.01)


def test_an_error_inside_reaches_the_reader_and_the_next_request_works(
    engine: TransformersEngine,
) -> None:
    with pytest.raises(IndexError):
        run(engine, [10**6])  # no such token
    assert len(run(engine, PROMPT)[0]) == 16


def test_a_checkpoint_that_lacks_a_tensor_is_refused(tiny: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    half = tmp_path / "half"
    shutil.copytree(tiny, half)
    tensors = load_file(half / "model.safetensors")
    del tensors["model.layers.1.self_attn.sinks"]
    save_file(tensors, half / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(StartupError, match=r"not a whole model: 1 missing_keys, first model\.lay"):
        load(spec(half))


def test_an_unknown_architecture_is_one_sentence(tiny: Path, tmp_path: Path) -> None:
    odd = tmp_path / "odd"
    shutil.copytree(tiny, odd)
    config = json.loads((odd / "config.json").read_text()) | {"model_type": "none_such"}
    (odd / "config.json").write_text(json.dumps(config))
    with pytest.raises(StartupError, match="not usable") as caught:
        load(spec(odd))
    assert "\n" not in str(caught.value)


def test_a_models_sampling_defaults_hold_for_sampling_and_not_for_greedy(
    tiny: Path, tmp_path: Path, reference: Any
) -> None:
    own = tmp_path / "own"
    shutil.copytree(tiny, own)
    config = {"do_sample": True, "temperature": 4.0, "top_p": 1e-6, "eos_token_id": [2]}
    (own / "generation_config.json").write_text(json.dumps(config))
    with closing(load(spec(own))) as engine:
        assert isinstance(engine, TransformersEngine)
        expected = greedy(reference, PROMPT, 16)
        assert run(engine, PROMPT)[0] == expected
        assert run(engine, PROMPT, do_sample=True)[0] == expected  # their top_p leaves one token
        assert run(engine, PROMPT, do_sample=True, top_p=1.0, temperature=2.0)[0] != expected
