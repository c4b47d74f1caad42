"""Maps between spaces, and what is told of them: forecasts are of documents that no map was fitted to."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from indexing import DIM, Hashed, texts
from migrating import COUNT, WANTED, Turned, begun, models, turn

from emb.data.evaluation_sets import RetrievalTask
from emb.errors import ArtifactError, DataError, UsageError
from emb.search.index import storing
from emb.search.index.documents import Entry
from emb.search.index.reader import Index
from emb.search.migration import check as checking
from emb.search.migration import run as running
from emb.search.migration import trial as trying
from emb.search.migration.asked import asked_of, judged_documents
from emb.search.migration.check import AS_IS, RE_ENCODE, THROUGH_A_MAP, Checked, best_of, verdict_on
from emb.search.migration.maps import AS_THEY_ARE, LinearMap, Moments, fit_maps, procrustes
from emb.search.migration.run import Wanted, check_with
from emb.search.migration.sample import draw
from emb.search.migration.trial import Trial, Way, fitted, tried
from emb.similarity import Vectors, unit

RANDOM = np.random.default_rng(3)


def _vectors(count: int, dim: int = DIM) -> Vectors:
    return unit(
        RANDOM.standard_normal((count, dim)) + 2 * RANDOM.standard_normal((8, dim))[RANDOM.integers(0, 8, count)]
    )


def _trial(old: Vectors, new: Vectors) -> Trial:
    queries = unit(new[:40] + 0.1 * RANDOM.standard_normal(new[:40].shape))
    return Trial(old, new, np.arange(len(old)), queries, [{row: 1} for row in range(40)], True, True)


def _checked(folder: Path, encoder: Hashed, wanted: Wanted = WANTED) -> Checked:
    return check_with(folder, wanted, models(encoder))


@pytest.mark.parametrize(("new", "old"), [(32, 32), (24, 32), (32, 24)])
def test_a_rotation_is_found_whatever_the_dims(new: int, old: int) -> None:
    matrix = turn(new, old)
    vectors = _vectors(200, old)
    found = procrustes(Moments.of(vectors, vectors @ matrix.T))
    np.testing.assert_allclose(found.matrix[:, :-1], matrix, atol=1e-5) if new >= old else None
    if new >= old:
        np.testing.assert_allclose(found.apply(vectors), vectors @ matrix.T, atol=1e-5)
    else:
        ridge = next(each for each in fit_maps(Moments.of(vectors, vectors @ matrix.T)) if each.kind == "ridge 0.01")
        assert np.abs(ridge.apply(vectors) - vectors @ matrix.T).mean() < 0.02


def test_documents_without_new_vectors_stand_in_the_way() -> None:
    """What is forecast is what the whole index keeps, though few documents were encoded anew."""
    old = _vectors(6000)
    new = unit(old @ turn(DIM, DIM).T + 0.03 * RANDOM.standard_normal(old.shape))
    queries = unit(new[:150] + 0.15 * RANDOM.standard_normal((150, DIM)))
    few = Trial(old[:200], new[:200], np.arange(200), queries, [{row: 1} for row in range(150)], True, True)
    with_rivals = replace(few, old=old, owner=np.arange(len(old)))
    whole = replace(with_rivals, new=new)
    [found] = [each for each in fit_maps(Moments.of(old[200:], new[200:])) if each.kind == "ridge 0.01"]
    truth, mapped = (trying._scores(whole, vectors) for vectors in (new, unit(found.apply(old))))
    kept = trying._ndcg(whole, truth, mapped) / trying._ndcg(whole, truth, truth)
    without, forecast = (
        next(way for way in tried(each) if way.name == "ridge 0.01").kept for each in (few, with_rivals)
    )
    assert without > kept + 0.06
    assert kept - 0.09 < forecast < kept + 0.03


def test_a_map_of_documents_is_one_of_queries() -> None:
    found = LinearMap("any", RANDOM.standard_normal((24, 33)).astype(np.float32))
    vectors, query = _vectors(10), _vectors(1, 24)[0]
    reached = query @ found.matrix
    np.testing.assert_allclose(vectors @ reached[:-1] + reached[-1], found.apply(vectors) @ query, rtol=1e-4, atol=1e-4)


def test_moments_add_up_over_parts() -> None:
    old, new = _vectors(50), _vectors(50, 24)
    whole, first = Moments.of(old, new), Moments.of(old[:20], new[:20])
    rest = Moments.of(old[20:], new[20:])
    for left, right in zip(fit_maps(whole - first), fit_maps(rest), strict=True):
        np.testing.assert_allclose(left.matrix, right.matrix, atol=1e-5)


def test_ridges_have_an_offset() -> None:
    old = _vectors(200)
    new = old @ turn().T + 0.5
    kinds = {each.kind: each for each in fit_maps(Moments.of(old, new))}
    assert np.abs(kinds["ridge 0.01"].apply(old) - new).mean() < 0.02
    assert np.abs(kinds["procrustes"].apply(old) - new).mean() > 0.1


def test_forecasts_are_of_documents_that_no_map_has_seen() -> None:
    old, new = _vectors(60), _vectors(60)  # nothing to learn, but by heart
    ways = {way.name: way for way in tried(_trial(old, new))}
    by_heart = fitted(_trial(old, new), "ridge 0.01").apply(old)
    assert (unit(by_heart) * new).sum(axis=1).mean() > 0.6
    assert ways["ridge 0.01"].cosine < 0.4
    assert ways["ridge 0.01"].kept < 0.5


def test_pieces_of_a_document_lie_in_one_part() -> None:
    old, new = np.repeat(_vectors(60), 2, axis=0), np.repeat(_vectors(60), 2, axis=0)
    found = Trial(old, new, np.repeat(np.arange(60), 2), new[:40], [{row // 2: 1} for row in range(40)], True, True)
    assert {way.name: way for way in tried(found)}["ridge 0.01"].cosine < 0.4


def test_a_part_is_tried_by_a_map_of_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    whole = trying.fit_maps

    def watched(moments: Moments) -> object:
        seen.append(moments.count)
        return whole(moments)

    monkeypatch.setattr(trying, "fit_maps", watched)
    tried(_trial(_vectors(50), _vectors(50)))
    assert seen == [*[40] * 5, 50]  # that of all is for documents of which there is no new vector


def test_pieces_of_a_document_stay_together_and_count_by_the_best() -> None:
    new = _vectors(60)
    owner = np.repeat(np.arange(30), 2)
    found = Trial(new, new, owner, new[1::2], [{row: 1} for row in range(30)], True, True)
    ways = tried(found)
    assert ways[0].ndcg == 100
    assert ways[1].name == AS_THEY_ARE
    assert (ways[1].kept, ways[1].overlap) == (1, 1)


def test_scores_of_a_map_are_brought_to_the_height_of_new_ones() -> None:
    new = _vectors(100)
    truth = trying._scores(_trial(new, new), new)
    scale, shift = trying._level(truth, 0.25 * truth - 0.5)
    assert (scale, shift) == pytest.approx((4, 2), abs=1e-4)


def test_where_nobody_judged_the_new_vectors_do() -> None:
    new = _vectors(100)
    found = replace(_trial(new, new), judged=False)
    assert [way.ndcg for way in tried(found)][:2] == pytest.approx([100, 100])
    near, far = (tried(replace(found, old=unit(new + noise * _vectors(100))))[1] for noise in (0.3, 3))
    assert 0.2 < far.kept < near.kept - 0.1 < 0.9


def test_known_items_are_counted_beside_the_new_encoders_gains() -> None:
    """Of old vectors that are the new ones but for one document, its query finds all but that."""
    new = _vectors(100)
    old = new.copy()
    old[0] = -old[0]
    trial = Trial(old, new, np.arange(100), new[:10], [{row: 1} for row in range(10)], False, True)
    as_is = next(way for way in tried(trial) if way.name == AS_THEY_ARE)
    assert as_is.known == pytest.approx(0.9)
    assert as_is.kept != as_is.known
    judged = next(way for way in tried(replace(trial, judged=True)) if way.name == AS_THEY_ARE)
    assert judged.known == judged.kept == pytest.approx(0.9)


def test_a_query_that_is_cut_looks_for_its_document() -> None:
    texts = ("one stands here now. Ten of them there.", "red is no green thing. Blue or gray anyway.")
    entries = [Entry("", text, True, "", text, {}) for text in texts]
    asked = asked_of(None, entries, 0)
    assert not asked.judged
    for text, grades in zip(asked.texts, asked.relevant, strict=True):
        [[row, grade]] = grades.items()
        assert set(text.lower().strip(".").split()) <= set(texts[row].lower().replace(".", "").split())
        assert grade == 1


def _way(name: str, kept: float, overlap: float) -> Way:
    return Way(name, overlap, 100 * kept, kept, 0.5)


@pytest.mark.parametrize(
    ("as_is", "ridge", "chosen", "verdict"),
    [
        ((0.99, 0.6), (1.0, 0.9), AS_THEY_ARE, AS_IS),
        ((0.97, 0.9), (0.95, 0.7), "ridge", THROUGH_A_MAP),
        ((0.97, 0.9), (0.89, 0.7), "ridge", RE_ENCODE),
    ],
)
def test_verdicts(as_is: tuple[float, float], ridge: tuple[float, float], chosen: str, verdict: str) -> None:
    ways = [_way("re-encoded", 1, 1), _way(AS_THEY_ARE, *as_is), _way("procrustes", 0.99, 0.5), _way("ridge", *ridge)]
    assert best_of(ways).name == chosen
    assert verdict_on(best_of(ways).name, best_of(ways).kept) == verdict


@pytest.mark.parametrize(
    ("encoder", "verdict", "kind"),
    [
        (Turned(np.eye(DIM)), AS_IS, AS_THEY_ARE),
        (Turned(turn()), THROUGH_A_MAP, "procrustes"),
        (Turned(turn(), 20.0), RE_ENCODE, None),
        (Turned(turn(), similarity="euclidean"), RE_ENCODE, None),
    ],
)
def test_what_old_vectors_are_worth(encoder: Hashed, verdict: str, kind: str | None, tmp_path: Path) -> None:
    folder = begun(tmp_path / "i", rescore="float32", codec="binary")
    found = _checked(folder, encoder)
    assert found.check.verdict == verdict
    assert (found.check.sample, found.check.documents, found.check.judged) == (100, 120, False)
    assert any("codec binary and float32: fitted anew" in line for line in found.check.renewed)
    if kind:
        assert found.check.map == kind
        assert found.check.forecast == pytest.approx(1, abs=1e-6)
    else:
        assert found.map is None
    assert not list(folder.glob("space-*"))


def test_a_sample_is_drawn_by_its_seed_with_what_was_asked_for_first(tmp_path: Path) -> None:
    with Index(begun(tmp_path / "i")) as index:
        names = [{each.id for each in draw(index, 20, seed).entries} for seed in (0, 0, 1)]
        assert names[0] == names[1] != names[2]
        wanted = {"d0003", "d0099", "nobody"}
        some = draw(index, 20, 0, wanted)
    assert wanted - {"nobody"} <= {each.id for each in some.entries}
    assert len(some.entries) == 20
    np.testing.assert_allclose(some.old, Hashed().encode(some.texts), atol=1e-6)


def _judged(folder: Path, queries: int) -> Path:
    (folder / "qrels").mkdir(parents=True)
    rows = [{"_id": name, "text": text} for name, text in texts(120).items()]
    asked = [{"_id": f"q{number}", "text": f"w1 query {number}"} for number in range(queries)]
    for name, records in (("corpus", rows), ("queries", asked)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in records), encoding="utf-8")
    lines = [f"q{number}\td{number:04d}\t1\n" for number in range(queries)]
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\n" + "".join(lines), encoding="utf-8")
    return folder


def test_judged_queries_are_asked_where_there_are_some(tmp_path: Path) -> None:
    begun(tmp_path / "i")
    found = _checked(tmp_path / "i", Turned(turn()), replace(WANTED, data=_judged(tmp_path / "set", 30), sample=40))
    assert (found.check.judged, found.check.queries, found.check.sample) == (True, 30, 40)
    with pytest.raises(UsageError, match="19 judged queries have a relevant document"):
        _checked(tmp_path / "i", Turned(turn()), replace(WANTED, data=_judged(tmp_path / "few", 19)))
    with pytest.raises(UsageError, match="no judged queries"):
        _checked(tmp_path / "i", Turned(turn()), replace(WANTED, data=tmp_path / "i"))


def test_what_is_judged_irrelevant_is_not_looked_for() -> None:
    entries = [Entry("", name, True, "", name, {}) for name in ("a", "b")]
    relevant = {f"q{row}": {"a": 1, "b": 0} for row in range(20)} | {"none": {"b": 0}}
    task = RetrievalTask("set", dict.fromkeys(relevant, "text"), {"a": "", "b": ""}, relevant)
    assert judged_documents(task) == {"a"}
    asked = asked_of(task, entries, 0)
    assert asked.relevant == [{0: 1, 1: 0}] * 20


def test_a_rotation_has_the_scale_that_fits_best() -> None:
    old = np.random.default_rng(0).standard_normal((40, 4))
    found = procrustes(Moments.of(old, 3 * old @ np.linalg.qr(old[:4])[0].T))
    np.testing.assert_allclose(np.linalg.norm(found.matrix[:, :-1], axis=1), 3, rtol=1e-5)


def test_the_penalty_is_a_share_of_the_variance() -> None:
    old, new = np.random.default_rng(0).standard_normal((2, 40, 4))
    plain, larger = ([each.matrix for each in fit_maps(Moments.of(scale * old, new))][2:] for scale in (1, 10))
    for one, ten in zip(plain, larger, strict=True):
        np.testing.assert_allclose(one[:, :-1], 10 * ten[:, :-1], rtol=1e-4)


def test_the_height_of_scores_is_that_of_the_best_ten() -> None:
    truth = np.random.default_rng(0).uniform(size=(3, 40))
    found = truth**3 - 2
    scale, shift = trying._level(truth, found)
    for each in (slice(-10, None), slice(None)):
        theirs, ours = (np.sort(scores, axis=1)[:, each].mean() for scores in (truth, found))
        assert scale * ours + shift == pytest.approx(theirs)


def test_nine_tenths_are_enough_for_a_map() -> None:
    assert verdict_on("ridge", 0.9) == THROUGH_A_MAP
    assert verdict_on("ridge", 0.8999) == RE_ENCODE


def test_all_of_the_index_stands_in_the_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Trial] = []

    def watched(trial: Trial) -> list[Way]:
        seen.append(trial)
        return tried(trial)

    monkeypatch.setattr(checking, "tried", watched)
    begun(tmp_path / "i")
    _checked(tmp_path / "i", Turned(turn()), replace(WANTED, sample=40))
    [trial] = seen
    assert (trial.both, trial.documents, len(trial.new)) == (40, COUNT, 40)
    everything = unit(Hashed().encode(list(texts(COUNT).values())))
    assert sorted(map(tuple, trial.old.round(4))) == sorted(map(tuple, everything.round(4)))


def test_too_few_documents(tmp_path: Path) -> None:
    begun(tmp_path / "i", 4)
    with pytest.raises(DataError, match="4 documents are too few"):
        _checked(tmp_path / "i", Turned(turn()))
    begun(tmp_path / "i", 5)
    assert _checked(tmp_path / "i", Turned(turn())).check.sample == 5


def test_an_index_that_stores_nothing_yet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(storing, "write", _stop)
        with pytest.raises(KeyboardInterrupt):
            begun(tmp_path / "i")
    with pytest.raises(ArtifactError, match="holds no stored vectors"):
        _checked(tmp_path / "i", Turned(turn()))


def _stop(*_: object) -> None:
    raise KeyboardInterrupt


class Listening(Turned):
    """Notes of which kind the texts are that it encodes."""

    def __init__(self) -> None:
        super().__init__(np.eye(DIM))
        self.kinds: set[str] = set()

    def encode(self, texts: Any, **options: Any) -> Any:
        """See `Encoder`."""
        self.kinds.add(str(options.get("kind")))
        return super().encode(texts, **options)


def test_queries_are_read_by_their_own_encoder_and_documents_by_theirs(tmp_path: Path) -> None:
    document, query = Listening(), Listening()
    check_with(begun(tmp_path / "i"), WANTED, replace(models(document), query=query))
    assert (document.kinds, query.kinds) == ({"document"}, {"query"})


def test_gains_are_counted_from_the_mean_of_all_documents() -> None:
    truth = np.asarray([[0.9, 0.5, 0.5, 0.5]])  # 0.3 above the mean, and the others below
    trial = Trial(_vectors(4), _vectors(4), np.arange(4), _vectors(1), [{0: 1}], False, True)
    assert trying._ndcg(trial, truth, np.asarray([[0.0, 3.0, 2.0, 1.0]])) == pytest.approx(100 / np.log2(5))


@pytest.mark.parametrize("bundled", [True, False])
def test_a_bundles_calibration_is_held_against_nothing_but_itself(
    bundled: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def require(*_: object) -> None:
        raise ArtifactError("of another model")

    assert "has no calibration.json" in checking._calibration(tmp_path, "f")
    (tmp_path / "calibration.json").touch()
    known = SimpleNamespace(query=SimpleNamespace(fingerprint="q"), require=require)
    monkeypatch.setattr(checking.Calibration, "load", lambda folder: known)
    monkeypatch.setattr(checking, "is_bundle", lambda folder: bundled)
    told = checking._calibration(tmp_path, "f")
    assert ("holds once the migration is finished" in told) is bundled
    assert ("refused (of another model)" in told) is not bundled


def test_queries_are_by_whom_is_named_for_them(monkeypatch: pytest.MonkeyPatch) -> None:
    named: list[tuple[str, object]] = []
    monkeypatch.setattr(running, "document_encoder", lambda path, **_: named.append(("documents", path)))
    monkeypatch.setattr(running, "query_encoder", lambda path, **_: named.append(("queries", path)))
    monkeypatch.setattr(running, "document_folder", Path)
    monkeypatch.setattr(running, "record_of", lambda *_: None)
    assert running._models(Wanted("large", query="small"), None).model == Path("small")
    assert running._models(Wanted("large"), None).model == Path("large")
    under_way: Any = SimpleNamespace(to="begun")
    assert running._models(Wanted(query="small"), under_way).model == Path("small")
    first = [("documents", "large"), ("queries", "small"), ("documents", "large"), ("queries", "large")]
    assert named == [*first, ("documents", "begun"), ("queries", "small")]
