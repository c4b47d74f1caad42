"""Vectors as an artifact's files return them, their nearest neighbours by numpy, and how many an index finds."""

import json
from pathlib import Path

import numpy as np

DEPTH = 10


def read(texts, kind):
    """Documents and queries of one kind: "float" `(texts, dim)` float32, "int8" the same in int8, "binary" `(texts, dim
    / 8)` uint8.
    """
    with np.load(Path(texts).with_name("vectors.npz")) as stored:
        return stored[f"{kind}_documents"], stored[f"{kind}_queries"]


def scores(documents, queries, kind):
    """How near each document is to each query `(queries, documents)`: the inner product, or the bits that agree."""
    if kind == "binary":
        return np.stack([np.unpackbits(~(documents ^ query), axis=1).sum(1) for query in queries]).astype(float)
    return queries.astype(float) @ documents.T.astype(float)


def write(found, texts, kind, out):
    """Write the share of each query's nearest documents that are in `found` `(queries, 10)`; any of several equally
    near ones counts.
    """
    near = scores(*read(texts, kind), kind)
    least = np.sort(near, axis=1)[:, -DEPTH][:, None] - 1e-6
    shares = [
        len({int(i) for i in row if line[i] >= limit}) / DEPTH
        for row, line, limit in zip(found, near, least[:, 0], strict=True)
    ]
    Path(out).write_text(json.dumps(shares))
