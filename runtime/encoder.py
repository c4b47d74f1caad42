"""Serving: texts to vectors from an artifact, with onnxruntime, tokenizers and numpy alone."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from emb.artifact.bundle import QUERY, EncoderRecord, is_bundle
from emb.artifact.fingerprints import TOKENIZER_FILES
from emb.artifact.manifest import Manifest, Variant, is_artifact, paths_of
from emb.errors import ArtifactError, MissingExtra, UsageError
from emb.runtime.engine import CPU, open_engine, provider_of
from emb.similarity import NotFiniteError, Vectors, require_finite
from emb.tokens import MAX_TEXTS, Batch, Ids, TextTokenizer, prompt_of, token_budget_batches

if TYPE_CHECKING:
    from emb.tokens import Cut, Rows

BACKENDS = ("auto", "onnx", "torch")


class Encoder(ABC):
    """Texts to vectors `(texts, dim)`; the model behind it is the subclass's.

    Attributes:
        tokenizer: cuts texts at the model's `max_length` tokens.
        dim: width of the vectors.
        prompts: prefix per kind of text, "query" and "document".
        normalize: whether vectors have length 1, also after a cut to fewer dims.
        similarity_fn_name: what its vectors are compared with: "cosine", "dot", "euclidean" or "manhattan".
        folder: where it was loaded from: what says whose vectors it gives. None for one that is made otherwise.

    It has the habits of a `SentenceTransformer`, so that it can be passed where one is expected.
    """

    folder: Path | None = None

    def __init__(
        self,
        tokenizer: TextTokenizer,
        *,
        dim: int,
        prompts: dict[str, str],
        normalize: bool,
        similarity_fn_name: str = "cosine",
    ) -> None:
        self.tokenizer = tokenizer
        self.dim = dim
        self.prompts = prompts
        self.normalize = normalize
        self.similarity_fn_name = similarity_fn_name

    @property
    def max_length(self) -> int:
        """Tokens of a text that are read, special tokens included."""
        return self.tokenizer.max_length

    def get_sentence_embedding_dimension(self) -> int:
        """Width of the vectors."""
        return self.dim

    def similarity(self, a: Vectors, b: Vectors) -> Vectors:
        """How close each row of `a` is to each row of `b`, `(rows of a, rows of b)` float32, by the model's own
        measure.
        """
        from emb.similarity import similarities

        return similarities(np.atleast_2d(a), np.atleast_2d(b), self.similarity_fn_name)

    def encode(
        self,
        texts: str | Sequence[str],
        *,
        kind: str = "document",
        prompt: str | None = None,
        truncate_dim: int | None = None,
        batch_size: int = MAX_TEXTS,
        tokens_per_batch: int = 512,
        show_progress_bar: bool | None = False,
        normalize_embeddings: bool = False,
        convert_to_numpy: bool = True,
        convert_to_tensor: bool = False,
        count: Callable[[Cut], None] | None = None,
        seen: Callable[[Rows], None] | None = None,
    ) -> Any:
        """Vectors `(texts, dim)` of `texts`, in the order given; of one string, its vector `(dim,)`.

        Texts stand behind the prompt of `kind`, or behind `prompt`. Texts of like length are run together, in batches
        of at most `batch_size` texts and `tokens_per_batch` tokens: that changes the speed, not the vectors.
        `truncate_dim` keeps the first dimensions only. A variant with int8 or binary outputs returns those as they
        are stored: int8 `(texts, dim)`, uint8 `(texts, dim / 8)`. `convert_to_tensor` returns a torch tensor.
        `count` is told how many texts were cut at `max_length` tokens, and what that lost; `seen` gets the token ids of
        each text behind its prompt, before anything is computed of them: what it raises ends the call.

        Raises:
            UsageError: an unknown kind, a `truncate_dim` beyond the model's, or an item that is no text.
            ArtifactError: a vector that is not finite; the text is named.
        """
        if not (convert_to_numpy or convert_to_tensor):
            raise UsageError(
                "encode() returns one array: a list of tensors is not made", "leave out convert_to_numpy=False"
            )
        alone = isinstance(texts, str)
        batch = _texts([texts] if isinstance(texts, str) else texts)
        prompt = self.prompt(kind) if prompt is None else prompt
        rows = self.tokenizer.encode(batch, prompt)
        if seen:
            seen(rows)
        if count:
            count(_cut_of(self.tokenizer, batch, prompt, rows))
        vectors = self.encode_ids(
            rows,
            truncate_dim=truncate_dim,
            batch_size=batch_size,
            tokens_per_batch=tokens_per_batch,
            show_progress_bar=bool(show_progress_bar),
        )
        require_finite(vectors, batch)
        vectors = self._normalised(vectors) if normalize_embeddings else vectors
        vectors = vectors[0] if alone else vectors
        return _tensor(vectors) if convert_to_tensor else vectors

    def encode_query(self, texts: str | Sequence[str], **options: Any) -> Any:
        """`encode` with the prompt of queries."""
        return self.encode(texts, kind="query", **options)

    def encode_document(self, texts: str | Sequence[str], **options: Any) -> Any:
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

    async def encode_async(self, texts: str | Sequence[str], **options: Any) -> Any:
        """`encode` in a thread: an event loop goes on serving meanwhile."""
        return await asyncio.to_thread(self.encode, texts, **options)

    def encode_ids(
        self,
        rows: Sequence[np.ndarray[Any, Any]],
        *,
        truncate_dim: int | None = None,
        batch_size: int = MAX_TEXTS,
        tokens_per_batch: int = 512,
        side: str = "right",
        show_progress_bar: bool = False,
        here: bool = False,
    ) -> Vectors:
        """Vectors `(texts, dim)` of tokenised texts; `side` is where padding goes.

        They are computed `here`, on the thread that calls, if that is said; as many threads as there are `workers` may
        say it at once.
        """
        self._check(truncate_dim, batch_size)
        if len(rows) == 1 and not here:  # a query: what follows would take a hundredth of its time
            return self._cut(self.run(*self.tokenizer.pad(rows, side)), truncate_dim)
        batches = token_budget_batches([len(row) for row in rows], tokens_per_batch, batch_size)
        padded = [partial(self._padded, rows, batch, side) for batch in batches]
        vectors: Vectors | None = None
        with _bar(len(rows), show_progress_bar) as advance:
            for batch, part in zip(batches, self._run_each(padded, here), strict=True):
                vectors = np.empty((len(rows), part.shape[1]), part.dtype) if vectors is None else vectors
                vectors[batch] = part
                advance(len(batch))
        return self._cut(np.empty((0, self.dim), np.float32) if vectors is None else vectors, truncate_dim)

    @abstractmethod
    def run(self, input_ids: Ids, attention_mask: Ids) -> Vectors:
        """Vectors `(batch, dim)` of one padded batch, inputs `(batch, tokens)`."""

    @property
    def workers(self) -> int:
        """How many threads may call `encode_ids(…, here=True)` at once, each to its own gain."""
        return 1

    def _run_each(self, padded: Sequence[Callable[[], Batch]], here: bool) -> Iterator[Vectors]:
        for each in padded:
            yield self.run(*each())

    def _padded(self, rows: Sequence[np.ndarray[Any, Any]], batch: np.ndarray[Any, Any], side: str) -> Batch:
        return self.tokenizer.pad([rows[i] for i in batch], side)

    def prompt(self, kind: str) -> str:
        """What stands before a "query" or a "document".

        Raises:
            UsageError: another kind.
        """
        if kind not in ("query", "document"):
            raise UsageError(f"kind {kind!r} is unknown", 'kinds are "query" and "document"')
        return prompt_of(self.prompts, kind)

    def _check(self, dim: int | None, batch_size: int) -> None:
        if dim is not None and not 1 <= dim <= self.dim:
            raise UsageError(f"truncate_dim {dim}: the model has {self.dim}", f"choose 1 to {self.dim}")
        if batch_size < 1:
            raise UsageError(f"batch_size {batch_size} is not a number of texts", "choose 1 or more")

    def _normalised(self, vectors: Vectors) -> Vectors:
        if self.normalize:
            return vectors
        if vectors.dtype != np.float32:
            raise UsageError(
                f"normalize_embeddings: {vectors.dtype} vectors cannot be normalised", "use a float variant"
            )
        return unit_rows(vectors)

    def _cut(self, vectors: Vectors, dim: int | None) -> Vectors:
        if dim is None or dim == vectors.shape[1]:
            return vectors
        if vectors.dtype != np.float32:
            raise UsageError(
                f"truncate_dim {dim}: {vectors.dtype} vectors cannot be cut",
                "export the artifact at that dim, or use a float variant",
            )
        cut = np.ascontiguousarray(vectors[:, :dim])
        return unit_rows(cut) if self.normalize else cut


class ArtifactEncoder(Encoder):
    """A file of an artifact behind the runtime it is made for, onnxruntime unless another is asked for; imports no
    torch.
    """

    def __init__(
        self,
        folder: str | Path,
        file: str | None = None,
        threads: int | None = None,
        *,
        provider: str | None = None,
        verify: bool = True,
    ) -> None:
        """Open `folder/file`; without `file`, the smallest that passed its gate.

        Raises:
            ArtifactError: not an artifact, without a usable ONNX file, or changed since it was written.
            MissingExtra: `file` is another runtime's, which is not installed.
            UsageError: ONNX Runtime has no such provider here.
        """
        folder = Path(folder)
        manifest = Manifest.load(folder)
        self.variant = manifest.variant(file) if file else _best(manifest, folder)
        if verify:
            manifest.verify(folder, _read_with(folder, self.variant.file))
        tokenizer = TextTokenizer.from_folder(folder, manifest.max_length)
        super().__init__(
            tokenizer,
            dim=manifest.dim,
            prompts=manifest.prompts,
            normalize=manifest.normalize,
            similarity_fn_name=manifest.similarity,
        )
        self.folder, self.provider = folder, provider
        self.runner = open_engine(folder, manifest, self.variant.file, threads, provider)

    def run(self, input_ids: Ids, attention_mask: Ids) -> Vectors:
        """Vectors `(batch, dim)` of one padded batch, inputs `(batch, tokens)`."""
        return self.runner.run((input_ids, attention_mask))

    @property
    def workers(self) -> int:
        """A thread of the processor each; one where another device computes."""
        return self.runner.threads if self.provider in (None, CPU) else 1

    def _run_each(self, padded: Sequence[Callable[[], Batch]], here: bool) -> Iterator[Vectors]:
        if not here:
            return self.runner.run_each(padded)
        answer = self.runner.beside()
        return (answer(each()) for each in padded)


def load(
    path: str | Path,
    *,
    backend: str = "auto",
    file: str | None = None,
    threads: int | None = None,
    device: str = "cpu",
    provider: str | None = None,
    dtype: str = "fp32",
    verify: bool = True,
    trusted_key: str | Path | None = None,
    trust_remote_code: bool = False,
) -> Encoder:
    """Open an artifact, or any sentence-transformers folder, for encoding; `emb.load` describes the arguments, and
    `dtype` is what torch computes in: "fp32", "bf16" or "fp16".

    Raises:
        ArtifactError: not a model folder, no usable ONNX file, or changed since it was written, or not signed with
            `trusted_key`.
        MissingExtra: torch, or the runtime of `file`, is needed and not installed.
        UsageError: no such backend, device or provider here.
    """
    folder = Path(path)
    if backend not in BACKENDS:
        raise UsageError(f"backend {backend!r} is unknown", f"known: {', '.join(BACKENDS)}")
    if backend == "torch" and provider:
        raise UsageError(f"provider {provider}: torch has no providers", "leave out backend, or name a device")
    if not folder.is_dir():
        raise ArtifactError(f"{folder}: no such folder", "give an artifact or a sentence-transformers folder")
    if trusted_key is not None:
        _require_signed(folder, trusted_key, verify)
    if is_bundle(folder):
        return _load_bundle(folder, file, verify, threads=threads, device=device, trust_remote_code=trust_remote_code)
    if backend == "onnx" or file or provider or (backend == "auto" and _has_onnx(folder)):
        return ArtifactEncoder(folder, file, threads, provider=provider or provider_of(device), verify=verify)
    try:
        from emb.runtime.torch_encoder import load_torch
    except ImportError as error:
        raise MissingExtra(
            f"{folder}: holds no ONNX file, and torch is not installed ({error.name})",
            "pip install 'emb-distill[train]', or export it first",
        ) from error
    return load_torch(folder, threads, device=device, dtype=dtype, verify=verify, trust_remote_code=trust_remote_code)


def _require_signed(folder: Path, trusted_key: str | Path, verify: bool) -> None:
    from emb.artifact.signature import require_signed

    if not verify:
        raise UsageError("--trusted-key: what is signed is looked at, and --no-verify forbids that", "leave one out")
    require_signed(folder, trusted_key)


def _load_bundle(folder: Path, file: str | None, verify: bool, device: str, **options: Any) -> Encoder:
    """A bundle, its documents' encoder on `device`; the file of a query encoder runs on the CPU it was made for."""
    from emb.runtime.bundle_encoder import BundleEncoder

    if file:
        raise UsageError(f"file {file}: a bundle names the files of its encoders", "leave it out")

    def opened(inner: Path, side: EncoderRecord) -> Encoder:
        where = "cpu" if side.path == QUERY and side.file else device
        backend = "auto" if side.file else "torch"
        return load(inner, backend=backend, file=side.file, device=where, dtype=side.dtype, verify=verify, **options)

    # Each encoder is held against its fingerprint, which covers all that is read of it.
    return BundleEncoder(folder, opened, verify=verify)


def _read_with(folder: Path, file: str) -> list[str]:
    """What is read of an artifact to encode with one of its files."""
    return [*TOKENIZER_FILES, *(path.relative_to(folder).as_posix() for path in paths_of(folder, file))]


def _texts(texts: Any) -> list[str]:
    found = list(texts)
    for index, text in enumerate(found):
        if not isinstance(text, str):
            raise UsageError(
                f"encode() takes texts and got {type(text).__name__} at item {index}", "give a str or a list of str"
            )
    return found


def _cut_of(tokenizer: TextTokenizer, texts: Sequence[str], prompt: str, rows: Sequence[np.ndarray[Any, Any]]) -> Cut:
    from emb.tokens import count_cut

    return count_cut(tokenizer, texts, prompt, rows)


def unit_rows(vectors: Vectors) -> Vectors:
    """Each of `vectors` `(texts, dim)` at length 1."""
    return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12))


def _tensor(vectors: Vectors) -> Any:
    import torch

    return torch.from_numpy(np.ascontiguousarray(vectors))


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
