"""What a run will reach and how long it will take, told from two short trainings on a sample of its texts.

The error of a student falls with its steps as a power law (Hestness et al. 2017, arXiv 1712.00409): two lengths of
training give its exponent, and what is left at the length that is planned. What is lost of the teacher's search falls
by a power of its own.
"""

from __future__ import annotations

import hashlib
import math
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from accelerate import PartialState

from emb.artifact.manifest import PairScores
from emb.artifact.runs import FILE as STATUS
from emb.data.corpus import Corpus, Text
from emb.data.documents import Document
from emb.data.pseudo_queries import PseudoQuery
from emb.distill.one_student import Planned, planned, train_student
from emb.distill.preparation import Prepared, TrainingTexts, prepare, searched
from emb.distill.query_encoder import parts_of
from emb.distill.retention import KnownItems
from emb.distill.rotated_teacher import rotation_for
from emb.distill.schedule import BatchPlan
from emb.distill.targets import teacher_seconds
from emb.files import read_json, write_json
from emb.progress import is_quiet, note, set_quiet
from emb.recipes.recipe import Recipe
from emb.similarity import Vectors
from emb.teachers.cache import in_memory
from emb.teachers.registry import Resolved

FORECAST = "forecast.json"  # in a run's folder
DOCUMENTS = 300  # of a sample
TEXTS = 4000  # of one without documents
STEPS = 80  # of the longer of the two trainings, at most
_SHORTER = 4  # times
_STEEPEST = 0.5  # exponent: what falls faster in so few steps will not go on so


@dataclass(frozen=True)
class Forecast:
    """Expected scores of each pair, the static encoder's first, and the seconds of each part of the work."""

    scores: list[PairScores]
    seconds: dict[str, float]

    def told(self) -> str:
        """It in one line."""
        kept = [f"{each.pair} {each.retention:.0%}" for each in self.scores if each.retention is not None]
        near = [f"{each.pair} {each.cosine:.3f}" for each in self.scores]
        search = f"to keep of the teacher's search in these documents: {', '.join(kept)}"
        reached = search if kept else f"cosine: {', '.join(near)}"
        return f"expected {reached}; time at most: {self.times()}"

    def times(self) -> str:
        """How long each part of the work takes."""
        return ", ".join(f"{part} {_minutes(seconds)}" for part, seconds in self.seconds.items())


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.0f} s"


def forecast(
    recipe: Recipe, teacher: Resolved, source: TrainingTexts, processes: PartialState, trust_remote_code: bool
) -> Forecast:
    """Train every student of a run twice, shortly and on a sample, and reckon from there."""
    recipe = recipe.model_copy(update={"vocabulary": None})  # a table that fits a sample fits nothing else
    sample = sample_of(source)
    note(f"forecast: from {len(sample.documents) or len(sample.corpus):,} of them, trained on for a short time")
    given = _prepared(recipe, teacher, sample, len(source.documents), trust_remote_code)
    found: list[PairScores] = []
    seconds = {"teacher": teacher_seconds(recipe, teacher, source.corpus.texts, source.documents, trust_remote_code)}
    for part in (each for each in parts_of(recipe) if each):
        scores, spent = _expected(part, given, len(source.train) / len(sample.train), processes, trust_remote_code)
        found += scores
        seconds["static encoder" if part.student.layers == 0 else "student"] = spent
    return Forecast(found, seconds)


def sample_of(source: TrainingTexts) -> TrainingTexts:
    """A part of the texts: those cut from some of the documents and as many others as there are to each of them; of
    texts without documents simply some.

    Which ones is decided by their own hashes.
    """
    if not source.documents:
        return _parted(sorted(source.corpus.texts, key=lambda item: _rank(item.teacher_text))[:TEXTS], [], [])
    ranked = sorted(range(len(source.documents)), key=lambda row: _rank(source.documents[row].whole))
    place = {row: new for new, row in enumerate(ranked[:DOCUMENTS])}
    cut = [replace(each, document=place[each.document]) for each in source.queries if each.document in place]
    own, all_own = {each.text for each in cut}, {each.text for each in source.queries}
    mine = [item for item in source.corpus.texts if item.text in own]
    others = sorted((i for i in source.corpus.texts if i.text not in all_own), key=lambda i: _rank(i.teacher_text))
    beside = round(len(mine) * len(others) / max(len(source.corpus) - len(others), 1))
    return _parted([*mine, *others[:beside]], [source.documents[row] for row in place], cut)


def _parted(texts: Sequence[Text], documents: list[Document], cut: list[PseudoQuery]) -> TrainingTexts:
    """With half of what was cut held out, or of all texts where nothing was: a figure from few would be noise.

    A translation stays with the text it translates.
    """
    asked = {each.text for each in cut} or {item.teacher_text for item in texts}
    held = set(sorted(asked, key=lambda text: _rank(f"held out\0{text}"))[: len(asked) // 2])
    train, held_out = (Corpus([i for i in texts if (i.teacher_text in held) is part]) for part in (False, True))
    return TrainingTexts(Corpus(list(texts)), train, held_out, documents, cut)


def _rank(text: str) -> bytes:
    return hashlib.blake2b(f"forecast\0{text}".encode(), digest_size=16).digest()


def _prepared(
    recipe: Recipe, teacher: Resolved, sample: TrainingTexts, documents: int, trust_remote_code: bool
) -> Prepared:
    """The sample with its vectors, and a search as hard as in so many `documents`; where the run will rotate them, they
    are, here without a folder.

    They are rotated to the texts that are trained on: to so few documents alone 128 dims would hold nearly everything.
    """
    found = searched(recipe, teacher, sample, trust_remote_code)
    given = prepare(recipe, teacher, sample, found, trust_remote_code)
    if found is None or given.search is None:
        return given
    given = replace(given, search=crowded(given.search, given, found.queries, documents))
    train = given.targets.train
    rotation = rotation_for(recipe, teacher, replace(found, vectors=train.take(range(len(train)))))
    return given if rotation is None else _rotated(given, rotation)


def crowded(search: KnownItems, given: Prepared, cut: Sequence[PseudoQuery], count: int) -> KnownItems:
    """A search among `count` rows, texts of the sample beside its documents: in few documents nearly every query finds
    its own, whatever encoded it. A translation has its source's vector, and is no rival of its own.
    """
    texts = [*given.train.texts, *given.held_out.texts]
    vectors = np.concatenate([part.take(range(len(part))) for part in (given.targets.train, given.targets.held_out)])
    rivals = [row for row, item in enumerate(texts) if item.source_text is None]
    ranked = sorted(rivals, key=lambda row: _rank(f"rival\0{texts[row].text}"))
    beside, source = ranked[: max(0, count - len(search.documents))], {each.text: each.document for each in cut}
    return replace(search, rivals=vectors[beside], owners=[source.get(texts[row].text, -1) for row in beside])


def _rotated(given: Prepared, rotation: Vectors) -> Prepared:
    train, held_out = (
        in_memory(part.take(range(len(part))) @ rotation.T) for part in (given.targets.train, given.targets.held_out)
    )
    search = given.search and replace(
        given.search,
        documents=given.search.documents @ rotation.T,
        rivals=given.search.rivals if given.search.rivals is None else given.search.rivals @ rotation.T,
    )
    turned = replace(given.targets, train=train, held_out=held_out, weights="")  # a space that no student lives in
    return replace(given, targets=turned, search=search)


def _expected(
    recipe: Recipe, given: Prepared, times: float, processes: PartialState, trust_remote_code: bool
) -> tuple[list[PairScores], float]:
    """Expected scores of one student, whose run has so many `times` the texts, and the seconds of its training."""
    plan = planned(recipe, given, Path(), trust_remote_code)
    training = plan.recipe.training
    lengths = [len(row) for row in plan.student.tokenizer().encode([item.text for item in given.train.texts])]
    epoch = len(BatchPlan(lengths, training.tokens_per_batch, training.seed).epoch(0))
    most = training.max_steps or 1 << 62
    longer = max(1, min(STEPS, round(epoch * training.epochs), most))
    total = max(1, min(round(epoch * training.epochs * times), most))
    steps = (max(1, longer // _SHORTER), longer)
    (first, _), (second, per_step) = (_pilot(recipe, given, each, processes, trust_remote_code) for each in steps)
    if training.max_time:
        total = min(total, max(1, round(training.max_time / per_step)))
    read = _document_steps(plan, given) * times
    return [extrapolated(a, b, steps, total) for a, b in zip(first, second, strict=True)], per_step * (total + read)


def _document_steps(plan: Planned, given: Prepared) -> float:
    """Steps of the stage before the queries, in which the sample's documents are read."""
    training, student = plan.recipe.training, plan.student
    if not training.document_epochs:
        return 0.0
    lengths = [len(row) for row in student.tokenizer().encode([each.whole for each in given.documents])]
    return training.document_epochs * len(BatchPlan(lengths, training.tokens_per_batch, training.seed).epoch(0))


def _pilot(
    recipe: Recipe, given: Prepared, steps: int, processes: PartialState, trust_remote_code: bool
) -> tuple[list[PairScores], float]:
    """The scores after so many steps, and the seconds of each."""
    training = recipe.training.model_copy(update={"max_steps": steps, "max_time": None, "document_epochs": 0.0})
    quiet = is_quiet()
    with tempfile.TemporaryDirectory() as folder:
        set_quiet(True)
        try:
            plan = planned(recipe.model_copy(update={"training": training}), given, Path(folder), trust_remote_code)
            scores = train_student(plan, given, processes)
            return scores, read_json(Path(folder) / STATUS)["seconds"] / max(steps, 1)
        finally:
            set_quiet(quiet)


def extrapolated(shorter: PairScores, longer: PairScores, steps: Sequence[int], total: int) -> PairScores:
    """What a pair will reach after `total` steps, from its scores after the two numbers of `steps`.

    Never less than it has reached already, and no more than all of the teacher's search.
    """
    cosine = _reached(shorter.cosine, longer.cosine, steps, total)
    if shorter.retention is None or longer.retention is None:
        return replace(longer, cosine=cosine)
    kept = _reached(shorter.retention, longer.retention, steps, total)
    return replace(longer, cosine=cosine, retention=min(kept, 1.0))


def _reached(shorter: float, longer: float, steps: Sequence[int], total: int) -> float:
    """Where a score comes that was `shorter` and `longer` after two numbers of `steps`: what is missing from 1 falls as
    a power of them.
    """
    before, now = max(1 - shorter, 1e-9), max(1 - longer, 1e-9)
    apart = math.log(steps[1] / steps[0])
    exponent = min(max(math.log(before / now) / apart, 0.0), _STEEPEST) if apart else 0.0
    left: float = now * (steps[1] / max(total, steps[1])) ** exponent  # int ** float is Any to a type checker
    return max(longer, 1 - left)


def is_worth_it(source: TrainingTexts) -> bool:
    """Whether there are so many documents that a forecast costs a small part of the run."""
    return len(source.documents) >= 4 * DOCUMENTS


def write_forecast(found: Forecast, path: Path) -> None:
    """Keep a forecast until the run it was made for has ended."""
    write_json(path, asdict(found))


def read_forecast(path: Path) -> Forecast | None:
    """The forecast at `path`, if there is one."""
    if not path.is_file():
        return None
    kept = read_json(path)
    return Forecast([PairScores(**each) for each in kept["scores"]], dict(kept["seconds"]))
