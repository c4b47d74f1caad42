"""PostgreSQL with pgvector: one table of passages, a second one beside it that says whose vectors they are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import psycopg
from pgvector import HalfVector
from pgvector.psycopg import register_vector
from psycopg.types.json import Jsonb

from emb.errors import EngineError, UsageError, first_line
from emb.search.engines import postgres_sql as ask
from emb.search.engines.protocol import Conditions, Form, Found, Row
from emb.search.engines.target import Target
from emb.similarity import Vectors

_WAIT = 10  # seconds for a connection
_OLDEST = (0, 7)  # of pgvector: the first with halves and bits
_ITERATES = (0, 8)  # the first that goes on looking where its graph gave too few
_WIDTH, _WIDEST = 200, 1000  # rows that the graph keeps in sight; pgvector takes no more
_INSTALL = "install pgvector 0.7 or newer on the server (Debian: postgresql-NN-pgvector), then: CREATE EXTENSION vector"


class Postgres:
    """See `Engine`."""

    most_bytes: int | None = None
    keeps_nul = False

    def __init__(self, target: Target) -> None:
        """Raises:
        EngineError: the server is out of reach, or its pgvector is too old.
        """
        self._target, self._table = target, target.name
        self._connection = self._connected()
        self._version = self._pgvector()

    def hold(self) -> None:
        """See `Engine`; makes the extension available where it is installed."""
        free = self._one("SELECT pg_try_advisory_lock(hashtext(%s))", f"emb sync {self._table}")
        if not free:
            raise EngineError(
                f"{self._target}: another `emb sync` is writing this table", "wait for it, or name another one behind #"
            )
        if self._version is None:
            self._create_extension()

    def check(self, form: Form) -> None:
        """See `Engine`."""
        kind = ask.type_of(form)
        if form.find == "hnsw" and form.dim > ask.MOST_DIMS[kind]:
            raise UsageError(
                f"--find hnsw: pgvector makes graphs of up to {ask.MOST_DIMS[kind]:,} dims of type {kind}, and these"
                f" vectors have {form.dim:,}",
                "choose --find bits or --find exact",
            )

    def setting(self, name: str) -> str | None:
        """See `Engine`."""
        if self._is_there(f"{self._table}_space"):
            found = self._one(ask.GET, name)
            return None if found is None else str(found)
        if self._is_there(self._table):
            raise EngineError(
                f"{self._target}: a table of that name is there, and `emb sync` did not make it",
                "name another one behind #",
            )
        return None

    def put(self, name: str, text: str) -> None:
        """See `Engine`."""
        with self._transaction() as cursor:
            cursor.execute(ask.statement(ask.CREATE_SPACE, self._table))
            cursor.execute(ask.statement(ask.PUT, self._table), (name, text))

    def prepare(self, form: Form) -> None:
        """See `Engine`."""
        with self._transaction() as cursor:
            for text in (ask.CREATE_ROWS, ask.CREATE_BY_ID, ask.CREATE_BY_METADATA):
                cursor.execute(ask.statement(text, self._table, form))

    def drop(self) -> None:
        """See `Engine`."""
        with self._transaction() as cursor:
            cursor.execute(ask.statement(ask.DROP, self._table))

    def stamps(self) -> Iterator[tuple[str, str]]:
        """See `Engine`."""
        with self._errors(), self._connection.transaction(), self._connection.cursor(name="stamps") as cursor:
            cursor.itersize = 10_000
            cursor.execute(ask.statement(ask.STAMPS, self._table))
            yield from cursor

    def write(self, rows: Sequence[Row], form: Form) -> None:
        """See `Engine`."""
        with self._transaction() as cursor:
            cursor.executemany(ask.statement(ask.WRITE, self._table), [_values(row, form) for row in rows])

    def remove(self, keys: Sequence[str]) -> None:
        """See `Engine`."""
        with self._transaction() as cursor:
            cursor.execute(ask.statement(ask.REMOVE, self._table), (list(keys),))

    def finish(self, form: Form) -> None:
        """See `Engine`."""
        graph = {"hnsw": ask.CREATE_GRAPH, "bits": ask.CREATE_GRAPH_OF_BITS}.get(form.find)
        with self._transaction() as cursor:
            if graph:
                cursor.execute(ask.statement(graph, self._table, form))
            cursor.execute(ask.statement("ANALYZE {rows}", self._table))

    def nearest(self, query: Vectors, count: int, where: Conditions, form: Form, depth: int) -> list[Found]:
        """See `Engine`; what is filtered, and what a graph finds too few of, is looked at row by row."""
        if form.find != "exact" and not where:
            found = self._by_graph(query, count, form, max(depth, count))
            if len(found) == count:
                return found
        condition, values = ask.condition_of(where)
        exact = ask.statement(ask.NEAREST, self._table, form, condition)
        given = _queries(query, form) | {"count": count, **values}
        return self._found(exact, given, {"enable_indexscan": "off"})

    def close(self) -> None:
        """See `Engine`."""
        self._connection.close()

    def _by_graph(self, query: Vectors, count: int, form: Form, depth: int) -> list[Found]:
        bits = form.find == "bits"
        wanted = depth if bits else max(count, _WIDTH)
        settings = {"hnsw.ef_search": str(min(wanted, _WIDEST)), "enable_seqscan": "off"}  # the graph, at any size
        if wanted > _WIDEST and (self._version or _OLDEST) >= _ITERATES:
            settings["hnsw.iterative_scan"] = "strict_order"
        given = _queries(query, form) | {"count": count, "depth": depth}
        text = ask.statement(ask.NEAREST_BY_BITS if bits else ask.NEAREST, self._table, form)
        return self._found(text, given, settings)

    def _found(self, text: Any, given: dict[str, Any], settings: dict[str, str]) -> list[Found]:
        """Rows of a query under settings of its own; compiling it costs more than it saves."""
        pairs = [word for pair in {**settings, "jit": "off"}.items() for word in pair]
        with self._transaction() as cursor:
            cursor.execute("SELECT " + ", ".join(["set_config(%s, %s, true)"] * (len(pairs) // 2)), pairs)
            return [Found(*row) for row in cursor.execute(text, given)]

    def _is_there(self, table: str) -> bool:
        return bool(self._one("SELECT to_regclass(quote_ident(%s)) IS NOT NULL", table))

    def _one(self, text: str, *values: Any) -> Any:
        """The first value of the first row, or None."""
        self._renew()
        with self._errors():
            row = self._connection.execute(ask.statement(text, self._table), values).fetchone()
        return row[0] if row else None

    def _connected(self) -> psycopg.Connection[Any]:
        target = self._target
        known = {
            "host": target.host,
            "port": target.port,
            "user": target.user,
            "password": target.password,
            "dbname": target.database,
            "connect_timeout": _WAIT,
            "application_name": "emb",
        }
        given: dict[str, Any] = {name: value for name, value in known.items() if value} | target.options
        try:
            return psycopg.connect(**given, autocommit=True)
        except psycopg.OperationalError as error:  # what stands behind it may hold the address
            raise EngineError(
                f"{target}: cannot be reached: {target.without_secrets(first_line(error))}",
                "check host, port, user and database; a password comes from the address, PGPASSWORD or ~/.pgpass",
            ) from None
        except psycopg.ProgrammingError as error:
            raise UsageError(
                f"{target}: {target.without_secrets(first_line(error))}", "write libpq's own names behind ?"
            ) from None

    def _pgvector(self) -> tuple[int, ...] | None:
        """Its version, with its types made known; None where the database does not have it."""
        found = self._one("SELECT extversion FROM pg_extension WHERE extname = 'vector'")
        if found is None:
            return None
        version = tuple(int(part) for part in str(found).split("."))
        if version < _OLDEST:
            raise EngineError(
                f"{self._target}: has pgvector {found}, which lacks halves and bits",
                f"{_INSTALL}, or ALTER EXTENSION vector UPDATE",
            )
        with self._errors():
            register_vector(self._connection)
        return version

    def _create_extension(self) -> None:
        try:
            self._connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
        except psycopg.Error as error:
            raise EngineError(f"{self._target}: has no pgvector ({first_line(error)})", _INSTALL) from error
        self._version = self._pgvector()

    @contextmanager
    def _transaction(self) -> Iterator[psycopg.Cursor[Any]]:
        """All that is executed inside counts, or none of it. A connection that was lost is made anew."""
        self._renew()
        with self._errors(), self._connection.transaction(), self._connection.cursor() as cursor:
            yield cursor

    def _renew(self) -> None:
        if self._connection.closed:
            self._connection = self._connected()
            self._version = self._pgvector()

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except psycopg.Error as error:
            said = self._target.without_secrets(first_line(error))
            raise EngineError(f"{self._target}: {said}", _hint(error, self._target)) from error


def _values(row: Row, form: Form) -> tuple[Any, ...]:
    facts = (row.key, row.stamp, row.id, row.title, row.passage, row.start, row.stop)
    return (*facts, Jsonb(dict(row.metadata)), _vector(row.vector, form))


def _vector(vector: Vectors, form: Form) -> Any:
    return HalfVector(vector) if ask.type_of(form) == "halfvec" else np.asarray(vector, np.float32)


def _queries(query: Vectors, form: Form) -> dict[str, Any]:
    """A query as rows are put in order by, in halves where they are, and whole for the scores."""
    return {"query": _vector(query, form), "whole": np.asarray(query, np.float32)}


def _hint(error: psycopg.Error, target: Target) -> str:
    if isinstance(error, psycopg.errors.DiskFull):
        return "free some space on the server and run the same command again; what is written is kept"
    if isinstance(error, psycopg.errors.InsufficientPrivilege):
        return "ask for the right to read that table, and for `emb sync` to create tables and write them"
    if isinstance(error, psycopg.errors.UndefinedTable | psycopg.errors.UndefinedColumn):
        return f"the table is not as it was made: emb sync INDEX {target} --overwrite"
    if isinstance(error, psycopg.DataError):
        return "take the character out of the documents, index them again and run the same command again"
    if isinstance(error, psycopg.ProgrammingError) and "vector type not found" in str(error):
        return "put the schema of the extension vector on the role's search_path"
    if isinstance(error, psycopg.OperationalError):
        return "try again when the server answers; what is written is kept"
    return "the server's own log says more"
