"""A file of texts to a file of vectors: the same vectors as in memory, records untouched, nothing half-written."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from emb.errors import ArtifactError, DataError, UsageError
from emb.runtime import streams, writers
from emb.runtime.encoder import Encoder, load
from emb.runtime.streams import encode_file


@pytest.fixture(scope="module")
def encoder(bert_folder: Path) -> Encoder:
    return load(bert_folder, threads=1)


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "BLOCK", 7)
    monkeypatch.setattr(writers, "ROW_GROUP", 10)


def _jsonl(path: Path, texts: Sequence[str]) -> Path:
    path.write_text(
        "".join(json.dumps({"id": i, "text": text}) + "\n" for i, text in enumerate(texts)), encoding="utf-8"
    )
    return path


def _vectors(path: Path) -> np.ndarray[Any, Any]:
    if path.suffix == ".npy":
        return np.asarray(np.load(path))
    records = (
        pyarrow.parquet.read_table(path).to_pylist()
        if path.suffix == ".parquet"
        else [json.loads(line) for line in path.read_text().splitlines()]
    )
    assert [record["id"] for record in records] == list(range(len(records)))
    return np.asarray([record["vector"] for record in records], np.float32)


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl", ".npy"])
def test_vectors_are_those_of_memory(encoder: Encoder, sentences: list[str], tmp_path: Path, suffix: str) -> None:
    out = tmp_path / f"out{suffix}"
    assert encode_file(encoder, _jsonl(tmp_path / "in.jsonl", sentences), out, kind="query", dim=16) == len(sentences)
    assert np.allclose(_vectors(out), encoder.encode(sentences, kind="query", truncate_dim=16), atol=1e-6)
    assert [path.name for path in tmp_path.iterdir() if "partial" in path.name] == []


def test_parquet_keeps_its_types(encoder: Encoder, sentences: list[str], tmp_path: Path) -> None:
    source = tmp_path / "in.parquet"
    ids = pyarrow.array([None, *range(1, len(sentences))], pyarrow.int16())  # all null in a block would be no int16
    pyarrow.parquet.write_table(pyarrow.table({"id": ids, "body": sentences}), source)
    encode_file(encoder, source, tmp_path / "out.parquet", field="body", column="v")
    table = pyarrow.parquet.read_table(tmp_path / "out.parquet")
    assert table.schema.field("id").type == pyarrow.int16()
    assert table.schema.field("v").type == pyarrow.list_(pyarrow.float32(), encoder.dim)
    assert table.column("body").to_pylist() == sentences


def test_nested_columns_and_row_groups(encoder: Encoder, sentences: list[str], tmp_path: Path) -> None:
    source, out = tmp_path / "in.parquet", tmp_path / "out.parquet"
    places = [{"file": "a.txt", "lines": [1, index]} for index in range(len(sentences))]
    pyarrow.parquet.write_table(pyarrow.table({"text": sentences, "place": places}), source)
    encode_file(encoder, source, out)
    found = pyarrow.parquet.ParquetFile(out)
    assert found.read().column("place").to_pylist() == places
    assert [found.metadata.row_group(index).num_rows for index in range(found.num_row_groups)] == [14, 6]
    encodings = {
        column.path_in_schema: column.encodings
        for column in map(found.metadata.row_group(0).column, range(found.metadata.num_columns))
    }
    assert [path for path, used in encodings.items() if "RLE_DICTIONARY" not in used] == ["vector.list.element"]


def test_a_field_of_two_types_is_told(encoder: Encoder, sentences: list[str], tmp_path: Path) -> None:
    source = _jsonl(tmp_path / "in.jsonl", sentences)
    source.write_text(source.read_text().replace('"id": 19', '"id": "nineteen"'))
    with pytest.raises(DataError, match=r"in\.jsonl: a field that one column of Parquet cannot hold"):
        encode_file(encoder, source, tmp_path / "out.parquet")


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl", ".npy"])
def test_half_a_surrogate_pair_is_written_as_the_replacement_character(
    encoder: Encoder, tmp_path: Path, suffix: str
) -> None:
    source, out = tmp_path / "in.jsonl", tmp_path / f"out{suffix}"
    source.write_text(
        '{"id": 0, "text": "hot \\ud83d water", "more": "\\ud83d"}\n{"id": 1, "text": null, "more": ""}\n',
        encoding="utf-8",
    )
    assert encode_file(encoder, source, out) == 2
    assert np.allclose(_vectors(out), encoder.encode(["hot \ufffd water", ""], kind="document"), atol=1e-6)


@pytest.mark.parametrize("value", ["NaN", "12.5", "true", "[]", '"a\\u0000b"'])
def test_what_is_no_text_is_refused_by_line(encoder: Encoder, tmp_path: Path, value: str) -> None:
    source = tmp_path / "in.jsonl"
    source.write_text(f'{{"text": "the water"}}\n{{"text": {value}}}\n', encoding="utf-8")
    with pytest.raises(DataError, match=r"in\.jsonl:2: 'text'"):
        encode_file(encoder, source, tmp_path / "out.npy")
    assert not (tmp_path / "out.npy").exists()


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl", ".npy"])
def test_a_damaged_parquet_file_is_told(encoder: Encoder, tmp_path: Path, suffix: str) -> None:
    (tmp_path / "in.parquet").write_bytes(b"PAR1 and nothing else")
    with pytest.raises(DataError, match="not a readable Parquet file"):
        encode_file(encoder, tmp_path / "in.parquet", tmp_path / f"out{suffix}")


@pytest.mark.parametrize(
    ("early", "late"),
    [
        ({}, {"more": "x"}),
        ({"n": 1}, {"n": 1.5}),
        ({"n": {"a": 1}}, {"n": {"a": 1, "b": 2}}),
        ({"n": [{"a": 1}]}, {"n": [{"b": 2}]}),
    ],
)
def test_what_later_records_hold_beyond_the_columns_is_told_and_not_lost(
    encoder: Encoder, tmp_path: Path, early: dict[str, Any], late: dict[str, Any]
) -> None:
    source = tmp_path / "in.jsonl"
    rows = [{"text": "a", **early}] * 20 + [{"text": "b", **late}]
    source.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    with pytest.raises(DataError, match=r"in\.jsonl: the field '(more|n)' does not fit") as caught:
        encode_file(encoder, source, tmp_path / "out.parquet")
    assert "jsonl" in caught.value.hint


def test_fields_that_only_some_of_the_first_records_have_are_kept(encoder: Encoder, tmp_path: Path) -> None:
    source, out = tmp_path / "in.jsonl", tmp_path / "out.parquet"
    rows = [{"text": "a"}, {"text": "b", "more": {"x": 1}}, {"text": "c", "more": {"y": 2}}, {"text": "d", "n": 2}]
    rows += [{"text": "e", "n": float("nan")}]
    source.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    encode_file(encoder, source, out)
    found = pyarrow.parquet.read_table(out)
    assert found.column("more").to_pylist() == [None, {"x": 1, "y": None}, {"x": None, "y": 2}, None, None]
    assert found.column("n").to_pylist()[:4] == [None, None, None, 2]


def test_what_parquet_has_no_type_for_is_told(encoder: Encoder, tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text('{"text": "a", "n": {}}\n', encoding="utf-8")
    with pytest.raises(DataError, match=r"in\.jsonl: a field"):
        encode_file(encoder, tmp_path / "in.jsonl", tmp_path / "out.parquet")


def test_vectors_alone_need_no_other_column(encoder: Encoder, tmp_path: Path) -> None:
    far = pyarrow.array([2**62], pyarrow.timestamp("us"))  # beyond Python's years
    pyarrow.parquet.write_table(pyarrow.table({"text": ["a"], "when": far}), tmp_path / "in.parquet")
    assert encode_file(encoder, tmp_path / "in.parquet", tmp_path / "out.npy") == 1
    with pytest.raises(DataError, match="holds a value that Python has none for") as caught:
        encode_file(encoder, tmp_path / "in.parquet", tmp_path / "out.jsonl")
    assert "column" in caught.value.hint


def test_a_folder_in_the_place_of_the_file_is_told_before_anything_is_encoded(encoder: Encoder, tmp_path: Path) -> None:
    (tmp_path / "out.npy").mkdir()
    with pytest.raises(ArtifactError, match=r"out\.npy: is a folder"):
        encode_file(encoder, _jsonl(tmp_path / "in.jsonl", ["a"]), tmp_path / "out.npy", overwrite=True)


def test_a_number_too_large_for_parquet_is_told(encoder: Encoder, tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text(f'{{"text": "a", "n": {10**30}}}\n', encoding="utf-8")
    with pytest.raises(DataError, match=r"in\.jsonl: a field"):
        encode_file(encoder, tmp_path / "in.jsonl", tmp_path / "out.parquet")


def test_a_vector_column_that_a_later_record_has_is_not_written_over(encoder: Encoder, tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text('{"text": "a"}\n{"text": "b", "vector": [1]}\n', encoding="utf-8")
    with pytest.raises(UsageError, match="'vector' already"):
        encode_file(encoder, tmp_path / "in.jsonl", tmp_path / "out.jsonl")


def test_packed_text_lines(encoder: Encoder, sentences: list[str], tmp_path: Path) -> None:
    with gzip.open(tmp_path / "in.txt.gz", "wt", encoding="utf-8") as handle:
        handle.write("\n".join(sentences))
    assert encode_file(encoder, tmp_path / "in.txt.gz", tmp_path / "out.npy") == len(sentences)


def test_bad_input_leaves_nothing_behind(encoder: Encoder, sentences: list[str], tmp_path: Path) -> None:
    source, out = _jsonl(tmp_path / "in.jsonl", sentences), tmp_path / "out.jsonl"
    for error, options in (
        (DataError, {"field": "body"}),
        (UsageError, {"column": "id"}),
        (UsageError, {"dim": 10_000}),
    ):
        with pytest.raises(error):
            encode_file(encoder, source, out, **options)  # type: ignore[arg-type]
    with source.open("a") as handle:
        handle.write("not JSON")
    with pytest.raises(DataError, match=r"in\.jsonl:\d+"):
        encode_file(encoder, source, out)
    (tmp_path / "empty.jsonl").write_text("")
    with pytest.raises(DataError, match="no text"):
        encode_file(encoder, tmp_path / "empty.jsonl", out)
    with pytest.raises(UsageError, match="unknown kind"):
        encode_file(encoder, source, tmp_path / "out.csv")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty.jsonl", "in.jsonl"]


def test_existing_output_is_kept_unless_told(encoder: Encoder, sentences: list[str], tmp_path: Path) -> None:
    source, out = _jsonl(tmp_path / "in.jsonl", sentences), tmp_path / "out.npy"
    out.write_bytes(b"precious")
    with pytest.raises(ArtifactError, match="exists"):
        encode_file(encoder, source, out)
    assert out.read_bytes() == b"precious"
    encode_file(encoder, source, out, overwrite=True)
    assert len(np.load(out)) == len(sentences)


def test_streams_and_event_loops_get_the_same_vectors(encoder: Encoder, sentences: list[str]) -> None:
    whole = encoder.encode(sentences)
    parts = list(encoder.encode_stream(iter(sentences), block=6))
    assert [len(part) for part in parts[:-1]] == [6] * (len(parts) - 1)
    assert np.allclose(np.concatenate(parts), whole, atol=1e-6)

    async def both() -> list[Any]:
        return await asyncio.gather(encoder.encode_async(sentences), encoder.encode_async(sentences[:3]))

    first, second = asyncio.run(both())
    assert np.allclose(first, whole, atol=1e-6)
    assert np.allclose(second, whole[:3], atol=1e-6)
