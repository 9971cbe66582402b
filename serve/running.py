"""The answers of one request, or batch, while they are made."""

import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from serve.admission import Gone
from serve.answer import Completion, Delta
from serve.answering import Answer
from serve.engine import Sampling, Session
from serve.kept import Kept
from serve.preparing import Asked
from serve.requestlog import Record

LOOK_SECONDS = 0.5
"""How often a request looks whether its client is still there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One HTTP request, as far as the service knows of it."""

    record: Record
    deadline: float
    """On time.monotonic's clock: waiting and generating end here."""
    gone: Callable[[], bool]
    """Whether its client has left."""


class Running:
    """What is under way in one session of the engine, and what has been read of it."""

    def __init__(
        self, session: Session, asked: Sequence[Asked], call: Call, kept: Kept, *, whole: bool
    ) -> None:
        self._session = session
        self._asked = asked
        self._call = call
        self._kept = kept
        self._whole = whole
        self._answers: dict[int, Answer] = {}

    def start(self, asked: Asked, answer: Answer, sampling: Sampling) -> None:
        number = self._session.start(asked.shown.ids, sampling, deadline=self._call.deadline)
        self._answers[number] = answer

    def deltas(self) -> Iterator[tuple[Answer | None, list[Delta]]]:
        """What is new of which answer, until all are whole; (None, []) where nothing is.

        Raises EngineError, and Gone when the client has left.
        """
        looked = time.monotonic()
        while self._session.running:
            pieces = self._session.take(LOOK_SECONDS)
            for piece in pieces:
                answer = self._answers[piece.id]
                self._count(len(piece.ids))
                deltas = answer.feed(piece)
                if answer.finish_reason is not None and piece.id in self._session.running:
                    self._session.cancel(piece.id)  # a stop text was found
                yield answer, deltas
            if not pieces:
                yield None, []
            if time.monotonic() - looked >= LOOK_SECONDS:
                looked = time.monotonic()
                if self._call.gone():
                    raise Gone

    def completions(self) -> list[Completion]:
        """One per request, when all are whole; their counts go into the record."""
        answers = iter(self._answers.values())
        made = []
        for asked in self._asked:
            choices = [next(answers).choice(index) for index in range(asked.request.n)]
            made.append(
                Completion(
                    id=self._call.record.request_id or uuid.uuid4().hex,
                    created=int(time.time()),
                    model=asked.adapter or self._kept.model.name,
                    prompt_tokens=len(asked.shown.ids),
                    choices=choices,
                )
            )
        choices = [choice for completion in made for choice in completion.choices]
        record = self._call.record
        record.finish_reasons += [choice.finish_reason for choice in choices]
        record.reasoning_tokens += sum(choice.reasoning_tokens for choice in choices)
        if self._kept.settings.log_text:
            record.output = "\n\n".join(choice.output for choice in choices)
        return made

    def _count(self, tokens: int) -> None:
        record = self._call.record
        if not self._whole:
            record.took(tokens)
            self._kept.metrics.progress(record)
            return
        record.completion_tokens += tokens
        record.first_token = self._session.first_token
        record.last_token = time.monotonic()
