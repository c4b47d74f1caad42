"""A bundle behind the interface of one encoder: queries go to the small model, documents to the large one."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

from emb.artifact.bundle import Bundle, EncoderRecord
from emb.artifact.fingerprints import fingerprint
from emb.errors import ArtifactError
from emb.runtime.encoder import Encoder
from emb.similarity import Vectors
from emb.tokens import Ids

Open = Callable[[Path, EncoderRecord], Encoder]


class BundleEncoder(Encoder):
    """Both encoders of a bundle, their vectors cut to the dims that they share.

    The documents' one is opened when the first document comes: a server of queries never loads it. Tokenizer and
    prompts are the query encoder's.
    """

    folder: Path

    def __init__(self, folder: Path, opener: Open, *, verify: bool = True) -> None:
        """Open the bundle in `folder`; `opener` opens the folder of one of its encoders as its record says.

        Raises:
            ArtifactError: not a bundle, or one of its encoders is missing or has changed.
        """
        self.folder, self.bundle = folder, Bundle.load(folder)
        self._opener, self._verify = opener, verify
        self.query = self._opened(self.bundle.query)
        super().__init__(
            self.query.tokenizer,
            dim=self.bundle.dim,
            prompts=self.query.prompts,
            normalize=self.bundle.normalize,
            similarity_fn_name=self.bundle.similarity,
        )

    @cached_property
    def document(self) -> Encoder:
        """The encoder of documents."""
        return self._opened(self.bundle.document)

    def side(self, kind: str) -> Encoder:
        """The encoder of queries or of documents.

        Raises:
            UsageError: another kind.
        """
        self.prompt(kind)
        return self.query if kind == "query" else self.document

    def encode(self, texts: Any, *, kind: str = "document", truncate_dim: int | None = None, **options: Any) -> Any:
        """As `Encoder.encode`, by the encoder of `kind`."""
        self._check(truncate_dim, 1)
        return self.side(kind).encode(texts, kind=kind, truncate_dim=truncate_dim or self.dim, **options)

    def run(self, input_ids: Ids, attention_mask: Ids) -> Vectors:
        """Vectors of one padded batch of queries."""
        return self._cut(self.query.run(input_ids, attention_mask), self.dim)

    def _opened(self, side: EncoderRecord) -> Encoder:
        folder = self.bundle.folder_of(side, self.folder)
        if self._verify:
            require_unchanged(side, folder)
        return self._opener(folder, side)


def require_unchanged(side: EncoderRecord, folder: Path) -> None:
    """Hold an encoder of a bundle, which lies in `folder`, against its fingerprint.

    Raises:
        ArtifactError: it is another by now.
    """
    if fingerprint(folder, side.file) != side.fingerprint:
        raise ArtifactError(
            f"{folder}: {side.name} has changed since it was bundled",
            "put the former files back, bundle the two again, or take it as it is with --no-verify",
        )
