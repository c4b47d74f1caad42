"""Which texts an export is calibrated, judged and measured on."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from emb.artifact.runs import HELD_OUT, run_of
from emb.data.corpus import MIN_TEXTS, Text, read_corpus
from emb.data.default_corpus import default_corpus
from emb.errors import DataError

DOCUMENTATION = "the Python documentation of this machine"


def texts_for(folder: Path, count: int, data: Sequence[str] = (), *, backwards: bool = False) -> tuple[list[Text], str]:
    """At most `count` texts, and in words where they come from.

    They are those of `data`, or what the run around `folder` kept from training, filled up with documentation that
    every machine has. `backwards` takes the run's from their end, so that a proof is not made on the texts that
    ranges were taken from.

    Raises:
        DataError: `data`, or the run's file, cannot be read.
    """
    if data:
        return read_corpus(list(data), limit=max(count, MIN_TEXTS)).texts[:count], ", ".join(data)
    own = _kept(folder)[:: -1 if backwards else 1][:count]
    if len(own) == count:
        return own, "texts kept from training"
    # Every fourth: the corpus begins with one book, and one book is not ordinary text.
    others = default_corpus(4 * max(count - len(own), MIN_TEXTS)).texts[::4]
    return [*own, *others][
        :count
    ], f"{len(own)} texts kept from training, and {DOCUMENTATION}" if own else DOCUMENTATION


def _kept(folder: Path) -> list[Text]:
    run = run_of(folder)
    if run is None or not (run / HELD_OUT).is_file():
        return []
    with (run / HELD_OUT).open(encoding="utf-8") as lines:
        try:
            return [Text(**json.loads(line)) for line in lines]
        except (ValueError, TypeError) as error:
            raise DataError(
                f"{run / HELD_OUT}: damaged ({error})", "remove the file; texts are then taken from elsewhere"
            ) from error
