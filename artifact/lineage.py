"""Where an artifact comes from: what `emb.json` records of its teacher, texts, training, export and healing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class TeacherRecord:
    """Whom a student was distilled from.

    Attributes:
        name: by which it was asked for.
        path: its folder on the machine of the training; empty where it had none.
        revision: commit on the hub, where it came from there.
        fingerprint: of its vectors: weights, modules and prompts.
        weights: sha256 of its weights alone.
    """

    name: str
    path: str = ""
    revision: str | None = None
    fingerprint: str | None = None
    weights: str | None = None


@dataclass(frozen=True)
class DataRecord:
    """The texts of a training: their hash, how many there were, and how many of them were held out."""

    hash: str
    texts: int
    held_out: int | None = None


@dataclass(frozen=True)
class SourceRecord:
    """The foreign model that was exported as it is.

    Attributes:
        name: by which it was asked for.
        fingerprint: sha256 of its weights alone, which a rotated copy may share.
        weights: of its folder (`artifact.fingerprints.weights_hash`), as students name their teacher's.
    """

    name: str
    fingerprint: str | None = None
    weights: str | None = None


@dataclass
class ExportRecord:
    """The libraries that wrote the files."""

    versions: dict[str, str] = field(default_factory=dict)


@dataclass
class Candidate:
    """One scheme of 8- or 4-bit weights and what it gave.

    Attributes:
        mean_cosine, min_cosine: of each text, in each setting, to the fp32 graph.
        alone_cosine: the smallest cosine of a text's vector alone to its vectors in batches.
        latency_ms: of one short text.
        texts_per_second: over texts of mixed lengths.
        overflow: of the chosen one, the share of sums that would not fit on a processor without VNNI
            (`quantize.weights.saturation`).
    """

    name: str
    what: str
    bytes: int = 0
    mean_cosine: float | None = None
    min_cosine: float | None = None
    alone_cosine: float | None = None
    latency_ms: float | None = None
    texts_per_second: float | None = None
    passed: bool = False
    chosen: bool = False
    reason: str = ""
    overflow: float | None = None


@dataclass(frozen=True)
class QuantizationRecord:
    """How the 8-bit weights were chosen: the gate, where it was measured, and every candidate."""

    chosen: str
    min_cosine: float
    threads: int | None = None
    candidates: list[Candidate] = field(default_factory=list)
    processor: str | None = None
    reduce_range: bool = False


@dataclass(frozen=True)
class HealedFile:
    """Figures of one file on held-out texts, of the unhealed slice's file of the same scheme and of the healed one.

    `before` and `after` hold the mean `cosine` to the teacher, and `overlap` and `asymmetric` of the ten nearest.
    """

    weights: str
    vectors: str
    before: dict[str, float]
    after: dict[str, float]


@dataclass(frozen=True)
class HealingRecord:
    """How a slice was trained under the rounding of its files; `files` is empty until they are measured."""

    weights: list[str]
    binary: bool
    steps: int
    texts: int
    seconds: float
    data: DataRecord
    recipe: dict[str, Any]
    files: list[HealedFile] = field(default_factory=list)


@dataclass(frozen=True)
class VocabularyRecord:
    """How a vocabulary was adapted: which way, from which model, on which texts.

    Attributes:
        mode: trim, extend or both.
        source: name of the model with the former vocabulary, `weights` the sha256 of it.
        tokens_before, tokens_after: of the tokenizers.
        added: how many of them are new.
        data: the texts.
        options: all that was asked.
    """

    mode: str
    source: str
    weights: str
    tokens_before: int
    tokens_after: int
    added: int
    data: DataRecord
    options: dict[str, Any] = field(default_factory=dict)


@dataclass
class Lineage:
    """All that is known of where an artifact comes from; what does not apply is None or empty.

    Attributes:
        recipe: of the distillation, as resolved.
        versions: of the libraries that trained.
        projection_powers: how far each exit's projection was flattened.
        vocabulary: each adaptation of the vocabulary, in order.
    """

    teacher: TeacherRecord | None = None
    recipe: dict[str, Any] | None = None
    data: DataRecord | None = None
    seed: int | None = None
    versions: dict[str, str] = field(default_factory=dict)
    projection_powers: dict[str, float] = field(default_factory=dict)
    source: SourceRecord | None = None
    export: ExportRecord = field(default_factory=ExportRecord)
    quantization: QuantizationRecord | None = None
    healing: HealingRecord | None = None
    vocabulary: list[VocabularyRecord] = field(default_factory=list)

    @classmethod
    def read(cls, value: Mapping[str, Any]) -> Lineage:
        """From the JSON of `emb.json`, of any schema so far.

        Raises:
            TypeError: a key that is unknown, or one that is missing.
        """
        readers: dict[str, Callable[..., Any]] = {
            "teacher": TeacherRecord,
            "data": DataRecord,
            "source": SourceRecord,
            "export": ExportRecord,
            "quantization": _quantization,
            "healing": _healing,
            "vocabulary": _vocabulary,
        }
        typed = {
            key: read(value[key]) if isinstance(value[key], list) else read(**value[key])
            for key, read in readers.items()
            if value.get(key)
        }
        return cls(**{key: rest for key, rest in value.items() if key not in readers}, **typed)


def _quantization(candidates: list[dict[str, Any]], **rest: Any) -> QuantizationRecord:
    return QuantizationRecord(candidates=[Candidate(**each) for each in candidates], **rest)


def _healing(data: dict[str, Any], files: list[dict[str, Any]], **rest: Any) -> HealingRecord:
    return HealingRecord(data=DataRecord(**data), files=[HealedFile(**each) for each in files], **rest)


def _vocabulary(records: list[dict[str, Any]]) -> list[VocabularyRecord]:
    return [VocabularyRecord(**(each | {"data": DataRecord(**each["data"])})) for each in records]
