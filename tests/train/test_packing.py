"""Each of the three architectures in both dtypes: apart passes, mixed is refused."""

from typing import Any

import pytest
import torch

from train.errors import VerificationError
from train.packing import check_parity, keep_packed_rows_apart

ROWS = [list(range(3, 40)), list(range(100, 160)), list(range(60, 90))]
SIZES = {
    "vocab_size": 256,
    "hidden_size": 64,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "pad_token_id": 0,
    "max_position_embeddings": 512,
}


def network(model_type: str, dtype: str = "float32") -> Any:
    """A random model as it comes from the library, before any hook of ours."""
    from transformers import AutoModelForCausalLM, GptOssConfig, MistralConfig, Phi3Config

    configs = {
        "mistral": lambda: MistralConfig(**SIZES, sliding_window=32),
        "phi3": lambda: Phi3Config(**SIZES, bos_token_id=1, eos_token_id=2),
        "gpt_oss": lambda: GptOssConfig(
            **SIZES,
            head_dim=16,
            num_local_experts=4,
            num_experts_per_tok=2,
            sliding_window=32,
            rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
        ),
    }
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(
        configs[model_type](),
        attn_implementation="eager" if model_type == "gpt_oss" else "sdpa",
        dtype=getattr(torch, dtype),
    )


def forget_boundaries(model: Any) -> None:
    """A mask of ones, as a padding collator would send it, hides where the rows of a pack begin."""

    def all_ones(decoder: Any, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        return args, {**kwargs, "attention_mask": torch.ones_like(kwargs["input_ids"])}

    model.get_decoder().register_forward_pre_hook(all_ones, with_kwargs=True)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_gpt_oss_mixes_the_rows_of_a_pack_and_is_refused_until_the_hook_is_there(
    dtype: str,
) -> None:
    """If the first half fails, transformers hands over `position_ids` itself: drop the hook."""
    model = network("gpt_oss", dtype)
    with pytest.raises(VerificationError, match=r"row [23] of 3 .* set training\.packing=false"):
        check_parity(model, ROWS, dtype=dtype, max_length=512)
    keep_packed_rows_apart(model)
    assert check_parity(model, ROWS, dtype=dtype, max_length=512) < 0.03


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("model_type", ["mistral", "phi3"])
def test_mistral_and_phi3_keep_rows_apart_and_are_refused_when_they_do_not(
    model_type: str, dtype: str
) -> None:
    model = network(model_type, dtype)
    assert check_parity(model, ROWS, dtype=dtype, max_length=512) < 0.03
    forget_boundaries(model)
    with pytest.raises(VerificationError, match="rows of a pack see each other"):
        check_parity(model, ROWS, dtype=dtype, max_length=512)


def test_an_adapter_in_training_with_checkpointing_passes_and_stays_in_training() -> None:
    from peft import LoraConfig, get_peft_model

    model = network("gpt_oss", "bfloat16")
    keep_packed_rows_apart(model)
    model.activation_checkpointing_enable()
    model = get_peft_model(model, LoraConfig(target_modules=["q_proj", "v_proj"], lora_dropout=0.5))
    model.train()
    assert check_parity(model, ROWS, dtype="bfloat16", max_length=512) < 0.03
    assert model.training


def test_one_row_has_nothing_to_mix_with() -> None:
    assert check_parity(network("gpt_oss"), ROWS[:1], dtype="float32", max_length=512) == 0


def test_rows_are_cut_so_that_pack_and_rows_are_one_pack_of_tokens() -> None:
    model = network("mistral")
    seen = []
    model.register_forward_pre_hook(
        lambda _, __, kwargs: seen.append(kwargs["input_ids"].shape[1]), with_kwargs=True
    )
    check_parity(model, ROWS * 3, dtype="float32", max_length=64)
    assert seen == [32, 8, 8, 8, 8]


@pytest.mark.slow  # compiles the mask
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own, on compiling the mask
def test_the_hook_gives_flex_attention_a_block_mask_with_the_same_boundaries() -> None:
    from torch.nn.attention.flex_attention import BlockMask

    model = network("gpt_oss")
    keep_packed_rows_apart(model)
    decoder = model.get_decoder()
    (hook,) = decoder._forward_pre_hooks.values()
    positions = torch.cat([torch.arange(100), torch.arange(156)])[None]
    inputs = {"input_ids": positions, "position_ids": positions}
    _, eager = hook(decoder, (), inputs)
    decoder.config._attn_implementation = "flex_attention"
    _, flex = hook(decoder, (), inputs)
    for kind, mask in flex["attention_mask"].items():
        assert isinstance(mask, BlockMask)
        place = torch.arange(256)
        zero = torch.tensor(0)
        allowed = mask.mask_mod(zero, zero, place[:, None], place[None])
        assert torch.equal(allowed, eager["attention_mask"][kind][0, 0] == 0)
