"""The transformers engine against transformers itself, in fp32, where tokens are equal exactly."""

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from serve.engine import EngineSpec, Piece, Sampling, transformers_engine
from serve.engine.transformers_engine import TransformersBackend, load
from serve.engine.transformers_picking import Defaults, Picker, nucleus, pick
from serve.errors import StartupError
from tests.serve.engine import shapes

PROMPT = [25, 100, 200, 290, 27, 150]
LENGTHS = (3, 40, 7, 200, 33, 64, 1, 700)
"""Of the prompts in a batch: below and beyond the window, and one longer than a step."""

ATTENTION = {"gpt_oss": "paged eager", "hybrid": "sdpa, one request at a time"}

pytestmark = pytest.mark.slow

Folders = Callable[[str], Path]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    made: dict[str, Path] = {}

    def get(kind: str) -> Path:
        if kind not in made:
            path = tmp_path_factory.mktemp("models") / kind
            made[kind] = shapes.save_hybrid(path) if kind == "hybrid" else shapes.save(path, kind)
        return made[kind]

    return get


def spec(root: Path, **more: Any) -> EngineSpec:
    settings: dict[str, Any] = {"concurrency": 8, "context": 1024, "dtype": "float32", **more}
    return EngineSpec(engine="transformers", root=root, device="cpu", **settings)


@pytest.fixture(scope="module")
def llama(folder: Folders) -> Iterator[TransformersBackend]:
    with closing(load(spec(folder("llama")))) as backend:
        yield backend


def prompts(*lengths: int) -> list[list[int]]:
    numbers = torch.Generator().manual_seed(1)
    return [torch.randint(20, 300, (n,), generator=numbers).tolist() for n in lengths]


def greedy(root: Path, asked: list[list[int]], count: int) -> list[list[int]]:
    """What `model.generate` answers."""
    from transformers import AutoModelForCausalLM

    eager = {"attn_implementation": "eager"} if "gpt_oss" in root.name else {}
    model = AutoModelForCausalLM.from_pretrained(root, **eager).eval()
    answers = []
    for prompt in asked:
        ids = torch.tensor([prompt])
        made = model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=count, do_sample=False
        )
        answers.append([int(token) for token in made[0, len(prompt) :]])
    return answers


def drain(backend: TransformersBackend, *numbers: int) -> dict[int, list[Piece]]:
    """All pieces until these generations have ended."""
    pieces: dict[int, list[Piece]] = {number: [] for number in numbers}
    for _ in range(20_000):
        if all(got and got[-1].finish for got in pieces.values()):
            return pieces
        for piece in backend.step():
            assert not pieces[piece.id] or pieces[piece.id][-1].finish is None
            pieces[piece.id].append(piece)
    raise AssertionError("it does not end")


def run(backend: TransformersBackend, *asked: tuple[list[int], Sampling]) -> list[list[int]]:
    """The answers, all asked at the same time."""
    for number, (prompt, sampling) in enumerate(asked):
        backend.add(number, prompt, sampling)
    pieces = drain(backend, *range(len(asked)))
    assert all(piece.error is None for got in pieces.values() for piece in got)
    return [[token for piece in pieces[n] for token in piece.ids] for n in range(len(asked))]


@pytest.mark.parametrize("kind", [*shapes.KINDS, "hybrid"])
def test_greedy_is_generates_own_answer_alone_and_packed(folder: Folders, kind: str) -> None:
    asked = prompts(*LENGTHS)
    expected = greedy(folder(kind), asked, 48)
    assert len({tuple(answer) for answer in expected}) == len(asked)
    sampling = Sampling(max_new_tokens=48)
    with closing(load(spec(folder(kind)))) as backend:
        assert backend.info.attention == ATTENTION.get(kind, "paged sdpa")
        assert run(backend, *((prompt, sampling) for prompt in asked)) == expected
        assert run(backend, (asked[3], sampling)) == [expected[3]]


@pytest.mark.parametrize(
    ("kind", "room"), [("gpt_oss", 1024), ("llama", 1024), ("mistral", 64), ("phi3", 64)]
)
def test_long_requests_that_do_not_fit_together_wait_and_all_answer_right(
    folder: Folders, kind: str, room: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transformers_engine, "_cache_tokens", lambda *_: room)
    asked = prompts(*[300] * 6)
    expected = greedy(folder(kind), asked, 150)
    with closing(load(spec(folder(kind)))) as backend:
        sampling = Sampling(max_new_tokens=150)
        assert run(backend, *((prompt, sampling) for prompt in asked)) == expected
        taken = backend._lane.cost(450)
        assert 6 * taken > backend._lane.capacity >= taken


def test_what_the_cache_can_never_hold_is_refused_and_does_not_wait_for_ever(
    folder: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transformers_engine, "_cache_tokens", lambda *_: 320)
    with closing(load(spec(folder("llama")))) as backend:
        with pytest.raises(ValueError, match="no room for 322 tokens; ask for fewer"):
            backend.add(1, PROMPT, Sampling(max_new_tokens=316))
        assert len(run(backend, (PROMPT, Sampling(max_new_tokens=314)))[0]) == 314


def test_the_cache_takes_no_more_than_its_share_of_the_memory(
    folder: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transformers_engine, "_free_memory", lambda _: 2**24)
    with closing(load(spec(folder("llama"), concurrency=64))) as backend:
        assert backend._lane.cost(1024) <= backend._lane.capacity < 64 * backend._lane.cost(1024)
    monkeypatch.setattr(transformers_engine, "_free_memory", lambda _: 2**20)
    with pytest.raises(StartupError, match=r"less than one request of 1024; lower the context\."):
        load(spec(folder("llama")))


def test_a_stop_id_ends_the_answer_and_is_its_last(llama: TransformersBackend) -> None:
    [whole] = run(llama, (PROMPT, Sampling(max_new_tokens=24)))
    stop = whole[5]
    llama.add(1, PROMPT, Sampling(max_new_tokens=24, stop_ids=frozenset([stop])))
    pieces = drain(llama, 1)[1]
    assert [piece.ids for piece in pieces] == [[token] for token in whole[: whole.index(stop) + 1]]
    assert pieces[-1].finish == "stop"
    assert llama._stops == {2, 8}


def test_a_cancelled_generation_is_silent_and_leaves_the_others_alone(
    llama: TransformersBackend,
) -> None:
    asked = prompts(20, 30)
    [alone] = run(llama, (asked[1], Sampling(max_new_tokens=30)))
    llama.add(1, asked[0], Sampling(max_new_tokens=500))
    llama.add(2, asked[1], Sampling(max_new_tokens=30))
    first = [piece for _ in range(3) for piece in llama.step()]
    assert {piece.id for piece in first} == {1, 2}
    llama.cancel(1)
    llama.cancel(77)
    rest = drain(llama, 2)[2]
    begun = [token for piece in first if piece.id == 2 for token in piece.ids]
    assert begun + [token for piece in rest for token in piece.ids] == alone
    llama.step()
    assert not llama._lane._runs  # type: ignore[attr-defined]
    cache = llama._lane._cache  # type: ignore[attr-defined]
    assert all(not kind.block_table for kind in cache.cache_allocators.values())


@pytest.mark.parametrize(
    ("prompt", "sampling", "sentence"),
    [
        ([], Sampling(max_new_tokens=4), "token ids from 0"),
        ([10**6], Sampling(max_new_tokens=4), "token ids from 0"),
        ([-1], Sampling(max_new_tokens=4), "token ids from 0"),
        ([30] * 1000, Sampling(max_new_tokens=25), "must fit into 1024"),
        ([30], Sampling(max_new_tokens=0), "must fit"),
        ([30], Sampling(max_new_tokens=4, adapter="none"), "no adapter"),
        ([30], Sampling(max_new_tokens=4, json_schema="{}"), "JSON schema"),
    ],
)
def test_what_would_break_the_batch_is_refused_alone(
    llama: TransformersBackend, prompt: list[int], sampling: Sampling, sentence: str
) -> None:
    with pytest.raises(ValueError, match=sentence):
        llama.add(1, prompt, sampling)
    assert len(run(llama, (PROMPT, Sampling(max_new_tokens=4)))[0]) == 4


def test_a_seed_repeats_whoever_else_is_there_and_others_differ(
    llama: TransformersBackend,
) -> None:
    drawn = Sampling(max_new_tokens=16, do_sample=True, temperature=1.5)
    seeded = Sampling(max_new_tokens=16, do_sample=True, temperature=1.5, seed=3)
    plain = Sampling(max_new_tokens=16)
    torch.manual_seed(1)
    first, second, mine, sure = run(llama, *((PROMPT, s) for s in (drawn, drawn, seeded, plain)))
    torch.manual_seed(1)
    [again] = run(llama, (PROMPT, drawn))
    assert len({tuple(answer) for answer in (first, second, mine, again, sure)}) == 5
    assert run(llama, (PROMPT, seeded)) == [mine]
    assert run(llama, (PROMPT, plain)) == [sure]


@pytest.mark.parametrize("one", [{"top_k": 1}, {"top_p": 1e-6}, {"min_p": 1.0}])
def test_what_leaves_one_token_is_greedy(llama: TransformersBackend, one: dict[str, Any]) -> None:
    narrow = Sampling(max_new_tokens=16, do_sample=True, temperature=5.0, **one)
    answers = run(llama, (PROMPT, narrow), (PROMPT, Sampling(max_new_tokens=16)))
    assert answers[0] == answers[1]


def test_logprobs_are_the_models_own(llama: TransformersBackend, folder: Folders) -> None:
    from transformers import AutoModelForCausalLM

    llama.add(1, PROMPT, Sampling(max_new_tokens=8, logprobs=3, repetition_penalty=1.5))
    pieces = drain(llama, 1)[1]
    answer = [token for piece in pieces for token in piece.ids]
    got = [value for piece in pieces for value in piece.logprobs or []]
    model = AutoModelForCausalLM.from_pretrained(folder("llama")).eval()
    with torch.no_grad():
        logits = model(torch.tensor([PROMPT + answer])).logits[0, len(PROMPT) - 1 : -1]
    values = logits.log_softmax(dim=-1)
    assert len(got) == 8
    for row, token, value in zip(values, answer, got, strict=True):
        assert value.logprob == pytest.approx(float(row[token]), abs=1e-3)
        assert [token for token, _ in value.top] == row.topk(3).indices.tolist()


def test_repetition_penalty_is_generates(llama: TransformersBackend, folder: Folders) -> None:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder("llama")).eval()
    ids = torch.tensor([PROMPT])
    made = model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=24,
        do_sample=False,
        repetition_penalty=1.7,
    )
    got = run(llama, (PROMPT, Sampling(max_new_tokens=24, repetition_penalty=1.7)))
    assert got == [made[0, len(PROMPT) :].tolist()]


@pytest.mark.parametrize("name", ["presence_penalty", "frequency_penalty"])
def test_a_high_penalty_forbids_what_was_generated(llama: TransformersBackend, name: str) -> None:
    strict = Sampling(max_new_tokens=60, **{name: 1000.0})  # type: ignore[arg-type]
    [answer] = run(llama, (PROMPT, strict))
    assert len(set(answer)) == 60
    assert len(set(run(llama, (PROMPT, Sampling(max_new_tokens=60)))[0])) < 60


def test_frequency_counts_and_presence_does_not() -> None:
    logits = torch.tensor([3.0, 2.8, 0.0])
    assert _picks(logits, 3, presence_penalty=0.15) == [0, 0, 0]
    assert _picks(logits, 3, frequency_penalty=0.15) == [0, 0, 1]


def _picks(logits: torch.Tensor, count: int, **penalty: float) -> list[int]:
    nothing = Defaults(temperature=None, top_p=None, top_k=None)
    sampling = Sampling(max_new_tokens=9, **penalty)  # type: ignore[arg-type]
    picker = Picker(sampling, nothing, [0, 0, 0, 0], torch.device("cpu"))
    return [picker.pick(logits)[0] for _ in range(count)]


@pytest.mark.parametrize("size", [50, 5000])
@pytest.mark.parametrize("top_p", [0.05, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("spread", [0.1, 3.0])
def test_the_nucleus_is_transformers_own(size: int, top_p: float, spread: float) -> None:
    from transformers import TopPLogitsWarper

    scores = spread * torch.randn(size, generator=torch.Generator().manual_seed(5))
    expected = TopPLogitsWarper(top_p)(None, scores[None])[0]
    differing = (torch.isfinite(expected) != torch.isfinite(nucleus(scores, top_p))).sum()
    assert differing <= 1  # rounding, at the edge


def test_draws_follow_the_probabilities() -> None:
    nothing = Defaults(temperature=None, top_p=None, top_k=None)
    sampling = Sampling(max_new_tokens=1, do_sample=True, seed=1)
    picker = Picker(sampling, nothing, PROMPT, torch.device("cpu"))
    logits = torch.tensor([0.1, 0.2, 0.0, 0.7]).log()
    drawn = torch.tensor([picker.pick(logits)[0] for _ in range(4000)])
    shares = drawn.bincount(minlength=4) / 4000
    assert torch.allclose(shares, torch.tensor([0.1, 0.2, 0.0, 0.7]), atol=0.03)
    assert shares[2] == 0


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_a_row_without_numbers_fails_alone(bad: float) -> None:
    nothing = Defaults(temperature=None, top_p=None, top_k=None)
    pickers = [
        Picker(Sampling(max_new_tokens=1, do_sample=True), nothing, PROMPT, torch.device("cpu"))
        for _ in range(2)
    ]
    rows = torch.tensor([[0.0, bad, 1.0], [0.0, -torch.inf, 60.0]])
    assert pick(pickers, rows) == [None, (2, None)]


@pytest.mark.parametrize("kind", ["llama", "hybrid"])
def test_an_overflow_ends_its_generation_with_an_error(
    folder: Folders, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(load(spec(folder(kind)))) as backend:
        backend.add(1, PROMPT, Sampling(max_new_tokens=9))
        backend.add(2, PROMPT, Sampling(max_new_tokens=9))
        backend.step()
        lost = backend._running[1].picker
        monkeypatch.setattr(
            "serve.engine.transformers_lanes.pick",
            lambda pickers, rows: [
                None if picker is lost else picked
                for picker, picked in zip(pickers, pick(pickers, rows), strict=True)
            ],
        )
        pieces = drain(backend, 1, 2)
        assert pieces[1][-1].error is not None
        assert "overflowed" in pieces[1][-1].error
        assert pieces[2][-1].finish == "length"


def test_no_progress_is_an_error_and_no_hang(folder: Folders) -> None:
    with closing(load(spec(folder("llama")))) as backend:
        backend.add(1, PROMPT, Sampling(max_new_tokens=9))
        backend.step()
        backend._lane._work.scheduler.active_requests.clear()  # type: ignore[attr-defined]
        with pytest.raises(RuntimeError, match="1 generations wait and none can be scheduled"):
            drain(backend, 1)


def test_an_architecture_that_is_packed_wrongly_is_run_one_by_one(
    folder: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    from serve.engine import transformers_lanes

    monkeypatch.setattr(transformers_lanes, "pairwise", lambda ends: [*pairwise(ends)][::-1])
    with closing(load(spec(folder("llama")))) as backend:
        assert backend.info.attention == "sdpa, one request at a time"
        assert run(backend, (PROMPT, Sampling(max_new_tokens=9))) == greedy(
            folder("llama"), [PROMPT], 9
        )


@pytest.fixture(scope="module")
def adapters(folder: Folders, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two LoRA adapters of the Llama shape, with random weights."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    made: dict[str, Path] = {}
    for name in ("first", "second"):
        with torch.random.fork_rng():
            torch.manual_seed(len(made))
            config = LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False)
            model = AutoModelForCausalLM.from_pretrained(folder("llama"))
            made[name] = tmp_path_factory.mktemp("adapters") / name
            get_peft_model(model, config).save_pretrained(made[name])
    return made


@pytest.mark.parametrize("kind", ["paged", "serial"])
def test_adapters_take_turns_and_each_answers_as_if_alone(
    folder: Folders, adapters: dict[str, Path], kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    asked = prompts(50, 20)
    expected: dict[str | None, list[list[int]]] = {None: greedy(folder("llama"), asked, 70)}
    for name, path in adapters.items():
        model = AutoModelForCausalLM.from_pretrained(folder("llama"))
        PeftModel.from_pretrained(model, path).merge_and_unload().save_pretrained(
            merged := path / "merged"
        )
        expected[name] = greedy(merged, asked, 70)
    assert len({tuple(answers[0]) for answers in expected.values()}) == 3
    if kind == "serial":
        monkeypatch.setattr(transformers_engine, "Paged", None)
    with closing(load(spec(folder("llama"), adapters=adapters))) as backend:
        assert "adapters" in backend.info.features
        jobs = [(i, adapter) for adapter in expected for i in range(2)]
        order: list[str | None] = []
        for number, (i, adapter) in enumerate(jobs):
            backend.add(number, asked[i], Sampling(max_new_tokens=70, adapter=adapter))
        backend.add(90, asked[0], Sampling(max_new_tokens=900, adapter="first"))
        backend.add(91, asked[1], Sampling(max_new_tokens=900, adapter="second"))
        got: dict[int, list[int]] = {number: [] for number in (*range(len(jobs)), 90, 91)}
        for count in range(1000):
            for piece in backend.step():
                got[piece.id] += piece.ids
                order.append(jobs[piece.id][1] if piece.id < len(jobs) else None)
            if count == 30:
                backend.cancel(90)
                backend.cancel(91)
            if all(len(got[number]) == 70 for number in range(len(jobs))):
                break
        assert [got[n] for n in range(len(jobs))] == [expected[adapter][i] for i, adapter in jobs]
        assert order.index("second") < 8 * 3 * transformers_engine.TURN_STEPS
        backend.step()
        assert not backend._running
        assert not backend._lane._runs  # type: ignore[attr-defined]
        if kind == "paged":
            cache = backend._lane._cache  # type: ignore[attr-defined]
            assert all(not one.block_table for one in cache.cache_allocators.values())


@pytest.mark.parametrize("place", [0, 1])
def test_an_adapter_that_lacks_a_tensor_is_refused(
    folder: Folders, adapters: dict[str, Path], tmp_path: Path, place: int
) -> None:
    from safetensors.torch import load_file, save_file

    half = tmp_path / "half"
    shutil.copytree(adapters["second"], half)
    tensors = load_file(half / "adapter_model.safetensors")
    tensors.pop(sorted(tensors)[0])
    save_file(tensors, half / "adapter_model.safetensors")
    named = {"first": adapters["first"], "half": half}
    with pytest.raises(StartupError, match="does not load: Found missing adapter keys"):
        load(spec(folder("llama"), adapters=dict([*named.items()][1 - place :])))


def test_an_adapter_that_is_none_is_one_sentence(folder: Folders, tmp_path: Path) -> None:
    with pytest.raises(StartupError, match="does not load") as caught:
        load(spec(folder("llama"), adapters={"gone": tmp_path}))
    assert "\n" not in str(caught.value)


def test_a_models_sampling_defaults_hold_for_sampling_and_not_for_greedy(
    folder: Folders, tmp_path: Path
) -> None:
    own = tmp_path / "own"
    shutil.copytree(folder("llama"), own)
    config = {"do_sample": True, "temperature": 4.0, "top_p": 1e-6, "eos_token_id": [2]}
    (own / "generation_config.json").write_text(json.dumps(config))
    with closing(load(spec(own))) as backend:
        [expected] = run(backend, (PROMPT, Sampling(max_new_tokens=16)))
        drawn = Sampling(max_new_tokens=16, do_sample=True)
        assert run(backend, (PROMPT, drawn)) == [expected]  # their top_p leaves one token
        wide = Sampling(max_new_tokens=16, do_sample=True, top_p=1.0, temperature=2.0)
        assert run(backend, (PROMPT, wide)) != [expected]


def test_a_checkpoint_that_lacks_a_tensor_is_refused(folder: Folders, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    half = tmp_path / "half"
    shutil.copytree(folder("gpt_oss"), half)
    tensors = load_file(half / "model.safetensors")
    del tensors["model.layers.1.self_attn.sinks"]
    save_file(tensors, half / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(StartupError, match=r"not a whole model: 1 missing_keys, first model\.lay"):
        load(spec(half))


def test_an_unknown_architecture_is_one_sentence(folder: Folders, tmp_path: Path) -> None:
    odd = tmp_path / "odd"
    shutil.copytree(folder("llama"), odd)
    config = json.loads((odd / "config.json").read_text()) | {"model_type": "none_such"}
    (odd / "config.json").write_text(json.dumps(config))
    with pytest.raises(StartupError, match="not usable") as caught:
        load(spec(odd))
    assert "\n" not in str(caught.value)
