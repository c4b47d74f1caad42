"""Files and folders that are the old ones or the new ones."""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from emb.errors import ArtifactError, DiskError
from emb.files import atomic_folder, disk_errors, refuse_existing, write_json


def _filled(folder: Path, content: str) -> Path:
    (folder / "inside").mkdir(parents=True)
    (folder / "inside" / "file").write_text(content, encoding="utf-8")
    return folder


def _content(folder: Path) -> str:
    [file] = [path for path in folder.rglob("*") if path.is_file()]
    return file.read_text(encoding="utf-8")


def test_a_folder_is_the_new_one_before_anything_of_the_old_one_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, seen, remove = _filled(tmp_path / "folder", "old"), list[str](), shutil.rmtree

    def removed(path: Any, **options: Any) -> None:
        seen.append(_content(folder))
        remove(path, **options)

    monkeypatch.setattr(shutil, "rmtree", removed)
    with atomic_folder(folder, replace=True) as partial:
        _filled(partial / "new", "new")
    assert set(seen) == {"new"}
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


@pytest.mark.parametrize("place", ["inside", "at the end"])
def test_a_folder_that_fails_leaves_the_old_one(place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, rename = _filled(tmp_path / "folder", "old"), Path.replace

    def renamed(path: Path, target: Path) -> Path:
        if place == "at the end" and path.name.count(".") == 3 and target == folder:
            raise KeyboardInterrupt
        return rename(path, target)

    monkeypatch.setattr(Path, "replace", renamed)
    with suppress(KeyboardInterrupt), atomic_folder(folder, replace=True) as partial:
        _filled(partial / "new", "new")
        if place == "inside":
            raise KeyboardInterrupt
    assert _content(folder) == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_a_folder_may_take_the_place_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "folder").write_text("old", encoding="utf-8")
    with atomic_folder(tmp_path / "folder", replace=True) as partial:
        _filled(partial / "new", "new")
    assert _content(tmp_path / "folder") == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_a_folder_in_the_way_is_refused(tmp_path: Path) -> None:
    folder = _filled(tmp_path / "folder", "old")
    with pytest.raises(ArtifactError, match="already exists"), atomic_folder(folder):
        raise AssertionError
    assert _content(folder) == "old"


def test_what_a_folder_holds_is_on_the_disk_before_it_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced, sync = set[int](), os.fsync

    def noted(descriptor: int) -> None:
        synced.add(os.fstat(descriptor).st_ino)
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", noted)
    with atomic_folder(tmp_path / "folder") as partial:
        _filled(partial, "new")
    assert (tmp_path / "folder" / "inside" / "file").stat().st_ino in synced


@pytest.mark.parametrize("write", [write_json, refuse_existing, atomic_folder])
@pytest.mark.parametrize("name", ["file/out.json", "file/deeper/out.json", "x" * 300, "loop/out.json"])
def test_a_place_that_cannot_be_is_told_by_its_name(write: Any, name: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder", encoding="utf-8")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    if write is refuse_existing and len(name) < 300:
        pytest.skip("nothing is written: what is not there is not in the way")
    with pytest.raises(DiskError, match="cannot be written") as caught:
        _written(write, tmp_path / name)
    assert str(tmp_path / name) in caught.value.message


def _written(write: Any, path: Path) -> None:
    if write is atomic_folder:
        with atomic_folder(path):
            pass
    else:
        write(path, False)


def test_a_file_that_is_read_meanwhile_is_no_place_to_write(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), atomic_folder(tmp_path / "made" / "new"):
        (tmp_path / "elsewhere").read_text(encoding="utf-8")


def test_numpy_says_that_a_disk_is_full_in_words_of_its_own(tmp_path: Path) -> None:
    with pytest.raises(DiskError, match="the disk is full"), disk_errors(tmp_path):
        raise OSError("1056 requested and 992 written")
    with pytest.raises(OSError, match="no such thing"), disk_errors(tmp_path):
        raise OSError("no such thing")
