"""`python -m train RECIPE --check`: everything cheap is checked before anything slow or paid for.

    check(recipe, cache)                 # or gpu="H100", to estimate for another machine

Nothing is trained and no weights are loaded: rows are read from the head of each file, the model is
its configuration on the meta device, and `tiny` is not made. Every part is checked whatever became
of the others, one line each, and all problems come in one InputError.
"""

import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from train import distributed, gpus, launch
from train.errors import InputError, reason
from train.estimate import BYTES, Estimate, estimate, fits, lines, size
from train.gpus import Gpu
from train.preview import Preview, preview
from train.recipe import Recipe

log = logging.getLogger(__name__)

RAM = "this machine's RAM"
"""What stands in for a GPU where there is none."""


def check(
    recipe: Recipe, cache: Path, *, gpu: str | None = None, outputs: Path = Path("outputs")
) -> None:
    """Check `recipe` and print what was found; with `gpu` the memory is that GPU's.

    Raises InputError for what would end the run: one problem as its sentence, several a line each.
    """
    problems: list[str] = []

    def tried(part: Callable[[], Any]) -> Any:
        """What `part` returns; None where it has a problem, which is noted."""
        try:
            return part()
        except InputError as error:
            problems.append(str(error))
            return None

    machine = tried(lambda: _machine(gpu))
    where = _where(machine, elsewhere=gpu is not None)
    tried(lambda: _combinations(recipe, machine))
    settings = tried(lambda: _settings(recipe))
    tokenizer = settings and tried(lambda: _tokenizer(recipe, settings))
    head = tried(lambda: preview(recipe, cache, tokenizer))
    guess = None
    if settings:
        tried(lambda: _attention(recipe, settings, machine))
        guess = tried(lambda: _model(recipe, settings, where, head))
        if recipe.model.adapter and guess:
            tried(lambda: _adapter(recipe, settings, recipe.model.adapter or ""))
    if guess and machine:
        tried(lambda: _disk(recipe, guess, outputs))
        tried(lambda: _memory(recipe, settings, guess, machine, where, head))
    if len(problems) == 1:
        raise InputError(problems[0])
    if problems:
        raise InputError("\n".join([f"{len(problems)} problems:", *(f"- {p}" for p in problems)]))
    if guess and machine:
        log.info("ready: %s, peak %s estimated on %s", recipe.name, size(guess.total), machine.name)


def _machine(name: str | None) -> Gpu:
    """What the estimate is for: the named GPU, this machine's, or its RAM."""
    if name:
        return gpus.find(name)
    if found := gpus.here():
        return found
    from train.model import choose_dtype

    return Gpu(RAM, _ram(), 0.0, "", choose_dtype(cuda=False)[0] == "bfloat16")


def _ram() -> int:
    """Bytes of RAM, or fewer where a container is limited to them."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        limit = Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii").strip()
    except OSError:
        return total
    return min(total, int(limit)) if limit.isdigit() else total


def _device(machine: Gpu | None) -> Literal["cuda", "cpu"]:
    return "cpu" if machine and machine.name == RAM else "cuda"


def _where(machine: Gpu | None, elsewhere: bool) -> dict[str, Any]:
    """Keyword arguments of the estimate that say what it is for."""
    return {
        "processes": 1 if elsewhere else max(distributed.processes(), launch.needed(), 1),
        "device": _device(machine),
        "dtype": "bfloat16" if machine is None or machine.bfloat16 else "float32",
    }


def _combinations(recipe: Recipe, machine: Gpu | None) -> None:
    """What no part of the recipe gets wrong alone."""
    sharded = recipe.training.distributed == "fsdp2"
    if sharded and recipe.tuning == "qlora":
        raise InputError(
            "training.distributed is fsdp2, but tuning is qlora, whose 4-bit weights are not "
            "sharded: set training.distributed to ddp, or tuning to lora."
        )
    if sharded and _device(machine) == "cpu" and distributed.processes() > 1:
        raise InputError(
            "training.distributed is fsdp2, which needs GPUs: set it to ddp on this machine."
        )


def _settings(recipe: Recipe) -> Any:
    """The model's configuration; `tiny`'s without making it."""
    from train import model, tiny

    if recipe.model.base == "tiny":
        settings = tiny.config(tiny.make_tokenizer())
    else:
        settings = model.load_settings(recipe.model, recipe.model.base)
    packed = model.quantisation(settings)
    if packed == "mxfp4" and recipe.tuning == "full":
        raise InputError(
            f"tuning is full, but {recipe.model.base} holds its experts in MXFP4, which only "
            "adapters can be trained on top of: set tuning to lora."
        )
    if recipe.tuning == "qlora" and settings.model_type == "gpt_oss":
        raise InputError(
            "tuning is qlora, but gpt-oss keeps most weights in experts, which are not held in 4 "
            "bits: set tuning to lora."
        )
    return settings


def _tokenizer(recipe: Recipe, settings: Any) -> Any:
    """The tokenizer with the template that the run would use."""
    from train import model, tiny

    if recipe.model.base == "tiny":
        return tiny.make_tokenizer()
    base = model.Base(
        path=recipe.model.base,
        revision=recipe.model.revision,
        model_type=settings.model_type,
        device="cpu",
        dtype="float32",
        publish="float32",
        autocast=False,
        attention="eager",
        dequantise=False,
    )
    try:
        return model.load_tokenizer(base)
    except (OSError, ValueError) as error:
        raise InputError(
            f"model.base: {recipe.model.base} has no tokenizer that can be read ({reason(error)}); "
            "the folder must hold tokenizer.json or tokenizer.model."
        ) from None


def _attention(recipe: Recipe, settings: Any, machine: Gpu | None) -> None:
    from train.attention import choose

    name, reason = choose(settings.model_type, _device(machine), recipe.model.attention)
    log.info("attention: %s (%s)", name, reason)


def _model(recipe: Recipe, settings: Any, where: dict[str, Any], head: Preview | None) -> Estimate:
    """The estimate, which needs the model with its adapter, so that its targets are matched."""
    guess = estimate(recipe, settings, tokens=head.tokens if head else None, **where)
    log.info(
        "model: %s, a %s of %s parameters, of which %s are trained (%s)",
        recipe.model.base,
        settings.model_type,
        f"{guess.parameters:,}",
        f"{guess.trainable:,}",
        recipe.tuning,
    )
    return guess


def _adapter(recipe: Recipe, settings: Any, folder: str) -> None:
    """An earlier run's adapter has the names and shapes that this model would give it."""
    import torch
    from peft import LoraConfig, get_peft_model, get_peft_model_state_dict
    from safetensors import safe_open

    from train.simulation import empty_model

    weights = Path(folder) / "adapter_model.safetensors"
    for file in (Path(folder) / "adapter_config.json", weights):
        if not file.is_file():
            raise InputError(
                f"model.adapter: {folder} has no {file.name}; give the adapter/ folder of a "
                "finished run, such as outputs/tiny-ja/latest/adapter."
            )
    with safe_open(weights, framework="pt") as stored:
        found = {name: tuple(stored.get_slice(name).get_shape()) for name in stored.keys()}  # noqa: SIM118
    bare = empty_model(settings, recipe, "bfloat16", adapted=False)
    try:
        with torch.device("meta"):
            model = get_peft_model(bare, LoraConfig.from_pretrained(folder))
        wanted = {k: tuple(v.shape) for k, v in get_peft_model_state_dict(model).items()}
    except (ValueError, TypeError) as error:
        wanted = {}
        log.debug("adapter: %s", error)
    if found != wanted:
        different = sorted(k for k in found.keys() | wanted.keys() if found.get(k) != wanted.get(k))
        name = different[0]
        raise InputError(
            f"model.adapter: {folder} does not fit {recipe.model.base}: {len(different)} of its "
            f"tensors differ, the first is {name} with {found.get(name, 'none')} instead of "
            f"{wanted.get(name, 'none')}; it must have been trained on the same base."
        )
    log.info("adapter: %s fits (%d tensors)", folder, len(found))


def _disk(recipe: Recipe, guess: Estimate, outputs: Path) -> None:
    """Room for the checkpoints that are kept side by side, and for the merged model."""
    full = recipe.tuning == "full"
    checkpoint = guess.trainable * 4 * 3  # weights and AdamW's two moments
    kept = recipe.training.keep_checkpoints + 1 + bool(recipe.evaluation.steps)
    dtype = "bfloat16" if recipe.model.dtype == "auto" else recipe.model.dtype
    merged = guess.parameters * BYTES[dtype] + (guess.trainable * 4 if full else 0)
    need = kept * checkpoint + merged
    folder = next(p for p in (outputs.absolute(), *outputs.absolute().parents) if p.is_dir())
    free = shutil.disk_usage(folder).free
    log.info(
        "disk: %s for %d checkpoints of %s and the finished model of %s; %s free at %s",
        size(need),
        kept,
        size(checkpoint),
        size(merged),
        size(free),
        outputs,
    )
    if need > free:
        raise InputError(
            f"{outputs} has {size(free)} free, but the run needs {size(need)}: free some space, or "
            "give another folder with --outputs."
        )


def _memory(
    recipe: Recipe,
    settings: Any,
    guess: Estimate,
    machine: Gpu,
    where: dict[str, Any],
    head: Preview | None,
) -> None:
    """The arithmetic; where it does not fit, the first setting that does, or a problem."""
    for line in lines(guess, machine):
        log.info("memory: %s", line)
    if fits(guess, machine.memory):
        return
    from train.proposal import propose

    tokens = head.tokens if head else None
    found = propose(recipe, settings, machine.memory, tokens=tokens, **where)
    if not found:
        raise InputError(
            f"{recipe.model.base} does not fit into {machine.name} ({size(machine.memory)}) with "
            "any setting tried (shorter packs, a smaller adapter, 4 bits): choose a larger GPU, or "
            "training.distributed=fsdp2 on several."
        )
    overrides, smaller = found
    log.warning(
        "memory: too much for %s; the first setting that fits takes %s: %s",
        machine.name,
        size(smaller.total),
        " ".join(overrides),
    )
