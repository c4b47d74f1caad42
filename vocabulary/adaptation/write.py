"""An adapted model as a folder: the model, `emb.json`, `id_map.json`, `vocab_report.json` and its page."""

from __future__ import annotations

import dataclasses
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

from emb.artifact.fingerprints import weights_hash
from emb.artifact.lineage import DataRecord, Lineage, TeacherRecord, VocabularyRecord
from emb.artifact.manifest import Kind, Manifest
from emb.data.corpus import Corpus
from emb.files import atomic_folder, atomic_path, write_json
from emb.model.embedding_model import EmbeddingModel, load_model, manifest_of, save_model
from emb.vocabulary.adaptation.adapt import Adapted, Job
from emb.vocabulary.adaptation.language_step import LanguageStep
from emb.vocabulary.choose_tokens import Choice
from emb.vocabulary.page import vocabulary_page
from emb.vocabulary.profile import Profile

REPORT = "vocab_report.json"
PAGE = "vocab_report.html"
ID_MAP = "id_map.json"
ADAPTER = "adapter"  # what the language stage trained, as peft reads it; it is merged into the model already


def write_adapted(job: Job, name: str, found: Adapted, before: Profile, corpus: Corpus, out: Path) -> dict[str, Any]:
    """Write everything into `out`, atomically; the content of the report."""
    with atomic_folder(out, replace=True) as folder:
        save_model(found.model.cpu(), folder)
        load_model(folder)  # what was written must open, and read as sentence-transformers reads it
        write_json(folder / ID_MAP, _id_map(found))
        if found.language and found.language.kept:
            shutil.copytree(found.language.adapter, folder / ADAPTER)
        report = _report(name, found, before, folder)
        write_json(folder / REPORT, report)
        with atomic_path(folder / PAGE) as partial:
            partial.write_text(vocabulary_page(name, before, _changes(report)), encoding="utf-8")
        _manifest(job, name, found, before, corpus).save(folder)
    return report


def write_profile(name: str, found: Profile, out: Path) -> None:
    """Write the report of a profile alone."""
    with atomic_folder(out, replace=True) as folder:
        write_json(folder / REPORT, {"model": name, "profile": dataclasses.asdict(found)})
        with atomic_path(folder / PAGE) as partial:
            partial.write_text(vocabulary_page(name, found), encoding="utf-8")


def _id_map(found: Adapted) -> dict[str, Any]:
    first = len(found.kept)
    return {
        "kept": {str(old): new for new, old in enumerate(found.kept)},
        "added": {token: first + place for place, token in enumerate(found.added)},
    }


def _report(name: str, found: Adapted, before: Profile, folder: Path) -> dict[str, Any]:
    proofs = {"trim": found.trim, "extension": found.extension}
    return {
        "model": name,
        "tokens": {"before": before.tokens, "kept": len(found.kept), "added": len(found.added)},
        "parameters": {"before": before.parameters, "after": sum(p.numel() for p in found.model.parameters())},
        "bytes": (folder / "model.safetensors").stat().st_size,
        **{key: dataclasses.asdict(each) for key, each in proofs.items() if each},
        **({"choice": _choice(found.choice)} if found.choice else {}),
        "init": {"taken": found.init, "tried": [dataclasses.asdict(each) for each in found.init_scores]},
        "new_tokens": found.added,
        **({"language": _language(found.language)} if found.language else {}),
        "profile": dataclasses.asdict(before),
    }


def _choice(choice: Choice) -> dict[str, Any]:
    return {"taken": choice.way, "tried": [dataclasses.asdict(each) for each in choice.scores]}


def _language(step: LanguageStep) -> dict[str, Any]:
    return {key: value for key, value in dataclasses.asdict(step).items() if key != "adapter"}


def _changes(report: dict[str, Any]) -> list[tuple[str, str]]:
    tokens, parameters = report["tokens"], report["parameters"]
    rows = [
        ("tokens", f"{tokens['before']:,} → {tokens['kept'] + tokens['added']:,}, {tokens['added']:,} of them new"),
        ("parameters", f"{parameters['before'] / 1e6:.1f} M → {parameters['after'] / 1e6:.1f} M"),
    ]
    for key in ("trim", "extension"):
        rows += [(f"{key}: {name.replace('_', ' ')}", f"{value:,.6g}") for name, value in report.get(key, {}).items()]
    return rows


def _manifest(job: Job, name: str, found: Adapted, before: Profile, corpus: Corpus) -> Manifest:
    """That of the student it was, or of a foreign model, whose teacher is the model it was."""
    known, model = manifest_of(job.folder), found.model
    record = VocabularyRecord(
        job.options.mode,
        name,
        weights_hash(job.folder),
        before.tokens,
        len(found.kept) + len(found.added),
        len(found.added),
        DataRecord(corpus.digest, len(job.train), len(job.held_out)),
        json.loads(json.dumps(dataclasses.asdict(job.options), default=str)),
    )
    if known is None:
        return _foreign(model, Lineage(TeacherRecord(name, str(job.folder.resolve()), weights=record.weights)), record)
    gone = before.parameters - sum(each.numel() for each in model.parameters())
    pairs = [replace(each, parameters=each.parameters and each.parameters - gone) for each in known.pairs]
    lineage = replace(known.lineage, vocabulary=[*known.lineage.vocabulary, record])
    return replace(known, pairs=pairs, lineage=lineage, files={}, digest="")


def _foreign(model: EmbeddingModel, lineage: Lineage, record: VocabularyRecord) -> Manifest:
    spec = model.spec
    return Manifest(
        Kind.ADAPTED,
        model.layers,
        model.dim,
        spec.pooling,
        spec.normalize,
        spec.max_length,
        dict(spec.prompts),
        lineage=replace(lineage, vocabulary=[record]),
        similarity=spec.similarity,
    )
