"""What lies still is exact, what comes and goes is what a real step makes, and proposals fit."""

import dataclasses
from typing import Any

import pytest
import torch

from tests.train.test_packing import SIZES, network
from train.errors import InputError
from train.estimate import estimate, fits, lines, size
from train.gpus import GPUS, find
from train.proposal import propose
from train.recipe import DataConfig, LoraConfig, ModelConfig, Recipe, TrainingConfig
from train.simulation import _counting, _loss, empty_model, step

EXPERTS = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]
MIB = 2**20


def recipe(**fields: Any) -> Recipe:
    training = fields.pop("training", {})
    return Recipe(
        name="x",
        model=ModelConfig(base="random"),
        data=DataConfig(train="none"),
        training=TrainingConfig(**{"max_length": 256, "max_steps": 10, **training}),
        **fields,
    )


def part(guess: Any, name: str) -> int:
    return next((p.bytes for p in guess.parts if p.name == name), 0)


def mistral(**sizes: Any) -> Any:
    from transformers import MistralConfig

    return MistralConfig(**{**SIZES, **sizes})


def test_what_lies_still_is_parameters_times_bytes() -> None:
    model = network("mistral")
    count = model.num_parameters()
    lora = estimate(recipe(lora=LoraConfig(r=4, target_modules=["q_proj"])), model.config)
    assert lora.parameters == count
    assert lora.trainable == 2 * 4 * (64 + 64)  # layers x rank x (in + out)
    assert part(lora, "weights") == count * 2
    assert part(lora, "adapter") == part(lora, "gradients") == lora.trainable * 4
    assert part(lora, "AdamW") == lora.trainable * 8
    full = estimate(recipe(tuning="full"), model.config)
    assert (full.trainable, part(full, "weights"), part(full, "AdamW")) == (
        count,
        count * 4,
        count * 8,
    )
    linear = 2 * (2 * 64 * 64 + 2 * 64 * 32 + 3 * 64 * 64)  # two layers: q and o, k and v, MLP
    four_bit = estimate(recipe(tuning="qlora"), model.config)
    assert part(four_bit, "weights") == int(linear * 0.516) + (count - linear) * 2


@pytest.mark.parametrize(
    ("kind", "checkpointing"),
    [
        ("mistral", False),
        pytest.param("mistral", True, marks=pytest.mark.slow),
        pytest.param("gpt_oss", False, marks=pytest.mark.slow),
        ("gpt_oss", True),
    ],
)
def test_the_simulation_counts_what_a_real_step_makes(kind: str, checkpointing: bool) -> None:
    """The same counter on real tensors and on fake ones gives the same bytes."""
    from peft import LoraConfig as PeftConfig
    from peft import get_peft_model

    chosen = recipe(lora=LoraConfig(target_parameters=EXPERTS if kind == "gpt_oss" else []))
    attention = "eager" if kind == "gpt_oss" else "sdpa"
    real = network(kind, "bfloat16")
    fake = step(
        empty_model(real.config, chosen, "bfloat16"),
        rows=1,
        tokens=256,
        padded=False,
        attention=attention,
        checkpointing=checkpointing,
        autocast=True,
        accumulates=True,
        triton=False,
    )
    lora = PeftConfig(
        target_modules="all-linear",
        target_parameters=chosen.lora.target_parameters or None,
        task_type="CAUSAL_LM",
    )
    model = get_peft_model(real, lora).train()
    if checkpointing:
        real.activation_checkpointing_enable()
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter) if parameter.requires_grad else None
    # restarts, so that the real model builds the mask of a pack too
    positions = torch.cat([torch.arange(128), torch.arange(128)])[None]
    with _counting(model) as count:
        with torch.autocast("cpu", torch.bfloat16):
            hidden = real.get_decoder()(
                input_ids=torch.zeros((1, 256), dtype=torch.long),
                position_ids=positions,
                use_cache=False,
            )[0][:, :-1]
            result = _loss(hidden.reshape(-1, hidden.shape[-1]), real.lm_head.weight, False)
        kept = count.live
        count.peak = count.live
        result.backward()
    assert fake.kept == pytest.approx(kept, rel=0.05)
    assert fake.backward == pytest.approx(count.peak, rel=0.05)


@pytest.mark.slow
def test_recomputation_length_and_eager_scores_move_the_estimate_as_they_should() -> None:
    settings = mistral(num_hidden_layers=4)

    def activations(**training: Any) -> int:
        off = {"gradient_checkpointing": False, **training}
        return part(estimate(recipe(training=off), settings), "activations")

    kept = activations()
    assert activations(gradient_checkpointing=True) < kept / 4
    assert activations(max_length=512) > 1.9 * kept
    eager = recipe(training={"max_length": 1024})
    eager = dataclasses.replace(eager, model=ModelConfig(base="random", attention="eager"))
    # every layer keeps two copies of 4 heads' scores and more
    assert part(estimate(eager, settings), "activations") > 4 * 2 * 4 * 1024**2 * 2


@pytest.mark.slow
def test_several_processes_shard_or_copy() -> None:
    settings = mistral()
    alone = estimate(recipe(tuning="full"), settings)
    copied = estimate(recipe(tuning="full"), settings, processes=4)
    assert part(copied, "weights") == part(alone, "weights")
    assert part(copied, "DDP buckets") == part(alone, "gradients")
    sharded = recipe(tuning="full", training={"distributed": "fsdp2"})
    assert part(estimate(sharded, settings, processes=4), "AdamW") == part(alone, "AdamW") // 4


@pytest.mark.slow
def test_a_deep_model_is_reckoned_from_two_shallow_ones() -> None:
    settings = mistral(num_hidden_layers=6)
    chosen = recipe(training={"gradient_checkpointing": False})
    six = step(
        empty_model(settings, chosen, "bfloat16"),
        rows=1,
        tokens=256,
        padded=False,
        attention="sdpa",
        checkpointing=False,
        autocast=True,
        accumulates=True,
        triton=True,
    )
    guess = estimate(chosen, settings)
    assert part(guess, "activations") == pytest.approx(six.kept, rel=0.01)
    reckoned = part(guess, "activations") + part(guess, "working memory")
    assert reckoned == pytest.approx(six.peak, rel=0.01)


@pytest.mark.slow
def test_dpo_takes_two_answers_at_once_and_a_full_one_a_second_model() -> None:
    settings = mistral(num_hidden_layers=4)
    training = {"packing": False, "gradient_checkpointing": False}
    sft, dpo = (
        estimate(recipe(method=method, tuning="full", training=training), settings)
        for method in ("sft", "dpo")
    )
    assert part(dpo, "reference") == part(sft, "weights")
    assert part(dpo, "activations") > 1.7 * part(sft, "activations")


def test_flops_count_the_active_experts_alone() -> None:
    model = network("gpt_oss")
    guess = estimate(recipe(training={"gradient_checkpointing": False}), model.config)
    experts = sum(p.numel() for n, p in model.named_parameters() if ".experts." in n)
    active = model.num_parameters() - 256 * 64 - experts // 2  # 2 of 4 are used
    attention = 2 * 2 * 256 * 64  # layers, length, width
    assert guess.flops_per_token == pytest.approx(4 * active + 2 * attention, rel=1e-3)
    assert guess.tokens == 10 * 8 * 256


@pytest.mark.slow
def test_the_first_setting_that_fits_is_proposed_in_the_recipes_own_words() -> None:
    settings = mistral(num_hidden_layers=4)
    chosen = recipe(training={"max_length": 2048, "gradient_checkpointing": False})
    whole = estimate(chosen, settings)
    assert propose(chosen, settings, whole.total) == ([], whole)
    found = propose(chosen, settings, whole.total - 1)
    assert found is not None
    assert found[0] == ["training.gradient_checkpointing=true"] and found[1].total < whole.total
    tighter = propose(chosen, settings, found[1].total - 1)
    assert tighter is not None and "training.max_length=1024" in tighter[0]
    assert propose(chosen, settings, 100 * MIB) is None


def test_the_arithmetic_is_an_aligned_table_with_a_verdict() -> None:
    guess = estimate(recipe(), mistral())
    told = list(lines(guess, find("H100")))
    assert told[0].startswith("weights") and "x 2 (bfloat16)" in told[0]
    assert any(line.startswith("peak") and "sdpa attention" in line for line in told)
    assert told[-2] == "fits into H100 (79.1 GiB)"
    assert told[-1].startswith("time:") and "estimated" in told[-1]
    assert sum(p.bytes for p in guess.parts) == guess.total and fits(guess, 2**34)


def test_gpus_are_found_by_name_and_by_azure_size() -> None:
    assert find("a100-80") is find("Standard_NC24ads_A100_v4")
    assert len({gpu.name for gpu in GPUS}) == len(GPUS)
    with pytest.raises(InputError, match="GPU H9000 is not in the table; there are: T4"):
        find("H9000")


def test_sizes_read_well() -> None:
    assert (size(3 * 2**30), size(5 * MIB)) == ("3.0 GiB", "5 MiB")
