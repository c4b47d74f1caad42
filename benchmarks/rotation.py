"""What a cut of the teacher's vectors costs in search, as they are and rotated on the documents that are searched: as
floats, as int8 and as sign bits.

    python benchmarks/rotation.py cranfield scifact --teacher all-mpnet-base-v2

Documents are encoded once and cached; queries are encoded each time. The rotation and the codecs are fitted to the
documents, and no judgement is read for them.
"""

from __future__ import annotations

from collections.abc import Iterator
from statistics import mean
from typing import Any

import torch
from common import command, machine, parser, teacher_vectors

from emb.data.evaluation_sets import RetrievalTask, read_tasks
from emb.evaluate.storage import fine_codec, score_coded, stored
from emb.files import write_json
from emb.quantize.vectors.binary import ROTATIONS
from emb.quantize.vectors.codecs import fit_codec
from emb.quantize.vectors.rescoring import Stored
from emb.report.tables import table
from emb.rotation import principal_rotation
from emb.similarity import Vectors, truncated

SEEDS = 5  # of a rotation that starts at random: one alone is a point higher or lower


def main() -> None:
    """Print one table per collection, and write the JSON."""
    options = parser(__doc__, texts=None, rounds=None)
    options.add_argument("collections", nargs="+", help="BEIR folders")
    options.add_argument("--teacher", required=True, help="a name or a folder")
    options.add_argument("--dims", default="768,384,256,128,64", help="dims to cut to")
    given = options.parse_args()
    torch.set_num_threads(given.threads)
    dims = [int(dim) for dim in given.dims.split(",")]
    found: dict[str, Any] = {}
    for task in read_tasks(given.collections):
        if isinstance(task, RetrievalTask):
            queries, documents = teacher_vectors(task, given.teacher)
            found[task.name] = scores(task, queries, documents, dims)
            rows = [(name, *each.values()) for name, each in found[task.name].items()]
            print(f"{task.name}\n{table(rows, (task.metric, *map(str, dims)))}\n")
    facts = {"command": command(), "machine": machine(), "metric": RetrievalTask.metric}
    write_json(given.out, {**facts, "scores": found})


def scores(task: RetrievalTask, queries: Vectors, documents: Vectors, dims: list[int]) -> dict[str, dict[int, float]]:
    """nDCG@10 at each dim, of the vectors as they are and rotated, in each way to store them."""
    turn = principal_rotation(documents)[0].T
    found: dict[str, dict[int, float]] = {}
    for side, one, other in (("as it is", queries, documents), ("rotated", queries @ turn, documents @ turn)):
        for dim in dims:
            for way, score in ways(task, truncated(one, dim), truncated(other, dim)):
                found.setdefault(f"{side}, {way}", {})[dim] = score
    return found


def ways(task: RetrievalTask, queries: Vectors, documents: Vectors) -> Iterator[tuple[str, float]]:
    """nDCG@10 of vectors of one dim: as floats, as int8, and as sign bits of each rotation, the mean over seeds."""
    fine = stored(fine_codec("int8", documents), documents)
    yield "float", task.score(queries, documents)
    yield "int8", score_coded(task, queries, fine)
    for rotation in ROTATIONS:
        seeds = range(1 if rotation == "none" else SEEDS)
        codecs = [fit_codec("binary", documents, rotation=rotation, seed=seed)[0] for seed in seeds]
        found = [sign_bits(task, queries, stored(codec, documents), fine) for codec in codecs]
        yield from ((f"bits ({rotation}), {how}", mean(each[how] for each in found)) for how in found[0])


def sign_bits(task: RetrievalTask, queries: Vectors, documents: Stored, fine: Stored) -> dict[str, float]:
    """nDCG@10 of float queries on bits, of queries that are bits themselves, and of candidates rescored."""
    return {
        "float queries": score_coded(task, queries, documents),
        "coded queries": score_coded(task, queries, documents, query_codec=documents.codec),
        "+ int8": score_coded(task, queries, documents, rescore=fine),
    }


if __name__ == "__main__":
    main()
