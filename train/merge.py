"""What was trained → one safetensors folder, published only after it reloads with the same answers.

    model, check = publish(base, tokenizer, run / "adapter", run / "merged", probe_rows, {...})

A merge can go wrong in silence: gpt-oss loaded from MXFP4 is by default saved under the names of
the original format without its scales, and reloads with random experts. So the saved folder is
loaded again: no key missing, none left over, logits as close to what was trained as the dtype
allows, and the same greedy answer. Otherwise VerificationError, and the folder does not appear
under its final name.
"""

import logging
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from train.errors import VerificationError
from train.evaluate import prompt_ids, row_ids
from train.model import Base, load_model

log = logging.getLogger(__name__)

TOLERANCE = {"float32": 1e-4, "bfloat16": 0.05}
"""Largest logit change by merging, as a share of the logits' range; in bf16 the sum is rounded."""
SAMPLE_TOKENS = 24


def publish(
    base: Base,
    tokenizer: Any,
    trained: Path,
    merged: Path,
    probe: Sequence[list[dict[str, Any]]],
    template_kwargs: Mapping[str, Any],
) -> tuple[Any, dict[str, Any]]:
    """Write the model to `merged`; return it, reloaded, with the figures of the check.

    `trained` is an adapter's folder, or one of full weights. `probe` are rows of messages on whose
    answers logits are compared; of the first one's prompt a greedy answer is compared too.
    """
    import torch

    adapted = (trained / "adapter_config.json").is_file()
    model = _adapted(base, trained) if adapted else load_model(base, weights=trained)
    model.eval()
    batches = [row_ids(tokenizer, row, template_kwargs) for row in probe]
    expected = [_logits(model, ids) for ids in batches]
    prompt = prompt_ids(tokenizer, probe[0][:-1], template_kwargs)
    answer = _greedy(model, prompt, tokenizer.pad_token_id)
    part = merged.with_name(f"{merged.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    if adapted:
        model = model.merge_and_unload()
    model = model.to(getattr(torch, base.publish))
    # the original format of gpt-oss would drop the scales of the experts
    model.save_pretrained(part, save_original_format=False)
    tokenizer.save_pretrained(part)
    del model
    reloaded, check = verify(base, part, batches, expected, (prompt, answer))
    check["sample"] = tokenizer.decode(answer, skip_special_tokens=True).strip()
    for file in part.iterdir():
        file.chmod(0o644)  # a server under another uid reads them
    shutil.rmtree(merged, ignore_errors=True)
    part.rename(merged)
    log.info(
        "merged: %s (largest logit difference %.2g, tolerance %.2g; same greedy answer)",
        merged,
        check["max_logit_difference"],
        check["tolerance"],
    )
    return reloaded, check


def _adapted(base: Base, adapter: Path) -> Any:
    from peft import PeftModel

    return PeftModel.from_pretrained(load_model(base), adapter)


def verify(
    base: Base,
    folder: Path,
    batches: Sequence[list[int]],
    expected: Sequence[Any],
    sample: tuple[list[int], list[int]],
) -> tuple[Any, dict[str, Any]]:
    """Load `folder` and compare; VerificationError names what does not hold.

    `sample` is a prompt and the greedy answer that it had; where two tokens are as good as equal,
    rounding may choose either, so a token may differ if its logit is within the tolerance.
    """
    import torch
    from transformers import AutoModelForCausalLM

    model, loading = AutoModelForCausalLM.from_pretrained(
        folder,
        dtype=getattr(torch, base.publish),
        attn_implementation=base.attention,
        use_safetensors=True,
        output_loading_info=True,
    )
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if keys := sorted(map(str, loading[kind])):
            raise VerificationError(
                f"{folder} does not reload: {kind.replace('_', ' ')} {', '.join(keys[:3])}"
                f"{' …' if len(keys) > 3 else ''}; what was trained is intact beside it."
            )
    model = model.to(base.device).eval()
    difference, spread = 0.0, 0.0
    for ids, logits in zip(batches, expected, strict=True):
        now = _logits(model, ids)
        difference = max(difference, float((now - logits).abs().max()))
        spread = max(spread, float(logits.max() - logits.min()))
    tolerance = TOLERANCE[base.publish] * spread
    if not difference <= tolerance:  # also when it is nan
        raise VerificationError(
            f"{folder} answers differently from what was trained: logits differ by "
            f"{difference:.3g}, allowed is {tolerance:.3g} ({base.publish}); what was trained is "
            "intact beside it."
        )
    prompt, answer = sample
    logits = _logits(model, prompt + answer)[0, len(prompt) - 1 : -1]
    chosen = logits.gather(1, torch.tensor(answer).unsqueeze(1)).squeeze(1)
    gap = float((logits.max(dim=1).values - chosen).max()) if answer else 0.0
    if not gap <= tolerance:
        raise VerificationError(
            f"{folder} gives another greedy answer than what was trained (a token's logit is "
            f"{gap:.3g} below the best, allowed is {tolerance:.3g}); what was trained is intact "
            "beside it."
        )
    return model, {
        "max_logit_difference": difference,
        "tolerance": tolerance,
        "logit_range": spread,
        "dtype": base.publish,
        "sample_tokens": len(answer),
        "sample_gap": gap,
    }


def _logits(model: Any, ids: list[int]) -> Any:
    """Logits of one row, shape (1, tokens, vocabulary), float32 on the CPU."""
    import torch

    with torch.inference_mode():
        return model(input_ids=torch.tensor([ids], device=model.device)).logits.float().cpu()


def _greedy(model: Any, prompt: list[int], pad: int) -> list[int]:
    import torch

    ids = torch.tensor([prompt], device=model.device)
    with torch.inference_mode():
        output = model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=SAMPLE_TOKENS,
            do_sample=False,
            pad_token_id=pad,
        )
    return list(output[0, len(prompt) :].tolist())
