"""What PostgreSQL is asked. Names are quoted identifiers, values are parameters: nothing of a user becomes SQL."""

from __future__ import annotations

from typing import Any

from psycopg import sql
from psycopg.types.json import Jsonb

from emb.search.engines.protocol import Conditions, Form

MOST_DIMS = {"vector": 2000, "halfvec": 4000}  # that a graph takes
_DISTANCES = {"dot": "<#>", "euclidean": "<->", "manhattan": "<+>"}  # the first is the negative dot product
_OPERATORS = {"dot": "ip_ops", "euclidean": "l2_ops", "manhattan": "l1_ops"}

CREATE_SPACE = "CREATE TABLE IF NOT EXISTS {space} (name text PRIMARY KEY, value text NOT NULL)"
PUT = "INSERT INTO {space} VALUES (%s, %s) ON CONFLICT (name) DO UPDATE SET value = EXCLUDED.value"
GET = "SELECT value FROM {space} WHERE name = %s"
CREATE_ROWS = """
CREATE TABLE IF NOT EXISTS {rows} (
    key text PRIMARY KEY, stamp text NOT NULL, id text NOT NULL, title text NOT NULL, passage text NOT NULL,
    start int NOT NULL, stop int NOT NULL, metadata jsonb NOT NULL, embedding {type}({dim}) NOT NULL)"""
CREATE_BY_ID = "CREATE INDEX IF NOT EXISTS {by_id} ON {rows} USING hash (id)"  # a btree takes no more than 2,704 bytes
CREATE_BY_METADATA = "CREATE INDEX IF NOT EXISTS {by_metadata} ON {rows} USING gin (metadata jsonb_path_ops)"
CREATE_GRAPH = "CREATE INDEX IF NOT EXISTS {near} ON {rows} USING hnsw (embedding {operators})"
CREATE_GRAPH_OF_BITS = (
    "CREATE INDEX IF NOT EXISTS {near} ON {rows} USING hnsw ((binary_quantize(embedding)::bit({dim})) bit_hamming_ops)"
)
DROP = "DROP TABLE IF EXISTS {rows}, {space}"
STAMPS = "SELECT key, stamp FROM {rows}"
WRITE = """
INSERT INTO {rows} VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s) ON CONFLICT (key) DO UPDATE SET
    stamp = EXCLUDED.stamp, id = EXCLUDED.id, title = EXCLUDED.title, passage = EXCLUDED.passage,
    start = EXCLUDED.start, stop = EXCLUDED.stop, metadata = EXCLUDED.metadata, embedding = EXCLUDED.embedding"""
REMOVE = "DELETE FROM {rows} WHERE key = ANY(%s)"
NEAREST = """
SELECT -(embedding::vector {distance} %(whole)s) AS score, id, title, passage, start, stop, metadata
FROM {rows} WHERE {condition} ORDER BY embedding {distance} %(query)s LIMIT %(count)s"""
NEAREST_BY_BITS = """
SELECT -(embedding::vector {distance} %(whole)s) AS score, id, title, passage, start, stop, metadata
FROM (SELECT * FROM {rows}
      ORDER BY binary_quantize(embedding)::bit({dim}) <~> binary_quantize(%(query)s)::bit({dim})
      LIMIT %(depth)s) AS candidates
ORDER BY embedding {distance} %(query)s LIMIT %(count)s"""


def type_of(form: Form) -> str:
    """pgvector's type: halves hold what was stored in 16 bits or fewer."""
    return "vector" if form.codec == "float32" else "halfvec"


def statement(text: str, table: str, form: Form | None = None, condition: sql.Composable | None = None) -> sql.Composed:
    """One of the above for a table."""
    names: dict[str, sql.Composable] = {
        "rows": sql.Identifier(table),
        **{name: sql.Identifier(f"{table}_{name}") for name in ("space", "by_id", "by_metadata", "near")},
        "condition": condition or sql.SQL("true"),
    }
    if form:
        names |= {
            "type": sql.SQL(type_of(form)),
            "dim": sql.Literal(form.dim),
            "distance": sql.SQL(_DISTANCES[form.measure]),
            "operators": sql.SQL(f"{type_of(form)}_{_OPERATORS[form.measure]}"),
        }
    return sql.SQL(text).format(**names)


def condition_of(where: Conditions) -> tuple[sql.Composable, dict[str, Any]]:
    """A condition on metadata, and the values of its parameters: one of the values under every name."""
    parts: list[sql.Composable] = []
    values: dict[str, Any] = {}
    for name, allowed in where.items():
        given = {f"value{len(values) + place}": Jsonb({name: value}) for place, value in enumerate(allowed)}
        each = [sql.SQL("metadata @> {}").format(sql.Placeholder(key)) for key in given]
        parts.append(sql.SQL("({})").format(sql.SQL(" OR ").join(each)))
        values |= given
    return sql.SQL(" AND ").join(parts) if parts else sql.SQL("true"), values
