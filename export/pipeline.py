"""The steps of an export, in order: read the source, cut, trace, quantise, record."""

from __future__ import annotations

import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from emb.distill.recall import recall
from emb.encoder import OnnxEncoder
from emb.errors import ArtifactError, UsageError
from emb.export.check import check_graph, check_slice
from emb.export.exporters import add_others, check_exporters
from emb.export.external import declare, second_name
from emb.export.gains import measure_gains
from emb.export.graph import write_graph
from emb.export.heal import Aim, Healed, forget, heal, healing_recipe
from emb.export.probes import UNUSUAL, Sample, probes, samples
from emb.export.slice import resolve_pairs, slice_model
from emb.export.texts import texts_for
from emb.files import atomic_folder, refuse_existing, sha256_file
from emb.machine import has_vnni, processor
from emb.manifest import LayerDimPair, Manifest, Variant
from emb.model import EmbeddingModel, load_model, manifest_of, save_model
from emb.progress import note, warn
from emb.quantize import int4
from emb.quantize.half import MIN_COSINE, select_fp16
from emb.quantize.outputs import VECTOR_DTYPES, write_vectors
from emb.quantize.saturation import EIGHT_BITS, SEVEN_BITS
from emb.quantize.select import Candidate, Trial, fuse, select_int8, summary, try_recipe
from emb.quantize.vectors import BINARY, calibrate
from emb.registry import resolve, teachers
from emb.runs import latest_run, run_status

GRAPH = "onnx/model.onnx"
FP16 = "onnx/model_fp16.onnx"
WEB = "onnx/model_quantized.onnx"  # the name transformers.js opens
_CALIBRATION = 256  # texts that int8 ranges come from
_RANGED = 64  # ordinary texts that activations are watched on, besides unusual ones
_JUDGED = 48  # ordinary texts that 8-bit recipes are judged on, besides the odd ones
_LIBRARIES = ("torch", "transformers", "sentence-transformers", "onnx", "onnxruntime")


@dataclass(frozen=True)
class Options:
    """What to write besides the fp32 graph; the fields are those of `emb.export`."""

    int8: bool = False
    fp16: bool = False
    vectors: tuple[str, ...] = ()
    calibration_texts: Sequence[str] | None = None
    threads: int | None = None
    min_cosine: float = 0.99
    reduce_range: bool = False
    exporter: str | Sequence[str] = "emb"
    recipe: str | None = None  # of 8 bits, to try before all others
    int4: bool = False
    heal: float | None = None
    heal_data: tuple[str, ...] = ()


@dataclass(frozen=True)
class Source:
    """A model folder, what its manifest says, and where its exports go by default."""

    folder: Path
    name: str
    manifest: Manifest | None
    exports: Path


def run_export(
    source: Path | None, layers: Sequence[int], dims: Sequence[int], options: Options, *, out: Path | None, overwrite: bool, verify: bool, apart: bool = False
) -> list[Path]:
    """Export every pair; nothing is written before every pair and folder has been checked. `apart` gives even a single one a folder of its own below `out`."""
    found = find_source(source, verify)
    model = load_model(found.folder)
    pairs = resolve_pairs(model, found.manifest, layers, dims)
    _check(options, pairs)
    check_exporters(options.exporter, model)
    folders = [_place(found, pair, out, apart or len(pairs) > 1) for pair in pairs]
    for folder in folders:
        refuse_existing(folder, overwrite)
    texts = _texts(options, found, model.spec.max_length)
    healing = _healing(found, options) if options.heal else None
    won: dict[int, str] = {}  # by layers: dims differ in the last matrix alone
    for pair, folder in sorted(zip(pairs, folders, strict=True), key=lambda each: (each[0].layers, -each[0].dim)):
        note(f"{found.name}: {pair} → {folder}")
        sliced, place = slice_model(model, pair), folder.with_name(f".{folder.name}.healing")
        check_slice(model, sliced, pair)
        healed = healing(sliced, pair, place) if healing else None
        with atomic_folder(folder, replace=overwrite) as partial:
            manifest = _write(found, sliced, healed, pair, partial, replace(options, recipe=won.get(pair.layers)), texts)
        if "quantization" in manifest.lineage:
            won[pair.layers] = manifest.lineage["quantization"]["chosen"]
        if healed:
            forget(place)
    return folders


def _healing(source: Source, options: Options) -> Callable[[EmbeddingModel, LayerDimPair, Path], Healed]:
    """What heals each slice, with the texts and the teacher's vectors found and read."""
    recalled = recall(source.manifest.lineage if source.manifest else {}, options.heal_data)
    aim = Aim(tuple(name for name, wanted in (("int8", options.int8), ("int4", options.int4)) if wanted), "binary" in options.vectors)
    recipe = healing_recipe(recalled, options.heal or 0.0)
    return lambda sliced, pair, place: heal(sliced, pair, recalled, aim, recipe, place)


def find_source(source: Path | None, verify: bool = True) -> Source:
    """The model folder behind a run, an artifact, a model folder or a registered name.

    Raises:
        ArtifactError: nothing there, or an artifact changed by hand.
        UsageError: no run to take, or one without a student yet.
    """
    place = latest_run() if source is None else source
    if str(place) in teachers() and not place.exists():
        place = resolve(str(place)).path
    if not place.is_dir():
        raise ArtifactError(f"{place}: no such folder", "give a run, an artifact, a sentence-transformers folder, or a name of `emb models`")
    if run_status(place) is not None:
        folder, name, exports = place / "student", place.name, place / "exports"
        if not folder.is_dir():
            raise UsageError(f"{place}: the run has no student yet", f"finish it: emb distill --resume --out {place}")
    else:
        folder, name, exports = place, (source or place).name, Path("exports")
    manifest = manifest_of(folder)
    if manifest is not None and verify:
        manifest.verify(folder)
    return Source(folder, name, manifest, exports)


def _check(options: Options, pairs: Sequence[LayerDimPair]) -> None:
    unknown = set(options.vectors) - set(VECTOR_DTYPES)
    if unknown:
        raise UsageError(f"--vectors {', '.join(sorted(unknown))}: unknown", f"known: {', '.join(VECTOR_DTYPES)}")
    if options.heal and not (options.int8 or options.int4 or "binary" in options.vectors):
        raise UsageError("--heal: no file to heal for", "add --int8, --int4 or --binary")
    if options.heal_data and not options.heal:
        raise UsageError("--heal-data without --heal", "say for how long: --heal 10m")
    odd = [pair.dim for pair in pairs if pair.dim % 8 and "binary" in options.vectors]
    if odd:
        raise UsageError(f"--vectors binary: {odd[0]} dims do not fill whole bytes", "choose a --dim that is a multiple of 8")


def _place(source: Source, pair: LayerDimPair, out: Path | None, several: bool) -> Path:
    if out is not None:
        return out / str(pair) if several else out
    return source.exports / (str(pair) if source.exports.name == "exports" and source.exports.parent != Path() else f"{source.name}-{pair}")


def _write(source: Source, sliced: EmbeddingModel, healed: Healed | None, pair: LayerDimPair, folder: Path, options: Options, texts: _Texts) -> Manifest:
    model = healed.model if healed else sliced
    save_model(model, folder)
    check_graph(model, write_graph(model, folder / GRAPH))
    manifest = _manifest(source, model, pair)
    manifest.variants = [Variant(GRAPH)]
    manifest.save(folder)  # the encoder below reads it; the final one replaces it
    encoder = OnnxEncoder(folder, GRAPH, options.threads)
    ranges = calibrate(np.concatenate([encoder.encode_document(texts.calibration), encoder.encode_query(texts.calibration)]))
    manifest.calibration = {"ranges": ranges.tolist(), "binary": BINARY, "texts": len(texts.calibration)}
    trial = _trial(manifest, encoder, options, texts)
    if options.fp16:
        way, cosine = select_fp16(folder / GRAPH, folder / FP16, trial)
        manifest.variants.append(Variant(FP16, "fp16", quantizer=way, passed=cosine >= MIN_COSINE, min_cosine=cosine))
    if options.int8 or options.int4:
        _write_small(manifest, model, folder, options, trial)
    base = _base(manifest)
    for kind in options.vectors:
        name = f"onnx/model_vectors_{kind}.onnx"
        write_vectors(folder / base.file, folder / name, kind, ranges)
        manifest.variants.append(Variant(name, base.weight_dtype, VECTOR_DTYPES[kind], base.quantizer))
    add_others(options.exporter, folder, manifest, int8_file(options.reduce_range) if options.int8 else None, trial.calibration)
    declare(folder)
    manifest.save(folder)
    if healed:
        manifest.lineage["healing"] = healed.facts | {"files": measure_gains(sliced, folder, manifest, healed.held_out, trial)}
        manifest.write(folder)
    return manifest


def _base(manifest: Manifest) -> Variant:
    """The file that graphs with quantised vectors are made from: the best of the small ones that passed, or fp32."""
    small = [variant for dtype in ("int8", "int4") for variant in manifest.variants if variant.weight_dtype == dtype and variant.passed]
    return small[0] if small else manifest.variants[0]


def _trial(manifest: Manifest, encoder: OnnxEncoder, options: Options, texts: _Texts) -> Trial:
    rows = [encoder.tokenizer.encode([each.text], manifest.prompts.get(each.kind, ""))[0] for each in texts.judged]
    rows = list({row.tobytes(): row for row in rows}.values())  # without prompts, a query is a document
    calibration = [encoder.tokenizer.pad([row]) for row in encoder.tokenizer.encode([*texts.calibration[:_RANGED], *UNUSUAL])]
    return Trial(encoder.tokenizer, rows, calibration, options.threads, SEVEN_BITS if options.reduce_range else EIGHT_BITS)


def _write_small(manifest: Manifest, model: EmbeddingModel, folder: Path, options: Options, trial: Trial) -> None:
    scratch = folder / "onnx" / ".fused.onnx"
    fused = fuse(folder / GRAPH, scratch, int(model.encoder.config.num_attention_heads), model.hidden)
    if options.int8:
        _write_int8(manifest, folder, fused, options, trial)
    if options.int4:
        _write_int4(manifest, folder, fused, trial)
    for left in scratch.parent.glob(f"{scratch.name}*"):
        left.unlink()


def _write_int8(manifest: Manifest, folder: Path, fused: Path, options: Options, trial: Trial) -> None:
    file = int8_file(options.reduce_range)
    candidates = select_int8(folder / GRAPH, fused, folder / file, trial, options.min_cosine, options.recipe)
    chosen = next(each for each in candidates if each.chosen)
    second_name(folder / file, folder / WEB)
    manifest.variants += [Variant(name, "int8", quantizer=chosen.name, passed=chosen.passed, min_cosine=chosen.min_cosine) for name in (file, WEB)]
    manifest.lineage["quantization"] = summary(candidates, options.min_cosine, options.threads) | {"processor": processor(), "reduce_range": options.reduce_range}
    _tell(candidates)


def _write_int4(manifest: Manifest, folder: Path, fused: Path, trial: Trial) -> None:
    found = try_recipe(int4.RECIPE, folder / GRAPH, fused, folder / int4.FILE, trial, int4.MIN_COSINE)
    manifest.variants.append(Variant(int4.FILE, "int4", quantizer=found.name, passed=found.passed, min_cosine=found.min_cosine))
    if not found.passed:
        warn(f"{int4.FILE}: {found.reason}; written all the same, marked as failed")


def int8_file(reduce_range: bool = False) -> str:
    """The name people expect for 8-bit weights made for this machine's processor, or for any that has AVX2."""
    if platform.machine().lower() in ("arm64", "aarch64"):
        return "onnx/model_qint8_arm64.onnx"
    return "onnx/model_qint8_avx512_vnni.onnx" if has_vnni() and not reduce_range else "onnx/model_quint8_avx2.onnx"


def _tell(candidates: Sequence[Candidate]) -> None:
    for each in candidates:
        if each.min_cosine is not None:
            mark = "→" if each.chosen else " "
            speed = f"{each.latency_ms:7.2f} ms {each.texts_per_second:8.0f} texts/s"
            note(f"{mark} {each.name:21} {each.bytes / 1e6:7.1f} MB  cosine {each.mean_cosine:.4f} min {each.min_cosine:.4f} {speed}  {each.reason}")
    share = next((each.overflow for each in candidates if each.overflow), 0.0)
    if share:
        note(f"on a processor without VNNI {1e6 * share:,.0f} of a million sums would not fit into 16 bits; for those export with --reduce-range")


@dataclass(frozen=True)
class _Texts:
    calibration: list[str]
    judged: list[Sample]


def _texts(options: Options, source: Source, max_length: int) -> _Texts:
    """Texts for calibration, and others (where there are enough) to judge recipes on, with those that break encoders."""
    given = samples(list(options.calibration_texts or ())) or [Sample(item.text, item.kind) for item in texts_for(source.folder, _CALIBRATION + _JUDGED)[0]]
    ordinary = given[-_JUDGED:]
    rest = given[:-_JUDGED] or given
    return _Texts([each.text for each in rest[:_CALIBRATION]], ordinary + probes(max_length))


def _manifest(source: Source, model: EmbeddingModel, pair: LayerDimPair) -> Manifest:
    known = source.manifest
    lineage: dict[str, Any] = {key: value for key, value in known.lineage.items() if key != "quantization"} if known else {}
    if known is None:
        weights = source.folder / "model.safetensors"
        lineage["source"] = {"name": source.name, "fingerprint": sha256_file(weights) if weights.is_file() else None}
    lineage["export"] = {"versions": {name: version(name) for name in _LIBRARIES}}
    spec = model.spec
    return Manifest(
        "encoder" if known is None else "slice" if known.kind == "student" else known.kind, pair.layers, pair.dim, spec.pooling, spec.normalize,
        spec.max_length, dict(spec.prompts), [scores for scores in (known.pairs if known else []) if (scores["layers"], scores["dim"]) == (pair.layers, pair.dim)],
        lineage=lineage,
    )
