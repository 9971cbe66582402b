"""One loaded model and everything between a request body and its answer.

    service = start(Settings.from_env())
    reply = service.answer(b'{"prompt": "…"}')

No HTTP library, no inference server, no torch: wire.py and score.py are the one, engine/ is the
other.
"""

import logging
import os
import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass

from serve import choices, engine, harmony, model, prompt, request
from serve.admission import Admission
from serve.errors import RequestError, StartupError
from serve.settings import Settings

log = logging.getLogger("azmlinfsrv.serve")  # the inference server prints no logger but its own


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """Status, JSON object and headers."""

    status: int
    body: Mapping[str, object]
    headers: Mapping[str, str]


class Service:
    """Answers requests; shared by the server's threads."""

    def __init__(
        self, settings: Settings, writer: prompt.PromptWriter, loaded: engine.Engine
    ) -> None:
        self._seconds = settings.request_seconds
        self._writer = writer
        self._engine = loaded
        self._admission = Admission(running=settings.max_concurrent, waiting=settings.max_queue)
        self._markers = harmony.Markers.of(writer.tokenizer.get_vocab())
        eos = writer.tokenizer.eos_token_id
        self._stop_ids = self._markers.stops if self._markers else frozenset()
        self._stop_ids |= frozenset(() if eos is None else (eos,))

    def answer(self, body: bytes) -> Reply:
        """The reply to one request body, refusals and failures included; it never raises."""
        deadline = time.monotonic() + self._seconds
        try:
            asked = request.parse(body, max_new_tokens_limit=self._writer.context)
            shown = self._writer.write(asked)
            with self._admission.enter(deadline):
                return Reply(status=200, body=self._generate(asked, shown, deadline), headers={})
        except RequestError as error:
            return refusal(error)
        except Exception:
            log.exception("a request failed")
            return refusal(
                RequestError(500, "the server failed on this request; its log says why.")
            )

    def warm_up(self) -> float:
        """Seconds for one token, the first time; StartupError where not even that works."""
        started = time.monotonic()
        reply = self.answer(b'{"prompt": "Hello", "max_new_tokens": 1}')
        if reply.status != 200:
            error = reply.body["error"]
            why = error["message"] if isinstance(error, dict) else error
            raise StartupError(f"the model does not answer a first request: {why}")
        return time.monotonic() - started

    def close(self) -> None:
        self._engine.close()

    def _generate(
        self, asked: request.GenerationRequest, shown: prompt.Prompt, deadline: float
    ) -> dict[str, object]:
        sampling = engine.Sampling(
            max_new_tokens=shown.max_new_tokens,
            do_sample=asked.do_sample,
            temperature=asked.temperature,
            top_p=asked.top_p,
            stop_ids=self._stop_ids,
        )
        with closing(self._engine.generate(shown.ids, sampling, deadline=deadline)) as generation:
            ids = list(generation)
            reason = generation.finish_reason
        said = harmony.split(
            ids, self._writer.read, self._markers, opens_thinking=shown.opens_thinking
        )
        whole = reason == "stop"  # else it may end within a character
        return {
            "output": said.output if whole else said.output.rstrip("\ufffd"),
            "reasoning": said.reasoning,
            "finish_reason": reason,
            "usage": {"prompt_tokens": len(shown.ids), "completion_tokens": len(ids)},
        }


def refusal(error: RequestError) -> Reply:
    """The reply that a RequestError stands for."""
    headers = {} if error.retry_after is None else {"Retry-After": str(error.retry_after)}
    return Reply(status=error.status, body=error.body(), headers=headers)


def start(settings: Settings, environ: Mapping[str, str] = os.environ) -> Service:
    """Find the model, choose how to run it, load it and try it; StartupError in one sentence."""
    found = model.find(settings.model, environ)
    log.info("model folder: %s (%.1fM parameters)", found.root, found.parameters / 1e6)
    writer = prompt.PromptWriter(
        prompt.load_tokenizer(found.root), found.defaults, context=found.context
    )
    chosen = choices.choose(settings, engine.probe(), found.parameters)
    spec = engine.EngineSpec(
        engine=chosen.engine.value,
        root=found.root,
        device=chosen.device.value,
        dtype=chosen.dtype.value,
        concurrency=settings.max_concurrent,
    )
    log.info("loading the weights on %s", chosen.device.value)
    loaded = engine.load(spec)
    log.info("loaded in %.1f s, %s attention", loaded.info.load_seconds, loaded.info.attention)
    service = Service(settings, writer, loaded)
    seconds = service.warm_up()
    log.info("first token after %.2f s", seconds)
    log.info("serving %s %s", found.name, chosen)
    return service
