"""What `/search` of a running `emb serve … --compare` costs and finds, by each encoder and dims that it offers.

    emb serve BUNDLE --index INDEX --compare --also EXPORT --dim 128 &
    python benchmarks/offers.py http://127.0.0.1:8080 queries.jsonl --limit 100

Queries are asked one after the other, every encoder in turn for each, so that all meet the same machine. Shown are the
server's own seconds, encoding and searching, medians and 95th percentiles in milliseconds, and the share of the
teacher's first ten (in all dims) that is found.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import numpy as np
from common import Report, parser

from emb.data.records import read_records, text_of
from emb.report.tables import table

_TEN = 10


def asked(client: httpx.Client, query: str, encoder: str, dim: int) -> dict[str, Any]:
    """One answer of `/search`."""
    answer = client.post("/search", json={"query": query, "k": _TEN, "encoder": encoder, "dim": dim, "characters": 0})
    return dict(answer.raise_for_status().json())


def measured(client: httpx.Client, queries: list[str]) -> list[dict[str, Any]]:
    """A row for each encoder and dim."""
    offers = client.get("/search/encoders").raise_for_status().json()["encoders"]
    pairs = [(each["name"], dim) for each in offers for dim in each["dims"]]
    answers: dict[tuple[str, int], list[dict[str, Any]]] = {pair: [] for pair in pairs}
    for query in queries:
        for pair in pairs:
            answers[pair].append(asked(client, query, *pair))
    teacher = next(((each["name"], each["dims"][0]) for each in offers if each["side"] == "teacher"), None)
    return [row(pair, answers[pair], answers[teacher] if teacher else None) for pair in pairs]


def row(pair: tuple[str, int], answers: list[dict[str, Any]], teacher: list[dict[str, Any]] | None) -> dict[str, Any]:
    """Its figures."""
    encode, search = (1000 * np.array([each["seconds"][part] for each in answers]) for part in ("encode", "search"))
    found = [{hit["id"] for hit in each["hits"]} for each in answers]
    best = [{hit["id"] for hit in each["hits"]} for each in teacher] if teacher else None
    return {
        "encoder": pair[0],
        "dim": pair[1],
        "p50": float(np.median(encode + search)),
        "p95": float(np.percentile(encode + search, 95)),
        "encode": float(np.median(encode)),
        "search": float(np.median(search)),
        "shared": float(np.mean([len(a & b) / len(b) for a, b in zip(found, best, strict=True)])) if best else None,
    }


def main() -> None:
    """Print the table and write the JSON."""
    options = parser(__doc__, texts=None, rounds=None)
    options.add_argument("address", help="where the server listens")
    options.add_argument("queries", type=Path, help="records with a text")
    options.add_argument("--limit", type=int, default=100, help="queries of them")
    given = options.parse_args()
    queries = [text_of(record, "text", place) for place, record in read_records(given.queries, "text")][: given.limit]
    with httpx.Client(base_url=given.address, timeout=120) as client:
        rows = measured(client, queries)
    print(
        table(
            [tuple(f"{each:.3g}" if isinstance(each, float) else each for each in row.values()) for row in rows],
            tuple(rows[0]),
        )
    )
    Report("offers", {"queries": len(queries)}, rows=rows).write(given.out)


if __name__ == "__main__":
    main()
