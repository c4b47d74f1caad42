"""The objective: weighted terms, each taken at every (layers, dim) pair of a list, against cached teacher vectors."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor
from torch.nn.functional import cosine_similarity, mse_loss, normalize

from emb.artifact.manifest import LayerDimPair
from emb.errors import UsageError


@dataclass(frozen=True)
class Term:
    """One term of an objective, by the name that recipes call it; `source` is where it comes from.

    `law(student, teacher, unit)` gives a scalar of two prefixes `(batch, dim)`, 0 where they agree. With `unit` the
    teacher gives unit vectors, and only directions count: a cut prefix is to be normalised again on BOTH sides.
    """

    name: str
    source: str
    law: Callable[[Tensor, Tensor, bool], Tensor]


def _cosine(student: Tensor, teacher: Tensor, unit: bool) -> Tensor:
    return (1 - cosine_similarity(student, teacher)).mean()


def _l2(student: Tensor, teacher: Tensor, unit: bool) -> Tensor:
    if unit:
        student, teacher = normalize(student, dim=-1), normalize(teacher, dim=-1)
    return mse_loss(student, teacher, reduction="sum") / len(student)


_TERMS = (
    Term("cosine", "1 − cosine: of unit vectors half the squared distance", _cosine),
    Term("l2", "squared distance to the teacher's vector: LEAF (arXiv 2509.12539)", _l2),
)
TERMS = {term.name: term for term in _TERMS}
Objective = Sequence[tuple[Term, float]]


def objective_of(named: Sequence[Mapping[str, float]]) -> Objective:
    """The terms that a recipe names, with their weights: `[{cosine: 1.0}]`.

    Raises:
        UsageError: a term that is not known.
    """
    weighted = [(name, weight) for each in named for name, weight in each.items()]
    unknown = next((name for name, _ in weighted if name not in TERMS), None)
    if unknown is not None:
        raise UsageError(f"training.objective: term {unknown!r} is unknown", f"known: {', '.join(TERMS)}")
    return [(TERMS[name], weight) for name, weight in weighted]


def pair_losses(
    outputs: Mapping[int, Tensor],
    teacher_embeddings: Tensor,
    pairs: Sequence[LayerDimPair],
    *,
    objective: Objective,
    unit: bool,
) -> dict[LayerDimPair, Tensor]:
    """The objective at each pair, a scalar each.

    `outputs` maps layers to projected vectors `(batch, teacher_dim)`, not yet normalised; `teacher_embeddings` is
    `(batch, teacher_dim)`. Each pair compares prefixes of length `dim`, so that a perfect student scores 0 at every
    prefix. The list of pairs follows Starbucks (arXiv 2410.13230), with the target in the teacher's truncated
    space.
    """

    def at(pair: LayerDimPair) -> Tensor:
        student, teacher = outputs[pair.layers][:, : pair.dim], teacher_embeddings[:, : pair.dim]
        return sum((weight * term.law(student, teacher, unit) for term, weight in objective), student.new_zeros(()))

    return {pair: at(pair) for pair in pairs}
