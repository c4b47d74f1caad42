"""One process at a time: a lock falls with its holder, and a file removed under the lock is no way in."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from emb.errors import DiskError
from emb.locks import held_for_reading, locked

HOLD = """
import sys, time
from pathlib import Path
from emb.locks import locked
with locked(Path(sys.argv[1]), lambda: None):
    print("held", flush=True)
    time.sleep(600)
"""


class _Busy(Exception):
    pass


def _busy() -> None:
    raise _Busy


def test_one_at_a_time_and_free_again(tmp_path: Path) -> None:
    path = tmp_path / "folder" / ".lock"
    with locked(path, _busy) as handle:
        handle.write(b"kept")
        with pytest.raises(_Busy), locked(path, _busy):
            pass
    with locked(path, _busy) as handle:
        assert handle.read() == b"kept"  # what the file holds is nobody's to cut


def test_an_error_inside_frees_it(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    with pytest.raises(KeyError), locked(path, _busy):
        raise KeyError
    with locked(path, _busy):
        pass


def test_a_killed_holder_frees_it(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(_Busy), locked(path, _busy):
        pass
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    with locked(path, _busy):
        pass


def test_who_waited_for_a_removed_file_takes_the_new_one(tmp_path: Path) -> None:
    path, order = tmp_path / "job" / ".lock", []

    def wait() -> None:
        with locked(path, lambda: order.append("waits")), pytest.raises(_Busy), locked(path, _busy):
            pass  # the file that stands there now is the one that is locked
        order.append("took")

    with locked(path, _busy):
        thread = threading.Thread(target=wait)
        thread.start()
        while not order:
            time.sleep(0.01)
        path.unlink()
        path.parent.rmdir()
        order.append("removed")
    thread.join(30)
    assert order == ["waits", "removed", "took"]


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root writes everywhere")
def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(DiskError, match="cannot be written"), locked(tmp_path / "a" / ".lock", _busy):
        pass
    tmp_path.chmod(0o700)


def test_who_only_reads_needs_no_writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "folder" / ".lock"
    path.parent.mkdir()
    with held_for_reading(path, _busy):
        assert path.exists()  # as a writer has it, where that can be
        with pytest.raises(_Busy), locked(path, _busy):
            pass
    path.unlink()
    monkeypatch.setattr(os, "access", lambda *_: False)
    with held_for_reading(path, _busy):
        assert not path.exists()
    path.touch()
    with held_for_reading(path, _busy), held_for_reading(path, _busy), pytest.raises(_Busy), locked(path, _busy):
        pass
    with locked(path, _busy), pytest.raises(_Busy), held_for_reading(path, _busy):
        pass
