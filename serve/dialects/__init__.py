"""Every way to ask: the one place that knows request and reply formats. No HTTP, no engine.

    rule, dialect = dialects.find("/v1/chat/completions")
    try:
        parsed = dialect.parse(body, context=4096)      # context: most tokens of the served model
    except RequestError as error:
        …                                               # error.status, dialect.error_body(error)

Whole: generate for each of parsed.requests, in order, one Completion; then

    body = parsed.reply(answers)                        # JSON object, or a list for a batch

With parsed.batch, an entry of requests may itself be a RequestError (that item was refused): pass
it on as its answer, and any RequestError of a generation likewise. Without it, the first
RequestError is the whole answer, by dialect.error_body.

Stream (parsed.stream; never a batch): every JSON object becomes one `data:` line.

    events = parsed.events(Head(id=…, created=…, model=…))
    events.begin()                                      # once, as soon as the answer is admitted
    events.delta(number, delta)                         # number = request * n + choice
    events.end(number, choice)                          # once per choice, after its last delta
    events.finish(prompt_tokens)                        # of all requests together
    events.done                                         # "[DONE]", or None: no such line
    events.error(RequestError(…))                       # instead of all that is left, without done

The model's name is not checked here: service.py answers 404 with field "model" for one that is not
served, unless the request says any_model. `echo` is done here: the text of a Completion is the
answer alone.
"""

from collections.abc import Mapping

from serve.dialects import azure
from serve.dialects.openai_chat import Chat
from serve.dialects.openai_common import model_body, models_body
from serve.dialects.openai_completions import Completions
from serve.dialects.parsed import Dialect, Events, Head, Json, Parsed
from serve.dialects.score import Score
from serve.dialects.strict_json import MAX_BODY_BYTES, too_large

__all__ = [
    "MAX_BODY_BYTES",
    "ROUTES",
    "Dialect",
    "Events",
    "Head",
    "Json",
    "Parsed",
    "find",
    "model_body",
    "models_body",
    "too_large",
]

_CHAT, _COMPLETIONS = Chat(), Completions()
ROUTES: Mapping[str, Dialect] = {
    "/score": Score(),
    "/v1/chat/completions": _CHAT,
    "/v1/completions": _COMPLETIONS,
    **azure.routes(_CHAT, _COMPLETIONS),
}
"""By rule: {deployment} stands for any name. Each takes POST; errors of other /v1 routes have the
same form as those of chat completions."""


def find(path: str) -> tuple[str, Dialect] | None:
    """The rule that `path` falls under and its dialect; None where nothing is asked there."""
    dialect = ROUTES.get(path)
    return (path, dialect) if dialect else azure.of_deployment(path, ROUTES)
