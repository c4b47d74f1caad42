"""Vector codecs: bytes per vector against what search still finds, for a teacher's vectors, a student's, and both in
one index.

Codecs are fitted to vectors of training texts and kept in --codecs, where a second call finds them; the documents
of the evaluation sets are only coded. For each codec: recall@10 of the neighbours that float vectors find, and
nDCG@10 with float queries, with coded queries, and with 100 candidates of the codes rescored by int8 or by float
vectors.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common import Figure, Report, parser

from emb.data.evaluation_sets import DEPTH, RetrievalTask, read_tasks
from emb.data.vector_files import read_vectors
from emb.evaluate.scoring import encode_sides
from emb.evaluate.storage import score_coded, stored
from emb.evaluate.subjects import open_subject
from emb.files import atomic_path
from emb.progress import note
from emb.quantize.vectors.base import Codec
from emb.quantize.vectors.codecs import fit_codec, load_codec, save_codec
from emb.quantize.vectors.rescoring import Stored, search
from emb.similarity import Vectors, unit

# Kind and options of each, by the name of its folder; sizes are those of 768 dims.
CODECS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "float32": ("float32", {}),
    "float16": ("float16", {}),
    "int8": ("int8", {}),
    "int4": ("int4", {}),
    "bebr-4x384": ("bebr", {"codes": 4, "bits": 384}),
    "pq-192": ("pq", {"pieces": 192}),
    "signs-768": ("binary", {}),
    "random-768": ("binary", {"rotation": "random"}),
    "itq-768": ("binary", {"rotation": "itq"}),
    "itq-centred-768": ("binary", {"rotation": "itq", "centre": True}),
    "bebr-2x384": ("bebr", {"codes": 2, "bits": 384}),
    "bebr-4x192": ("bebr", {"codes": 4, "bits": 192}),
    "pq-96": ("pq", {"pieces": 96}),
    "signs-384": ("binary", {"bits": 384}),
    "itq-384": ("binary", {"rotation": "itq", "bits": 384}),
    "bebr-1x384": ("bebr", {"codes": 1, "bits": 384}),
    "bebr-2x192": ("bebr", {"codes": 2, "bits": 192}),
    "pq-48": ("pq", {"pieces": 48}),
}
SIGNS, LEARNED = "signs-768", "bebr-2x384"
COMPATIBLE = "bebr-2x384 for the student's queries"


@dataclass(frozen=True)
class Pair:
    """Queries and documents of one task, unit vectors `(texts, dim)`."""

    task: RetrievalTask
    queries: Vectors
    documents: Vectors


def main() -> None:
    """Fit what is not there, score everything, write JSON and Markdown."""
    options = parser(__doc__, texts=None, rounds=None)
    options.add_argument("--teacher", required=True, help="name or folder")
    options.add_argument("--student", required=True, help="run or student of that teacher; its deepest exit is taken")
    options.add_argument("--data", action="append", required=True, help="BEIR folder; repeat for several")
    options.add_argument("--dtype", default="bf16", help="that the teacher computes in")
    options.add_argument(
        "--cache", type=Path, help="folder to keep the vectors of the evaluation sets in: that of emb evaluate"
    )
    options.add_argument(
        "--teacher-vectors",
        type=Path,
        required=True,
        help="the teacher's vectors of training texts: a folder of its cache, .npy or .parquet",
    )
    options.add_argument("--student-vectors", type=Path, required=True, help="the student's vectors of training texts")
    options.add_argument("--limit", type=int, default=60_000, help="training vectors to read of each")
    options.add_argument("--codecs", type=Path, required=True, help="folder to keep the fitted codecs in")
    options.add_argument(
        "--only",
        nargs="+",
        choices=CODECS,
        default=list(CODECS),
        help="only these codecs, besides those that figures need",
    )
    given = options.parse_args()
    tasks = [task for task in read_tasks(given.data) if isinstance(task, RetrievalTask)]
    teacher, student = (
        sides(model, dtype, tasks, given.cache, given.threads)
        for model, dtype in ((given.teacher, given.dtype), (given.student, "fp32"))
    )
    names = [name for name in CODECS if name in {*given.only, "float32", "int8", SIGNS, LEARNED}]
    of_teacher = codecs_for(names, given.teacher_vectors, given.limit, given.codecs / "teacher")
    of_student = codecs_for(names, given.student_vectors, given.limit, given.codecs / "student")
    mixed = [Pair(ours.task, ours.queries, theirs.documents) for ours, theirs in zip(student, teacher, strict=True)]
    rows = [
        *measured("teacher", teacher, of_teacher),
        *measured("student", student, of_student),
        *measured(
            "student queries, teacher documents",
            mixed,
            of_teacher,
            compatible(of_teacher, given.student_vectors, given.limit, given.codecs),
        ),
    ]
    settings = {
        "training vectors": given.limit,
        "documents": {pair.task.name: len(pair.documents) for pair in teacher},
        "dim": teacher[0].documents.shape[1],
    }
    Report("codecs", settings, figures=figures(rows), rows=rows).write(given.out)
    with atomic_path(given.out.with_suffix(".md")) as partial:
        partial.write_text(markdown(rows), encoding="utf-8")


def sides(model: str, dtype: str, tasks: Sequence[RetrievalTask], cache: Path | None, threads: int) -> list[Pair]:
    """Vectors of every task's queries and documents, at the deepest exit of `model`."""
    subject = open_subject(model, (), dtype, (), threads)
    return [Pair(task, *(unit(side[max(side)]) for side in encode_sides(subject, task, cache))) for task in tasks]


def codecs_for(names: Sequence[str], source: Path, limit: int, folder: Path) -> dict[str, Codec]:
    """Each codec, from `folder` or fitted to the vectors of `source`."""
    vectors = None
    for name in names:
        if not (folder / name).is_dir():
            vectors = unit(read_vectors(source, limit=limit)) if vectors is None else vectors
            fitted, quality = fit_codec(CODECS[name][0], vectors, **CODECS[name][1])
            save_codec(fitted, folder / name, quality)
            note(f"{folder.name} {name}: {quality}")
    return {name: load_codec(folder / name) for name in names}


def compatible(codecs: Mapping[str, Codec], source: Path, limit: int, folder: Path) -> Codec:
    """The codec of student queries for documents in the teacher's learned codes."""
    place = folder / "compatible"
    if not place.is_dir():
        fitted, quality = fit_codec("bebr", unit(read_vectors(source, limit=limit)), compatible=codecs[LEARNED])
        save_codec(fitted, place, quality)
    return load_codec(place)


def measured(
    vectors: str, pairs: Sequence[Pair], codecs: Mapping[str, Codec], compatible: Codec | None = None
) -> Iterator[dict[str, Any]]:
    """A row for each codec and task."""
    for pair in pairs:
        exact, _ = search(pair.queries, Stored(codecs["float32"], pair.documents), DEPTH)
        fine = {kind: stored(codecs[kind], pair.documents) for kind in ("int8", "float32")}
        for name, codec in codecs.items():
            note(f"{vectors}: {pair.task.name}, {name}")
            yield {
                "vectors": vectors,
                "task": pair.task.name,
                "codec": name,
                "bytes": codec.bytes_per_vector,
                **scored(pair, stored(codec, pair.documents), codec, exact, fine),
            }
        if compatible is not None:
            coded = score_coded(
                pair.task, pair.queries, stored(codecs[LEARNED], pair.documents), query_codec=compatible
            )
            yield {
                "vectors": vectors,
                "task": pair.task.name,
                "codec": COMPATIBLE,
                "bytes": compatible.bytes_per_vector,
                "coded": coded,
            }


def scored(pair: Pair, documents: Stored, codec: Codec, exact: Vectors, fine: Mapping[str, Stored]) -> dict[str, float]:
    """recall@10 and nDCG@10 of one codec on one task."""
    found, _ = search(pair.queries, documents, DEPTH)
    coded = score_coded(pair.task, pair.queries, documents, query_codec=codec)
    rescored = {
        f"rescored {kind}": score_coded(pair.task, pair.queries, documents, rescore=finer)
        for kind, finer in fine.items()
    }
    return {"recall": recall(exact, found), "ndcg": pair.task.score_rankings(found), "coded": coded, **rescored}


def recall(exact: Vectors, found: Vectors) -> float:
    """Share of the first ten of `exact` `(queries, rows)` among the first ten of `found`."""
    return float((exact[:, :10, None] == found[:, None, :10]).any(2).mean())


def figures(rows: Sequence[Mapping[str, Any]]) -> list[Figure]:
    """What rescoring keeps and what learning gains, for the teacher's vectors; memory that codes need."""
    found = {(row["task"], row["codec"]): row for row in rows if row["vectors"] == "teacher"}
    result = []
    for task in dict.fromkeys(task for task, _ in found):
        floats, plain, learned = (found[task, name] for name in ("float32", SIGNS, LEARNED))
        for row in (plain, learned):
            result += [
                Figure(
                    f"{task}: {row['codec']} rescored by {kind}, nDCG@10 kept",
                    row[f"rescored {kind}"] / floats["ndcg"],
                    0.99,
                )
                for kind in ("int8", "float32")
            ]
        result += [
            Figure(f"{task}: {LEARNED} over {SIGNS}, {what}", learned[key] / plain[key], 1)
            for key, what in (("ndcg", "float queries"), ("coded", "coded queries"))
        ]
        result += [
            Figure(
                f"{task}: bytes in memory, {LEARNED} over float32",
                learned["bytes"] / floats["bytes"],
                1 / 8,
                at_most=True,
            )
        ]
    return result


def markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """A table for each kind of vectors: one row per codec, five columns per task."""
    return "\n".join(
        f"### {vectors}\n\n{_table([row for row in rows if row['vectors'] == vectors])}"
        for vectors in dict.fromkeys(row["vectors"] for row in rows)
    )


_COLUMNS = {"recall": ".3f", "ndcg": ".2f", "coded": ".2f", "rescored int8": ".2f", "rescored float32": ".2f"}


def _table(rows: Sequence[Mapping[str, Any]]) -> str:
    tasks = list(dict.fromkeys(row["task"] for row in rows))
    heads = [
        f"{task} {name}" for task in tasks for name in ("recall@10", "nDCG@10", "coded queries", "+ int8", "+ float")
    ]
    lines = [["codec", "bytes", *heads], ["---", *["---:"] * (1 + len(heads))]]
    for name in dict.fromkeys(row["codec"] for row in rows):
        own = {row["task"]: row for row in rows if row["codec"] == name}
        cells = [
            f"{own[task][key]:{form}}" if key in own[task] else "" for task in tasks for key, form in _COLUMNS.items()
        ]
        lines.append([name, str(own[tasks[0]]["bytes"]), *cells])
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


if __name__ == "__main__":
    main()
