"""Attention one row of a pack at a time, on a CPU: a pack then costs what its rows cost.

    use(model)          from here on the model takes packed batches only, as TRL's collator makes

With one dense mask over the pack the scores between rows are computed and thrown away: half of all
time in packs of 2,048 tokens with rows of some 200. Kernels for GPUs leave them out by themselves.
"""

import functools
import itertools
from typing import Any

NAME = "rows"


def use(model: Any) -> None:
    """Let `model` attend row by row; needs `cu_seq_lens_q` (row borders) with every batch."""
    from transformers import AttentionInterface, AttentionMaskInterface

    AttentionInterface.register(NAME, attend)
    AttentionMaskInterface.register(NAME, lambda *args, **kwargs: None)
    model.set_attn_implementation(NAME)


def attend(
    module: Any,
    query: Any,
    key: Any,
    value: Any,
    attention_mask: None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    s_aux: Any = None,
    *,
    cu_seq_lens_q: Any,
    **kwargs: Any,
) -> tuple[Any, None]:
    """Causal attention within the rows; query (1, heads, tokens, size) → (1, tokens, heads, size).

    `s_aux` are gpt-oss's sinks, one per head, which its own eager attention adds.
    """
    import torch
    from torch.nn.functional import scaled_dot_product_attention
    from transformers.models.gpt_oss.modeling_gpt_oss import eager_attention_forward

    lengths = [end - start for start, end in itertools.pairwise(cu_seq_lens_q.tolist())]
    outputs = []
    for q, k, v in zip(*(part.split(lengths, dim=2) for part in (query, key, value)), strict=True):
        length = q.shape[2]
        window = sliding_window if sliding_window and sliding_window < length else 0
        if s_aux is not None:
            mask = _mask(length, window, q.dtype, q.device)[None, None]
            outputs.append(eager_attention_forward(module, q, k, v, mask, scaling, dropout)[0])
            continue
        out = scaled_dot_product_attention(
            q,
            k,
            v,
            attn_mask=_mask(length, window, q.dtype, q.device) if window else None,
            is_causal=not window,
            dropout_p=dropout,
            scale=scaling,
            enable_gqa=q.shape[1] != k.shape[1],
        )
        outputs.append(out.transpose(1, 2))
    return torch.cat(outputs, dim=1), None


def _mask(length: int, window: int, dtype: Any, device: Any) -> Any:
    """0 where a token sees another, else the least number; (length, length)."""
    side = 1 << (length - 1).bit_length()
    return _square(side, window, dtype, device)[:length, :length]


@functools.lru_cache(maxsize=8)
def _square(side: int, window: int, dtype: Any, device: Any) -> Any:
    import torch

    place = torch.arange(side, device=device)
    hidden = place[None] > place[:, None]
    if window:
        hidden |= place[None] <= place[:, None] - window
    return torch.zeros(side, side, dtype=dtype, device=device).masked_fill(
        hidden, torch.finfo(dtype).min
    )
