"""Reading a corpus: every format, the fields, and what is said about bad input."""

from __future__ import annotations

import csv
import gzip
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emb.data.corpus import Columns, Corpus, Text, read_corpus, split
from emb.errors import DataError

WORDS = [f'text number {index}, with a "quote" and ünïcode' for index in range(20)]
Writer = Callable[[Path], None]


def _txt(path: Path) -> None:
    path.write_text("\n".join(WORDS), encoding="utf-8")


def _md(path: Path) -> None:
    path.write_text("\n\n".join(text.replace(", ", ",\n") for text in WORDS), encoding="utf-8")


def _jsonl(path: Path) -> None:
    path.write_text("".join(json.dumps({"text": text, "id": 1}) + "\n" for text in WORDS), encoding="utf-8")


def _csv(path: Path) -> None:
    with path.open("w", newline="", encoding="utf-8") as handle:
        csv.writer(handle).writerows([["id", "text"], *([str(i), text] for i, text in enumerate(WORDS))])


def _tsv(path: Path) -> None:
    path.write_text("id\ttext\n" + "".join(f"{i}\t{text}\n" for i, text in enumerate(WORDS)), encoding="utf-8")


def _parquet(path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.table({"id": list(range(20)), "text": WORDS}), path)


WRITERS: dict[str, Writer] = {
    ".txt": _txt,
    ".md": _md,
    ".jsonl": _jsonl,
    ".csv": _csv,
    ".tsv": _tsv,
    ".parquet": _parquet,
}


def _texts(corpus: Corpus) -> list[str]:
    return [item.text for item in corpus.texts]


@pytest.mark.parametrize("suffix", WRITERS)
@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gz"])
def test_every_format_gives_the_same_texts(tmp_path: Path, suffix: str, packed: bool) -> None:
    path = tmp_path / f"corpus{suffix}"
    WRITERS[suffix](path)
    if packed:
        path = _gzipped(path)
    assert _texts(read_corpus([str(path)])) == WORDS


def _gzipped(path: Path) -> Path:
    target = path.with_name(path.name + ".gz")
    target.write_bytes(gzip.compress(path.read_bytes()))
    path.unlink()
    return target


@pytest.mark.parametrize("suffix", [".txt", ".md", ".jsonl", ".csv", ".tsv"])
def test_byte_order_mark_and_windows_lines(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"corpus{suffix}"
    WRITERS[suffix](path)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\r\n", b"\n").replace(b"\n", b"\r\n"))
    assert _texts(read_corpus([str(path)])) == WORDS


def test_folder_reads_every_known_file_in_order(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "a.txt").write_text("\n".join(WORDS[:10]), encoding="utf-8")
    (tmp_path / "sub" / "b.txt").write_text("\n".join(WORDS[10:]), encoding="utf-8")
    (tmp_path / "picture.png").write_bytes(b"\x89PNG")
    assert _texts(read_corpus([str(tmp_path)])) == WORDS


def test_kind_by_prefix_and_by_field(tmp_path: Path) -> None:
    _txt(tmp_path / "questions.txt")
    records = [
        {"body": f"passage {i}", "role": "query" if i == 0 else "document" if i == 1 else None} for i in range(20)
    ]
    (tmp_path / "passages.jsonl").write_text("\n".join(map(json.dumps, records)), encoding="utf-8")
    corpus = read_corpus([f"query={tmp_path / 'questions.txt'}"])
    assert {item.kind for item in corpus.texts} == {"query"}
    corpus = read_corpus([str(tmp_path / "passages.jsonl")], Columns("body", "role"))
    assert [item.kind for item in corpus.texts[:3]] == ["query", "document", "document"]


def test_prefix_wins_over_the_field(tmp_path: Path) -> None:
    path = tmp_path / "passages.jsonl"
    path.write_text("\n".join(json.dumps({"text": text, "kind": "document"}) for text in WORDS), encoding="utf-8")
    assert {item.kind for item in read_corpus([f"query={path}"]).texts} == {"query"}


def test_duplicates_and_empty_lines_are_dropped_and_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "corpus.txt"
    path.write_text("\n\n   \n".join([*WORDS, *WORDS[:5], f"  {WORDS[0]}  "]), encoding="utf-8")
    assert _texts(read_corpus([str(path)])) == WORDS
    assert "6 duplicate texts dropped" in capsys.readouterr().err


def test_same_text_as_query_and_document_stays_twice(tmp_path: Path) -> None:
    _txt(tmp_path / "a.txt")
    corpus = read_corpus([f"query={tmp_path / 'a.txt'}", str(tmp_path / "a.txt")])
    assert len(corpus) == 2 * len(WORDS)


def test_limit_stops_reading(tmp_path: Path) -> None:
    path = tmp_path / "corpus.jsonl"
    _jsonl(path)
    with path.open("ab") as handle:
        handle.write(b"not JSON")  # never reached
    assert _texts(read_corpus([str(path)], limit=17)) == WORDS[:17]


def test_line_of_a_megabyte(tmp_path: Path) -> None:
    for suffix, line in (
        (".txt", "word " * 200_000),
        (".jsonl", json.dumps({"text": "word " * 200_000})),
        (".csv", "word " * 200_000),
    ):
        path = tmp_path / f"long{suffix}"
        WRITERS[suffix](path)
        with path.open("a", encoding="utf-8") as handle:
            handle.write(f"\n{'1,' if suffix == '.csv' else ''}{line}\n")
        assert max(map(len, _texts(read_corpus([str(path)])))) == 999_999


def test_half_a_surrogate_pair_becomes_the_replacement_character(tmp_path: Path) -> None:
    path = tmp_path / "corpus.jsonl"
    path.write_text(
        '{"text": "broken \\ud83d emoji"}\n' + "".join(json.dumps({"text": text}) + "\n" for text in WORDS),
        encoding="utf-8",
    )
    corpus = read_corpus([str(path)])
    assert corpus.texts[0].text == "broken \ufffd emoji"
    assert len(corpus.digest) == 32


def test_lone_quote_in_a_tsv_is_a_character(tmp_path: Path) -> None:
    path = tmp_path / "corpus.tsv"
    lines = ['"open', *WORDS]
    path.write_text("text\n" + "\n".join(lines), encoding="utf-8")
    assert _texts(read_corpus([str(path)])) == lines


def test_digest_depends_on_texts_kinds_and_order() -> None:
    a, b = Text("a"), Text("b")
    digests = {Corpus(texts).digest for texts in ([a, b], [b, a], [a], [Text("a", "query"), b])}
    assert len(digests) == 4
    assert Corpus([a, b]).digest == Corpus([Text("a"), Text("b")]).digest


# --- bad input ---


def _error(*sources: Any, columns: Columns | None = None) -> DataError:
    with pytest.raises(DataError) as caught:
        read_corpus([str(source) for source in sources], columns or Columns())
    assert caught.value.hint
    assert caught.value.exit_code == 2
    return caught.value


def test_missing_file(tmp_path: Path) -> None:
    error = _error(tmp_path / "nowhere.txt")
    assert str(tmp_path / "nowhere.txt") in error.message
    assert "no such file" in error.message


def test_unknown_suffix_and_folder_without_texts(tmp_path: Path) -> None:
    (tmp_path / "corpus.docx").write_bytes(b"PK")
    assert "unknown kind of file" in _error(tmp_path / "corpus.docx").message
    assert "holds no file to read" in _error(tmp_path).message


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".tsv", ".parquet"])
def test_missing_column_names_the_ones_there_are(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"corpus{suffix}"
    WRITERS[suffix](path)
    error = _error(path, columns=Columns("body"))
    assert "no field 'body'" in error.message
    assert "id" in error.hint
    assert "text" in error.hint
    assert "--field" in error.hint


def test_empty_corpus_and_a_corpus_of_one(tmp_path: Path) -> None:
    path = tmp_path / "corpus.txt"
    for content, count in (("", 0), ("\n \n", 0), ("just one", 1)):
        path.write_text(content, encoding="utf-8")
        error = _error(path)
        assert f"{count} different texts" in error.message
        assert str(path) in error.message


@pytest.mark.parametrize("suffix", [".txt", ".md", ".jsonl", ".csv"])
def test_bytes_that_are_not_utf8(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"corpus{suffix}"
    WRITERS[suffix](path)
    path.write_bytes(path.read_bytes() + "caf\xe9\n".encode("latin1"))
    error = _error(path)
    assert "not UTF-8" in error.message
    assert "0xe9" in error.message
    assert "iconv" in error.hint


def test_line_that_is_not_json_is_named(tmp_path: Path) -> None:
    path = tmp_path / "corpus.jsonl"
    path.write_text('{"text": "fine"}\n{"text": broken}\n', encoding="utf-8")
    assert f"{path}:2" in _error(path).message
    path.write_text('{"text": "fine"}\n["a list"]\n', encoding="utf-8")
    assert "expected an object, found list" in _error(path).message


def test_unknown_kind(tmp_path: Path) -> None:
    path = tmp_path / "corpus.jsonl"
    path.write_text('{"text": "fine", "kind": "passage"}\n', encoding="utf-8")
    error = _error(path)
    assert "'passage'" in error.message
    assert "--kind-field" in error.hint


@pytest.mark.parametrize("damage", ["cut", "flipped", "plain"])
def test_damaged_gzip(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "corpus.txt"
    path.write_text("\n".join(f"{index * 7919} words" for index in range(5000)), encoding="utf-8")
    path = _gzipped(path)
    content = bytearray(path.read_bytes())
    if damage == "flipped":
        content[len(content) // 2 : len(content) // 2 + 8] = b"\xff" * 8
    path.write_bytes({"cut": content[:-400], "flipped": content, "plain": b"no gzip at all"}[damage])
    assert "damaged gzip" in _error(path).message


@pytest.mark.parametrize("packed", [False, True])
def test_damaged_parquet(tmp_path: Path, packed: bool) -> None:
    path = tmp_path / "corpus.parquet"
    path.write_bytes(b"PAR1 and nothing else")
    assert "Parquet" in _error(_gzipped(path) if packed else path).message


def test_file_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "corpus.txt"
    _txt(path)

    def refuse(self: Path, *_: Any, **__: Any) -> None:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "open", refuse)
    assert "Permission denied" in _error(path).message


def test_a_number_is_no_text_and_null_is_left_out_and_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "corpus.jsonl"
    _jsonl(path)
    with path.open("a", encoding="utf-8") as handle:
        handle.write('{"text": null}\n{"text": "  "}\n')
    assert _texts(read_corpus([str(path)])) == WORDS
    assert "2 records without a text left out" in capsys.readouterr().err
    with path.open("a", encoding="utf-8") as handle:
        handle.write('{"text": NaN}\n')
    assert f"{path}:23: 'text' is NaN" in _error(path).message


def test_blank_lines_of_a_text_file_are_no_records(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "corpus.txt").write_text("\n\n".join(WORDS), encoding="utf-8")
    assert _texts(read_corpus([str(tmp_path / "corpus.txt")])) == WORDS
    assert capsys.readouterr().err == ""


def test_a_folder_without_what_is_about_the_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _jsonl(tmp_path / "README.jsonl")  # of records, so it is data
    about = [
        "README.md",
        "readme.txt",
        "README.zh.md",
        "LICENSE.txt",
        "LICENSE-MIT.txt.gz",
        "Licence.md",
        ".hidden.txt",
        ".cache/part.txt",
        "sub/NOTICE.txt",
        "picture.png",
    ]
    for name in about:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("Not a text of the corpus.", encoding="utf-8")
    assert _texts(read_corpus([str(tmp_path)])) == WORDS
    said = capsys.readouterr().err
    assert "not read as texts: .cache/part.txt, .hidden.txt" in said
    assert f"and {len(about) - 5} more" in said
    (tmp_path / "readmes.txt").write_text("A text of the corpus.", encoding="utf-8")
    assert len(read_corpus([str(tmp_path)])) == len(WORDS) + 1


def test_a_hidden_folder_that_is_named_itself_is_read(tmp_path: Path) -> None:
    (tmp_path / ".data").mkdir()
    _txt(tmp_path / ".data" / "a.txt")
    assert _texts(read_corpus([str(tmp_path / ".data")])) == WORDS


def test_readme_is_read_where_it_is_named_itself(tmp_path: Path) -> None:
    _md(tmp_path / "README.md")
    assert _texts(read_corpus([str(tmp_path / "README.md")])) == WORDS


def test_a_column_without_a_name_is_no_kind(tmp_path: Path) -> None:
    path = tmp_path / "corpus.csv"  # as pandas writes it, with the row's number before
    path.write_text(",text\n" + "".join(f"{i},text {i}\n" for i in range(20)), encoding="utf-8")
    assert {item.kind for item in read_corpus([f"query={path}"]).texts} == {"query"}


def test_a_kind_that_is_false_is_no_kind(tmp_path: Path) -> None:
    path = tmp_path / "corpus.jsonl"
    path.write_text('{"text": "a", "kind": false}\n', encoding="utf-8")
    assert f"{path}:1: kind False" in _error(path).message


# --- data sets of the hub ---


def test_hub_data_set_is_streamed(monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    asked: list[Any] = []

    def load(name: str, **options: Any) -> Any:
        asked.append((name, options))
        return iter({"passage": text} for text in WORDS)

    monkeypatch.setattr(datasets, "load_dataset", load)
    corpus = read_corpus(["query=owner/questions"], Columns("passage"), limit=18)
    assert asked == [("owner/questions", {"split": "train", "streaming": True})]
    assert _texts(corpus) == WORDS[:18]
    assert {item.kind for item in corpus.texts} == {"query"}


def test_hub_data_set_out_of_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("datasets")
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    error = _error("owner/data-set-that-is-not-here")
    assert "owner/data-set-that-is-not-here: neither a file nor a data set" in error.message
    assert "--data" in error.hint


# --- the held-out part ---

corpora = st.lists(
    st.builds(Text, st.text(max_size=6), st.sampled_from(["query", "document"])), min_size=20, max_size=200, unique=True
).map(Corpus)


@settings(max_examples=50)
@given(corpora, st.integers(2, 40))
def test_held_out_part_is_disjoint_and_complete(corpus: Corpus, holdout: int) -> None:
    train, held = split(corpus, holdout)
    assert not {item.text for item in train.texts} & {item.text for item in held.texts}
    assert sorted(map(repr, train.texts + held.texts)) == sorted(map(repr, corpus.texts))
    assert 2 <= len(held) <= 2 * max(2, min(holdout, len(corpus) // 10))


@settings(max_examples=50)
@given(corpora, st.randoms(use_true_random=False))
def test_held_out_part_does_not_depend_on_order(corpus: Corpus, random: Any) -> None:
    mixed = Corpus(random.sample(corpus.texts, len(corpus)))
    assert set(split(mixed, 10)[1].texts) == set(split(corpus, 10)[1].texts)


def test_read_twice_gives_the_same_corpus(tmp_path: Path) -> None:
    for suffix, writer in WRITERS.items():
        writer(tmp_path / f"corpus{suffix}")
    first = read_corpus([str(tmp_path)])
    shutil.copytree(tmp_path, tmp_path / "copy")
    assert read_corpus([str(tmp_path / "copy")]).digest == first.digest
