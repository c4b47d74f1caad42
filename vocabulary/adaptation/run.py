"""The command's own steps: find the model, read the texts, measure, adapt, write."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from emb.artifact.manifest import is_artifact
from emb.artifact.runs import run_status
from emb.data.corpus import Columns, Corpus, Text, read_corpus, split
from emb.data.documents import read_documents
from emb.errors import ArtifactError, UsageError
from emb.files import refuse_existing
from emb.model.embedding_model import load_model, manifest_of
from emb.recipes.recipe import TrainingRecipe
from emb.teachers.registry import resolve
from emb.vocabulary.adaptation import AdaptResult
from emb.vocabulary.adaptation.adapt import Job, adapt
from emb.vocabulary.adaptation.language_step import LANGUAGE_TRAINING
from emb.vocabulary.adaptation.options import AdaptOptions
from emb.vocabulary.adaptation.row_distillation import ROW_TRAINING
from emb.vocabulary.adaptation.write import write_adapted, write_profile
from emb.vocabulary.profile import profile
from emb.vocabulary.usage import token_counts

_HELD_OUT = 500  # texts at most
_LANGUAGE = "language."  # before the name of what is set of the language stage


def run_adaptation(
    model: str | Path,
    sources: Sequence[str],
    documents: Sequence[str],
    columns: Columns,
    limit: int | None,
    options: AdaptOptions,
    *,
    profile_alone: bool,
    out: Path | None,
    overwrite: bool,
    overrides: Mapping[str, Any],
    trust_remote_code: bool,
) -> AdaptResult:
    """`emb.adapt_vocab`, its arguments in the types that they have here."""
    name, folder = _locate(model, trust_remote_code)
    training = _training(
        ROW_TRAINING, {key: value for key, value in overrides.items() if not key.startswith(_LANGUAGE)}
    )
    language = _training(
        LANGUAGE_TRAINING,
        {key.removeprefix(_LANGUAGE): value for key, value in overrides.items() if key.startswith(_LANGUAGE)},
    )
    place = out or Path("adapted") / name
    if out or not profile_alone:
        refuse_existing(place, overwrite)
    corpora = _corpora(sources, documents, columns, limit)
    corpus = Corpus(list(dict.fromkeys(text for each in corpora.values() for text in each.texts)))
    train, held_out = split(corpus, _HELD_OUT)
    opened = load_model(folder, trust_remote_code=trust_remote_code)
    counts = token_counts(opened, train.texts)
    before = profile(opened, _by_source(corpora, held_out), held_out.texts, counts)
    if profile_alone:
        if out:
            write_profile(name, before, out)
        return AdaptResult(out, {}, before)
    job = Job(
        folder,
        opened,
        train.texts,
        counts,
        held_out.texts,
        options,
        training,
        language,
        _work(place),
        trust_remote_code,
    )
    found = adapt(job)
    report = write_adapted(job, name, found, before, corpus, place)
    for left in place.parent.glob(f"{_work(place).name}-*"):
        shutil.rmtree(left)
    return AdaptResult(place, report, before)


def _locate(model: str | Path, trust_remote_code: bool) -> tuple[str, Path]:
    """Name and folder of what is adapted; of a run, its student.

    Raises:
        ArtifactError: an export.
    """
    path = Path(model)
    if run_status(path) is not None:
        return path.name, path / "student"
    found = resolve(model, trust_remote_code=trust_remote_code)
    manifest = manifest_of(found.path) if is_artifact(found.path) else None
    if manifest and manifest.variants:
        raise ArtifactError(
            f"{model}: is an export, whose files have the vocabulary inside",
            "adapt what it was exported from, and export that again",
        )
    return (found.path.parent.name if found.path.name == "student" else found.name), found.path


def _corpora(
    sources: Sequence[str], documents: Sequence[str], columns: Columns, limit: int | None
) -> dict[str, Corpus]:
    """The texts by where they come from.

    Raises:
        UsageError: nothing is named.
    """
    if not sources and not documents:
        raise UsageError(
            "no texts given",
            "add --data PATH, texts like those that the model will read, or --for PATH, documents that it will search",
        )
    found = {source: read_corpus([source], columns, limit) for source in sources}
    for source in documents:
        found[source] = Corpus([Text(each.whole) for each in read_documents([source], columns.text)[:limit]])
    return found


def _training(own: TrainingRecipe, overrides: Mapping[str, Any]) -> TrainingRecipe:
    try:
        return TrainingRecipe.model_validate(own.model_dump() | dict(overrides))
    except ValidationError as error:
        first = error.errors()[0]
        raise UsageError(
            f"--set {first['loc'][0] if first['loc'] else 'training'}: {first['msg']}",
            "known are the keys of a recipe's section training (docs/recipes.md)",
        ) from error


def _by_source(corpora: Mapping[str, Corpus], held_out: Corpus) -> dict[str, list[Text]]:
    """The texts of each source that are not held out."""
    apart = set(held_out.texts)
    return {Path(name).name: [text for text in each.texts if text not in apart] for name, each in corpora.items()}


def _work(place: Path) -> Path:
    """Where checkpoints of training lie: beside the folder that is written when all is done."""
    return place.with_name(f".{place.name}.rows")
