"""Parallel text: every format, what is a header, which texts are kept, and on which side of the split they land."""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from bitext import backwards, pairs, tsv

from emb.data.corpus import Columns, Corpus, Text, read_corpus, split
from emb.data.documents import Document
from emb.data.pseudo_queries import pseudo_queries
from emb.data.query_corpus import as_queries, fitted_corpus
from emb.errors import DataError, EmbError

PAIRS = pairs(20)
RECORDS = [{"id": 1, "text": text, "translation": translation} for text, translation in PAIRS]
BOTH = [each for text, other in PAIRS for each in (Text(text), Text(other, source_text=text))]


def _tsv(path: Path) -> None:
    tsv(path, PAIRS)


def _jsonl(path: Path) -> None:
    path.write_text("".join(json.dumps(record) + "\n" for record in RECORDS), encoding="utf-8")


def _csv(path: Path) -> None:
    with path.open("w", newline="", encoding="utf-8") as handle:
        writer = csv.DictWriter(handle, ["id", "text", "translation"])
        writer.writeheader()
        writer.writerows(RECORDS)


def _parquet(path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(RECORDS), path)


WRITERS: dict[str, Callable[[Path], None]] = {".tsv": _tsv, ".jsonl": _jsonl, ".csv": _csv, ".parquet": _parquet}


def _read(*files: Path | str, data: Path | None = None, limit: int | None = None) -> list[Text]:
    sources = [str(data)] if data else []
    return read_corpus(sources, limit=limit, parallel=[str(file) for file in files]).texts


@pytest.mark.parametrize("suffix", WRITERS)
@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gz"])
def test_every_format_gives_each_text_and_behind_it_its_translation(tmp_path: Path, suffix: str, packed: bool) -> None:
    path = tmp_path / f"pairs{suffix}"
    WRITERS[suffix](path)
    if packed:
        path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
        path = path.with_name(f"{path.name}.gz")
    assert _read(path) == BOTH
    assert [item.teacher_text for item in _read(path)] == [text for text, _ in PAIRS for _ in range(2)]


@pytest.mark.parametrize("header", [("text", "translation"), ("en", "de"), ("en", "zh-Hans"), ("pt-br", "ru")])
def test_a_header_is_no_pair_and_is_told(
    tmp_path: Path, header: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert _read(tsv(tmp_path / "pairs.tsv", [header, *PAIRS])) == BOTH
    assert "taken for a header" in capsys.readouterr().err


@pytest.mark.parametrize("first", [("yes", "ja"), ("no", "no"), ("Text", "Translation"), ("text", "Übersetzung")])
def test_whatever_else_comes_first_is_a_pair(
    tmp_path: Path, first: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert _read(tsv(tmp_path / "pairs.tsv", [first, *PAIRS]))[0] == Text(first[0])
    assert "header" not in capsys.readouterr().err


def test_names_of_languages_further_down_are_a_pair(tmp_path: Path) -> None:
    assert Text("de", source_text="en") in _read(tsv(tmp_path / "pairs.tsv", [*PAIRS, ("en", "de")]))


def test_kind_by_prefix_and_by_field_is_that_of_both(tmp_path: Path) -> None:
    _tsv(tmp_path / "pairs.tsv")
    assert {item.kind for item in _read(tmp_path / "pairs.tsv")} == {"document"}
    assert {item.kind for item in _read(f"query={tmp_path / 'pairs.tsv'}")} == {"query"}
    lines = [json.dumps({**record, "role": "query" if place else None}) for place, record in enumerate(RECORDS)]
    (tmp_path / "pairs.jsonl").write_text("\n".join(lines), encoding="utf-8")
    found = read_corpus([], Columns("body", "role"), parallel=[str(tmp_path / "pairs.jsonl")]).texts
    assert [item.kind for item in found[:4]] == ["document", "document", "query", "query"]


def test_pairs_with_a_blank_side_are_dropped_and_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [("alone", " "), ("", "allein"), *PAIRS, ("\u00a0", "")]
    assert _read(tsv(tmp_path / "pairs.tsv", rows)) == BOTH
    lines = [json.dumps(each) for each in ({"text": "alone", "translation": None}, *RECORDS)]
    (tmp_path / "pairs.jsonl").write_text("\n".join(lines), encoding="utf-8")
    assert _read(tmp_path / "pairs.jsonl") == BOTH
    told = capsys.readouterr().err
    assert "3 records without a text or its translation left out" in told
    assert "1 records without" in told


def test_space_around_either_text_is_dropped(tmp_path: Path) -> None:
    rows = [(f"  {text}", f"{translation}  ") for text, translation in PAIRS]
    assert _read(tsv(tmp_path / "pairs.tsv", rows)) == BOTH


def test_of_a_translation_of_two_texts_the_first_counts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [*PAIRS, ("a cat", "eine Katze"), ("one cat", "eine Katze")]
    found = _read(tsv(tmp_path / "pairs.tsv", rows))
    assert found == [*BOTH, Text("a cat"), Text("eine Katze", source_text="a cat"), Text("one cat")]
    assert "1 duplicate texts dropped" in capsys.readouterr().err


def test_a_text_is_read_in_one_way_whatever_its_kind(tmp_path: Path) -> None:
    (tmp_path / "data.jsonl").write_text(
        json.dumps({"text": PAIRS[0][1], "kind": "query"}) + "\n" + json.dumps({"text": PAIRS[0][0], "kind": "query"}),
        encoding="utf-8",
    )
    found = _read(tsv(tmp_path / "pairs.tsv", PAIRS), data=tmp_path / "data.jsonl")
    assert found == [*BOTH, Text(PAIRS[0][0], "query")], "a translation is in the other texts as an original"


def test_pairs_stand_before_other_texts_and_the_limit_holds_for_both(tmp_path: Path) -> None:
    _tsv(tmp_path / "pairs.tsv")
    (tmp_path / "data.txt").write_text("\n".join(f"text {n}" for n in range(20)), encoding="utf-8")
    assert _read(tmp_path / "pairs.tsv", data=tmp_path / "data.txt") == [*BOTH, *(Text(f"text {n}") for n in range(20))]
    assert _read(tmp_path / "pairs.tsv", data=tmp_path / "data.txt", limit=17) == BOTH[:17]


# --- digest and split ---


def test_the_digest_of_texts_alone_is_the_one_it_was() -> None:
    assert Corpus([Text("a"), Text("b", "query")]).digest == "f901357a9168ce0cc0b3fdc1833399a0"


def test_the_digest_knows_what_a_translation_translates() -> None:
    texts = [
        [Text("b")],
        [Text("b", source_text="a")],
        [Text("b", source_text="c")],
        [Text("b", "query", "a")],
        [Text("b"), Text("a")],
        [Text("x"), Text("document", "query"), Text("z")],
        [Text("x", source_text="query"), Text("document", source_text="z")],
    ]
    assert len({Corpus(each).digest for each in texts}) == len(texts)


@pytest.mark.parametrize("holdout", [7, 40])
def test_a_translation_is_held_out_with_its_source(holdout: int) -> None:
    found = pairs(300)
    texts = [each for text, other in found for each in (Text(text), Text(other, source_text=text))]
    texts += [Text(f"{other} again", source_text=text) for text, other in found[::3]]
    train, held_out = split(Corpus(texts), holdout)
    assert not {item.teacher_text for item in train.texts} & {item.teacher_text for item in held_out.texts}
    assert holdout <= len(held_out) <= holdout + 3
    assert {item.source_text is None for item in held_out.texts} == {True, False}


def test_the_split_of_other_texts_is_the_one_it_was() -> None:
    _, held_out = split(Corpus([Text(f"text {n}") for n in range(100)]), 3)
    assert [item.text for item in held_out.texts] == ["text 44", "text 48", "text 59"]


# --- as queries ---


def test_pairs_are_whole_queries_among_passages_that_are_cut() -> None:
    passage = "The harbour lies in the north of the city. Ships of the line call there every Tuesday morning."
    long = "A pair is never cut. Not even where it has two sentences that could stand alone."
    given = [Text(long), Text(backwards(long), source_text=long), Text(passage), *BOTH]
    found = as_queries(Corpus(given), seed=0).texts
    whole = [Text(item.text, "query", item.source_text) for item in given if item.text != passage]
    assert found[: len(whole)] == whole
    assert len(found) > len(whole), "the passage was not cut"
    assert all(item.text in passage for item in found[len(whole) :])


def test_beside_documents_pairs_stay_together() -> None:
    cut = pseudo_queries([Document("", f"The harbour has berth number {n} and a crane.") for n in range(20)])
    general = Corpus([each for text, other in pairs(100) for each in (Text(text), Text(other, source_text=text))])
    found = fitted_corpus(cut, general, mix=0.25, seed=0).texts[len(cut) :]
    sources = [item.source_text for item in found if item.source_text]
    assert len(found) > 8
    assert abs(len(sources) - len(found) / 2) <= 0.5
    assert len(set(sources) & {item.text for item in found}) >= len(sources) - 1


# --- bad input ---


def _error(path: Path | str) -> EmbError:
    with pytest.raises(DataError) as caught:
        _read(path)
    assert caught.value.hint
    return caught.value


@pytest.mark.parametrize(("line", "found"), [("alone", "one column"), ("a\tb\tc", "3 columns")])
def test_a_line_of_other_columns_is_named(tmp_path: Path, line: str, found: str) -> None:
    path = tsv(tmp_path / "pairs.tsv", [*PAIRS[:4], (line,), *PAIRS[4:]])
    assert _error(path).message.startswith(f"{path}:5: {found}")


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
@pytest.mark.parametrize("field", ["text", "translation"])
def test_a_record_without_a_field_is_named(tmp_path: Path, suffix: str, field: str) -> None:
    path = tmp_path / f"pairs{suffix}"
    WRITERS[suffix](path)
    if suffix == ".parquet":
        import pyarrow.parquet

        pyarrow.parquet.write_table(pyarrow.parquet.read_table(path).rename_columns(_renamed(field)), path)
    else:
        path.write_text(path.read_text(encoding="utf-8").replace(field, "german"), encoding="utf-8")
    error = _error(path)
    place = {".jsonl": ":1", ".csv": ":2", ".parquet": ", row 1"}[suffix]
    assert error.message == f"{path}{place}: no field {field!r}"
    assert "german" in error.hint
    assert "--field" not in error.hint


def _renamed(field: str) -> list[str]:
    return ["german" if name == field else name for name in ("id", "text", "translation")]


def test_what_is_no_text_is_named(tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_text(json.dumps({"text": "a", "translation": 7}), encoding="utf-8")
    assert _error(path).message == f"{path}:1: 'translation' is the number 7, not a text"


def test_files_that_hold_no_pairs(tmp_path: Path) -> None:
    (tmp_path / "pairs.txt").write_text("a\tb\n", encoding="utf-8")
    assert "holds no pairs" in _error(tmp_path / "pairs.txt").message
    assert "a folder" in _error(tmp_path).message
    missing = _error(f"query={tmp_path / 'gone.tsv'}")
    assert missing.message == f"{tmp_path / 'gone.tsv'}: no such file"
    assert "--parallel" in missing.hint
    assert "pairs.tsv: 2 different texts" in _error(tsv(tmp_path / "pairs.tsv", PAIRS[:1])).message
