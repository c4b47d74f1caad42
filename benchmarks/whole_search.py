"""A whole search by small query encoders beside the teacher's own: what it keeps of nDCG@10, and milliseconds.

Documents go through the teacher into an index for each number of dims, and for each way to keep vectors that `--stored`
names; the queries of a BEIR folder are asked of it by the teacher and by each query encoder. Times are of one query
after another, from its text to whole hits, some in a row through one encoder and then the same through the next; with
`--synthetic` also of an index of so many made-up vectors.
"""

from __future__ import annotations

import tempfile
import time
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from common import Figure, Report, Series, parser
from index_search import built, clustered

import emb
from emb.data.evaluation_sets import DEPTH, RetrievalTask, read_tasks
from emb.progress import note
from emb.search.index.candidates import faiss
from emb.search.index.ranking import DEPTH as CANDIDATES
from emb.search.index.reader import Index
from emb.search.sides import query_encoder

TEACHER = "teacher"
K = 10
MADE_UP = "binary+lvq8"
Key = tuple[str, int, str]  # who reads queries, dims (or how many vectors, where they are made up), how these are kept


def main() -> None:
    """Index, ask, write JSON."""
    options = parser(__doc__, texts=None, rounds=None)
    options.add_argument("set", help="a BEIR folder")
    options.add_argument("--doc", required=True, help="the teacher, rotated if dims are to be cut")
    options.add_argument("--query", nargs="+", action="extend", default=[], metavar="NAME=PATH", help="query encoders")
    options.add_argument("--dims", nargs="+", type=int, default=[768, 128])
    options.add_argument(
        "--stored",
        nargs="+",
        default=["float32"],
        metavar="CODEC[+RESCORE]",
        help="how vectors are kept, as `emb index` calls it; the teacher is asked where they are as the first says",
    )
    options.add_argument("--learn-cut", action="store_true", help="where dims are cut, learn how documents are")
    options.add_argument("--depth", type=int, default=CANDIDATES, help="candidates that finer vectors put in order")
    options.add_argument("--timed", type=int, default=100, help="queries that are timed")
    options.add_argument(
        "--in-a-row",
        type=int,
        default=10,
        metavar="N",
        help="queries that one encoder answers before the next: with 1, each finds the caches full of the others' data",
    )
    options.add_argument("--synthetic", type=int, default=0, help="vectors of a further index, which is only timed")
    given = options.parse_args()
    faiss().omp_set_num_threads(given.threads)
    [task] = read_tasks([given.set])
    if not isinstance(task, RetrievalTask):
        raise SystemExit(f"{given.set}: no BEIR folder")
    encoders = {TEACHER: given.doc, **dict(each.split("=", 1) for each in given.query)}
    with tempfile.TemporaryDirectory(prefix="emb-whole-") as scratch:
        indexes = opened(given, encoders, Path(scratch))
        rows = [
            {
                "queries by": name,
                "dims": dim,
                "stored": stored,
                "documents": len(index),
                "MB": index.memory / 1e6,
                "nDCG@10": ndcg(index, task, given.depth),
            }
            for (name, dim, stored), index in indexes.items()
        ]
        texts = list(task.queries.values())[: given.timed]
        note(f"timing {len(texts)} queries")
        times = timed(indexes, texts, given)
        if given.synthetic:
            made_up = synthetic(indexes, given.synthetic, max(given.dims), Path(scratch))
            times |= timed(made_up, texts, given)
    write(rows, times, given)


def opened(given: Namespace, encoders: Mapping[str, str], scratch: Path) -> dict[Key, Index]:
    """An index of the set for each number of dims and each way to keep them, opened with each encoder that has as
    many.
    """
    found = {}
    ways = [(dim, stored) for dim in given.dims for stored in given.stored]
    for dim, stored in ways:
        codec, _, finer = stored.partition("+")
        folder = scratch / f"{dim}-{stored}"
        learns = given.learn_cut and dim < max(given.dims)
        done = emb.index(
            given.set, folder, encoders[TEACHER], dim=dim, learn_cut=learns, codec=codec, rescore=finer or None
        )
        note(f"{dim} dims, {stored}: {done.quality}")
    for name, path in encoders.items():
        encoder = query_encoder(path, threads=given.threads)
        for dim, stored in ways:
            if encoder.dim >= dim and (name != TEACHER or stored == given.stored[0]):
                found[name, dim, stored] = Index(scratch / f"{dim}-{stored}", path)
                found[name, dim, stored].encoder = encoder
    return found


def synthetic(indexes: Mapping[Key, Index], count: int, dim: int, scratch: Path) -> dict[Key, Index]:
    """An index of `count` made-up vectors, bits with lvq8 behind them, for each encoder of `dim`."""
    made = built(clustered(count, 1, dim)[0], scratch / "synthetic", "lvq8")
    made.close()
    found = {}
    for (name, width, _), index in indexes.items():
        if width == dim:
            found[name, count, MADE_UP] = Index(made.folder)
            found[name, count, MADE_UP].encoder = index.encoder
    return found


def ndcg(index: Index, task: RetrievalTask, depth: int) -> float:
    """nDCG@10 × 100 of what the index finds."""
    rows = {name: row for row, name in enumerate(task.documents)}
    found = (index.search(text, DEPTH, depth=depth) for text in task.queries.values())
    return task.score_rankings([rows[hit.id] for hit in hits] for hits in found)


def timed(indexes: Mapping[Key, Index], texts: list[str], given: Namespace) -> dict[Key, list[float]]:
    """Milliseconds of each query, from its text to ten hits, by encoder, size and way to keep vectors."""
    times: dict[Key, list[float]] = {key: [] for key in indexes}
    for index in indexes.values():
        index.search(texts[0], K, depth=given.depth)  # first calls load and allocate
    for start in range(0, len(texts), given.in_a_row):
        for key, index in indexes.items():
            for text in texts[start : start + given.in_a_row]:
                began = time.perf_counter()
                index.search(text, K, depth=given.depth)
                times[key].append(1000 * (time.perf_counter() - began))
    return times


def write(rows: list[dict[str, Any]], times: Mapping[Key, list[float]], given: Namespace) -> None:
    """The table: what is kept of the teacher's own at full dim, and times beside its own."""
    whole = max((row for row in rows if row["queries by"] == TEACHER), key=lambda row: row["dims"])
    figures, series = [], []
    for row in rows:
        name, dim, stored = row["queries by"], row["dims"], row["stored"]
        kept = row["nDCG@10"] / whole["nDCG@10"]
        row |= {"kept": kept} | _times(times[name, dim, stored], times[TEACHER, dim, given.stored[0]])
        figures.append(Figure(f"{name}, {dim} dims, {stored}: nDCG@10 kept", kept, None if name == TEACHER else 0.97))
    for (name, dim, stored), each in times.items():
        series.append(Series(f"{name}, {dim}, {stored}", "ms", each))
        if dim not in given.dims:
            rows.append({"queries by": name, "documents": dim} | _times(each, times[TEACHER, dim, stored]))
    for row in rows:
        told = (f"{value:.4g}" if isinstance(value, float) else str(value) for value in row.values())
        note("  ".join(f"{key} {each}" for key, each in zip(row, told, strict=True)))
    settings = {key: value for key, value in vars(given).items() if key != "out"}
    Report("whole_search", settings, series, figures, rows).write(given.out)


def _times(own: list[float], teacher: list[float]) -> dict[str, float]:
    return {
        "p50 ms": median(own),
        "p95 ms": float(np.percentile(own, 95)),
        "times faster, p50": median(teacher) / median(own),
        "times faster, p95": float(np.percentile(teacher, 95) / np.percentile(own, 95)),
    }


if __name__ == "__main__":
    main()
