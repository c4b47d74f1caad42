"""What healing gained, as the rows of a table: for terminals and for the page."""

from __future__ import annotations

from emb.artifact.lineage import HealedFile, HealingRecord

HEADER = ("healed file", "cosine to teacher", "overlap@10", "among the teacher's vectors")
_FIGURES = ("cosine", "overlap", "asymmetric")


def gain_rows(healing: HealingRecord) -> list[tuple[str, ...]]:
    """One row per file of a manifest's `healing`, each figure before → after."""
    return [
        (_name(each), *(f"{each.before[key]:.4f} → {each.after[key]:.4f}" for key in _FIGURES))
        for each in healing.files
    ]


def gain_text(healing: HealingRecord) -> str:
    """How the slice was healed, in one sentence."""
    aims = [*healing.weights, *(["binary vectors"] if healing.binary else [])]
    return (
        f"Trained for {healing.seconds:,.0f} s ({healing.steps:,} steps, {healing.texts:,} texts) under the"
        f" rounding of {', '.join(aims)}; figures on {healing.data.held_out:,} held-out texts, before → after."
    )


def _name(file: HealedFile) -> str:
    return file.weights if file.vectors == "float32" else f"{file.weights} → binary, Hamming"
