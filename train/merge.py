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
from train.logits import GREEDY_TOLERANCE, TOLERANCE, difference
from train.model import Base, load_model

log = logging.getLogger(__name__)

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
        "merged: %s (logits differ by %.2g of their spread, tolerance %g; same greedy answer)",
        merged,
        check["difference"],
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
    rounding may choose either, so what counts is how far its tokens' logits are from the best.
    """
    import torch
    from transformers import AutoModelForCausalLM

    model, loading = AutoModelForCausalLM.from_pretrained(
        folder,
        dtype=getattr(torch, base.publish),
        attn_implementation=base.attention,
        use_safetensors=True,
        trust_remote_code=False,
        output_loading_info=True,
    )
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if keys := sorted(map(str, loading[kind])):
            raise VerificationError(
                f"{folder} does not reload: {kind.replace('_', ' ')} {', '.join(keys[:3])}"
                f"{' …' if len(keys) > 3 else ''}; what was trained is intact beside it."
            )
    model = model.to(base.device).eval()
    worst = max(
        (
            difference(_logits(model, ids), logits)
            for ids, logits in zip(batches, expected, strict=True)
        ),
        default=0.0,
    )
    tolerance = TOLERANCE[base.publish]
    if not worst <= tolerance:  # also when it is nan
        raise VerificationError(
            f"{folder} answers differently from what was trained: logits differ by {worst:.3g} of "
            f"their spread, allowed is {tolerance:g} ({base.publish}); what was trained is intact "
            "beside it."
        )
    prompt, answer = sample
    gap = _gap(_logits(model, prompt + answer)[len(prompt) - 1 : -1], answer)
    if not gap <= GREEDY_TOLERANCE[base.publish]:
        raise VerificationError(
            f"{folder} gives another greedy answer than what was trained (its tokens' logits are "
            f"{gap:.3g} of the range below the best, allowed is "
            f"{GREEDY_TOLERANCE[base.publish]:g}); what was trained is intact beside it."
        )
    return model, {
        "difference": worst,
        "tolerance": tolerance,
        "dtype": base.publish,
        "sample_tokens": len(answer),
        "sample_gap": gap,
    }


def _gap(logits: Any, answer: list[int]) -> float:
    """Mean distance of the answer's logits from the best, as a share of the logits' range."""
    import torch

    if not answer:
        return 0.0
    best = logits.max(dim=1).values
    chosen = logits.gather(1, torch.tensor(answer).unsqueeze(1)).squeeze(1)
    return float(((best - chosen) / (best - logits.min(dim=1).values)).mean())


def _logits(model: Any, ids: list[int]) -> Any:
    """Logits of one row, shape (tokens, vocabulary), float32 on the CPU."""
    import torch

    with torch.inference_mode():
        return model(input_ids=torch.tensor([ids], device=model.device)).logits[0].float().cpu()


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
