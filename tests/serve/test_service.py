"""From a body to a reply, with a hand-written engine; and what each layer may import."""

import ast
import json
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from serve import dialects
from serve.engine import EngineError, Logprob, Piece, Sampling
from serve.requestlog import Record
from serve.service import Reply, Service, Stream
from tests.serve.fake import FakeEngine, kept

SERVE = Path(__file__).resolve().parents[2] / "serve"
CHAT = "/v1/chat/completions"


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine()


@pytest.fixture
def service(engine: FakeEngine, tokenizer: Any) -> Service:
    return Service(kept(engine, tokenizer))


def send(service: Service, body: object, route: str = "/score", **more: Any) -> Reply:
    record = Record(request_id="r1", route=route)
    more.setdefault("gone", lambda: False)
    return service.answer(dialects.ROUTES[route], json.dumps(body).encode(), record, **more)


def ask(service: Service, route: str = "/score", **body: Any) -> tuple[int, Any]:
    body = {"prompt": "hi", **body} if route == "/score" else body
    reply = send(service, body, route)
    assert isinstance(reply.body, bytes)
    return reply.status, json.loads(reply.body)


def lines(reply: Reply) -> list[Any]:
    """The events of a stream, which is closed."""
    assert isinstance(reply.body, Stream)
    assert reply.headers["Content-Type"].startswith("text/event-stream")
    text = b"".join(reply.body).decode()
    reply.body.close()
    found = [line.removeprefix("data: ") for line in text.split("\n\n") if line]
    return [line if line == "[DONE]" else json.loads(line) for line in found]


def ids(tokenizer: Any, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


THOUGHT = (
    "<|channel|>analysis<|message|>考える<|end|>"
    "<|start|>assistant<|channel|>final<|message|>東京です。<|return|>"
)


def test_an_answer_has_output_reasoning_reason_and_usage(
    service: Service, engine: FakeEngine, tokenizer: Any
) -> None:
    said = ids(tokenizer, THOUGHT)
    engine.says(said)
    status, body = ask(service)
    assert status == 200
    assert body["usage"]["completion_tokens"] == len(said)
    assert body["usage"]["prompt_tokens"] > 10
    assert {**body, "usage": None} == {
        "output": "東京です。",
        "reasoning": "考える",
        "finish_reason": "stop",
        "usage": None,
    }
    assert engine.open_sessions == 0


def test_a_stream_joined_is_the_whole_answer(
    service: Service, engine: FakeEngine, tokenizer: Any
) -> None:
    engine.says(ids(tokenizer, THOUGHT))
    whole = ask(service)[1]
    events = lines(send(service, {"prompt": "hi", "stream": True}))
    assert "".join(event.get("output", "") for event in events) == whole["output"]
    assert "".join(event.get("reasoning", "") for event in events) == whole["reasoning"]
    assert events[-1]["usage"] == whole["usage"]
    assert len(events) > 3
    assert service._kept.admission.load == (0, 0)


def test_the_chat_form_streams_reasoning_apart_and_ends_with_done(
    service: Service, engine: FakeEngine, tokenizer: Any
) -> None:
    engine.says(ids(tokenizer, THOUGHT))
    body = {"messages": [{"role": "user", "content": "hi"}], "stream": True}
    *events, done = lines(send(service, body, CHAT))
    deltas = [event["choices"][0]["delta"] for event in events]
    assert done == "[DONE]"
    assert "".join(delta.get("content") or "" for delta in deltas) == "東京です。"
    assert "".join(delta.get("reasoning_content") or "" for delta in deltas) == "考える"
    assert events[-1]["choices"][0]["finish_reason"] == "stop"


def test_an_answer_cut_within_a_letter_does_not_show_half_of_it(
    service: Service, engine: FakeEngine, tokenizer: Any
) -> None:
    half = ids(tokenizer, "ab語")[:-1]
    engine.says(half, "length")
    assert ask(service)[1]["output"] == "ab"
    engine.says(half, "stop")
    assert ask(service)[1]["output"] == "ab\ufffd"


def test_a_stop_text_ends_the_generation_and_is_not_shown(
    service: Service, engine: FakeEngine, tokenizer: Any
) -> None:
    engine.says(ids(tokenizer, "one two END three four five"), "length")
    status, body = ask(service, stop=["END"])
    assert (status, body["output"], body["finish_reason"]) == (200, "one two", "stop")
    assert engine.cancelled == [1]
    assert body["usage"]["completion_tokens"] < len(ids(tokenizer, "one two END three four five"))


def test_parameters_and_harmonys_stops_reach_the_engine(
    service: Service, engine: FakeEngine
) -> None:
    engine.says([5], "length")
    ask(service, max_new_tokens=9, do_sample=True, temperature=0.5, top_p=0.9, seed=4)
    assert [sampling for _, sampling in engine.asked] == [
        Sampling(
            max_new_tokens=9,
            do_sample=True,
            temperature=0.5,
            top_p=0.9,
            seed=4,
            stop_ids=frozenset([2, 8]),  # <|return|> and <|call|>
        )
    ]


def test_several_answers_have_seeds_of_their_own(service: Service, engine: FakeEngine) -> None:
    engine.says([65], "length")
    messages = [{"role": "user", "content": "hi"}]
    status, body = ask(service, CHAT, messages=messages, n=3, seed=7)
    assert status == 200
    assert [choice["index"] for choice in body["choices"]] == [0, 1, 2]
    assert [sampling.seed for _, sampling in engine.asked] == [7, 8, 9]


def test_log_probabilities_name_their_tokens(
    service: Service, engine: FakeEngine, tokenizer: Any
) -> None:
    (fox,) = ids(tokenizer, " fox")
    value = Logprob(logprob=-0.5, top=((fox, -0.5), (66, -1.0)))
    engine.pieces = [Piece(id=0, ids=[fox], logprobs=[value], finish="length")]
    messages = [{"role": "user", "content": "hi"}]
    body = ask(service, CHAT, messages=messages, logprobs=True, top_logprobs=2)[1]
    (token,) = body["choices"][0]["logprobs"]["content"]
    assert (token["token"], token["logprob"]) == (" fox", -0.5)
    assert token["top_logprobs"][0]["logprob"] == -0.5


def test_a_batch_answers_in_order_and_a_bad_item_fails_alone(
    service: Service, engine: FakeEngine
) -> None:
    engine.says([65], "length")
    reply = send(service, [{"prompt": "a"}, {"nonsense": 1}, {"prompt": "x" * 9000}])
    assert isinstance(reply.body, bytes)
    good, bad, long = json.loads(reply.body)
    assert reply.status == 200
    assert good["finish_reason"] == "length"
    assert "nonsense" in bad["error"]["message"]
    assert "exceed the model's context" in long["error"]["message"]


def test_a_batch_larger_than_the_places_goes_in_waves(engine: FakeEngine, tokenizer: Any) -> None:
    engine.says([65], "length")
    service = Service(kept(engine, tokenizer, max_concurrent=2))
    reply = send(service, [{"prompt": "a"}] * 5)
    assert isinstance(reply.body, bytes)
    assert [body["finish_reason"] for body in json.loads(reply.body)] == ["length"] * 5


@pytest.mark.parametrize(("given", "adapter"), [(None, None), ("tiny", None), ("pirate", "pirate")])
def test_the_model_chooses_the_adapter(
    service: Service, engine: FakeEngine, given: str | None, adapter: str | None
) -> None:
    engine.says([65], "length")
    body = {"messages": [{"role": "user", "content": "hi"}], "model": given}
    assert ask(service, CHAT, **body)[0] == 200
    assert engine.asked[0][1].adapter == adapter


def test_a_model_that_is_not_served_is_404_with_those_that_are(service: Service) -> None:
    body = {"messages": [{"role": "user", "content": "hi"}], "model": "gpt-9"}
    status, answer = ask(service, CHAT, **body)
    assert (status, answer["error"]["param"]) == (404, "model")
    assert "known are tiny, pirate" in answer["error"]["message"]


def test_what_the_engine_cannot_is_refused_and_not_ignored(
    service: Service, engine: FakeEngine
) -> None:
    from dataclasses import replace

    engine.info = replace(engine.info, features=frozenset())
    for field in ("seed", "top_k", "min_p"):
        body: dict[str, Any] = {"do_sample": True, field: 1}
        status, answer = ask(service, **body)
        assert (status, answer["error"]["field"]) == (400, field)
        assert "fake 1" in answer["error"]["message"]


def test_a_schema_is_kept_to_in_the_final_channel_alone(
    service: Service, engine: FakeEngine, tokenizer: Any
) -> None:
    engine.says([*ids(tokenizer, '{"a": 1}'), 2])
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    messages = [{"role": "user", "content": "hi"}]
    body = ask(service, CHAT, messages=messages, response_format=form)[1]
    prompt_ids, sampling = engine.asked[0]
    assert tokenizer.decode(prompt_ids).endswith("assistant<|channel|>final<|message|>")
    assert json.loads(sampling.json_schema or "") == schema
    assert json.loads(body["choices"][0]["message"]["content"]) == {"a": 1}


def test_a_bug_is_a_500_that_tells_nothing_and_the_next_request_works(
    service: Service, engine: FakeEngine, caplog: pytest.LogCaptureFixture
) -> None:
    engine.says([65], "length")
    engine.error = ZeroDivisionError("secret")
    status, body = ask(service)
    assert status == 500
    assert "secret" not in json.dumps(body)
    assert "ZeroDivisionError" in caplog.text
    engine.error = None
    assert ask(service)[0] == 200
    assert service._kept.admission.load == (0, 0)


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (EngineError("the engine died of signal 9; retry in 3 s.", retry_after=3), 503),
        (EngineError("this prompt is not for me"), 400),
    ],
)
def test_a_failed_engine_says_so_in_the_reply_and_in_the_stream(
    service: Service, engine: FakeEngine, error: EngineError, status: int
) -> None:
    engine.error = error
    got, body = ask(service)
    assert (got, body["error"]["message"]) == (status, str(error))
    reply = send(service, {"prompt": "hi", "stream": True})
    assert reply.status == status
    engine.error = None
    engine.pieces = [Piece(id=0, ids=[65]), Piece(id=0, error="it broke")]
    *_, last = lines(send(service, {"prompt": "hi", "stream": True}))
    assert last["error"]["message"] == "it broke"


def test_a_client_that_leaves_frees_its_place_within_a_second(
    service: Service, engine: FakeEngine
) -> None:
    engine.says([65], "length")
    engine.hold.clear()
    started = time.monotonic()
    away = threading.Event()
    threading.Timer(0.1, away.set).start()
    reply = send(service, {"prompt": "hi"}, gone=away.is_set)
    assert reply.status == 499
    assert time.monotonic() - started < 1.1
    assert engine.cancelled == [1]
    assert service._kept.admission.load == (0, 0)


def test_a_stream_that_nobody_reads_gives_its_place_back(
    service: Service, engine: FakeEngine
) -> None:
    engine.says([65], "length")
    reply = send(service, {"prompt": "hi", "stream": True})
    assert isinstance(reply.body, Stream)
    assert service._kept.admission.load == (1, 0)
    reply.body.close()
    assert service._kept.admission.load == (0, 0)
    assert engine.cancelled == [1]


def test_a_quiet_stream_says_that_it_lives(
    service: Service, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serve.service.PING_SECONDS", 0.0)
    engine.says([65], "length")
    engine.hold.clear()
    reply = send(service, {"prompt": "hi", "stream": True})
    assert isinstance(reply.body, Stream)
    assert next(reply.body) == b": ping\n\n"
    reply.body.close()


def test_a_wrong_request_is_refused_though_the_server_is_full(
    engine: FakeEngine, tokenizer: Any
) -> None:
    service = Service(kept(engine, tokenizer, max_concurrent=1, max_queue=0))
    with service._kept.admission.enter(0):
        full = send(service, {"prompt": "hi"})
        assert (full.status, dict(full.headers)) == (429, {"Retry-After": "5"})
        assert ask(service, nonsense=1)[0] == 400


def test_a_full_server_spends_no_time_on_prompts(
    engine: FakeEngine, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = Service(kept(engine, tokenizer, max_concurrent=1, max_queue=0))
    prepared: list[Any] = []
    monkeypatch.setattr(service.preparer, "prepare", prepared.append)
    with service._kept.admission.enter(0):
        assert ask(service, prompt="hi")[0] == 429
    assert prepared == []


def test_every_request_is_one_line_of_the_log_without_its_text(
    service: Service, engine: FakeEngine, caplog: pytest.LogCaptureFixture
) -> None:
    engine.says([65], "length")
    caplog.set_level("INFO", "azmlinfsrv.serve.request")
    ask(service, prompt="a secret")
    ask(service, nonsense=1)
    found = [json.loads(r.message) for r in caplog.records if r.name.endswith("request")]
    assert [(line["status"], line["error"]) for line in found] == [(200, None), (400, "invalid")]
    assert found[0]["completion_tokens"] == 1
    assert "secret" not in caplog.text


def test_the_text_stands_in_the_log_when_it_is_asked_for(
    engine: FakeEngine, tokenizer: Any, caplog: pytest.LogCaptureFixture
) -> None:
    engine.says(ids(tokenizer, "fox"), "length")
    caplog.set_level("INFO", "azmlinfsrv.serve.request")
    ask(Service(kept(engine, tokenizer, log_text=True)), prompt="a secret")
    assert "a secret" in caplog.text


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
    for name in ("__init__", "environments", "process", "supervisor"):
        assert "torch" not in imports(SERVE / "engine" / f"{name}.py")
