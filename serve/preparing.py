"""One request → what the engine is asked and how its answer is read, or why neither can be.

    preparer = Preparer(kept)
    asked = preparer.prepare(request)           # RequestError 400 or 404
    session.start(asked.shown.ids, preparer.sampling(asked, 0), deadline=…)
    answer = preparer.answer(asked, index=0)

Here a request is held against the model and the engine at hand; the dialects know neither.
"""

import json
from dataclasses import dataclass

from serve import harmony, prompt, thinking
from serve.answering import Answer
from serve.engine import Feature, Sampling
from serve.errors import RequestError
from serve.kept import Kept
from serve.reader import Reader
from serve.request import GenerationRequest

READ_BEFORE = 8
"""Ids of a raw prompt that decide whether the answer's first word begins with a space."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One request, ready for the engine."""

    request: GenerationRequest
    shown: prompt.Prompt
    adapter: str | None
    plain: bool
    """The answer has no format to be read: after a raw prompt, or within the final channel."""


class Preparer:
    """For one loaded model; shared by the server's threads."""

    def __init__(self, kept: Kept) -> None:
        self._model = kept.model
        self._engine = kept.engine
        self.writer = prompt.PromptWriter(
            kept.tokenizer, kept.model.defaults, context=kept.model.context
        )
        self._markers = harmony.Markers.of(kept.tokenizer.get_vocab())
        self._hidden = thinking.hidden_markers(kept.tokenizer.added_tokens_decoder)
        eos = kept.tokenizer.eos_token_id
        self._stop_ids = self._markers.stops if self._markers else frozenset()
        self._stop_ids |= frozenset(() if eos is None else (eos,))

    @property
    def names(self) -> tuple[str, ...]:
        """What `model` may say: the model's own name first."""
        return (self._model.name, *self._model.adapters)

    def prepare(self, request: GenerationRequest) -> Asked:
        """Prompt, adapter and form of the answer; RequestError with the field at fault."""
        adapter = self._adapter(request)
        self._refuse_what_the_engine_cannot(request)
        shown = self.writer.write(request)
        plain = not request.messages
        if request.json_schema is not None and self._markers is not None:
            shown, plain = self.writer.open_final(shown), True
        elif request.json_schema is not None and shown.opens_thinking:
            raise RequestError(
                400,
                "this model thinks before it answers, and a schema leaves no room for that; "
                "leave response_format out.",
                "response_format",
            )
        return Asked(request=request, shown=shown, adapter=adapter, plain=plain)

    def sampling(self, asked: Asked, number: int) -> Sampling:
        """For the request's answer `number`, counted from 0."""
        request = asked.request
        schema = request.json_schema
        return Sampling(
            max_new_tokens=asked.shown.max_new_tokens,
            do_sample=request.do_sample,
            temperature=request.temperature,
            top_p=request.top_p,
            top_k=request.top_k,
            min_p=request.min_p,
            repetition_penalty=request.repetition_penalty,
            presence_penalty=request.presence_penalty,
            frequency_penalty=request.frequency_penalty,
            seed=None if request.seed is None else request.seed + number,
            logprobs=request.logprobs,
            stop_ids=self._stop_ids,
            json_schema=None if schema is None else json.dumps(schema),
            adapter=asked.adapter,
        )

    def answer(self, asked: Asked, *, index: int) -> Answer:
        """An empty one, to be fed."""
        request = asked.request
        reader = Reader(
            decode=self.writer.read,
            markers=self._markers,
            opens_thinking=asked.shown.opens_thinking,
            stop=request.stop,
            tools=bool(request.tools),
            hidden=self._hidden,
            plain=asked.plain,
            before=asked.shown.ids[-READ_BEFORE:] if asked.plain else (),
        )
        return Answer(
            index=index, reader=reader, stop_ids=self._stop_ids, texts=self.writer.token_texts
        )

    def _adapter(self, request: GenerationRequest) -> str | None:
        model, name = self._model, request.model
        if name is None or (request.any_model and name not in self.names):
            return model.default_adapter
        if name == model.name:
            return None
        if name not in model.adapters:
            raise self.no_such_model(name)
        return name

    def no_such_model(self, name: str) -> RequestError:
        known = ", ".join(self.names)
        return RequestError(
            404, f'the model "{name[:64]}" is not served here; known are {known}.', "model"
        )

    def _refuse_what_the_engine_cannot(self, request: GenerationRequest) -> None:
        info = self._engine.info
        wanted: dict[Feature, object] = {
            "top_k": request.top_k,
            "min_p": request.min_p,
            "repetition_penalty": request.repetition_penalty,
            "presence_penalty": request.presence_penalty,
            "frequency_penalty": request.frequency_penalty,
            "seed": request.seed,
            "logprobs": request.logprobs,
            "top_logprobs": request.logprobs or None,
            "json_schema": request.json_schema,
        }
        for name, value in wanted.items():
            if value is not None and name not in info.features:
                field = "response_format" if name == "json_schema" else name
                raise RequestError(
                    400,
                    f"{field} is not possible with this server's engine ({info.version}).",
                    field,
                )
