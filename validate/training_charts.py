"""Pictures of the run behind an artifact: its training, and the exits beside this one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from emb.artifact.manifest import Manifest, PairScores, is_artifact
from emb.artifact.runs import STATIC, run_of
from emb.errors import ArtifactError
from emb.files import read_json
from emb.report.charts import Series, heat_grid, line_chart
from emb.report.sections import section
from emb.validate.findings import ParityReport


def curves(folder: Path) -> str:
    """Loss and held-out figures over the steps, if the run is at hand."""
    log = read_log(folder)
    loss = [(float(line["step"]), float(line["loss"])) for line in log if isinstance(line.get("loss"), int | float)]
    evaluations = [line for line in log if isinstance(line.get("cosine"), dict)]
    charts = [line_chart("Training loss", [Series("loss", *_columns(loss))], "step", "loss")] if len(loss) > 1 else []
    for key, label in (("cosine", "Held-out cosine to the teacher"), ("overlap", "Held-out neighbour overlap@10")):
        pairs = list(dict.fromkeys(pair for line in evaluations for pair in line.get(key, {})))
        lines = [
            Series(
                pair.replace("x", " × "),
                *_columns([(line["step"], line[key][pair]) for line in evaluations if pair in line.get(key, {})]),
            )
            for pair in pairs
        ]
        if len(evaluations) > 1 and lines:
            charts.append(line_chart(label, lines, "step", key))
    return section("Training", f"<div class='many'>{''.join(charts)}</div>") if charts else ""


def _columns(points: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    return [point[0] for point in points], [point[1] for point in points]


def read_log(folder: Path) -> list[dict[str, Any]]:
    """The training log of the run that `folder` lies in; lines that a crash cut short are left out."""
    run = run_of(folder)
    if run is None or not (run / "log.jsonl").is_file():
        return []
    found = []
    for line in (run / "log.jsonl").read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            found.append(json.loads(line))
        except ValueError:
            continue
    return [line for line in found if isinstance(line, dict)]


_FIGURES = {
    "cosine": "Held-out cosine to the teacher",
    "overlap": "Held-out neighbour overlap@10",
    "retention": "Kept of the teacher's search in the documents",
    "forecast": "Expected of that before training",
}


def grids(folder: Path, manifest: Manifest, report: ParityReport) -> str:
    """Held-out figures and scores of every exit, this one outlined."""
    here = (report.layers, report.dim)
    grids = []
    for key, label in _FIGURES.items():
        known = [each for each in _pairs(folder, manifest) if getattr(each, key) is not None]
        values = {(each.layers, each.dim): float(getattr(each, key)) for each in known}
        if len(values) > 1:
            grids.append(heat_grid(label, values, "layers", "dim", here, lambda value: f"{value:.3f}"))
    grids += [
        heat_grid(title, values, "layers", "dim", here, lambda value: f"{value:.1f}")
        for title, values in _evaluated(folder).items()
    ]
    text = "Every exit that was trained with this one; the outlined cell is this artifact."
    return section("Layers × dims", f"<div class='many'>{''.join(grids)}</div>", text) if grids else ""


def _pairs(folder: Path, manifest: Manifest) -> list[PairScores]:
    """The pairs of all students of the run that holds the artifact, where it is at hand; a slice knows its own only."""
    run = run_of(folder)
    places = [place / "student" for place in (run / STATIC, run)] if run is not None else []
    return [each for place in places if is_artifact(place) for each in Manifest.load(place).pairs] or manifest.pairs


def _evaluated(folder: Path) -> dict[str, dict[tuple[int, int], float]]:
    """Grids of an `evaluation.json` of the artifact or its run, by title."""
    places = [folder, *([run] if (run := run_of(folder)) else [])]
    path = next((place / "evaluation.json" for place in places if (place / "evaluation.json").is_file()), None)
    grids: dict[str, dict[tuple[int, int], float]] = {}
    if path is None:
        return grids
    try:
        evaluation = read_json(path)
        for score in (score for score in evaluation["scores"] if score["model"] != evaluation["teacher"]):
            title = f"{score['model']}, {score['task']}: {score['metric']}, {score['side']}, {score['weights']}" + (
                f", {score['storage']}" if score.get("storage") else ""
            )
            grids.setdefault(title, {})[score["layers"], score["dim"]] = float(score["value"])
    except (ArtifactError, KeyError, TypeError):
        return {}  # somebody else's file of that name
    return grids
