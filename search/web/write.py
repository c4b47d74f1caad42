"""Writing the page: the scripts, the query encoder, the documents' vectors and texts, and what tells of them."""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from emb.data.documents import Document
from emb.files import atomic_folder
from emb.search.web.codes import stored
from emb.search.web.side import ONNX, TABLE, QuerySide
from emb.similarity import Vectors, truncated

FORMAT = 2  # as page/search.js has it
_PACKED = ".packed"  # no .gz: some servers unpack those by themselves, some only name them as packed
_ONLY = {TABLE: {"encoder.js"}, ONNX: {"layers.js", "remote.js", "worker.js", "onnxruntime.txt"}}  # of page/
_LICENCE = "onnxruntime.txt"  # no browser fetches it


@dataclass(frozen=True)
class Look:
    """What the page shows: its title, and how many characters of each text."""

    title: str
    snippet: int


@dataclass(frozen=True)
class Download:
    """Bytes of files as any server of files sends them, and what they come to when the page has unpacked them."""

    bytes: int
    unpacked: int


@dataclass(frozen=True)
class Page:
    """What was written.

    Attributes:
        folder: to be served by any server of files.
        documents, dim, codec: how many vectors, how wide, stored how.
        download: all that the browser fetches, but for page.json, which names it.
        texts: the part of it that is titles and passages.
        cosine: the least one between the page's vector of a text and the encoder's; None where only a browser can tell,
            of an encoder with layers.
    """

    folder: Path
    documents: int
    dim: int
    codec: str
    download: Download
    texts: Download
    cosine: float | None


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
    index = stored(truncated(vectors, query.dim) if query.normalize else vectors[:, : query.dim], codec)
    contents = {
        "encoder": ("encoder.json", _json(query.tokenizer)),
        **query.files,
        "documents": ("documents.bin", index.content()),
        "texts": ("texts.json", _json([[each.title, _snippet(each.text, look.snippet)] for each in documents])),
    }
    facts = query.facts | {
        "format": FORMAT,
        "title": look.title,
        "kind": query.kind,
        "normalize": query.normalize,
        "documents": len(documents),
        "dim": query.dim,
        "codec": codec,
        "bits": index.bits,
    }
    packed = {
        name: _Packed(f"{file}{_PACKED}", _gzip(content), len(content)) for name, (file, content) in contents.items()
    }
    with atomic_folder(place, replace=overwrite) as folder:
        download = _write(folder, query, packed, facts)
    return Page(place, len(documents), query.dim, codec, download, packed["texts"].download, query.cosine)


@dataclass(frozen=True)
class _Packed:
    """A file as it is fetched, and its size when unpacked."""

    file: str
    content: bytes
    unpacked: int

    @property
    def download(self) -> Download:
        return Download(len(self.content), self.unpacked)

    def described(self) -> dict[str, Any]:
        """What page.json says of it, with a version that a browser's cache tells from another and the page checks."""
        version = hashlib.sha256(self.content).hexdigest()[:12]
        return {"file": self.file, "bytes": len(self.content), "unpacked": self.unpacked, "version": version}


def _write(folder: Path, query: QuerySide, packed: dict[str, _Packed], facts: dict[str, Any]) -> Download:
    other = _ONLY[ONNX if query.kind == TABLE else TABLE]
    for path in resources.files("emb.search.web").joinpath("page").iterdir():
        if path.name not in other:
            (folder / path.name).write_bytes(path.read_bytes())
    for name, content in query.beside.items():
        (folder / name).write_bytes(content)
    plain = sum(path.stat().st_size for path in folder.iterdir() if path.name != _LICENCE)
    for each in packed.values():
        (folder / each.file).write_bytes(each.content)
    parts = [each.download for each in packed.values()]
    total = Download(plain + sum(each.bytes for each in parts), plain + sum(each.unpacked for each in parts))
    files = {name: each.described() for name, each in packed.items()}
    (folder / "page.json").write_bytes(_json(facts | {"files": files, "download": vars(total)}))
    return total


def _gzip(content: bytes) -> bytes:
    return gzip.compress(content, 9, mtime=0)


def _json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def _snippet(text: str, length: int) -> str:
    """The beginning of a text in one line, up to a word's end where there is one."""
    line = " ".join(text.split())
    if len(line) <= length:
        return line
    cut = line[: length + 1].rpartition(" ")[0] or line[:length]
    return f"{cut}…" if length else ""
