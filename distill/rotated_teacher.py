"""The teacher of a run for documents: rotated to them, so that its vectors and the student's can be cut."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from emb.artifact.fingerprints import weights_hash
from emb.artifact.runs import TEACHER
from emb.data.corpus import Text
from emb.distill.preparation import Searched
from emb.distill.rotation import write_rotated
from emb.errors import EmbError, UsageError
from emb.files import atomic_path
from emb.progress import note
from emb.recipes.recipe import Recipe
from emb.rotation import principal_rotation
from emb.similarity import Vectors, share_of_first, unit
from emb.teachers.capture import move_cached
from emb.teachers.registry import Resolved

ROTATION = "rotation.npy"
ASIDE = ".rotated"  # where both are written before the run begins
_SAID = 4  # the share of a quarter of the dims is told and compared
_GAIN = 0.01  # of that share: less is not worth a teacher of its own


def rotation_for(recipe: Recipe, teacher: Resolved, found: Searched | None) -> Vectors | None:
    """The rotation that the teacher gets, `(dim, dim)`, or None.

    It gets one where the recipe says so, or says nothing and the registry knows no dims that it was trained to be cut
    to; never without documents, and not where its first dims hold nearly as much as they can.

    Raises:
        EmbError: the recipe asks for it, and there is none to be had.
    """
    if recipe.rotate and (found is None or teacher.vectors is not None):
        raise UsageError(
            "--rotate: no documents to turn a model to", "add --for PATH; it takes a teacher with a folder"
        )
    entry = teacher.teacher
    trained = entry is not None and len(entry.dims) > 1
    if found is None or teacher.vectors is not None or recipe.rotate is False or (trained and not recipe.rotate):
        return None
    vectors = unit(found.vectors)
    try:
        rotation, energy = principal_rotation(vectors)
    except EmbError as error:
        if recipe.rotate:
            raise
        note(f"the teacher is not rotated: {error.message}")
        return None
    first = max(1, len(energy) // _SAID)
    plain, turned = share_of_first(vectors, first), float(energy[:first].sum() / energy.sum())
    if plain > turned - _GAIN and not recipe.rotate:
        return None
    note(
        f"the teacher is rotated to the documents: {first} dims hold {turned:.0%} of their vectors, {plain:.0%} before"
    )
    return rotation


def write_aside(teacher: Resolved, rotation: Vectors, out: Path, trust_remote_code: bool) -> None:
    """Write the rotated teacher where it is in the way of nothing, so that a failure costs no run that is there."""
    aside = out / ASIDE
    try:
        write_rotated(teacher, rotation, aside / TEACHER, trust_remote_code, overwrite=True)
        with atomic_path(aside / ROTATION) as partial, partial.open("wb") as handle:
            np.save(handle, rotation, allow_pickle=False)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise


def read_rotation(out: Path) -> Vectors | None:
    """The rotation of the teacher in a run that was interrupted: the very one, which other documents, or another
    number of threads, might not give again.
    """
    found = next((path for path in (out / ROTATION, out / ASIDE / ROTATION) if path.is_file()), None)
    return None if found is None else np.load(found, allow_pickle=False)


def rotated(
    teacher: Resolved, found: Searched, rotation: Vectors, out: Path, texts: Sequence[Text], *, write: bool
) -> tuple[Resolved, Searched]:
    """The teacher and what is searched, both rotated; what is cached of the documents and of `texts` is moved.

    Where `write` says so, the folder that was written aside takes its place in the run.
    """
    folder = out / TEACHER
    if write:
        if (out / ASIDE).is_dir():
            for name in (ROTATION, TEACHER):
                if (out / ASIDE / name).exists():
                    (out / ASIDE / name).rename(out / name)
            (out / ASIDE).rmdir()
        moved = [*(Text(each.whole) for each in found.documents), *texts]
        move_cached(weights_hash(teacher.path), weights_hash(folder), rotation, moved)
        note(f"{folder}: the teacher, rotated; documents are encoded by it")
    turned = np.asarray(found.vectors @ rotation.T)
    return Resolved(folder, f"{teacher.name}-rotated"), dataclasses.replace(found, vectors=turned)
