"""How well a vocabulary fits texts, before anything is changed: what it costs, what of it is used, how texts break."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from emb.data.corpus import Text
from emb.data.pseudo_queries import units
from emb.model.embedding_model import EmbeddingModel
from emb.tokens import Ids
from emb.vocabulary.surgery import fixed_ids, table_of, tokenizer_json
from emb.vocabulary.tokenizer_json import TokenizerJson
from emb.vocabulary.trim import covering, scripts_of, trim

COVERAGES = (0.99, 0.995, 0.999, 0.9995, 0.9999, 1.0)
_LONGER = 1.01  # held-out texts may become so much longer by the setting that is suggested
_SHARDS = 2.0  # tokens a word: English in an English tokenizer has 1.2, German 2.2
_READ = 20_000  # texts of a source or script are read for its figures, spread over it
_CURVE = 60  # points of the coverage curve


@dataclass(frozen=True)
class Part:
    """Texts of one source or one script: how many, and of 20,000 of them how many `words`, their `fertility` in tokens
    a word, and the share of unknown tokens.
    """

    name: str
    texts: int
    words: int
    fertility: float
    unknown: float


@dataclass(frozen=True)
class Setting:
    """What keeping the tokens that cover so much of the texts would leave.

    `rows` of the table, `parameters` of the whole model; `length_ratio` is tokens after by tokens before on held-out
    texts, `same` the share of these that encode identically.
    """

    coverage: float
    rows: int
    parameters: int
    length_ratio: float
    same: float


@dataclass(frozen=True)
class Profile:
    """A vocabulary beside texts.

    Attributes:
        kind: WordPiece, BPE or Unigram.
        tokens, rows, hidden: ids of the tokenizer, rows of the table and their width.
        parameters: of the whole model; `share` is the table's, and about its share of an int8 file too.
        used: tokens that the texts have at all.
        curve: pairs of a number of tokens, the most frequent first, and the share of occurrences that they cover.
        sources, scripts: the texts by where they come from, and at most 20,000 of them by the script of most letters.
        settings: what trimming would leave; `suggested` is the coverage of the smallest that costs held-out texts at
            most 1 % more tokens.
        shattered: whether texts fall into so many pieces that new tokens would help.
    """

    kind: str
    tokens: int
    rows: int
    hidden: int
    parameters: int
    share: float
    used: int
    curve: Sequence[tuple[int, float]]
    sources: Sequence[Part]
    scripts: Sequence[Part]
    settings: Sequence[Setting]
    suggested: float
    shattered: bool


def profile(
    model: EmbeddingModel, train: Mapping[str, Sequence[Text]], held_out: Sequence[Text], counts: Ids
) -> Profile:
    """Measure the vocabulary of `model` on texts by source, whose tokens have these `counts`, and on held-out ones."""
    source, texts = tokenizer_json(model), [text for each in train.values() for text in each]
    table = table_of(model)
    parameters = sum(each.numel() for each in model.parameters())
    settings = [_setting(model, source, counts, coverage, held_out) for coverage in COVERAGES]
    sources = [_part(name, source, each) for name, each in train.items()]
    fitting = [each for each in settings if each.length_ratio <= _LONGER] or settings[-1:]
    return Profile(
        source.kind,
        len(source.tokens),
        len(table),
        table.shape[1],
        parameters,
        table.numel() / parameters,
        int(np.count_nonzero(counts)),
        _curve(counts, source),
        sources,
        [_part(name, source, each) for name, each in _by_script(texts).items()],
        settings,
        fitting[0].coverage,
        any(each.fertility > _SHARDS for each in sources),
    )


def _setting(
    model: EmbeddingModel, source: TokenizerJson, counts: Ids, coverage: float, held_out: Sequence[Text]
) -> Setting:
    trimmed = trim(source, covering(counts, coverage, source.pieces.values()), fixed_ids(model))
    old, new = source.tokenizer(), trimmed.tokenizer.tokenizer()
    texts = [each.text for each in held_out]
    before, after = (each.encode_batch_fast(texts, add_special_tokens=False) for each in (old, new))
    ids = trimmed.id_map
    same = sum([ids.get(i) for i in a.ids] == b.ids for a, b in zip(before, after, strict=True))
    table = table_of(model)
    gone = (len(table) - len(trimmed.kept)) * table.shape[1]
    tokens = [sum(len(each.ids) for each in found) for found in (before, after)]
    return Setting(
        coverage,
        len(trimmed.kept),
        sum(each.numel() for each in model.parameters()) - gone,
        tokens[1] / max(1, tokens[0]),
        same / len(texts),
    )


def _part(name: str, source: TokenizerJson, texts: Sequence[Text]) -> Part:
    count, texts = len(texts), texts[:: max(1, len(texts) // _READ)]
    found = source.tokenizer().encode_batch_fast([each.text for each in texts], add_special_tokens=False)
    tokens = sum(len(each.ids) for each in found)
    unknown = sum(each.ids.count(source.unknown) for each in found) if source.unknown is not None else 0
    words = sum(units(each.text) for each in texts)
    return Part(name, count, words, tokens / max(1, words), unknown / max(1, tokens))


def _by_script(texts: Sequence[Text]) -> dict[str, list[Text]]:
    found: dict[str, list[Text]] = {}
    for each in texts[:: max(1, len(texts) // _READ)]:
        letters = Counter(next(iter(scripts_of(letter))) for letter in each.text if letter.isalpha())
        name = letters.most_common(1)[0][0].title() if letters else "none"
        found.setdefault(name, []).append(each)
    return dict(sorted(found.items(), key=lambda item: -len(item[1])))


def _curve(counts: Ids, source: TokenizerJson) -> list[tuple[int, float]]:
    found = np.sort(counts[sorted(source.pieces.values())])[::-1]
    reached = np.cumsum(found) / max(1, found.sum())
    places = np.unique(np.geomspace(1, len(found), _CURVE).astype(int))
    return [(int(place), float(reached[place - 1])) for place in places]
