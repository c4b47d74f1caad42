"""What query encoders keep of their teacher's search: every exit of a run, at each dim, in fp32 and in the int8 file
that ships, among documents as floats, as int8 and as bits; with megabytes and the time of a query.

    python benchmarks/query_encoders.py scifact --run runs/scifact --picture docs/query-encoders.svg

Documents are encoded by the teacher of the run (its folder `teacher`; without one, --teacher), or found in the cache.
Judgements are read for the scores alone.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from common import command, machine, parser, teacher_vectors

from emb.artifact.manifest import LayerDimPair, Manifest
from emb.artifact.runs import TEACHER
from emb.data.evaluation_sets import RetrievalTask, read_tasks
from emb.evaluate.storage import fine_codec, score_coded, stored
from emb.evaluate.subjects import open_subject, parts_of
from emb.export import export
from emb.files import atomic_path, write_json
from emb.quantize.vectors.codecs import fit_codec
from emb.report.charts import Axis
from emb.report.tables import table
from emb.runtime.encoder import load
from emb.similarity import Vectors, truncated

_QUERIES = 200  # that are timed, one by one
_MB = 1e6


@dataclass(frozen=True)
class Row:
    """One exit in one precision and one way to store documents: nDCG@10 by dim, and what its file costs."""

    run: str
    layers: int
    query: str
    documents: str
    scores: dict[int, float]
    megabytes: dict[int, float]
    milliseconds: float | None


def main() -> None:
    """Print one table per collection, and write the JSON and the picture."""
    options = parser(__doc__, texts=None, rounds=None)
    options.add_argument("collections", nargs="+", help="BEIR folders")
    options.add_argument("--run", action="append", required=True, type=Path, help="repeat for several")
    options.add_argument("--teacher", help="of runs that have none in them")
    options.add_argument("--dims", default="768,384,256,128", help="dims to cut to")
    options.add_argument("--picture", type=Path, help="SVG to write: kept against megabytes, of the first run")
    given = options.parse_args()
    dims = [int(dim) for dim in given.dims.split(",")]
    found: dict[str, Any] = {}
    for task in (each for each in read_tasks(given.collections) if isinstance(each, RetrievalTask)):
        teachers, rows = of_collection(task, given.run, given.teacher, dims)
        found[task.name] = {"teacher": teachers, "rows": [vars(row) for row in rows]}
        whole = teachers[0][max(dims)]
        print(f"{task.name}, teacher {whole:.1f}: {teachers}\n{table(cells(rows, whole), header(dims))}\n")
        if given.picture:
            curves = [
                row for row in rows if (row.run, row.query, row.documents) == (given.run[0].name, "int8", "float")
            ]
            write_picture(given.picture, curves, whole, task.name)
    write_json(given.out, {"command": command(), "machine": machine(), "scores": found})


def of_collection(
    task: RetrievalTask, runs: Sequence[Path], teacher: str | None, dims: Sequence[int]
) -> tuple[list[dict[int, float]], list[Row]]:
    """For each run: its teacher's own score at each dim, and the rows of its exits."""
    teachers, rows = [], []
    for run in runs:
        place = run / TEACHER
        queries, documents = teacher_vectors(task, str(place) if place.is_dir() else str(teacher))
        teachers.append(by_dim(task, queries, documents, dims))
        rows += measured(task, run, documents, dims)
    return teachers, rows


def measured(task: RetrievalTask, run: Path, documents: Vectors, dims: Sequence[int]) -> Iterator[Row]:
    """The rows of one run."""
    queries = list(task.sides[0])
    ways = {dim: dict(stored_ways(truncated(documents, dim))) for dim in dims}
    for part, _ in parts_of(run, ()):
        subject = open_subject(part, (), "fp32", (), None)
        for point, vectors in subject.vectors(queries, "query").items():
            files = exported(run, point.layers, dims)
            yield Row(run.name, point.layers, "fp32", "float", by_dim(task, vectors, documents, dims), {}, None)
            encoder = load(files[max(dims)], file=int8_file(files[max(dims)]), threads=1)
            small, sizes = encoder.encode_query(queries), {dim: size(file) for dim, file in files.items()}
            spent = milliseconds(encoder, queries)
            plain = by_dim(task, small, documents, dims)
            yield Row(run.name, point.layers, "int8", "float", plain, sizes, spent)
            for way in ways[dims[0]]:
                scores = {dim: score_coded(task, truncated(small, dim), ways[dim][way]) for dim in dims}
                yield Row(run.name, point.layers, "int8", way, scores, sizes, spent)


def by_dim(task: RetrievalTask, queries: Vectors, documents: Vectors, dims: Sequence[int]) -> dict[int, float]:
    """nDCG@10 at each dim, both sides cut."""
    return {dim: task.score(truncated(queries, dim), truncated(documents, dim)) for dim in dims}


def stored_ways(documents: Vectors) -> Iterator[tuple[str, Any]]:
    """Documents as int8, and as sign bits behind a rotation fitted to them."""
    yield "int8", stored(fine_codec("int8", documents), documents)
    yield "bits", stored(fit_codec("binary", documents, rotation="itq")[0], documents)


def exported(run: Path, layers: int, dims: Sequence[int]) -> dict[int, Path]:
    """The export of an exit at the widest dim, made if it is not there; of a static encoder, whose dims are its size,
    at the narrowest too.
    """
    pairs = {dim: LayerDimPair(layers, dim) for dim in ((max(dims),) if layers else (max(dims), min(dims)))}
    for pair in pairs.values():
        if not (run / "exports" / str(pair)).is_dir():
            export(run, layers=[layers], dims=[pair.dim], int8=True)
    return {dim: run / "exports" / str(pair) for dim, pair in pairs.items()}


def int8_file(folder: Path) -> str:
    """The int8 file of an export."""
    return next(each.file for each in Manifest.load(folder).variants if each.weight_dtype == "int8")


def size(folder: Path) -> float:
    """Megabytes of the int8 file."""
    return (folder / int8_file(folder)).stat().st_size / _MB


def milliseconds(encoder: Any, queries: Sequence[str]) -> float:
    """The median of one query from text to vector, one thread."""
    found = []
    for query in [queries[0], *queries[:_QUERIES]]:
        began = time.perf_counter()
        encoder.encode(query, kind="query")
        found.append(time.perf_counter() - began)
    return 1000 * median(found[1:])


def header(dims: Sequence[int]) -> tuple[str, ...]:
    """Of the table."""
    return ("run", "layers", "queries", "documents", *map(str, dims), "MB", "ms")


def cells(rows: Sequence[Row], whole: float) -> list[tuple[str, ...]]:
    """The table: what is kept of the teacher's score at full dim."""
    return [
        (
            row.run,
            str(row.layers),
            row.query,
            row.documents,
            *(f"{value:.1f} ({value / whole:.1%})" for value in row.scores.values()),
            " to ".join(f"{value:.1f}" for value in sorted(row.megabytes.values())) or "–",
            "–" if row.milliseconds is None else f"{row.milliseconds:.2f}",
        )
        for row in rows
    ]


def write_picture(path: Path, rows: Sequence[Row], whole: float, name: str) -> None:
    """Kept against the megabytes of the int8 file, one curve per depth: from the narrowest dim to the widest."""
    lines = [
        (row.layers, [(megabytes(row, dim), 100 * row.scores[dim] / whole) for dim in sorted(row.scores)])
        for row in rows
    ]
    kept = [value for _, points in lines for _, value in points]
    x, y = Axis(3, 100, 60, 560, log=True), Axis(min(kept) - 2, max(102.0, *kept), 330, 20)
    marks = [
        f'<line x1="60" x2="560" y1="{y.place(tick):.0f}" y2="{y.place(tick):.0f}" stroke="#8884"/>'
        f'<text x="52" y="{y.place(tick) + 4:.0f}" text-anchor="end">{tick:g} %</text>'
        for tick in y.ticks()
    ]
    marks += [
        f'<text x="{x.place(tick):.0f}" y="350" text-anchor="middle">{tick}</text>' for tick in (3, 5, 10, 20, 50, 100)
    ]
    marks.append('<text x="310" y="374" text-anchor="middle">MB of the int8 file</text>')
    marks += [curve(layers, points, x, y) for layers, points in lines]
    title = f'<text x="60" y="12">{name}: kept of the teacher&apos;s nDCG@10</text>'
    with atomic_path(path) as partial:
        partial.write_text(
            '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 640 384" font-family="sans-serif" font-size="12"'
            f' fill="#777">{title}{"".join(marks)}</svg>\n',
            encoding="utf-8",
        )


def megabytes(row: Row, dim: int) -> float:
    """Of the int8 file at `dim`: a static encoder's grow with it; of layers, a projection to fewer changes little."""
    known = row.megabytes
    wide, narrow = max(known), min(known)
    share = (dim - narrow) / (wide - narrow) if wide > narrow else 1.0
    return known[narrow] + share * (known[wide] - known[narrow])


def curve(layers: int, points: Sequence[tuple[float, float]], x: Axis, y: Axis) -> str:
    """One depth's line with its name at the end."""
    colour = {0: "#c2500a", 1: "#8a6a00", 2: "#0b7a4b", 4: "#1f5fbf"}.get(layers, "#8a3fa8")
    places = [(x.place(size), y.place(kept)) for size, kept in points]
    line = " ".join(f"{a:.1f},{b:.1f}" for a, b in places)
    dots = "".join(f'<circle cx="{a:.1f}" cy="{b:.1f}" r="3.5" fill="{colour}"/>' for a, b in places)
    (a, b), said = places[-1], "no layers" if not layers else f"{layers} layer{'s' if layers > 1 else ''}"
    return (
        f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"/>{dots}'
        f'<text x="{a + 6:.0f}" y="{b + 4:.0f}" fill="{colour}">{said}</text>'
    )


if __name__ == "__main__":
    main()
