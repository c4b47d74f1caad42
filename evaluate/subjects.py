"""Models under evaluation: a folder in torch with every exit, the ONNX files of an artifact, or a bundle's encoders."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from emb.artifact.bundle import Bundle, EncoderRecord
from emb.artifact.fingerprints import fingerprint, verify_model
from emb.artifact.manifest import Kind, Manifest, Variant, is_artifact, weights_name
from emb.artifact.runs import finished_static
from emb.artifact.variants import distinct
from emb.errors import UsageError
from emb.evaluate.scores import Output
from emb.progress import bar, warn
from emb.quantize.vectors.ranges import as_floats
from emb.runtime.bundle_encoder import require_unchanged
from emb.similarity import Vectors
from emb.teachers.locate import locate
from emb.tokens import Cut, count_cut, tell

if TYPE_CHECKING:
    from emb.model.embedding_model import EmbeddingModel
    from emb.runtime.encoder import Encoder

_BUDGET_CPU, _BUDGET_GPU = 512, 65536


class Subject(Protocol):
    """A model under evaluation; `vectors` gives `(texts, dim)` for each of its outputs, `points`, in one pass,
    `fingerprint` what an output depends on.

    `taught_by` is the fingerprint of the teacher that it was distilled from, if that is known; `framework` what runs
    it, in mteb's words.
    """

    name: str
    folder: Path
    in_teacher_space: bool
    taught_by: str | None

    @property
    def hashes(self) -> Sequence[str]: ...

    def fingerprint(self, point: Output) -> str: ...

    @property
    def dim(self) -> int: ...

    @property
    def similarity(self) -> str: ...

    @property
    def points(self) -> list[Output]: ...

    @property
    def max_length(self) -> int: ...

    @property
    def prompts(self) -> dict[str, str]: ...

    @property
    def framework(self) -> tuple[str, ...]: ...

    def vectors(self, texts: Sequence[str], kind: str) -> dict[Output, Vectors]: ...


def parts_of(model: str | Path, layers: Sequence[int]) -> Iterator[tuple[str | Path, list[int]]]:
    """The models to open for `model`, each with the exits asked of it: a run's static encoder answers for 0 layers."""
    static = finished_static(Path(model))
    rest = [each for each in layers if each or static is None]
    if static and (not layers or 0 in layers):
        yield static, []
    if rest or not layers:
        yield model, rest


def open_subject(
    model: str | Path,
    layers: Sequence[int],
    dtype: str,
    precisions: Sequence[str],
    threads: int | None,
    *,
    verify: bool = True,
    trust_remote_code: bool = False,
) -> Subject:
    """A model by path or name, ready to encode; `evaluate` describes the arguments."""
    name, folder = locate(model, trust_remote_code=trust_remote_code)
    manifest = Manifest.load(folder) if is_artifact(folder) else None
    if manifest and manifest.variants:
        return OnnxSubject.open(name, folder, manifest, precisions, threads, verify)
    if manifest and verify:
        verify_model(folder, manifest)
    return TorchSubject.open(name, folder, manifest, layers, dtype, trust_remote_code)


def open_bundle(
    folder: Path, dtype: str, threads: int | None, *, verify: bool = True, trust_remote_code: bool = False
) -> tuple[Subject, Subject]:
    """The encoder of queries in a bundle, by the bundle's name, and that of its documents, in `dtype`.

    That the two share a space was found when they were bundled, whatever their manifests say.

    Raises:
        ArtifactError: not a bundle, or one of its encoders is missing or has changed.
    """
    bundle = Bundle.load(folder)
    query, document = (
        _open_side(bundle, side, folder, used, threads, verify, trust_remote_code)
        for side, used in ((bundle.query, "fp32"), (bundle.document, dtype))
    )
    return replace(query, name=folder.resolve().name, in_teacher_space=True, taught_by=None), document


def _open_side(
    bundle: Bundle,
    side: EncoderRecord,
    folder: Path,
    dtype: str,
    threads: int | None,
    verify: bool,
    trust_remote_code: bool,
) -> TorchSubject | OnnxSubject:
    place = bundle.folder_of(side, folder)
    if verify:
        require_unchanged(side, place)
    manifest = Manifest.load(place) if is_artifact(place) else None
    if manifest and side.file:
        return OnnxSubject.of(side.name, place, manifest, [manifest.variant(side.file)], threads, verify)
    found = TorchSubject.open(side.name, place, manifest, (), dtype, trust_remote_code)
    return replace(found, exits=found.exits[-1:])


def warn_of_other_teacher(name: str, taught_by: str | None, teacher: str, weights: str) -> None:
    """Warn where a student was distilled from other weights than those that encode the documents."""
    if taught_by not in (None, weights):
        # Saved again in another precision it is the same model still, so this is no error.
        warn(
            f"{name}: was distilled from other weights than those of {teacher} here; if that is another"
            " model, its asymmetric figures mean nothing"
        )


@dataclass(repr=False)
class TorchSubject:
    """A sentence-transformers folder in torch: every exit in one forward pass."""

    name: str
    folder: Path
    model: EmbeddingModel
    exits: list[int]
    dtype: str
    in_teacher_space: bool
    taught_by: str | None

    def __repr__(self) -> str:  # what its vectors depend on besides the files
        return f"torch {self.exits} {self.dtype}"

    @classmethod
    def open(
        cls,
        name: str,
        folder: Path,
        manifest: Manifest | None,
        layers: Sequence[int],
        dtype: str,
        trust_remote_code: bool = False,
    ) -> TorchSubject:
        """Load a folder, with its manifest if it has one; `layers` chooses among its exits.

        Raises:
            UsageError: an exit that was not trained.
        """
        from emb.machine import device, resolve_dtype
        from emb.model.embedding_model import load_model

        model = load_model(folder, dtype=resolve_dtype(dtype), trust_remote_code=trust_remote_code).to(device())
        missing = sorted(set(layers) - set(model.exits))
        if missing:
            raise UsageError(
                f"--layers {missing[0]}: {name} has no output there",
                f"it has them at {', '.join(map(str, model.exits))}",
            )
        return cls(
            name,
            folder,
            model,
            sorted(layers) or model.exits,
            dtype,
            bool(manifest and manifest.kind != Kind.ENCODER),
            _teacher_weights(manifest),
        )

    @cached_property
    def hashes(self) -> Sequence[str]:
        """The folder's."""
        return [fingerprint(self.folder)]

    def fingerprint(self, point: Output) -> str:
        """The folder's: every exit is in it."""
        return self.hashes[0]

    @property
    def dim(self) -> int:
        """Width of the deepest exit's vectors."""
        return self.model.dim

    @property
    def similarity(self) -> str:
        """What its vectors are compared with."""
        return self.model.spec.similarity

    @property
    def points(self) -> list[Output]:
        """Each exit."""
        weights = "fp32" if str(next(self.model.parameters()).dtype) == "torch.float32" else "bf16"
        return [Output(exit_, weights) for exit_ in self.exits]

    @property
    def max_length(self) -> int:
        """Tokens of a text that are read."""
        return self.model.spec.max_length

    @property
    def prompts(self) -> dict[str, str]:
        """What stands before each kind of text."""
        return {kind: self.model.spec.prompt(kind) for kind in ("query", "document")}

    @property
    def framework(self) -> tuple[str, ...]:
        """What runs it."""
        return ("Sentence Transformers", "PyTorch")

    def vectors(self, texts: Sequence[str], kind: str) -> dict[Output, Vectors]:
        """Vectors `(texts, dim)` float32 at each exit, re-normalised later."""
        from emb.model.batches import gathered, over_batches

        tokenizer = self.model.tokenizer()
        rows = tokenizer.encode(texts, self.model.spec.prompt(kind))
        tell(count_cut(tokenizer, texts, self.model.spec.prompt(kind), rows), f"{self.name} ({kind})")
        compute, place = partial(self.model, exits=self.exits), next(self.model.parameters())
        budget = _BUDGET_GPU if place.device.type == "cuda" else _BUDGET_CPU
        with bar(f"{self.name} ({kind})", sum(map(len, rows))) as advance:
            batches = over_batches(compute, self.model, tokenizer, rows, tokens_per_batch=budget, done=advance)
            found = gathered(batches, len(rows))
        return {point: found[point.layers] for point in self.points}


@dataclass(repr=False)
class OnnxSubject:
    """An exported folder: every ONNX file in it, through onnxruntime."""

    name: str
    folder: Path
    manifest: Manifest
    encoders: list[tuple[Variant, Encoder]]
    in_teacher_space: bool
    taught_by: str | None

    def __repr__(self) -> str:
        return f"onnx {[variant.file for variant, _ in self.encoders]}"

    @classmethod
    def open(
        cls, name: str, folder: Path, manifest: Manifest, precisions: Sequence[str], threads: int | None, verify: bool
    ) -> OnnxSubject:
        """Open every variant of the given precisions, those that failed their gate too: the table shows what that
        costs.

        Raises:
            UsageError: no variant has such weights.
        """
        wanted = [variant for variant in distinct(manifest) if not precisions or variant.weight_dtype in precisions]
        if not wanted:
            raise UsageError(
                f"--precision {','.join(precisions)}: {name} has no such file",
                f"it has {', '.join(sorted({v.weight_dtype for v in manifest.variants}))}",
            )
        return cls.of(name, folder, manifest, wanted, threads, verify)

    @classmethod
    def of(
        cls,
        name: str,
        folder: Path,
        manifest: Manifest,
        variants: Sequence[Variant],
        threads: int | None,
        verify: bool,
    ) -> OnnxSubject:
        """Open some of an artifact's files."""
        from emb.runtime.encoder import ArtifactEncoder

        encoders: list[tuple[Variant, Encoder]] = [
            (variant, ArtifactEncoder(folder, variant.file, threads, verify=verify)) for variant in variants
        ]
        return cls(name, folder, manifest, encoders, manifest.kind != Kind.ENCODER, _teacher_weights(manifest))

    @cached_property
    def hashes(self) -> Sequence[str]:
        """Of each file."""
        return [fingerprint(self.folder, variant.file) for variant, _ in self.encoders]

    def fingerprint(self, point: Output) -> str:
        """That of the file whose output `point` is."""
        return dict(zip(self.points, self.hashes, strict=True))[point]

    @property
    def dim(self) -> int:
        """Width of the vectors."""
        return self.manifest.dim

    @property
    def similarity(self) -> str:
        """What its vectors are compared with."""
        return self.manifest.similarity

    @property
    def points(self) -> list[Output]:
        """Each file."""
        return [self._point(variant) for variant, _ in self.encoders]

    @property
    def max_length(self) -> int:
        """Tokens of a text that are read."""
        return self.manifest.max_length

    @property
    def prompts(self) -> dict[str, str]:
        """What stands before each kind of text."""
        return self.manifest.prompts

    @property
    def framework(self) -> tuple[str, ...]:
        """What runs it."""
        return ("ONNX",)

    def vectors(self, texts: Sequence[str], kind: str) -> dict[Output, Vectors]:
        """Vectors `(texts, dim)` float32 of each file; stored formats are decoded."""
        found: dict[Output, Vectors] = {}
        cuts: list[Cut] = []
        for variant, encoder in self.encoders:  # they share a tokenizer: the first tells of all
            vectors = encoder.encode(texts, kind=kind, show_progress_bar=True, count=None if cuts else cuts.append)
            found[self._point(variant)] = as_floats(
                vectors, variant.vector_dtype, self.manifest.calibration.get("ranges"), self.manifest.dim
            )
        tell(cuts[0], f"{self.name} ({kind})")
        return found

    def _point(self, variant: Variant) -> Output:
        return Output(self.manifest.layers, weights_name(variant.weight_dtype, variant.exporter), variant.vector_dtype)


def _teacher_weights(manifest: Manifest | None) -> str | None:
    return manifest.lineage.teacher.weights if manifest and manifest.lineage.teacher else None
