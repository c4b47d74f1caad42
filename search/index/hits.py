"""What a search finds."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Hit:
    """One document found.

    Attributes:
        rank: 1 for the best.
        score: by the index's similarity, higher is closer; of the best passage.
        id, title: of the document.
        passage: the text of that passage; all of it where documents are not cut.
        start, stop: where it stands in the document's text, in characters.
        metadata: what was indexed beside the text.
    """

    rank: int
    score: float
    id: str
    title: str
    passage: str
    start: int
    stop: int
    metadata: dict[str, str] = field(default_factory=dict)
