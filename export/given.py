"""What somebody names to export, looked at before anything is imported that takes its time."""

from __future__ import annotations

from pathlib import Path

from emb.artifact.runs import latest_run
from emb.errors import ArtifactError
from emb.teachers.registry import teachers


def given(source: str | Path | None) -> Path:
    """The folder or the registered name that is given, or the latest run.

    Raises:
        ArtifactError: nothing there, and no such name.
        UsageError: no run to take.
    """
    place = latest_run() if source is None else Path(source)
    if not place.is_dir() and str(place) not in teachers():
        raise ArtifactError(
            f"{place}: no such folder",
            "give a run, an artifact, a sentence-transformers folder, or a name of `emb models`",
        )
    return place
