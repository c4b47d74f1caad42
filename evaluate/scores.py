"""What was scored, and its tables."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from emb.files import atomic_path, write_json


@dataclass(frozen=True, order=True)
class Output:
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
        return " → ".join(
            [
                self.weights,
                *([self.vectors] if self.vectors != "float32" else []),
                *([self.storage] if self.storage else []),
            ]
        )


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
        return {
            "teacher": self.teacher,
            "fingerprints": self.fingerprints,
            "scores": [dataclasses.asdict(score) for score in self.scores],
        }

    def save(self, path: Path) -> None:
        """Write JSON, or a Markdown table if `path` ends in .md."""
        if path.suffix != ".md":
            return write_json(path, self.as_dict())
        with atomic_path(path) as partial:
            partial.write_text(self.markdown(), encoding="utf-8")

    def header(self) -> list[str]:
        """Column names of the tables."""
        return [
            "model",
            "layers",
            "precision",
            "dim",
            "documents",
            *(f"{task} {metric}" for task, metric in self._tasks()),
        ]

    def rows(self) -> list[list[str]]:
        """Cells of the tables, one row per model, exit, precision, dim and side."""
        grid: dict[tuple[str, ...], dict[tuple[str, str], str]] = {}
        for score in self.scores:
            documents = "itself" if score.side == "symmetric" else str(self.teacher)
            grid.setdefault((score.model, str(score.layers), score.precision, str(score.dim), documents), {})[
                score.task, score.metric
            ] = f"{score.value:.2f}"
        return [[*key, *(cells.get(column, "–") for column in self._tasks())] for key, cells in grid.items()]

    def markdown(self) -> str:
        """The table in Markdown."""
        header = self.header()
        lines = [header, ["---"] * 2 + ["---", "---:", "---"] + ["---:"] * (len(header) - 5), *self.rows()]
        return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)

    def _tasks(self) -> list[tuple[str, str]]:
        return list(dict.fromkeys((score.task, score.metric) for score in self.scores))
