"""The probe on real implementations: right ones pass, wrong and failing ones are told apart."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from tests.train.test_packing import ROWS, network
from train.attention import candidates, choose, probe
from train.errors import InputError, MachineError, VerificationError
from train.packing import as_trained, keep_packed_rows_apart

LENGTHS = [len(row) for row in ROWS]
TOKENS = [token for row in ROWS for token in row]


def adapted(model_type: str, dtype: str = "float32") -> Any:
    from peft import LoraConfig, get_peft_model

    model = network(model_type, dtype)
    if model_type == "gpt_oss":
        keep_packed_rows_apart(model)
    return get_peft_model(model, LoraConfig(r=4, target_modules="all-linear"))


def batch() -> dict[str, Any]:
    return as_trained(TOKENS, [-100] * 20 + TOKENS[20:], LENGTHS, "cpu")


def test_what_is_loaded_first_is_right_on_every_machine() -> None:
    assert choose("gpt_oss", "cuda", "auto")[0] == "eager"
    assert choose("mistral", "cpu", "auto") == ("sdpa", "fastest that every machine has")
    assert choose("mistral", "cpu", "eager") == ("eager", "set by the recipe")
    name, reason = choose("gpt_oss", "cuda", "flex_attention")
    assert name == "eager" and "until the kernel probe has tried flex_attention" in reason


@pytest.mark.parametrize(
    ("model_type", "asked", "sentence"),
    [
        ("gpt_oss", "sdpa", "attention sinks, which sdpa cannot compute: set model.attention"),
        ("mistral", "flash_attention_2", "flash_attention_2, which needs an NVIDIA GPU"),
    ],
)
def test_what_cannot_train_here_is_refused_in_one_sentence(
    model_type: str, asked: str, sentence: str
) -> None:
    with pytest.raises(InputError, match=sentence):
        choose(model_type, "cpu", asked)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_sdpa_agrees_with_eager_on_mistral_and_the_faster_is_left_set(dtype: str) -> None:
    model = adapted("mistral", dtype).train()
    verdict = probe(model, batch(), candidates("mistral"), dtype=dtype)
    outcomes = {trial.name: trial.outcome for trial in verdict.trials}
    assert outcomes["flash_attention_2"] == "not available"
    assert {outcomes["sdpa"], outcomes["eager"]} == {"used", "slower"}
    assert outcomes[verdict.chosen] == "used"
    assert model.get_base_model().config._attn_implementation == verdict.chosen
    assert model.training
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.fixture
def wrong() -> Iterator[str]:
    """An implementation with the right loss whose keys get no gradient; name of it."""
    from transformers.integrations.sdpa_attention import sdpa_attention_forward
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, sdpa_mask
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    def attention(module: Any, query: Any, key: Any, *args: Any, **kwargs: Any) -> Any:
        return sdpa_attention_forward(module, query, key.detach(), *args, **kwargs)

    ALL_ATTENTION_FUNCTIONS.register("wrong", attention)
    ALL_MASK_ATTENTION_FUNCTIONS.register("wrong", sdpa_mask)
    yield "wrong"
    del ALL_ATTENTION_FUNCTIONS._global_mapping["wrong"]
    del ALL_MASK_ATTENTION_FUNCTIONS._global_mapping["wrong"]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_right_loss_with_wrong_gradients_is_found_out(
    wrong: str, dtype: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO"):
        verdict = probe(adapted("mistral", dtype), batch(), [wrong], dtype=dtype)
    trial = verdict.trials[0]
    assert trial.outcome == "wrong" and trial.seconds is None
    assert trial.loss_difference is not None and trial.loss_difference < 1e-3
    assert trial.layer_difference == pytest.approx(1, abs=0.05)
    assert verdict.chosen == "eager"
    assert "attention: wrong: wrong (loss" in caplog.text
    assert "k_proj.lora_B.default.weight off by 1" in caplog.text


def test_the_recipes_own_choice_is_refused_when_wrong_and_not_replaced(wrong: str) -> None:
    model = adapted("mistral")
    with pytest.raises(VerificationError, match=r"model\.attention is wrong, which is wrong here"):
        probe(model, batch(), [], dtype="float32", asked=wrong)
    assert model.get_base_model().config._attn_implementation == "sdpa"


def test_the_recipes_own_choice_that_is_not_installed_is_a_sentence_about_the_machine() -> None:
    with pytest.raises(MachineError, match="flash_attention_2, which is not available here"):
        probe(adapted("mistral"), batch(), [], dtype="float32", asked="flash_attention_2")


def test_the_recipes_own_choice_is_used_when_right_even_if_slower() -> None:
    verdict = probe(adapted("mistral"), batch(), [], dtype="float32", asked="sdpa")
    assert verdict.chosen == "sdpa"
    assert verdict.as_dict()["trials"][0]["outcome"] == "used"


@pytest.mark.slow  # compiles the mask
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own, on compiling the mask
def test_gpt_oss_falls_back_to_eager_where_no_kernel_runs() -> None:
    model = adapted("gpt_oss", "bfloat16")
    verdict = probe(model, batch(), candidates("gpt_oss"), dtype="bfloat16")
    assert verdict.chosen == "eager"
    flex, flash, _ = verdict.trials
    assert flex.outcome == flash.outcome == "not available"
    assert "sinks cannot be run on CPU" in flex.detail
    assert "needs a Hopper GPU" in flash.detail


def test_gpt_oss_without_its_sinks_is_found_out() -> None:
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, eager_mask
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
    from transformers.models.gpt_oss.modeling_gpt_oss import eager_attention_forward

    def sinkless(module: Any, *args: Any, **kwargs: Any) -> Any:
        sinks = module.sinks
        module.sinks = torch.nn.Parameter(torch.full_like(sinks, -1e4), requires_grad=False)
        try:
            return eager_attention_forward(module, *args, **kwargs)
        finally:
            module.sinks = sinks

    ALL_ATTENTION_FUNCTIONS.register("sinkless", sinkless)
    ALL_MASK_ATTENTION_FUNCTIONS.register("sinkless", eager_mask)
    try:
        verdict = probe(adapted("gpt_oss", "bfloat16"), batch(), ["sinkless"], dtype="bfloat16")
    finally:
        del ALL_ATTENTION_FUNCTIONS._global_mapping["sinkless"]
        del ALL_MASK_ATTENTION_FUNCTIONS._global_mapping["sinkless"]
    assert verdict.trials[0].outcome == "wrong"
    assert verdict.trials[0].loss_difference == pytest.approx(0, abs=5e-3)  # the loss hides it


def test_a_pack_without_a_trained_token_cannot_prove_a_kernel() -> None:
    blank = as_trained(TOKENS, [-100] * len(TOKENS), LENGTHS, "cpu")
    with pytest.raises(InputError, match="no trained token"):
        probe(adapted("mistral"), blank, ["sdpa"], dtype="float32")
