"""An index on its way to another encoder: searched by both at any moment, stopped, resumed, finished and undone."""

from __future__ import annotations

import json
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from distilling import finish as ended
from distilling import limited, start
from indexing import Hashed, indexed, ranking, texts
from migrating import BLOCK, COUNT, WANTED, Turned, begun, content, mixed, models, move_and_die, moved, turn

from emb.errors import ArtifactError, UsageError
from emb.files import sha256_file
from emb.locks import locked
from emb.search.calibration.searching import search_relevant
from emb.search.index import build, lengths
from emb.search.index.description import FILE as INDEX
from emb.search.index.description import Description, Layout, home
from emb.search.index.mixed import MixedIndex
from emb.search.index.moving import FILE, MAP
from emb.search.index.opening import opened
from emb.search.index.reader import Index
from emb.search.migration import end, move
from emb.search.migration.maps import LinearMap
from emb.search.migration.remembering import Remembering
from emb.search.migration.run import Wanted, check_with
from emb.search.migration.run import run as migrate_run
from emb.similarity import NotFiniteError, unit

TURN = turn()
QUERIES = ["w1 query", "another", "w3 w4 w5"]
STORES = [("float32", None), ("binary", "float32"), ("int8", None), ("binary", "lvq8")]


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "BLOCK", BLOCK)


def _ids(index: Index, encoder: Hashed, query: str, k: int = 10) -> list[str]:
    return [hit.id for hit in index.search_vector(encoder.encode(query), k)]


def _stopped(folder: Path, encoder: Hashed, monkeypatch: pytest.MonkeyPatch, blocks: int, sample: int = 20) -> None:
    """Move it until so many blocks are committed."""
    whole, calls = build.put, iter(range(100))

    def put(*arguments: object) -> None:
        if next(calls) == blocks:
            raise KeyboardInterrupt
        whole(*arguments)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(build, "put", put)
        with pytest.raises(KeyboardInterrupt):
            moved(folder, encoder, replace(WANTED, sample=sample))


@pytest.mark.parametrize("blocks", [0, 1, 4])
def test_a_turned_space_is_searched_as_if_all_were_encoded_anew(
    blocks: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = Turned(TURN)
    _stopped(begun(tmp_path / "i"), encoder, monkeypatch, blocks, sample=60)
    indexed(tmp_path / "anew", texts(COUNT), encoder)
    with mixed(tmp_path / "i", encoder) as index, Index(tmp_path / "anew") as anew:
        assert index.mapped == COUNT - BLOCK * blocks
        for query in QUERIES:
            assert _ids(index, encoder, query, 30) == _ids(anew, encoder, query, 30)
            scores = [[hit.score for hit in each.search_vector(encoder.encode(query))] for each in (index, anew)]
            np.testing.assert_allclose(*scores, atol=1e-4)


@pytest.mark.parametrize(("codec", "rescore"), STORES)
def test_what_was_moved_is_what_a_new_index_is(codec: str, rescore: str | None, tmp_path: Path) -> None:
    encoder = Turned(turn(24), 0.3)
    begun(tmp_path / "i", codec=codec, rescore=rescore)
    done = moved(tmp_path / "i", encoder)
    assert (done.state, done.documents, done.left) == ("moved", COUNT, 0)
    indexed(tmp_path / "anew", texts(COUNT), encoder, codec=codec, rescore=rescore)
    with Index(tmp_path / "anew") as anew:
        expected = [anew.search_vector(encoder.encode(query)) for query in QUERIES]
    with mixed(tmp_path / "i", encoder) as index:
        assert [index.search_vector(encoder.encode(query)) for query in QUERIES] == expected
    move.with_lock(tmp_path / "i", lambda: end.finish(tmp_path / "i"))
    with Index(tmp_path / "i") as index:
        assert [index.search_vector(encoder.encode(query)) for query in QUERIES] == expected
    known = Description.load(tmp_path / "i")
    assert (known.encoder.fingerprint, known.layout.codec) == ("new", codec)
    left = {path.name for path in (tmp_path / "i").iterdir()}
    assert left == {".lock", ".migration.lock", INDEX, "space-1"}
    assert not [path for path in (tmp_path / "i" / "space-1").glob("*.npy")]


def test_the_old_index_is_searched_as_ever_and_undone_bit_for_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun(tmp_path / "i", codec="binary", rescore="int8")
    before, found = content(tmp_path / "i"), ranking(tmp_path / "i")
    _stopped(tmp_path / "i", Turned(TURN), monkeypatch, 3)
    assert ranking(tmp_path / "i") == found
    assert content(tmp_path / "i").items() > before.items()
    moved(tmp_path / "i", Turned(TURN))
    assert ranking(tmp_path / "i") == found
    (tmp_path / "i" / f".{INDEX}.0.partial").touch()  # of a kill while that was written
    move.with_lock(tmp_path / "i", lambda: end.undo(tmp_path / "i"))
    assert content(tmp_path / "i") == before


def test_only_what_is_left_is_encoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = Turned(TURN)
    _stopped(begun(tmp_path / "i"), encoder, monkeypatch, 3)
    encoder = Turned(TURN)
    assert moved(tmp_path / "i", encoder).left == 0
    assert encoder.documents == COUNT - 3 * BLOCK


def test_the_sample_goes_first_and_is_encoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = Turned(TURN)
    _stopped(begun(tmp_path / "i"), encoder, monkeypatch, 1, sample=BLOCK)
    with mixed(tmp_path / "i", encoder) as index:
        first = {hit.id for hit in index.new.search_vector(encoder.encode("w1"), COUNT)}
    assert first != set(list(texts(COUNT))[:BLOCK])
    other = Turned(TURN)
    moved(begun(tmp_path / "j"), other)
    assert other.documents == COUNT


def test_a_map_with_an_offset_is_searched_by_cosines_of_what_it_makes(tmp_path: Path) -> None:
    encoder = Turned(turn(24))
    begun(tmp_path / "i")
    random = np.random.default_rng(5)
    matrix = random.standard_normal((24, 33)).astype(np.float32)
    with Index(tmp_path / "i") as index:
        wanted = replace(WANTED, sample=20)
        checked = check_with(tmp_path / "i", wanted, models(encoder))
        description = Description(models(encoder).record, Layout())
        move.start(
            index, tmp_path / "i", description, "new", replace(checked, map=LinearMap("any", matrix), level=(0.5, 0.25))
        )
        old = Hashed().encode(list(texts(COUNT).values()))
    vectors = unit(old @ matrix[:, :-1].T + matrix[:, -1])
    query = encoder.encode("w1 query")
    order = np.argsort(-(vectors @ query), kind="stable")[:20]
    for cached in (True, False):
        for path in (tmp_path / "i" / "space-1").glob("lengths-*"):
            assert cached or path.unlink() is None
        with mixed(tmp_path / "i", encoder) as found:
            hits = found.search_vector(query, 20)
        assert [hit.id for hit in hits] == [list(texts(COUNT))[row] for row in order]
        np.testing.assert_allclose([hit.score for hit in hits], 0.5 * (vectors @ query)[order] + 0.25, atol=1e-4)


@pytest.mark.parametrize(
    "at",
    [
        ("emb.search.migration.move", "begin", 1),
        ("emb.search.migration.move", "save_matrix", 1),
        ("emb.search.index.moving", "write_json", 1),
        ("emb.search.index.build", "append", 3),
        ("emb.search.index.build", "put", 3),
        ("emb.search.index.storing", "write", 1),
        ("emb.search.index.storing", "remove_others", 1),
    ],
)
def test_a_killed_migration_leaves_both_and_goes_on(at: tuple[str, str, int], tmp_path: Path) -> None:
    begun(tmp_path / "i")
    before, found = content(tmp_path / "i"), ranking(tmp_path / "i")
    assert ended(start(move_and_die, tmp_path / "i", TURN, at)) == -signal.SIGKILL
    assert content(tmp_path / "i").items() >= before.items()
    assert ranking(tmp_path / "i") == found
    if (tmp_path / "i" / FILE).is_file():
        encoder = Turned(TURN)
        with mixed(tmp_path / "i", encoder) as index:
            assert len(_ids(index, encoder, "w1 query", 2 * COUNT)) == COUNT
    assert moved(tmp_path / "i", Turned(TURN)).left == 0
    assert len(list((tmp_path / "i").glob("space-*"))) == 1
    move.with_lock(tmp_path / "i", lambda: end.undo(tmp_path / "i"))
    assert content(tmp_path / "i") == before


@pytest.mark.parametrize("function", ["tidy", "settle_in"])
def test_a_killed_end_is_the_old_index_or_the_new_one(
    function: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = Turned(TURN)
    moved(begun(tmp_path / "i"), encoder)

    def dying(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(end, function, dying)
        with pytest.raises(KeyboardInterrupt):
            end.finish(tmp_path / "i")
    finished = function == "tidy"
    assert (home(tmp_path / "i") != tmp_path / "i") == finished
    assert len(opened(tmp_path / "i", None)) == COUNT
    if finished:
        with pytest.raises(UsageError, match="no migration is under way"):
            end.undo(tmp_path / "i")
        moved(tmp_path / "i", Hashed(), fingerprint="third")
        assert sorted(path.name for path in (tmp_path / "i").glob("space-*")) == ["space-1", "space-2"]
        assert not (tmp_path / "i" / "segments").exists()
    end.finish(tmp_path / "i")
    assert len(ranking(tmp_path / "i", k=2 * COUNT)) == COUNT


def test_documents_that_change_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = Turned(TURN)
    layout = {"metadata": ("year",)}
    known = {name: {"text": text, "year": "1999"} for name, text in texts(COUNT).items()}
    indexed(tmp_path / "i", known, **layout)
    moved(tmp_path / "i", encoder)
    indexed(tmp_path / "i", {"d0001": {"text": "changed", "year": "1999"}, "d0002": known["d0002"] | {"year": "2000"}})
    indexed(tmp_path / "i", {"added": {"text": "more", "year": "2000"}}, delete=["d0003"])
    with mixed(tmp_path / "i", encoder) as index:
        assert index.mapped == 3
        assert _ids(index, encoder, "changed", 1) == ["d0001"]
        assert _ids(index, encoder, "more", 1) == ["added"]
        assert "d0003" not in _ids(index, encoder, "w3 text 3", COUNT)
        year = index.search_vector(encoder.encode("w2 text 2"), where={"year": "2000"})
        assert [hit.id for hit in year] == ["d0002", "added"]
        assert year[0].metadata == {"year": "2000"}
    with pytest.raises(ArtifactError, match="3 documents are not encoded"):
        end.finish(tmp_path / "i")
    assert moved(tmp_path / "i", encoder).left == 0
    end.finish(tmp_path / "i")
    assert len(opened(tmp_path / "i", None)) == COUNT


def test_an_open_index_goes_on_when_it_is_finished_and_says_when_it_cannot(tmp_path: Path) -> None:
    encoder = Turned(TURN)
    moved(begun(tmp_path / "i"), encoder)
    with mixed(tmp_path / "i", encoder) as new, Index(tmp_path / "i") as old:
        before = _ids(new, encoder, "w1 query")
        end.finish(tmp_path / "i")
        assert (_ids(new, encoder, "w1 query"), new.mapped, len(new)) == (before, 0, COUNT)
        with pytest.raises(ArtifactError, match="moved to another encoder"):
            _ids(old, Hashed(), "w1 query")


def test_an_open_index_notices_that_it_was_undone(tmp_path: Path) -> None:
    encoder = Turned(TURN)
    moved(begun(tmp_path / "i"), encoder)
    with mixed(tmp_path / "i", encoder) as new:
        end.undo(tmp_path / "i")
        with pytest.raises(ArtifactError, match="was undone since it was opened"):
            _ids(new, encoder, "w1 query")
    with pytest.raises(UsageError, match="no migration is under way"):
        end.undo(tmp_path / "i")


def test_without_a_map_new_queries_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = Turned(TURN, noise=20.0)
    _stopped(begun(tmp_path / "i"), encoder, monkeypatch, 2)
    with pytest.raises(ArtifactError, match=f"{COUNT - 2 * BLOCK} documents are not encoded by new yet"):
        mixed(tmp_path / "i", encoder)
    done = moved(tmp_path / "i", encoder)
    assert done.check is not None
    assert done.check.verdict == "must be re-encoded"
    with mixed(tmp_path / "i", encoder) as index:
        assert len(_ids(index, encoder, "w1 query")) == 10
        indexed(tmp_path / "i", {"added": "w1"})
        with pytest.raises(ArtifactError, match="1 documents are not encoded by new yet"):
            _ids(index, encoder, "w1 query")


def test_relevance_is_refused_until_all_are_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from emb.search.calibration import searching

    encoder = Turned(TURN)
    _stopped(begun(tmp_path / "i"), encoder, monkeypatch, 1)
    monkeypatch.setattr(searching.Calibration, "load", lambda _: None)
    with mixed(tmp_path / "i", encoder) as index, pytest.raises(UsageError, match="searched through a map to new"):
        search_relevant(index, "new", "w1", 0.5)


def test_two_migrations_and_two_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun(tmp_path / "i")

    def busy() -> None:
        raise AssertionError

    with locked(tmp_path / "i" / move.LOCK, busy), pytest.raises(ArtifactError, match="another process is migrating"):
        moved(tmp_path / "i", Turned(TURN))
    with pytest.raises(UsageError, match="encoded by new already"):
        moved(tmp_path / "i", Hashed(), fingerprint="f")
    _stopped(tmp_path / "i", Turned(TURN), monkeypatch, 1)
    with pytest.raises(UsageError, match=r"a migration to another model \(new\) is under way"):
        moved(tmp_path / "i", Turned(TURN), fingerprint="other")
    with locked(tmp_path / "i" / build.LOCK, busy):
        assert moved(tmp_path / "i", Turned(TURN)).left == 0
        with pytest.raises(ArtifactError, match="another process is writing this index"):
            end.finish(tmp_path / "i")


def test_dims_stay_as_the_migration_was_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _stopped(begun(tmp_path / "i"), Turned(TURN), monkeypatch, 1)
    with pytest.raises(UsageError, match="dim 16: the migration under way keeps 32"):
        moved(tmp_path / "i", Turned(TURN), replace(WANTED, dim=16))
    assert moved(tmp_path / "i", Turned(TURN), replace(WANTED, dim=32)).left == 0


def test_what_was_edited_by_hand_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun(tmp_path / "i")
    before, encoder = content(tmp_path / "i"), Turned(TURN)
    _stopped(tmp_path / "i", encoder, monkeypatch, 1)
    (tmp_path / "i" / "space-1" / MAP).write_bytes(b"")
    with pytest.raises(ArtifactError, match=r"map.npy: missing, or changed"):
        mixed(tmp_path / "i", encoder)
    value = json.loads((tmp_path / "i" / FILE).read_text(encoding="utf-8"))
    for changed, said in ((value | {"at": "."}, "changed since it was written"), (value | {"schema": 9}, "version 1")):
        (tmp_path / "i" / FILE).write_text(json.dumps(changed), encoding="utf-8")
        with pytest.raises(ArtifactError, match=said):
            moved(tmp_path / "i", encoder)
    assert ranking(tmp_path / "i")
    end.undo(tmp_path / "i")
    assert content(tmp_path / "i") == before
    for at in ("space-7", "../i", ""):
        (tmp_path / "i" / INDEX).write_text(json.dumps({"schema": 2, "at": at}), encoding="utf-8")
        with pytest.raises(ArtifactError, match="no folder of an index inside"):
            Index(tmp_path / "i")


def test_a_full_disk_leaves_the_old_index(tmp_path: Path) -> None:
    begun(tmp_path / "i")
    before = content(tmp_path / "i")
    report = tmp_path / "report"
    assert ended(start(limited, 4096, report, moved, tmp_path / "i", Turned(TURN))) == 0
    assert report.read_text(encoding="utf-8").startswith("DiskError: ")
    assert content(tmp_path / "i").items() >= before.items()
    assert moved(tmp_path / "i", Turned(TURN)).left == 0


def test_whose_queries_they_are(
    bert_folder: Path, student_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from emb.search.index import opening

    encoder = Turned(TURN)
    _stopped(begun(tmp_path / "i"), encoder, monkeypatch, 1)
    monkeypatch.setattr(opening, "origins", lambda folder: {"new"} if folder == student_folder else {"f"})
    monkeypatch.setattr("emb.search.index.matching.origins", lambda _: {"new", "f"})
    with opened(tmp_path / "i", encoder, model=student_folder) as index:
        assert isinstance(index, MixedIndex)
    with opened(tmp_path / "i", Hashed(), model=bert_folder) as index:
        assert not isinstance(index, MixedIndex)
    with pytest.raises(UsageError, match="does not say whose vectors"):
        opened(tmp_path / "i", encoder)


@pytest.mark.parametrize(
    ("flags", "said"),
    [((True, True, False), "three different things"), ((False, False, False), "no model to move to")],
)
def test_calls_that_cannot_be(flags: tuple[bool, bool, bool], said: str, tmp_path: Path) -> None:
    begun(tmp_path / "i")
    look, finishing, back = flags
    with pytest.raises(UsageError, match=said):
        migrate_run(tmp_path / "i", Wanted(), look=look, end=finishing, back=back)
    with pytest.raises(ArtifactError, match="no index here"):
        migrate_run(tmp_path / "none", Wanted(), look=False, end=False, back=True)
    for finishing in (True, False):
        with pytest.raises(UsageError, match="to other: finish and undo are of the migration under way"):
            migrate_run(tmp_path / "i", Wanted("other"), look=False, end=finishing, back=not finishing)


def test_a_vector_that_is_not_finite_names_its_text() -> None:
    class Broken(Hashed):
        def encode(self, texts: Any, **options: Any) -> Any:
            raise NotFiniteError(1, texts[1])

    remembering = Remembering(Broken(), ["known"], np.ones((1, 32), np.float32))
    with pytest.raises(NotFiniteError) as found:
        remembering.encode(["first", "known", "second"])
    assert (found.value.row, found.value.text) == (2, "second")


@pytest.mark.parametrize(("dim", "said"), [(33, "the new encoder has 32"), (None, "the new encoder has 16")])
def test_dims_that_the_new_encoder_does_not_have(dim: int | None, said: str, tmp_path: Path) -> None:
    begun(tmp_path / "i", dim=24)
    with pytest.raises(UsageError, match=said):
        moved(tmp_path / "i", Turned(turn(32 if dim else 16)), replace(WANTED, dim=dim))
    assert moved(tmp_path / "i", Turned(turn(16)), replace(WANTED, dim=8)).left == 0


def test_lengths_that_are_damaged_or_of_other_rows_are_measured_again(tmp_path: Path) -> None:
    encoder = Turned(turn(), noise=0.3)
    begun(tmp_path / "i")
    moved(tmp_path / "i", encoder, WANTED)
    inside, matrix = tmp_path / "i" / "space-1", np.random.default_rng(5).standard_normal((32, 33)).astype(np.float32)
    with Index(tmp_path / "i") as index:
        [segment] = index.snapshot().segments
        [(place, digest)] = lengths.write_lengths([segment], matrix, inside).items()
        whole = np.load(place)
        assert len(whole) == COUNT
        for wrong in (whole[:-1], whole + 1):
            np.save(place, wrong)
            for sealed in ({place.name: digest}, {place.name: sha256_file(place)} if len(wrong) < COUNT else {}, {}):
                np.testing.assert_array_equal(lengths.lengths_of(segment, matrix, inside, sealed), whole)
        np.save(place, whole + 1)
        sealed = {place.name: sha256_file(place)}  # read, where nothing speaks against it
        np.testing.assert_array_equal(lengths.lengths_of(segment, matrix, inside, sealed), whole + 1)
        place.write_bytes(b"\x93NUMPY")
        np.testing.assert_array_equal(lengths.lengths_of(segment, matrix, inside, {}), whole)


def test_a_migration_keeps_checksums_of_the_lengths_it_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun(tmp_path / "i")
    encoder = Turned(turn(), noise=0.3)
    _stopped(tmp_path / "i", encoder, monkeypatch, 1)
    [place] = (tmp_path / "i" / "space-1").glob("lengths-*.npy")
    with mixed(tmp_path / "i", encoder) as found:
        before = [(hit.id, hit.score) for hit in found.search_vector(encoder.encode("w1 query"), 20)]
    with monkeypatch.context() as patch:
        patch.setattr(lengths, "_measured", lambda *_: pytest.fail("they are there"))
        mixed(tmp_path / "i", encoder).close()
    np.save(place, 7 * np.load(place))
    with mixed(tmp_path / "i", encoder) as found:
        assert [(hit.id, hit.score) for hit in found.search_vector(encoder.encode("w1 query"), 20)] == before


@pytest.mark.parametrize(("dim", "learns"), [(8, True), (32, False)])
def test_how_documents_are_cut_is_learned_anew_where_they_are(dim: int, learns: bool, tmp_path: Path) -> None:
    begun(tmp_path / "i", dim=16, learn_cut=True)
    done = moved(tmp_path / "i", Turned(TURN), replace(WANTED, dim=dim))
    layout = Description.load(tmp_path / "i" / "space-1").layout
    assert (layout.dim, layout.learn_cut) == (dim, learns)
    assert done.check is not None
    [told] = [line for line in done.check.renewed if "how documents are cut" in line]
    assert ("no longer learned" in told) is not learns


def test_how_documents_are_cut_is_not_learned_where_lengths_matter(tmp_path: Path) -> None:
    begun(tmp_path / "i", dim=16, learn_cut=True)
    encoder = Turned(TURN, similarity="euclidean")
    encoder.normalize = False
    moved(tmp_path / "i", encoder)
    assert not Description.load(tmp_path / "i" / "space-1").layout.learn_cut


def test_queries_are_not_taken_for_documents_that_are_known() -> None:
    known = Remembering(Hashed(), ["one text"], np.ones((1, 32), np.float32))
    np.testing.assert_array_equal(known.encode(["one text"], kind="document"), np.ones((1, 32)))
    np.testing.assert_array_equal(known.encode(["one text"], kind="query"), Hashed().encode(["one text"]))
