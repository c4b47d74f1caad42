"""The command's own steps: find the model, read the texts, measure, adapt, write."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from emb.artifact.manifest import is_artifact
from emb.data.corpus import Columns, Corpus, Text, read_corpus, split
from emb.data.documents import read_documents
from emb.errors import ArtifactError, UsageError
from emb.files import refuse_existing
from emb.model.embedding_model import EmbeddingModel, load_model, manifest_of
from emb.recipes.recipe import TrainingRecipe
from emb.teachers.locate import locate
from emb.vocabulary.adaptation import AdaptResult
from emb.vocabulary.adaptation.adapt import Adapted, Job, adapt
from emb.vocabulary.adaptation.language_step import LANGUAGE_TRAINING
from emb.vocabulary.adaptation.options import AdaptOptions
from emb.vocabulary.adaptation.propagation import propagate, require_sibling
from emb.vocabulary.adaptation.row_distillation import ROW_TRAINING
from emb.vocabulary.adaptation.write import write_adapted, write_profile
from emb.vocabulary.profile import Profile, profile
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
    name, folder = _adaptable(model, trust_remote_code)
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
    sibling = None
    if options.sibling is not None and not profile_alone:
        sibling = _sibling(opened, options.sibling, place, trust_remote_code)
        refuse_existing(sibling.out, overwrite)
    counts, parts = token_counts(opened, train.texts), _by_source(corpora, held_out)
    before = profile(opened, parts, held_out.texts, counts)
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
    finished = [_Finished(job, name, adapt(job), before, place)]
    if sibling:
        finished.append(_propagated(job, finished[0].found, sibling, parts))
    own, *others = [each.write(corpus) for each in finished]
    for left in place.parent.glob(f"{_work(place).name}-*"):
        shutil.rmtree(left)
    return replace(own, sibling=others[0] if others else None)


@dataclass(frozen=True)
class _Finished:
    """A model that has its vocabulary, all that must hold of it proven, and not yet written."""

    job: Job
    name: str
    found: Adapted
    before: Profile
    out: Path

    def write(self, corpus: Corpus) -> AdaptResult:
        report = write_adapted(self.job, self.name, self.found, self.before, corpus, self.out)
        return AdaptResult(self.out, report, self.before)


@dataclass(frozen=True)
class _Sibling:
    name: str
    folder: Path
    model: EmbeddingModel
    out: Path


def _sibling(base: EmbeddingModel, asked: str, place: Path, trust_remote_code: bool) -> _Sibling:
    name, folder = _adaptable(asked, trust_remote_code)
    model = load_model(folder, trust_remote_code=trust_remote_code)
    require_sibling(base, model, asked)
    return _Sibling(name, folder, model, place.with_name(f"{place.name}-{name}"))


def _propagated(job: Job, found: Adapted, sibling: _Sibling, sources: Mapping[str, list[Text]]) -> _Finished:
    before = profile(sibling.model, sources, job.held_out, job.counts)
    spread = propagate(job, found, sibling.model)
    theirs = replace(job, folder=sibling.folder, model=sibling.model)
    return _Finished(theirs, sibling.name, spread, before, sibling.out)


def _adaptable(model: str | Path, trust_remote_code: bool) -> tuple[str, Path]:
    """Name and folder of what is adapted; of a run, its student.

    Raises:
        ArtifactError: an export.
    """
    name, folder = locate(model, trust_remote_code=trust_remote_code)
    manifest = manifest_of(folder) if is_artifact(folder) else None
    if manifest and manifest.variants:
        raise ArtifactError(
            f"{model}: is an export, whose files have the vocabulary inside",
            "adapt what it was exported from, and export that again",
        )
    return name, folder


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
