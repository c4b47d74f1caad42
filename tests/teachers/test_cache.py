"""The teacher cache on disk: whole shards or none, damage set aside, one writer at a time."""

from __future__ import annotations

import errno
import multiprocessing
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emb.errors import CacheError, DiskError
from emb.teachers.cache import TeacherCache, row_key

DIM = 4


def _keys(*names: str) -> list[bytes]:
    return [row_key("", name) for name in names]


def _vectors(*names: str) -> np.ndarray[Any, Any]:
    return np.asarray([[ord(name), 0.5, -1, 2] for name in names])


def _filled(folder: Path, *shards: str) -> TeacherCache:
    cache = TeacherCache(folder, DIM)
    for names in shards:
        cache.append(_keys(*names), _vectors(*names))
    return cache


def _damage(path: Path, kind: str) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes({"flipped": bytes(content), "cut": path.read_bytes()[:-3], "empty": b""}[kind])


@given(st.text(), st.text(), st.text(), st.text())
def test_keys_differ_by_prompt_and_text(prompt: str, text: str, other_prompt: str, other_text: str) -> None:
    same = (prompt, text) == (other_prompt, other_text)
    assert (
        row_key(prompt, text) == row_key(other_prompt, other_text)
    ) == same or "\0" in prompt + text + other_prompt + other_text


def test_prompt_is_part_of_the_key() -> None:
    assert len({row_key("", "a b"), row_key("a ", "b"), row_key("query: ", "a b"), row_key("a b", "")}) == 4


def test_rows_come_back_in_the_order_asked_for(tmp_path: Path) -> None:
    _filled(tmp_path, "abc", "de")
    view = TeacherCache(tmp_path, DIM).view(_keys("e", "a", "d", "a"))
    assert (len(view), view.dim) == (4, DIM)
    taken = view.take([0, 1, 3])
    assert taken.dtype == np.float32
    assert np.array_equal(taken, _vectors("e", "a", "a"))


def test_vectors_are_mapped_not_read(tmp_path: Path) -> None:
    _filled(tmp_path, "abc")
    assert all(isinstance(shard, np.memmap) for shard in TeacherCache(tmp_path, DIM).shards)


def test_missing_names_each_key_once(tmp_path: Path) -> None:
    cache = _filled(tmp_path, "ab")
    assert cache.missing(_keys("x", "a", "y", "x", "b")) == [0, 2]


def test_other_writers_shards_are_taken_in(tmp_path: Path) -> None:
    mine, theirs = TeacherCache(tmp_path, DIM), TeacherCache(tmp_path, DIM)
    theirs.append(_keys("a"), _vectors("a"))
    assert mine.missing(_keys("a")) == [0]
    mine.refresh()
    assert mine.missing(_keys("a")) == []


def test_same_shard_twice_is_one_file(tmp_path: Path) -> None:
    _filled(tmp_path, "ab", "ab")
    assert len(list(tmp_path.glob("*.npy"))) == 1


@pytest.mark.parametrize("kind", ["flipped", "cut", "empty"])
def test_damaged_shard_is_set_aside_and_can_be_written_again(
    tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    _filled(tmp_path, "ab", "cd")
    damaged = sorted(tmp_path.glob("*.npy"))[0]
    lost = "ab" if row_key("", "a") in damaged.read_bytes() else "cd"
    _damage(damaged, kind)
    cache = TeacherCache(tmp_path, DIM)
    assert cache.missing(_keys(*"abcd")) == ["abcd".index(name) for name in lost]
    assert f"{damaged} is damaged" in capsys.readouterr().err
    assert damaged.with_suffix(".damaged").is_file()
    cache.append(_keys(*lost), _vectors(*lost))
    again = TeacherCache(tmp_path, DIM)
    assert again.missing(_keys(*"abcd")) == []
    assert np.array_equal(again.view(_keys(*"abcd")).take(range(4)), _vectors(*"abcd"))


def test_shard_rewritten_after_damage_is_seen_by_who_set_it_aside(tmp_path: Path) -> None:
    _filled(tmp_path, "ab")
    path = next(tmp_path.glob("*.npy"))
    whole = path.read_bytes()
    _damage(path, "flipped")
    cache = TeacherCache(tmp_path, DIM)
    path.write_bytes(whole)  # another process computes the same vectors
    cache.refresh()
    assert cache.missing(_keys("a", "b")) == []


def test_shard_that_vanishes_while_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _filled(tmp_path, "ab")

    def vanish(self: Path) -> bytes:
        raise FileNotFoundError(errno.ENOENT, "gone", str(self))

    monkeypatch.setattr(Path, "read_bytes", vanish)
    assert TeacherCache(tmp_path, DIM).missing(_keys("a")) == [0]


def test_vectors_of_another_width(tmp_path: Path) -> None:
    _filled(tmp_path, "ab")
    with pytest.raises(CacheError, match=r"\(4,\), expected \(8,\)") as caught:
        TeacherCache(tmp_path, 8)
    assert str(tmp_path) in caught.value.hint


def test_full_disk_leaves_no_trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = _filled(tmp_path, "ab")

    def full(self: Path, data: Any) -> int:
        raise OSError(errno.ENOSPC, "No space left on device", str(self))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(DiskError, match="the disk is full"):
        cache.append(_keys("c"), _vectors("c"))
    monkeypatch.undo()
    assert len(list(tmp_path.iterdir())) == 1
    assert TeacherCache(tmp_path, DIM).missing(_keys("a", "b", "c")) == [2]


def test_folder_that_cannot_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path, **_: Any) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(self))

    cache = TeacherCache(tmp_path / "cache", DIM)
    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(DiskError, match="cannot be written"), cache.lock():
        pass


def _fill_locked(folder: Path, name: str) -> None:
    cache = TeacherCache(folder, DIM)
    with cache.lock():
        if cache.missing(_keys("a")):
            cache.append(_keys("a"), _vectors(name))


def test_lock_lets_one_write_and_the_other_see_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = TeacherCache(tmp_path, DIM)
    with first.lock():
        thread = threading.Thread(target=_fill_locked, args=(tmp_path, "z"))
        thread.start()
        thread.join(0.3)
        assert thread.is_alive(), "it did not wait"
        first.append(_keys("a"), _vectors("a"))
    thread.join(10)
    assert len(list(tmp_path.glob("*.npy"))) == 1
    assert np.array_equal(TeacherCache(tmp_path, DIM).view(_keys("a")).take([0]), _vectors("a"))


def _hold_forever(folder: Path, held: Any) -> None:
    with TeacherCache(folder, DIM).lock():
        held.set()
        threading.Event().wait()


def test_killed_holder_frees_the_lock(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    held = context.Event()
    process = context.Process(target=_hold_forever, args=(tmp_path, held))
    process.start()
    assert held.wait(30)
    process.kill()
    process.join()
    _fill_locked(tmp_path, "a")
    assert len(TeacherCache(tmp_path, DIM).index) == 1
