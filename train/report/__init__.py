"""One page about a run, for people: what changed, the curves, the data, answers side by side.

    write(Path("outputs/tiny-ja/20260101-120000-ab12"), metrics)  -> …/report.html

It is one HTML file without scripts that loads nothing from anywhere: it can be mailed, opened from
a job's outputs, and printed. Everything in it comes from files of the run's folder; what is missing
there is missing here too, and the page says so.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from train.report import charts
from train.report.charts import Series
from train.report.data import cards
from train.runs import read_json, write_text

PAGE = Path(__file__).with_name("page.html.jinja")
GIGABYTE = 1e9
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ufffe\uffff]")
"""Characters that no HTML page may hold; models do write them."""
KANA = re.compile(r"[\u3040-\u30ff]")

CURVES = (
    ("Loss", "nats per token", {"training": "loss", "validation": "eval_loss"}, 1.0),
    ("Learning rate", "", {"learning rate": "learning_rate"}, 1.0),
    ("Gradient norm", "before clipping", {"gradient norm": "grad_norm"}, 1.0),
    ("Speed", "tokens per second", {"tokens per second": "tokens_per_second"}, 1.0),
    ("Memory", "peak so far, GB", {"memory": "memory_bytes"}, GIGABYTE),
)
"""Title, unit, lines with their keys in the history, and what to divide by."""

MEASURES = (
    ("Loss, nats per answer token", "loss", "{:.4f}", -1),
    ("Perplexity", "perplexity", "{:,.2f}", -1),
    ("Exact answers", "exact_answers", "{} of {rows}", 1),
    ("Answers that contain the truth", "contains_answers", "{} of {rows}", 1),
    ("Answers that reason", "reasoning_share", "{:.1%}", 0),
    ("Reasoning in the asked language", "reasoning_in_language", "{:.1%}", 1),
    ("Pairs the right way round", "preferred_share", "{:.1%}", 1),
    ("Mean margin of a pair, nats", "margin", "{:+.3f}", 1),
    ("Pairs whose margin has grown", "learned_share", "{:.1%}", 1),
)
"""Text, key in before.json and after.json, format, and whether more is better (1) or worse (-1)."""
HEADLINE = ("loss", "perplexity", "exact_answers", "reasoning_in_language", "preferred_share")


def write(folder: Path, metrics: Mapping[str, Any] | None = None) -> Path:
    """Write `folder/report.html` and return it; `metrics` where metrics.json is not there yet."""
    import jinja2

    metrics = metrics or read_json(folder / "metrics.json") or {}
    before = read_json(folder / "before.json") or metrics.get("before") or {}
    after = read_json(folder / "after.json") or metrics.get("after") or {}
    measures = compare(before, after)
    recipe = folder / "recipe.yaml"
    page = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    ).from_string(PAGE.read_text(encoding="utf-8"))
    html = page.render(
        name=metrics.get("recipe") or folder.resolve().parent.name,
        run=folder.resolve().name,
        basis=basis(after or before),
        headline=[m for m in measures if m["key"] in HEADLINE],
        measures=measures,
        curves=curves(read_json(folder / "history.json") or []),
        data=cards(read_json(folder / "data" / "report.json") or {}),
        samples=samples(before, after),
        training=facts(metrics.get("training") or {}),
        checks=checks(metrics),
        versions=metrics.get("versions") or {},
        recipe=recipe.read_text(encoding="utf-8") if recipe.is_file() else None,
    )
    report = folder / "report.html"
    write_text(report, CONTROL.sub("\ufffd", html))
    return report


def basis(measured: Mapping[str, Any]) -> str:
    """What the measures were taken on, such as "64 rows"."""
    return next((f"{measured[k]:,} {k}" for k in ("rows", "pairs") if k in measured), "")


def compare(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The measures that either side has, as text, and whether they became better."""
    found = []
    for text, key, form, direction in MEASURES:
        sides = (before, after)
        values = [side.get(key) for side in sides]
        was, now = values
        if was is None and now is None:
            continue
        change = 0 if was is None or now is None else (now - was) * direction
        texts = [
            "–" if value is None else form.format(value, rows=side.get("rows"))
            for value, side in zip(values, sides, strict=True)
        ]
        found.append(
            {
                "text": text,
                "key": key,
                "before": texts[0],
                "after": texts[1],
                "verdict": "better" if change > 0 else "worse" if change < 0 else "",
            }
        )
    return found


def curves(history: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The charts of what the trainer logged; one that has no point is left out."""
    found = []
    for title, unit, keys, divisor in CURVES:
        series = [
            Series(name, [(e["step"], e[key] / divisor) for e in history if key in e])
            for name, key in keys.items()
        ]
        series = [s for s in series if s.points]
        if svg := charts.lines(series, f"{title} by step"):
            names = [s.name for s in series] if len(keys) > 1 else []
            found.append({"title": title, "unit": unit, "names": names, "svg": svg})
    return found


def samples(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The same prompts answered before and after."""
    sides = [side.get("samples") or [] for side in (before, after)]
    found = []
    for i in range(max(map(len, sides))):
        answers = [
            (when, side[i])
            for when, side in zip(("Before", "After"), sides, strict=True)
            if i < len(side)
        ]
        first = answers[0][1]
        texts = [first["truth"], *(m["content"] for m in first["prompt"])]
        found.append(
            {
                "prompt": first["prompt"],
                "truth": first["truth"],
                "answers": answers,
                # Chinese and Japanese share code points; the language chooses the glyphs
                "language": "ja" if any(KANA.search(text) for text in texts) else None,
            }
        )
    return found


def facts(training: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What the training took."""
    lines = (
        ("Steps", "steps", "{:,}", 1),
        ("Kept step", "kept_step", "{:,}", 1),
        ("Trained parameters", "trainable_parameters", "{:,}", 1),
        ("Tokens", "tokens", "{:,}", 1),
        ("Minutes", "seconds", "{:,.1f}", 60),
        ("Peak memory", "peak_memory_bytes", "{:,.1f} GB", GIGABYTE),
    )
    return [
        (text, form.format(training[key] / divisor if divisor != 1 else training[key]))
        for text, key, form, divisor in lines
        if training.get(key) is not None
    ]


def checks(metrics: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The run's checks of itself; a run that fails one has no report."""
    found = []
    packing = ((metrics.get("training") or {}).get("checks") or {}).get("packing")
    if packing:
        found.append(
            (
                "Packed rows give the logits of rows apart",
                f"difference {packing['difference']:.2g} of their spread",
            )
        )
    if merge := metrics.get("merge"):
        found.append(
            (
                "The saved model gives the logits of the trained one",
                f"difference {merge['difference']:.2g} of their spread, allowed "
                f"{merge['tolerance']:.2g} ({merge['dtype']})",
            )
        )
        if "sample_tokens" in merge:
            found.append(
                ("It gives the same greedy answer", f"over {merge['sample_tokens']} tokens")
            )
    return found
