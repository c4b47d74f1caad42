"""Queries that the query encoder is unsure of, put to the documents' encoder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from emb.artifact.bundle import Bundle, is_bundle
from emb.errors import UsageError
from emb.runtime.encoder import Encoder
from emb.search.calibration.doubt import gap_of_share, gaps_of
from emb.search.calibration.features import DEPTH as BEST
from emb.search.calibration.searching import calibration_for
from emb.search.index.filters import Where
from emb.search.index.hits import Hit
from emb.search.index.queries import query_vector
from emb.search.index.ranking import DEPTH
from emb.search.index.reader import Index
from emb.search.sides import document_encoder
from emb.similarity import Vectors


@dataclass(frozen=True)
class Fallback:
    """The gap between the first score and the tenth below which a query goes to the encoder named `document`."""

    gap: float
    query: str
    document: str

    @classmethod
    def load(cls, model: str | Path, index: Index, share: float) -> Fallback:
        """For about a `share` of queries, by the calibration of the bundle `model`.

        Raises:
            ArtifactError: no calibration, one without gaps, or one for other encoders than the `index` has.
            UsageError: no bundle, an index of other dims, or no share.
        """
        folder = Path(model)
        if not is_bundle(folder):
            raise UsageError(
                f"--fallback: {folder} is no bundle, which alone has the documents' encoder beside that of queries",
                "join the two: emb bundle --query EXPORT --doc TEACHER",
            )
        known = Bundle.load(folder)
        gap = gap_of_share(calibration_for(index, folder).gaps, share)
        return cls(gap, known.query.name, known.document.name)

    def unsure(
        self,
        index: Index,
        vector: Vectors,
        hits: Sequence[Hit],
        k: int,
        where: Where | None = None,
        depth: int = DEPTH,
    ) -> bool:
        """Whether the best ten of all documents lie too close together; `hits` are the `k` that `where` left."""
        enough = k >= BEST and not where
        best = hits if enough else index.search_vector(vector, BEST, depth=depth)
        return bool(best) and bool(gaps_of(np.asarray([[hit.score for hit in best]]))[0] < self.gap)


def search_or_fall_back(
    index: Index,
    model: str | Path,
    text: str,
    share: float,
    *,
    k: int = 10,
    where: Where | None = None,
    depth: int = DEPTH,
) -> tuple[list[Hit], str]:
    """The `k` documents nearest to a text, and the name of the encoder that read it: the documents' one where that of
    queries is unsure, which it is of a `share` of queries. The documents' encoder is opened only then.

    Args:
        index: opened with the query encoder of `model`.
        model: the folder of a bundle with its calibration.
        text, k, where, depth: as in `Index.search`.

    Raises:
        ArtifactError: no calibration, or one for other encoders.
        UsageError: no bundle, no share, or what `Index.search` raises.
    """
    fallback = Fallback.load(model, index, share)
    assert isinstance(index.encoder, Encoder)  # a calibration fits to nothing else
    vector = query_vector(index.encoder, text)
    hits = index.search_vector(vector, k, where=where, depth=depth)
    if not fallback.unsure(index, vector, hits, k, where, depth):
        return hits, fallback.query
    again = query_vector(document_encoder(model), text)
    return index.search_vector(again, k, where=where, depth=depth), fallback.document
