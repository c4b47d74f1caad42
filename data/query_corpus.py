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
    """Queries as they are, and of each passage a few cuts in its place, all as queries.

    A translation cannot be cut along with the text it translates, so both are taken whole, as queries.
    """
    translated = {item.source_text for item in corpus.texts}
    whole = [item for item in corpus.texts if item.kind == "query" or item.source_text or item.text in translated]
    kept = set(whole)
    passages = [Document("", item.text) for item in corpus.texts if item not in kept]
    cut = [Text(each.text) for each in pseudo_queries(passages, _GENERAL, seed)]
    found = _queries([*whole, *cut])
    return checked(found, len(found), ["the texts given, as queries"])


def fitted_corpus(cut: Sequence[PseudoQuery], general: Corpus | None, *, mix: float, seed: int) -> Corpus:
    """The pseudo-queries `cut` from documents, and as many texts of `general` that they are the share `mix` of all.

    Which ones is decided by their own hashes, whatever their order; a translation goes by that of its source.
    """
    own = [Text(each.text) for each in cut]
    beside = as_queries(general, seed).texts if general and mix else []
    wanted = min(len(beside), round(len(own) * mix / (1 - mix)))
    taken = sorted(beside, key=lambda item: _rank(item.teacher_text))[:wanted]
    documents = len({each.document for each in cut})
    beside_them = f", and {len(taken):,} general texts beside them" if taken else ""
    note(f"{documents:,} documents: {len(own):,} pseudo-queries{beside_them}")
    found = _queries([*own, *taken])
    if len(found) < MIN_TEXTS:
        raise DataError(
            f"the documents given with --for: {len(own)} pseudo-queries, and {len(taken)} texts beside them; at least"
            f" {MIN_TEXTS} are needed",
            "name more documents, or train on other texts: emb distill --for-queries --data PATH",
        )
    return found


def _queries(texts: Sequence[Text]) -> Corpus:
    """Each text once, as a query; of equal ones the first."""
    seen: dict[str, Text] = {}
    for item in texts:
        seen.setdefault(item.text, Text(item.text, "query", item.source_text))
    return Corpus(list(seen.values()))


def _rank(text: str) -> bytes:
    return hashlib.blake2b(f"mix\0{text}".encode(), digest_size=16).digest()
