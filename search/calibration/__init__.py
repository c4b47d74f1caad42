"""From similarity to relevance: a map, fitted to judged pairs, that makes one threshold right for every query.

Cosines of two queries cannot be compared: 0.4 is a perfect match of one and noise for another. The map takes the query
into account, as the Cosine Adapter does (Rossi et al. 2024, "Relevance Filtering for Embedding-based Retrieval",
arXiv 2408.04887), and is monotone for each query: no order of hits changes.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from emb.errors import needs_extra

if TYPE_CHECKING:
    from emb.search.calibration.apply import Calibration


def calibrate(
    model: str | Path,
    data: str | Path | Sequence[str | Path],
    doc: str | Path | None = None,
    *,
    split: str | None = None,
    max_queries: int = 500,
    max_documents: int = 10_000,
    seed: int = 0,
    threads: int | None = None,
    trust_remote_code: bool = False,
) -> Calibration:
    """Fit the relevance of a query encoder's similarities, and write `calibration.json` into its folder.

    Args:
        model: a bundle, or the folder of a query encoder.
        data: a BEIR folder, whose judgements are used; or documents, from which queries are cut and judged by the
            documents' model.
        doc: the encoder of documents, where `model` is no bundle; None for the teacher that it names.
        split: of the BEIR folder's judgements; None for "test".
        max_queries, max_documents: how many are cut and read where there are no judgements.
        seed: of what is drawn where there are no judgements.
        threads: to compute with; None for all.
        trust_remote_code: let a model's repository run code of its own.

    Returns:
        The calibration, whose `figures` come from queries that the maps they judge were not fitted to.

    Raises:
        UsageError: no documents' model, or a split of documents without judgements.
        ArtifactError: the two encoders do not share a space.
        DataError: too few queries find a relevant document.
    """
    with needs_extra():
        from emb.search.calibration.run import run

    sources = [data] if isinstance(data, str | Path) else list(data)
    options = {"threads": threads, "trust_remote_code": trust_remote_code}
    return run(
        Path(model),
        [str(each) for each in sources],
        None if doc is None else str(doc),
        split=split,
        most=(max_queries, max_documents),
        seed=seed,
        **options,
    )
