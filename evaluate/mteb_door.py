"""`emb.mteb_model`: a model as mteb's own `evaluate` takes it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from emb.artifact.bundle import is_bundle
from emb.artifact.fingerprints import fingerprint
from emb.artifact.manifest import Kind, Manifest, is_artifact
from emb.errors import UsageError
from emb.evaluate.mteb_models import EncoderModel, Facts, SearchModel
from emb.evaluate.subjects import warn_of_other_teacher
from emb.runtime.bundle_encoder import BundleEncoder
from emb.runtime.encoder import ArtifactEncoder, Encoder, load
from emb.similarity import Vectors
from emb.teachers.locate import locate

_Opened = tuple[str, Path, Encoder]  # what it is called, where it lies


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
        return SearchModel(_cut(query, query, dim), _facts(name, revision, query, dim, bundle.document.name))
    own = fingerprint(folder, _file_of(query))
    if doc is None:
        return EncoderModel(_cut(query, query, dim), _facts(name, own[:12], query, dim, _teacher_of(folder)))
    documents = _opened(doc, None, **options)
    _require_space((name, folder, query), documents)
    revision = _revision(own, fingerprint(documents[1], _file_of(documents[2])))
    facts = _facts(f"{name}-on-{documents[0]}", revision, query, dim, documents[0])
    return SearchModel(_cut(query, documents[2], dim), facts)


def _opened(model: str | Path, file: str | None, **options: Any) -> _Opened:
    name, folder = locate(model, trust_remote_code=options["trust_remote_code"])
    encoder = load(folder, file=file, **options)
    if isinstance(encoder, ArtifactEncoder) and encoder.variant.vector_dtype != "float32":
        raise UsageError(f"file {file}: its vectors are {encoder.variant.vector_dtype} codes", "name a file of floats")
    return name, folder, encoder


def _cut(query: Encoder, document: Encoder, dim: int | None) -> Any:
    """Texts to vectors of `dim` numbers, each kind by its encoder."""
    width = dim or query.dim
    query._check(width, 1)

    def encode(texts: Sequence[str], kind: str) -> Vectors:
        by = query if kind == "query" else document
        vectors: Vectors = by.encode(texts, kind=kind, truncate_dim=width)
        return vectors

    return encode


def _facts(name: str, revision: str, query: Encoder, dim: int | None, teacher: str | None) -> Facts:
    inner = query.query if isinstance(query, BundleEncoder) else query
    framework = ("ONNX",) if isinstance(inner, ArtifactEncoder) else ("Sentence Transformers", "PyTorch")
    cut = f"-{dim}" if dim and dim != query.dim else ""
    return Facts(
        name + cut,
        revision,
        dim or query.dim,
        query.max_length,
        query.similarity_fn_name,
        framework,
        any(query.prompts.values()),
        teacher,
    )


def _require_space(query: tuple[str, Path, Encoder], document: tuple[str, Path, Encoder]) -> None:
    """See that queries of one model can be compared with documents of the other.

    Raises:
        UsageError: nothing says so.
    """
    manifest = Manifest.load(query[1]) if is_artifact(query[1]) else None
    if manifest is None or manifest.kind == Kind.ENCODER or document[2].dim < query[2].dim:
        raise UsageError(
            f"{query[0]}: nothing says that it shares a vector space with {document[0]}",
            f"let a bundle find out, and give that: emb bundle --query {query[0]} --doc {document[0]}",
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
