"""A gate per row of the token table, trained to say which rows are worth keeping; the model itself stays as it is."""

from __future__ import annotations

import copy
import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from emb.artifact.manifest import LayerDimPair
from emb.distill.train import Split, Training, freeze
from emb.files import disk_errors
from emb.model.embedding_model import EmbeddingModel
from emb.recipes.recipe import TrainingRecipe
from emb.teachers.cache import TeacherEmbeddings
from emb.tokens import Indices
from emb.vocabulary.choice import check_wanted, highest
from emb.vocabulary.surgery import embedding_of, table_of

_NEVER = 10**9
_PRESSURE = 100.0  # a gap of 1 % between the open rows and the wanted ones weighs as much as a loss of 1


class Gates(nn.Module, ABC):
    """How far each row is open: at 1 it is read as it stands, at 0 as its fallback. Rows in `always` stay at 1."""

    fixed: Tensor

    def __init__(self, rows: int, always: Collection[int]) -> None:
        super().__init__()
        fixed = torch.zeros(rows, dtype=torch.bool)
        fixed[sorted(always)] = True
        self.register_buffer("fixed", fixed, persistent=False)

    def forward(self) -> Tensor:
        """How far each row is open `(rows,)`, from 0 to 1."""
        return torch.where(self.fixed, 1.0, self.openness())

    @abstractmethod
    def openness(self) -> Tensor:
        """The same as if no row were held open."""

    @abstractmethod
    def scores(self) -> Tensor:
        """How much each row is worth `(rows,)`, on any scale."""

    @abstractmethod
    def pressure(self) -> Tensor:
        """A scalar that falls as gates close."""


def choosing_recipe(steps: int, lr: float, tokens_per_batch: int = 1024, seed: int = 0) -> TrainingRecipe:
    """A training of gates alone: their numbers are of the order of 1, so the rate is far above that of weights."""
    return TrainingRecipe(
        epochs=1000,
        max_steps=steps,
        lr=lr,
        lr_end=lr / 10,
        warmup_steps=0,
        weight_decay=0,
        tokens_per_batch=tokens_per_batch,
        seed=seed,
        evaluate_every=_NEVER,
    )


def kept_by_gates(
    model: EmbeddingModel,
    gates: Gates,
    train: Split,
    *,
    rows: int,
    always: Collection[int],
    recipe: TrainingRecipe,
    folder: Path,
    fallback: Tensor | None,
) -> list[int]:
    """Train `gates` on a copy of `model`; the ids of the `rows` rows that they score highest, ascending.

    Checkpoints lie below `folder`: the same call goes on where an interrupted one stopped.

    Raises:
        UsageError: `rows` is fewer than must stay, or more than there are.
        KeyboardInterrupt: Ctrl-C, after a checkpoint.
    """
    table = table_of(model)
    check_wanted(rows, len(table), always)
    fallback = torch.zeros_like(table) if fallback is None else fallback
    identity = _identity(model, gates, train, fallback, [rows, sorted(always), recipe.identity()])
    place = folder / f"{type(gates).__name__.lower()}-{identity[:12]}"  # under other settings another: none to refuse
    with disk_errors(place):
        place.mkdir(parents=True, exist_ok=True)
    student = copy.deepcopy(model)
    student.register_module("gates", gates)
    with gated(student, gates, fallback):
        _Choosing(student, gates, train, rows, recipe, place, identity).run()
    return highest(gates.scores().detach().cpu(), rows, always)


@contextmanager
def gated(model: EmbeddingModel, gates: Gates, fallback: Tensor) -> Iterator[None]:
    """Until the end of the block, `model` reads each row as far as its gate is open, for the rest its `fallback`.

    `fallback` is `(rows, hidden)`; zeros are the papers' setting, in which a closed row says nothing.
    """

    def mixed(table: nn.Module, inputs: tuple[Tensor, ...], own: Tensor) -> Tensor:
        ids = inputs[0]
        instead = fallback.to(own.device)[ids]
        return torch.lerp(instead, own, gates()[ids].unsqueeze(-1))

    handle = embedding_of(model).register_forward_hook(mixed)
    try:
        yield
    finally:
        handle.remove()


class _Choosing(Training):
    def __init__(
        self,
        student: EmbeddingModel,
        gates: Gates,
        train: Split,
        rows: int,
        recipe: TrainingRecipe,
        folder: Path,
        identity: str,
    ) -> None:
        self.gates = gates
        free = len(gates.fixed) - int(gates.fixed.sum())
        self.wanted = (rows - int(gates.fixed.sum())) / max(free, 1)  # share of the rows that may close
        pair = LayerDimPair(student.exits[-1], train.targets.dim)
        one = Split(train.rows[:1], TeacherEmbeddings(train.targets.shards, train.targets.places[:1]))
        super().__init__(student, train, one, [pair], recipe, folder, identity)

    def parameter_groups(self) -> list[dict[str, Any]]:
        freeze(self.student, False)
        self.student.requires_grad_(False)
        self.gates.requires_grad_(True)
        return [{"params": list(self.gates.parameters()), "scale": 1.0}]

    def evaluate(self) -> list[Any]:
        """Nothing: what counts is the table without the rows, and whoever asked for them cuts it."""
        return []

    def mend(self) -> str:
        return f"lower the learning rate of the choice (it is {self.recipe.lr:g})"

    def batch_loss(self, batch: Indices) -> Tensor:
        """The distance to the targets, and a pressure for as long as more rows are open than should be by now."""
        return super().batch_loss(batch) + _PRESSURE * self._excess() * self.gates.pressure()

    def _excess(self) -> Tensor:
        # By the step alone, for the sake of resuming: the share falls to the wanted one within the first half.
        share = max(self.wanted, 1 - (1 - self.wanted) * 2 * self.step / self.total)
        return (self.gates.openness().detach()[~self.gates.fixed].mean() - share).clamp(min=0)


def _identity(model: EmbeddingModel, gates: Gates, train: Split, fallback: Tensor, facts: list[Any]) -> str:
    """Everything the choice depends on."""
    state = hashlib.blake2b(digest_size=16)
    for module in (model, gates):
        for name, value in sorted(module.state_dict().items()):
            state.update(name.encode() + value.detach().cpu().contiguous().numpy().tobytes())
    state.update(fallback.detach().cpu().contiguous().numpy().tobytes())
    for index, row in enumerate(train.rows):
        state.update(row.tobytes() + b"\0" + train.targets.take([index]).tobytes())
    state.update(json.dumps(facts, sort_keys=True).encode())
    return state.hexdigest()
