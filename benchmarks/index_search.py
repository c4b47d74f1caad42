"""Two-stage search of `emb index` (bits in memory, finer vectors on the disk) beside faiss: recall, memory, time.

Vectors are synthetic: clusters whose dims have a falling spread, as those of embedding models have; queries lie near
their vectors and are none of them. Everything is built and asked in one process, the queries in turns: one query
through each contender, then the next.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from common import Figure, Report, Series, parser

from emb.progress import note
from emb.quantize.vectors.rescoring import DEPTH
from emb.runtime.encoder import Encoder
from emb.search.index.candidates import faiss
from emb.search.index.description import EncoderRecord
from emb.search.index.reader import Index
from emb.search.index.run import Choices, index_with
from emb.similarity import Vectors, unit
from emb.tokens import Cut, Ids, TextTokenizer

K = 10
OURS = "emb binary → {}"
# In faiss's words; 100 candidates a result are put in order by int8 in memory, as ours are by what lies on the disk.
FACTORIES = {"faiss flat": "Flat", "faiss HNSW32": "HNSW32,Flat", "faiss RaBitQ": "RaBitQ"}
REFINED = "faiss RaBitQ → int8"
_EFFORT = 128  # of HNSW's search
_CENTRES, _SPREAD = 1000, 0.7


class Numbered(Encoder):
    """The vector of a text that is a number: that row."""

    def __init__(self, vectors: Vectors) -> None:
        from tokenizers import Tokenizer, models

        tokenizer = TextTokenizer(Tokenizer(models.WordLevel({"[UNK]": 0}, unk_token="[UNK]")), max_length=8, pad_id=0)
        super().__init__(tokenizer, dim=vectors.shape[1], prompts={}, normalize=True)
        self.vectors = vectors

    def encode(self, texts: Any, *, count: Callable[[Cut], None] | None = None, **options: Any) -> Any:
        """Rows by their numbers."""
        return self.vectors[[int(text) for text in texts]]

    def run(self, input_ids: Ids, attention_mask: Ids) -> Vectors:
        """Not called."""
        raise AssertionError("encode() makes the vectors")


def main() -> None:
    """Build, ask, write JSON."""
    options = parser(__doc__, texts=None, rounds=None)
    options.add_argument("--vectors", type=int, default=5000, help="how many are indexed")
    options.add_argument("--queries", type=int, default=200)
    options.add_argument("--dim", type=int, default=768)
    options.add_argument("--depth", type=int, default=10 * DEPTH, help="candidates that finer vectors put in order")
    options.add_argument(
        "--rescore", nargs="+", default=["lvq8", "int8", "float16"], help="codecs of the finer vectors"
    )
    options.add_argument("--without", nargs="+", default=[], help="contenders to leave out: HNSW takes long to build")
    given = options.parse_args()
    faiss().omp_set_num_threads(given.threads)
    vectors, queries = clustered(given.vectors, given.queries, given.dim)
    with tempfile.TemporaryDirectory(prefix="emb-index-") as scratch:
        searches: dict[str, Callable[[Vectors], list[int]]] = {}
        memory, seconds = {}, {}
        for rescore in given.rescore:
            began, name = time.perf_counter(), OURS.format(rescore)
            index = built(vectors, Path(scratch, rescore), rescore)
            seconds[name], memory[name] = time.perf_counter() - began, index.memory
            searches[name] = partial(found_by, index, given.depth)
        for name, structure in contenders(vectors, given.depth, set(given.without), seconds):
            searches[name] = partial(nearest, structure)
            memory[name] = faiss().serialize_index(structure).nbytes
        report(measured(searches, queries), memory, seconds, vars(given)).write(given.out)


def clustered(count: int, queries: int, dim: int) -> tuple[Vectors, Vectors]:
    """Unit vectors `(count, dim)` in clusters, and unit queries `(queries, dim)` near some of them."""
    random = np.random.default_rng(0)
    spread = np.geomspace(1, 0.1, dim).astype(np.float32)
    centres = random.standard_normal((_CENTRES, dim), np.float32) * spread
    vectors = np.empty((count, dim), np.float32)
    for start in range(0, count, 50_000):
        rows = vectors[start : start + 50_000]
        noise = random.standard_normal(rows.shape, np.float32) * spread
        rows[:] = unit(centres[random.integers(0, _CENTRES, len(rows))] + _SPREAD * noise)
    near = vectors[random.integers(0, count, queries)]
    noise = random.standard_normal(near.shape, np.float32) * spread / np.linalg.norm(spread)
    return vectors, unit(near + 0.5 * noise)


def built(vectors: Vectors, folder: Path, rescore: str) -> Index:
    """`emb index` of the vectors, opened."""
    folder.mkdir()
    source = folder / "docs.jsonl"
    with source.open("w", encoding="utf-8") as handle:
        handle.writelines(json.dumps({"id": str(row), "text": str(row)}) + "\n" for row in range(len(vectors)))
    encoder = Numbered(vectors)
    record = EncoderRecord("numbers", "numbers", ["numbers"], encoder.dim, True, "cosine", {}, encoder.max_length)
    choices = Choices([str(source)], layout={"codec": "binary", "rescore": rescore})
    done = index_with(folder / "index", choices, encoder, record)
    note(f"{OURS.format(rescore)}: {done.quality}")
    return Index(folder / "index")


def contenders(vectors: Vectors, depth: int, without: set[str], seconds: dict[str, float]) -> Any:
    """Each index of faiss by its name, built."""
    lib = faiss()
    factories = {**FACTORIES, REFINED: "RaBitQ,Refine(SQ8)"}
    for name, factory in factories.items():
        if name in without:
            continue
        note(f"building {name}")
        began = time.perf_counter()
        structure = lib.index_factory(vectors.shape[1], factory, lib.METRIC_INNER_PRODUCT)
        structure.train(vectors[:50_000])
        structure.add(vectors)
        if "HNSW" in factory:
            structure.hnsw.efSearch = _EFFORT
        if name == REFINED:
            structure.k_factor = depth / K
        seconds[name] = time.perf_counter() - began
        yield name, structure


def found_by(index: Index, depth: int, query: Vectors) -> list[int]:
    """Rows that ours finds, each as a whole hit with its text."""
    return [int(hit.id) for hit in index.search_vector(query, K, depth=depth)]


def nearest(structure: Any, query: Vectors) -> list[int]:
    """Rows that an index of faiss finds."""
    rows: list[int] = structure.search(query[None], K)[1][0].tolist()
    return rows


def measured(
    searches: Mapping[str, Callable[[Vectors], list[int]]], queries: Vectors
) -> dict[str, tuple[list[float], list[list[int]]]]:
    """Milliseconds and results of every query, by contender."""
    found: dict[str, tuple[list[float], list[list[int]]]] = {name: ([], []) for name in searches}
    for search in searches.values():
        search(queries[0])  # first calls load and allocate
    for query in queries:
        for name, search in searches.items():
            began = time.perf_counter()
            rows = search(query)
            found[name][0].append(1000 * (time.perf_counter() - began))
            found[name][1].append(rows)
    return found


def report(
    found: Mapping[str, tuple[list[float], list[list[int]]]],
    memory: Mapping[str, int],
    seconds: Mapping[str, float],
    settings: Mapping[str, Any],
) -> Report:
    """The table: recall of what `faiss flat` finds, memory and times as shares of its own."""
    flat = found["faiss flat"]
    rows = [
        {
            "contender": name,
            "recall@10": recall(flat[1], results),
            "memory of float32": memory[name] / memory["faiss flat"],
            "p50 of flat": median(times) / median(flat[0]),
            "p95 of flat's p50": float(np.percentile(times, 95)) / median(flat[0]),
            "p50 ms": median(times),
            "p95 ms": float(np.percentile(times, 95)),
            "build s": seconds[name],
        }
        for name, (times, results) in found.items()
    ]
    for row in rows:
        note("  ".join(f"{key} {value:.4g}" if isinstance(value, float) else str(value) for key, value in row.items()))
    figures = []
    for ours in (row for row in rows if row["contender"].startswith(OURS.format(""))):
        figures += [
            Figure(f"{ours['contender']}: recall@10 of exact", ours["recall@10"], 0.98),
            Figure(f"{ours['contender']}: memory over float32", ours["memory of float32"], 1 / 8, at_most=True),
            Figure(f"{ours['contender']}: p50 over flat's", ours["p50 of flat"]),
        ]
    kept = {key: value for key, value in settings.items() if key not in ("out",)}
    return Report(
        "index_search", kept, [Series(name, "ms", times) for name, (times, _) in found.items()], figures, rows
    )


def recall(truth: list[list[int]], found: list[list[int]]) -> float:
    """Mean share of the true ten that are among those found."""
    return float(np.mean([len(set(a) & set(b)) / len(a) for a, b in zip(truth, found, strict=True)]))


if __name__ == "__main__":
    main()
