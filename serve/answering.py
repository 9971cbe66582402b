"""One answer as it grows: pieces of tokens in, deltas out, and the whole Choice at the end."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from serve.answer import Choice, Delta, TokenLogprob
from serve.engine import FinishReason, Logprob, Piece
from serve.reader import Reader


@dataclass(slots=True, kw_only=True)
class Answer:
    """Of one generation; used by one thread."""

    index: int
    """Counted over all answers of the request, or batch."""
    reader: Reader
    stop_ids: frozenset[int]
    texts: Callable[[Sequence[int]], list[str]]
    """Each token's own text."""
    tokens: int = 0
    finish_reason: FinishReason | None = None
    _ids: list[int] = field(default_factory=list)
    _logprobs: list[Logprob] = field(default_factory=list)

    def feed(self, piece: Piece) -> list[Delta]:
        """What the piece adds to read. finish_reason is set once nothing more is to come."""
        self.tokens += len(piece.ids)
        if piece.logprobs is not None:
            self._ids += piece.ids
            self._logprobs += piece.logprobs
        deltas = self.reader.feed(piece.ids)
        if self.reader.stopped:
            self.finish_reason = "stop"
        elif piece.finish is not None:
            self.finish_reason = piece.finish
        if self.finish_reason is not None:
            deltas += self.reader.finish(complete=self.finish_reason == "stop")
        return deltas

    def choice(self, index: int) -> Choice:
        """The whole answer; only when finish_reason is set."""
        if self.finish_reason is None:
            raise RuntimeError("the answer is not whole yet")
        return Choice(
            index=index,
            output=self.reader.output,
            reasoning=self.reader.reasoning,
            tool_calls=self.reader.tool_calls,
            finish_reason=self.finish_reason,
            completion_tokens=self.tokens,
            reasoning_tokens=self.reader.reasoning_tokens,
            logprobs=self._shown_logprobs() if self._logprobs else None,
        )

    def _shown_logprobs(self) -> tuple[TokenLogprob, ...]:
        """Of every token of the answer, reasoning included, without the one that ended it."""
        ids: Sequence[int] = self._ids
        if ids and ids[-1] in self.stop_ids:
            ids = ids[:-1]
        shown = []
        for token, value in zip(self.texts(ids), self._logprobs, strict=False):
            likeliest = self.texts([other for other, _ in value.top])
            numbers = [number for _, number in value.top]
            top = tuple(zip(likeliest, numbers, strict=True))
            shown.append(TokenLogprob(token=token, value=value, top=top))
        return tuple(shown)
