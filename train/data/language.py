"""Which language a text is in: for the reasoning that a recipe asks to be in one language.

    detect(["まず単位を確認する。", "So the answer is 36."]) -> ["ja", "en"]
    code("Japanese") -> "ja"

py3langid decides, among the languages named here; scripts that only one language has are settled
before that. Kana make a text Japanese, however many Chinese characters stand between them.
"""

import functools
import re
from collections.abc import Sequence
from typing import Any

NAMES = {
    "ar": ("Arabic", "العربية"),
    "bg": ("Bulgarian", "български"),
    "bn": ("Bengali", "বাংলা"),
    "ca": ("Catalan", "català"),
    "cs": ("Czech", "čeština"),
    "da": ("Danish", "dansk"),
    "de": ("German", "Deutsch"),
    "el": ("Greek", "ελληνικά"),
    "en": ("English",),
    "es": ("Spanish", "español", "castellano"),
    "et": ("Estonian", "eesti"),
    "fa": ("Persian", "Farsi", "فارسی"),
    "fi": ("Finnish", "suomi"),
    "fr": ("French", "français"),
    "he": ("Hebrew", "עברית"),
    "hi": ("Hindi", "हिन्दी"),
    "hr": ("Croatian", "hrvatski"),
    "hu": ("Hungarian", "magyar"),
    "id": ("Indonesian", "Bahasa Indonesia"),
    "it": ("Italian", "italiano"),
    "ja": ("Japanese", "日本語"),
    "ko": ("Korean", "한국어"),
    "lt": ("Lithuanian", "lietuvių"),
    "lv": ("Latvian", "latviešu"),
    "ms": ("Malay", "Bahasa Melayu"),
    "nl": ("Dutch", "Nederlands"),
    "no": ("Norwegian", "norsk"),
    "pl": ("Polish", "polski"),
    "pt": ("Portuguese", "português"),
    "ro": ("Romanian", "română"),
    "ru": ("Russian", "русский"),
    "sk": ("Slovak", "slovenčina"),
    "sl": ("Slovenian", "slovenščina"),
    "sr": ("Serbian", "српски"),
    "sv": ("Swedish", "svenska"),
    "sw": ("Swahili", "Kiswahili"),
    "ta": ("Tamil", "தமிழ்"),
    "te": ("Telugu", "తెలుగు"),
    "th": ("Thai", "ไทย"),
    "tr": ("Turkish", "Türkçe"),
    "uk": ("Ukrainian", "українська"),
    "ur": ("Urdu", "اردو"),
    "vi": ("Vietnamese", "tiếng Việt"),
    "zh": ("Chinese", "Mandarin", "中文", "汉语", "漢語"),
}
"""ISO 639-1 code → names that a recipe may give: in English, then in the language itself."""

READ = 2000
"""Characters of a text that are looked at."""
FEWEST_LETTERS = 12
"""Of an alphabet; below that, py3langid is wrong too often."""
FEWEST_HAN = 6
"""Chinese characters without kana: fewer may as well be one Japanese word."""
SUREST = 0.5
"""Least probability that py3langid must give."""

_KANA = re.compile(r"[\u3041-\u3096\u30a1-\u30fa\uff66-\uff9d]")
_HAN = re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff\U00020000-\U0002a6df]")
_HANGUL = re.compile(r"[\uac00-\ud7a3]")


def code(name: str) -> str | None:
    """The ISO 639-1 code of a language given by name or code; None where it is not known."""
    return _codes().get(name.strip().casefold())


def detect(texts: Sequence[str]) -> list[str]:
    """The ISO 639-1 code of each text's language; "" where it is undecided or too short."""
    return [_detect(text[:READ]) for text in texts]


def _detect(text: str) -> str:
    kana, han, hangul = (len(script.findall(text)) for script in (_KANA, _HAN, _HANGUL))
    letters = sum(map(str.isalpha, text))
    # one such character says about as much as three letters of an alphabet
    if 3 * (kana + han + hangul) > letters - kana - han - hangul:
        if hangul > kana + han:
            return "ko"
        if kana >= 2 and kana >= (kana + han) / 20:
            return "ja"
        return "zh" if han >= FEWEST_HAN and kana <= 1 else ""
    if letters < FEWEST_LETTERS:
        return ""
    language, probability = _identifier().classify(text)
    return str(language) if probability >= SUREST else ""


@functools.cache
def _codes() -> dict[str, str]:
    return {name.casefold(): key for key, names in NAMES.items() for name in (key, *names)}


@functools.cache
def _identifier() -> Any:
    from py3langid.langid import (  # type: ignore[import-untyped] # shipped without types
        MODEL_FILE,
        LanguageIdentifier,
    )

    identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    identifier.set_languages(set(NAMES) & set(identifier.labels))
    return identifier
