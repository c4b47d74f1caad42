"""Texts made from a model itself: the tokens whose rows are largest, its special tokens, the scripts of its vocabulary.

Written texts are tame: one row of a token table may be a thousand times as long as the others (attention sinks are),
and no list of texts holds the token. What 16 or 8 bits make of it shows only on a text in which it occurs.
"""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

import numpy as np

from emb.data.probes import Sample
from emb.similarity import Vectors
from emb.tokens import TextTokenizer

HARD = "hard"  # the group of such samples
_LARGEST = 6  # texts of rows of largest norm
_SOUGHT = 100  # rows looked at for them: not every token can be reached by a text
_SPECIAL = 6  # texts that hold all special tokens
_SCRIPTS = 10  # texts, of the scripts with most tokens
_LETTERS = 8  # tokens in a text of one script
_KINDS = ("document", "query")


def hard_samples(tokenizer: TextTokenizer, norms: Vectors) -> list[Sample]:
    """At most 22 texts, documents and queries in turn, of the group "hard".

    Args:
        tokenizer: of the model; special tokens in a text are taken for what they name, as always.
        norms: the length of each row of the token table, `(rows,)`; there may be more rows than tokens.
    """
    pieces = tokenizer.tokenizer.decode_batch([[token] for token in range(len(norms))], skip_special_tokens=False)
    order = [int(token) for token in np.argsort(-norms, kind="stable")]
    named = [
        *islice(_largest(tokenizer, pieces, order), _LARGEST),
        *_special(tokenizer, len(norms)),
        *_scripts(pieces, order),
    ]
    return [Sample(text, _KINDS[index % 2], HARD, name) for index, (name, text) in enumerate(named)]


def row_norms(model: Any) -> Vectors:
    """The length `(rows,)` of each row of the token table of `model`, a torch module somewhere in which transformers'
    own encoder lies; none if there is none.
    """
    for module in model.modules():
        if hasattr(module, "get_input_embeddings"):
            return np.asarray(module.get_input_embeddings().weight.detach().float().norm(dim=1).cpu().numpy())
    return np.zeros(0, np.float32)


def _largest(tokenizer: TextTokenizer, pieces: Sequence[str], order: Sequence[int]) -> Iterator[tuple[str, str]]:
    """Texts in which the tokens of largest rows occur, largest first; one in the middle of a word stands behind a
    letter.
    """
    for token in order[:_SOUGHT]:
        stem = tokenizer.tokenizer.encode("a", add_special_tokens=False).ids
        ways = dict.fromkeys([pieces[token], tokenizer.tokenizer.decode([*stem, token], skip_special_tokens=False)])
        texts = [way for way in ways if way.strip()]
        rows = tokenizer.encode(texts)
        found = next((text for text, row in zip(texts, rows, strict=True) if token in row), None)
        if found is not None:
            yield f"the row of token {token}", found


def _special(tokenizer: TextTokenizer, rows: int) -> list[tuple[str, str]]:
    """Every special token that has a row, as text, each alone where they are few; transformers adds tokens for masking
    that have none.
    """
    tokens = [
        token.content
        for index, token in tokenizer.tokenizer.get_added_tokens_decoder().items()
        if token.special and index < rows
    ]
    size = max(1, -(-len(tokens) // _SPECIAL))
    return [("special tokens", " ".join(tokens[start : start + size])) for start in range(0, len(tokens), size)]


def _scripts(pieces: Sequence[str], order: Sequence[int]) -> list[tuple[str, str]]:
    """One text per script of the vocabulary, of those of its tokens whose rows are largest."""
    found: dict[str, list[str]] = defaultdict(list)
    for token in order:
        letter = next((each for each in pieces[token] if each.isalpha()), None)
        if letter is not None:
            found[unicodedata.name(letter, "UNNAMED").split()[0]].append(pieces[token])
    most = sorted(found.items(), key=lambda each: -len(each[1]))[:_SCRIPTS]
    return [(f"letters called {script.lower()}", " ".join(tokens[:_LETTERS])) for script, tokens in most]
