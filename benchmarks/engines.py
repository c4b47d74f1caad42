"""An index of `emb index` beside copies of it in Milvus and in PostgreSQL: recall, time of a query, size on the disk.

Vectors come from files of cached ones (`--documents`, `--queries`, .npy) or are synthetic, as in `index_search.py`. One
query goes through each contender, then the next. Every contender brings whole hits with their texts. Beside the clock,
which says much about what else runs here, stands the time of processors that a query takes, that of PostgreSQL's own
process too. PostgreSQL is taken where `--postgres` names a database on this machine; give one that may be thrown away.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from common import Figure, Report, Series, parser
from index_search import K, Numbered, clustered, measured, recall

import emb
from emb.progress import note
from emb.search.engines.opening import opened
from emb.search.engines.target import read_target
from emb.search.index.candidates import faiss
from emb.search.index.description import EncoderRecord
from emb.search.index.run import Choices, index_with
from emb.similarity import Vectors, unit

EXACT = "emb float32, every vector"
TWO_STAGES = "emb binary → float16"
FINDS = {"milvus": ("exact", "hnsw"), "postgres": ("exact", "hnsw", "bits")}


def main() -> None:
    """Index, copy, ask, write JSON."""
    options = parser(__doc__, texts=None, rounds=None)
    options.add_argument("--documents", metavar="FILE.npy", help="vectors of documents; without it, synthetic ones")
    options.add_argument("--queries", metavar="FILE.npy", help="vectors of queries, with --documents")
    options.add_argument("--count", type=int, default=5000, help="how many synthetic ones")
    options.add_argument("--asked", type=int, default=200, help="how many queries")
    options.add_argument("--dim", type=int, default=768, help="of synthetic ones")
    options.add_argument("--postgres", metavar="ADDRESS", help="postgresql://USER@HOST/DATABASE")
    options.add_argument(
        "--work", type=Path, help="keep indexes and copies there, and go on with those of a run before"
    )
    options.add_argument("--without", nargs="+", default=[], help="contenders to leave out, as the table names them")
    given = options.parse_args()
    faiss().omp_set_num_threads(given.threads)
    documents, queries = _vectors(given)
    with tempfile.TemporaryDirectory(prefix="emb-engines-") as scratch:
        searches: dict[str, Callable[[Vectors], list[int]]] = {}
        facts: dict[str, tuple[float, float, int | None]] = {}
        place = given.work or Path(scratch)
        for name, index, size, seconds in contenders(documents, place, given.postgres, set(given.without)):
            searches[name], facts[name] = partial(_found, index), (size, seconds, _process(index))
        found = measured(searches, queries)
        work = {name: _processor(search, queries, facts[name][2]) for name, search in searches.items()}
        report(found, facts, work, documents.nbytes, vars(given)).write(given.out)


def contenders(
    documents: Vectors, scratch: Path, postgres: str | None, without: set[str]
) -> Iterator[tuple[str, Any, float, float]]:
    """Name, opened index, bytes on the disk and seconds to build it or to copy it."""
    folders = {EXACT: scratch / "float32", TWO_STAGES: scratch / "bits"}
    layouts = {EXACT: {"codec": "float32"}, TWO_STAGES: {"codec": "binary", "rescore": "float16"}}
    for name, folder in folders.items():
        seconds = _timed(partial(_indexed, documents, folder, layouts[name]))
        yield name, emb.open_index(folder), _size(folder), seconds
    for engine in ("milvus", *(["postgres"] if postgres else [])):
        for find in FINDS[engine]:
            place = postgres if engine == "postgres" else f"milvus:{scratch}/{find}.db"
            name, target = f"{engine} {find}", f"{place}#bench_{find}"
            if name not in without:
                note(f"copying to {name}")
                seconds = _timed(partial(emb.sync, folders[TWO_STAGES], target, find=find))
                size = _table_size(target) if engine == "postgres" else _size(scratch / f"{find}.db")
                yield name, emb.open_index(target), size, seconds


def report(
    found: Mapping[str, tuple[list[float], list[list[int]]]],
    facts: Mapping[str, tuple[float, float, int | None]],
    work: Mapping[str, float],
    floats: int,
    settings: Mapping[str, Any],
) -> Report:
    """The table: recall of what looking at every float32 finds, times as shares of its own."""
    truth, times = found[EXACT][1], found[EXACT][0]
    rows = [
        {
            "contender": name,
            "recall@10": recall(truth, results),
            "p50 of emb's": median(milliseconds) / median(times),
            "processor ms": work[name],
            "p50 ms": median(milliseconds),
            "p95 ms": float(np.percentile(milliseconds, 95)),
            "disk of float32": facts[name][0] / floats,
            "build or copy s": facts[name][1],
        }
        for name, (milliseconds, results) in found.items()
    ]
    for row in rows:
        note("  ".join(f"{key} {value:.4g}" if isinstance(value, float) else str(value) for key, value in row.items()))
    figures = [Figure(f"{row['contender']}: recall@10 of exact", row["recall@10"]) for row in rows]
    private = ("out", "work", "postgres", "documents", "queries")
    kept = {key: str(value) for key, value in settings.items() if key not in private}
    series = [Series(name, "ms", milliseconds) for name, (milliseconds, _) in found.items()]
    return Report("engines", kept, series, figures, rows)


def _vectors(given: Any) -> tuple[Vectors, Vectors]:
    if given.documents is None:
        return clustered(given.count, given.asked, given.dim)
    read = [unit(np.load(path, allow_pickle=False).astype(np.float32)) for path in (given.documents, given.queries)]
    return read[0], read[1][: given.asked]


def _indexed(documents: Vectors, folder: Path, layout: dict[str, str]) -> None:
    if (folder / "index.json").is_file():
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    source = folder.with_suffix(".csv")
    source.write_text("id,text\n" + "".join(f"{row},{row}\n" for row in range(len(documents))), encoding="utf-8")
    encoder = Numbered(documents)
    record = EncoderRecord("numbers", "numbers", ["numbers"], encoder.dim, True, "cosine", {}, encoder.max_length)
    index_with(folder, Choices([str(source)], layout=layout), encoder, record)


def _found(index: Any, query: Vectors) -> list[int]:
    return [int(hit.id) for hit in index.search_vector(query, K)]


def _process(index: Any) -> int | None:
    """The process of a server on this machine that answers; None where the search runs in this one."""
    engine = getattr(index, "_engine", None)
    return int(engine._one("SELECT pg_backend_pid()")) if hasattr(engine, "_one") else None


def _processor(search: Callable[[Vectors], list[int]], queries: Vectors, process: int | None) -> float:
    """Milliseconds of processors for a query, here and in the server's process."""

    def spent() -> float:
        there = 0.0
        if process is not None:
            words = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
            there = (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")
        return time.process_time() + there

    before = spent()
    for query in queries:
        search(query)
    return 1000 * (spent() - before) / len(queries)


def _timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def _size(folder: Path) -> float:
    done = subprocess.run(["du", "-sk", folder], capture_output=True, text=True, check=True)
    return 1024 * float(done.stdout.split()[0])


def _table_size(target: str) -> float:
    with opened(read_target(target)) as engine:
        name = read_target(target).name
        return float(engine._one("SELECT pg_total_relation_size(%s::regclass)", name))  # type: ignore[attr-defined]


if __name__ == "__main__":
    main()
