"""Every slice of one model, measured side by side; and the choice among them."""

from __future__ import annotations

import dataclasses
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from emb.artifact.manifest import Manifest
from emb.data.probes import Sample
from emb.data.run_texts import texts_for
from emb.errors import UsageError
from emb.export.options import Options
from emb.export.pipeline import run_export
from emb.export.source import Source, find_source
from emb.files import refuse_existing, write_json
from emb.machine import processor
from emb.model.embedding_model import EmbeddingModel, load_model
from emb.progress import note
from emb.runtime.torch_encoder import TorchEncoder, load_torch
from emb.teachers.lookup import teacher_source
from emb.validate.grid.choice import TARGETS, Choice, Limits, choose, mark
from emb.validate.grid.measurements import MeasuredFile, Reference, measure, points_of, reference_of

JSON, PAGE = "grid.json", "grid.html"
_TEXTS = 400  # the reference is the slowest model at hand


@dataclass(frozen=True)
class Grid:
    """What was measured, and what was chosen, if a target was given.

    Attributes:
        reference: whose neighbours quality counts.
        origin: where the texts come from.
    """

    points: list[MeasuredFile]
    reference: str
    texts: int
    origin: str
    processor: str
    threads: int | None
    choice: Choice | None
    report: Path

    @property
    def folders(self) -> list[Path]:
        """The artifacts, in the order of the points; the chosen one alone, where there is one."""
        return [self.choice.point.folder] if self.choice else list(dict.fromkeys(point.folder for point in self.points))


def export_grid(
    source: Path | None,
    layers: Sequence[int],
    dims: Sequence[int],
    options: Options,
    *,
    target: str | None = None,
    keep: bool = True,
    limits: Limits | None = None,
    out: Path | None = None,
    overwrite: bool = False,
    verify: bool = True,
) -> Grid:
    """Export every (layers, dim) pair with 8-bit weights, measure all files side by side, and choose one for `target`.

    Without `layers` or `dims`, every exit and dim that was trained. `grid.json` and `grid.html` are written beside
    the artifacts. With a target and without `keep`, only the chosen artifact stays, at `out`, with the report in
    it.

    Raises:
        UsageError: an unknown target.
        GateFailed: no file keeps to the limits.
        EmbError: what `run_export` raises.
    """
    if target is not None and target not in TARGETS:
        raise UsageError(f"--target {target}: unknown", f"known: {', '.join(TARGETS)}")
    found = find_source(source, verify, trust_remote_code=options.trust_remote_code)
    # A student whose teacher is at hand is not needed here: its export loads it.
    model = cache(lambda: load_model(found.folder, trust_remote_code=options.trust_remote_code))
    pairs = _axes(found, model, layers, dims)
    with _place(found, out, keep, overwrite) as place:
        folders = run_export(
            source, *pairs, replace(options, int8=True), out=place, overwrite=overwrite, verify=verify, apart=True
        )
        points = points_of(folders, str(source or found.folder.parent), options)
        reference, origin = _reference(found, model, options.trust_remote_code)
        note(f"measuring {len(points)} files against the neighbours that {reference.name} finds")
        measure(points, reference, options.threads)
        mark(points)
        grid = Grid(
            points, reference.name, len(reference.samples), origin, processor(), options.threads, None, place / PAGE
        )
        if keep:
            _write(grid)  # before the choice, which may fail
        if target is None:
            return grid
        grid = replace(grid, choice=choose(points, target, limits or Limits()))
        if not keep:
            grid = _keep_chosen(grid, out or found.exports / target, overwrite)
        _write(grid)
        return grid


def _axes(
    source: Source, model: Callable[[], EmbeddingModel], layers: Sequence[int], dims: Sequence[int]
) -> tuple[list[int], list[int]]:
    """The layers and dims asked for; else the trained ones, or of a plain encoder all layers and common dims."""
    trained = source.trained
    return (
        list(layers) or sorted({each.layers for each in trained} or {model().layers}),
        list(dims) or sorted({each.dim for each in trained} or _common(model().dim)),
    )


def _common(dim: int) -> set[int]:
    return {each for each in (dim, dim // 2, 256, 128) if each <= dim}


@contextmanager
def _place(source: Source, out: Path | None, keep: bool, overwrite: bool) -> Iterator[Path]:
    """Where the artifacts are written: for good, or until one is chosen."""
    if keep:
        yield out or (source.exports if source.manifest else source.exports / source.name)
        return
    if out is not None:
        refuse_existing(out, overwrite)
    parent = out.parent if out is not None else source.exports
    parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=parent, prefix=".grid-") as scratch:
        yield Path(scratch)


def _reference(source: Source, model: Callable[[], EmbeddingModel], trust_remote_code: bool) -> tuple[Reference, str]:
    """The teacher's vectors of the run's own texts; the whole model's where there is no teacher here."""
    texts, origin = texts_for(source.folder, _TEXTS)
    samples = [Sample(item.text, item.kind) for item in texts]
    teacher, reason = (
        teacher_source(source.folder, source.manifest) if source.manifest else (None, "a plain encoder has no teacher")
    )
    if teacher is not None:
        return reference_of(
            teacher.name, samples, load_torch(teacher.path, trust_remote_code=trust_remote_code)
        ), origin
    note(f"quality is measured against the whole model: {reason}")
    return reference_of(source.name, samples, TorchEncoder(model())), origin


def _keep_chosen(grid: Grid, folder: Path, overwrite: bool) -> Grid:
    """Move the chosen artifact to `folder`, without the weights that were not chosen."""
    assert grid.choice is not None
    chosen = grid.choice.point
    refuse_existing(folder, overwrite)
    _drop_others(chosen)
    if folder.exists():
        shutil.rmtree(folder)
    shutil.move(chosen.folder, folder)
    chosen.folder = folder
    return replace(grid, report=folder / PAGE)


def _drop_others(chosen: MeasuredFile) -> None:
    """Leave the fp32 graph, which programs look for, and the chosen file under all its names."""
    manifest = Manifest.load(chosen.folder)
    dropped = [variant for variant in manifest.variants if variant.weight_dtype not in ("fp32", chosen.weight_dtype)]
    for path in (
        path
        for variant in dropped
        for path in (chosen.folder / variant.file).parent.glob(f"{Path(variant.file).name}*")
    ):
        path.unlink()
    manifest.variants = [variant for variant in manifest.variants if variant not in dropped]
    manifest.save(chosen.folder)


def _write(grid: Grid) -> None:
    from emb.validate.grid.report import write_page

    write_json(grid.report.with_name(JSON), as_dict(grid))
    write_page(grid, grid.report)


def as_dict(grid: Grid) -> dict[str, Any]:
    """The grid for JSON, paths as text."""
    points = [dataclasses.asdict(point) | {"name": point.name, "folder": str(point.folder)} for point in grid.points]
    choice = None
    if grid.choice is not None:
        chosen = grid.choice.point
        choice = {
            "target": grid.choice.target,
            "name": chosen.name,
            "file": chosen.file,
            "folder": str(chosen.folder),
            "why": grid.choice.why,
        }
    return {
        "reference": grid.reference,
        "texts": grid.texts,
        "origin": grid.origin,
        "processor": grid.processor,
        "threads": grid.threads,
        "choice": choice,
        "points": points,
        "report": str(grid.report),
    }
