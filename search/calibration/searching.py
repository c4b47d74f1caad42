"""An index searched for what is relevant, not for what is nearest."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from emb.artifact.bundle import is_bundle
from emb.artifact.fingerprints import weights_hash
from emb.errors import UsageError
from emb.search.calibration.apply import Calibration, relevant_hits
from emb.search.calibration.features import DEPTH as BEST
from emb.search.index.filters import Where
from emb.search.index.hits import Hit
from emb.search.index.queries import query_vector
from emb.search.index.ranking import DEPTH
from emb.search.index.reader import Index
from emb.search.sides import document_folder


def search_relevant(
    index: Index,
    model: str | Path,
    text: str,
    min_relevance: float,
    *,
    k: int = 10,
    where: Where | None = None,
    depth: int = DEPTH,
) -> list[tuple[Hit, float]]:
    """The `k` documents nearest to a text whose relevance is `min_relevance` or more, each with its relevance.

    How relevant a hit is depends on how the query's best ten scores lie: among all documents, whatever `where` leaves.

    Args:
        index: opened with a query encoder.
        model: the folder of that, a bundle or an export, with its calibration inside.
        text, k, where, depth: as in `Index.search`.

    Raises:
        ArtifactError: no calibration, or one for other encoders.
        UsageError: an index of other dims, no share of 1, or what `Index.search` raises.
    """
    calibration = calibration_for(index, model)
    if index.encoder is None:
        raise UsageError("this index was opened without a query encoder", "name one with --query")
    vector = query_vector(index.encoder, text)
    best = index.search_vector(vector, BEST, depth=depth)
    hits = index.search_vector(vector, k, where=where, depth=depth)
    pool = list({hit.id: hit.score for hit in [*best, *hits]}.items())
    relevance = calibration.relevance(vector[None], np.asarray([[score for _, score in pool]]))[0]
    of_id = dict(zip((name for name, _ in pool), relevance, strict=True))
    return relevant_hits(hits, np.asarray([of_id[hit.id] for hit in hits]), min_relevance)


def calibration_for(index: Index, model: str | Path) -> Calibration:
    """The calibration in the folder `model`, held against the `index` that is searched.

    Raises:
        ArtifactError: no calibration, or one for other encoders.
        UsageError: an index of other dims, one that learned how documents are cut, or one that is on its way to another
            encoder.
    """
    calibration, known = Calibration.load(model), index.description
    if index.mapped:
        raise UsageError(
            f"{index.mapped:,} documents are searched through a map to {known.encoder.name}, and relevance was fitted"
            " to scores of its own vectors",
            "let `emb migrate` move all of them, and finish it",
        )
    if not _indexed_by(Path(model), known.encoder.fingerprint):
        calibration.require(calibration.query.fingerprint, known.encoder.fingerprint)
    if known.layout.learn_cut:
        raise UsageError(
            "the index's documents are cut in a way of their own (--learn-cut), and relevance was fitted to scores of"
            " both sides cut alike",
            "search without --min-relevance, or in an index without --learn-cut",
        )
    if known.space.dim != calibration.dim:
        raise UsageError(
            f"the index keeps {known.space.dim} dims, and relevance was fitted to scores of {calibration.dim}",
            "index with as many dims as the query encoder has",
        )
    return calibration


def _indexed_by(model: Path, fingerprint: str) -> bool:
    """Whether the documents' encoder of a bundle made an index, which notes the hash of the whole folder, of an export
    too; the calibration names the file that is used.
    """
    return is_bundle(model) and weights_hash(document_folder(model)) == fingerprint
