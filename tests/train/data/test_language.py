import json
from pathlib import Path

import pytest

from train.data.language import NAMES, code, detect

ROOT = Path(__file__).parents[3]

REASONING = {
    "ja": ["国の都市だ。首都はシドニーではない。", "まず単位を確認する。", "GPUのメモリを調べる。"],
    "en": [
        "Let me check the units first.",
        "The capital is Canberra, not Sydney.",
        "日本 is Japan.",
    ],
    "es": ["Primero hay que comprobar las unidades.", "Entonces la respuesta es 36."],
    "fr": ["Vérifions d'abord les unités.", "L'utilisateur pose une question sur les trains."],
    "it": ["Per prima cosa controlliamo le unità.", "Quindi la risposta è 36."],
    "de": ["Zuerst prüfen wir die Einheiten.", "Der Nutzer fragt nach Zügen."],
    "zh": ["首先检查单位。", "首都是堪培拉，不是悉尼。"],
    "ko": ["먼저 단위를 확인한다.", "사용자는 기차에 대해 묻는다."],
}


@pytest.mark.parametrize("language", REASONING)
def test_short_reasoning_is_told_apart(language: str) -> None:
    assert detect(REASONING[language][:2]) == [language] * 2


def test_a_word_of_another_script_does_not_decide() -> None:
    assert detect(["GPUのメモリを調べる。", "The word 日本 means Japan in English."]) == [
        "ja",
        "en",
    ]


@pytest.mark.parametrize("text", ["", "36", "ok", "12 × 3 = 36", "東京都"])
def test_too_little_to_go_by_is_undecided(text: str) -> None:
    assert detect([text]) == [""]


def test_the_samples_own_reasoning_is_japanese() -> None:
    lines = (ROOT / "data/japanese_reasoning.jsonl").read_text(encoding="utf-8").splitlines()
    answers = [json.loads(line)["answer"] for line in lines]
    assert set(detect([a.partition("</think>")[0][len("<think>") :] for a in answers])) == {"ja"}


def test_a_language_is_known_by_its_names_and_its_code() -> None:
    names = ["Japanese", "日本語", "ja", " JAPANESE ", "español", "Klingon"]
    assert [code(name) for name in names] == ["ja", "ja", "ja", "ja", "es", None]


def test_every_named_language_can_be_detected() -> None:
    from train.data.language import _identifier

    assert set(NAMES) <= set(_identifier().labels)
