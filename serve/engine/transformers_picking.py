"""Picks the next token of each generation from the logits, by that generation's own settings.

    for picked in pick([picker_a, picker_b], logits): ...   # logits: one fp32 row for each

Plain greedy rows are one argmax for all. Sampling takes one uniform number per token from the
generation's own generator, so a seed means the same whoever else is in the batch, and the process's
seed is left alone. Order as in transformers: penalties, temperature, top-k, top-p, min-p.
"""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers import (
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TopKLogitsWarper,
)

from serve.engine import Logprob, Sampling

NUCLEUS_WIDTH = 1024
"""Sorting a whole vocabulary takes 2 ms on a CPU, the likeliest thousand a tenth of that."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Defaults:
    """The model's own sampling, from generation_config.json; None where it says nothing."""

    temperature: float | None
    top_p: float | None
    top_k: int | None


class Picker:
    """The settings of one generation, and what it has generated."""

    def __init__(
        self,
        sampling: Sampling,
        defaults: Defaults,
        prompt_ids: Sequence[int],
        device: torch.device,
    ) -> None:
        self._temperature = _given(sampling.temperature, defaults.temperature, 1.0)
        self._top_p = _given(sampling.top_p, defaults.top_p, 1.0)
        top_k = int(_given(sampling.top_k, defaults.top_k, 0))
        self._top_k = TopKLogitsWarper(top_k) if top_k else None
        self._min_p = MinPLogitsWarper(sampling.min_p) if sampling.min_p else None
        repetition = sampling.repetition_penalty
        self._repetition = (
            RepetitionPenaltyLogitsProcessor(float(repetition))
            if repetition is not None and repetition != 1
            else None
        )
        self._presence = sampling.presence_penalty or 0.0
        self._frequency = sampling.frequency_penalty or 0.0
        self._top = sampling.logprobs
        self._generator: torch.Generator | None = None
        if sampling.do_sample:
            self._generator = torch.Generator()
            seed = secrets.randbits(63) if sampling.seed is None else sampling.seed
            self._generator.manual_seed(seed)
        penalized = self._repetition is not None or self._presence != 0 or self._frequency != 0
        self.plain = self._generator is None and not penalized and self._top is None
        """The likeliest token is the answer."""
        self._seen = torch.tensor([list(prompt_ids)], device=device) if penalized else None
        self._prompt_length = len(prompt_ids)

    def pick(self, logits: torch.Tensor) -> tuple[int, Logprob | None]:
        """The next token of this generation."""
        scores = self._penalized(logits)
        if self._generator is None:
            token = int(scores.argmax())
        else:
            token = _draw(self._narrowed(scores), self._generator)
        if self._seen is not None:
            self._seen = torch.cat([self._seen, self._seen.new_tensor([[token]])], dim=1)
        return token, None if self._top is None else _logprob(logits, token, self._top)

    def _penalized(self, logits: torch.Tensor) -> torch.Tensor:
        if self._seen is None:
            return logits
        scores = logits.clone()
        if self._repetition is not None:
            scores = self._repetition(self._seen, scores[None])[0]
        if self._presence or self._frequency:
            made = self._seen[0, self._prompt_length :]
            ids, counts = torch.unique(made, return_counts=True)
            scores[ids] -= self._presence + self._frequency * counts
        return scores

    def _narrowed(self, scores: torch.Tensor) -> torch.Tensor:
        scores = scores / self._temperature
        if self._top_k is not None:
            scores = self._top_k(None, scores[None])[0]
        if self._top_p < 1:
            scores = nucleus(scores, self._top_p)
        if self._min_p is not None:
            scores = self._min_p(None, scores[None])[0]
        return scores


def pick(pickers: Sequence[Picker], rows: torch.Tensor) -> list[tuple[int, Logprob | None] | None]:
    """For each its token, with log probabilities if asked for; None where a row is no numbers."""
    best = rows.argmax(dim=-1).tolist()
    sound = torch.isfinite(rows.amax(dim=-1)).tolist()  # not a number wins every maximum
    return [
        None if not fine else (likeliest, None) if picker.plain else picker.pick(row)
        for picker, row, likeliest, fine in zip(pickers, rows, best, sound, strict=True)
    ]


def nucleus(scores: torch.Tensor, top_p: float) -> torch.Tensor:
    """Without all but the likeliest tokens that together have a probability of top_p."""
    everything = scores.logsumexp(dim=-1)
    values = scores.topk(min(NUCLEUS_WIDTH, len(scores))).values
    reached = (values - everything).exp().cumsum(dim=-1)
    if reached[-1] < top_p:
        values = scores.sort(descending=True).values
        reached = (values - everything).exp().cumsum(dim=-1)
    last = min(int((reached < top_p).sum()), len(values) - 1)
    return scores.masked_fill(scores < values[last], -torch.inf)


def _draw(scores: torch.Tensor, generator: torch.Generator) -> int:
    """The token at a uniform number's place in the summed probabilities."""
    summed = scores.softmax(dim=-1).cumsum(dim=-1, dtype=torch.float64)
    place = torch.rand((), generator=generator, dtype=torch.float64).to(summed.device) * summed[-1]
    return min(int(torch.searchsorted(summed, place, right=True)), len(scores) - 1)


def _logprob(logits: torch.Tensor, token: int, top: int) -> Logprob:
    values = logits.log_softmax(dim=-1)
    likeliest = values.topk(top)
    pairs = zip(likeliest.indices.tolist(), likeliest.values.tolist(), strict=True)
    return Logprob(logprob=float(values[token]), top=tuple(pairs))


def _given(*values: float | None) -> float:
    """The first that says something; the last one does."""
    return next(value for value in values if value is not None)
