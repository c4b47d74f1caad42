"""The steps of an export, in order: read the source, cut, trace, quantise, record."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from emb.artifact.lineage import Lineage
from emb.artifact.manifest import LayerDimPair, Manifest, Variant
from emb.distill.past_run import find_past_run
from emb.export.calibration import Texts, calibrated_trial, texts_of
from emb.export.equivalence import check_graph, check_slice
from emb.export.external_data import declare
from emb.export.graph import GRAPH, write_graph
from emb.export.heal import Aim, Healed, forget, heal, healing_recipe
from emb.export.healing_report import measure_gains
from emb.export.lineage import manifest_for
from emb.export.options import Options, refuse_impossible
from emb.export.pairs import resolve_pairs
from emb.export.quantized_files import int8_file, write_small
from emb.export.source import Source, by_model, find_source, place_for
from emb.export.toolchains.registry import add_others, check_exporters
from emb.export.vector_graphs import VECTOR_DTYPES, warn_of_uneven, write_vectors
from emb.files import atomic_folder, refuse_existing
from emb.model.embedding_model import EmbeddingModel, load_model, save_model
from emb.model.slice import slice_model
from emb.progress import note
from emb.quantize.vectors.ranges import BINARY, calibrate
from emb.quantize.weights.half import MIN_COSINE, select_fp16
from emb.runtime.encoder import ArtifactEncoder

FP16 = "onnx/model_fp16.onnx"


def run_export(
    source: Path | None,
    layers: Sequence[int],
    dims: Sequence[int],
    options: Options,
    *,
    out: Path | None,
    overwrite: bool,
    verify: bool,
    apart: bool = False,
) -> list[Path]:
    """Export every pair; nothing is written before every pair and folder has been checked. `apart` gives even a single
    one a folder of its own below `out`.
    """
    whole = find_source(source, verify, trust_remote_code=options.trust_remote_code)
    models = by_model(whole, layers, verify)
    plans = [_planned(found, own, dims, options, out, apart or len(models) > 1) for found, own in models]
    for folder in (folder for plan in plans for folder in plan.folders):
        refuse_existing(folder, overwrite)
    for plan in plans:
        _export(plan, options, overwrite)
    return [folder for plan in plans for folder in plan.folders]


@dataclass(frozen=True)
class _Plan:
    """A model, the pairs to cut from it, and the folder of each."""

    source: Source
    model: EmbeddingModel
    pairs: list[LayerDimPair]
    folders: list[Path]


def _planned(
    found: Source, layers: Sequence[int], dims: Sequence[int], options: Options, out: Path | None, apart: bool
) -> _Plan:
    model = load_model(found.folder, trust_remote_code=options.trust_remote_code)
    pairs = resolve_pairs(model, found.manifest, layers, dims)
    refuse_impossible(options, pairs)
    check_exporters(options.exporter, model)
    return _Plan(found, model, pairs, [place_for(found, pair, out, apart or len(pairs) > 1) for pair in pairs])


def _export(plan: _Plan, options: Options, overwrite: bool) -> None:
    found, model = plan.source, plan.model
    texts = texts_of(options, found, model)
    healing = _healing(found, options) if options.heal else None
    won: dict[int, str] = {}  # by layers: dims differ in the last matrix alone
    for pair, folder in sorted(
        zip(plan.pairs, plan.folders, strict=True), key=lambda each: (each[0].layers, -each[0].dim)
    ):
        note(f"{found.name}: {pair} → {folder}")
        sliced, place = slice_model(model, pair), folder.with_name(f".{folder.name}.healing")
        check_slice(model, sliced, pair)
        healed = healing(sliced, pair, place) if healing else None
        with atomic_folder(folder, replace=overwrite) as partial:
            manifest = _write(
                found, sliced, healed, pair, partial, replace(options, scheme=won.get(pair.layers)), texts
            )
        if manifest.lineage.quantization:
            won[pair.layers] = manifest.lineage.quantization.chosen
        if healed:
            forget(place)


def _healing(source: Source, options: Options) -> Callable[[EmbeddingModel, LayerDimPair, Path], Healed]:
    """What heals each slice, with the texts and the teacher's vectors found and read."""
    past = find_past_run(
        source.folder,
        source.manifest.lineage if source.manifest else Lineage(),
        options.heal_data,
        trust_remote_code=options.trust_remote_code,
    )
    aim = Aim(
        tuple(name for name, wanted in (("int8", options.int8), ("int4", options.int4)) if wanted),
        "binary" in options.vectors,
    )
    recipe = healing_recipe(past, options.heal or 0.0)
    return lambda sliced, pair, place: heal(sliced, pair, past, aim, recipe, place)


def _write(
    source: Source,
    sliced: EmbeddingModel,
    healed: Healed | None,
    pair: LayerDimPair,
    folder: Path,
    options: Options,
    texts: Texts,
) -> Manifest:
    model = healed.model if healed else sliced
    save_model(model, folder)
    check_graph(model, write_graph(model, folder / GRAPH))
    manifest = manifest_for(source, model, pair)
    manifest.variants = [Variant(GRAPH)]
    manifest.save(folder)  # the encoder below reads it; the final one replaces it
    encoder = ArtifactEncoder(folder, GRAPH, options.threads, verify=False)
    vectors = np.concatenate([encoder.encode_document(texts.calibration), encoder.encode_query(texts.calibration)])
    ranges = calibrate(vectors)
    if "binary" in options.vectors:
        warn_of_uneven(vectors)
    manifest.calibration = {"ranges": ranges.tolist(), "binary": BINARY, "texts": len(texts.calibration)}
    trial = calibrated_trial(manifest, encoder, options, texts)
    if options.fp16:
        way, cosine = select_fp16(folder / GRAPH, folder / FP16, trial)
        manifest.variants.append(Variant(FP16, "fp16", quantizer=way, passed=cosine >= MIN_COSINE, min_cosine=cosine))
    if options.int8 or options.int4:
        write_small(manifest, model, folder, options, trial)
    base = _base(manifest)
    for kind in options.vectors:
        name = f"onnx/model_vectors_{kind}.onnx"
        write_vectors(folder / base.file, folder / name, kind, ranges)
        manifest.variants.append(Variant(name, base.weight_dtype, VECTOR_DTYPES[kind], base.quantizer))
    add_others(
        options.exporter, folder, manifest, int8_file(options.reduce_range) if options.int8 else None, trial.calibration
    )
    declare(folder)
    manifest.save(folder)
    if healed:
        files = measure_gains(sliced, folder, manifest, healed.held_out, trial)
        manifest.lineage.healing = replace(healed.record, files=files)
        manifest.write(folder)
    return manifest


def _base(manifest: Manifest) -> Variant:
    """The file that graphs with quantised vectors are made from: the best of the small ones that passed, or fp32."""
    small = [
        variant
        for dtype in ("int8", "int4")
        for variant in manifest.variants
        if variant.weight_dtype == dtype and variant.passed
    ]
    return small[0] if small else manifest.variants[0]
