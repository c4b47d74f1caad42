"""What a cut of the teacher's vectors costs in search, as they are and rotated on the documents that are searched.

    python benchmarks/rotation.py --teacher all-mpnet-base-v2 cranfield scifact

Documents are encoded once and cached; queries are encoded each time.
"""

from __future__ import annotations

import argparse

from emb.data.corpus import Corpus, Text
from emb.data.evaluation_sets import RetrievalTask, read_tasks
from emb.distill.rotation import principal_rotation
from emb.distill.targets import document_vectors
from emb.model.embedding_model import load_model
from emb.recipes.recipe import Recipe
from emb.report.tables import table
from emb.runtime.torch_encoder import TorchEncoder
from emb.similarity import unit
from emb.teachers.registry import resolve


def main() -> None:
    """Print one table per collection."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("collections", nargs="+", help="BEIR folders")
    parser.add_argument("--teacher", required=True)
    parser.add_argument("--dims", default="768,384,256,128,64")
    given = parser.parse_args()
    dims = [int(dim) for dim in given.dims.split(",")]
    teacher = resolve(given.teacher)
    encoder = TorchEncoder(load_model(teacher.path))
    for task in read_tasks(given.collections):
        if isinstance(task, RetrievalTask):
            whole = Corpus([Text(text) for text in dict.fromkeys(task.documents.values())])
            known = document_vectors(Recipe(teacher=given.teacher), teacher, whole, False)
            row = {item.text: place for place, item in enumerate(whole.texts)}
            documents = unit(known)[[row[text] for text in task.documents.values()]]
            queries = unit(encoder.encode(list(task.queries.values()), kind="query"))
            turn = principal_rotation(unit(known))[0].T
            rows = [
                (name, *(task.score(one[:, :dim], other[:, :dim]) for dim in dims))
                for name, one, other in (
                    ("as it is", queries, documents),
                    ("rotated", queries @ turn, documents @ turn),
                )
            ]
            print(f"{task.name}\n{table(rows, (task.metric, *map(str, dims)))}\n")


if __name__ == "__main__":
    main()
