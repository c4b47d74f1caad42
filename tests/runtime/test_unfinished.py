"""A file of texts whose encoding is stopped: the same call goes on and ends with the same file; nothing else does."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest
from distilling import finish, limited, start
from encoding import BLOCK, encode, small

from emb.cli import cli
from emb.commands.console import run as run_command
from emb.errors import ArtifactError, DataError
from emb.quantize.vectors.scalar import Float16Codec
from emb.runtime.encoder import Encoder, Vectors, load
from emb.runtime.streams import encode_file
from emb.runtime.unfinished import left_behind, open_unfinished

SUFFIXES = [".npy", ".jsonl", ".parquet"]


@pytest.fixture(scope="module")
def encoder(bert_folder: Path) -> Encoder:
    return load(bert_folder, threads=1)


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    small(monkeypatch.setattr)


def _source(folder: Path, texts: Sequence[str], name: str = "in.jsonl") -> Path:
    path = folder / name
    path.write_text(
        "".join(json.dumps({"id": i, "text": text}) + "\n" for i, text in enumerate(texts)), encoding="utf-8"
    )
    return path


class _Counted(Encoder):
    """Counts the texts that are really encoded, and can fail at one of them."""

    def __init__(self, inner: Encoder, error: BaseException | None = None, after: int = 10**9) -> None:
        super().__init__(inner.tokenizer, dim=inner.dim, prompts=inner.prompts, normalize=inner.normalize)
        self.inner, self.error, self.after, self.texts = inner, error, after, 0

    def encode(self, texts: Sequence[str], **options: Any) -> Vectors:
        if self.error and self.texts >= self.after:
            raise self.error
        self.texts += len(texts)
        return self.inner.encode(texts, **options)

    def run(self, *arguments: Any) -> Vectors:
        return self.inner.run(*arguments)


def _same(first: Path, second: Path) -> bool:
    if first.suffix == ".parquet":
        return bool(pyarrow.parquet.read_table(first).equals(pyarrow.parquet.read_table(second)))
    return first.read_bytes() == second.read_bytes()


DEATHS = [
    ("emb.runtime.encoder", "Encoder.encode", 1),
    ("emb.runtime.encoder", "Encoder.encode", 4),
    ("emb.runtime.unfinished", "Unfinished.add", 3),  # bytes that no list speaks of
    ("os", "fsync", 5),
    ("os", "fsync", 6),
    ("emb.runtime.unfinished", "Unfinished.cut", 7),
    ("pathlib", "Path.replace", 1),  # all of it is there, without its name
]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_killed_process_is_gone_on_with_and_the_file_is_the_same(
    suffix: str, bert_folder: Path, encoder: Encoder, sentences: list[str], tmp_path: Path
) -> None:
    source, out, alone = _source(tmp_path, sentences), tmp_path / f"out{suffix}", tmp_path / f"alone{suffix}"
    encode_file(encoder, source, alone)
    for death in DEATHS:
        assert finish(start(encode, bert_folder, source, out, die=death)) == -signal.SIGKILL, death
        assert not out.exists()
        counted = _Counted(encoder)
        encode_file(counted, source, out, model="m")
        assert _same(out, alone), death
        assert (counted.texts == len(sentences)) == (death[2] == 1 and "encode" in death[1]), death
        assert left_behind(out) == []
        out.unlink()


def test_a_process_killed_again_and_again_ends_all_the_same(
    bert_folder: Path, encoder: Encoder, sentences: list[str], tmp_path: Path
) -> None:
    source, out = _source(tmp_path, sentences), tmp_path / "out.npy"
    for _ in range(3):
        assert (
            finish(start(encode, bert_folder, source, out, die=("emb.runtime.encoder", "Encoder.encode", 3)))
            == -signal.SIGKILL
        )
    counted = _Counted(encoder)
    encode_file(counted, source, out, model="m")
    assert counted.texts == len(sentences) - 3 * 2 * BLOCK
    encode_file(encoder, source, tmp_path / "alone.npy")
    assert _same(out, tmp_path / "alone.npy")


def _stopped(
    encoder: Encoder, source: Path, out: Path, after: int = 9, error: BaseException | None = None, **options: Any
) -> None:
    with pytest.raises(BaseException, match="stop"):
        encode_file(_Counted(encoder, error or RuntimeError("stop"), after), source, out, model="m", **options)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_torn_end_is_cut_off(suffix: str, encoder: Encoder, sentences: list[str], tmp_path: Path) -> None:
    source, out, alone = _source(tmp_path, sentences), tmp_path / f"out{suffix}", tmp_path / f"alone{suffix}"
    encode_file(encoder, source, alone)
    _stopped(encoder, source, out)
    [folder] = left_behind(out)
    for name in ("data", "blocks"):
        with (folder / name).open("ab") as handle:
            handle.write(b"half of some")
    encode_file(counted := _Counted(encoder), source, out, model="m")
    assert _same(out, alone)
    assert counted.texts == len(sentences) - 9


def test_data_that_someone_cut_is_encoded_again(encoder: Encoder, sentences: list[str], tmp_path: Path) -> None:
    source, out = _source(tmp_path, sentences), tmp_path / "out.npy"
    _stopped(encoder, source, out)
    os.truncate(left_behind(out)[0] / "data", 700)
    encode_file(encoder, source, out, model="m")
    encode_file(encoder, source, tmp_path / "alone.npy")
    assert _same(out, tmp_path / "alone.npy")


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize(("change", "kept"), [("text", 3), ("more", 9), ("fewer", 6), ("none", 9)])
def test_only_blocks_of_the_same_texts_are_used(
    suffix: str, change: str, kept: int, encoder: Encoder, sentences: list[str], tmp_path: Path
) -> None:
    source, out, alone = _source(tmp_path, sentences), tmp_path / f"out{suffix}", tmp_path / f"alone{suffix}"
    _stopped(encoder, source, out)
    texts = {
        "text": [*sentences[:4], "another", *sentences[5:]],
        "more": [*sentences, "one more"],
        "fewer": sentences[:6],
        "none": sentences,
    }[change]
    encode_file(counted := _Counted(encoder), _source(tmp_path, texts), out, model="m")
    encode_file(encoder, source, alone)
    assert _same(out, alone)
    assert counted.texts == len(texts) - kept


def test_another_field_beside_the_text_is_seen_where_it_is_written(
    encoder: Encoder, sentences: list[str], tmp_path: Path
) -> None:
    source = _source(tmp_path, sentences)
    outs = [tmp_path / f"out{suffix}" for suffix in SUFFIXES]
    for out in outs:
        _stopped(encoder, source, out)
    source.write_text(source.read_text().replace('"id": 0,', '"id": 100,'), encoding="utf-8")
    counts = []
    for out in outs:
        encode_file(counted := _Counted(encoder), source, out, model="m")
        counts.append(counted.texts)
        encode_file(encoder, source, tmp_path / f"alone{out.suffix}")
        assert _same(out, tmp_path / f"alone{out.suffix}")
    assert counts == [len(sentences) - 9, len(sentences), len(sentences) - 9]


def test_other_options_and_models_start_anew_and_leave_what_was_there(
    encoder: Encoder, sentences: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out = _source(tmp_path, sentences), tmp_path / "out.npy"
    others: list[dict[str, Any]] = [
        {},
        {"dim": 16},
        {"kind": "query"},
        {"codec": Float16Codec(encoder.dim)},
        {"column": "v"},
    ]
    for number, options in enumerate(others, 1):
        _stopped(encoder, source, out, **options)
        assert len(left_behind(out)) == number
    assert "unfinished, of another model, option or source" in capsys.readouterr().err
    encode_file(counted := _Counted(encoder), source, out, model="another")
    assert counted.texts == len(sentences)
    assert left_behind(out) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.jsonl", "out.npy"]


def test_a_mistake_late_in_the_source_costs_only_what_follows(
    encoder: Encoder, sentences: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out = _source(tmp_path, sentences), tmp_path / "out.npy"
    lines = source.read_text().splitlines(keepends=True)
    source.write_text("".join([*lines[:10], "not JSON\n", *lines[10:]]))
    with pytest.raises(DataError, match=r"in\.jsonl:11"):
        encode_file(encoder, source, out, model="m")
    source.write_text("".join(lines))
    encode_file(counted := _Counted(encoder), source, out, model="m")
    assert counted.texts == len(sentences) - 9
    assert "out.npy: going on at text 10" in capsys.readouterr().err


def test_what_was_not_begun_leaves_nothing(encoder: Encoder, sentences: list[str], tmp_path: Path) -> None:
    source, out = _source(tmp_path, sentences), tmp_path / "out.npy"
    _stopped(encoder, source, out, after=0)
    with pytest.raises(RuntimeError):  # without the model's fingerprint nothing could be known again
        encode_file(_Counted(encoder, RuntimeError("stop"), 9), source, out)
    assert [path.name for path in tmp_path.iterdir()] == ["in.jsonl"]


def test_two_processes_do_not_write_one_file(encoder: Encoder, sentences: list[str], tmp_path: Path) -> None:
    source, out = _source(tmp_path, sentences), tmp_path / "out.npy"
    _stopped(encoder, source, out)
    [folder] = left_behind(out)
    with open_unfinished(out, folder.name.split(".")[-2]) as job:
        with pytest.raises(ArtifactError, match="another process is writing it"):
            encode_file(encoder, source, out, model="m")
        encode_file(encoder, source, out, model="other options")  # these may; the first one to be whole has the name
        assert job.waiting == 9
        assert left_behind(out) == [folder], "the work of a living process was removed"
    with pytest.raises(ArtifactError, match="already exists"):
        encode_file(encoder, source, out, model="m")
    encode_file(encoder, source, out, model="m", overwrite=True)
    assert left_behind(out) == []


def test_a_name_taken_meanwhile_keeps_the_work(encoder: Encoder, sentences: list[str], tmp_path: Path) -> None:
    source, out = _source(tmp_path, sentences), tmp_path / "out.npy"
    counted = _Counted(encoder)
    counted.inner = _Writes(encoder, out)
    with pytest.raises(ArtifactError, match="already exists"):
        encode_file(counted, source, out, model="m")
    assert out.read_bytes() == b"mine"
    encode_file(again := _Counted(encoder), source, out, model="m", overwrite=True)
    assert again.texts == 0
    assert len(np.load(out)) == len(sentences)


class _Writes(_Counted):
    def __init__(self, inner: Encoder, path: Path) -> None:
        super().__init__(inner)
        self.path = path

    def encode(self, texts: Sequence[str], **options: Any) -> Vectors:
        self.path.write_bytes(b"mine")
        return super().encode(texts, **options)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_full_disk_leaves_what_was_finished(
    suffix: str, bert_folder: Path, encoder: Encoder, sentences: list[str], tmp_path: Path
) -> None:
    source, out, report = _source(tmp_path, sentences), tmp_path / f"out{suffix}", tmp_path / "report"
    encode_file(encoder, source, tmp_path / f"alone{suffix}")
    size = (tmp_path / f"alone{suffix}").stat().st_size * 3 // 4
    assert finish(start(limited, size, report, encode, bert_folder, source, out)) == 0
    told = report.read_text(encoding="utf-8")
    assert told.startswith("DiskError: "), told
    assert f"out{suffix}: the disk is full" in told
    assert "run the same command again" in told
    assert not out.exists()
    encode_file(counted := _Counted(encoder), source, out, model="m")
    assert counted.texts < len(sentences)
    assert _same(out, tmp_path / f"alone{suffix}")


def test_the_command_goes_on_after_ctrl_c(
    bert_folder: Path,
    sentences: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    source, out = _source(tmp_path, sentences), tmp_path / "out.npy"
    arguments = ["encode", str(source), str(out), "--model", str(bert_folder), "--threads", "1"]
    whole, calls = Encoder.encode, iter(range(1, 1000))

    def pressed(self: Encoder, *given: Any, **options: Any) -> Any:
        if next(calls) == 4:
            raise KeyboardInterrupt
        return whole(self, *given, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Encoder, "encode", pressed)
        assert run_command(cli, arguments) == 130
    assert "run the same command again to go on" in capsys.readouterr().err
    assert run_command(cli, arguments) == 0
    assert "going on at text 10" in capsys.readouterr().err
    assert len(np.load(out)) == len(sentences)
