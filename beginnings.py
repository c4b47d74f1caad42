"""Where a long text may be cut before it is tokenised, so that the tokens that are read come out the same.

Only where that can be said of every text: the tokenizer splits there whatever stands before and behind, and each piece
becomes tokens on its own. Tokenizers whose parts are not known to do that, and those that read the end of a text, get
whole texts.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from tokenizers import Tokenizer

# Between a word and the single space behind it: no normaliser below changes these three, or looks across them.
_WORDS = re.compile("[0-9A-Za-z](?= [0-9A-Za-z])")
# BERT also takes every ideograph and every sign of ASCII for a piece of its own.
_PIECES = "[!-/:-@\\[-`{-~\u4e00-\u9fff]"
_BERT = re.compile(f"{_WORDS.pattern}|{_PIECES}(?={_PIECES})")

_MODELS = ("WordPiece", "BPE", "Unigram", "WordLevel")
# Character by character, by what belongs to one letter, or at the ends of a text.
_NORMALIZERS = {
    *("BertNormalizer", "Lowercase", "Nmt", "Precompiled", "Prepend", "Strip", "StripAccents"),
    *("NFC", "NFD", "NFKC", "NFKD"),
}
_SPLITTING = ("BertPreTokenizer", "Whitespace", "WhitespaceSplit")
_HARMLESS = ("Digits", "Punctuation")
# Of GPT-2, Qwen and Llama 3: none of their pieces goes on from a letter or a digit over a space.
_PATTERNS = {
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    *(
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|" + digits + r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
        r"|\s+(?!\S)|\s+"
        for digits in (r"\p{N}", r"\p{N}{1,3}")
    ),
}


class Beginnings:
    """The beginnings of texts that a tokenizer, which cuts on the right, may be given for the whole."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._at = _places(tokenizer)

    def of(self, text: str, characters: int) -> str:
        """At least so many `characters` of a text, up to the next place where it may be cut; all where there is none.

        Its tokens are the first ones of the text's, whole words all of them.
        """
        if self._at is None or len(text) <= characters:
            return text
        found = self._at.search(text, max(0, characters - 1))
        return text[: found.end()] if found else text


def _places(tokenizer: Tokenizer) -> re.Pattern[str] | None:
    """What stands before a cut; None where no cut is known to be safe."""
    try:
        normalizers, splits = _parts(tokenizer.normalizer), _parts(tokenizer.pre_tokenizer)
    except Exception:  # a part that is written in Python has no description
        return None
    if not (all(map(_is_local, normalizers)) and _splits(splits) and _is_each_alone(tokenizer.model)):
        return None
    bert = [each["type"] for each in splits] == ["BertPreTokenizer"] and [
        (each["type"], each.get("handle_chinese_chars")) for each in normalizers
    ] == [("BertNormalizer", True)]
    added = [token.content for token in tokenizer.get_added_tokens_decoder().values()]
    return next((each for each in ((_BERT, _WORDS) if bert else (_WORDS,)) if not _is_inside(each, added)), None)


def _is_inside(place: re.Pattern[str], added: list[str]) -> bool:
    """Whether a token that is looked for in the text as it stands may reach over a cut."""
    return any(place.search(f"a{content}a") for content in added)


def _parts(component: Any) -> list[dict[str, Any]]:
    return [] if component is None else list(_flat(json.loads(component.__getstate__())))


def _flat(state: dict[str, Any]) -> Iterator[dict[str, Any]]:
    if state["type"] != "Sequence":
        yield state
    for each in state.get("normalizers", state.get("pretokenizers", ())) if state["type"] == "Sequence" else ():
        yield from _flat(each)


def _is_local(normalizer: dict[str, Any]) -> bool:
    if normalizer["type"] == "Replace":
        pattern = normalizer["pattern"]
        literal = pattern.get("String")
        return pattern == {"Regex": " {2,}"} or (literal is not None and not re.search(r"[\s0-9A-Za-z]", literal))
    return normalizer["type"] in _NORMALIZERS


def _splits(pre_tokenizers: list[dict[str, Any]]) -> bool:
    """Whether one of them splits at the place, and the others leave it alone."""
    known = [_splits_there(each) for each in pre_tokenizers]
    return any(known) and None not in known


def _splits_there(part: dict[str, Any]) -> bool | None:
    """Whether it does; None where that is not known."""
    kind = part["type"]
    if kind == "Split":
        whole = part["pattern"].get("Regex") in _PATTERNS and part["behavior"] == "Isolated" and not part["invert"]
        return True if whole else None
    if kind == "ByteLevel":
        return bool(part.get("use_regex", True))
    if kind == "Metaspace":
        return True if part.get("split", True) and part.get("replacement") == "▁" else None
    return True if kind in _SPLITTING else False if kind in _HARMLESS else None


def _is_each_alone(model: Any) -> bool:
    """Whether pieces become tokens on their own, the same ones each time."""
    return type(model).__name__ in _MODELS and not getattr(model, "dropout", None)
