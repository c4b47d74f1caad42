"""What a page of `emb web` costs and finds: bytes to download, milliseconds until it is ready and of a query in
headless Chromium from key to results, how near its query vectors are to Python's, and nDCG@10 of the rankings that the
page shows beside those that Python computes.

    python benchmarks/web_page.py scifact --query exports/0x128 --doc runs/scifact/teacher

Vectors of the documents in their file's order may come from --vectors (.npy), turned by --rotation. --documents N adds
synthetic ones: words of a document in another order, its vector with noise.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import numpy as np
from browser import VECTORS, chromium, missing, served
from common import Figure, Report, parser

from emb.data.documents import Document, read_documents
from emb.data.evaluation_sets import RetrievalTask, read_tasks
from emb.runtime.encoder import Encoder, load
from emb.search.sides import document_encoder
from emb.search.web.codes import stored
from emb.search.web.query_side import query_side
from emb.search.web.side import ONNX, TABLE
from emb.search.web.write import Look, Page, write_page
from emb.similarity import Vectors, cosines, truncated, unit

_SHOWN = 10
_NOISE = 2.0  # as large as the numbers of a vector, times this
# Every query as if it had been typed and Enter pressed; what the page then shows, and how long it took.
_ASK = """
const [queries] = arguments, list = document.getElementById("results"), found = [];
async function ask(query) {
  const shown = new Promise((done) => {
    const observer = new MutationObserver(() => done(observer.disconnect()));
    observer.observe(list, { attributeFilter: ["data-milliseconds"] });
  });
  document.getElementById("query").value = query;
  document.getElementById("form").requestSubmit();
  await shown;
  found.push([Array.from(list.children, (each) => Number(each.dataset.row)), Number(list.dataset.milliseconds)]);
}
return queries.reduce((before, query) => before.then(() => ask(query)), Promise.resolve()).then(() => found);
"""
_LIMITS = {TABLE: 10, ONNX: 150}  # milliseconds a query


@dataclass(frozen=True)
class Asked:
    """What the page showed and took: rows of the first documents and milliseconds of each query, milliseconds until it
    was ready, and the query vectors `(queries, dim)`.
    """

    rows: list[list[int]]
    times: list[float]
    ready: float
    vectors: Vectors


def main() -> None:
    """Build the page, ask it every query, print and write the figures."""
    options = parser(__doc__, texts=None, rounds=None)
    options.add_argument("collection", help="BEIR folder")
    options.add_argument("--query", required=True, type=Path, help="folder of a static encoder or of an export")
    options.add_argument("--doc", type=Path, help="folder of the documents' encoder")
    options.add_argument("--vectors", type=Path, help="the documents' vectors, in place of --doc")
    options.add_argument("--rotation", type=Path, help="matrix that turns --vectors")
    options.add_argument("--documents", type=int, metavar="N", help="add synthetic ones up to this number")
    options.add_argument("--dim", type=int, default=128)
    options.add_argument("--onnxruntime-web", type=Path, help="as of emb web")
    options.add_argument("--codec", action="append", choices=("int8", "binary"), help="repeat for several")
    given = options.parse_args()
    if lacking := missing():
        raise SystemExit(lacking)
    [task] = read_tasks([given.collection])
    assert isinstance(task, RetrievalTask)
    documents, encoder = read_documents([given.collection]), load(given.query, threads=1)
    vectors = given_vectors(given.vectors, given.rotation) if given.vectors else encoded(given.doc, documents)
    if given.documents:
        documents, vectors = grown(documents, vectors, given.documents)
    side = query_side(encoder, given.query, given.dim, list(task.queries.values()), given.onnxruntime_web)
    report = Report(
        "web_page", {"collection": task.name, "documents": len(documents), "dim": given.dim, "snippet": 300}
    )
    for codec in given.codec or ["int8", "binary"]:
        with tempfile.TemporaryDirectory() as folder:
            place = Path(folder) / "page"
            look = Look(task.name, 300)
            page = write_page(place, side, documents, vectors, codec=codec, look=look)
            asked = ask(place, list(task.queries.values()))
            report.figures += figures(page, task, encoder, vectors, asked, _LIMITS[side.kind])
    report.write(given.out)


def given_vectors(path: Path, rotation: Path | None) -> Vectors:
    """Vectors from a file, turned if a matrix is given."""
    vectors: Vectors = np.load(path)
    return vectors @ np.load(rotation).T if rotation else vectors


def encoded(doc: Path, documents: list[Document]) -> Vectors:
    """Vectors of the documents by their encoder."""
    vectors: Vectors = document_encoder(doc).encode([each.whole for each in documents], show_progress_bar=True)
    return vectors


def grown(documents: list[Document], vectors: Vectors, count: int) -> tuple[list[Document], Vectors]:
    """The documents with synthetic ones behind them, `count` in all."""
    rng = np.random.default_rng(0)
    rows = np.arange(count - len(documents)) % len(documents)
    words = [documents[row].text.split() for row in rows]
    texts = [" ".join(np.array(each)[rng.permutation(len(each))]) for each in words]
    more = [replace(documents[row], text=text) for row, text in zip(rows, texts, strict=True)]
    noise = rng.normal(size=(len(rows), vectors.shape[1])) * np.abs(vectors).mean() * _NOISE
    return [*documents, *more], np.concatenate([vectors, unit(vectors[rows] + noise)]).astype(np.float32)


def ask(folder: Path, queries: list[str]) -> Asked:
    """What the page answers to each query."""
    with served(folder) as address, chromium() as browser:
        browser.get(f"{address}/index.html")
        browser.wait("!document.getElementById('query').disabled")
        ready = browser.run("return performance.now()")
        browser.run(_ASK, queries[:20])  # compiles
        found = browser.run(_ASK, queries)
        browser.get(f"{address}/style.css")
        vectors = np.array(browser.run(VECTORS, queries)["vectors"])
    return Asked([rows for rows, _ in found], [took for _, took in found], ready, vectors)


def figures(
    page: Page, task: RetrievalTask, encoder: Encoder, vectors: Vectors, asked: Asked, limit: float
) -> list[Figure]:
    """The page's figures beside Python's, which takes the encoder's own query vectors and the same codes."""
    index, texts = stored(truncated(vectors, page.dim), page.codec), list(task.queries.values())
    queries = truncated(np.concatenate([encoder.encode([text], kind="query") for text in texts]), page.dim)
    ranked = np.argsort(-index.codec.scores(queries, index.codes), axis=1, kind="stable")[:, :_SHOWN]
    near, common = cosines(queries, asked.vectors), list(map(_common, asked.rows, ranked))
    values: dict[str, Any] = {
        "download, MB": page.download.bytes / 1e6,
        "of which texts, MB": page.texts.bytes / 1e6,
        "unpacked, MB": page.download.unpacked / 1e6,
        "ms until ready": asked.ready,
        "ms a query, 95th percentile": quantiles(asked.times, n=20)[-1],
        "cosine to Python's query vectors, least": near.min(),
        "cosine to Python's query vectors, mean": near.mean(),
        "same first ten in order, %": 100
        * np.mean([list(a) == list(b) for a, b in zip(asked.rows, ranked, strict=True)]),
        "of Python's first ten, %": 100 * np.mean(common),
    }
    if page.documents == len(task.documents):  # nobody judged synthetic ones
        values["nDCG@10 of the page"] = task.score_rankings(asked.rows)
        values["nDCG@10 of Python"] = task.score_rankings(list(ranked))
    return [
        Figure(f"{page.codec}: ms a query, median", median(asked.times), limit, at_most=True),
        *(Figure(f"{page.codec}: {name}", float(value)) for name, value in values.items()),
    ]


def _common(ours: list[int], theirs: Any) -> float:
    """The share of `theirs` that is among `ours`."""
    return len(set(ours) & set(theirs.tolist())) / len(theirs)


if __name__ == "__main__":
    main()
