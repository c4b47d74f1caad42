"""Text to token ids, token ids to padded batches, and what is lost where texts are cut. Needs no torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from emb.beginnings import Beginnings
from emb.errors import ArtifactError
from emb.files import read_json
from emb.progress import warn

Ids = np.ndarray[Any, np.dtype[np.int64]]
Batch = tuple[Ids, Ids]
Indices = np.ndarray[Any, np.dtype[np.int64]]
Row = np.ndarray[Any, Any]  # token ids of a text, (tokens,)
Rows = Sequence[Row]
MAX_TEXTS = 1024  # of a batch, however short they are
_BEGINNING, _MORE = 16, 4  # characters for each token that is read, and times as many where these did not do


def prompt_of(prompts: Mapping[str, str], kind: str) -> str:
    """The prompt of a "query" or a "document": E5 and its like call that of documents "passage", others "corpus"."""
    names = ("document", "passage", "corpus") if kind == "document" else (kind,)
    return next((prompts[name] for name in names if prompts.get(name)), "")


class TextTokenizer:
    """A `tokenizers.Tokenizer` with this project's conventions.

    Padding and truncation stored in `tokenizer.json` are ignored (all-MiniLM-L6-v2 ships with a fixed length of
    128): texts are cut at `max_length` tokens, special tokens included, and padded to the longest of their batch.
    `side` is the one where they are cut.
    """

    def __init__(
        self, tokenizer: Tokenizer, *, max_length: int, pad_id: int, lowercase: bool = False, side: str = "right"
    ) -> None:
        self.tokenizer = tokenizer
        self.tokenizer.no_padding()
        self.tokenizer.enable_truncation(max_length, direction=side)
        self.max_length = max_length
        self.pad_id = pad_id
        self.lowercase = lowercase
        self.truncation_side = side
        self._beginnings = Beginnings(tokenizer)
        self._unknown = {tokenizer.token_to_id(name) for name in ("[UNK]", "<unk>")}
        self._around: dict[str, Counter[int]] = {}

    def cut_at(self, max_length: int) -> TextTokenizer:
        """The same, cutting at `max_length` tokens where it reads more; both share what is below, so use the new one
        only.
        """
        shorter = min(self.max_length, max_length)
        return TextTokenizer(
            self.tokenizer, max_length=shorter, pad_id=self.pad_id, lowercase=self.lowercase, side=self.truncation_side
        )

    @classmethod
    def from_folder(cls, folder: Path, max_length: int) -> TextTokenizer:
        """Read `tokenizer.json` and the pad token of `tokenizer_config.json`.

        Raises:
            ArtifactError: a file is missing or damaged.
        """
        path = folder / "tokenizer.json"
        if not path.is_file():
            raise ArtifactError(f"{path}: no such file", "a folder that can be served holds a tokenizer.json")
        tokenizer = Tokenizer.from_file(str(path))
        config = read_json(folder / "tokenizer_config.json")
        lowercase = (folder / "sentence_bert_config.json").is_file() and bool(
            read_json(folder / "sentence_bert_config.json").get("do_lower_case")
        )
        side = config.get("truncation_side", "right")
        return cls(tokenizer, max_length=max_length, pad_id=_pad_id(tokenizer, config), lowercase=lowercase, side=side)

    def encode(
        self, texts: Sequence[str], prompts: Sequence[str] | str = ""
    ) -> list[np.ndarray[Any, np.dtype[np.int32]]]:
        """Token ids of each text behind its prompt (one for all, or one per text)."""
        return [ids for ids, _ in self.read(texts, prompts)]

    def read(
        self, texts: Sequence[str], prompts: Sequence[str] | str = ""
    ) -> list[tuple[np.ndarray[Any, np.dtype[np.int32]], bool]]:
        """The same, each with whether the text is longer than that.

        Of a long text no more is tokenised than what its tokens are sure to come from, where the tokenizer admits that.
        """
        whole = self.written(texts, prompts)
        # In chunks: an `Encoding` holds some 100 bytes per token until its ids are taken out.
        chunks = (whole[start : start + 2048] for start in range(0, len(whole), 2048))
        return [found for chunk in chunks for found in self._read(chunk)]

    def _read(self, whole: Sequence[str]) -> list[tuple[np.ndarray[Any, np.dtype[np.int32]], bool]]:
        found, waiting, size = {}, list(range(len(whole))), _BEGINNING * self.max_length
        while waiting:
            parts = [self._beginning(whole[index], size) for index in waiting]
            again = []
            for index, part, encoding in zip(waiting, parts, self._encodings(parts), strict=True):
                cut = len(encoding.ids) >= self.max_length and bool(encoding.overflowing)
                if cut or len(part) == len(whole[index]):
                    found[index] = (np.asarray(encoding.ids, np.int32), cut)
                else:
                    again.append(index)
            waiting, size = again, _MORE * size
        return [found[index] for index in range(len(whole))]

    def _encodings(self, parts: Sequence[str]) -> list[Any]:
        if len(parts) == 1:  # a batch goes to other threads, which take longer to wake than one text takes
            return [self.tokenizer.encode(parts[0])]
        return list(self.tokenizer.encode_batch_fast(parts))

    def _beginning(self, text: str, size: int) -> str:
        return self._beginnings.of(text, size) if self.truncation_side == "right" else text

    def written(self, texts: Sequence[str], prompts: Sequence[str] | str = "") -> list[str]:
        """The texts behind their prompts, in the case in which they are read."""
        each = [prompts] * len(texts) if isinstance(prompts, str) else prompts
        whole = [prompt + text for prompt, text in zip(each, texts, strict=True)]
        return [text.lower() for text in whole] if self.lowercase else whole

    def knows(self, row: np.ndarray[Any, Any], prompt: str = "") -> bool:
        """Whether `row`, which `encode` gave for a text behind `prompt`, holds any token but the prompt's, special ones
        and that for what is unknown.
        """
        around = self._around.get(prompt)
        if around is None:
            around = self._around[prompt] = Counter(self.encode([""], prompt)[0].tolist())
        ids = row.tolist()
        if any(token not in around and token not in self._unknown for token in ids):
            return True
        return not self._unknown.issuperset(Counter(ids) - around)

    def pad(self, rows: Sequence[np.ndarray[Any, Any]], side: str = "right") -> Batch:
        """Padded `input_ids` and `attention_mask`, each `(batch, longest)` int64."""
        if len(rows) == 1 and len(rows[0]):  # a query, alone: there is nothing to fill
            return np.asarray(rows[0], np.int64)[None], np.ones((1, len(rows[0])), np.int64)
        longest = max(1, max(len(row) for row in rows))
        ids = np.full((len(rows), longest), self.pad_id, np.int64)
        mask = np.zeros((len(rows), longest), np.int64)
        for index, row in enumerate(rows):
            place = slice(0, len(row)) if side == "right" else slice(longest - len(row), longest)
            ids[index, place] = row
            mask[index, place] = 1
        return ids, mask


def token_budget_batches(
    lengths: Sequence[int] | np.ndarray[Any, Any], budget: int, max_texts: int = MAX_TEXTS
) -> list[Indices]:
    """Indices of texts of like length, grouped so that texts × longest ≤ `budget` tokens.

    Longest first, so that the largest batch (and any lack of memory) comes at once. A text longer than the budget
    makes a batch of its own.
    """
    lengths = np.asarray(lengths)
    order = np.argsort(-lengths, kind="stable")
    batches, start = [], 0
    while start < len(order):
        size = max(1, min(max_texts, budget // max(1, int(lengths[order[start]]))))
        batches.append(order[start : start + size])
        start += size
    return batches


def _pad_id(tokenizer: Tokenizer, config: dict[str, Any]) -> int:
    token = config.get("pad_token") or config.get("eos_token") or ""
    content = token.get("content", "") if isinstance(token, dict) else token
    return tokenizer.token_to_id(content) or 0


_SAID_ABOVE = 0.01  # of the texts
_CHUNK = 256  # texts whose every token is held at a time


@dataclass(frozen=True)
class Cut:
    """Of so many `texts`, how many were `cut` at `limit` tokens, and the `tokens_lost` by that."""

    texts: int
    cut: int
    tokens_lost: int
    limit: int

    def __add__(self, other: Cut) -> Cut:
        """Both together, of one limit."""
        return Cut(self.texts + other.texts, self.cut + other.cut, self.tokens_lost + other.tokens_lost, self.limit)


def count_cut(
    tokenizer: TextTokenizer,
    texts: Sequence[str],
    prompts: Sequence[str] | str = "",
    rows: Sequence[np.ndarray[Any, Any]] | None = None,
) -> Cut:
    """Count the `texts` that `tokenizer` cuts behind their `prompts` (one for all, or one per text), and the tokens
    lost.

    Args:
        rows: what `tokenizer.encode` gave for them, if that is known: then only texts as long as the limit are read
            again.
    """
    each = [prompts] * len(texts) if isinstance(prompts, str) else prompts
    rows = tokenizer.encode(texts, each) if rows is None else rows
    whole = [each[index] + texts[index] for index, row in enumerate(rows) if len(row) >= tokenizer.max_length]
    lost = [count for count in _lost(tokenizer, whole) if count]
    return Cut(len(texts), len(lost), sum(lost), tokenizer.max_length)


def tell(cut: Cut, what: str, mend: str = "") -> None:
    """Warn where more than 1 % of texts were cut; `what` says which texts they are, `mend` how more is read."""
    if cut.cut <= _SAID_ABOVE * cut.texts:
        return
    share = f"{cut.cut:,} of {cut.texts:,} ({cut.cut / cut.texts:.0%})"
    warn(
        f"{what}: {share} are longer than the {cut.limit:,} tokens that are read; {cut.tokens_lost:,} tokens are left"
        f" out{mend and '; ' + mend}"
    )


def _lost(tokenizer: TextTokenizer, whole: Sequence[str]) -> Iterable[int]:
    special = tokenizer.tokenizer.num_special_tokens_to_add(False)
    for start in range(0, len(whole), _CHUNK):
        chunk = whole[start : start + _CHUNK]
        # What was cut off lies beside each row, in pieces with special tokens of their own.
        for encoding in tokenizer.tokenizer.encode_batch_fast(
            [text.lower() for text in chunk] if tokenizer.lowercase else chunk
        ):
            yield sum(len(piece) - special for piece in encoding.overflowing)
