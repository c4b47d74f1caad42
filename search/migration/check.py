"""Whether an index's vectors remain usable with another encoder: what a search keeps, and by which map."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from emb.artifact.bundle import is_bundle
from emb.errors import EmbError
from emb.progress import note
from emb.runtime.encoder import Encoder
from emb.search.calibration.apply import FILE as CALIBRATION
from emb.search.calibration.apply import Calibration
from emb.search.index.description import Description
from emb.search.index.reader import Index
from emb.search.migration.asked import asked_of, judged_documents, read_judged
from emb.search.migration.learned_map import LEARNED, learned_from
from emb.search.migration.maps import AS_THEY_ARE, LinearMap
from emb.search.migration.sample import Sample, draw
from emb.search.migration.trial import Trial, Way, fitted, tried
from emb.similarity import Vectors

USABLE, MAPPED = 0.98, 0.90  # of the nDCG that re-encoding gives
AS_IS, THROUGH_A_MAP, RE_ENCODE = "usable as they are", "usable through a map", "must be re-encoded"


@dataclass(frozen=True)
class Check:
    """What was found.

    Attributes:
        old, new: the encoders of documents, by name.
        documents: of the index; `sample` of them were encoded anew.
        queries: that were searched for, `judged` by people or cut from the documents, which the new vectors judge.
        ways: of searching, the first with new vectors; empty where no map carries the similarity.
        verdict: on the old vectors: usable as they are, through a map, or not.
        map: the best that is not the vectors as they are, or those where they are usable; None without any.
        forecast: the share of the nDCG@10 of re-encoding that it keeps on documents that it was not fitted to.
        renewed: what does not hold for new vectors, and what becomes of it.
        untried: whether a map could be learned, had the encoder so far been named.
    """

    old: str
    new: str
    documents: int
    sample: int
    queries: int
    judged: bool
    ways: Sequence[Way]
    verdict: str
    map: str | None
    forecast: float | None
    renewed: Sequence[str] = field(default_factory=list)
    untried: bool = False


@dataclass(frozen=True)
class Checked:
    """The findings, the map fitted to all of the sample, the level of its scores, and the sample's vectors by the new
    encoder as they came.
    """

    check: Check
    map: LinearMap | None
    level: Sequence[float]
    sample: Sample
    encoded: Vectors


def check(
    index: Index,
    description: Description,
    encoders: tuple[Encoder, Encoder],
    model: Path,
    *,
    data: str | Path | None,
    count: int,
    seed: int,
) -> Checked:
    """Encode `count` documents anew, fit every map to parts of them and try it on the others.

    Args:
        index: the old one, opened; with its query encoder, a map is learned too.
        description: of the new one.
        encoders: of documents and of queries, the new ones.
        model: what was named as the new one.
        data: a BEIR folder with judged queries; None cuts them from the documents.
        count, seed: of the documents that are drawn.

    Raises:
        ArtifactError, DataError, UsageError: too little to look at, or data that cannot be used.
    """
    task = read_judged(data)
    sample = draw(index, count, seed, judged_documents(task))
    asked = asked_of(task, sample.entries, seed)
    note(f"{description.encoder.name}: {len(sample.entries):,} documents, to see what their old vectors are worth")
    encoded = encoders[0].encode(list(sample.texts), kind="document", show_progress_bar=True)
    renewed = _renewed(index.description, description, model)
    facts = (index.description.encoder.name, description.encoder.name, len(index), len(sample.entries))
    if {index.description.space.measure, description.space.measure} != {"dot"}:
        found = Check(*facts, len(asked.texts), asked.judged, [], RE_ENCODE, None, None, renewed)
        return Checked(found, None, (1.0, 0.0), sample, encoded)
    space = description.unrotated
    queries = space.apply(encoders[1].encode(list(asked.texts), kind="query"))
    new = space.apply(np.asarray(encoded, np.float32))
    owner = np.concatenate([sample.owner, sample.rival_owner + len(sample.entries)])
    old = np.concatenate([sample.old, sample.rivals])
    learned = learned_from(index, old, encoders[1], space, asked.texts) if index.encoder is not None else None
    trial = Trial(old, new, owner, queries, asked.relevant, asked.judged, space.length_one, learned)
    ways = tried(trial)
    best = best_of(ways)
    untried = index.encoder is None and index.description.space.length_one and space.length_one
    forecast = forecast_of(ways, best, judged=asked.judged)
    verdict = verdict_on(best.name, forecast)
    chosen = fitted(trial, best.name) if verdict != RE_ENCODE else None
    found = Check(*facts, len(asked.texts), asked.judged, ways, verdict, best.name, forecast, renewed, untried)
    return Checked(found, chosen, best.level, sample, encoded)


def best_of(ways: Sequence[Way]) -> Way:
    """The vectors as they are where these will do; otherwise the map that finds most of what new vectors find where
    that will do; otherwise the learned one if it finds the right documents better than that.

    Which documents are found says more about a map than nDCG, to which most of them are nothing. A learned map finds
    others: those of the old queries, which may be as good.
    """
    for way in ways:
        if way.name == AS_THEY_ARE and way.kept >= USABLE:
            return way
    fitted = max((way for way in ways[1:] if way.name not in (AS_THEY_ARE, LEARNED)), key=lambda way: way.overlap)
    learned = [way for way in ways if way.name == LEARNED and fitted.kept < USABLE]
    return max([fitted, *learned], key=lambda way: way.known)


def forecast_of(ways: Sequence[Way], best: Way, *, judged: bool) -> float:
    """The share of the nDCG@10 of re-encoding that the `best` of the ways keeps.

    Where nobody judged, the new vectors' own scores do, and take what a learned map finds for worse that is only other.
    As it is taken where it finds the right documents better than the best map of documents, it keeps no less than that.
    """
    return best.kept if judged or best.name != LEARNED else max(way.kept for way in ways[1:])


def verdict_on(name: str, kept: float) -> str:
    """What to do with old vectors of which the best way, a name, keeps so much."""
    if name == AS_THEY_ARE and kept >= USABLE:
        return AS_IS
    return THROUGH_A_MAP if kept >= MAPPED else RE_ENCODE


def _renewed(old: Description, description: Description, model: Path) -> list[str]:
    layout = description.layout
    codecs = " and ".join(dict.fromkeys([layout.codec, layout.finest]))
    found = [f"codec {codecs}: fitted anew to the new vectors"]
    if layout.rotate:
        found.append("the index's rotation: fitted anew to the new vectors")
    if layout.learn_cut:
        found.append("how documents are cut: learned anew from pseudo-queries, which the new encoder reads")
    elif old.layout.learn_cut:
        found.append("how documents are cut: no longer learned, as nothing is cut or lengths of vectors matter")
    return [*found, _calibration(model, description.encoder.fingerprint)]


def _calibration(model: Path, fingerprint: str) -> str:
    again = f"fit it when the migration is finished: emb calibrate {model} --data PATH"
    if not (model / CALIBRATION).is_file():
        return f"relevance: {model.name} has no {CALIBRATION}; {again}"
    try:
        known = Calibration.load(model)
        if not is_bundle(model):
            known.require(known.query.fingerprint, fingerprint)
    except EmbError as error:
        return f"relevance: refused ({error.message}); {again}"
    return f"relevance: {CALIBRATION} of {model.name} holds once the migration is finished, and is refused until then"
