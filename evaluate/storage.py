"""What search finds where an index keeps documents as codes, and perhaps the first candidates' finer vectors beside
them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from emb.data.evaluation_sets import DEPTH as RANKED
from emb.data.evaluation_sets import RetrievalTask
from emb.errors import UsageError
from emb.quantize.vectors.base import Codec
from emb.quantize.vectors.codecs import load_codec
from emb.quantize.vectors.lvq import Lvq8Codec
from emb.quantize.vectors.rescoring import DEPTH, Stored, search
from emb.quantize.vectors.scalar import Float32Codec, Int8Codec
from emb.similarity import Vectors


@dataclass(frozen=True)
class Storage:
    """A codec, fitted beforehand, and what its candidates are put in order by.

    Attributes:
        name: the codec's folder, for tables.
        rescore: "float", "lvq8", "int8" (between each dimension's smallest and largest value in the documents), the
            folder of a codec, or None: the codes' order stands.
        depth: how many candidates.
    """

    name: str
    codec: Codec
    rescore: str | None = None
    depth: int = DEPTH

    def __str__(self) -> str:
        return self.name + (f" + {Path(self.rescore).name} of {self.depth}" if self.rescore else "")

    def score(self, task: RetrievalTask, queries: Vectors, documents: Vectors) -> float:
        """`task`'s score of float `queries` on coded `documents`, both of length 1 and of the codec's dim."""
        fine = stored(fine_codec(self.rescore, documents), documents) if self.rescore else None
        return score_coded(task, queries, stored(self.codec, documents), rescore=fine, depth=self.depth)


def open_storages(folders: Sequence[str | Path], rescore: str | None, depth: int) -> list[Storage]:
    """The codecs in `folders`, each under its folder's name.

    Raises:
        ArtifactError: no codec there.
        UsageError: two of one name, or something to rescore by without a codec.
    """
    if rescore and not folders:
        raise UsageError(f"--rescore {rescore}: there are no candidates without codes", "add --codec DIR")
    names = [Path(folder).resolve().name for folder in folders]
    if len(set(names)) < len(names):
        raise UsageError(f"two codecs have the same name: {', '.join(names)}", "rename one of the folders")
    return [Storage(name, load_codec(folder), rescore, depth) for name, folder in zip(names, folders, strict=True)]


def fine_codec(rescore: str, documents: Vectors) -> Codec:
    """What candidates are rescored by: "float", "lvq8", "int8", or the codec of a folder."""
    known: dict[str, type[Codec]] = {"float": Float32Codec, "lvq8": Lvq8Codec, "int8": Int8Codec}
    return known[rescore].fit(documents) if rescore in known else load_codec(rescore)


def stored(codec: Codec, documents: Vectors) -> Stored:
    """Documents as `codec` codes them."""
    return Stored(codec, codec.encode(documents))


def score_coded(
    task: RetrievalTask,
    queries: Vectors,
    documents: Stored,
    *,
    rescore: Stored | None = None,
    depth: int = DEPTH,
    query_codec: Codec | None = None,
) -> float:
    """`task`'s score of what `search` finds among coded documents."""
    rows, _ = search(queries, documents, RANKED, rescore=rescore, depth=depth, query_codec=query_codec)
    return task.score_rankings(rows)
