"""Maps learned from queries that both encoders read: new queries find old vectors as old queries do."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from indexing import DIM, Hashed, indexed
from migrating import WANTED, Turned, mixed, models, turn

from emb.errors import ArtifactError, UsageError
from emb.search.index import asked, learned_order
from emb.search.index.reader import Index
from emb.search.migration import check as checking
from emb.search.migration import learned_map
from emb.search.migration import run as running
from emb.search.migration.check import THROUGH_A_MAP, Checked, best_of, forecast_of
from emb.search.migration.learned_map import LEARNED, learn_map
from emb.search.migration.maps import AS_THEY_ARE, Moments, procrustes
from emb.search.migration.move import with_lock
from emb.search.migration.run import Models, Wanted, check_with, move_with
from emb.search.migration.trial import Trial, Way, fitted, tried
from emb.similarity import Vectors, highest, unit

RANDOM = np.random.default_rng(11)
NEW = 24
QUERIES = turn(NEW, NEW) @ RANDOM.standard_normal((NEW, DIM)) / 4  # what becomes of old queries
DOCUMENTS = {f"d{n:03d}": f"w{n} of the first kind. w{n} of the second. w{n} of the third." for n in range(160)}


def _vectors(count: int, dim: int = DIM) -> Vectors:
    return unit(RANDOM.standard_normal((count, dim))).astype(np.float32)


def _share(truth: Vectors, found: Vectors) -> float:
    ten, again = highest(truth, 10), highest(found, 10)
    return float((ten[:, :, None] == again[:, None, :]).any(2).mean())


class Apart(Turned):
    """Reads queries as the old encoder does, in another space, and documents in one that has nothing to do with it;
    `queries` are those that it read.
    """

    def __init__(self) -> None:
        super().__init__(QUERIES)
        self.queries: list[str] = []

    def encode(self, texts: Any, *, kind: str = "document", **options: Any) -> Any:
        """See `Encoder`."""
        if kind == "query":
            self.queries += [texts] if isinstance(texts, str) else texts
            return super().encode(texts, **options)
        return Hashed(dim=NEW).encode([f"noise {text}" for text in texts], **options)


class Asked(Hashed):
    """The old encoder, with the kinds that it was asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.kinds: set[str] = set()

    def encode(self, texts: Any, *, kind: str = "document", **options: Any) -> Any:
        """See `Encoder`."""
        self.kinds.add(kind)
        return super().encode(texts, **options)


def _with_old(old: Hashed | None = None, new: Hashed | None = None) -> Models:
    return replace(models(new or Apart()), old=old or Hashed())


def test_new_queries_find_what_old_ones_find() -> None:
    documents, old = _vectors(300), _vectors(3000)
    new = unit(old @ QUERIES.T)
    found = learn_map(old[:2500], new[:2500], documents)
    assert (found.kind, found.matrix.shape) == (LEARNED, (NEW, DIM + 1))
    truth = old[2500:] @ documents.T
    learned, began = (
        _share(truth, new[2500:] @ unit(each.apply(documents)).T)
        for each in (found, procrustes(Moments.of(old[:2500], new[:2500])))
    )
    assert learned > began + 0.05
    assert learned > 0.45


def test_it_begins_as_the_rotation_of_the_queries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learned_order, "_STEPS", 0)
    documents, old = _vectors(50), _vectors(400)
    new = unit(old @ turn(NEW, DIM).T)
    np.testing.assert_allclose(learn_map(old, new, documents).matrix, procrustes(Moments.of(old, new)).matrix)


def test_it_is_one_of_the_ways_and_no_part_is_held_out_from_it() -> None:
    old, new = _vectors(60), _vectors(60, NEW)
    learned = replace(procrustes(Moments.of(old, new)), kind=LEARNED)
    trial = Trial(old, new, np.arange(60), _vectors(20, NEW), [{0: 1}] * 20, False, True, learned)
    ways = {way.name: way for way in tried(trial)}
    mapped = unit(learned.apply(old))
    assert ways[LEARNED].cosine == pytest.approx(float((mapped * new).sum(1).mean()), abs=1e-6)
    assert fitted(trial, LEARNED) is learned
    assert LEARNED not in {way.name for way in tried(replace(trial, learned=None))}


def _way(name: str, known: float, overlap: float, kept: float) -> Way:
    return Way(name, overlap, 100 * kept, kept, 0.5, known=known)


@pytest.mark.parametrize(
    ("as_is", "learned", "chosen"),
    [
        ((0.0, 0.0, 0.0), (0.91, 0.4, 0.8), LEARNED),
        ((0.0, 0.0, 0.0), (0.89, 0.9, 1.0), "ridge"),
        ((0.9, 0.0, 0.99), (1.0, 1.0, 1.0), AS_THEY_ARE),
    ],
)
def test_it_is_taken_where_it_finds_the_right_documents(
    as_is: tuple[float, float, float], learned: tuple[float, float, float], chosen: str
) -> None:
    """Whatever it finds of what new vectors find; among the others that counts."""
    ways = [_way("re-encoded", 1, 1, 1), _way(AS_THEY_ARE, *as_is), _way("procrustes", 0.95, 0.5, 0.95)]
    ways += [_way("ridge", 0.9, 0.6, 0.9), _way(LEARNED, *learned)]
    assert best_of(ways).name == chosen


@pytest.mark.parametrize(("kept", "chosen"), [(0.979, LEARNED), (0.98, "ridge")])
def test_a_map_of_documents_that_will_do_is_taken(kept: float, chosen: str) -> None:
    ways = [_way("re-encoded", 1, 1, 1), _way("ridge", kept, 0.9, kept), _way(LEARNED, 1.02, 0.8, 0.97)]
    assert best_of(ways).name == chosen


def test_where_nobody_judged_it_keeps_what_the_map_that_it_replaces_keeps() -> None:
    """The new vectors' scores take what it finds for worse, which is other."""
    ways = [_way("re-encoded", 1, 1, 1), _way("ridge", 0.8, 0.6, 0.93), _way(LEARNED, 0.9, 0.5, 0.88)]
    best = best_of(ways)
    assert best.name == LEARNED
    assert forecast_of(ways, best, judged=False) == 0.93
    assert forecast_of(ways, best, judged=True) == 0.88
    assert forecast_of(ways, ways[1], judged=False) == 0.93
    better = [*ways[:2], _way(LEARNED, 0.9, 0.5, 0.95)]
    assert forecast_of(better, better[2], judged=False) == 0.95


def _checked(folder: Path, found: Models, wanted: Wanted = WANTED) -> Checked:
    return check_with(folder, wanted, found)


def _judged(folder: Path) -> Path:
    """Queries whose documents are those that the old encoder finds first."""
    (folder / "qrels").mkdir(parents=True)
    names, texts = list(DOCUMENTS), list(DOCUMENTS.values())
    queries = [f"asked {number}" for number in range(40)]
    first = np.argmax(unit(Hashed().encode(queries)) @ unit(Hashed().encode(texts)).T, 1)
    for name, rows in (("corpus", DOCUMENTS.items()), ("queries", zip(queries, queries, strict=True))):
        lines = [json.dumps({"_id": each, "text": text}) + "\n" for each, text in rows]
        (folder / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")
    lines = [f"{query}\t{names[row]}\t1\n" for query, row in zip(queries, first, strict=True)]
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\n" + "".join(lines), encoding="utf-8")
    return folder


def test_where_the_old_encoder_is_named_a_map_is_learned(tmp_path: Path) -> None:
    """Documents say nothing here: what the new encoder makes of them has nothing to do with their old vectors."""
    indexed(tmp_path / "i", DOCUMENTS)
    wanted = replace(WANTED, data=_judged(tmp_path / "set"))
    old, new = Asked(), Apart()
    found = _checked(tmp_path / "i", _with_old(old, new), wanted)
    ways = {way.name: way for way in found.check.ways}
    assert ways[LEARNED].ndcg > 60
    assert max(way.ndcg for name, way in ways.items() if name not in (LEARNED, "re-encoded")) < 30
    assert found.check.map == LEARNED
    assert found.map is not None
    assert found.map.kind == LEARNED
    assert old.kinds == {"query"}
    without = _checked(tmp_path / "i", models(Apart()), wanted)
    assert LEARNED not in {way.name for way in without.check.ways}


def test_the_verdict_is_on_the_forecast(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    indexed(tmp_path / "i", DOCUMENTS)
    ways = [_way("re-encoded", 1, 1, 1), _way("ridge", 0.8, 0.6, 0.93), _way(LEARNED, 0.9, 0.5, 0.88)]
    monkeypatch.setattr(checking, "tried", lambda _: ways)
    found = _checked(tmp_path / "i", _with_old(), replace(WANTED, sample=20)).check
    assert (found.verdict, found.forecast, found.map) == (THROUGH_A_MAP, 0.93, LEARNED)


def test_it_is_searched_while_documents_are_on_their_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    indexed(tmp_path / "i", DOCUMENTS)
    new = Apart()
    wanted = replace(WANTED, data=_judged(tmp_path / "set"))
    with monkeypatch.context() as patch:
        patch.setattr(running, "re_encode", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            move_with(tmp_path / "i", wanted, _with_old(new=new))
    queries = [f"another {number}" for number in range(20)]
    with mixed(tmp_path / "i", new) as index, Index(tmp_path / "i") as old:
        assert index.mapped == len(DOCUMENTS)
        shares = [
            len({hit.id for hit in index.search_vector(new.encode(query, kind="query"))} & ids) / 10
            for query in queries
            for ids in [{hit.id for hit in old.search_vector(Hashed().encode(query))}]
        ]
    assert np.mean(shares) > 0.5


def test_queries_that_are_asked_teach_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    indexed(tmp_path / "i", DOCUMENTS)
    new, taught = Apart(), list[str]()

    def learned(old: Vectors, vectors: Vectors, documents: Vectors) -> Any:
        taught.extend(new.queries[len(new.queries) - len(vectors) :])

    monkeypatch.setattr(learned_map, "learn_map", learned)
    _checked(tmp_path / "i", _with_old(new=new), replace(WANTED, sample=20))
    questions = new.queries[: len(new.queries) - len(taught)]
    assert len(questions) > 20
    assert len(taught) > 300
    assert not {each.casefold() for each in questions} & {each.casefold() for each in taught}


def test_all_stored_documents_are_put_in_order_by_queries_as_the_index_turns_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that are not looked at, too: their old vectors are there."""
    indexed(tmp_path / "i", DOCUMENTS, dim=16, rotate=True)
    new, seen = Apart(), list[Vectors]()
    monkeypatch.setattr(learned_map, "learn_map", lambda *given: seen.extend(given))
    _checked(tmp_path / "i", _with_old(new=new), replace(WANTED, sample=20, dim=NEW))
    before, after, documents = seen
    assert documents.shape == (len(DOCUMENTS), 16)
    texts = new.queries[len(new.queries) - len(after) :]
    with Index(tmp_path / "i") as index:
        np.testing.assert_allclose(before, index.snapshot().space.apply(Hashed().encode(texts)), atol=1e-6)
    np.testing.assert_allclose(after, new.encode(texts, kind="query"), atol=1e-6)


def test_of_too_few_queries_none_is_learned(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    few = {name: DOCUMENTS[name] for name in list(DOCUMENTS)[:20]}
    indexed(tmp_path / "i", few)
    found = _checked(tmp_path / "i", _with_old())
    assert LEARNED not in {way.name for way in found.check.ways}
    said = " ".join(capsys.readouterr().err.split())
    assert "the map is not learned: the documents give" in said
    assert "besides the " in said
    assert f"that maps are tried on, it takes {asked._LEAST}" in said


def test_the_new_encoder_of_queries_reads_them(tmp_path: Path) -> None:
    indexed(tmp_path / "i", DOCUMENTS)
    document, query = Apart(), Apart()
    found = replace(models(document), query=query, old=Hashed())
    checked = _checked(tmp_path / "i", found, replace(WANTED, sample=20))
    assert LEARNED in {way.name for way in checked.check.ways}
    assert not document.queries


def test_an_encoder_that_is_not_the_indexs_is_refused(tmp_path: Path) -> None:
    indexed(tmp_path / "i", DOCUMENTS)
    with pytest.raises(ArtifactError, match="the query encoder has 24 dims"):
        _checked(tmp_path / "i", _with_old(Hashed(dim=24)))


def test_an_encoder_of_another_origin_is_refused(tmp_path: Path, bert_folder: Path) -> None:
    """Its dims alone do not say whose vectors they are."""
    indexed(tmp_path / "i", DOCUMENTS)
    stranger = replace(_with_old(), old_folder=bert_folder)
    with pytest.raises(ArtifactError, match="not model, which encoded the documents"):
        _checked(tmp_path / "i", stranger)


def test_it_is_told_whether_one_could_be_learned(tmp_path: Path) -> None:
    indexed(tmp_path / "i", DOCUMENTS)
    assert _checked(tmp_path / "i", models(Apart())).check.untried
    assert not _checked(tmp_path / "i", _with_old()).check.untried
    lengths = Turned(turn(), similarity="dot")
    lengths.normalize = False
    assert not _checked(tmp_path / "i", models(lengths)).check.untried


def test_spaces_that_need_lengths_are_refused(tmp_path: Path) -> None:
    indexed(tmp_path / "i", DOCUMENTS)
    new = Turned(turn(), similarity="dot")
    new.normalize = False
    with pytest.raises(UsageError, match="old: a learned map keeps directions alone, and the dot similarity of new"):
        _checked(tmp_path / "i", _with_old(new=new))
    plain = Hashed("dot", normalize=False)
    indexed(tmp_path / "j", DOCUMENTS, plain)
    with pytest.raises(UsageError, match="the dot similarity of model needs lengths"):
        _checked(tmp_path / "j", _with_old(plain))


def test_the_old_encoder_is_opened_where_a_map_is_made(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A migration under way has its map; looking anew makes another."""
    indexed(tmp_path / "i", DOCUMENTS)
    seen: list[object] = []

    def opened(wanted: Wanted, _: object) -> Any:
        seen.append(wanted.old)
        return SimpleNamespace()

    monkeypatch.setattr(running, "_models", opened)
    monkeypatch.setattr(running, "check_with", lambda *_: SimpleNamespace(check=None))
    monkeypatch.setattr(running, "move_with", lambda *_: None)
    for under_way, look in ((None, False), (None, True), (object(), False), (object(), True)):
        monkeypatch.setattr(running.Moving, "load", lambda _, under_way=under_way: under_way)
        running.run(tmp_path / "i", Wanted("new", old="old"), look=look, end=False, back=False)
        said = " ".join(capsys.readouterr().err.split())
        assert ("keeps the map that it was begun with" in said) is (under_way is not None and not look)
    assert seen == ["old", "old", None, "old"]


def test_the_old_encoder_is_that_of_queries_with_its_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "document_encoder", lambda path, **_: ("documents", path))
    monkeypatch.setattr(running, "query_encoder", lambda path, **_: ("queries", path))
    monkeypatch.setattr(running, "document_folder", Path)
    monkeypatch.setattr(running, "query_folder", lambda path: Path(path) / "query")
    monkeypatch.setattr(running, "record_of", lambda *_: None)
    found = running._models(Wanted("new", old="old"), None)
    assert (found.old, found.old_folder) == (("queries", "old"), Path("old/query"))
    assert running._models(Wanted("new"), None).old is None


def test_one_migration_at_a_time_learns(tmp_path: Path) -> None:
    """What was learned moves with the index, and finishes it."""
    indexed(tmp_path / "i", DOCUMENTS)
    done = move_with(tmp_path / "i", replace(WANTED, data=_judged(tmp_path / "set")), _with_old())
    assert (done.left, done.check.map if done.check else None) == (0, LEARNED)
    assert with_lock(tmp_path / "i", lambda: True)
