"""Whether the teacher reads the language of the documents at all."""

from __future__ import annotations

from collections.abc import Sequence

from emb.data.documents import Document
from emb.data.pseudo_queries import units
from emb.distill.preparation import Prepared
from emb.distill.retention import ENOUGH, found_again
from emb.model.embedding_model import EmbeddingModel
from emb.progress import warn

_SHARDS = 2.0  # tokens a word: English in an English tokenizer has 1.2, German 2.2, Russian 5.8
_UNKNOWN = 0.02  # of all tokens
_DOCUMENTS = 300


def warn_of_shards(model: EmbeddingModel, given: Prepared) -> None:
    """Warn where the tokenizer of `model`, which is the teacher's, breaks the documents into shards, or does not know
    their letters; and say how well the teacher itself finds what was cut from them.
    """
    documents = given.documents[:: max(1, len(given.documents) // _DOCUMENTS)]
    if not documents:
        return
    shards, unknown = _shards(model, documents)
    if shards <= _SHARDS and unknown <= _UNKNOWN:
        return
    unread = f", {unknown:.0%} of them unknown" if unknown > _UNKNOWN else ""
    warn(
        f"the teacher reads these documents in shards ({shards:.1f} tokens a word{unread}): it may not know their"
        f" language, and a student knows no more{_agreement(given)}"
    )


def _shards(model: EmbeddingModel, documents: Sequence[Document]) -> tuple[float, float]:
    """Tokens a word, of a script without spaces those of two letters, and the share of unknown ones."""
    tokenizer = model.tokenizer().cut_at(1 << 30)
    rows = tokenizer.encode([each.whole for each in documents])
    special = set(model.hf_tokenizer.all_special_ids) - {model.hf_tokenizer.unk_token_id}
    tokens = [token for row in rows for token in row if token not in special]
    unknown = sum(token == model.hf_tokenizer.unk_token_id for token in tokens)
    words = sum(units(each.whole) for each in documents)
    return len(tokens) / max(words, 1), unknown / max(len(tokens), 1)


def _agreement(given: Prepared) -> str:
    search = given.search
    if search is None or len(search.rows) < ENOUGH:
        return ""
    found = found_again(given.targets.held_out.take(search.rows), search.documents, search.sources)
    return f"; of pseudo-queries it finds the document itself with nDCG@10 {found:.2f}"
