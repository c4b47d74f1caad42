"""What a model keeps with a part of its token rows, by the way in which they are chosen, and what training them brings.

    python benchmarks/smaller_tables.py --texts en.jsonl.gz --other corpus.jsonl.gz --model all-MiniLM-L6-v2 \\
        --ways counts,influence

Rows are chosen on some texts; others are then read with a tokenizer that has no other tokens, and their vectors are
held against the whole model's. Ways that a run leaves out stay in the JSON as an earlier one found them. Seconds are
those of this run: a training that goes on from a checkpoint took longer.
"""

from __future__ import annotations

import copy
import hashlib
import random
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import command, machine, model_folder, parser, rounded, sample, versions
from torch import Tensor, nn

from emb.artifact.manifest import LayerDimPair
from emb.data.corpus import Text, read_corpus
from emb.distill.train import Split, Training, freeze
from emb.files import atomic_path, read_json, write_json
from emb.model.embedding_model import EmbeddingModel, load_model
from emb.report.tables import table
from emb.similarity import Vectors, cosines
from emb.teachers.cache import in_memory
from emb.tokens import Rows
from emb.vocabulary.adaptation.gates import choosing_recipe
from emb.vocabulary.adaptation.learned_pruning import kept_by_thresholds
from emb.vocabulary.adaptation.row_masks import kept_by_masks
from emb.vocabulary.choice import fallback_rows
from emb.vocabulary.factorised import factorised
from emb.vocabulary.influence import kept_by_counts, kept_by_influence
from emb.vocabulary.reading import rows_by
from emb.vocabulary.readings import Readings
from emb.vocabulary.surgery import embedding_of, fixed_ids, tokenizer_json

SETTINGS = ("limit", "held_out", "rows", "steps")


@dataclass(frozen=True)
class Ground:
    """What the ways choose on: a model, texts, how many rows stay, steps where there is training, a folder for it."""

    model: EmbeddingModel
    readings: Readings
    rows: int
    steps: int
    folder: Path

    @property
    def table(self) -> Tensor:
        """The token table `(rows, hidden)`."""
        return embedding_of(self.model).weight.detach()

    def split(self) -> Split:
        """The texts and the model's own vectors of them."""
        rows = self.model.tokenizer().encode(self.readings.texts)
        return Split(rows, in_memory(known_vectors(self.model, rows, self.folder)))


def main() -> None:
    """Print one line per way, and write the JSON."""
    options = parser(__doc__, texts=3000, rounds=None)
    options.add_argument("--model", required=True, help="a name or a folder")
    options.add_argument("--other", required=True, help="texts of another domain; their first sentences are read")
    options.add_argument("--held-out", type=int, default=1000, help="texts of each kind that are compared")
    options.add_argument("--rows", type=int, default=8000, help="rows that stay")
    options.add_argument("--steps", type=int, default=110, help="of each training")
    options.add_argument("--folder", type=Path, help="vectors and checkpoints; the next run goes on from there")
    options.add_argument("--ways", default=",".join(WAYS), help="which to measure")
    given = options.parse_args()
    torch.set_num_threads(given.threads)
    torch.manual_seed(0)
    model = load_model(model_folder(given.model))
    texts = [item.text for item in sample(given.texts, given.limit + given.held_out)]
    domains = {"held out": texts[given.limit :], "other": first_sentences(given.other, given.held_out)}
    settings = {name: getattr(given, name) for name in SETTINGS}
    found = earlier(given.out, settings)
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.folder or Path(temporary)
        folder.mkdir(exist_ok=True)
        known = {k: known_vectors(model, model.tokenizer().encode(each), folder) for k, each in domains.items()}
        readings = Readings(tokenizer_json(model), texts[: given.limit], fixed_ids(model))
        ground = Ground(model, readings, given.rows, given.steps, folder)
        for way in given.ways.split(","):
            start = time.monotonic()
            smaller, kept = WAYS[way](ground)
            found[way] = {"seconds": time.monotonic() - start, **scores(ground, smaller, kept, domains, known)}
            facts = {"command": command(), "machine": machine(), "versions": versions(), "settings": settings}
            write_json(given.out, rounded({**facts, "ways": found}))
            print(table([(way, *found[way].values())], ("", *found[way])))


def earlier(out: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """What earlier runs found under the same settings."""
    before = read_json(out) if out.is_file() else {}
    return dict(before["ways"]) if before.get("settings") == settings else {}


def first_sentences(file: str, count: int) -> list[str]:
    """The first sentences of `count` texts of a file."""
    texts = read_corpus([file]).texts
    return [item.text.split(". ")[0] for item in random.Random(0).sample(texts, min(count, len(texts)))]


def scores(
    ground: Ground,
    smaller: EmbeddingModel,
    kept: Sequence[int],
    domains: dict[str, list[str]],
    known: dict[str, Vectors],
) -> dict[str, float]:
    """By domain, the mean cosine of a `smaller` model to what is `known`, and how much longer texts become."""
    found = {}
    for name, texts in domains.items():
        rows, before = read_with(ground, kept, texts), read_with(ground, ground.readings.ids, texts)
        found[f"cosine, {name}"] = float(cosines(vectors_of(smaller, rows), known[name]).mean())
        found[f"length, {name}"] = sum(map(len, rows)) / sum(map(len, before))
    return found


def read_with(ground: Ground, kept: Sequence[int], texts: Sequence[str]) -> Rows:
    """Token ids of `texts` with the tokens `kept` alone: places in `kept`."""
    return rows_by(ground.model, ground.readings.tokenizer(kept), [Text(text) for text in texts])


def vectors_of(model: EmbeddingModel, rows: Rows) -> Vectors:
    """A model's vectors `(texts, dim)` of token ids."""
    found = np.zeros((len(rows), model.dim), np.float32)
    for places, vectors in model.embed_ids(rows, tokens_per_batch=2048):
        found[places] = vectors.numpy()
    return found


def known_vectors(model: EmbeddingModel, rows: Rows, folder: Path) -> Vectors:
    """The same, from a file in `folder` if it is there already."""
    name = hashlib.blake2b(b"\0".join(row.tobytes() for row in rows), digest_size=8).hexdigest()
    file = folder / f"vectors-{name}.npy"
    if not file.is_file():
        found = vectors_of(model, rows)
        with atomic_path(file) as partial, partial.open("wb") as opened:
            np.save(opened, found)
    return np.asarray(np.load(file), np.float32)


def cut(ground: Ground, kept: list[int]) -> tuple[EmbeddingModel, list[int]]:
    """The model with the rows `kept` alone, and their former ids."""
    smaller = copy.deepcopy(ground.model)
    embedding_of(smaller).weight = nn.Parameter(ground.table[kept].clone())
    return smaller, kept


def by_counts(ground: Ground) -> list[int]:
    """The rows that the texts use most."""
    return kept_by_counts(ground.readings, ground.rows)


def by_influence(ground: Ground, rounds: int = 4) -> list[int]:
    """The rows that are read most and are furthest from their pieces."""
    return kept_by_influence(ground.table, ground.readings, ground.rows, rounds)


def by_gates(ground: Ground, way: Callable[..., list[int]], lr: float) -> list[int]:
    """The rows whose gates training leaves open; a closed one is read as the mean of its pieces."""
    kept = by_counts(ground)  # pieces that will probably be there
    pieces = ground.readings.pieces(set(ground.readings.ids) - set(ground.readings.always), kept)
    return way(
        ground.model,
        ground.split(),
        rows=ground.rows,
        always=ground.readings.always,
        recipe=choosing_recipe(ground.steps, lr),
        folder=ground.folder,
        fallback=fallback_rows(ground.table, pieces),
    )


class RowTraining(Training):
    """Training of the token rows alone."""

    def parameter_groups(self) -> list[dict[str, Any]]:
        freeze(self.student, True)
        self.student.requires_grad_(False)
        rows = list(embedding_of(self.student).requires_grad_(True).parameters())
        return [{"params": rows, "scale": 1.0}]

    def evaluate(self) -> list[Any]:
        """Nothing: the scores come afterwards, in whole."""
        return []


def trained(ground: Ground, inner: int | None) -> tuple[EmbeddingModel, list[int]]:
    """The rows chosen by influence, trained towards the whole model; plain, or as a product of an inner dim."""
    smaller, kept = cut(ground, by_influence(ground))
    rows = read_with(ground, kept, ground.readings.texts)
    train = Split(rows, ground.split().targets)
    recipe = choosing_recipe(ground.steps, 1e-3)
    pair = LayerDimPair(smaller.exits[-1], smaller.dim)
    one = Split(rows[:1], in_memory(train.targets.take([0])))
    place = ground.folder / f"rows-{inner}"
    place.mkdir(exist_ok=True)
    with ExitStack() as stack:
        if inner:
            stack.enter_context(factorised(smaller, inner))
        RowTraining(smaller, train, one, [pair], recipe, place, "rows").run()
    return smaller, kept


WAYS: dict[str, Callable[[Ground], tuple[EmbeddingModel, list[int]]]] = {
    "counts": lambda ground: cut(ground, by_counts(ground)),
    "influence": lambda ground: cut(ground, by_influence(ground)),
    "influence-at-once": lambda ground: cut(ground, by_influence(ground, rounds=1)),
    "masks": lambda ground: cut(ground, by_gates(ground, kept_by_masks, 0.02)),
    "thresholds": lambda ground: cut(ground, by_gates(ground, kept_by_thresholds, 0.03)),
    "influence-trained": lambda ground: trained(ground, None),
    "influence-factorised": lambda ground: trained(ground, 2 * ground.table.shape[1]),
}


if __name__ == "__main__":
    main()
