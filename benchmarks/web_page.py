"""What a page of `emb web` costs and finds: bytes to download, milliseconds of a query in headless Chromium from key to
results, and nDCG@10 of the rankings that the page shows beside those that Python computes.

    python benchmarks/web_page.py scifact --query exports/0x128 --doc runs/scifact/teacher

Vectors of the documents in their file's order may come from --vectors (.npy), turned by --rotation.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import numpy as np
from browser import chromium, missing, served
from common import Figure, Report, parser

from emb.data.documents import Document, read_documents
from emb.data.evaluation_sets import RetrievalTask, read_tasks
from emb.runtime.encoder import Encoder, load
from emb.search.sides import document_encoder
from emb.search.web.codes import stored
from emb.search.web.query_side import query_side
from emb.search.web.write import Look, Page, write_page
from emb.similarity import Vectors, truncated

_SHOWN = 10
# Every query as if it had been typed and Enter pressed; what the page then shows, and how long it took.
_ASK = """
const [queries] = arguments, field = document.getElementById("query"), list = document.getElementById("results");
return queries.map((query) => {
  field.value = query;
  document.getElementById("form").requestSubmit();
  return [Array.from(list.children, (each) => Number(each.dataset.row)), Number(list.dataset.milliseconds)];
});
"""


def main() -> None:
    """Build the page, ask it every query, print and write the figures."""
    options = parser(__doc__, texts=None, rounds=None)
    options.add_argument("collection", help="BEIR folder")
    options.add_argument("--query", required=True, type=Path, help="folder of a static encoder")
    options.add_argument("--doc", type=Path, help="folder of the documents' encoder")
    options.add_argument("--vectors", type=Path, help="the documents' vectors, in place of --doc")
    options.add_argument("--rotation", type=Path, help="matrix that turns --vectors")
    options.add_argument("--dim", type=int, default=128)
    options.add_argument("--codec", action="append", choices=("int8", "binary"), help="repeat for several")
    given = options.parse_args()
    if lacking := missing():
        raise SystemExit(lacking)
    [task] = read_tasks([given.collection])
    assert isinstance(task, RetrievalTask)
    documents, encoder = read_documents([given.collection]), load(given.query, threads=1)
    vectors = given_vectors(given.vectors, given.rotation) if given.vectors else encoded(given.doc, documents)
    side = query_side(encoder, given.query, given.dim, list(task.queries.values()))
    report = Report("web_page", {"collection": task.name, "dim": given.dim, "snippet": 300})
    for codec in given.codec or ["int8", "binary"]:
        with tempfile.TemporaryDirectory() as folder:
            place = Path(folder) / "page"
            look = Look(task.name, 300)
            page = write_page(place, side, documents, vectors, codec=codec, look=look)
            report.figures += figures(page, task, encoder, vectors, ask(place, list(task.queries.values())))
    report.write(given.out)


def given_vectors(path: Path, rotation: Path | None) -> Vectors:
    """Vectors from a file, turned if a matrix is given."""
    vectors: Vectors = np.load(path)
    return vectors @ np.load(rotation).T if rotation else vectors


def encoded(doc: Path, documents: list[Document]) -> Vectors:
    """Vectors of the documents by their encoder."""
    vectors: Vectors = document_encoder(doc).encode([each.whole for each in documents], show_progress_bar=True)
    return vectors


def ask(folder: Path, queries: list[str]) -> list[tuple[list[int], float]]:
    """Rows of the documents that the page shows for each query, and the milliseconds it took."""
    with served(folder) as address, chromium() as browser:
        browser.get(f"{address}/index.html")
        browser.wait("!document.getElementById('query').disabled")
        browser.run(_ASK, queries[:20])  # compiles
        return [(rows, took) for rows, took in browser.run(_ASK, queries)]


def figures(
    page: Page, task: RetrievalTask, encoder: Encoder, vectors: Vectors, found: list[tuple[list[int], float]]
) -> list[Figure]:
    """The page's figures beside Python's, which takes the encoder's own query vectors and the same codes."""
    index = stored(truncated(vectors, page.dim), page.codec)
    queries = truncated(encoder.encode(list(task.queries.values()), kind="query"), page.dim)
    ranked = np.argsort(-index.codec.scores(queries, index.codes), axis=1, kind="stable")[:, :_SHOWN]
    times, codec = [took for _, took in found], page.codec
    bare = {name: getattr(page.download, name) - getattr(page.texts, name) for name in ("bytes", "gzip")}
    values: dict[str, Any] = {
        "download, MB": page.download.bytes / 1e6,
        "download as gzip, MB": page.download.gzip / 1e6,
        "without texts, MB": bare["bytes"] / 1e6,
        "without texts as gzip, MB": bare["gzip"] / 1e6,
        "nDCG@10 of the page": task.score_rankings([rows for rows, _ in found]),
        "nDCG@10 of Python": task.score_rankings(list(ranked)),
        "same first ten, %": 100
        * float(np.mean([list(rows) == list(ours) for (rows, _), ours in zip(found, ranked, strict=True)])),
        "ms a query, 95th percentile": quantiles(times, n=20)[-1],
    }
    return [
        Figure(f"{codec}: ms a query, median", median(times), 10, at_most=True),
        *(Figure(f"{codec}: {name}", value) for name, value in values.items()),
    ]


if __name__ == "__main__":
    main()
