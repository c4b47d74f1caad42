"""Addresses of engines: read as they are written, and told without their passwords."""

from __future__ import annotations

from pathlib import Path

import pytest

from emb.errors import UsageError
from emb.search.engines.target import is_target, read_target


def test_a_server() -> None:
    found = read_target("postgresql://me:p%40ss@db.example:5433/papers?sslmode=require&sslpassword=key#docs")
    assert (found.kind, found.name, found.host, found.port) == ("postgresql", "docs", "db.example", 5433)
    assert (found.user, found.password, found.database) == ("me", "p@ss", "papers")
    assert found.options == {"sslmode": "require", "sslpassword": "key"}
    assert str(found) == "postgresql://me@db.example:5433/papers#docs"


@pytest.mark.parametrize("told", [str, repr])
def test_no_password_is_told(told: type[str]) -> None:
    found = read_target("postgres://me:p%40ss@db/papers?password=other")
    assert "p@ss" not in told(found)
    assert "p%40ss" not in told(found)
    assert "other" not in told(found)
    assert found.without_secrets("no p@ss, no other") == "no …, no …"


def test_milvus_in_a_file_and_on_a_server() -> None:
    inside = read_target("milvus:some/docs.db#papers")
    assert (inside.file, inside.name, str(inside)) == (Path("some/docs.db"), "papers", "milvus:some/docs.db#papers")
    cluster = read_target("milvus+tls://root:Milvus@milvus.example:443/papers")
    assert (cluster.file, cluster.tls, cluster.port, cluster.database) == (None, True, 443, "papers")
    assert (cluster.name, str(cluster)) == ("emb", "milvus+tls://root@milvus.example:443/papers#emb")


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("qdrant://host#a", "unknown"),
        ("postgresql://u:secret@host:port/db", "a port or a host"),
        ("postgresql://u:sec[ret@host/db", "a port or a host"),
        ("postgresql://u:secret@host/db#a;DROP TABLE a", "no name for a table"),
        ("postgresql://u:secret@host/db#Papers", "no name for a table"),
        ("milvus:docs", "end with .db"),
        ("docs.index", "no address"),
    ],
)
def test_what_cannot_be_read_is_refused_without_its_password(address: str, said: str) -> None:
    with pytest.raises(UsageError, match=said) as refused:
        read_target(address)
    assert "sec" not in str(refused.value)


@pytest.mark.parametrize(
    ("text", "is_one"),
    [("docs.index", False), ("a:b", False), ("C:\\index", False), ("milvus:a.db", True), ("qdrant://host", True)],
)
def test_what_is_an_address(text: str, is_one: bool) -> None:
    assert is_target(text) is is_one
