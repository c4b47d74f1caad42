"""Exporting: the slice, its graph, and the files in 16, 8 and 4 bits made of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from emb.doors import open_door
from emb.errors import needs_extra


def export(
    source: str | Path | None = None,
    *,
    layers: Sequence[int] = (),
    dims: Sequence[int] = (),
    int8: bool = False,
    int4: bool = False,
    fp16: bool = False,
    vectors: Sequence[str] = (),
    out: str | Path | None = None,
    overwrite: bool = False,
    verify: bool = True,
    calibration_texts: Sequence[str] | None = None,
    threads: int | None = None,
    min_cosine: float = 0.99,
    max_mb: float | None = None,
    reduce_range: bool = False,
    heal: float | None = None,
    heal_data: Sequence[str | Path] = (),
    exporter: str | Sequence[str] = "emb",
    trust_remote_code: bool = False,
) -> list[Path]:
    """Write a servable artifact for every (layers, dim) pair; return their folders.

    Each is a sentence-transformers folder of the slice with `onnx/model.onnx` beside it.

    Args:
        source: a run, a student, or any sentence-transformers folder; None takes the latest run.
        layers, dims: every combination is exported; none given means all layers, all dims.
        int8: also write 8-bit weights, the fastest scheme that passes on this machine.
        int4: also write 4-bit weights, `onnx/model_q4.onnx`.
        fp16: also write 16-bit weights, `onnx/model_fp16.onnx`.
        vectors: "int8" and "binary" also write graphs that return such vectors.
        out: the folder, or with several pairs their parent; None means `<run>/exports/<pair>` for a run and
            `exports/<name>-<pair>` otherwise.
        overwrite: replace what `out` holds.
        verify: refuse an artifact whose files changed since it was written.
        calibration_texts: texts to judge int8 on and to take int8 ranges from; None means the documentation that
            every machine has.
        threads: to measure with; None for one per core.
        min_cosine: smallest cosine to the fp32 slice that int8 may have on any text.
        max_mb: megabytes that the 8-bit file may have; where 8 bits are too many, the matrices that lose least get 4.
        reduce_range: weights in 7 of the 8 bits, for processors without VNNI.
        heal: first train each slice for so many seconds under the rounding of the files asked for, against the
            teacher's cached vectors; only what `emb.distill` has made can be healed.
        heal_data: where the texts of the distillation are now; none means where they were.
        exporter: "optimum", "openvino", "ctranslate2" or several of them also export (and with int8 quantise)
            through those, for comparison.
        trust_remote_code: let a model whose folder brings code of its own run it.

    Raises:
        DataError: texts to heal on that are not there.
        TeacherError: teacher's vectors that are not cached, and no teacher to compute them.
        UsageError: beyond the model, or layers at which the student has no exit.
        ArtifactError: no model there, changed by hand, one that an `exporter` does not know, or `out` is in the way.
        MissingExtra: an `exporter` that is not installed.
        DiskError: no room to write.
    """
    from emb.export.given import given

    place = given(source)
    with needs_extra():
        from emb.export.options import Options
        from emb.export.pipeline import run_export

    options = Options(
        int8,
        fp16,
        tuple(vectors),
        calibration_texts,
        threads,
        min_cosine,
        reduce_range,
        int4=int4,
        heal=heal,
        heal_data=tuple(map(str, heal_data)),
        exporter=exporter,
        max_mb=max_mb,
        trust_remote_code=trust_remote_code,
    )
    return run_export(
        place,
        layers,
        dims,
        options,
        out=None if out is None else Path(out),
        overwrite=overwrite,
        verify=verify,
    )


open_door(__name__, export)
