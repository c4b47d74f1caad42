"""How far a bundle's search agrees with a search in which the large model encodes both sides."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from emb.artifact.bundle import ChoiceRecord, is_bundle
from emb.artifact.signature import is_signed
from emb.data.evaluation_sets import RetrievalTask
from emb.errors import ArtifactError, UsageError
from emb.files import write_json
from emb.progress import note
from emb.runtime.bundle_encoder import BundleEncoder
from emb.runtime.encoder import Encoder, load
from emb.search.bundling.ranking import cut, nearest, overlap
from emb.search.bundling.sample import task_of
from emb.similarity import Vectors
from emb.tokens import Cut, tell

REPORT = "agreement.json"
_TIMED = 50  # queries, one at a time


@dataclass(frozen=True)
class Search:
    """One way of searching: who encodes queries and documents, in how many dims.

    `overlap` is the share of the ten documents that the large model alone finds in all its dims which this finds too,
    in the mean over queries; `ndcg` is nDCG@10 × 100 where queries are judged.
    """

    queries: str
    documents: str
    dim: int
    overlap: float
    ndcg: float | None


@dataclass(frozen=True)
class Agreement:
    """What was found, on how many `texts`, `judged` or cut from the documents.

    `milliseconds` is the median time of one query by each encoder, `documents_per_second` what an index costs;
    `choice` is what the documents' encoder gained and lost beside the model it was made from, where it was chosen by
    measuring.
    """

    data: str
    texts: int
    documents: int
    judged: bool
    searches: Sequence[Search]
    milliseconds: dict[str, float]
    documents_per_second: float
    choice: ChoiceRecord | None = None


def validate_bundle(
    bundle: str | Path,
    data: Sequence[str | Path],
    *,
    max_texts: int = 500,
    threads: int | None = None,
    verify: bool = True,
    trust_remote_code: bool = False,
) -> Agreement:
    """Search `data` as the bundle does, and as the documents' model alone would; write `agreement.json` into it, unless
    it is signed.

    Args:
        bundle: its folder.
        data: a BEIR folder, whose queries and judgements are used; or documents, from which queries are cut.
        max_texts: how many queries are cut, and documents read, where they are not judged.
        threads: to compute with; None for all.
        verify: hold both encoders against their fingerprints.
        trust_remote_code: let a model's repository run code of its own.

    Raises:
        ArtifactError: no bundle, or one of its encoders is missing or has changed.
        UsageError: no data.
    """
    folder = Path(bundle)
    if not is_bundle(folder):
        raise ArtifactError(f"{folder}: no bundle", "make one: emb bundle --query EXPORT --doc MODEL")
    if not data:
        raise UsageError("a bundle is tried on documents", "add --data PATH: a BEIR folder, or documents")
    encoder = load(folder, threads=threads, verify=verify, trust_remote_code=trust_remote_code)
    assert isinstance(encoder, BundleEncoder)
    found = _agreement(encoder, task_of([str(each) for each in data], max_texts))
    if is_signed(folder):
        note(f"{folder}: signed, so {REPORT} is not written into it")
    else:
        write_json(folder / REPORT, dataclasses.asdict(found))
    return found


def _agreement(encoder: BundleEncoder, task: RetrievalTask) -> Agreement:
    queries, documents = task.sides
    small, large = encoder.query, encoder.document
    index, seconds = _indexed(large, documents, encoder.bundle.document.name)
    asked = {each: each.encode(queries, kind="query") for each in (large, small)}
    names = {large: encoder.bundle.document.name, small: encoder.bundle.query.name}
    truth = nearest(asked[large], index, encoder.similarity_fn_name)

    def search(by: Encoder, dim: int) -> Search:
        left, right = (cut(vectors, dim, encoder.normalize) for vectors in (asked[by], index))
        found = nearest(left, right, encoder.similarity_fn_name)
        judged = task.score(left, right, encoder.similarity_fn_name) if task.relevant else None
        return Search(names[by], names[large], dim, overlap(truth, found), judged)

    ways = dict.fromkeys([(large, large.dim), (large, encoder.dim), (small, encoder.dim)])
    return Agreement(
        task.name,
        len(queries),
        len(documents),
        bool(task.relevant),
        [search(*way) for way in ways],
        {names[each]: _milliseconds(each, queries) for each in (small, large)},
        len(documents) / seconds,
        encoder.bundle.choice,
    )


def _indexed(large: Encoder, documents: Sequence[str], name: str) -> tuple[Vectors, float]:
    """Vectors of the documents, and the seconds that they took."""
    cuts: list[Cut] = []
    note(f"{name}: {len(documents):,} documents")
    begun = time.perf_counter()
    vectors = large.encode(documents, kind="document", show_progress_bar=True, count=cuts.append)
    seconds = time.perf_counter() - begun
    tell(cuts[0], name)
    return vectors, seconds


def _milliseconds(encoder: Encoder, queries: Sequence[str]) -> float:
    """The median time of one query, from text to vector."""
    times = []
    for text in [queries[0], *queries[:_TIMED]]:
        begun = time.perf_counter()
        encoder.encode([text], kind="query")
        times.append(1000 * (time.perf_counter() - begun))
    return float(np.median(times[1:]))  # the first one warms up
