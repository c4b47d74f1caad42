"""Serving: texts to vectors from an artifact, with onnxruntime, tokenizers and numpy alone."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from emb.errors import ArtifactError, MissingExtra, UsageError
from emb.finite import NotFiniteError, require_finite
from emb.manifest import Manifest, Variant, is_artifact
from emb.serve.engine import open_engine
from emb.tokens import Batch, Ids, TextTokenizer, prompt_of, token_budget_batches

Vectors = np.ndarray[Any, np.dtype[Any]]
BACKENDS = ("auto", "onnx", "torch")


class Encoder(ABC):
    """Texts to vectors `(texts, dim)`; the model behind it is the subclass's.

    Attributes:
        tokenizer: cuts texts at the model's `max_length` tokens.
        dim: width of the vectors.
        prompts: prefix per kind of text, "query" and "document".
        normalize: whether vectors have length 1, also after a cut to fewer dims.
    """

    def __init__(self, tokenizer: TextTokenizer, *, dim: int, prompts: dict[str, str], normalize: bool) -> None:
        self.tokenizer = tokenizer
        self.dim = dim
        self.prompts = prompts
        self.normalize = normalize

    @property
    def max_length(self) -> int:
        """Tokens of a text that are read, special tokens included."""
        return self.tokenizer.max_length

    def encode(self, texts: Sequence[str], *, kind: str = "document", dim: int | None = None, tokens_per_batch: int = 512, progress: bool = False) -> Vectors:
        """Vectors `(texts, dim)` of `texts` behind the prompt of `kind`, in the order given.

        Texts of like length are run together in batches of at most `tokens_per_batch` tokens.
        `dim` keeps the first dimensions only. A variant with int8 or binary outputs returns
        those as they are stored: int8 `(texts, dim)`, uint8 `(texts, dim / 8)`.

        Raises:
            UsageError: an unknown kind, a `dim` beyond the model's, one string instead of a list, or an item that is no text.
            ArtifactError: a vector that is not finite; the text is named.
        """
        if isinstance(texts, str):
            raise UsageError("encode() takes a list of texts and got one string", "write encode([text])")
        for index, text in enumerate(texts):
            if not isinstance(text, str):
                raise UsageError(f"encode() takes texts and got {type(text).__name__} at item {index}", "give a list of str")
        rows = self.tokenizer.encode(texts, self._prompt(kind))
        vectors = self.encode_ids(rows, dim=dim, tokens_per_batch=tokens_per_batch, progress=progress)
        require_finite(vectors, texts)
        return vectors

    def encode_query(self, texts: Sequence[str], **options: Any) -> Vectors:
        """`encode` with the prompt of queries."""
        return self.encode(texts, kind="query", **options)

    def encode_document(self, texts: Sequence[str], **options: Any) -> Vectors:
        """`encode` with the prompt of documents."""
        return self.encode(texts, kind="document", **options)

    def encode_stream(self, texts: Iterable[str], *, block: int = 4096, **options: Any) -> Iterator[Vectors]:
        """`encode` of texts without end: vectors `(block, dim)` at a time, in order; the last block may be shorter."""
        source, count = iter(texts), 0
        while part := list(islice(source, block)):
            try:
                yield self.encode(part, **options)
            except NotFiniteError as error:
                raise error.placed(count) from None
            count += len(part)

    async def encode_async(self, texts: Sequence[str], **options: Any) -> Vectors:
        """`encode` in a thread: an event loop goes on serving meanwhile."""
        return await asyncio.to_thread(self.encode, texts, **options)

    def encode_ids(self, rows: Sequence[np.ndarray[Any, Any]], *, dim: int | None = None, tokens_per_batch: int = 512, side: str = "right", progress: bool = False) -> Vectors:
        """Vectors `(texts, dim)` of tokenised texts; `side` is where padding goes."""
        self._check(dim)
        if len(rows) == 1:  # a query: what follows would take a hundredth of its time
            return self._cut(self.run(*self.tokenizer.pad(rows, side)), dim)
        batches = token_budget_batches([len(row) for row in rows], tokens_per_batch)
        padded = [partial(self._padded, rows, batch, side) for batch in batches]
        vectors: Vectors | None = None
        with _bar(len(rows), progress) as advance:
            for batch, part in zip(batches, self._run_each(padded), strict=True):
                vectors = np.empty((len(rows), part.shape[1]), part.dtype) if vectors is None else vectors
                vectors[batch] = part
                advance(len(batch))
        return self._cut(np.empty((0, self.dim), np.float32) if vectors is None else vectors, dim)

    @abstractmethod
    def run(self, input_ids: Ids, attention_mask: Ids) -> Vectors:
        """Vectors `(batch, dim)` of one padded batch, inputs `(batch, tokens)`."""

    def _run_each(self, padded: Sequence[Callable[[], Batch]]) -> Iterator[Vectors]:
        for each in padded:
            yield self.run(*each())

    def _padded(self, rows: Sequence[np.ndarray[Any, Any]], batch: np.ndarray[Any, Any], side: str) -> Batch:
        return self.tokenizer.pad([rows[i] for i in batch], side)

    def _prompt(self, kind: str) -> str:
        if kind not in ("query", "document"):
            raise UsageError(f"kind {kind!r} is unknown", 'kinds are "query" and "document"')
        return prompt_of(self.prompts, kind)

    def _check(self, dim: int | None) -> None:
        if dim is not None and not 1 <= dim <= self.dim:
            raise UsageError(f"dim {dim}: the model has {self.dim}", f"choose 1 to {self.dim}")

    def _cut(self, vectors: Vectors, dim: int | None) -> Vectors:
        if dim is None or dim == vectors.shape[1]:
            return vectors
        if vectors.dtype != np.float32:
            raise UsageError(f"dim {dim}: {vectors.dtype} vectors cannot be cut", "export the artifact at that dim, or use a float variant")
        cut = vectors[:, :dim]
        return cut / np.maximum(np.linalg.norm(cut, axis=1, keepdims=True), 1e-12) if self.normalize else np.ascontiguousarray(cut)


class OnnxEncoder(Encoder):
    """A file of an artifact behind the runtime it is made for, onnxruntime unless another is asked for; imports no torch."""

    def __init__(self, folder: str | Path, file: str | None = None, threads: int | None = None) -> None:
        """Open `folder/file`; without `file`, the smallest that passed its gate.

        Raises:
            ArtifactError: not an artifact, or without a usable ONNX file.
            MissingExtra: `file` is another runtime's, which is not installed.
        """
        folder = Path(folder)
        manifest = Manifest.load(folder)
        self.variant = manifest.variant(file) if file else _best(manifest, folder)
        tokenizer = TextTokenizer.from_folder(folder, manifest.max_length)
        super().__init__(tokenizer, dim=manifest.dim, prompts=manifest.prompts, normalize=manifest.normalize)
        self.runner = open_engine(folder, manifest, self.variant.file, threads)

    def run(self, input_ids: Ids, attention_mask: Ids) -> Vectors:
        """Vectors `(batch, dim)` of one padded batch, inputs `(batch, tokens)`."""
        return self.runner.run((input_ids, attention_mask))

    def _run_each(self, padded: Sequence[Callable[[], Batch]]) -> Iterator[Vectors]:
        return self.runner.run_each(padded)


def load(path: str | Path, *, backend: str = "auto", file: str | None = None, threads: int | None = None) -> Encoder:
    """Open an artifact, or any sentence-transformers folder, for encoding.

    `backend` "auto" takes an ONNX file if there is one that has not failed its gate (int8 before
    fp32) and torch otherwise; `file` names one file, also of another toolchain.

    Raises:
        ArtifactError: not a model folder, or no usable ONNX file.
        MissingExtra: torch, or the runtime of `file`, is needed and not installed.
    """
    folder = Path(path)
    if backend not in BACKENDS:
        raise UsageError(f"backend {backend!r} is unknown", f"known: {', '.join(BACKENDS)}")
    if not folder.is_dir():
        raise ArtifactError(f"{folder}: no such folder", "give an artifact or a sentence-transformers folder")
    if backend == "onnx" or file or (backend == "auto" and _has_onnx(folder)):
        return OnnxEncoder(folder, file, threads)
    try:
        from emb.serve.torch_encoder import load_torch
    except ImportError as error:
        raise MissingExtra(f"{folder}: holds no ONNX file, and torch is not installed ({error.name})", "pip install 'emb-distill[train]', or export it first") from error
    return load_torch(folder, threads)


def _has_onnx(folder: Path) -> bool:
    return is_artifact(folder) and bool(_usable(Manifest.load(folder), folder))


def _usable(manifest: Manifest, folder: Path) -> list[Variant]:
    order = ("int8", "fp32", "fp16", "int4")
    ours = [v for v in manifest.variants if v.exporter == "emb"]  # others stand beside them for comparison
    usable = [v for v in ours if v.vector_dtype == "float32" and v.passed is not False and (folder / v.file).is_file()]
    return sorted(usable, key=lambda variant: order.index(variant.weight_dtype))


def _best(manifest: Manifest, folder: Path) -> Variant:
    usable = _usable(manifest, folder)
    if not usable:
        raise ArtifactError(f"{folder}: no ONNX file that passed its gate", "run emb export, or name one of its files")
    return usable[0]


def _bar(total: int, shown: bool) -> Any:
    if not shown:
        return nullcontext(lambda amount: None)
    from emb.progress import bar

    return bar("encoding", total)
