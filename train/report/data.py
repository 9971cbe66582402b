"""The dataset report (train/data/report.py) as cards of the page."""

from collections.abc import Mapping
from typing import Any

from train.report import charts

FIGURES = (
    ("rows", "Rows", "{:,}"),
    ("with_thinking", "Rows with reasoning", "{:,}"),
    ("bad", "Bad rows", "{:,}"),
    ("duplicates", "Rows that repeat another", "{:,}"),
    ("tokens", "Tokens", "{:,}"),
    ("trained_share", "Tokens that are learned", "{:.1%}"),
    ("longest", "Tokens of the longest row", "{:,}"),
    ("truncated", "Rows cut at max_length", "{:,}"),
    ("fully_masked", "Rows with nothing to learn", "{:,}"),
)


def cards(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Title, figures (text and value) and picture of each part that the report has."""
    found = []
    for name in ("train", "validation"):
        part = report.get(name) or {}
        title, tokens = name.capitalize(), part.get("tokens") or {}
        every = {**part, **tokens}
        found.append(_card(title, [(t, f.format(every[k])) for k, t, f in FIGURES if k in every]))
        length = tokens.get("length") or {"counts": []}
        if any(length["counts"]):
            svg = charts.bars(length["edges"], length["counts"], f"{title}: rows by tokens")
            found.append(_card(f"{title}: rows by tokens", [], svg))
        found += [
            _counts(f"{title}: {kind}", part.get(kind) or {}) for kind in ("defects", "notices")
        ]
    if leakage := report.get("leakage"):
        of = f"of {leakage['of']:,}"
        figures = [
            ("Their prompt is in training", f"{leakage['prompts']:,} {of}"),
            ("The very row is in training", f"{leakage['rows']:,} {of}"),
        ]
        found.append(_card("Validation rows seen in training", figures))
    if language := report.get("language"):
        share = language["share"]
        asked = (f"In {language['asked']}", "not known" if share is None else f"{share:.1%}")
        found.append(_card("Language of the reasoning", [asked]))
        found[-1]["figures"] += _counts("", language["found"])["figures"]
    return [card for card in found if card["figures"] or card["svg"]]


def _card(title: str, figures: list[tuple[str, str]], svg: str = "") -> dict[str, Any]:
    return {"title": title, "figures": figures, "svg": svg}


def _counts(title: str, counts: Mapping[str, int]) -> dict[str, Any]:
    return _card(title, [(text, f"{count:,}") for text, count in counts.items()])
