"""From vectors on disk to a codec, and from texts to codes, on the command line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from emb.cli import cli
from emb.commands import console
from emb.data.vector_files import read_vectors
from emb.errors import DataError
from emb.quantize.vectors.codecs import load_codec
from emb.runtime.encoder import load
from emb.teachers.cache import TeacherCache

VECTORS = np.random.default_rng(0).standard_normal((250, 32)).astype(np.float32)


@pytest.fixture
def training(tmp_path: Path) -> Path:
    """Training vectors of the tiny model's dim."""
    np.save(tmp_path / "train.npy", VECTORS)
    return tmp_path / "train.npy"


def test_vectors_are_read_from_wherever_they_lie(training: Path, tmp_path: Path) -> None:
    assert np.array_equal(read_vectors(training), VECTORS)
    column = pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(VECTORS.ravel()), 32)
    pyarrow.parquet.write_table(pyarrow.table({"v": column}), tmp_path / "train.parquet", row_group_size=100)
    assert np.array_equal(read_vectors(tmp_path / "train.parquet", column="v"), VECTORS)
    shards = TeacherCache(tmp_path / "cache", 32)
    for first, rows in ((0, VECTORS[:120]), (120, VECTORS[120:])):
        shards.append([(first + i).to_bytes(16, "big") for i in range(len(rows))], rows)
    from_cache = read_vectors(tmp_path / "cache")
    assert np.array_equal(np.sort(from_cache, axis=0), np.sort(VECTORS.astype(np.float16).astype(np.float32), axis=0))


def test_a_limit_takes_vectors_from_everywhere(training: Path, tmp_path: Path) -> None:
    assert np.array_equal(read_vectors(training, limit=3), VECTORS[[0, 124, 249]])
    assert len(read_vectors(training, limit=9999)) == 250


def test_what_holds_no_vectors(training: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad.npy").write_bytes(b"nothing")
    np.save(tmp_path / "codes.npy", VECTORS.astype(np.int8))
    pyarrow.parquet.write_table(pyarrow.table({"text": ["a"]}), tmp_path / "texts.parquet")
    for name in ("nowhere.npy", "empty", "bad.npy", "codes.npy", "texts.parquet"):
        with pytest.raises(DataError):
            read_vectors(tmp_path / name)


def _run(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, dict[str, object]]:
    code = console.run(cli, [*map(str, words), "--json"])
    return code, json.loads(capsys.readouterr().out)


def test_fit_then_encode(
    bert_folder: Path, training: Path, sentences: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in.jsonl").write_text(
        "".join(json.dumps({"text": text}) + "\n" for text in sentences), encoding="utf-8"
    )
    code, found = _run(
        capsys,
        "codec",
        training,
        "--kind",
        "bebr",
        "--codes",
        2,
        "--bits",
        16,
        "--steps",
        3,
        "--out",
        tmp_path / "codec",
    )
    assert (code, found["bytes_per_vector"], found["name"], found["held_out"]) == (0, 4, "bebr 2 × 16 bits", 25)
    wanted = load_codec(tmp_path / "codec").encode(load(bert_folder).encode(sentences))
    for out in ("codes.npy", "codes.jsonl", "codes.parquet"):
        code, found = _run(
            capsys,
            "encode",
            tmp_path / "in.jsonl",
            tmp_path / out,
            "--model",
            bert_folder,
            "--codec",
            tmp_path / "codec",
        )
        assert (code, found["bytes_per_vector"]) == (0, 4)
    assert np.array_equal(np.load(tmp_path / "codes.npy"), wanted)
    assert [
        json.loads(line)["vector"] for line in (tmp_path / "codes.jsonl").read_text().splitlines()
    ] == wanted.tolist()
    column = pyarrow.parquet.read_table(tmp_path / "codes.parquet").column("vector")
    assert column.type == pyarrow.list_(pyarrow.uint8(), 4)
    assert column.to_pylist() == wanted.tolist()


def test_a_codec_of_another_dim(
    bert_folder: Path, training: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in.txt").write_text("a text\n", encoding="utf-8")
    code, found = _run(
        capsys,
        "codec",
        training,
        "--kind",
        "binary",
        "--dim",
        16,
        "--rotation",
        "random",
        "--centre",
        "--seed",
        1,
        "--out",
        tmp_path / "codec",
    )
    assert (code, found["dim"], found["name"]) == (0, 16, "16 sign bits centred random")
    code, found = _run(
        capsys,
        "encode",
        tmp_path / "in.txt",
        tmp_path / "out.npy",
        "--model",
        bert_folder,
        "--codec",
        tmp_path / "codec",
    )
    assert code == 2
    assert "fitted to 16 dims" in str(found["error"])
    assert not (tmp_path / "out.npy").exists()
    code, _ = _run(
        capsys,
        "encode",
        tmp_path / "in.txt",
        tmp_path / "out.npy",
        "--model",
        bert_folder,
        "--codec",
        tmp_path / "codec",
        "--dim",
        16,
    )
    assert code == 0
    assert np.load(tmp_path / "out.npy").shape == (1, 2)


def test_compatible_with_a_stored_codec(training: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        _run(capsys, "codec", training, "--kind", "bebr", "--codes", 1, "--steps", 2, "--out", tmp_path / "old")[0] == 0
    )
    assert (
        _run(
            capsys,
            "codec",
            training,
            "--kind",
            "bebr",
            "--steps",
            2,
            "--compatible",
            tmp_path / "old",
            "--out",
            tmp_path / "new",
        )[0]
        == 0
    )
    old, new = load_codec(tmp_path / "old"), load_codec(tmp_path / "new")
    assert np.array_equal(old.decode(old.encode(VECTORS)[:1]), new.decode(old.encode(VECTORS)[:1]))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--kind", "int8", "--bits", "8"], "no such option"),
        (["--kind", "zip"], "zip"),
        (["--kind", "int8", "--compatible", "nowhere"], "no codec here"),
    ],
)
def test_bad_usage(
    training: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    code, found = _run(capsys, "codec", training, *words, "--out", tmp_path / "codec")
    assert code == 2
    assert message in str(found["error"])
    assert not (tmp_path / "codec").exists()


def test_finished_work_is_not_written_over(training: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _run(capsys, "codec", training, "--kind", "int8", "--out", tmp_path / "codec")[0] == 0
    code, _ = _run(capsys, "codec", training, "--kind", "int4", "--out", tmp_path / "codec")
    assert (code, load_codec(tmp_path / "codec").kind) == (2, "int8")
    assert _run(capsys, "codec", training, "--kind", "int4", "--out", tmp_path / "codec", "--overwrite")[0] == 0
    assert load_codec(tmp_path / "codec").kind == "int4"
