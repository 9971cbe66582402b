"""The description of every route: OpenAPI 3.0, Swagger 2.0 and a page to read, from one source.

    python -m serve.openapi         writes serve/api/swagger3.json and swagger2.json

The inference server serves those two files, which lie in its AML_APP_ROOT, at /swagger.json. Fields
of requests come from the tables that the dialects read by; replies and examples are written here.
It checks nothing.
"""

import html
import json
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

from serve import auth
from serve.dialects import mlflow, openai_chat, openai_completions, score
from serve.dialects.fields import Schema, object_schema
from serve.dialects.strict_json import MAX_BODY_BYTES

PART = re.compile(r"\{(\w+)\}")
FOLDER = Path(__file__).with_name("api")
VERSION = "1.0"
TEXT: Schema = {"type": "string"}
MAYBE: Schema = {**TEXT, "nullable": True}
WHOLE: Schema = {"type": "integer"}
EVENTS: Schema = {"description": "With stream: events, each of whose data lines is a JSON object."}
"""No type: some readers hold the whole text against it, others one event."""
HELLO = [{"role": "user", "content": "Hello!"}]
BASE = "http://127.0.0.1:5001"
STYLE = """
:root{color-scheme:light dark}
body{font:16px/1.5 system-ui,sans-serif;max-width:62rem;margin:2rem auto;padding:0 1rem}
h2{margin-top:2.5rem;border-top:1px solid #8886;padding-top:1rem}
code,pre{font:14px/1.45 ui-monospace,monospace}
h2 code{font-size:1.25rem}
h2{font-size:1rem}
pre{background:#8882;padding:.8rem;border-radius:.4rem;overflow-x:auto}
table{border-collapse:collapse;width:100%;font-size:14px}
td,th{text-align:left;vertical-align:top;padding:.3rem .6rem;border-bottom:1px solid #8884}
.way{font-weight:600;border:1px solid #8886;border-radius:.3rem;padding:0 .4rem}
"""
SCRIPT = """
for (const one of document.querySelectorAll('pre')) if (location.protocol.startsWith('http'))
  one.textContent = one.textContent.replaceAll('%s', location.origin)
"""


def _ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def _object(**properties: Schema) -> Schema:
    """Every property is there; others may be."""
    return {"type": "object", "required": list(properties), "properties": properties}


def _list(items: Schema) -> Schema:
    return {"type": "array", "items": items}


def _openai_reply(kind: str, **choice: Schema) -> Schema:
    end = {"type": "string", "enum": ["stop", "length", "tool_calls"]}
    return _object(
        id=TEXT,
        object={"type": "string", "enum": [kind]},
        created=WHOLE,
        model=TEXT,
        choices=_list(_object(index=WHOLE, finish_reason=end, **choice)),
        usage=_ref("Usage"),
    )


SCHEMAS: Mapping[str, Schema] = {
    "ScoreRequest": object_schema(score.FIELDS),
    "CatalogueRequest": {
        "type": "object",
        "required": ["input_data"],
        "properties": {
            "input_data": mlflow.INPUT_DATA,
            "params": {**object_schema(mlflow.PARAMETERS), "nullable": True},
        },
        "additionalProperties": False,
    },
    "ChatRequest": object_schema(openai_chat.FIELDS),
    "CompletionsRequest": object_schema(openai_completions.FIELDS),
    "ScoreReply": _object(
        output=TEXT,
        reasoning=MAYBE,
        finish_reason={"type": "string", "enum": ["stop", "length", "deadline"]},
        usage=_object(prompt_tokens=WHOLE, completion_tokens=WHOLE),
    ),
    "CatalogueReply": _object(output={"anyOf": [TEXT, _list(TEXT)]}),
    "ChatReply": _openai_reply(
        "chat.completion",
        message=_object(role=TEXT, content=MAYBE, reasoning=MAYBE, reasoning_content=MAYBE),
    ),
    "CompletionsReply": _openai_reply("text_completion", text=TEXT),
    "Usage": _object(
        prompt_tokens=WHOLE,
        completion_tokens=WHOLE,
        total_tokens=WHOLE,
        completion_tokens_details=_object(reasoning_tokens=WHOLE),
    ),
    "Model": _object(id=TEXT, object=TEXT, created=WHOLE, owned_by=TEXT, max_model_len=WHOLE),
    "Models": _object(object=TEXT, data=_list(_ref("Model"))),
    "Ready": _object(
        status=TEXT, model=TEXT, engine=TEXT, running=WHOLE, waiting=WHOLE, restarts=WHOLE
    ),
    "Error": _object(error={**_object(code=WHOLE, message=TEXT), "description": "May name field."}),
    "OpenAIError": _object(error=_object(message=TEXT, type=TEXT, param=MAYBE, status=WHOLE)),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One path and its one method."""

    path: str
    summary: str
    reply: Schema = field(default_factory=lambda: {"type": "string"})
    kind: str = "application/json"
    request: Schema | None = None
    """None is GET."""
    examples: Mapping[str, Any] = field(default_factory=dict)
    error: str = "OpenAIError"
    codes: tuple[int, ...] = (405, 503)
    """Besides 200."""


API_KEY: Schema = {"type": "apiKey", "in": "header", "name": "api-key"}
SECURITY: list[Schema] = [{}, {"bearer": []}, {"api-key": []}]
"""Of every route but those of auth.OPEN. The first is a server that asks for no key."""
MEANING = {
    200: "The answer.",
    400: "The request is wrong; the error says what and where.",
    401: "This server asks for its key, and the request had none or another.",
    404: "No such model.",
    405: "Another method is wanted.",
    413: f"The body is over {MAX_BODY_BYTES} bytes.",
    415: "The body has a Content-Encoding.",
    429: "The server is full; come again after retry_after seconds.",
    503: "The model is loading, or the server is ending; come again.",
}
BEFORE: Mapping[int, Schema] = {
    401: _ref("Error"),
    405: _ref("Error"),
    503: {"anyOf": [_ref("Error"), _ref("OpenAIError"), _ref("Ready")]},
}
"""Answers that may be given before it is known which dialect is spoken."""
ASKED = (400, 404, 405, 413, 415, 429, 503)
CHAT = Route(
    path="/v1/chat/completions",
    summary="OpenAI's chat completions.",
    request=_ref("ChatRequest"),
    reply=_ref("ChatReply"),
    examples={"chat": {"messages": HELLO, "max_tokens": 64}},
    codes=ASKED,
)
COMPLETIONS = Route(
    path="/v1/completions",
    summary="OpenAI's completions: no chat template.",
    request=_ref("CompletionsRequest"),
    reply=_ref("CompletionsReply"),
    examples={"text": {"prompt": "Once upon a time", "max_tokens": 64}},
    codes=ASKED,
)
CATALOGUE = "The same, as Azure's catalogue names it; `model` may be any name."
OPENAI_V1 = "The same, as Azure OpenAI's version 1 names it; `model` may be any name."
DEPLOYMENT = "The same, as Azure OpenAI names it: the deployment stands for `model`."
BELOW = "/openai/deployments/{deployment}"
_ROWS = _list(_object(**{"0": TEXT}))
ROUTES = (
    Route(
        path="/score",
        summary="Azure's scoring route: this server's own form, a list of it, the model "
        "catalogue's input_data, or chat completions; the keys of the body decide.",
        request={
            "anyOf": [
                _ref("ScoreRequest"),
                {**_list(_ref("ScoreRequest")), "minItems": 1, "maxItems": score.MAX_BATCH},
                _ref("CatalogueRequest"),
                _ref("ChatRequest"),
            ]
        },
        reply={
            "anyOf": [
                _ref("ScoreReply"),
                _list({"anyOf": [_ref("ScoreReply"), _ref("Error")]}),
                _ref("CatalogueReply"),
                _ROWS,
                _ref("ChatReply"),
            ]
        },
        examples={
            "own": {"messages": HELLO, "max_new_tokens": 64},
            "batch": [{"prompt": "Hello!", "max_new_tokens": 64}],
            "catalogue": {
                "input_data": {"input_string": HELLO, "parameters": {"max_new_tokens": 64}}
            },
        },
        error="Error",
        codes=ASKED,
    ),
    CHAT,
    replace(CHAT, path="/chat/completions", summary=CATALOGUE),
    replace(CHAT, path="/openai/v1/chat/completions", summary=OPENAI_V1),
    replace(CHAT, path=f"{BELOW}/chat/completions", summary=DEPLOYMENT),
    COMPLETIONS,
    replace(COMPLETIONS, path="/completions", summary=CATALOGUE),
    replace(COMPLETIONS, path="/openai/v1/completions", summary=OPENAI_V1),
    replace(COMPLETIONS, path=f"{BELOW}/completions", summary=DEPLOYMENT),
    Route(path="/v1/models", summary="Names that `model` may say.", reply=_ref("Models")),
    Route(
        path="/v1/models/{model}",
        summary="One of them.",
        reply=_ref("Model"),
        codes=(404, 405, 503),
    ),
    Route(path="/openai/v1/models", summary="The same for Azure OpenAI.", reply=_ref("Models")),
    Route(path="/", summary="The probe: the weights are loaded.", kind="text/html", error="Error"),
    Route(path="/livez", summary="The server runs.", kind="text/plain", codes=()),
    Route(
        path="/readyz",
        summary="The next request will be answered.",
        reply=_ref("Ready"),
        error="Error",
    ),
    Route(path="/metrics", summary="Prometheus metrics.", kind="text/plain", error="Error"),
)


@cache
def document() -> dict[str, object]:
    """OpenAPI 3.0.3; not to be changed by whoever has it."""
    return {
        "openapi": "3.0.3",
        "info": {
            "title": "Homeport",
            "version": VERSION,
            "description": "One language model, asked by the forms that its clients already use. "
            "A field that would be ignored is refused. Behind Azure every error arrives as 424, "
            "so status and retry_after stand in the body too. A server that asks for its key takes "
            "it as Authorization: Bearer KEY, or as api-key: KEY.",
        },
        "paths": {route.path: _operation(route) for route in ROUTES},
        "components": {
            "schemas": dict(SCHEMAS),
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}, "api-key": API_KEY},
        },
        "security": SECURITY,
    }


def _operation(route: Route) -> Schema:
    method = "get" if route.request is None else "post"
    name = re.sub("[{}]", "", route.path.strip("/")).replace("/", "_")
    about: Schema = {"operationId": f"{method}_{name or 'probe'}", "summary": route.summary}
    if parts := PART.findall(route.path):
        where = {"in": "path", "required": True, "schema": TEXT}
        about["parameters"] = [{"name": part, **where} for part in parts]
    content: Schema = {route.kind: {"schema": route.reply}}
    if route.request is not None:
        examples = {name: {"value": value} for name, value in route.examples.items()}
        body = {"schema": route.request, "examples": examples}
        about["requestBody"] = {"required": True, "content": {"application/json": body}}
        content["text/event-stream"] = {"schema": EVENTS}
    about["responses"] = {"200": {"description": MEANING[200], "content": content}}
    if route.path in auth.OPEN:
        about["security"] = []
    for code in sorted(route.codes if route.path in auth.OPEN else {401, *route.codes}):
        schema = BEFORE.get(code, _ref(route.error))
        error: Schema = {"application/json": {"schema": schema}}
        about["responses"][str(code)] = {"description": MEANING[code], "content": error}
    return {method: about}


def swagger2() -> dict[str, object]:
    """The same as Swagger 2.0, which has no anyOf: there, any value is said to do."""
    paths: dict[str, object] = {}
    for route in ROUTES:
        ((method, about),) = _operation(route).items()
        where: Schema = {"in": "path", "required": True, "type": "string"}
        parameters = [{"name": part, **where} for part in PART.findall(route.path)]
        if route.request is not None:
            schema = _older(route.request)
            parameters += [{"name": "body", "in": "body", "required": True, "schema": schema}]
        replies = {}
        for code, reply in about["responses"].items():
            schema = next(iter(reply["content"].values()))["schema"]
            replies[code] = {"description": reply["description"], "schema": _older(schema)}
        kinds = [*about["responses"]["200"]["content"], "application/json"]
        paths[route.path] = {
            method: {
                "operationId": about["operationId"],
                "summary": about["summary"],
                "parameters": parameters,
                "produces": list(dict.fromkeys(kinds)),
                "responses": replies,
                **({"security": about["security"]} if "security" in about else {}),
            }
        }
    return {
        "swagger": "2.0",
        "info": document()["info"],
        "consumes": ["application/json"],
        "paths": paths,
        "definitions": {name: _older(schema) for name, schema in SCHEMAS.items()},
        # it has no scheme called bearer, so the key is described with the word before it
        "securityDefinitions": {"bearer": {**API_KEY, "name": "Authorization"}, "api-key": API_KEY},
        "security": SECURITY,
    }


def _older(value: Any) -> Any:
    if isinstance(value, list):
        return [_older(entry) for entry in value]
    if not isinstance(value, dict):
        return value
    if "$ref" in value:
        return {"$ref": value["$ref"].replace("/components/schemas/", "/definitions/")}
    names = {"nullable": "x-nullable"}
    return {names.get(k, k): _older(entry) for k, entry in value.items() if k != "anyOf"}


def files() -> dict[str, str]:
    """What lies in serve/api/."""
    made = {"swagger3.json": document(), "swagger2.json": swagger2()}
    return {
        name: json.dumps(value, indent=1, ensure_ascii=False) + "\n" for name, value in made.items()
    }


def docs_page() -> str:
    """The page at /docs: routes, fields and a curl for each, in one file that loads nothing."""
    info: Any = document()["info"]
    paths: Any = document()["paths"]
    parts = [f"<h1>{_text(info['title'])}</h1><p>{_text(info['description'])}</p>"]
    shown: dict[str, str] = {}
    for path, operations in paths.items():
        ((method, about),) = operations.items()
        parts.append(_route(path, method, about))
        for name in _requests(about):
            if name in shown:
                parts.append(f'<p>Fields: <a href="#{name}">as {_text(shown[name])}</a></p>')
                continue
            shown[name] = path
            parts.append(f'<h3 id="{name}">{name}</h3>{_table(SCHEMAS[name])}')
    script = SCRIPT % BASE
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>{_text(info['title'])}: routes</title><style>{STYLE}</style>"
        f"<body>{''.join(parts)}<script>{script}</script></body></html>\n"
    )


def _route(path: str, method: str, about: Any) -> str:
    codes = ", ".join(about["responses"])
    title = f'<h2><span class="way">{method.upper()}</span> <code>{_text(path)}</code></h2>'
    body = about.get("requestBody", {}).get("content", {}).get("application/json", {})
    commands = [_curl(path, example["value"]) for example in body.get("examples", {}).values()]
    shown = "\n\n".join(commands or [f"curl -s {BASE}{path}"])
    return f"{title}<p>{_text(about['summary'])} Answers {codes}.</p><pre>{_text(shown)}</pre>"


def _curl(path: str, body: Any) -> str:
    text = json.dumps(body, ensure_ascii=False)
    return f"curl -s {BASE}{path} -H 'Content-Type: application/json' \\\n  -d '{text}'"


def _requests(about: Any) -> list[str]:
    """Names of the schemas that a body may have."""
    body = about.get("requestBody", {}).get("content", {}).get("application/json", {})
    schema = body.get("schema", {})
    entries = schema.get("anyOf", [schema])
    return [entry["$ref"].rsplit("/", 1)[1] for entry in entries if "$ref" in entry]


def _table(schema: Any) -> str:
    rows = []
    for name, given in schema["properties"].items():
        star = " *" if name in schema.get("required", ()) else ""
        cells = (f"<code>{_text(name)}</code>{star}", _text(_type(given)))
        rows.append(f"<tr><td>{'</td><td>'.join(cells)}</td>")
        rows.append(f"<td>{_text(given.get('description', ''))}</td></tr>")
    head = "<tr><th>Field</th><th>Type and range</th><th>Meaning</th></tr>"
    return f"<table>{head}{''.join(rows)}</table>"


def _type(schema: Any) -> str:
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(_type(one) for one in schema["anyOf"]))
    if "enum" in schema:
        return ", ".join(json.dumps(one) for one in schema["enum"] if one is not None) or "null"
    words = str(schema.get("type", "any"))
    if words == "array":
        words = f"list of {_type(schema.get('items', {}))}"
    low, high = schema.get("minimum"), schema.get("maximum")
    if low is not None:
        words += f", {low:g}" + (" and more" if high is None else f" to {high:g}")
    return words


def _text(value: str) -> str:
    return html.escape(value)


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name, text in files().items():
        (FOLDER / name).write_text(text, encoding="utf-8")
        sys.stderr.write(f"wrote {FOLDER / name}\n")
