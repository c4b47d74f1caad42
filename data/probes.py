"""Texts that break encoders: what every artifact is tried on, besides ordinary text."""

from __future__ import annotations

from dataclasses import dataclass

# A model that reads 32k tokens is not tried on them: one such text would take minutes on a CPU.
LONGEST_PROBE = 2048

GROUPS = ("text", "odd", "long", "hard")

ODD: dict[str, str] = {
    "empty": "",
    "spaces": "     ",
    "line breaks and tabs": "\n\t\r\n\n",
    "one letter": "a",
    "one full stop": ".",
    "a number": "3.14159265358979",
    "the same word, many times": "again " * 90,
    "one long word": "Donaudampfschifffahrtsgesellschaftskapitänsmütze" * 3,
    "no spaces": "x" * 400,
    "capitals": "WHY IS THIS WRITTEN IN CAPITALS?",
    "Chinese": "机器学习模型把文本变成向量。",
    "Japanese": "東京の天気は明日も晴れるでしょう。",
    "Korean": "서울은 대한민국의 수도이다.",
    "Thai": "ภาษาไทยเขียนติดกันโดยไม่เว้นวรรค",
    "Arabic, right to left": "اللغة العربية تُكتب من اليمين إلى اليسار.",
    "Hebrew, right to left": "שלום עולם, מה שלומך היום?",
    "Hindi": "भारत एक विशाल देश है।",
    "Russian": "Быстрая коричневая лиса прыгает через ленивую собаку.",
    "accents, composed": "Crème brûlée à l'ancienne, Ångström, naïve",
    "accents, decomposed": "Cre\u0300me bru\u0302le\u0301e a\u0300 l'ancienne",
    "emoji": "👩‍👩‍👧‍👦🏳️‍🌈🎉 party at 🕗",
    "only emoji": "😀😃😄😁",
    "zero-width characters": "in\u200bvis\u200dible\ufeff joins\u2060",
    "control characters": "bell\x07 backspace\x08 escape\x1b[31m red\x1b[0m \x00null",
    "direction marks": "\u202eesrever\u202c forward",
    "private use and unassigned": "\ue000\ue001 \U000f0000",
    "special tokens as text": "[CLS] [SEP] [PAD] [MASK] <s> </s> <pad> <|endoftext|> <unk>",
    "code": "def f(x: int) -> int:\n    return x ** 2 if x else None  # why?",
    "markup": "<p class='a'>A &amp; B</p><script>alert(1)</script>",
    "an address": "https://example.org/a/b?c=d&e=f#g",
    "JSON": '{"a": [1, 2, {"b": null}], "c": "\\u00e9"}',
    "mathematics": "∀x∈ℝ: ∫₀^∞ e^(−x²) dx = √π⁄2",
}

# To calibrate on beside ordinary texts: without any like these, ranges fixed beforehand are far too narrow for the
# few tokens of a short text (docs/log.md). But for the empty text none is among those above.
UNUSUAL = (
    "",
    "?",
    "z",
    " \n ",
    "no " * 20,
    "z" * 47,
    "hello",
    "...",
    "12 345,67",
    "ОЧЕНЬ ВАЖНО",
    "ещё раз",
    "语言",
    "ευχαριστώ",
    "மிக்க நன்றி",
    "😂👍🏽",
    "\u200b",
    "[MASK] [SEP]",
    "<div></div>",
    "{}[]();",
    "yes, " * 200,
)


@dataclass(frozen=True)
class Sample:
    """A text to try: `kind` chooses the prompt, `group` is one of `GROUPS`; all but ordinary ones have a `name`."""

    text: str
    kind: str
    group: str = "text"
    name: str = ""


def probes(max_length: int) -> list[Sample]:
    """Odd texts and texts around and beyond `max_length` tokens, each as a query and as a document."""
    found = [Sample(text, kind, "odd", name) for name, text in ODD.items() for kind in ("query", "document")]
    return found + [
        Sample(text, kind, "long", name) for name, text in _long(max_length).items() for kind in ("query", "document")
    ]


def samples(texts: list[str]) -> list[Sample]:
    """Ordinary texts, queries and documents in turn."""
    return [Sample(text, ("document", "query")[index % 2]) for index, text in enumerate(texts)]


def _long(max_length: int) -> dict[str, str]:
    if max_length > LONGEST_PROBE:
        return {}
    # Common short words: nearly all tokenizers keep each as one token, so the length is as named.
    plain = "the cat and a dog ran to an old house by the river in rain so they sat on it"
    words = plain.split()
    text = [words[(index * 7 + index // 20) % len(words)] for index in range(3 * max_length)]
    return {
        "just below the limit": " ".join(text[: max(1, max_length - 8)]),
        "at the limit": " ".join(text[:max_length]),
        "three times the limit": " ".join(text),
    }
