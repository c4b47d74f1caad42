"""A rotation that gives any teacher dims worth cutting: the teacher's folder with `emb.rotation` behind its vectors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from emb.artifact.fingerprints import weights_hash
from emb.data.corpus import Corpus, Text
from emb.distill.targets import corpus_of, document_vectors, documents_of, teacher_spec
from emb.errors import ArtifactError, DataError, UsageError
from emb.files import atomic_folder, atomic_path, refuse_existing
from emb.model.dense import is_linear, linear, projections
from emb.model.embedding_model import load_model, save_model
from emb.progress import note
from emb.recipes.recipe import Recipe
from emb.rotation import principal_rotation
from emb.similarity import Vectors, first_not_finite, unit
from emb.teachers.capture import move_cached
from emb.teachers.registry import Resolved, resolve

_SHARES = (32, 64, 128, 256, 384, 512)  # dims whose share is told
_EXACT = 1e-3  # largest change of a product that rounding may make


@dataclass(frozen=True)
class Rotated:
    """A rotated teacher's folder, its width, how many vectors the rotation was fitted to, and the share of their
    squared length that the first dims hold, by dim.
    """

    folder: Path
    dim: int
    vectors: int
    shares: dict[int, float]


def rotate(
    recipe: Recipe,
    out: Path,
    *,
    overwrite: bool = False,
    moved: Sequence[tuple[Path, Path]] = (),
    trust_remote_code: bool = False,
) -> Rotated:
    """Write the teacher of `recipe` once more, with a rotation fitted to its vectors of the recipe's documents, or
    texts where it names none; rotate the vectors that are cached for it, and the indexes `moved` (from, to), too.

    Raises:
        EmbError: no such teacher or texts; a teacher behind whose projection no rotation can stand; `out` is taken.
    """
    teacher = resolve(recipe.teacher, trust_remote_code=trust_remote_code)
    _check_places(teacher.path, out, [target for _, target in moved], overwrite)
    weights = weights_hash(teacher.path)
    documents = documents_of(recipe)
    corpus = Corpus([Text(each.whole) for each in documents]) if documents else corpus_of(recipe)
    vectors = document_vectors(recipe, teacher, corpus, trust_remote_code)
    rotation, energy = principal_rotation(unit(vectors))
    indexes = [(_index(source, len(rotation)), target) for source, target in moved]
    write_rotated(teacher, rotation, out, trust_remote_code, overwrite=overwrite)
    note(f"{out}: {recipe.teacher}, rotated")
    move_cached(weights, weights_hash(out), rotation)
    for vectors_of_index, target in indexes:
        with atomic_path(target) as partial, partial.open("wb") as handle:
            np.save(handle, vectors_of_index @ rotation.T, allow_pickle=False)
    shares = np.cumsum(energy) / energy.sum()
    told = {dim: float(shares[dim - 1]) for dim in _SHARES if dim < len(rotation)}
    return Rotated(out, len(rotation), len(corpus), told)


def _check_places(source: Path, out: Path, targets: Sequence[Path], overwrite: bool) -> None:
    """Nothing is written into the teacher's folder, nor over a file by a folder or the other way round."""
    here, there = source.resolve(), out.resolve()
    if here == there or here in there.parents or there in here.parents:
        raise UsageError(f"--out {out}: in the way of the teacher itself, {source}", "choose a folder beside it")
    if out.is_file():
        raise UsageError(f"--out {out}: a file", "give a folder")
    refuse_existing(out, overwrite)
    for target in targets:
        if target.suffix != ".npy" or target.is_dir() or out.resolve() in target.resolve().parents:
            raise UsageError(f"--move … {target}: not a place for an index", "give a .npy file outside of --out")
        refuse_existing(target, overwrite)


def write_rotated(
    teacher: Resolved, rotation: Vectors, out: Path, trust_remote_code: bool, *, overwrite: bool = False
) -> None:
    """Write the teacher's folder once more, at `out`, with the rotation `(dim, dim)` behind its vectors.

    Raises:
        ArtifactError: the folder gives other vectors than the teacher's, rotated.
    """
    with atomic_folder(out, replace=overwrite) as folder:
        _write(teacher, rotation, folder, trust_remote_code)


def _write(teacher: Resolved, rotation: Vectors, folder: Path, trust_remote_code: bool) -> None:
    """The model with the rotation behind its last projection, as one more projection or inside of it, and with the
    prompts that it goes by here.
    """
    source = teacher.path
    model = load_model(source, trust_remote_code=trust_remote_code)
    model.spec = teacher_spec(model.spec, teacher)
    deepest, turn = str(model.exits[-1]), torch.from_numpy(rotation)
    head = model.heads[deepest]
    before = [step for step in head if not isinstance(step, nn.Identity)] if isinstance(head, nn.Sequential) else [head]
    before = [step for step in before if not isinstance(step, nn.Identity)]
    if len(before) == 1 and is_linear(head):
        model.heads = nn.ModuleDict({deepest: linear(turn @ projections(head)[0].weight.detach())})
    else:
        model.heads = nn.ModuleDict({deepest: nn.Sequential(*before, linear(turn)) if before else linear(turn)})
    save_model(model, folder)
    _prove(source, folder, turn, trust_remote_code)


def _prove(source: Path, folder: Path, turn: torch.Tensor, trust_remote_code: bool) -> None:
    """Both folders as sentence-transformers has them: the second gives the first's vectors, turned."""
    plain, turned = (load_model(each, trust_remote_code=trust_remote_code) for each in (source, folder))
    rows = plain.tokenizer().encode(["time", "How many people know the number of the house?", "water for all of them"])
    for (_, one), (_, other) in zip(plain.embed_ids(rows), turned.embed_ids(rows), strict=True):
        error = float((one @ turn.T - other).abs().max() / one.abs().max())
        if not error <= _EXACT:
            raise ArtifactError(
                f"{source}: rotated, it gives other vectors (relative error {error:.2g})",
                "its modules are not carried as they should be",
            )


def _index(path: Path, dim: int) -> Vectors:
    from emb.data.vector_files import read_vectors

    vectors = read_vectors(path)
    if first_not_finite(vectors) is not None:
        raise DataError(f"{path}: NaN or infinity in row {first_not_finite(vectors)}", "write that index anew")
    if vectors.shape[1] != dim:
        raise UsageError(f"{path}: vectors of {vectors.shape[1]} dims, the teacher has {dim}", "give whole vectors")
    return vectors
