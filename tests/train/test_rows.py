import copy
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.train import shapes
from train import rows
from train.packing import as_trained, keep_packed_rows_apart

LENGTHS = [40, 1, 200, 17]


@pytest.mark.parametrize("kind", ["gpt_oss", "mistral", "phi3"])
@pytest.mark.parametrize("window", [None, 32])
def test_row_by_row_gives_the_loss_and_gradients_of_one_dense_mask(
    tmp_path: Path, kind: str, window: int | None
) -> None:
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(shapes.make(kind, tmp_path / kind))
    if window or kind != "gpt_oss":
        config.sliding_window = window
    torch.manual_seed(0)
    dense = AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    if kind == "gpt_oss":
        keep_packed_rows_apart(dense)
    by_row = copy.deepcopy(dense)
    rows.use(by_row)
    ids = torch.randint(5, config.vocab_size, (sum(LENGTHS),)).tolist()
    batch = as_trained(ids, ids, LENGTHS, torch.device("cpu"))

    def step(model: Any) -> tuple[float, dict[str, torch.Tensor]]:
        loss = model(**batch, use_cache=False).loss
        loss.backward()
        return loss.item(), {n: p.grad for n, p in model.named_parameters() if p.grad is not None}

    (expected, true), (loss, gradients) = step(dense), step(by_row)
    assert loss == pytest.approx(expected, rel=1e-6)
    assert gradients.keys() == true.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, true[name], atol=1e-5, rtol=1e-3, msg=name)
