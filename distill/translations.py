"""How near a student's translations come to the teacher, beside the texts that they translate."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from emb.artifact.manifest import LayerDimPair
from emb.data.corpus import Text
from emb.progress import note
from emb.similarity import Vectors, cosines


def tell_translations(held_out: Sequence[Text], student: Vectors, teacher: Vectors, pair: LayerDimPair) -> None:
    """Say the mean cosine of held-out translations, and that of held-out texts which have one; nothing without both.

    `student` and `teacher` are vectors `(texts, dim)` of `held_out`; the teacher's are of the text in both languages.
    """
    sources = {item.source_text for item in held_out}
    translations = [row for row, item in enumerate(held_out) if item.source_text is not None]
    originals = [row for row, item in enumerate(held_out) if item.source_text is None and item.text in sources]
    if not translations or not originals:
        return
    found = cosines(student[:, : pair.dim], teacher[:, : pair.dim])
    theirs, own = (float(np.mean(found[rows])) for rows in (translations, originals))
    note(
        f"held-out cosine at {pair}: translations {theirs:.4f} ({len(translations):,} texts), what they translate"
        f" {own:.4f} ({len(originals):,} texts)"
    )
