"""The embedded base model: gpt-oss architecture at a few million parameters, made from scratch.

    base = ensure(Path(".cache"))      # a folder that transformers loads like any other model

It exists so that the whole path, from rows to an answer over HTTP, runs on a laptop in minutes and
without a download: sliding and full attention in turn, attention sinks, routed experts, a
byte-level BPE tokenizer with the Harmony special tokens, the real Harmony template. A short
full-parameter warm-up on data/general_japanese.txt gives it the shape of Japanese text, which is
what lets LoRA learn on top. It knows no facts, and is no base for real work.

Sizes suit serving engines: head size 64, vocabulary a multiple of 64. The same sources and library
versions give the same weights on the same processor; when either changes, the cache gets a new
folder.
"""

import hashlib
import importlib.metadata
import json
import logging
import random
import shutil
import time
import uuid
from pathlib import Path
from typing import Any

from train.chat_template import harmony
from train.errors import InputError

log = logging.getLogger(__name__)

DATA = Path(__file__).parent.parent / "data"
WARMUP_TEXT = "general_japanese.txt"
TOKENIZER_TEXTS = (
    WARMUP_TEXT,
    "japanese_reasoning.jsonl",
    "chat_messages.jsonl",
    "dialogue_summary.jsonl",
    "azure_openai_chat.jsonl",
    "preference_pairs.jsonl",
)

SPECIAL_TOKENS = (
    "<|startoftext|>",
    "<|endoftext|>",
    "<|return|>",
    "<|constrain|>",
    "<|channel|>",
    "<|start|>",
    "<|end|>",
    "<|message|>",
    "<|call|>",
)
"""Harmony's control tokens, as the gpt-oss tokenizer names them."""
CONTROL = {
    "bos_token": "<|startoftext|>",
    "eos_token": "<|return|>",
    "pad_token": "<|endoftext|>",
}

TEMPLATE_WORDS = (
    "You are ChatGPT, a large language model trained by OpenAI.\nKnowledge cutoff: 2024-06\n",
    "Current date: 2026-01-01\n\nReasoning: medium\n\n",
    "# Valid channels: analysis, commentary, final. Channel must be included for every message.",
    "# Instructions\n\nreasoning language: Japanese\n\n",
    *("analysis", "commentary", "final", "system", "developer", "user", "assistant"),
)

VOCABULARY = 4096
CONTEXT = 4096
WARMUP_STEPS = 330
REPEATS = 24
"""Documents in a batch of repeated lines."""
CHATS = 16
"""Documents in a batch of conversations; every third batch is one."""
SALAD_WORDS = 16
LEARNING_RATE = 3e-3


def ensure(cache: Path) -> Path:
    """Folder of the base model below `cache`, made if it is not there yet (about a minute)."""
    folder = cache / f"tiny-{_key()}"
    if (folder / "config.json").is_file():
        log.info("base model: %s (made before)", folder)
        return folder
    # no process id, which two containers may share
    part = folder.with_name(f"{folder.name}.part-{uuid.uuid4().hex[:8]}")
    log.info("base model: making %s from scratch; this happens once", folder)
    started = time.monotonic()
    try:
        _make(part)
        try:
            part.rename(folder)
        except OSError:
            if not folder.is_dir():  # else another run was first, with the same content
                raise
    finally:
        shutil.rmtree(part, ignore_errors=True)
    log.info("base model: made in %.0f s", time.monotonic() - started)
    return folder


def _key() -> str:
    digest = hashlib.sha256(Path(__file__).read_bytes())
    digest.update(harmony().encode())
    for name in TOKENIZER_TEXTS:
        try:
            digest.update((DATA / name).read_bytes())
        except FileNotFoundError:
            raise InputError(
                f"{DATA / name} is missing; the embedded model is made from it: "
                f"git checkout -- data/{name}"
            ) from None
    for package in ("torch", "transformers", "tokenizers"):
        digest.update(importlib.metadata.version(package).encode())
    return digest.hexdigest()[:12]


def _make(folder: Path) -> None:
    import torch
    from transformers import GptOssForCausalLM

    tokenizer = make_tokenizer()
    state = torch.random.get_rng_state()
    deterministic = torch.are_deterministic_algorithms_enabled()
    try:
        torch.manual_seed(0)
        # else the gradient of routed experts is summed in whatever order the threads come
        torch.use_deterministic_algorithms(True)
        model = GptOssForCausalLM(config(tokenizer))
        warm_up(model, tokenizer)
    finally:
        torch.random.set_rng_state(state)
        torch.use_deterministic_algorithms(deterministic)
    model.generation_config.eos_token_id = [
        tokenizer.convert_tokens_to_ids(t) for t in ("<|return|>", "<|call|>", "<|endoftext|>")
    ]
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def make_tokenizer() -> Any:
    """Byte-level BPE over the samples, with the Harmony special tokens and template."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        max_token_length=24,  # bytes: eight Japanese characters, so that no sentence is one token
        show_progress=False,
    )
    texts = [text for name in TOKENIZER_TEXTS for text in _texts(name)]
    # the fixed text around every conversation, often enough that its words become single tokens
    texts += TEMPLATE_WORDS * 500
    bpe.train_from_iterator(texts, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        **CONTROL,
        model_max_length=CONTEXT,
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = harmony()
    return tokenizer


def _texts(name: str) -> list[str]:
    """The lines of a text file; of a JSONL file the strings inside, as they read after decoding."""
    lines = (DATA / name).read_text(encoding="utf-8").splitlines()
    if not name.endswith(".jsonl"):
        return lines
    texts: list[str] = []
    pending: list[Any] = [json.loads(line) for line in lines]
    while pending:
        value = pending.pop()
        if isinstance(value, str):
            texts.append(value)
        elif isinstance(value, dict):
            pending.extend(value.values())
        elif isinstance(value, list):
            pending.extend(value)
    return texts


def config(tokenizer: Any) -> Any:
    """GptOssConfig of the embedded model: about 6 million parameters."""
    from transformers import GptOssConfig

    return GptOssConfig(
        vocab_size=VOCABULARY,
        hidden_size=256,
        intermediate_size=128,
        head_dim=64,
        num_attention_heads=4,
        num_key_value_heads=2,
        num_hidden_layers=4,
        num_local_experts=4,
        num_experts_per_tok=2,
        sliding_window=128,
        initializer_range=0.06,  # 1 / sqrt(hidden size), so that a frozen head can be sure
        max_position_embeddings=CONTEXT,
        rope_parameters={"rope_type": "default", "rope_theta": 150000.0},
        router_aux_loss_coef=0.9,  # as in the released gpt-oss config; training must override it
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        dtype="float32",
    )


def warm_up(model: Any, tokenizer: Any) -> None:
    """Teach every weight to look things up, and then the shape of a conversation.

    Some documents say a line twice, general text or a random choice of words: to predict the second
    half the model must find its place in the first, which is what reading a question takes. Others
    are Harmony conversations whose answer repeats the question after some random words of
    reasoning. No document answers a question.
    """
    import torch

    lines = _texts(WARMUP_TEXT)
    words = [
        tokenizer.decode(token)
        for name in TOKENIZER_TEXTS
        for text in _texts(name)
        for token in tokenizer.encode(text)
    ]
    draw = random.Random(0)  # noqa: S311 - the same base model every time, no secret
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.95), fused=True
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=LEARNING_RATE, total_steps=WARMUP_STEPS, pct_start=0.1
    )

    def salad() -> str:
        return "".join(draw.choices(words, k=SALAD_WORDS))

    def batch(step: int) -> Any:
        if step % 3 != 2:
            texts = [draw.choice(lines) if draw.random() < 0.5 else salad() for _ in range(REPEATS)]
            return tokenizer([text + text for text in texts], padding=True, return_tensors="pt")
        chats = []
        for _ in range(CHATS):
            question = draw.choice(lines) if draw.random() < 0.5 else salad()
            answer = {"role": "assistant", "content": question, "thinking": salad()}
            system = {"role": "system", "content": "reasoning language: Japanese"}
            chats.append([system, {"role": "user", "content": question}, answer])
        return tokenizer.apply_chat_template(
            chats, return_dict=True, padding=True, return_tensors="pt", current_date="2026-01-01"
        )

    model.train()
    for step in range(WARMUP_STEPS):
        inputs = batch(step)
        labels = inputs["input_ids"].masked_fill(inputs["attention_mask"] == 0, -100)
        loss = model(**inputs, labels=labels, output_router_logits=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        if (step + 1) % 33 == 0:
            log.info(
                "base model: warm-up step %d/%d, loss %.3f", step + 1, WARMUP_STEPS, loss.item()
            )
    model.eval()
