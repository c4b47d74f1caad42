"""What a tokenizer does to each character, asked of itself: browsers' Unicode tables differ by version."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Iterator
from typing import Any

from tokenizers import Tokenizer, models

Range = list[int]  # first and last code point
_ALL = 0x110000
_SURROGATES = range(0xD800, 0xE000)  # no text has them; the page reads each as U+FFFD
_HANGUL = range(0xAC00, 0xD7A4)
_CHUNK = 256


def characters(tokenizer: Tokenizer) -> dict[str, Any]:
    """Ranges of code points that are dropped, become a space, get a space on both sides, stand for a word of their own
    or end one; and the other characters that change, with what they become.

    Holds for a normaliser that looks at one character at a time, as BERT's does. Where it strips accents it also puts
    marks in their canonical order, which matters for two marks in a row that are left and known; no vocabulary of such
    a tokenizer has them.
    """
    state = json.loads(tokenizer.to_str())
    return _asked(json.dumps({"normalizer": state["normalizer"], "pre_tokenizer": state["pre_tokenizer"]}))


@functools.cache
def _asked(steps: str) -> dict[str, Any]:
    bare = json.loads(Tokenizer(models.WordPiece({"a": 0}, unk_token="a")).to_str())
    tokenizer = Tokenizer.from_str(json.dumps(bare | json.loads(steps)))
    return _changes(tokenizer) | _borders(tokenizer)


def _changes(tokenizer: Tokenizer) -> dict[str, Any]:
    dropped: list[int] = []
    space: list[int] = []
    apart: list[int] = []
    others: dict[int, str] = {}
    for code, became in _normalised(tokenizer):
        if became == "":
            dropped.append(code)
        elif became == " ":
            space.append(code)
        elif became == f" {chr(code)} ":
            apart.append(code)
        else:
            others[code] = became
    hangul = all(others.get(code) == _letters(code) for code in _HANGUL)
    left = {code: became for code, became in others.items() if not (hangul and code in _HANGUL)}
    if 0xFFFD in dropped:
        dropped = sorted([*dropped, *_SURROGATES])
    found = {"dropped": _ranges(dropped), "space": _ranges(space), "apart": _ranges(apart), "hangul": hangul}
    return found | {"from": "".join(map(chr, left)), "to": list(left.values())}


def _normalised(tokenizer: Tokenizer) -> Iterator[tuple[int, str]]:
    """Code points that do not stay as they are, and what becomes of them."""
    normalise = tokenizer.normalizer.normalize_str
    for codes in _chunks():
        text = "".join(map(chr, codes))
        if normalise(text) != text:
            yield from ((code, became) for code in codes if (became := normalise(chr(code))) != chr(code))


def _borders(tokenizer: Tokenizer) -> dict[str, list[Range]]:
    """What ends a word and is gone, and what stands alone."""
    cut = tokenizer.pre_tokenizer.pre_tokenize_str
    blank: list[int] = []
    punctuation: list[int] = []
    for codes in _chunks():
        if len(cut("a" + "".join(map(chr, codes)))) > 1:
            for code in codes:
                pieces = len(cut(f"a{chr(code)}a"))
                if pieces > 1:
                    (blank if pieces == 2 else punctuation).append(code)
    return {"blank": _ranges(blank), "punctuation": _ranges(punctuation)}


def _chunks() -> Iterator[list[int]]:
    for start in range(0, _ALL, _CHUNK):
        if codes := [code for code in range(start, start + _CHUNK) if code not in _SURROGATES]:
            yield codes


def _letters(code: int) -> str:
    """The letters of a Hangul syllable, Unicode section 3.12."""
    index = code - _HANGUL.start
    leading, vowel, trailing = index // 588, index % 588 // 28, index % 28
    return chr(0x1100 + leading) + chr(0x1161 + vowel) + (chr(0x11A7 + trailing) if trailing else "")


def _ranges(codes: Iterable[int]) -> list[Range]:
    found: list[Range] = []
    for code in codes:
        if found and found[-1][1] == code - 1:
            found[-1][1] = code
        else:
            found.append([code, code])
    return found
