"""Writing the page: the scripts, the query encoder, the documents' vectors and texts, and what tells of them."""

from __future__ import annotations

import gzip
import hashlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from emb.data.documents import Document
from emb.files import atomic_folder
from emb.search.web.codes import stored
from emb.search.web.query_side import QuerySide
from emb.similarity import Vectors, truncated

FORMAT = 1  # as page/search.js has it


@dataclass(frozen=True)
class Look:
    """What the page shows: its title, and how many characters of each text."""

    title: str
    snippet: int


@dataclass(frozen=True)
class Download:
    """Bytes of files, and what they come to where a server packs them with gzip."""

    bytes: int
    gzip: int


@dataclass(frozen=True)
class Page:
    """What was written.

    Attributes:
        folder: to be served by any server of files.
        documents, dim, codec: how many vectors, how wide, stored how.
        download: all that the browser fetches, but for page.json, which names it.
        texts: the part of it that is titles and passages.
        cosine: the least one between the page's vector of a text and the encoder's.
    """

    folder: Path
    documents: int
    dim: int
    codec: str
    download: Download
    texts: Download
    cosine: float


def write_page(
    place: Path,
    query: QuerySide,
    documents: Sequence[Document],
    vectors: Vectors,
    *,
    codec: str,
    look: Look,
    overwrite: bool = False,
) -> Page:
    """Write the folder `place` from a query encoder and the documents' `vectors` `(documents, dim or more)`.

    Raises:
        ArtifactError: `place` is in the way.
    """
    table, dim = query.table, query.table.rows.shape[1]
    index = stored(truncated(vectors, dim) if query.normalize else vectors[:, :dim], codec)
    contents = {
        "encoder": ("encoder.json", _json(query.tokenizer)),
        "table": ("table.bin", table.scales.astype("<f4").tobytes() + table.rows.tobytes()),
        "documents": ("documents.bin", index.content()),
        "texts": ("texts.json", _json([[each.title, _snippet(each.text, look.snippet)] for each in documents])),
    }
    facts = {
        "format": FORMAT,
        "title": look.title,
        "tokens": len(table.rows),
        "normalize": query.normalize,
        "documents": len(documents),
        "dim": dim,
        "codec": codec,
        "bits": index.bits,
    }
    with atomic_folder(place, replace=overwrite) as folder:
        download = _write(folder, contents, facts)
    return Page(place, len(documents), dim, codec, download, _size(contents["texts"][1]), query.cosine)


def _write(folder: Path, contents: dict[str, tuple[str, bytes]], facts: dict[str, Any]) -> Download:
    for path in resources.files("emb.search.web").joinpath("page").iterdir():
        with resources.as_file(path) as file:
            shutil.copyfile(file, folder / file.name)
    for name, content in contents.values():
        (folder / name).write_bytes(content)
    parts = [_size(path.read_bytes()) for path in folder.iterdir()]
    total = Download(sum(each.bytes for each in parts), sum(each.gzip for each in parts))
    files = {name: _file(*each) for name, each in contents.items()}
    (folder / "page.json").write_bytes(_json(facts | {"files": files, "download": vars(total)}))
    return total


def _file(name: str, content: bytes) -> dict[str, Any]:
    """A file's size, and a version that a browser's cache tells from another."""
    return {"file": name, "bytes": len(content), "version": hashlib.sha256(content).hexdigest()[:12]}


def _size(content: bytes) -> Download:
    return Download(len(content), len(gzip.compress(content, 6, mtime=0)))


def _json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def _snippet(text: str, length: int) -> str:
    """The beginning of a text in one line, up to a word's end where there is one."""
    line = " ".join(text.split())
    if len(line) <= length:
        return line
    cut = line[: length + 1].rpartition(" ")[0] or line[:length]
    return f"{cut}…" if length else ""
