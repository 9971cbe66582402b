"""What a dialect gives the service; serve/dialects/__init__.py says how it is called."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from serve.answer import Choice, Completion, Delta
from serve.errors import RequestError
from serve.request import GenerationRequest

Json = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """What every event of one stream repeats."""

    id: str
    created: int
    model: str


class Events(Protocol):
    """The JSON objects of one stream, each for one `data:` line. Keeps state; one per stream."""

    @property
    def done(self) -> str | None:
        """The last `data:` line as it stands, after finish(); None where there is none."""

    def begin(self) -> list[Json]:
        """Once, before anything else; also good to send while the first token is awaited."""

    def delta(self, index: int, delta: Delta) -> list[Json]:
        """New text of choice `index`, counted over all requests: request * n + choice."""

    def end(self, index: int, choice: Choice) -> list[Json]:
        """Choice `index` is whole; its text has all gone through delta() before."""

    def finish(self, prompt_tokens: int) -> list[Json]:
        """All choices are whole; prompt tokens of all requests together."""

    def error(self, error: RequestError) -> list[Json]:
        """Instead of all that is left: the stream ends here, without `done`."""


class Parsed(Protocol):
    """One body, understood."""

    @property
    def requests(self) -> Sequence[GenerationRequest | RequestError]:
        """In order. An error, in a batch only, stands for an item that was refused."""

    @property
    def stream(self) -> bool:
        """The answer is wanted as events."""

    @property
    def batch(self) -> bool:
        """Each request stands alone: reply() takes a RequestError in place of a Completion.

        Where it is false, the first error is the answer to the whole.
        """

    def reply(self, answers: Sequence[Completion | RequestError]) -> Json | list[Json]:
        """The whole answer, from one answer per request."""

    def events(self, head: Head) -> Events:
        """A new stream."""


class Dialect(Protocol):
    """One way to ask."""

    def parse(self, body: bytes, *, context: int) -> Parsed:
        """RequestError with status 400, 404 or 413, one sentence and the field at fault."""

    def error_body(self, error: RequestError) -> Json:
        """The answer to a request that is refused, or failed before its answer began."""
