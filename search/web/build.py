"""From a query encoder and documents to the page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from emb.artifact.bundle import is_bundle
from emb.artifact.runs import finished_static, run_status
from emb.data.documents import Document, read_documents
from emb.errors import ArtifactError, UsageError
from emb.files import refuse_existing
from emb.progress import note, warn
from emb.runtime.encoder import Encoder, load
from emb.search.bundling.space import check_space
from emb.search.known_vectors import KnownVectors
from emb.search.sides import document_encoder, document_folder, query_folder
from emb.search.web.codes import CODECS
from emb.search.web.query_side import query_side
from emb.search.web.write import Look, Page, write_page
from emb.similarity import Vectors
from emb.tokens import Cut, tell

_MANY = 50_000  # documents that a browser fetches and looks at in comfort


def build(
    query: Path,
    sources: Sequence[str],
    doc: Path | None,
    out: Path,
    *,
    field: str,
    dim: int | None,
    codec: str,
    look: Look,
    overwrite: bool,
    trust_remote_code: bool,
) -> Page:
    """`emb.web`, which describes the arguments."""
    refuse_existing(out, overwrite)
    large = _doc(query, doc)
    encoder, folder = _query(query, trust_remote_code)
    width = _width(encoder, dim)
    _require_known(encoder, codec, look)
    documents = read_documents(sources, field)
    if len(documents) > _MANY:
        warn(f"{len(documents):,} documents: more than {_MANY:,} make a large download and slow searches")
    side = query_side(encoder, folder, width, [each.whole for each in documents])  # before the hour of encoding
    vectors = _vectors(encoder, folder, large, documents, trust_remote_code)
    return write_page(out, side, documents, vectors, codec=codec, look=look, overwrite=overwrite)


def _query(path: Path, trust_remote_code: bool) -> tuple[Encoder, Path]:
    folder = query_folder(path)
    if run_status(folder) is not None:
        folder = (finished_static(folder) or folder) / "student"
    if is_bundle(path):
        load(path, trust_remote_code=trust_remote_code)  # both sides are held against their fingerprints when opened
    return load(folder, trust_remote_code=trust_remote_code), folder


def _doc(query: Path, doc: Path | None) -> Path:
    if doc is None and not is_bundle(query):
        raise UsageError("the documents have no encoder", "add --doc MODEL, or give a bundle as the query encoder")
    return doc or query


def _width(encoder: Encoder, dim: int | None) -> int:
    if dim is not None and not 1 <= dim <= encoder.dim:
        raise UsageError(
            f"{dim} dims cannot be kept: the query encoder has {encoder.dim}", f"choose 1 to {encoder.dim}"
        )
    return dim or encoder.dim


def _require_known(encoder: Encoder, codec: str, look: Look) -> None:
    if codec not in CODECS:
        raise UsageError(f"the codec {codec} is unknown here", f"known: {', '.join(CODECS)}")
    if look.snippet < 0:
        raise UsageError(f"--snippet {look.snippet} is no length", "choose 0 or more characters")
    if encoder.similarity_fn_name not in ("cosine", "dot"):
        raise ArtifactError(
            f"the query encoder's vectors are compared by {encoder.similarity_fn_name}, which the page does not do",
            "the page compares by cosine or dot product",
        )


def _vectors(
    encoder: Encoder, folder: Path, doc: Path, documents: Sequence[Document], trust_remote_code: bool
) -> Vectors:
    large = document_encoder(doc, cached=True, trust_remote_code=trust_remote_code)
    check_space(encoder, large, (folder, document_folder(doc)))
    note(f"{doc.name}: {len(documents):,} documents")
    cuts: list[Cut] = []
    texts = [each.whole for each in documents]
    vectors: Vectors = large.encode(texts, kind="document", show_progress_bar=True, count=cuts.append)
    tell(cuts[0], doc.name)
    if isinstance(large, KnownVectors):
        large.tell()
    return vectors
