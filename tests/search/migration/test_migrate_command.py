"""`emb migrate` from end to end, with models that are opened from their folders."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from retrieval_set import write_set
from tiny import SENTENCES

import emb
from emb.cli import cli
from emb.commands import console
from emb.commands.migrate import _found, _next
from emb.search.index import asked
from emb.search.index.mixed import MixedIndex
from emb.search.migration import Migrated
from emb.search.migration.check import RE_ENCODE, Check
from emb.search.migration.trial import Way

WAY = Way("ridge", 0.5, 50.0, 0.8, 0.7)


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
    said = " ".join(err.split())
    assert "--old: the query encoder has 48 dims, the documents' encoder 32" in said
    assert f"name {bert_folder.name}, or a bundle or a student of it" in said
    code, out, err = _said(capsys, *look, "--old", tmp_path / "nowhere")
    assert (code, f"--old {tmp_path / 'nowhere'}: " in " ".join(err.split())) == (2, True)
    code, out, err = _said(capsys, "migrate", tmp_path / "index", "--undo", "--old", bert_folder)
    assert (code, "a map is made where a migration begins" in " ".join(err.split())) == (2, True)
    code, out, err = _said(capsys, *look)
    assert "learned" not in {way["name"] for way in json.loads(out)["check"]["ways"]}


NAMED: dict[str, Any] = {"to": "new", "old": None, "query": None, "data": None, "sample": 2000, "seed": 0, "dim": None}


@pytest.mark.parametrize(
    ("state", "untried", "forecast", "told"),
    [
        ("checked", True, 0.8, True),
        ("checked", True, None, True),
        ("checked", True, 0.98, False),
        ("checked", False, 0.8, False),
        ("moved", True, 0.8, False),
        ("finished", True, 0.8, False),
    ],
)
def test_a_better_map_is_told_of_where_it_may_help(
    state: str, untried: bool, forecast: float | None, told: bool
) -> None:
    """Before a migration begins: afterwards its map stays."""
    check = Check("before", "after", 9, 5, 3, True, [WAY], RE_ENCODE, None, forecast, untried=untried)
    said = "\n".join([*_found(check), _next(Migrated(Path("i"), state, check, 9, 9, 0), NAMED)])
    assert ("name the encoder so far (before, or a bundle) with --old" in said) is told


def test_known_items_are_shown_where_nobody_judged_and_they_were_counted() -> None:
    """A migration that an older version began says nothing of them."""
    for judged, known in ((False, 1.0), (True, 1.0), (False, 0.0)):
        check = Check("before", "after", 9, 5, 3, judged, [replace(WAY, known=known)], RE_ENCODE, None, 0.8)
        assert ("own document" in "\n".join(_found(check))) is (not judged and known > 0)


def test_the_next_command_is_that_of_the_look() -> None:
    done = Migrated(Path("i"), "checked", None, 9, 9, 0)
    assert _next(done, NAMED).endswith("next: emb migrate i --to new")
    named = NAMED | {"old": "before", "query": "small", "data": "set", "sample": 30, "seed": 2, "dim": 8}
    everything = "--old before --to new --query small --data set --sample 30 --seed 2 --dim 8"
    assert _next(done, named).endswith(f"next: emb migrate i {everything}")
