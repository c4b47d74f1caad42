"""Reading records: what is refused by file and line, what is mended and said, and that good input still reads."""

from __future__ import annotations

import csv
import gzip
import io
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emb.data.records import Record, read_records, text_of
from emb.errors import DataError


def _read(path: Path, content: str | bytes) -> list[tuple[str, Record]]:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return list(read_records(path))


def _texts(path: Path, content: str | bytes) -> list[str]:
    return [text_of(record, "text", where) for where, record in _read(path, content)]


def _error(path: Path, content: str | bytes) -> DataError:
    with pytest.raises(DataError) as caught:
        _texts(path, content)
    assert caught.value.hint
    return caught.value


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("NaN", "NaN"),
        ("12.5", "the number 12.5"),
        ("0", "the number 0"),
        ("Infinity", "the number inf"),
        ("true", "true or false"),
        ('["a"]', "a list"),
        ('{"a": 1}', "an object"),
    ],
)
def test_what_is_no_string_is_refused_by_line(tmp_path: Path, value: str, shown: str) -> None:
    error = _error(tmp_path / "t.jsonl", f'{{"text": "fine"}}\n\n{{"text": {value}}}\n')
    assert error.message == f"{tmp_path / 't.jsonl'}:3: 'text' is {shown}, not a text"


def test_null_is_an_empty_text_and_other_fields_are_free(tmp_path: Path) -> None:
    assert _texts(tmp_path / "t.jsonl", '{"text": null, "price": 1.5}\n{"text": "a", "price": null}\n') == ["", "a"]


def test_parquet_says_the_row(tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "t.parquet"
    parquet.write_table(arrow.table({"text": arrow.array([None] * 1500 + [7.5])}), path)
    with pytest.raises(DataError, match=r"t\.parquet, row 1501: 'text' is the number 7\.5"):
        [text_of(record, "text", where) for where, record in read_records(path)]
    parquet.write_table(arrow.Table.from_arrays([arrow.array(["a"]), arrow.array(["b"])], names=["text", "text"]), path)
    with pytest.raises(DataError, match="two columns are named 'text'"):
        list(read_records(path))


def test_parquet_errors_of_every_kind_are_ours(tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "t.parquet"
    not_utf8 = arrow.Array.from_buffers(
        arrow.string(), 1, [None, arrow.py_buffer(b"\0\0\0\0\2\0\0\0"), arrow.py_buffer(b"\xe9\xff")]
    )
    parquet.write_table(arrow.table({"text": not_utf8}), path)
    assert "not UTF-8" in _error(path, path.read_bytes()).message
    parquet.write_table(arrow.table({"text": ["a word"] * 5000, "n": list(range(5000))}), path, compression="none")
    whole = path.read_bytes()
    for content in (
        b"",
        whole[:-20],
        whole[: len(whole) // 2],
        b"PAR1" + bytes(40) + b"PAR1",
        whole[:4] + b"\xff" * 200 + whole[204:],
    ):
        assert str(path) in _error(path, content).message


def test_half_a_pair_is_replaced_everywhere_and_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = [
        '{"text": "whole \\ud83d\\ude00"}',
        '{"text": "half \\ud83d", "more": [{"\\uDC00": "\\udfff"}]}',
        '{"text": "\\uDC00"}',
    ]
    found = [record for _, record in _read(tmp_path / "t.jsonl", "\n".join(lines))]
    assert found == [
        {"text": "whole \U0001f600"},
        {"text": "half \ufffd", "more": [{"\ufffd": "\ufffd"}]},
        {"text": "\ufffd"},
    ]
    said = " ".join(capsys.readouterr().err.split())
    assert "t.jsonl:2: half of a surrogate pair" in said
    assert said.endswith("records with such: 2")


def test_a_whole_pair_is_not_warned_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _read(tmp_path / "t.jsonl", '{"text": "\\ud83d\\ude00"}')
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("name", ["t.txt", "t.md", "t.csv", "t.tsv", "t.jsonl"])
def test_nul_is_refused_by_line(tmp_path: Path, name: str) -> None:
    rows = {
        "t.jsonl": ('{"text": "one"}', '{"text": "t\\u0000o"}'),
        "t.md": ("one\n", "t\0o"),
        "t.txt": ("one", "t\0o"),
    }
    content = "\n".join(rows.get(name, ("text", "t\0o")))
    assert f":{3 if name == 't.md' else 2}: 'text' holds a NUL" in _error(tmp_path / name, content).message


@pytest.mark.parametrize("name", ["t.txt", "t.md", "t.csv", "t.tsv", "t.jsonl", "t.txt.gz", "t.jsonl.gz", "T.JSONL.GZ"])
@pytest.mark.parametrize(
    ("encoding", "said", "mend"),
    [
        ("utf-16", "UTF-16 (little-endian)", "-f UTF-16 "),
        ("utf-16-le", "UTF-16LE", "-f UTF-16LE "),
        ("utf-16-be", "UTF-16BE", "-f UTF-16BE "),
        ("utf-32", "UTF-32", "-f UTF-32 "),
    ],
)
def test_other_encodings_are_named_with_what_converts_them(
    tmp_path: Path, name: str, encoding: str, said: str, mend: str
) -> None:
    content = '{"text": "the water"}\n'.encode(encoding)
    error = _error(tmp_path / name, gzip.compress(content) if name.lower().endswith(".gz") else content)
    assert said in error.message
    assert "not UTF-8" in error.message
    assert mend in error.hint
    assert ("gunzip -c" in error.hint) == name.lower().endswith(".gz")


@pytest.mark.parametrize(("ending", "mend"), [(b"caf\xe9", "latin1"), (b"\x93quoted\x94", "cp1252")])
def test_the_line_that_is_not_utf8_and_its_likely_encoding(tmp_path: Path, ending: bytes, mend: str) -> None:
    error = _error(tmp_path / "t.txt", b"fine\n" * 5000 + ending)
    assert error.message.endswith("t.txt:5001")
    assert f"-f {mend} " in error.hint


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (gzip.compress(b"text", mtime=0), "gzip"),  # its name is the same in every process
        (b"PK\x03\x04rest", "zip"),
        (b"PAR1rest", "Parquet"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "git-lfs pointer"),
    ],
)
def test_files_that_are_not_what_their_name_says(tmp_path: Path, content: bytes, said: str) -> None:
    assert said in _error(tmp_path / "t.txt", content).message


@pytest.mark.parametrize("name", ["t.csv", "t.tsv"])
@pytest.mark.parametrize("row", ["a|b|c", "a"])
def test_rows_of_another_length_than_the_header(tmp_path: Path, name: str, row: str) -> None:
    sign = "," if name == "t.csv" else "\t"
    error = _error(tmp_path / name, f"kind|text\n\nx|y\n{row}\n".replace("|", sign))
    assert f"{name}:4: {row.count('|') + 1} fields where the header has 2 columns" in error.message


def test_the_line_is_the_files_own_after_quoted_line_breaks(tmp_path: Path) -> None:
    head = 'kind,text\ndocument,"one\ntwo\r\nthree"\n'
    assert ":5: 3 fields" in _error(tmp_path / "t.csv", head + "a,b,c\n").message
    assert [where.rpartition(":")[2] for where, _ in _read(tmp_path / "t.csv", head + "a,b\n")] == ["2", "5"]


def test_a_quote_that_is_never_closed_is_named_where_it_opens(tmp_path: Path) -> None:
    error = _error(tmp_path / "t.csv", 'kind,text\na,b\nc,"open\nd,e\nf,g\n')
    assert "t.csv:3: a quotation mark is opened and never closed" in error.message
    assert "t.csv:2: not CSV" in _error(tmp_path / "t.csv", 'text\n"one" two\n').message


def test_names_that_stand_twice(tmp_path: Path) -> None:
    assert "t.csv:1: two columns are named 'text'" in _error(tmp_path / "t.csv", "text,text\na,b\n").message
    assert (
        "t.jsonl:1: the key 'text' stands twice" in _error(tmp_path / "t.jsonl", '{"text": "a", "text": "b"}').message
    )
    assert (
        "the key 'x' stands twice" in _error(tmp_path / "t.jsonl", '{"text": "a", "more": [{"x": 1, "x": 1}]}').message
    )
    assert _texts(tmp_path / "t.csv", "text,,\na,,\n") == ["a"]  # a sheet's empty columns


def test_json_too_deep_to_read_is_told(tmp_path: Path) -> None:
    assert "t.jsonl:1: not JSON" in _error(tmp_path / "t.jsonl", "[" * 200_000).message


def test_a_paragraph_stands_where_it_begins(tmp_path: Path) -> None:
    assert [where.rpartition(":")[2] for where, _ in _read(tmp_path / "t.md", "a\nb\n\n\nc\n")] == ["1", "5"]


# --- good input ---

cells = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8)


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gz"])
@settings(max_examples=30, deadline=None)
@given(rows=st.lists(st.tuples(cells, cells), min_size=1, max_size=6), blank=st.booleans(), mark=st.booleans())
def test_what_others_write_reads_back(
    tmp_path_factory: pytest.TempPathFactory,
    end: str,
    packed: bool,
    rows: list[tuple[str, str]],
    blank: bool,
    mark: bool,
) -> None:
    folder = tmp_path_factory.mktemp("good")
    sheet = io.StringIO(newline="")
    # Without \r in its line ends, the writer of some Pythons leaves a \r inside a text unquoted.
    quoting: Any = csv.QUOTE_MINIMAL if end == "\r\n" else csv.QUOTE_ALL
    csv.writer(sheet, lineterminator=end, quoting=quoting).writerows([("id", "text"), *rows])
    objects = "".join(json.dumps({"id": a, "text": b}, ensure_ascii=mark) + end for a, b in rows)
    for name, content in (("t.csv", sheet.getvalue()), ("t.jsonl", objects)):
        data = (b"\xef\xbb\xbf" if mark else b"") + (content + end * blank).encode()
        path = folder / (f"{name}.gz" if packed else name)
        found: list[Any] = [
            (record["id"], record["text"]) for _, record in _read(path, gzip.compress(data) if packed else data)
        ]
        assert found == rows
