"""`emb.mteb_model`: a model as mteb's own `evaluate` takes it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

from emb.artifact.bundle import is_bundle
from emb.artifact.fingerprints import fingerprint
from emb.artifact.manifest import Kind, Manifest, is_artifact
from emb.errors import UsageError
from emb.evaluate.mteb_models import Encode, EncoderModel, Facts, SearchModel
from emb.evaluate.subjects import warn_of_other_teacher
from emb.runtime.bundle_encoder import BundleEncoder
from emb.runtime.encoder import ArtifactEncoder, Encoder, load
from emb.similarity import Vectors
from emb.teachers.locate import locate

_Opened: TypeAlias = tuple[str, Path, Encoder]  # what it is called, where it lies


def open_mteb_model(
    model: str | Path, doc: str | Path | None, file: str | None, dim: int | None, **options: Any
) -> EncoderModel | SearchModel:
    """`emb.mteb_model`, which describes the arguments."""
    name, folder, query = _opened(model, file, **options)
    if isinstance(query, BundleEncoder):
        if doc is not None:
            raise UsageError(f"{model}: a bundle brings the encoder of its documents", "leave doc out")
        bundle = query.bundle
        revision = _revision(bundle.query.fingerprint, bundle.document.fingerprint)
        width = _width(dim, query.dim)
        return SearchModel(_cut(query, query, width), _facts(name, revision, query, width, bundle.document.name))
    own = fingerprint(folder, _file_of(query))
    if doc is None:
        width = _width(dim, query.dim)
        return EncoderModel(_cut(query, query, width), _facts(name, own[:12], query, width, _teacher_of(folder)))
    documents = _opened(doc, None, **options)
    _require_space((name, folder, query), documents)
    revision = _revision(own, fingerprint(documents[1], _file_of(documents[2])))
    width = _width(dim, min(query.dim, documents[2].dim))
    facts = _facts(f"{name}-on-{documents[0]}", revision, query, width, documents[0])
    return SearchModel(_cut(query, documents[2], width), facts)


def _opened(model: str | Path, file: str | None, **options: Any) -> _Opened:
    name, folder = locate(model, trust_remote_code=options["trust_remote_code"])
    encoder = load(folder, file=file, **options)
    if isinstance(encoder, ArtifactEncoder) and encoder.variant.vector_dtype != "float32":
        raise UsageError(f"file {file}: its vectors are {encoder.variant.vector_dtype} codes", "name a file of floats")
    return name, folder, encoder


def _width(dim: int | None, shared: int) -> int:
    if dim is not None and not 1 <= dim <= shared:
        raise UsageError(f"dim {dim}: there are {shared}", f"choose 1 to {shared}")
    return dim or shared


def _cut(query: Encoder, document: Encoder, width: int) -> Encode:
    """Texts to vectors of `width` numbers, each kind by its encoder."""

    def encode(texts: Sequence[str], kind: str) -> Vectors:
        by = query if kind == "query" else document
        vectors: Vectors = by.encode(texts, kind=kind, truncate_dim=width)
        return vectors

    return encode


def _facts(name: str, revision: str, query: Encoder, width: int, teacher: str | None) -> Facts:
    inner = query.query if isinstance(query, BundleEncoder) else query
    framework = ("ONNX",) if isinstance(inner, ArtifactEncoder) else ("Sentence Transformers", "PyTorch")
    cut = f"-{width}" if width != query.dim else ""
    prompts = any(query.prompts.values())
    measure = query.similarity_fn_name
    return Facts(name + cut, revision, width, query.max_length, measure, framework, prompts, teacher)


def _require_space(query: _Opened, document: _Opened) -> None:
    """See that queries of one model can be compared with documents of the other.

    Raises:
        UsageError: nothing says so.
    """
    manifest = Manifest.load(query[1]) if is_artifact(query[1]) else None
    if manifest is None or manifest.kind == Kind.ENCODER:
        raise UsageError(
            f"{query[0]}: nothing says that it shares a vector space with {document[0]}",
            f"let a bundle find out, and give that: emb bundle --query {query[1]} --doc {document[1]}",
        )
    teacher = manifest.lineage.teacher.weights if manifest.lineage.teacher else None
    warn_of_other_teacher(query[0], teacher, document[0], fingerprint(document[1], _file_of(document[2])))


def _teacher_of(folder: Path) -> str | None:
    record = Manifest.load(folder).lineage.teacher if is_artifact(folder) and not is_bundle(folder) else None
    return record.name if record else None


def _file_of(encoder: Encoder) -> str | None:
    return encoder.variant.file if isinstance(encoder, ArtifactEncoder) else None


def _revision(*fingerprints: str) -> str:
    return "-".join(each[:12] for each in fingerprints)
