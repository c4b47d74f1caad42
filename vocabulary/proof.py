"""Proof that a model with another vocabulary is still that model; what is not proven is not written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from emb.data.probes import ODD
from emb.errors import GateFailed
from emb.model.embedding_model import EmbeddingModel
from emb.similarity import cosines, neighbour_overlap
from emb.vocabulary.reading import Reading, read
from emb.vocabulary.tokenizer_json import TokenizerJson
from emb.vocabulary.usage import covered

TOLERANCE = 1e-6  # of any component of a vector, where the tokens are the same
_FUZZ = 2000  # texts of random letters
_BLOCKS = ((0x20, 0x250), (0x370, 0x600), (0x900, 0xE80), (0x1E00, 0x2100), (0x3040, 0x3100), (0x4E00, 0x9FFF),
           (0xAC00, 0xD7A3), (0x1F300, 0x1F650), (0x1, 0x10FFFF))  # fmt: skip


@dataclass(frozen=True)
class TrimProof:
    """What a trim was found to keep on held-out texts.

    Attributes:
        texts: how many were read.
        covered: the share that has kept tokens alone; those encode the same, id by id.
        max_abs_diff: largest difference of any component of the vectors of covered texts.
        cosine, min_cosine: of all texts' vectors before and after.
        overlap: share of the ten nearest neighbours that both agree on.
        length_ratio: tokens after by tokens before.
    """

    texts: int
    covered: float
    max_abs_diff: float
    cosine: float
    min_cosine: float
    overlap: float
    length_ratio: float


def prove_trim(before: Reading, model: EmbeddingModel, kept: Sequence[int]) -> TrimProof:
    """Compare `model`, which has the tokens with former ids `kept` now, with what it was.

    Raises:
        GateFailed: a covered text encodes otherwise, or its vector differs.
    """
    after = read(model, before.texts)
    same = covered(before.rows, kept)
    new = np.full(max(kept) + 1, -1)
    new[list(kept)] = np.arange(len(kept))
    for place in np.flatnonzero(same).tolist():
        if not np.array_equal(new[before.rows[place]], after.rows[place]):
            raise GateFailed(
                f"after the trim a text of kept tokens encodes otherwise: {before.texts[place].text[:80]!r}",
                "keep more (--keep-coverage 1), and report it: this must not happen",
            )
    apart = float(np.abs(before.vectors[same] - after.vectors[same]).max(initial=0.0))
    if not apart <= TOLERANCE:
        raise GateFailed(f"after the trim the vectors of covered texts differ by {apart:.1e}", "report it")
    cosine = cosines(before.vectors, after.vectors)
    return TrimProof(
        len(before.texts),
        float(same.mean()),
        apart,
        float(cosine.mean()),
        float(cosine.min()),
        neighbour_overlap(before.vectors, after.vectors, 10),
        after.tokens / max(1, before.tokens),
    )


@dataclass(frozen=True)
class ExtensionProof:
    """What an extension was found to give on held-out texts; the figures are as in `TrimProof`.

    `reached` is the share of texts that have a new token.
    """

    texts: int
    reached: float
    cosine: float
    min_cosine: float
    overlap: float
    length_ratio: float


def prove_extension(before: Reading, model: EmbeddingModel, new_ids: range, least: float) -> ExtensionProof:
    """Compare `model`, whose tokens `new_ids` are new, with what it was.

    Raises:
        GateFailed: texts have not become shorter, or their mean cosine is below `least`; or one without new tokens
            has another vector.
    """
    after = read(model, before.texts)
    new = np.asarray([bool(np.any(row >= new_ids.start)) for row in after.rows])
    apart = float(np.abs(before.vectors[~new] - after.vectors[~new]).max(initial=0.0))
    if not apart <= TOLERANCE:
        raise GateFailed(
            f"after the extension the vectors of texts without new tokens differ by {apart:.1e}", "report it"
        )
    cosine = cosines(before.vectors, after.vectors)
    proof = ExtensionProof(
        len(before.texts),
        float(new.mean()),
        float(cosine.mean()),
        float(cosine.min()),
        neighbour_overlap(before.vectors, after.vectors, 10),
        after.tokens / max(1, before.tokens),
    )
    if not proof.cosine >= least:
        raise GateFailed(
            f"with the new tokens the mean cosine to the vectors without is {proof.cosine:.4f}, below {least}",
            "add fewer tokens, give more --data, train longer (--set epochs=10), or lower --min-cosine",
        )
    if not proof.length_ratio < 1:
        raise GateFailed("with the new tokens held-out texts are no shorter", "give --data like the texts to come")
    return proof


def prove_readable(before: TokenizerJson, after: TokenizerJson, seed: int = 0) -> int:
    """Try both tokenizers on odd texts and on random letters of many scripts; how many were tried.

    Raises:
        GateFailed: one has more unknown tokens than it had.
    """
    texts = [*ODD.values(), *_random_texts(seed)]
    old, new = before.tokenizer(), after.tokenizer()
    for text in texts:
        was, now = (
            sum(index == source.unknown for index in tokenizer.encode(text, add_special_tokens=False).ids)
            for source, tokenizer in ((before, old), (after, new))
        )
        if now > was:
            raise GateFailed(
                f"{text[:40]!r} has {now} unknown tokens, where it had {was}", "keep more: --keep-coverage 1"
            )
    return len(texts)


def prove_special(before: TokenizerJson, after: TokenizerJson) -> None:
    """Hold that added tokens are read as such, and stand where the post-processor puts them.

    Raises:
        GateFailed: one is not.
    """
    old, new = before.tokenizer(), after.tokenizer()
    for text in ["a", *before.added]:
        was, now = old.encode(text).tokens, new.encode(text).tokens
        if was != now and set(was) <= set(after.pieces) | set(after.added):
            raise GateFailed(f"special token in {text!r}: read as {now}, and was {was}", "report it")


def _random_texts(seed: int) -> list[str]:
    random = np.random.default_rng(seed)
    return [_random_text(random, *_BLOCKS[number % len(_BLOCKS)]) for number in range(_FUZZ)]


def _random_text(random: np.random.Generator, first: int, last: int) -> str:
    points = random.integers(first, last, int(random.integers(1, 24)))
    letters = (chr(point) for point in points if not 0xD800 <= point < 0xE000)
    return "".join(letter + " " * int(random.random() < 0.15) for letter in letters)
