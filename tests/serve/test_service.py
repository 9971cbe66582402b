"""From a body to a reply, with a hand-written engine; and what each layer may import."""

import ast
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from serve.engine import EngineInfo, FinishReason, Sampling
from serve.errors import StartupError
from serve.model import ModelDefaults
from serve.prompt import PromptWriter
from serve.service import Reply, Service
from serve.settings import Settings

SERVE = Path(__file__).resolve().parents[2] / "serve"


class Said:
    """A generation that says fixed ids."""

    def __init__(self, ids: Sequence[int], reason: FinishReason) -> None:
        self._ids: Iterator[int] = iter(ids)
        self._reason = reason
        self.finish_reason: FinishReason | None = None
        self.closed = False

    def __iter__(self) -> "Said":
        return self

    def __next__(self) -> int:
        for token in self._ids:
            return token
        self.finish_reason = self._reason
        raise StopIteration

    def close(self) -> None:
        self.closed = True


class FakeEngine:
    """Answers with `ids`, or raises `error`; remembers what it was asked."""

    def __init__(self) -> None:
        self.ids: Sequence[int] = ()
        self.reason: FinishReason = "stop"
        self.error: Exception | None = None
        self.asked: list[Sampling] = []
        self.said: list[Said] = []

    @property
    def info(self) -> EngineInfo:
        return EngineInfo(load_seconds=0, attention="none")

    def generate(self, prompt_ids: Sequence[int], sampling: Sampling, *, deadline: float) -> Said:
        if self.error:
            raise self.error
        self.asked.append(sampling)
        self.said.append(Said(self.ids, self.reason))
        return self.said[-1]

    def close(self) -> None:
        pass


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine()


@pytest.fixture
def service(engine: FakeEngine, tokenizer: Any) -> Service:
    writer = PromptWriter(tokenizer, ModelDefaults(), context=4096)
    return Service(Settings(), writer, engine)


def ask(service: Service, **body: Any) -> Reply:
    return service.answer(json.dumps({"prompt": "hi", **body}).encode())


def test_an_answer_has_output_reasoning_reason_and_usage(
    service: Service, engine: FakeEngine, tokenizer: Any
) -> None:
    text = "<|channel|>analysis<|message|>考える<|end|>"
    text += "<|start|>assistant<|channel|>final<|message|>東京です。<|return|>"
    engine.ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    reply = ask(service)
    usage = reply.body.get("usage")
    assert reply.status == 200
    assert isinstance(usage, dict)
    assert usage["completion_tokens"] == len(engine.ids)
    assert usage["prompt_tokens"] > 10
    assert {**reply.body, "usage": None} == {
        "output": "東京です。",
        "reasoning": "考える",
        "finish_reason": "stop",
        "usage": None,
    }
    assert engine.said[0].closed


def test_an_answer_cut_within_a_letter_does_not_show_half_of_it(
    service: Service, engine: FakeEngine, tokenizer: Any
) -> None:
    engine.ids = tokenizer("ab語", add_special_tokens=False)["input_ids"][:-1]
    engine.reason = "length"
    assert ask(service).body["output"] == "ab"
    engine.reason = "stop"
    assert ask(service).body["output"] == "ab\ufffd"


def test_parameters_and_harmonys_stops_reach_the_engine(
    service: Service, engine: FakeEngine
) -> None:
    ask(service, max_new_tokens=9, do_sample=True, temperature=0.5, top_p=0.9)
    assert engine.asked == [
        Sampling(
            max_new_tokens=9,
            do_sample=True,
            temperature=0.5,
            top_p=0.9,
            stop_ids=frozenset([2, 8]),  # <|return|> and <|call|>
        )
    ]


def test_a_bug_is_a_500_that_tells_nothing_and_the_next_request_works(
    service: Service, engine: FakeEngine, caplog: pytest.LogCaptureFixture
) -> None:
    engine.error = ZeroDivisionError("secret")
    reply = ask(service)
    assert reply.status == 500
    assert "secret" not in json.dumps(reply.body)
    assert "ZeroDivisionError" in caplog.text
    engine.error = None
    assert ask(service).status == 200


def test_a_wrong_request_is_refused_though_the_server_is_full(
    engine: FakeEngine, tokenizer: Any
) -> None:
    writer = PromptWriter(tokenizer, ModelDefaults(), context=4096)
    service = Service(Settings(max_concurrent=1, max_queue=0), writer, engine)
    with service._admission.enter(0):
        full = ask(service)
        assert (full.status, full.headers) == (429, {"Retry-After": "5"})
        assert ask(service, nonsense=1).status == 400


def test_a_model_that_cannot_answer_does_not_start(service: Service, engine: FakeEngine) -> None:
    assert service.warm_up() >= 0
    engine.error = RuntimeError("no")
    with pytest.raises(StartupError, match="does not answer a first request"):
        service.warm_up()


def imports(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.split(".")[0])
    return names


def test_only_the_engine_knows_torch_and_nothing_knows_the_other_rooms() -> None:
    sources = list(SERVE.rglob("*.py"))
    assert len(sources) > 10
    for path in sources:
        if path.parent.name != "engine":
            assert "torch" not in imports(path), path
        assert not imports(path) & {"train", "scripts", "emulator", "azure"}, path
    assert "torch" not in imports(SERVE / "engine" / "__init__.py")
