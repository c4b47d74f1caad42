"""How well vectors search and compare: nDCG@10 and Spearman, per layers × dim × precision.

Three questions are asked of a student at once: how good it is on both sides (symmetric), how good
its queries are against the teacher's documents (asymmetric), and how good the teacher is when its
own vectors are cut to the same dims. Each also of documents stored as codes.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from emb.errors import UsageError
from emb.export.variants import as_floats, distinct
from emb.files import atomic_path, write_json
from emb.fingerprints import fingerprint
from emb.manifest import Manifest, Variant, is_artifact, weights_name
from emb.progress import bar, note
from emb.quantize.rescoring import DEPTH
from emb.similarity import Vectors, truncated
from emb.storage import Storage, open_storages
from emb.tasks import RetrievalTask, Task, read_tasks
from emb.tokens import token_budget_batches

if TYPE_CHECKING:
    from emb.encoder import Encoder
    from emb.model import EmbeddingModel

DIMS = (1024, 768, 512, 384, 256, 128, 64)
_BUDGET_CPU, _BUDGET_GPU = 512, 65536


@dataclass(frozen=True, order=True)
class Point:
    """One output of a model: an exit, or an ONNX file of it."""

    layers: int
    weights: str = "fp32"
    vectors: str = "float32"


@dataclass(frozen=True)
class Score:
    """One cell: `value` is 0 to 100, `side` "symmetric" or "asymmetric" (the teacher's vectors on the document side).

    `storage` says how the documents are stored, if not as they are; `fingerprint` which weights were scored.
    """

    task: str
    metric: str
    model: str
    layers: int
    dim: int
    weights: str
    vectors: str
    side: str
    value: float
    storage: str | None = None
    fingerprint: str | None = None

    @property
    def precision(self) -> str:
        """Of weights, of vectors if it is another, and how documents are stored, for tables."""
        return " → ".join([self.weights, *([self.vectors] if self.vectors != "float32" else []), *([self.storage] if self.storage else [])])


@dataclass
class Evaluation:
    """Every score of one call, in the order computed; tables have one row per model, exit, dim and side.

    `fingerprints` has those of the evaluation sets, the teacher and the codecs, by kind and name.
    """

    scores: list[Score] = field(default_factory=list)
    teacher: str | None = None
    fingerprints: dict[str, dict[str, str]] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """For JSON: the teacher's name, what was scored with, and one object per score."""
        return {"teacher": self.teacher, "fingerprints": self.fingerprints, "scores": [dataclasses.asdict(score) for score in self.scores]}

    def save(self, path: Path) -> None:
        """Write JSON, or a Markdown table if `path` ends in .md."""
        if path.suffix != ".md":
            return write_json(path, self.as_dict())
        with atomic_path(path) as partial:
            partial.write_text(self.markdown(), encoding="utf-8")

    def header(self) -> list[str]:
        """Column names of the tables."""
        return ["model", "layers", "precision", "dim", "documents", *(f"{task} {metric}" for task, metric in self._tasks())]

    def rows(self) -> list[list[str]]:
        """Cells of the tables, one row per model, exit, precision, dim and side."""
        grid: dict[tuple[str, ...], dict[str, str]] = {}
        for score in self.scores:
            documents = "itself" if score.side == "symmetric" else str(self.teacher)
            grid.setdefault((score.model, str(score.layers), score.precision, str(score.dim), documents), {})[score.task] = f"{score.value:.2f}"
        return [[*key, *(cells.get(task, "–") for task, _ in self._tasks())] for key, cells in grid.items()]

    def markdown(self) -> str:
        """The table in Markdown."""
        header = self.header()
        lines = [header, ["---"] * 2 + ["---", "---:", "---"] + ["---:"] * (len(header) - 5), *self.rows()]
        return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)

    def _tasks(self) -> list[tuple[str, str]]:
        return list(dict.fromkeys((score.task, score.metric) for score in self.scores))


class Subject(Protocol):
    """A model under evaluation; `vectors` gives `(texts, dim)` for each of its outputs in one pass, `fingerprint` what an output depends on."""

    name: str
    folder: Path
    in_teacher_space: bool

    @property
    def hashes(self) -> Sequence[str]: ...

    def fingerprint(self, point: Point) -> str: ...

    @property
    def dim(self) -> int: ...

    def vectors(self, texts: Sequence[str], kind: str) -> dict[Point, Vectors]: ...


def evaluate(
    models: Sequence[str | Path],
    data: Sequence[str | Path],
    *,
    teacher: str | Path | None = None,
    dims: Sequence[int] = (),
    layers: Sequence[int] = (),
    dtype: str = "fp32",
    precisions: Sequence[str] = (),
    cache: Path | None = None,
    threads: int | None = None,
    codecs: Sequence[str | Path] = (),
    rescore: str | None = None,
    depth: int = DEPTH,
) -> Evaluation:
    """Score `models`, and `teacher` if given, on every task in `data`.

    Args:
        models: runs, students, exported artifacts (each ONNX file is scored) or other
            sentence-transformers folders, by path or by name.
        data: BEIR folders, STS tables, or folders of those.
        teacher: also scored itself, at each dim; its document vectors are the asymmetric index.
        dims: vectors are cut to each and re-normalised; empty stands for common sizes and the model's own.
        layers: exits to score; empty stands for all.
        dtype: "fp32", "bf16" (faster where the machine computes in bf16, inexact) or "auto", for the
            teacher, which is the slow one; all other torch models compute in fp32.
        precisions: weights of exported artifacts to score ("fp32", "fp16", "int8", "int4"); empty stands for all.
        cache: folder to keep vectors in, so that a second call does not encode again.
        threads: of ONNX Runtime; None leaves it to choose.
        codecs: folders of codecs; documents of retrieval sets are also scored as each of them
            stores them, with float queries, where vectors have a codec's dim or more.
        rescore: "float", "int8" or the folder of a codec: the codes' first `depth` are put in order by finer vectors.
        depth: how many of them.

    Raises:
        DataError: an evaluation set that is missing or damaged.
        UsageError: a dim or exit that no model has, or a codec of more dims than any.
        ArtifactError: no codec in a folder.
        TeacherError: a model that cannot be found.
    """
    if not models and teacher is None:
        raise UsageError("no model to evaluate", "name one or more folders, or a --teacher")
    tasks, storages = read_tasks(data), open_storages(codecs, rescore, depth)
    opened_teacher = open_subject(teacher, (), dtype, (), threads) if teacher is not None else None
    result = Evaluation(teacher=opened_teacher.name if opened_teacher else None, fingerprints=_fingerprints(tasks, opened_teacher, storages))
    indexes: dict[str, Vectors] = {}
    if opened_teacher:
        for task in tasks:
            sides = encode_sides(opened_teacher, task, cache)
            indexes[task.name] = next(iter(sides[1].values()))
            result.scores += _scores(task, opened_teacher, sides, _dims(opened_teacher.dim, dims), None, storages)
    for model in models:
        subject = open_subject(model, layers, "fp32", precisions, threads)
        for task in tasks:
            result.scores += _scores(task, subject, encode_sides(subject, task, cache), _dims(subject.dim, dims), _index_for(subject, indexes.get(task.name)), storages)
    _require_scores(result, dims, storages)
    return result


def _fingerprints(tasks: Sequence[Task], teacher: Subject | None, storages: Sequence[Storage]) -> dict[str, dict[str, str]]:
    return {
        "data": {task.name: task.fingerprint for task in tasks},
        "teacher": {teacher.name: teacher.hashes[0]} if teacher else {},
        "codecs": {storage.name: storage.codec.fingerprint for storage in storages},
    }


def _require_scores(found: Evaluation, dims: Sequence[int], storages: Sequence[Storage]) -> None:
    if not any(score.storage is None for score in found.scores):
        raise UsageError(f"--dims {','.join(map(str, dims))}: no model has as many dimensions", "give smaller dims")
    for storage in storages:
        if not any(score.storage == str(storage) for score in found.scores):
            raise UsageError(f"--codec {storage.name}: nothing was scored with its {storage.codec.dim} dims", "give a model of as many dims and a retrieval set")


def _index_for(subject: Subject, index: Vectors | None) -> Vectors | None:
    # Vectors of a model that was not distilled can be as wide as the teacher's and mean something else.
    if index is not None and not subject.in_teacher_space:
        note(f"{subject.name}: not a student of this package, so its queries are not tried on the teacher's documents")
        return None
    return index


def _dims(own: int, asked: Sequence[int]) -> list[int]:
    return sorted({dim for dim in (asked or (*DIMS, own)) if dim <= own}, reverse=True)


def _scores(
    task: Task, subject: Subject, sides: tuple[dict[Point, Vectors], dict[Point, Vectors]], dims: Sequence[int], index: Vectors | None, storages: Sequence[Storage]
) -> Iterable[Score]:
    left, right = sides
    for point in left:
        ways = [*((dim, None) for dim in dims), *((storage.codec.dim, storage) for storage in storages if point.vectors == "float32" and isinstance(task, RetrievalTask))]
        for dim, storage in ((dim, storage) for dim, storage in ways if dim <= left[point].shape[1]):
            documents = {"symmetric": right[point]} | ({"asymmetric": index} if index is not None and dim <= index.shape[1] else {})
            for side, vectors in documents.items():
                value = _value(task, truncated(left[point], dim), truncated(vectors, dim), storage)
                stored = str(storage) if storage else None
                yield Score(task.name, task.metric, subject.name, point.layers, dim, point.weights, point.vectors, side, value, stored, subject.fingerprint(point))


def _value(task: Task, queries: Vectors, documents: Vectors, storage: Storage | None) -> float:
    if storage is not None and isinstance(task, RetrievalTask):
        return storage.score(task, queries, documents)
    return task.score(queries, documents)


def encode_sides(subject: Subject, task: Task, cache: Path | None) -> tuple[dict[Point, Vectors], dict[Point, Vectors]]:
    """Vectors of a task's two sides, at each output of `subject`; from `cache` where they are there."""
    note(f"{subject.name}: {task.name}")
    left, right = (_cached(subject, texts, kind, cache) for texts, kind in zip(task.sides, task.kinds, strict=True))
    return left, right


def _cached(subject: Subject, texts: Sequence[str], kind: str, cache: Path | None) -> dict[Point, Vectors]:
    if cache is None:
        return subject.vectors(texts, kind)
    path = cache / f"{_cache_key(subject, texts, kind)}.npz"
    if path.is_file():
        with np.load(path, allow_pickle=False) as stored:
            return {Point(**json.loads(name)): stored[name] for name in stored.files}
    found = subject.vectors(texts, kind)
    arrays: dict[str, Any] = {json.dumps(dataclasses.asdict(point)): vectors for point, vectors in found.items()}
    with atomic_path(path) as partial, partial.open("wb") as handle:
        np.savez(handle, **arrays)
    return found


def _cache_key(subject: Subject, texts: Sequence[str], kind: str) -> str:
    content = [*subject.hashes, repr(subject), kind, *texts]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:32]


def open_subject(model: str | Path, layers: Sequence[int], dtype: str, precisions: Sequence[str], threads: int | None) -> Subject:
    """A model by path or name, ready to encode; `evaluate` describes the arguments."""
    name, folder = locate(model)
    manifest = Manifest.load(folder) if is_artifact(folder) else None
    if manifest and manifest.variants:
        return OnnxSubject.open(name, folder, manifest, precisions, threads)
    return TorchSubject.open(name, folder, layers, dtype, in_teacher_space=bool(manifest and manifest.kind != "encoder"))


def locate(model: str | Path) -> tuple[str, Path]:
    """A model's name and folder; of a run, its student's.

    Raises:
        TeacherError: no such model.
    """
    from emb.registry import resolve

    path = Path(model)
    if (path / "run.json").is_file():
        return path.name, path / "student"
    found = resolve(model)
    # `runs/english/student` and `exports/4x128` say more than their last part.
    return (found.path.parent.name if found.path.name == "student" else found.name), found.path


@dataclass(repr=False)
class TorchSubject:
    """A sentence-transformers folder in torch: every exit in one forward pass."""

    name: str
    folder: Path
    model: EmbeddingModel
    exits: list[int]
    dtype: str
    in_teacher_space: bool

    def __repr__(self) -> str:  # what its vectors depend on besides the files
        return f"torch {self.exits} {self.dtype}"

    @classmethod
    def open(cls, name: str, folder: Path, layers: Sequence[int], dtype: str, *, in_teacher_space: bool) -> TorchSubject:
        """Load a folder; `layers` chooses among its exits.

        Raises:
            UsageError: an exit that was not trained.
        """
        from emb.model import load_model
        from emb.precision import device, resolve_dtype

        model = load_model(folder, dtype=resolve_dtype(dtype)).to(device())
        missing = sorted(set(layers) - set(model.exits))
        if missing:
            raise UsageError(f"--layers {missing[0]}: {name} has no output there", f"it has them at {', '.join(map(str, model.exits))}")
        return cls(name, folder, model, sorted(layers) or model.exits, dtype, in_teacher_space)

    @cached_property
    def hashes(self) -> Sequence[str]:
        """The folder's."""
        return [fingerprint(self.folder)]

    def fingerprint(self, point: Point) -> str:
        """The folder's: every exit is in it."""
        return self.hashes[0]

    @property
    def dim(self) -> int:
        """Width of the deepest exit's vectors."""
        return self.model.dim

    def vectors(self, texts: Sequence[str], kind: str) -> dict[Point, Vectors]:
        """Vectors `(texts, dim)` float32 at each exit, re-normalised later."""
        import torch

        from emb.precision import device

        place = device()
        tokenizer = self.model.tokenizer()
        rows = tokenizer.encode(texts, self.model.spec.prompt(kind))
        found: dict[int, Vectors] = {}
        with bar(f"{self.name} ({kind})", sum(map(len, rows))) as advance, torch.inference_mode():
            for batch in token_budget_batches([len(row) for row in rows], _BUDGET_GPU if place.type == "cuda" else _BUDGET_CPU):
                ids, mask = (torch.from_numpy(array).to(place) for array in tokenizer.pad([rows[i] for i in batch]))
                for exit_, vectors in self.model(ids, mask, self.exits).items():
                    found.setdefault(exit_, np.zeros((len(texts), vectors.shape[1]), np.float32))[batch] = vectors.float().cpu().numpy()
                advance(int(mask.sum()))
        weights = "fp32" if next(self.model.parameters()).dtype == torch.float32 else "bf16"
        return {Point(exit_, weights): vectors for exit_, vectors in found.items()}


@dataclass(repr=False)
class OnnxSubject:
    """An exported folder: every ONNX file in it, through onnxruntime."""

    name: str
    folder: Path
    manifest: Manifest
    encoders: list[tuple[Variant, Encoder]]
    in_teacher_space: bool

    def __repr__(self) -> str:
        return f"onnx {[variant.file for variant, _ in self.encoders]}"

    @classmethod
    def open(cls, name: str, folder: Path, manifest: Manifest, precisions: Sequence[str], threads: int | None) -> OnnxSubject:
        """Open every variant of the given precisions, those that failed their gate too: the table shows what that costs.

        Raises:
            UsageError: no variant has such weights.
        """
        from emb.encoder import OnnxEncoder

        wanted = [variant for variant in distinct(manifest) if not precisions or variant.weight_dtype in precisions]
        encoders: list[tuple[Variant, Encoder]] = [(variant, OnnxEncoder(folder, variant.file, threads)) for variant in wanted]
        if not encoders:
            raise UsageError(f"--precision {','.join(precisions)}: {name} has no such file", f"it has {', '.join(sorted({v.weight_dtype for v in manifest.variants}))}")
        return cls(name, folder, manifest, encoders, manifest.kind != "encoder")

    @cached_property
    def hashes(self) -> Sequence[str]:
        """Of each file."""
        return [fingerprint(self.folder, variant.file) for variant, _ in self.encoders]

    def fingerprint(self, point: Point) -> str:
        """That of the file whose output `point` is."""
        return dict(zip((self._point(variant) for variant, _ in self.encoders), self.hashes, strict=True))[point]

    @property
    def dim(self) -> int:
        """Width of the vectors."""
        return self.manifest.dim

    def vectors(self, texts: Sequence[str], kind: str) -> dict[Point, Vectors]:
        """Vectors `(texts, dim)` float32 of each file; stored formats are decoded."""
        return {self._point(variant): as_floats(encoder.encode(texts, kind=kind, progress=True), variant, self.manifest) for variant, encoder in self.encoders}

    def _point(self, variant: Variant) -> Point:
        return Point(self.manifest.layers, weights_name(variant.weight_dtype, variant.exporter), variant.vector_dtype)
