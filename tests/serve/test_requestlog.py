"""The record, its line, and its way onto the inference server's own spans."""

import json
import logging
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from serve.requestlog import TEXT_LIMIT, Record, write

ROOT = Path(__file__).resolve().parents[2]

SCRIPT = """
import flask
from azureml_inference_server_http.api.aml_request import rawhttp
from azureml_inference_server_http.server import routes
from serve import requestlog


def init():
    print("joined", requestlog.join_spans())
    routes.main_blueprint.route("/v1/chat/completions", methods=["POST"])(stream)


def fill(record):
    record.model, record.prompt_tokens = "tiny-ja", 7
    record.prompt = record.output = "a secret"
    record.queued = record.admitted = record.started
    record.took(1)
    record.took(2)
    record.finish_reasons.append("stop")


def finish(record):
    assert record.finish(200)
    requestlog.write(record, text=False)
    requestlog.trace_stream(record)


@rawhttp
def run(request):
    record = requestlog.begin("/score")
    fill(record)
    finish(record)
    return flask.Response("whole")


def stream():
    record = requestlog.begin("/v1/chat/completions")
    record.stream = True

    def pieces():
        yield "pie"
        fill(record)
        yield "ces"

    response = flask.Response(pieces())
    response.call_on_close(lambda: finish(record))
    return response
"""

DRIVER = """
import json, os, sys
from azureml_inference_server_http.server.entry import app
from opentelemetry import trace
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

client = app.test_client()
spans = InMemorySpanExporter()
provider = trace.get_tracer_provider()
if hasattr(provider, "add_span_processor"):
    provider.add_span_processor(SimpleSpanProcessor(spans))
for path in ("/score", "/v1/chat/completions", "/swagger.json"):
    headers = {"x-request-id": "id of " + path, "Authorization": "Bearer key"}
    response = client.open(path, method="GET" if "swagger" in path else "POST", headers=headers)
    assert response.data
    response.close()  # as gunicorn does
sys.stdout.flush()
for span in spans.get_finished_spans():
    print("SPAN", span.to_json(indent=None), file=sys.stderr)
sys.stderr.flush()
os._exit(0)  # no goodbye to Application Insights
"""


def lines(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    return [json.loads(record.getMessage()) for record in caplog.records]


def test_a_line_has_the_figures_and_no_text(caplog: pytest.LogCaptureFixture) -> None:
    record = Record(request_id="r", client_request_id="c", route="/score", started=100.0, n=2)
    record.queued, record.admitted, record.first_token = 100.0, 100.25, 100.5
    record.model, record.adapter, record.stream = "tiny", "pirate", True
    record.prompt_tokens, record.completion_tokens, record.reasoning_tokens = 5, 11, 4
    record.finish_reasons = ["stop", "length"]
    record.prompt, record.output = "my secret", "your secret"
    record.status, record.finished = 200, 102.25
    with caplog.at_level(logging.INFO, "azmlinfsrv"):
        write(record, text=False)
    assert lines(caplog) == [
        {
            "request_id": "r",
            "client_request_id": "c",
            "route": "/score",
            "status": 200,
            "error": None,
            "model": "tiny",
            "adapter": "pirate",
            "prompt_tokens": 5,
            "completion_tokens": 11,
            "reasoning_tokens": 4,
            "queue_ms": 250.0,
            "first_token_ms": 500.0,
            "total_ms": 2250.0,
            "tokens_per_s": 5.5,
            "finish_reason": "stop,length",
            "stream": True,
            "n": 2,
            "client_gone": False,
        }
    ]
    assert "secret" not in repr(record)


def test_text_is_shown_on_demand_cut_and_on_one_line(caplog: pytest.LogCaptureFixture) -> None:
    record = Record(request_id="r", route="/score", prompt="a\n\u2028\ud800b", output="x" * 5000)
    record.finish(200)
    with caplog.at_level(logging.INFO, "azmlinfsrv"):
        write(record, text=True)
    [line] = lines(caplog)
    assert line["prompt"] == "a\n\u2028\ud800b"
    assert line["output"] == "x" * TEXT_LIMIT + "…"
    message = caplog.records[0].getMessage()
    assert message.isascii() and message.isprintable()


def test_a_refused_request_has_no_times_that_it_never_reached(
    caplog: pytest.LogCaptureFixture,
) -> None:
    record = Record(request_id="r", route="/score")
    record.finish(400, "invalid")
    with caplog.at_level(logging.INFO, "azmlinfsrv"):
        write(record, text=False)
    [line] = lines(caplog)
    assert (line["status"], line["error"]) == (400, "invalid")
    unknown = ("model", "queue_ms", "first_token_ms", "tokens_per_s", "finish_reason")
    assert [line[name] for name in unknown] == [None] * 5


def test_the_first_finish_stands() -> None:
    record = Record(request_id="r", route="/score")
    assert record.finish(200, "client_gone")
    ended = record.finished
    assert not record.finish(500, "internal")
    assert (record.status, record.error, record.finished) == (200, "client_gone", ended)


def test_time_per_token_leaves_out_what_came_with_the_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    record = Record(request_id="r", route="/score", n=2)
    for now, tokens in ((10.0, 4), (11.0, 0), (12.0, 4), (14.0, 4)):
        monkeypatch.setattr(time, "monotonic", lambda now=now: now)
        record.took(tokens)
    assert record.completion_tokens == 12
    assert record.seconds_per_token == 1.0  # 8 tokens of 2 choices in 4 s


@pytest.fixture(scope="module", params=["on", "off"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """(Application Insights on or off, spans, log) of the real server after three requests."""
    root = tmp_path_factory.mktemp("app")
    (root / "score.py").write_text(SCRIPT)
    env = {k: v for k, v in os.environ.items() if not k.startswith(("SERVE_", "AZUREML_", "AML_"))}
    env |= {"AML_APP_ROOT": str(root), "AZUREML_ENTRY_SCRIPT": "score.py", "PYTHONPATH": str(ROOT)}
    env |= {"APP_INSIGHTS_LOG_RESPONSE_ENABLED": "false"}
    env |= {"APPLICATIONINSIGHTS_STATSBEAT_DISABLED_ALL": "true"}
    env |= {"HTTPS_PROXY": "http://127.0.0.1:9"}  # nothing leaves the machine
    on = request.param == "on"
    if on:
        key = "00000000-0000-4000-8000-000000000000"
        env |= {"AML_APP_INSIGHTS_ENABLED": "true", "AML_APP_INSIGHTS_KEY": key}
    done = subprocess.run(
        [sys.executable, "-c", DRIVER],
        env=env,
        cwd=root,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    spans = [
        json.loads(line.removeprefix("SPAN "))
        for line in done.stderr.splitlines()
        if line.startswith("SPAN ")
    ]
    assert "Invalid type" not in done.stderr
    return on, spans, done.stdout


@pytest.mark.slow
def test_the_figures_reach_the_servers_own_span_or_one_below_it(server: Any) -> None:
    on, spans, log = server
    assert f"joined {on}" in log
    if not on:
        assert spans == []
        return
    score, opened, generation, swagger = spans
    assert [span["name"] for span in (score, opened, swagger)] == [
        "/score",
        "/v1/chat/completions",
        "/swagger.json",
    ]
    expected = {
        "gen_ai.operation.name": "chat",
        "gen_ai.request.model": "tiny-ja",
        "gen_ai.usage.input_tokens": 7,
        "gen_ai.usage.output_tokens": 3,
        "gen_ai.response.finish_reasons": ["stop"],
    }
    for span in (score, generation):
        assert expected.items() <= span["attributes"].items()
        assert span["attributes"]["gen_ai.latency.time_to_first_token"] > 0
    assert score["attributes"]["resultCode"] == "200"  # the server's own is there too
    assert generation["name"] == "chat tiny-ja"
    assert generation["parent_id"] == opened["context"]["span_id"]
    assert generation["attributes"]["Request Id"] == opened["attributes"]["Request Id"]
    assert generation["start_time"] < opened["start_time"] < generation["end_time"]
    for span in (opened, swagger):  # no answer yet, and no request of ours
        assert not [name for name in span["attributes"] if name.startswith("gen_ai.")]


@pytest.mark.slow
def test_the_server_prints_the_line_after_its_own_prefix(server: Any) -> None:
    _, spans, log = server
    mark = " azmlinfsrv.serve.request - "
    printed = [json.loads(line.split(mark)[1]) for line in log.splitlines() if mark in line]
    assert [(line["request_id"], line["stream"]) for line in printed] == [
        ("id of /score", False),
        ("id of /v1/chat/completions", True),
    ]
    everything = log + json.dumps(spans)
    assert "secret" not in everything and "Bearer" not in everything
