"""What a cut of the teacher's vectors costs in search, as they are and rotated on the documents that are searched.

    python benchmarks/rotation.py cranfield scifact --teacher all-mpnet-base-v2

Documents are encoded once and cached; queries are encoded each time. No judgement is read for the rotation.
"""

from __future__ import annotations

from typing import Any

import torch
from common import parser

from emb.data.corpus import Corpus, Text
from emb.data.evaluation_sets import RetrievalTask, read_tasks
from emb.distill.rotation import principal_rotation
from emb.distill.targets import document_vectors
from emb.files import write_json
from emb.model.embedding_model import load_model
from emb.recipes.recipe import Recipe
from emb.report.tables import table
from emb.runtime.torch_encoder import TorchEncoder
from emb.similarity import Vectors, unit
from emb.teachers.registry import resolve


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
            queries, documents = vectors(task, given.teacher)
            found[task.name] = scores(task, queries, documents, dims)
            rows = [(name, *each.values()) for name, each in found[task.name].items()]
            print(f"{task.name}\n{table(rows, (task.metric, *map(str, dims)))}\n")
    write_json(given.out, {"teacher": given.teacher, "metric": RetrievalTask.metric, "scores": found})


def vectors(task: RetrievalTask, name: str) -> tuple[Vectors, Vectors]:
    """The teacher's vectors of queries and documents, of length 1."""
    teacher, (queries, texts) = resolve(name), task.sides
    whole = Corpus([Text(text) for text in dict.fromkeys(texts)])
    known = unit(document_vectors(Recipe(teacher=name), teacher, whole, False))
    row = {item.text: place for place, item in enumerate(whole.texts)}
    encoder = TorchEncoder(load_model(teacher.path))
    return unit(encoder.encode(queries, kind="query")), known[[row[text] for text in texts]]


def scores(task: RetrievalTask, queries: Vectors, documents: Vectors, dims: list[int]) -> dict[str, dict[int, float]]:
    """nDCG@10 at each dim, of the vectors as they are and rotated."""
    turn = principal_rotation(documents)[0].T
    sides = {"as it is": (queries, documents), "rotated": (queries @ turn, documents @ turn)}
    return {
        name: {dim: task.score(one[:, :dim], other[:, :dim]) for dim in dims} for name, (one, other) in sides.items()
    }


if __name__ == "__main__":
    main()
