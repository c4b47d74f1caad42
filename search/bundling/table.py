"""How the documents' encoder was chosen, for a terminal."""

from __future__ import annotations

from emb.artifact.bundle import ChoiceRecord, TriedEncoder
from emb.report.tables import table


def choice_text(choice: ChoiceRecord) -> str:
    """Loss beside gain of everybody who was tried, and on what."""
    header = ("documents by", "file", "weights", "documents/s", "gain", "mean cosine", "smallest", "of the first ten")
    rows = [_row(each, choice) for each in choice.tried]
    kind = "queries" if choice.judged else "queries cut from them"
    slow, fast = choice.spread
    return (
        f"{table(rows, (*header, *(('nDCG@10',) if choice.judged else ()), ''))}\n\n"
        f"measured on {choice.documents:,} documents of {choice.data}, {choice.queries:,} {kind}, {choice.dim} dims, on"
        f" {choice.device} ({choice.processor}, {choice.threads or 'all'} threads); the first is the reference, its"
        f" rounds took {slow:.1f} to {fast:.1f} a second"
    )


def _row(each: TriedEncoder, choice: ChoiceRecord) -> tuple[str, ...]:
    gain = each.documents_per_second / choice.tried[0].documents_per_second
    return (
        each.name,
        each.file or "torch",
        each.dtype,
        f"{each.documents_per_second:.1f}",
        f"{gain:.2f} ×",
        f"{each.cosine:.4f}",
        f"{each.min_cosine:.4f}",
        f"{each.overlap:.0%}",
        *(() if each.ndcg is None else (f"{each.ndcg:.1f}",)),
        f"{'→ ' if each.chosen else ''}{each.reason}",
    )
