"""A model by run, path or name: what it is called, and where its folder lies."""

from __future__ import annotations

from pathlib import Path

from emb.artifact.runs import STATIC, run_status
from emb.errors import UsageError
from emb.teachers.registry import resolve

STUDENT = "student"  # the folder of a run's model


def locate(model: str | Path, *, trust_remote_code: bool = False) -> tuple[str, Path]:
    """Name and folder of a model; of a run, those of its student, of the static run inside a run by the outer's name.

    Raises:
        TeacherError: no such model.
        UsageError: a run without a student yet.
    """
    path = Path(model)
    if run_status(path) is not None:
        return _student_of(path)
    found = resolve(model, trust_remote_code=trust_remote_code)
    # `runs/english/student` and `exports/4x128` say more than their last part.
    return (found.path.parent.name if found.path.name == STUDENT else found.name), found.path


def _student_of(run: Path) -> tuple[str, Path]:
    student = run / STUDENT
    if not student.is_dir():
        raise UsageError(f"{run}: the run has no student yet", f"finish it: emb distill --resume --out {run}")
    inner = run.name == STATIC and run_status(run.parent) is not None
    return (run.parent if inner else run).name, student
