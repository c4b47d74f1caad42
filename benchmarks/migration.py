"""What a search keeps while an index moves from one encoder to another, and how well that was forecast.

    python benchmarks/migration.py cranfield --models all-mpnet-base-v2 all-MiniLM-L6-v2 --vectors vectors
    python benchmarks/migration.py scifact --models a b --vectors vectors --codec binary --rescore int8
    python benchmarks/migration.py scifact --models a b --vectors vectors --old

Both ways between the two. `--vectors` is a folder that keeps what was encoded, as `MODEL-COLLECTION-queries.npy` and
`…-documents.npy`; what is there already is not encoded again. nDCG@10 is that of the index itself, searched by queries
of the new encoder: when the documents looked at are moved, half-way, and at the end. "mapped" is of vectors that all
went through a map that was not fitted to them: what the forecast is about. With `--old` a map is learned from queries
that both read.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from common import command, machine, model_folder, parser, rounded

from emb.data.evaluation_sets import DEPTH, RetrievalTask, read_tasks
from emb.files import write_json
from emb.report.tables import table
from emb.runtime.encoder import Encoder, load
from emb.search.index import build
from emb.search.index.documents import Columns
from emb.search.index.mixed import MixedIndex
from emb.search.index.moving import Moving
from emb.search.index.reader import Index
from emb.search.index.run import Choices, index_with, record_of
from emb.search.known_vectors import with_known_vectors
from emb.search.migration.check import Checked
from emb.search.migration.learned_map import LEARNED
from emb.search.migration.run import Models, Wanted, check_with, move_with
from emb.similarity import Vectors, unit
from emb.tokens import Cut, Ids

Lookup = dict[str, Vectors]


class Stopped(Exception):
    """A migration that was stopped on purpose."""


class Kept(Encoder):
    """An encoder whose vectors are there already; it stops when so many documents are `left` and asked for."""

    def __init__(self, inner: Encoder, vectors: Lookup) -> None:
        super().__init__(
            inner.tokenizer,
            dim=inner.dim,
            prompts=inner.prompts,
            normalize=inner.normalize,
            similarity_fn_name=inner.similarity_fn_name,
        )
        self.inner, self.vectors, self.left = inner, vectors, 10**9

    def encode(self, texts: Any, *, count: Callable[[Cut], None] | None = None, **options: Any) -> Any:
        """See `Encoder`; pseudo-queries are encoded for real."""
        several = [texts] if isinstance(texts, str) else list(texts)
        if options.get("kind") == "document":
            if self.left <= 0:
                raise Stopped
            self.left -= len(several)
        new = [text for text in several if _key(text) not in self.vectors]
        if new:
            self.vectors |= zip(map(_key, new), self.inner.encode(new, **options), strict=True)
        if count:
            count(Cut(len(several), 0, 0, self.max_length))
        found = np.stack([self.vectors[_key(text)] for text in several])
        return found[0] if isinstance(texts, str) else found

    def run(self, input_ids: Ids, attention_mask: Ids) -> Vectors:
        """As the real one."""
        return self.inner.run(input_ids, attention_mask)


def main() -> None:
    """Print one table per collection, and write the JSON."""
    options = parser(__doc__, texts=None, rounds=None)
    options.add_argument("collections", nargs="+", help="BEIR folders")
    options.add_argument("--models", nargs=2, required=True, metavar="MODEL", help="folders or names")
    options.add_argument("--vectors", type=Path, required=True, metavar="DIR", help="keeps what was encoded")
    options.add_argument("--old", action="store_true", help="name the encoder so far, for a map learned from queries")
    options.add_argument("--sample", type=int, default=2000, help="documents that are looked at")
    options.add_argument("--codec", default="float32", help="of the index")
    options.add_argument("--rescore", help="of the index")
    given = options.parse_args()
    found: dict[str, Any] = {}
    for path in given.collections:
        [task] = read_tasks([path])
        assert isinstance(task, RetrievalTask)
        sides = [_opened(name, task, given) for name in given.models]
        for old, new in (sides, sides[::-1]):
            new = (new[0], replace(new[1], old=old[1].query, old_folder=old[1].model)) if given.old else new
            name = f"{task.name}: {old[0]} to {new[0]}"
            found[name] = moved(Path(path), task, old[1], new[1], given)
            print(
                f"{name}\n{table([tuple(row.values()) for row in found[name]['rows']], list(found[name]['rows'][0]))}\n"
            )
    write_json(given.out, rounded({"command": command(), "machine": machine(), "scores": found}))


def moved(path: Path, task: RetrievalTask, old: Models, new: Models, given: argparse.Namespace) -> dict[str, Any]:
    """Figures of one migration."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "index"
        layout = {"codec": given.codec, "rescore": given.rescore}
        index_with(folder, Choices([str(path)], Columns(), (), layout), old.document, old.record)
        wanted = Wanted("new", sample=given.sample, data=path)
        judged = check_with(folder, wanted, new)
        cut = check_with(folder, replace(wanted, data=None), new)
        stages = _stages(folder, task, wanted, new)
    whole = stages.pop("moved")
    rows = [
        {"": "forecast, judged queries", "nDCG@10": None, "kept": judged.check.forecast},
        {"": "forecast, cut queries", "nDCG@10": None, "kept": cut.check.forecast},
    ]
    mapped = _mapped(task, judged, old, new)
    stages = {"mapped": mapped, **stages, "re-encoded": whole}
    rows += [{"": name, "nDCG@10": score, "kept": score / whole} for name, score in stages.items()]
    return {"rows": rows, "judged": asdict(judged.check), "cut": asdict(cut.check)}


def _stages(folder: Path, task: RetrievalTask, wanted: Wanted, new: Models) -> dict[str, float]:
    """nDCG@10 of the index while it moves."""
    encoder = new.document
    assert isinstance(encoder, Kept)
    whole, found = len(task.documents), {}
    for name, documents in (("the sample moved", wanted.sample), ("half-way", whole // 2)):
        if documents < wanted.sample or documents >= whole:
            continue
        encoder.left = documents
        build.BLOCK = 100
        try:
            move_with(folder, wanted, new)
        except Stopped:
            moving = Moving.load(folder)
            if moving is not None and moving.map is not None:  # without a map new queries wait for all documents
                found[name] = _searched(folder, task, new)
    encoder.left = 10**9
    move_with(folder, wanted, new)
    return {**found, "moved": _searched(folder, task, new)}


def _searched(folder: Path, task: RetrievalTask, new: Models) -> float:
    moving, rows = Moving.load(folder), {name: row for row, name in enumerate(task.documents)}
    assert moving is not None
    with MixedIndex(folder, moving, new.query) as index:
        return task.score_rankings(_ranking(index, new, text, rows) for text in task.queries.values())


def _ranking(index: Index, new: Models, text: str, rows: dict[str, int]) -> Sequence[int]:
    return [rows[hit.id] for hit in index.search_vector(new.query.encode(text, kind="query"), DEPTH)]


def _mapped(task: RetrievalTask, checked: Checked, old: Models, new: Models) -> float:
    """nDCG@10 where no vector went through a map that was fitted to it: whole parts of the collection are held out."""
    from emb.search.migration.maps import Moments
    from emb.search.migration.trial import FOLDS, fit_maps

    queries, documents = task.sides
    asked = new.query.encode(queries, kind="query")
    if checked.map is not None and checked.map.kind == LEARNED:
        return task.score(asked, unit(checked.map.apply(old.document.encode(documents, kind="document"))))
    before, after = (each.document.encode(documents, kind="document") for each in (old, new))
    known = {_key(text) for text in checked.sample.texts}
    sample = np.asarray([row for row, text in enumerate(documents) if _key(text) in known])
    part = np.full(len(documents), FOLDS)
    part[sample] = np.arange(len(sample)) % FOLDS
    vectors = np.empty(after.shape, np.float32)
    for each in range(FOLDS + 1):
        fit = sample[part[sample] != each]
        candidates = fit_maps(Moments.of(before[fit], after[fit]))
        best = next(found for found in candidates if found.kind == checked.check.map)
        vectors[part == each] = unit(best.apply(before[part == each]))
    return task.score(asked, vectors)


def _opened(name: str, task: RetrievalTask, given: argparse.Namespace) -> tuple[str, Models]:
    folder = model_folder(name)
    inner = with_known_vectors(load(folder, threads=given.threads), Path(folder))
    vectors: Lookup = {}
    for kind, texts in zip(("queries", "documents"), task.sides, strict=True):
        path = given.vectors / f"{Path(name).name}-{task.name}-{kind}.npy"
        if not path.is_file():
            given.vectors.mkdir(parents=True, exist_ok=True)
            np.save(path, inner.encode(texts, kind="query" if kind == "queries" else "document"))
        vectors |= zip(map(_key, texts), np.load(path), strict=True)
    encoder = Kept(inner, vectors)
    return Path(name).name, Models(encoder, encoder, record_of(encoder, Path(folder)), Path(folder))


def _key(text: str) -> str:
    return " ".join(text.split())


if __name__ == "__main__":
    main()
