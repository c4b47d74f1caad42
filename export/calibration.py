"""The texts that an export calibrates on and judges its files by."""

from __future__ import annotations

from dataclasses import dataclass

from emb.artifact.manifest import Manifest
from emb.data.hard_texts import HARD, hard_samples, row_norms
from emb.data.probes import UNUSUAL, Sample, probes, samples
from emb.data.run_texts import texts_for
from emb.export.options import Options
from emb.export.source import Source
from emb.model.embedding_model import EmbeddingModel
from emb.quantize.weights.judge import Trial
from emb.quantize.weights.saturation import EIGHT_BITS, SEVEN_BITS
from emb.runtime.encoder import ArtifactEncoder
from emb.tokens import Rows, count_cut, prompt_of, tell

_CALIBRATION = 256  # texts that int8 ranges come from
_RANGED = 64  # ordinary texts that activations are watched on, besides unusual ones
_JUDGED = 48  # ordinary texts that 8-bit schemes are judged on, besides the odd ones


@dataclass(frozen=True)
class Texts:
    """Of one model: those to calibrate on, and others to judge files by."""

    calibration: list[str]
    judged: list[Sample]


def texts_of(options: Options, source: Source, model: EmbeddingModel) -> Texts:
    """Texts for calibration, and others (where there are enough) to judge schemes on, with those that break encoders or
    are made to break `model`.
    """
    given = samples(list(options.calibration_texts or ())) or [
        Sample(item.text, item.kind) for item in texts_for(source.folder, _CALIBRATION + _JUDGED)[0]
    ]
    tell(
        count_cut(model.tokenizer(), [each.text for each in given], [model.spec.prompt(each.kind) for each in given]),
        "texts to calibrate and judge on",
    )
    ordinary = given[-_JUDGED:]
    rest = given[:-_JUDGED] or given
    return Texts(
        [each.text for each in rest[:_CALIBRATION]],
        [*ordinary, *probes(model.spec.max_length), *hard_samples(model.tokenizer(), row_norms(model.encoder))],
    )


def calibrated_trial(manifest: Manifest, encoder: ArtifactEncoder, options: Options, texts: Texts) -> Trial:
    """What the files of one export are held to."""
    rows = _rows(manifest, encoder, texts.judged)
    hard = _rows(manifest, encoder, [each for each in texts.judged if each.group == HARD])
    calibration = [
        encoder.tokenizer.pad([row]) for row in encoder.tokenizer.encode([*texts.calibration[:_RANGED], *UNUSUAL])
    ]
    largest, limit = (
        SEVEN_BITS if options.reduce_range else EIGHT_BITS,
        round(options.max_mb * 1e6) if options.max_mb else None,
    )
    return Trial(encoder.tokenizer, rows, calibration, options.threads, largest, limit, hard)


def _rows(manifest: Manifest, encoder: ArtifactEncoder, texts: list[Sample]) -> Rows:
    rows = [encoder.tokenizer.encode([each.text], prompt_of(manifest.prompts, each.kind))[0] for each in texts]
    return list({row.tobytes(): row for row in rows}.values())  # without prompts, a query is a document
