"""Words whose vectors are composed from their bytes, beside a row for each token: what a static encoder keeps of a
teacher that way, and how large it is.

    python benchmarks/byte_words.py --texts en.jsonl.gz --other queries.jsonl --teacher all-mpnet-base-v2

"bytes" reads a word's bytes with a few learned queries of attention and two matrices (as in Byte2Word, arXiv
2310.10903): no text is unknown, and nothing has a row per word. "tokens" is the teacher's own vocabulary, a row each.
"few tokens" is a WordPiece vocabulary learned from the texts, so small that its rows are as large as "bytes" in all.
All three are trained alike: cosine to the teacher's vectors of short texts, Adam, a weight beside every vector.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from common import command, machine, model_folder, parser, rounded, sample, versions
from tokenizers import Tokenizer
from tokenizers.implementations import BertWordPieceTokenizer
from torch import Tensor, nn
from torch.nn import functional

from emb.artifact.fingerprints import weights_hash
from emb.data.corpus import read_corpus
from emb.files import write_json
from emb.machine import resolve_dtype
from emb.model.embedding_model import load_model
from emb.report.tables import table
from emb.similarity import Vectors, cosines, neighbours_found
from emb.teachers.capture import capture
from emb.teachers.folder import FolderTeacher
from emb.teachers.protocol import TeacherIdentity

LONGEST = 24  # bytes of a word that are read
WIDTH, QUERIES, INNER = 128, 4, 1024
_ONE = 0.5413  # softplus gives 1
_WINDOW = 64  # tokens of a text that the teacher reads
Read = Callable[[Sequence[str]], list[list[int]]]


class Rows(nn.Module):
    """A row and a weight for each unit: `(units, dim + 1)`."""

    def __init__(self, units: int, dim: int) -> None:
        super().__init__()
        self.rows = nn.Embedding(units, dim + 1)
        nn.init.normal_(self.rows.weight, std=0.02)

    def forward(self, units: Tensor) -> Tensor:
        return self.rows(units)


class Bytes(nn.Module):
    """The same composed from bytes: a few queries attend to those of a word, two matrices make the vector."""

    def __init__(self, words: Sequence[bytes], dim: int) -> None:
        super().__init__()
        spelt = np.zeros((len(words), LONGEST), np.int64)
        for place, word in enumerate(words):
            cut = word[:LONGEST]
            spelt[place, : len(cut)] = np.frombuffer(cut, np.uint8).astype(np.int64) + 1
        self.register_buffer("spelt", torch.from_numpy(spelt), persistent=False)
        self.bytes = nn.Embedding(257, WIDTH, padding_idx=0)
        self.places = nn.Parameter(0.02 * torch.randn(LONGEST, WIDTH))
        self.queries = nn.Parameter(torch.randn(QUERIES, WIDTH) / WIDTH**0.5)
        self.local = nn.Conv1d(WIDTH, WIDTH, 3, padding=1)
        self.out = nn.Sequential(nn.Linear(QUERIES * WIDTH, INNER), nn.GELU(), nn.Linear(INNER, dim + 1))

    def forward(self, units: Tensor) -> Tensor:
        spelt = self.spelt[units]
        states = self.bytes(spelt) + self.places
        states = states + functional.gelu(self.local(states.transpose(1, 2)).transpose(1, 2))
        scores = (states @ self.queries.T).masked_fill((spelt == 0)[:, :, None], -1e9).softmax(1)
        return self.out((scores.transpose(1, 2) @ states).flatten(1))


@dataclass(frozen=True)
class Contender:
    """How texts become units, and units vectors."""

    read: Read
    module: nn.Module
    rate: float


def main() -> None:
    """Print one line per contender, and write the JSON."""
    options = parser(__doc__, texts=80_000, rounds=None)
    options.add_argument("--teacher", required=True, help="a name or a folder")
    options.add_argument("--other", required=True, help="texts of another domain, compared as well")
    options.add_argument("--held-out", type=int, default=1000, help="texts that are compared")
    options.add_argument("--epochs", type=int, default=6, help="of each training")
    given = options.parse_args()
    torch.set_num_threads(given.threads)
    torch.manual_seed(0)
    folder, dtype = model_folder(given.teacher), resolve_dtype("auto")
    model = load_model(folder, dtype=dtype)
    model.spec = dataclasses.replace(model.spec, max_length=_WINDOW)
    texts = sample(given.texts, given.limit)
    others = read_corpus([given.other]).texts[: given.held_out]
    identity = TeacherIdentity(weights_hash(folder), _WINDOW, str(dtype).removeprefix("torch."))
    known = capture(FolderTeacher(model, identity), [*texts, *others])
    targets = torch.from_numpy(known.take(range(len(texts) + len(others))))
    train = len(texts) - given.held_out
    plain = [each.text for each in [*texts, *others]]
    found: dict[str, Any] = {}
    for name, contender in contenders(model.hf_tokenizer.backend_tokenizer, plain[:train], plain, model.dim).items():
        units, start = contender.read(plain), time.monotonic()
        fit(contender, units[:train], targets[:train], given.epochs)
        seconds = time.monotonic() - start
        held_out = slice(train, len(texts)), slice(len(texts), len(plain))
        found[name] = {
            "parameters": sum(each.numel() for each in contender.module.parameters()),
            "seconds": seconds,
            **{
                f"{what}, {which}": value
                for which, part in zip(("held out", "other"), held_out, strict=True)
                for what, value in scores(vectors(contender, units[part]), targets[part].numpy()).items()
            },
        }
        print(table([(name, *rounded(found[name]).values())], ("", *found[name])))
    facts = {"command": command(), "machine": machine(), "versions": versions(), "epochs": given.epochs}
    write_json(given.out, rounded({**facts, "ways": found}))


def contenders(tokenizer: Tokenizer, train: Sequence[str], everything: Sequence[str], dim: int) -> dict[str, Contender]:
    """Each by its name."""
    words = sorted({word for text in everything for word in words_of(tokenizer, text)})
    places = {word: place for place, word in enumerate(words)}
    composed = Bytes([word.encode() for word in words], dim)
    size = sum(each.numel() for each in composed.parameters()) // (dim + 1)
    few = BertWordPieceTokenizer(lowercase=True)
    few.train_from_iterator(train, vocab_size=size, show_progress=False)
    return {
        "tokens": Contender(tokens(tokenizer), Rows(tokenizer.get_vocab_size(), dim), 1e-2),
        "few tokens": Contender(tokens(few._tokenizer), Rows(size, dim), 1e-2),
        "bytes": Contender(lambda texts: [[places[w] for w in words_of(tokenizer, t)] for t in texts], composed, 1e-3),
    }


def tokens(tokenizer: Tokenizer) -> Read:
    """Texts as its ids, without special tokens."""
    plain = Tokenizer.from_str(tokenizer.to_str())
    plain.no_truncation()
    plain.no_padding()
    return lambda texts: [each.ids for each in plain.encode_batch_fast(list(texts), add_special_tokens=False)]


def words_of(tokenizer: Tokenizer, text: str) -> list[str]:
    """The words of a text as the tokenizer splits it, before it looks into them."""
    return [word for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(tokenizer.normalizer.normalize_str(text))]


def embed(module: nn.Module, units: Sequence[Sequence[int]]) -> Tensor:
    """Vectors `(texts, dim)` of length 1: weighted sums of the units' own."""
    flat = torch.tensor([unit for text in units for unit in text], dtype=torch.long)
    unique, inverse = flat.unique(return_inverse=True)
    made = module(unique)
    weighted = (made[:, :-1] * functional.softplus(made[:, -1:] + _ONE))[inverse]
    rows = torch.repeat_interleave(torch.arange(len(units)), torch.tensor([len(text) for text in units]))
    sums = torch.zeros(len(units), made.shape[1] - 1).index_add(0, rows, weighted)
    return functional.normalize(sums, dim=1)


def fit(contender: Contender, units: Sequence[Sequence[int]], targets: Tensor, epochs: int, batch: int = 512) -> None:
    """Train towards `targets` `(texts, dim)`; the rate falls to nothing."""
    steps = epochs * (len(units) // batch)
    optimiser = torch.optim.Adam(contender.module.parameters(), contender.rate)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: min(1, (step + 1) / 50) * (1 - step / steps))
    order = np.random.default_rng(0)
    for _ in range(epochs):
        shuffled = order.permutation(len(units))
        for start in range(0, len(units) - batch + 1, batch):
            part = shuffled[start : start + batch]
            said = embed(contender.module, [units[row] for row in part])
            loss = 1 - (said * functional.normalize(targets[part], dim=1)).sum(1).mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()


@torch.inference_mode()
def vectors(contender: Contender, units: Sequence[Sequence[int]]) -> Vectors:
    """Vectors `(texts, dim)` of texts as units."""
    return np.asarray(embed(contender.module, units).numpy())


def scores(said: Vectors, truth: Vectors) -> dict[str, float]:
    """Mean cosine, and the share of the ten nearest texts that queries of the encoder find among the teacher's."""
    return {"cosine": float(cosines(said, truth).mean()), "found": neighbours_found(truth, said, truth)}


if __name__ == "__main__":
    main()
