"""Captures of teacher vectors that count what the teacher does, here or in a process of their own."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from distilling import texts

from emb.data.corpus import Text
from emb.teachers.protocol import TeacherIdentity

COUNT = 60
IDENTITY = TeacherIdentity("weights", 64, "float32")


def items(count: int = COUNT) -> list[Text]:
    return [Text(text, "query" if i % 3 == 0 else "document") for i, text in enumerate(texts(count))]


def count_forwards(model: Any, journal: Path, pause: float = 0) -> None:
    """Make `model` note how many texts it encodes, batch by batch."""
    original = model.embed_ids

    def noted(*arguments: Any, **options: Any) -> Any:
        for batch, vectors in original(*arguments, **options):
            with journal.open("a", encoding="utf-8") as handle:
                handle.write(f"{len(batch)}\n")
            time.sleep(pause)
            yield batch, vectors

    model.embed_ids = noted


def encoded(journal: Path) -> int:
    return sum(map(int, journal.read_text(encoding="utf-8").split())) if journal.is_file() else 0


def captured(folder: Path, cache: Path, result: Path, pause: float = 0, count: int = COUNT) -> None:
    """Capture in this process with shards of a few texts; the vectors go to `result`."""
    import numpy as np
    import torch

    from emb.model.embedding_model import load_model
    from emb.teachers import capture as room
    from emb.teachers.folder import FolderTeacher

    os.environ["EMB_CACHE"] = str(cache)
    torch.set_num_threads(1)
    room._FLUSH_TEXTS = 5
    model = load_model(folder)
    count_forwards(model, result.with_suffix(".journal"), pause)
    vectors = room.capture(FolderTeacher(model, IDENTITY, 64), items(count))
    np.save(result, vectors.take(range(count)))
