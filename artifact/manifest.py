"""`emb.json`: what an artifact is, where it came from, and the hash of every file in it."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from emb.artifact.lineage import Lineage
from emb.errors import ArtifactError
from emb.files import read_json, sha256_file, write_json

SCHEMA = 2
# 1: its lineage and pairs were untyped, with the same keys; the first of them had no digest.
_READS = (1, 2)
FILE = "emb.json"
SIGNED = ("SHA256SUMS", "SHA256SUMS.sig")  # `artifact.signature`
# Written after the manifest, about the artifact: they describe it and are no part of it.
_REPORTS = {FILE, "parity.json", "report.html", "evaluation.json", "calibration.json", "README.md", *SIGNED}


@dataclass(frozen=True, order=True)
class LayerDimPair:
    """The unit of training, export and reporting: layers kept (1-based) and output dimension."""

    layers: int
    dim: int

    def __str__(self) -> str:
        return f"{self.layers}x{self.dim}"


@dataclass(frozen=True)
class PairScores:
    """What a pair reached on held-out texts: mean `cosine` to the teacher, and `overlap` of the ten nearest.

    `retention`, where the documents to be searched were given: how far its queries find in them what the teacher's
    own find, 1 being as well (`distill.retention`); `forecast` is what was expected of that before. `parameters` counts
    the pair's numbers, `milliseconds` is what one query took in torch on the machine of the training.
    """

    layers: int
    dim: int
    cosine: float
    overlap: float
    retention: float | None = None
    forecast: float | None = None
    parameters: int | None = None
    milliseconds: float | None = None

    @property
    def pair(self) -> LayerDimPair:
        """Which pair it is."""
        return LayerDimPair(self.layers, self.dim)


class Kind(StrEnum):
    """What an artifact is."""

    STUDENT = "student"  # every exit, trainable
    SLICE = "slice"  # one exit of a student, exported
    ENCODER = "encoder"  # a foreign model, exported as it is
    ADAPTED = "adapted"  # a foreign model with another vocabulary, in its own vector space


@dataclass
class Variant:
    """One model file of an artifact, of ONNX unless another exporter wrote it.

    `weight_dtype` is fp32, fp16, int8 or int4; `vector_dtype` float32, int8 or ubinary; `quantizer` is the name of
    the scheme that made its 8 or 4 bits, or "stored" for fp16 that is computed with in float32. `passed` is None
    until a gate has spoken. `exporter` is "emb", or "optimum", "openvino" or "ctranslate2" for a file that stands
    beside ours for comparison.
    """

    file: str
    weight_dtype: str = "fp32"
    vector_dtype: str = "float32"
    quantizer: str | None = None
    passed: bool | None = None
    min_cosine: float | None = None
    exporter: str = "emb"


@dataclass
class Manifest:
    """The content of `emb.json`.

    Attributes:
        kind: student, slice, encoder or adapted.
        layers, dim: of the vectors this folder's default model returns.
        pooling: "mean", "cls" or "lasttoken".
        prompts: prefix by name, "query", "document" and others.
        similarity: what its vectors are compared with: "cosine", "dot", "euclidean" or "manhattan".
        pairs: the (layers, dim) pairs trained, each with its held-out scores.
        lineage: where it comes from.
        calibration: per-dimension ranges (2, dim) for int8 vectors, and the binary convention.
        files: sha256 of each file, by path relative to the folder.
        digest: sha256 of all that is above, as it was written; empty in files of older versions, which had none.
    """

    kind: Kind
    layers: int
    dim: int
    pooling: str
    normalize: bool
    max_length: int
    prompts: dict[str, str] = field(default_factory=dict)
    pairs: list[PairScores] = field(default_factory=list)
    variants: list[Variant] = field(default_factory=list)
    lineage: Lineage = field(default_factory=Lineage)
    calibration: dict[str, Any] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    similarity: str = "cosine"
    schema: int = SCHEMA
    digest: str = ""

    @classmethod
    def load(cls, folder: Path) -> Manifest:
        """Read `folder/emb.json`.

        Raises:
            ArtifactError: missing, not JSON, of another schema, or with unknown keys.
        """
        value = read_json(folder / FILE)
        schema = value.get("schema") if isinstance(value, dict) else None
        if schema not in _READS:
            raise ArtifactError(
                f"{folder / FILE}: schema {schema!r}, this version reads {SCHEMA} and older",
                "export the artifact again, or upgrade: pip install -U emb-distill",
            )
        try:
            return cls._typed(**value)
        except (TypeError, ValueError, AttributeError) as error:
            raise ArtifactError(f"{folder / FILE}: {error}", "export the artifact again") from error

    @classmethod
    def _typed(cls, kind: str, **value: Any) -> Manifest:
        value["schema"] = SCHEMA  # that of what it is written as from now on
        value["variants"] = [Variant(**each) for each in value.get("variants", [])]
        value["pairs"] = [PairScores(**each) for each in value.get("pairs", [])]
        value["lineage"] = Lineage.read(value.get("lineage", {}))
        return cls(Kind(kind), **value)

    def save(self, folder: Path) -> None:
        """Hash every file below `folder` and write `folder/emb.json`."""
        self.files = {name: sha256_file(folder / name) for name in _files_below(folder)}
        self.write(folder)

    def write(self, folder: Path) -> None:
        """Write `folder/emb.json` with the hashes as they are: a note on the files must not vouch for them."""
        write_json(folder / FILE, self.sealed())

    def sealed(self) -> dict[str, Any]:
        """The content of `emb.json`, with the digest that it has now."""
        content = dataclasses.asdict(self)
        self.digest = content["digest"] = _digest(content)
        return content

    def verify(self, folder: Path, files: Iterable[str] | None = None) -> None:
        """Compare `emb.json` itself, and `files` (default: every one), with the hashes recorded for them.

        Raises:
            ArtifactError: naming the files that are missing or changed.
        """
        names = self.files if files is None else self.files.keys() & set(files)
        bad = sorted(name for name in names if _differs(folder / name, self.files[name]))
        if self.digest and self.digest != _digest(read_json(folder / FILE)):
            bad.append(FILE)
        if bad:
            hint = "export it again, or take it as it is with --no-verify"
            raise ArtifactError(f"{folder}: missing or changed since it was written: {', '.join(bad)}", hint)

    @property
    def learned_length(self) -> int | None:
        """Tokens of a text that training read, where the model itself reads more."""
        captured = ((self.lineage.recipe or {}).get("capture") or {}).get("max_length")
        return int(captured) if captured and captured < self.max_length else None

    def variant(self, file: str) -> Variant:
        """The entry of one file, by path relative to the folder."""
        for variant in self.variants:
            if variant.file == file:
                return variant
        raise ArtifactError(
            f"{file}: not a variant of this artifact", f"it has: {', '.join(v.file for v in self.variants) or 'none'}"
        )


def _digest(content: dict[str, Any]) -> str:
    # As it is read back: keys are strings.
    read = json.loads(json.dumps(content | {"digest": ""}))
    return hashlib.sha256(json.dumps(read, sort_keys=True).encode()).hexdigest()


def weights_name(weight_dtype: str, exporter: str) -> str:
    """The precision of a file's weights, and who wrote it if not this package."""
    return weight_dtype if exporter == "emb" else f"{weight_dtype}, {exporter}"


def paths_of(folder: Path, file: str) -> list[Path]:
    """A model file of the artifact `folder` with all that belongs to it: data beside a graph, or what else its runtime
    reads.
    """
    path = folder / file
    if path.suffix == ".xml":
        return [path, path.with_suffix(".bin")]
    if path.suffix == ".bin":  # CTranslate2 reads the whole folder, and the projections stand outside of it
        return sorted([*path.parent.iterdir(), *folder.glob("*_Dense/model.safetensors")])
    return sorted(path.parent.glob(f"{path.name}*"))


def bytes_of(folder: Path, file: str) -> int:
    """Size of a model file and all that belongs to it."""
    return sum(path.stat().st_size for path in paths_of(folder, file) if path.is_file())


def is_artifact(folder: Path) -> bool:
    """Whether `folder` was written by this package."""
    return (folder / FILE).is_file()


_OTHERS = {"run.json": "a run", "bundle.json": "a bundle", "index.json": "an index", "codec.json": "a codec"}


def what_else(folder: Path) -> str:
    """What a folder is, "a run" for example, where it is something else of ours than a model; or nothing."""
    return next((kind for name, kind in _OTHERS.items() if (folder / name).is_file()), "")


def no_artifact(folder: Path) -> ArtifactError:
    """What to raise where an artifact was asked for and `folder` is none."""
    if not folder.is_dir():
        return ArtifactError(f"{folder}: no such folder", "give the folder of an export")
    kind = what_else(folder)
    hint = f"run: emb export {folder}" if kind in ("", "a run") else "give the folder of an export"
    return ArtifactError(f"{folder}: {kind and kind + ', '}not an artifact of emb (it has no emb.json)", hint)


def _differs(path: Path, digest: str) -> bool:
    return not path.is_file() or sha256_file(path) != digest


def _files_below(folder: Path) -> list[str]:
    names = (path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*")) if path.is_file())
    return [name for name in names if name not in _REPORTS and not Path(name).name.startswith(".")]
