"""Rows packed into one sequence must not see each other: the hook for gpt-oss, and the proof.

keep_packed_rows_apart(model)                    gpt-oss only, once after loading
check_parity(model, rows, dtype="bfloat16", …)   before step 1 of every packed training
"""

import itertools
import logging
from collections.abc import Sequence
from typing import Any

from train.errors import VerificationError
from train.logits import TOLERANCE, difference

log = logging.getLogger(__name__)

ROWS = 4
"""Rows in the tested pack."""
HEAD = 16
"""Tokens compared at a row's start: rows that mix differ most where their own context is short."""


def keep_packed_rows_apart(model: Any) -> None:
    """Make gpt-oss attend within each row of a pack.

    Its forward does not hand `position_ids` to the mask builders (transformers 5.23; Mistral, Phi-3
    and Llama do), so eager attention would run across the rows of a pack without a warning. The
    hook builds both masks with them, in the kind that the configured attention takes (a tensor for
    eager, a BlockMask for flex, none for flash, which gets the boundaries as `cu_seq_lens`);
    without restarts in `position_ids` the masks are unchanged.
    """
    import torch
    from transformers.masking_utils import (
        create_causal_mask,
        create_sliding_window_causal_mask,
    )

    def add_masks(
        decoder: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        positions = kwargs.get("position_ids")
        tokens = kwargs.get("input_ids") if not args else args[0]
        if (
            positions is None
            or tokens is None
            or kwargs.get("attention_mask") is not None
            or kwargs.get("past_key_values") is not None
        ):
            return args, kwargs
        mask_inputs = {
            "config": decoder.config,
            # only its shape, dtype and device are read; a plain tensor even where FSDP2 shards
            "inputs_embeds": torch.empty(
                (*tokens.shape, 1), dtype=decoder.embed_tokens.weight.dtype, device=tokens.device
            ),
            "attention_mask": None,
            "past_key_values": None,
            "position_ids": positions,
        }
        masks = {
            "full_attention": create_causal_mask(**mask_inputs),
            "sliding_attention": create_sliding_window_causal_mask(**mask_inputs),
        }
        return args, {**kwargs, "attention_mask": masks}

    model.get_decoder().register_forward_pre_hook(add_masks, with_kwargs=True)


def check_parity(
    model: Any, rows: Sequence[Sequence[int]], *, dtype: str, max_length: int
) -> float:
    """Largest difference between a row's logits in a pack and alone; raises VerificationError.

    `rows` are token ids; the first few are cut so that the pack and the rows alone are together
    about one pack of `max_length` tokens. A row's difference (train/logits.py) is the mean over its
    first tokens and its last.

    Leaves the model in the mode (training or not) that it came in. Nothing to check in one row: 0.
    """
    import torch

    length = max(max_length // 2 // ROWS, 2)
    cut = [list(row[:length]) for row in rows[:ROWS] if row]
    if len(cut) < 2:
        return 0.0
    device = next(model.parameters()).device
    training = model.training
    model.eval()
    try:
        with (
            torch.inference_mode(),
            # as in training: fused kernels take bfloat16 only, where the weights may be float32
            torch.autocast(device.type, torch.bfloat16, enabled=dtype == "bfloat16"),
        ):
            places = [_compared(len(row)) for row in cut]
            starts = [0, *itertools.accumulate(len(row) for row in cut)]
            kept = [start + p for start, row in zip(starts, places, strict=False) for p in row]
            packed = _logits(model, cut, kept, device).split([len(row) for row in places])
            differences = [
                difference(inside, _logits(model, [row], where, device))
                for row, where, inside in zip(cut, places, packed, strict=True)
            ]
    finally:
        model.train(training)
    worst = max(differences)
    if not worst <= TOLERANCE[dtype]:  # a NaN is refused too
        row = differences.index(worst) + 1
        raise VerificationError(
            f"rows of a pack see each other: the logits of row {row} of {len(cut)} differ by "
            f"{worst:.3g} of their spread from the row alone, more than {TOLERANCE[dtype]:g} "
            f"({dtype}), under {model.config._attn_implementation} attention; "
            "set training.packing=false, or another model.attention."
        )
    log.info(
        "packing: %d rows in one pack give the logits of the rows alone (difference %.2g of their "
        "spread, tolerance %g)",
        len(cut),
        worst,
        TOLERANCE[dtype],
    )
    return worst


def as_trained(
    tokens: Sequence[int], labels: Sequence[int], lengths: Sequence[int], device: Any
) -> dict[str, Any]:
    """The batch that TRL makes of one pack, on `device`: made by its own collator.

    `tokens` and `labels` are the pack's, `lengths` its rows' numbers of tokens. input_ids, labels
    and position_ids are (1, tokens), with positions restarting per row and no attention mask.
    """
    import torch
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

    collator = DataCollatorForLanguageModeling(pad_token_id=0, padding_free=True)
    pack = {"input_ids": list(tokens), "labels": list(labels), "seq_lengths": list(lengths)}
    return {
        name: value.to(device) if isinstance(value, torch.Tensor) else value
        for name, value in collator([pack]).items()
    }


def _compared(length: int) -> list[int]:
    """Places in a row whose logits are compared."""
    return sorted({*range(min(HEAD, length)), length - 1})


def _logits(model: Any, rows: list[list[int]], kept: list[int], device: Any) -> Any:
    """Logits (len(kept), vocabulary) in float32 at the places `kept` of the rows' pack."""
    import torch

    tokens = [token for row in rows for token in row]
    batch = as_trained(tokens, tokens, [len(row) for row in rows], device)
    del batch["labels"]
    places = torch.tensor(kept, device=device)
    return model(**batch, logits_to_keep=places, use_cache=False).logits[0].float()
