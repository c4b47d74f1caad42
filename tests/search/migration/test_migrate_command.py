"""`emb migrate` from end to end, with models that are opened from their folders."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from retrieval_set import write_set
from tiny import SENTENCES

import emb
from emb.cli import cli
from emb.commands import console
from emb.commands.migrate import _found
from emb.search.index import asked
from emb.search.index.mixed import MixedIndex
from emb.search.migration.check import AS_IS, RE_ENCODE, THROUGH_A_MAP, Check
from emb.search.migration.trial import Way


@pytest.fixture(scope="module")
def place(bert_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index of the tiny model, and a model of another space."""
    folder = tmp_path_factory.mktemp("migrate")
    write_set(folder / "set", [f"{each} {number}" for number in range(5) for each in SENTENCES])
    emb.index(folder / "set", folder / "index", bert_folder)
    return folder


def _said(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    code = console.run(cli, [str(word) for word in words])
    out, err = capsys.readouterr()
    return code, out, err


def test_it_looks_moves_and_finishes(
    place: Path, bert_folder: Path, student_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    index = place / "index"
    code, out, err = _said(capsys, "migrate", index, "--to", student_folder, "--dry-run", "--json", "--sample", 60)
    assert code == 0, err
    found = json.loads(out)
    assert (found["state"], found["check"]["sample"], found["left"]) == ("checked", 60, 0)
    assert not list(index.glob("space-*"))
    code, out, err = _said(capsys, "migrate", index, "--to", student_folder)
    assert code == 0, err
    assert f"--finish\nor back: emb migrate {index} --undo" in out
    assert "documents are encoded anew" in out
    assert "relevance:" in out
    assert "own document" in out
    query = SENTENCES[2]
    with emb.open_index(index, bert_folder) as old, emb.open_index(index, student_folder) as new:
        assert not isinstance(old, MixedIndex)
        assert isinstance(new, MixedIndex)
        expected = new.search(query, 3)
        assert old.search(query, 3)
    code, out, err = _said(capsys, "migrate", index, "--finish")
    assert code == 0, err
    assert emb.open_index(index, student_folder).search(query, 3) == expected
    code, _, err = _said(capsys, "search", query, "--index", index, "--query", bert_folder)
    assert code == 2
    assert "the query encoder has 32 dims, the documents' encoder 48" in " ".join(err.split())
    code, _, err = _said(capsys, "migrate", index, "--undo")
    assert (code, "a finished one cannot be undone" in " ".join(err.split())) == (2, True)


def test_a_map_is_learned_where_the_encoder_so_far_is_named(
    place: Path,
    bert_folder: Path,
    student_folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(asked, "_LEAST", 30)
    emb.index(place / "set", tmp_path / "index", bert_folder)
    look = ("migrate", tmp_path / "index", "--to", student_folder, "--check", "--json", "--sample", 60)
    code, out, err = _said(capsys, *look, "--old", bert_folder)
    assert code == 0, err
    assert "learned" in {way["name"] for way in json.loads(out)["check"]["ways"]}
    code, out, err = _said(capsys, *look, "--old", student_folder)
    assert code == 2
    assert "the query encoder has 48 dims, the documents' encoder 32" in " ".join(err.split())
    code, out, err = _said(capsys, *look)
    assert "learned" not in {way["name"] for way in json.loads(out)["check"]["ways"]}


@pytest.mark.parametrize(
    ("ways", "verdict", "told"),
    [
        (["ridge"], RE_ENCODE, True),
        (["ridge", "learned"], RE_ENCODE, False),
        (["ridge"], THROUGH_A_MAP, True),
        (["ridge"], AS_IS, False),
        ([], RE_ENCODE, False),
    ],
)
def test_a_better_map_is_told_of_where_one_is_searched_through(ways: list[str], verdict: str, told: bool) -> None:
    """Without any way no map carries the similarity."""
    tried = [Way(name, 0.5, 50.0, 0.8, 0.7) for name in ways]
    check = Check("before", "after", 9, 5, 3, True, tried, verdict, None, None)
    assert ("--old (before, or a bundle of it)" in "\n".join(_found(check))) is told
