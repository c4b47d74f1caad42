"""Queries that nobody asked: titles, sentences, spans and keywords cut from the documents that will be searched.

Everything is drawn by a generator seeded by the document itself, so a document's cuts are the same whatever stands
beside it, but for its keywords, which are those that few documents have.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from emb.data.documents import Document

# A full stop ends a sentence where a space follows; those of Chinese and Japanese need none.
_END = re.compile(r"(?<=[.!?…])[\"'”’)\]]*\s+|(?<=[。！？])|\n+")
_WORD = re.compile(r"\w[\w'’-]*")
_UNSPACED = re.compile("[\u0e00-\u0eff\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff]")  # Thai, Lao, Khmer, kana, Han
_SHORTEST, _LONGEST = 3, 40  # words of a sentence that is a query; of a longer one its beginning
_SPAN = (3, 10)  # words
_KEYWORDS = (2, 5)
ALL = 100  # sentences: all of a document, a hundred of a book, or a fourth of them where that is more


@dataclass(frozen=True, slots=True)
class PseudoQuery:
    """A query cut from the document in row `document`; a title or a sentence is `natural`, as people might write it."""

    text: str
    document: int
    natural: bool = True


@dataclass(frozen=True)
class Cuts:
    """How many cuts a document gives besides its title and first sentence.

    Attributes:
        sentences: of a document, or a fourth of its sentences where that is more.
        spans: of a few words, each from a sentence.
        keywords: groups of words that few documents have, in the order of the text.
    """

    sentences: int = 4
    spans: int = 2
    keywords: int = 1


def pseudo_queries(documents: Sequence[Document], cuts: Cuts = Cuts(), seed: int = 0) -> list[PseudoQuery]:
    """The cuts of all documents, in order, each text once (whatever its case)."""
    told = documents if cuts.keywords else ()  # of half a million passages, counting takes as long as cutting
    spread = Counter(word for document in told for word in set(_words(document.whole)))
    seen: dict[str, PseudoQuery] = {}
    for row, document in enumerate(documents):
        for text, natural in _cut(document, cuts, spread, seed):
            seen.setdefault(text.casefold(), PseudoQuery(text, row, natural))
    return list(seen.values())


def sentences(text: str) -> list[str]:
    """Sentences of a text, each on one line; those of fewer than three words only where there are no others."""
    found = [" ".join(part.split()) for part in _END.split(text)]
    found = [part for part in found if part]
    return [part for part in found if units(part) >= _SHORTEST] or found


def _cut(document: Document, cuts: Cuts, spread: Counter[str], seed: int) -> Iterator[tuple[str, bool]]:
    """The cuts of one document, natural ones first: a text that is cut twice is what it was cut as first."""
    drawn = hashlib.blake2b(document.whole.encode(), digest_size=8).digest()
    random = np.random.default_rng([seed, int.from_bytes(drawn, "little")])
    found = sentences(document.text) or [document.title]
    if document.title:
        yield document.title, True
    yield _beginning(found[0]), True
    more = found[1:] or found
    wanted = min(len(more), max(cuts.sentences, len(more) // 4))
    for place in sorted(random.choice(len(more), wanted, replace=False)):
        yield _beginning(more[place]), True
    for _ in range(cuts.spans):
        yield _span(found[random.integers(len(found))], random), False
    words = _rarest(document.whole, spread) if cuts.keywords else []
    for _ in range(cuts.keywords if len(words) >= _KEYWORDS[0] else 0):
        yield _some(words, random), False


def _beginning(sentence: str) -> str:
    return _joined(sentence, 0, _LONGEST)


def _span(sentence: str, random: np.random.Generator) -> str:
    length = int(random.integers(_SPAN[0], _SPAN[1] + 1))
    start = int(random.integers(max(1, units(sentence) - length + 1)))
    return _joined(sentence, start, length)


def _some(words: Sequence[str], random: np.random.Generator) -> str:
    count = min(len(words), int(random.integers(_KEYWORDS[0], _KEYWORDS[1] + 1)))
    return " ".join(words[place] for place in sorted(random.choice(len(words), count, replace=False)))


def _rarest(text: str, spread: Counter[str]) -> list[str]:
    """The ten words of a text that the fewest documents have, in its order; single letters and numbers are none."""
    order = [word for word in dict.fromkeys(_words(text)) if len(word) > 2 and not word.isdigit()]
    kept = set(sorted(order, key=lambda word: spread[word])[:10])
    return [word for word in order if word in kept]


def _words(text: str) -> list[str]:
    return _WORD.findall(text.lower())


def units(text: str) -> int:
    """Words; of a script without spaces, two letters count as one."""
    return max(len(text.split()), len(text) // 2 if _unspaced(text) else 0)


def _joined(text: str, start: int, length: int) -> str:
    if _unspaced(text):
        return text[2 * start : 2 * (start + length)].strip()
    return " ".join(text.split()[start : start + length])


def _unspaced(text: str) -> bool:
    return 2 * len(_UNSPACED.findall(text)) > len(text)
