"""Every slice of one student, measured side by side, and the one that serves a purpose best."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emb.errors import needs_extra

if TYPE_CHECKING:
    from emb.validate.grid.grid import Grid


def export_grid(
    source: str | Path | None = None,
    *,
    layers: Sequence[int] = (),
    dims: Sequence[int] = (),
    target: str | None = None,
    keep: bool = True,
    max_mb: float | None = None,
    min_quality: float = 0.95,
    out: str | Path | None = None,
    overwrite: bool = False,
    verify: bool = True,
    **options: Any,
) -> Grid:
    """Export every (layers, dim) pair with 8-bit weights, measure all files side by side, and choose one.

    Writes `grid.json` and `grid.html` beside the artifacts.

    Args:
        source: as for `export`.
        layers, dims: every combination; none given means every exit, every dim that was trained.
        target: a purpose, one of `emb.validate.grid.choice.TARGETS`; None chooses nothing.
        keep: leave all artifacts in place; otherwise only the chosen one stays, at `out` or `<run>/exports/<target>`.
        max_mb: largest file that may be chosen, in megabytes; 8-bit files are made to fit, as by `export`.
        min_quality: share of the best file's quality (the reference's neighbours that it finds) that a chosen one must
            keep.
        options: the other options of `export`.

    Raises:
        GateFailed: no file keeps to the limits.
        EmbError: what `export` raises.
    """
    from emb.export.given import given

    named = given(source)
    with needs_extra():
        from emb.export.options import Options
        from emb.validate.grid.choice import Limits
        from emb.validate.grid.grid import export_grid as run

    place = None if out is None else Path(out)
    limits = Limits(max_mb, min_quality)
    return run(
        named,
        layers,
        dims,
        Options(**options, max_mb=max_mb),
        target=target,
        keep=keep,
        limits=limits,
        out=place,
        overwrite=overwrite,
        verify=verify,
    )
