"""The teacher of a run for documents: rotated to them, so that its vectors and the student's can be cut."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from emb.artifact.fingerprints import weights_hash
from emb.data.corpus import Text
from emb.distill.preparation import Searched
from emb.distill.rotation import principal_rotation, share_of_first, write_rotated
from emb.errors import EmbError, UsageError
from emb.progress import note
from emb.recipes.recipe import Recipe
from emb.similarity import Vectors, unit
from emb.teachers.capture import move_cached
from emb.teachers.registry import Resolved

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


def rotated(
    teacher: Resolved,
    found: Searched,
    rotation: Vectors,
    folder: Path,
    texts: Sequence[Text],
    *,
    write: bool,
    trust_remote_code: bool,
) -> tuple[Resolved, Searched]:
    """The teacher and what is searched, both rotated; what is cached of the documents and of `texts` is moved.

    The folder is written, where `write` says so, unless it is there from a run that was interrupted.
    """
    if write:
        if not folder.is_dir():
            write_rotated(teacher, rotation, folder, trust_remote_code)
        moved = [*(Text(each.whole) for each in found.documents), *texts]
        move_cached(weights_hash(teacher.path), weights_hash(folder), rotation, moved)
        note(f"{folder}: the teacher, rotated; documents are encoded by it")
    turned = np.asarray(found.vectors @ rotation.T)
    return Resolved(folder, f"{teacher.name}-rotated"), dataclasses.replace(found, vectors=turned)
