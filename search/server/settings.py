"""What the server may be told: names, prompts, and limits, most under the names that text-embeddings-inference has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from emb.errors import UsageError

KINDS = ("document", "query")


@dataclass(frozen=True)
class Settings:
    """How a model is served.

    Attributes:
        served_model_name: what clients call the model; None for the name of its folder.
        alias: further names that requests may give.
        kind: which prompt a text gets where the request names none, "document" or "query".
        only: the one kind that the encoder is for, as the query encoder of a bundle is for queries; another is refused.
        auto_truncate: whether a text beyond the model's length is cut where the request does not say; otherwise it is
            refused.
        max_client_batch_size: texts of one request.
        max_concurrent_requests: requests that are read and answered at once; beyond, 429.
        max_batch_tokens: tokens, padding counted, that the encoder is given at once.
        max_batch_requests: texts that the encoder is given at once.
        max_queue_texts, max_queue_tokens: what may wait for the encoder; beyond, 429.
        payload_limit: bytes of a request's body.
        timeout: seconds from a request's headers to its answer.
    """

    served_model_name: str | None = None
    alias: tuple[str, ...] = ()
    kind: str = "document"
    only: str | None = None
    auto_truncate: bool = True
    max_client_batch_size: int = 2048
    max_concurrent_requests: int = 512
    max_batch_tokens: int = 4096
    max_batch_requests: int = 32
    max_queue_texts: int = 8192
    max_queue_tokens: int = 500_000
    payload_limit: int = 2_000_000
    timeout: float = 60.0

    def __post_init__(self) -> None:
        """Check every limit.

        Raises:
            UsageError: an unknown kind, or a limit below one.
        """
        if self.kind not in KINDS:
            raise UsageError(f"--kind {self.kind!r} is unknown", f"kinds are {' and '.join(KINDS)}")
        for name in (each.name for each in fields(self) if each.name.startswith("max_")):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} {getattr(self, name)} lets nothing pass", "choose 1 or more")
        if self.payload_limit < 1 or self.timeout <= 0:
            raise UsageError(
                f"payload_limit {self.payload_limit}, timeout {self.timeout}: nothing can be answered within",
                "choose numbers above 0",
            )

    def named(self, model: str) -> bool:
        """Whether `model` is a name of the model that is served."""
        return model == self.served_model_name or model in self.alias


@dataclass(frozen=True)
class Searching:
    """What `/search` has: an index, and which encoders and dims it offers beside the served one.

    Attributes:
        index: its folder.
        compare: whether the documents' encoder of a bundle answers too, as the encoder of the queries.
        also: further query encoders, each a folder or one file of an artifact.
        dims: fewer dims than the index has, to be searched in.
        options: of `emb.load`, for `also`.
        fallback: the share of queries that the documents' encoder answers, because that of queries is unsure.
    """

    index: Path
    compare: bool = False
    also: Sequence[Path] = ()
    dims: Sequence[int] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    fallback: float | None = None

    @property
    def teacher_for(self) -> str | None:
        """The option that wants the documents' encoder."""
        return "--compare" if self.compare else None if self.fallback is None else "--fallback"
