"""A small retrieval set in BEIR's layout."""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from pathlib import Path


def write_set(folder: Path, sentences: Sequence[str]) -> Path:
    """Each query is a document's first words; the first ten are graded, and one grade is nought."""
    (folder / "qrels").mkdir(parents=True)
    documents = [
        {"_id": f"d{i}", "title": "A title" if i == 0 else "", "text": text} for i, text in enumerate(sentences)
    ]
    queries = [{"_id": f"q{i}", "text": " ".join(text.split()[:3])} for i, text in enumerate(sentences)]
    with gzip.open(folder / "corpus.jsonl.gz", "wt", encoding="utf-8") as handle:
        handle.write("".join(json.dumps(row) + "\n" for row in documents))
    (folder / "queries.jsonl").write_text("".join(json.dumps(row) + "\n" for row in queries), encoding="utf-8")
    (folder / "qrels" / "test.tsv").write_text(
        "query-id\tcorpus-id\tscore\n" + "".join(f"q{i}\td{i}\t1\n" for i in range(10)) + "q11\td1\t0\n",
        encoding="utf-8",
    )
    return folder
