"""The learning rate and the order of batches, both functions of the step alone.

Nothing here keeps state, so a resumed run needs only its step number to go on as if it had never stopped.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count

import numpy as np

from emb.recipes.recipe import TrainingRecipe
from emb.tokens import Indices, token_budget_batches

_POOL = 4096


def learning_rate(step: int, total: int, recipe: TrainingRecipe) -> float:
    """The rate at a 0-based step: a linear fall per cycle, behind one linear warm-up from `lr_end`.

    LEAF (arXiv 2509.12539) trains three such cycles from 1e-4 to 1e-5.
    """
    length = max(1, -(-total // recipe.cycles))
    progress = (step % length) / length
    rate = recipe.lr + (recipe.lr_end - recipe.lr) * progress
    warmup = min(recipe.warmup_steps, total // 10)
    return recipe.lr_end + (rate - recipe.lr_end) * min(1.0, (step + 1) / (warmup + 1))


@dataclass(frozen=True)
class BatchPlan:
    """Token-budget batches of texts of like length, shuffled anew in each epoch.

    Texts are dealt at random into pools, sorted by length within a pool only, so that batches differ between epochs
    and mix queries with documents.
    """

    lengths: Sequence[int]
    tokens_per_batch: int
    seed: int

    def batches(self, start: int = 0) -> Iterator[Indices]:
        """The batches from a 0-based step on, epoch after epoch without end."""
        position = 0
        for number in count():
            epoch = self.epoch(number)
            yield from epoch[max(0, start - position) :]
            position += len(epoch)

    def epoch(self, number: int) -> list[Indices]:
        """Indices of the texts of each batch of an epoch, in order."""
        rng = np.random.default_rng([self.seed, number])
        lengths = np.asarray(self.lengths)
        order = rng.permutation(len(lengths))
        pools = np.array_split(order, max(1, len(order) // _POOL))
        batches = [
            pool[group] for pool in pools for group in token_budget_batches(lengths[pool], self.tokens_per_batch)
        ]
        return [batches[index] for index in rng.permutation(len(batches))]
