"""Milvus: the same client for the engine inside this process (Milvus Lite), a server and a cluster."""

from __future__ import annotations

import hashlib
import logging
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from emb.errors import EngineError, UsageError, first_line
from emb.search.engines.protocol import Conditions, Form, Found, Row
from emb.search.engines.target import Target
from emb.similarity import Vectors

_WAIT = 10  # seconds for a connection
_PORT = 19530
_TEXT = 65_535  # bytes of a text that Milvus takes
_PART = 60_000  # characters of a setting in one row
_MOST = 16_384  # rows of one answer
_TAGS = 1024  # metadata columns
_READ = 5000  # rows of one page
_METRICS = {"dot": "IP", "euclidean": "L2"}
_WIDTH = 200  # rows that the graph keeps in sight
_GRAPH = {"M": 16, "efConstruction": 200}
_files: Counter[str] = Counter()  # engines inside this process: one for all that use the same file
_HIT = ["id", "title", "passage", "start", "stop", "metadata"]


class Milvus:
    """See `Engine`."""

    most_bytes: int | None = _TEXT
    keeps_nul = True

    def __init__(self, target: Target) -> None:
        """Raises:
        EngineError: the server is out of reach, or another process has the file.
        """
        os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # it tells of every connection that it makes anew
        from pymilvus import DataType, MilvusClient, MilvusException

        logging.getLogger("pymilvus").setLevel(logging.CRITICAL)  # what it raises is told once, by us
        self._target, self._rows, self._space = target, target.name, f"{target.name}_space"
        self._types, self._failure = DataType, MilvusException
        if target.file is not None:
            import milvus_lite  # noqa: F401  told as missing, before the client says less

            target.file.parent.mkdir(parents=True, exist_ok=True)
        with self._errors(_unreachable(target)):
            self._client: Any = MilvusClient(**_address(target), timeout=_WAIT)
            for name in (self._rows, self._space):  # a file opened anew, or a collection that somebody released
                if self._client.has_collection(name):
                    self._client.load_collection(name)
        _files[str(target.file)] += 1

    def hold(self) -> None:
        """See `Engine`; a file belongs to one process anyway, and on a server two writers write the same rows."""

    def check(self, form: Form) -> None:
        """See `Engine`."""
        if form.find == "bits":
            raise UsageError("--find bits: PostgreSQL alone has it", "choose --find hnsw or --find exact")
        if form.measure not in _METRICS:
            raise UsageError(
                f"Milvus does not compare vectors by {form.measure} distance",
                "keep the index on disk, or copy it to PostgreSQL",
            )

    def setting(self, name: str) -> str | None:
        """See `Engine`."""
        with self._errors():
            if not self._client.has_collection(self._space):
                if self._client.has_collection(self._rows):
                    raise EngineError(
                        f"{self._target}: a collection of that name is there, and `emb sync` did not make it",
                        "name another one behind #",
                    )
                return None
            parts = self._client.query(
                self._space, filter=f'name == "{name}"', output_fields=["part", "value"], limit=_MOST
            )
        return "".join(part["value"] for part in sorted(parts, key=lambda part: part["part"])) if parts else None

    def put(self, name: str, text: str) -> None:
        """See `Engine`; a long text takes several rows."""
        parts = [text[start : start + _PART] for start in range(0, len(text), _PART)]
        rows = [
            {"key": f"{name} {part}", "name": name, "part": part, "value": value, "nothing": [0.0, 0.0]}
            for part, value in enumerate(parts)
        ]
        with self._errors():
            if not self._client.has_collection(self._space):
                self._create_space()
            self._client.delete(self._space, filter=f'name == "{name}" and part >= {len(parts)}')
            self._client.upsert(self._space, rows)

    def prepare(self, form: Form) -> None:
        """See `Engine`."""
        kinds, schema = self._types, self._client.create_schema(auto_id=False, enable_dynamic_field=False)
        schema.add_field("key", kinds.VARCHAR, max_length=32, is_primary=True)
        schema.add_field("stamp", kinds.VARCHAR, max_length=32)
        for name in ("id", "title", "passage"):
            schema.add_field(name, kinds.VARCHAR, max_length=_TEXT)
        schema.add_field("start", kinds.INT64)
        schema.add_field("stop", kinds.INT64)
        schema.add_field("metadata", kinds.JSON)
        schema.add_field("tags", kinds.ARRAY, element_type=kinds.VARCHAR, max_length=32, max_capacity=_TAGS)
        schema.add_field("embedding", kinds.FLOAT_VECTOR, dim=form.dim)
        how = ("HNSW", _GRAPH) if form.find == "hnsw" else ("FLAT", {})
        self._create(self._rows, schema, "embedding", _METRICS[form.measure], *how)

    def drop(self) -> None:
        """See `Engine`."""
        with self._errors():
            for name in (self._rows, self._space):
                self._client.drop_collection(name)

    def stamps(self) -> Iterator[tuple[str, str]]:
        """See `Engine`."""
        with self._errors():
            pages = self._client.query_iterator(self._rows, batch_size=_READ, output_fields=["key", "stamp"])
            try:
                while page := pages.next():
                    yield from ((row["key"], row["stamp"]) for row in page)
            finally:
                pages.close()

    def write(self, rows: Sequence[Row], form: Form) -> None:
        """See `Engine`."""
        with self._errors():
            self._client.upsert(self._rows, [_fields(row) for row in rows])

    def remove(self, keys: Sequence[str]) -> None:
        """See `Engine`."""
        with self._errors():
            self._client.delete(self._rows, ids=list(keys))

    def finish(self, form: Form) -> None:
        """See `Engine`."""
        with self._errors():
            self._client.flush(self._rows)

    def nearest(self, query: Vectors, count: int, where: Conditions, form: Form, depth: int) -> list[Found]:
        """See `Engine`; no more than 16,384."""
        count, metric = min(count, _MOST), _METRICS[form.measure]
        found = self._found(query, count, where, metric, max(count, _WIDTH))
        if len(found) < count and form.find == "hnsw":  # few match, or the graph lost its way among those that do not
            found = self._found(query, count, where, metric, _MOST)
        return found

    def close(self) -> None:
        """See `Engine`; the engine inside this process ends too, so that the file is free."""
        self._client.close()
        file = str(self._target.file)
        _files[file] -= 1
        if self._target.file is not None and not _files[file]:
            from milvus_lite.server_manager import server_manager_instance

            server_manager_instance.release_server(file)

    def _found(self, query: Vectors, count: int, where: Conditions, metric: str, width: int) -> list[Found]:
        with self._errors(f"the collection is not as it was made: emb sync INDEX {self._target} --overwrite"):
            [hits] = self._client.search(
                self._rows,
                data=[query.tolist()],
                anns_field="embedding",
                limit=count,
                filter=_filter(where),
                output_fields=_HIT,
                search_params={"metric_type": metric, "params": {"ef": width}},
            )
        return [Found(_score(hit["distance"], metric), *(hit["entity"][name] for name in _HIT)) for hit in hits]

    def _create_space(self) -> None:
        kinds, schema = self._types, self._client.create_schema(auto_id=False, enable_dynamic_field=False)
        schema.add_field("key", kinds.VARCHAR, max_length=64, is_primary=True)
        schema.add_field("name", kinds.VARCHAR, max_length=32)
        schema.add_field("part", kinds.INT64)
        schema.add_field("value", kinds.VARCHAR, max_length=_TEXT)
        schema.add_field("nothing", kinds.FLOAT_VECTOR, dim=2)  # Milvus has no collection without vectors
        self._create(self._space, schema, "nothing", "L2", "FLAT", {})

    def _create(self, name: str, schema: Any, field: str, metric: str, kind: str, params: dict[str, int]) -> None:
        index = self._client.prepare_index_params()
        index.add_index(field, index_type=kind, metric_type=metric, params=params)
        with self._errors():
            if not self._client.has_collection(name):
                self._client.create_collection(name, schema=schema, consistency_level="Strong")
                self._client.create_index(name, index, sync=False)  # nobody waits: there are no rows yet
                self._client.load_collection(name)

    @contextmanager
    def _errors(self, hint: str = "try again when it answers; what is written is kept") -> Iterator[None]:
        import grpc

        try:
            yield
        except (self._failure, grpc.RpcError, ValueError) as error:
            said = self._target.without_secrets(getattr(error, "message", "") or first_line(error))
            raise EngineError(f"{self._target}: {said}", hint) from None


def tag(name: str, value: str) -> str:
    """A metadata value as filters have it: a hash, of which nothing can be taken for a part of the filter."""
    return hashlib.blake2b(f"{name}\0{value}".encode(), digest_size=16).hexdigest()


def _filter(where: Conditions) -> str:
    """A condition on `tags`: one of the values under every name."""
    any_of = (", ".join(f'"{tag(name, value)}"' for value in values) for name, values in where.items())
    return " and ".join(f"array_contains_any(tags, [{tags}])" for tags in any_of)


def _fields(row: Row) -> dict[str, Any]:
    kept = {name: getattr(row, name) for name in ("key", "stamp", "id", "title", "passage", "start", "stop")}
    tags = [tag(name, value) for name, value in row.metadata.items()]
    return kept | {"metadata": dict(row.metadata), "tags": tags, "embedding": row.vector.tolist()}


def _score(distance: float, metric: str) -> float:
    """Milvus squares Euclidean distances."""
    return distance if metric == "IP" else -(max(distance, 0.0) ** 0.5)


def _address(target: Target) -> dict[str, Any]:
    if target.file is not None:
        return {"uri": str(target.file)}
    scheme, host = "https" if target.tls else "http", target.host or "localhost"
    token = f"{target.user}:{target.password}" if target.user else os.environ.get("MILVUS_TOKEN", "")
    return {"uri": f"{scheme}://{host}:{target.port or _PORT}", "token": token, "db_name": target.database}


def _unreachable(target: Target) -> str:
    if target.file is not None:
        return "one process at a time has such a file: end the other one, or run a server and write milvus://HOST"
    return "check host and port; user and password come from the address or as USER:PASSWORD from MILVUS_TOKEN"
