"""`input_data` on /score: the form of Azure's model catalogue, and of MLflow's scoring server.

    {"input_data": {"input_string": [{"role": "user", "content": "…"}], "parameters": {…}}}
    {"input_data": {"input_string": ["text", "text"], "parameters": {…}}}
    {"input_data": ["text"], "params": {…}}
    {"input_data": {"columns": ["input_string"], "index": [0], "data": [["text"]]}, "params": {…}}

Messages are a chat, answered `{"output": "…"}`; texts are shown to the model as they stand, as the
catalogue does for text generation, and answered `{"output": ["…"]}`; a table is answered as rows,
`[{"0": "…"}]`. Sources: Azure/azureml-assets, foundation-model-serve (managed_inference.py and
api_server.py: get_request_data, _normalize_generation_params, send_request); for rows, how
langchain-community's azureml_endpoint.py reads an MLflow deployment. As there, tokens are drawn
unless do_sample is false or temperature is 0. It has no streams.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from serve.answer import Completion
from serve.dialects.conversation import MESSAGES, read_messages
from serve.dialects.fields import Field, Flag, Integer, Neutral, Number, Schema, Text, read_fields
from serve.dialects.openai_common import completions
from serve.dialects.parsed import Events, Head, Json
from serve.dialects.shared import DRAWING, REPETITION, STOP, read_tokens, refuse_drawing
from serve.dialects.strict_json import quoted, refuse
from serve.errors import RequestError
from serve.request import DEFAULT_MAX_NEW_TOKENS, MIN_TEMPERATURE, GenerationRequest

MAX_INPUTS = 64
BUDGETS = ("max_new_tokens", "max_gen_len", "max_tokens")
PARAMETERS = {
    "max_new_tokens": Field(Integer(1), "Longest answer in tokens.", str(DEFAULT_MAX_NEW_TOKENS)),
    "max_gen_len": Field(Integer(1), "The same under another name."),
    "max_tokens": Field(Integer(1), "The same under another name."),
    "max_length": Field(
        Neutral((), "counts the prompt too; send max_new_tokens."), "Send max_new_tokens."
    ),
    "do_sample": Field(Flag(), "Draw tokens instead of taking the likeliest.", "true"),
    "temperature": Field(
        Number(0), "How evenly tokens are drawn; 0 takes the likeliest.", "the model's"
    ),
    **DRAWING,
    **REPETITION,
    **STOP,
    "return_full_text": Field(Flag(), "Give a text prompt back before its answer.", "false"),
}
_STRING: Schema = {"anyOf": [MESSAGES, {"type": "array", "items": Text().schema(), "minItems": 1}]}
INPUT_DATA: Schema = {
    "anyOf": [
        {
            "type": "object",
            "required": ["input_string"],
            "properties": {
                "input_string": {"anyOf": [*_STRING["anyOf"], Text().schema()]},
                "parameters": {"type": "object"},
            },
            "additionalProperties": False,
        },
        {
            "type": "object",
            "required": ["columns", "data"],
            "properties": {
                "columns": {"type": "array", "items": {"type": "string"}},
                "index": {"type": "array", "items": {}},
                "data": {"type": "array", "items": {"type": "array", "items": {}}},
            },
            "additionalProperties": False,
        },
        {"type": "array", "items": Text().schema(), "minItems": 1},
    ]
}

Form = Literal["chat", "list", "rows"]


@dataclass(frozen=True, slots=True, kw_only=True)
class MlflowParsed:
    """One request per input."""

    requests: tuple[GenerationRequest, ...]
    form: Form
    stream: bool = False
    batch: bool = False

    def reply(self, answers: Sequence[Completion | RequestError]) -> Json | list[Json]:
        outputs = [
            (request.text or "") * request.echo + answer.choices[0].output
            for request, answer in zip(self.requests, completions(answers), strict=True)
        ]
        if self.form == "rows":
            return [{"0": output} for output in outputs]
        return {"output": outputs[0] if self.form == "chat" else outputs}

    def events(self, head: Head) -> Events:
        raise NotImplementedError("this form has no field that asks for a stream")


def read(given: Mapping[str, Any], *, context: int) -> MlflowParsed:
    """One body that has input_data."""
    for name in given:
        if name not in ("input_data", "params"):
            name = quoted(name)
            refuse(name, f'"{name}" is not known beside input_data; only params is.')
    inputs, form, parameters, where = _inputs(given)
    if not isinstance(parameters, dict):
        refuse(where, f"{where} must be an object.")
    fields = read_fields(parameters, PARAMETERS, f"{where}.")
    same = _sampling(fields, where)
    same["max_new_tokens"] = read_tokens(fields, BUDGETS, context, f"{where}.")
    echo = fields.get("return_full_text", False)
    requests = []
    for value, at in inputs:
        if isinstance(value, str):
            requests.append(GenerationRequest(text=Text().read(value, at), echo=echo, **same))
            continue
        if echo:
            name = f"{where}.return_full_text"
            refuse(name, f"{name} must be false for a chat, whose prompt is the conversation.")
        turns, system = read_messages(value, at)
        requests.append(GenerationRequest(messages=turns, system=system, **same))
    return MlflowParsed(requests=tuple(requests), form=form)


def _inputs(given: Mapping[str, Any]) -> tuple[list[tuple[Any, str]], Form, Any, str]:
    """Every text or conversation with its name, how the reply looks, the parameters and theirs."""
    data, params = given["input_data"], given.get("params")
    where = "input_data"
    if isinstance(data, dict) and "input_string" in data:
        _only(data, ("input_string", "parameters"))
        value, where = data["input_string"], "input_data.input_string"
        if isinstance(value, str):
            value = [value]
        if params and data.get("parameters"):
            refuse("params", "params and input_data.parameters exclude each other; send one.")
        name = "params" if params else "input_data.parameters"
        parameters = params or _given(data.get("parameters"))
        if isinstance(value, list) and value and isinstance(value[0], dict):
            return [(value, where)], "chat", parameters, name
        return _listed(value, where), "list", parameters, name
    if isinstance(data, dict):
        return _rows(data), "rows", _given(params), "params"
    return _listed(data, where), "list", _given(params), "params"


def _given(parameters: Any) -> Any:
    return {} if parameters is None else parameters


def _only(data: Mapping[str, Any], known: tuple[str, ...]) -> None:
    for name in data:
        if name not in known:
            name = quoted(name)
            words = " and ".join(known)
            refuse(f"input_data.{name}", f'"{name}" is not known in input_data; it has {words}.')


def _listed(value: Any, where: str) -> list[tuple[Any, str]]:
    if not isinstance(value, list) or not 1 <= len(value) <= MAX_INPUTS:
        refuse(where, f"{where} must be a list of messages, or of 1 to {MAX_INPUTS} texts.")
    return [(entry, f"{where}[{index}]") for index, entry in enumerate(value)]


def _rows(data: Mapping[str, Any]) -> list[tuple[Any, str]]:
    _only(data, ("columns", "index", "data"))
    if data.get("columns") != ["input_string"]:
        refuse(
            "input_data.columns",
            'input_data must have input_string, or columns, which are ["input_string"], and data.',
        )
    rows = _listed(data.get("data"), "input_data.data")
    for row, at in rows:
        if not isinstance(row, list) or len(row) != 1:
            refuse(at, f"{at} must be a list of one text or conversation, for its one column.")
    index = data.get("index")
    if index is not None and (not isinstance(index, list) or len(index) != len(rows)):
        refuse("input_data.index", "input_data.index must be a list as long as data.")
    return [(row[0], f"{at}[0]") for row, at in rows]


def _sampling(fields: Mapping[str, Any], where: str) -> Json:
    if fields.get("do_sample") is False:
        if fields.get("temperature", 0) > 0:
            refuse_drawing(fields, ("temperature",), "leave out do_sample", f"{where}.")
        refuse_drawing(fields, tuple(DRAWING), "leave out do_sample", f"{where}.")
    drawn = fields.get("do_sample", True) and fields.get("temperature", 1.0) >= MIN_TEMPERATURE
    names = [*REPETITION, "stop", *(("temperature", *DRAWING) if drawn else ())]
    return {"do_sample": drawn, **{name: fields[name] for name in names if name in fields}}
