"""Adapter + base → one safetensors folder, published only after it reloads with the same answers.

    model, check = merge(base, tokenizer, run / "adapter", run / "merged", probe_rows, {...})

A merge can go wrong in silence: gpt-oss loaded from MXFP4 is by default saved under the names of
the original format without its scales, and reloads with random experts. So the saved folder is
loaded again: no key missing, none left over, and logits as close to base + adapter as the dtype
allows. Otherwise VerificationError, and the folder does not appear under its final name.
"""

import logging
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from train.errors import VerificationError
from train.evaluate import row_ids
from train.model import Base, load_model

log = logging.getLogger(__name__)

TOLERANCE = {"float32": 1e-4, "bfloat16": 0.05}
"""Largest logit change by merging, as a share of the logits' range; in bf16 the sum is rounded."""


def merge(
    base: Base,
    tokenizer: Any,
    adapter: Path,
    merged: Path,
    probe: Sequence[list[dict[str, Any]]],
    template_kwargs: Mapping[str, Any],
) -> tuple[Any, dict[str, Any]]:
    """Write the merged model to `merged`; return it, reloaded, with the figures of the check.

    `probe` are rows of messages on whose answers logits are compared.
    """
    from peft import PeftModel

    model = PeftModel.from_pretrained(load_model(base), adapter).eval()
    batches = [row_ids(tokenizer, row, template_kwargs) for row in probe]
    expected = [_logits(model, ids) for ids in batches]
    part = merged.with_name(f"{merged.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    merged_model = model.merge_and_unload()
    # the original format of gpt-oss would drop the scales of the experts
    merged_model.save_pretrained(part, save_original_format=False)
    tokenizer.save_pretrained(part)
    del model, merged_model
    reloaded, check = verify(base, part, batches, expected)
    for file in part.iterdir():
        file.chmod(0o644)  # a server under another uid reads them
    part.rename(merged)
    log.info(
        "merged: %s (largest logit difference %.2g, tolerance %.2g)",
        merged,
        check["max_logit_difference"],
        check["tolerance"],
    )
    return reloaded, check


def verify(
    base: Base, folder: Path, batches: Sequence[list[int]], expected: Sequence[Any]
) -> tuple[Any, dict[str, Any]]:
    """Load `folder` and compare; VerificationError names what does not hold."""
    import torch
    from transformers import AutoModelForCausalLM

    model, loading = AutoModelForCausalLM.from_pretrained(
        folder,
        dtype=getattr(torch, base.dtype),
        attn_implementation=base.attention,
        use_safetensors=True,
        output_loading_info=True,
    )
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if keys := sorted(map(str, loading[kind])):
            raise VerificationError(
                f"{folder} does not reload: {kind.replace('_', ' ')} {', '.join(keys[:3])}"
                f"{' …' if len(keys) > 3 else ''}; the adapter is intact beside it."
            )
    model = model.to(base.device).eval()
    difference, spread = 0.0, 0.0
    for ids, logits in zip(batches, expected, strict=True):
        now = _logits(model, ids)
        difference = max(difference, float((now - logits).abs().max()))
        spread = max(spread, float(logits.max() - logits.min()))
    tolerance = TOLERANCE[base.dtype] * spread
    if not difference <= tolerance:  # also when it is nan
        raise VerificationError(
            f"{folder} answers differently from base + adapter: logits differ by {difference:.3g}, "
            f"allowed is {tolerance:.3g} ({base.dtype}); the adapter is intact beside it."
        )
    return model, {
        "max_logit_difference": difference,
        "tolerance": tolerance,
        "logit_range": spread,
        "dtype": base.dtype,
    }


def _logits(model: Any, ids: list[int]) -> Any:
    import torch

    with torch.inference_mode():
        return model(input_ids=torch.tensor([ids], device=model.device)).logits.float().cpu()
