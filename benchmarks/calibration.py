"""What one threshold for all queries is worth: on raw similarities, after Platt's scaling, and with a map that looks at
the query.

    python benchmarks/calibration.py scifact cranfield --query exports/2x256 --doc all-mpnet-base-v2
    python benchmarks/calibration.py scifact --query-vectors q.npy --document-vectors d.npy

Vectors given are those of the set's queries and documents, in its order; documents are cut to the queries' dims. Every
figure is of queries that the map was not fitted to: each of five parts is judged by a map of the others.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import Any

import numpy as np
from common import command, machine, model_folder, parser, rounded

from emb.data.evaluation_sets import RetrievalTask, read_tasks
from emb.files import write_json
from emb.report.tables import table
from emb.runtime.encoder import load
from emb.search.calibration.choose import CANDIDATES, held_out_relevance
from emb.search.calibration.figures import RECALLS, Figures, figures
from emb.search.calibration.pairs import Pairs, pair_up
from emb.similarity import Vectors, truncated


def main() -> None:
    """Print one table per collection, and write the JSON."""
    options = parser(__doc__, texts=None, rounds=None)
    options.add_argument("collections", nargs="+", help="BEIR folders")
    options.add_argument("--query", help="folder that encodes queries")
    options.add_argument("--doc", help="name or folder that encodes documents")
    options.add_argument("--query-vectors", nargs="*", metavar="FILE", help=".npy for each collection instead")
    options.add_argument("--document-vectors", nargs="*", metavar="FILE", help=".npy for each collection instead")
    options.add_argument("--rotation", nargs="*", metavar="FILE", help=".npy to turn the documents by, for each")
    given = options.parse_args()
    found: dict[str, Any] = {}
    for place, task in enumerate(read_tasks(given.collections)):
        if isinstance(task, RetrievalTask):
            queries, documents = _vectors(task, place, given)
            reached = scores(_paired(task, queries, documents))
            found[task.name] = {name: asdict(each) for name, each in reached.items()}
            print(f"{task.name}, {len(queries)} queries\n{shown(reached)}\n")
    write_json(given.out, rounded({"command": command(), "machine": machine(), "scores": found}))


def _vectors(task: RetrievalTask, place: int, given: argparse.Namespace) -> tuple[Vectors, Vectors]:
    texts, whole = task.sides
    queries = (
        np.load(given.query_vectors[place])
        if given.query_vectors
        else load(given.query, threads=given.threads).encode_query(texts)
    )
    documents = (
        np.load(given.document_vectors[place])
        if given.document_vectors
        else load(model_folder(given.doc), threads=given.threads).encode_document(whole, show_progress_bar=True)
    )
    documents = documents @ np.load(given.rotation[place]).T if given.rotation else documents
    return queries, truncated(documents, queries.shape[1])


def _paired(task: RetrievalTask, queries: Vectors, documents: Vectors) -> Pairs:
    rows = {key: place for place, key in enumerate(task.documents)}
    relevant = [{rows[key] for key in task.relevant[query] if key in rows} for query in task.queries]
    return pair_up(task.sides[0], queries, documents, relevant)


def scores(pairs: Pairs) -> dict[str, Figures]:
    """Figures of raw similarity and of each candidate, on held-out queries."""
    judged = {name: held_out_relevance(uses, pairs) for name, uses in CANDIDATES.items()}
    ways = {"similarity": pairs.scores, **judged}
    return {name: figures(each, pairs.relevant) for name, each in ways.items()}


def shown(found: dict[str, Figures]) -> str:
    """The table."""
    rows = [(name, each.average_precision, *each.precision.values(), each.error) for name, each in found.items()]
    return table(rows, ("threshold on", "average precision", *(f"P at R={each:g}" for each in RECALLS), "ECE"))


if __name__ == "__main__":
    main()
