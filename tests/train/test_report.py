import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from train import report
from train.report import charts
from train.report.charts import Series
from train.report.data import cards

VOID = {"meta", "line", "polyline", "circle", "br"}
SVG_PAINTED = {"line", "polyline", "circle", "rect", "text"}
HISTORY = [
    {"step": 1, "loss": 5.9, "learning_rate": 1e-4, "grad_norm": 1.0, "memory_bytes": 7e8},
    {"step": 10, "loss": 4.0, "learning_rate": 2e-4, "grad_norm": 2.0, "tokens_per_second": 1200.0},
    {"step": 10, "eval_loss": 4.2},
    {"step": 10, "train_runtime": 9.0},
]
MEASURED = {
    "rows": 2,
    "loss": 6.7,
    "perplexity": 812.4,
    "exact_answers": 0,
    "reasoning_in_language": None,
    "samples": [
        {
            "prompt": [{"role": "user", "content": "首都は？"}],
            "truth": "東京です。",
            "thinking": "考える",
            "answer": "大阪\x00です。",
        }
    ],
}


class Page(HTMLParser):
    """Tags that do not close, ids that repeat, and whatever would be loaded."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.wrong: list[str] = []
        self.loaded: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in VOID:
            self.open.append(tag)
        names = [name for name, _ in attrs]
        if len(names) != len(set(names)):
            self.wrong.append(f"<{tag}> repeats an attribute")
        if tag in SVG_PAINTED and "svg" not in self.open:
            self.wrong.append(f"<{tag}> outside of <svg>")
        self.loaded += [f"{n}={v}" for n, v in attrs if n in ("src", "href", "srcset", "action")]

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.wrong.append(f"</{tag}> closes nothing")


def put(folder: Path, name: str, value: Any) -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "tiny-ja" / "20260101-120000-ab12"
    put(folder, "history.json", HISTORY)
    put(folder, "before.json", MEASURED)
    put(folder, "after.json", {**MEASURED, "loss": 4.1, "exact_answers": 1})
    put(folder, "data/report.json", {"train": {"rows": 3, "defects": {"no <think>": 2}}})
    put(folder, "metrics.json", {"recipe": "tiny-ja", "versions": {"torch": "2.13.0"}})
    (folder / "recipe.yaml").write_text("name: tiny-ja\n", encoding="utf-8")
    return folder


def html(folder: Path) -> str:
    return report.write(folder).read_text(encoding="utf-8")


def test_the_page_is_well_formed_and_loads_nothing(run: Path) -> None:
    text = html(run)
    page = Page(text)
    assert not page.wrong
    assert not page.open
    assert not page.loaded
    assert {"script", "link", "img", "iframe"}.isdisjoint(page.tags)
    assert "://" not in text
    assert "url(" not in text
    assert "@import" not in text
    assert page.tags.count("svg") == 5


def test_what_stands_in_rows_or_recipe_is_text_and_never_markup(run: Path) -> None:
    attack = "</pre><script>alert('行')</script>"
    sample = {
        "prompt": [{"role": attack, "content": attack}],
        "truth": attack,
        "thinking": attack,
        "answer": attack,
    }
    put(run, "before.json", {**MEASURED, "samples": [sample]})
    put(run, "after.json", {**MEASURED, "samples": [sample]})
    put(run, "data/report.json", {"train": {"defects": {attack: 1}, "notices": {attack: 2}}})
    put(run, "metrics.json", {"recipe": attack, "versions": {attack: attack}})
    (run / "recipe.yaml").write_text(attack, encoding="utf-8")
    text = html(run)
    assert "<script" not in text.lower()
    assert text.count("&lt;script&gt;") >= 12
    assert not Page(text).wrong


def test_before_and_after_stand_side_by_side_with_what_became_better(run: Path) -> None:
    text = html(run)
    assert text.index("4.1000") < text.index("before 6.7000")
    assert "1 of 2" in text
    assert '<span class="better">better</span>' in text
    assert "worse</span>" not in text
    assert text.count("考える") == 2
    assert "大阪\ufffdです。" in text  # a control character would make the page invalid
    assert '<article class="card sample" lang="ja">' in text


@pytest.mark.parametrize(
    "file", ["history.json", "before.json", "after.json", "data/report.json", "recipe.yaml"]
)
def test_a_run_without_one_of_its_files_still_has_a_page(run: Path, file: str) -> None:
    (run / file).unlink()
    assert not Page(html(run)).wrong


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    text = html(tmp_path)
    for file in ("history.json", "data/report.json", "before.json", "recipe.yaml", "metrics.json"):
        assert f"has no {file}" in text
    assert not Page(text).wrong
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]  # and no .part


def test_a_run_of_preference_pairs_shows_its_own_measures(run: Path) -> None:
    pairs = {"pairs": 20, "preferred_share": 0.4, "margin": -1.5}
    put(run, "before.json", pairs)
    put(run, "after.json", {**pairs, "preferred_share": 0.9, "margin": 3.25})
    text = html(run)
    assert "On 20 pairs" in text
    assert "90.0%" in text
    assert "+3.250" in text


def test_the_checks_of_the_run_are_shown_with_their_figures() -> None:
    found = report.checks(
        {
            "training": {"checks": {"packing": {"difference": 3.1e-7}}},
            "merge": {"difference": 5.7e-6, "tolerance": 0.001, "dtype": "float32"},
        }
    )
    assert [value for _, value in found] == [
        "difference 3.1e-07 of their spread",
        "difference 5.7e-06 of their spread, allowed 0.001 (float32)",
    ]


def test_the_dataset_report_becomes_cards_of_what_it_has() -> None:
    found = cards(
        {
            "train": {
                "rows": 1200,
                "duplicates": 3,
                "duplicates_exact": True,
                "defects": {"no </think>": 2},
                "tokens": {
                    "tokens": 90000,
                    "trained_share": 0.527,
                    "length": {"edges": [64, 128], "counts": [1200]},
                },
            },
            "leakage": {"prompts": 2, "rows": 1, "of": 24},
            "language": {"asked": "Japanese", "share": 0.9, "found": {"ja": 9, "en": 1}},
        }
    )
    assert [card["title"] for card in found] == [
        "Train",
        "Train: rows by tokens",
        "Train: defects",
        "Validation rows seen in training",
        "Language of the reasoning",
    ]
    assert ("Tokens that are learned", "52.7%") in found[0]["figures"]
    assert ("no </think>", "2") in found[2]["figures"]
    assert ("Their prompt is in training", "2 of 24") in found[3]["figures"]
    assert found[4]["figures"] == [("In Japanese", "90.0%"), ("ja", "9"), ("en", "1")]
    assert cards({}) == []


def test_a_loss_that_is_no_number_leaves_a_gap_and_no_broken_picture() -> None:
    svg = charts.lines([Series("loss", [(1, 5.0), (2, float("nan")), (3, 4.0)])], "Loss")
    assert svg.count(",") == 2
    assert "nan" not in svg
    assert charts.lines([Series("loss", [(1, float("inf"))])], "Loss") == ""


def test_one_point_is_a_dot_in_the_middle() -> None:
    svg = charts.lines([Series("loss", [(1, 5.0)]), Series("validation", [])], "Loss")
    assert '<circle class="s1" cx="200.0"' in svg


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (4.1, 6.8, [4, 5, 6, 7]),
        (0.0, 2e-4, [0, 5e-5, 1e-4, 1.5e-4, 2e-4]),
        (3, 3, [1, 2, 3, 4, 5]),
        (0, 0, [-1, -0.5, 0, 0.5, 1]),
    ],
)
def test_ticks_are_round_and_enclose_the_values(
    low: float, high: float, expected: list[float]
) -> None:
    assert charts.ticks(low, high, 4) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("value", "step", "largest", "expected"),
    [(1200, 200, 1400, "1,200"), (0.25, 0.05, 0.3, "0.25"), (2e-4, 5e-5, 2e-4, "2e-4")],
)
def test_labels_have_the_digits_that_their_axis_needs(
    value: float, step: float, largest: float, expected: str
) -> None:
    assert charts.label(value, step, largest) == expected


def test_a_histogram_names_its_bins() -> None:
    svg = charts.bars([0, 64, 128], [0, 3], "Lengths")
    assert "<title>64 to 128: 3</title>" in svg
    assert ">0.5<" not in svg  # half a row
