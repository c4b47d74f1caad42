"""Everybody who could encode a bundle's documents: their model in torch, and the files of its exports."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emb.artifact.manifest import Manifest, is_artifact, weights_name
from emb.artifact.variants import distinct
from emb.errors import ArtifactError, EmbError
from emb.machine import gains_from_bf16
from emb.progress import warn
from emb.runtime.encoder import Encoder, load
from emb.search.origins import origins, sources


@dataclass(frozen=True)
class Candidate:
    """One way of encoding documents, opened: `file` of the model `name` in `folder`, or torch in `dtype`."""

    name: str
    folder: Path
    file: str | None
    dtype: str
    encoder: Encoder


def candidates(named: tuple[str, Path], exports: Sequence[Path], device: str, **options: Any) -> list[Candidate]:
    """The documents' model in torch and float32 first, then in 16 bits where that can be faster, then every file that
    passed its gate, its own and those of `exports`; what cannot be opened here is told and left out.

    Raises:
        ArtifactError: the model cannot be opened, or a folder is no export of it.
    """
    name, folder = named
    exports = [export for export in exports if export.resolve() != folder.resolve()]
    for export in exports:
        _require_export(export, folder)
    options |= {"device": device}
    reference = Candidate(name, folder, None, "fp32", load(folder, backend="torch", **options))
    halves = ((name, folder, None, dtype) for dtype in _halves(device))
    files = ((each.name, each, file, dtype) for each in (folder, *exports) for file, dtype in _files(each))
    return [reference, *_opened((*halves, *files), options)]


def _opened(named: Sequence[tuple[str, Path, str | None, str]], options: dict[str, Any]) -> Iterator[Candidate]:
    for name, folder, file, dtype in named:
        try:
            how: dict[str, Any] = {"file": file} if file else {"backend": "torch", "dtype": dtype}
            yield Candidate(name, folder, file, dtype, load(folder, **how, **options))
        except EmbError as error:
            warn(f"{name}, {file or dtype}: left out, {error.message}")


def _files(folder: Path) -> Iterator[tuple[str, str]]:
    """The files of an artifact that give float vectors and did not fail, each with the precision of its weights."""
    for each in distinct(Manifest.load(folder)) if is_artifact(folder) else ():
        if each.vector_dtype == "float32" and each.passed is not False and (folder / each.file).is_file():
            yield each.file, weights_name(each.weight_dtype, each.exporter)


def _halves(device: str) -> list[str]:
    """What torch may be faster in than in float32, on a device."""
    return [*(["bf16"] if gains_from_bf16() else []), *(["fp16"] if device.startswith("cuda") else [])]


def _require_export(export: Path, model: Path) -> None:
    if not (sources(export) & origins(model)):
        raise ArtifactError(
            f"{export}: does not name {model} as the model it was exported from",
            f"export that one: emb export {model} --int8 --out {export.name}-again",
        )
