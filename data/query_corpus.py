"""The texts a query encoder is trained on: questions nobody asked of the documents that will be searched, and general
ones beside them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from emb.data.corpus import MIN_TEXTS, Corpus, Text, checked
from emb.data.documents import Document
from emb.data.pseudo_queries import Cuts, PseudoQuery, pseudo_queries
from emb.errors import DataError
from emb.progress import note

# Of passages that only stand in for queries: the first sentence, another, a span.
_GENERAL = Cuts(sentences=1, spans=1, keywords=0)


def as_queries(corpus: Corpus, seed: int) -> Corpus:
    """Queries as they are, and of each passage a few cuts in its place, all as queries."""
    asked = [item.text for item in corpus.texts if item.kind == "query"]
    passages = [Document("", item.text) for item in corpus.texts if item.kind != "query"]
    cut = [each.text for each in pseudo_queries(passages, _GENERAL, seed)]
    found = Corpus([Text(text, "query") for text in dict.fromkeys([*asked, *cut])])
    return checked(found, len(found), ["the texts given, as queries"])


def fitted_corpus(cut: Sequence[PseudoQuery], general: Corpus | None, *, mix: float, seed: int) -> Corpus:
    """The pseudo-queries `cut` from documents, and as many texts of `general` that they are the share `mix` of all.

    Which ones is decided by their own hashes, whatever their order.
    """
    own = [each.text for each in cut]
    beside = as_queries(general, seed).texts if general and mix else []
    wanted = min(len(beside), round(len(own) * mix / (1 - mix)))
    taken = sorted((item.text for item in beside), key=_rank)[:wanted]
    documents = len({each.document for each in cut})
    note(f"{documents:,} documents: {len(own):,} pseudo-queries, and {len(taken):,} general texts beside them")
    found = Corpus([Text(text, "query") for text in dict.fromkeys([*own, *taken])])
    if len(found) < MIN_TEXTS:
        raise DataError(
            f"the documents given with --for: {len(own)} pseudo-queries, and {len(taken)} texts beside them; at least"
            f" {MIN_TEXTS} are needed",
            "name more documents, or train on other texts: emb distill --for-queries --data PATH",
        )
    return found


def _rank(text: str) -> bytes:
    return hashlib.blake2b(f"mix\0{text}".encode(), digest_size=16).digest()
