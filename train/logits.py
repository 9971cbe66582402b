"""When two models, or one model in two ways, say the same: one measure and its tolerances."""

from typing import Any

TOLERANCE = {"float32": 1e-3, "bfloat16": 0.15}
"""Largest difference that is still rounding.

Measured on random gpt-oss, Mistral and Phi-3 models of 2 to 32 layers: the same tokens packed or
alone differ by at most 1e-6 in float32 and 0.022 in bfloat16, rows that see each other by more than
1 in both; experts that a save lost, by more than 0.5.
"""
GREEDY_TOLERANCE = {"float32": 1e-4, "bfloat16": 0.05}
"""Mean distance of a token's logit from the best one, as a share of the logits' range."""


def difference(found: Any, true: Any) -> float:
    """Mean over tokens of |found - true| / |true - its mean|, both (tokens, vocabulary).

    0 is equal and about 1.4 unrelated. Rounding strikes every token a little, and an expert that
    rounding chose otherwise strikes one token; only what is really different moves the mean far.
    """
    spread = (true - true.mean(-1, keepdim=True)).norm(dim=-1)
    return float(((found - true).norm(dim=-1) / spread).mean())
