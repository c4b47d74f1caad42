"""A corpus for a student from one with very unequal sources: so many texts of each, in the order of their hashes.

The order depends on nothing but the texts, so a prefix of the file is itself such a sample.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections import Counter
from pathlib import Path
from typing import Any

from emb.data.records import read_records


def main() -> None:
    """Write the sample and print how many texts of each source are in it."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    options.add_argument("texts", type=Path, help="jsonl or jsonl.gz with text, kind and source")
    options.add_argument("out", type=Path, help="jsonl to write")
    options.add_argument("--cap", type=int, default=15_000, help="texts of a source that has no cap of its own")
    options.add_argument(
        "--cap-of", action="append", default=[], metavar="SOURCE=N", help="a source's own cap; repeat for several"
    )
    given = options.parse_args()
    caps = {name: int(count) for name, count in (cap.rsplit("=", 1) for cap in given.cap_of)}
    taken: Counter[str] = Counter()
    with given.out.open("w", encoding="utf-8") as out:
        for record in sorted((record for _, record in read_records(given.texts)), key=by_hash):
            if taken[record["source"]] < caps.get(record["source"], given.cap):
                taken[record["source"]] += 1
                out.write(json.dumps({"text": record["text"], "kind": record["kind"]}) + "\n")
    print("\n".join(f"{count:7,} {source}" for source, count in taken.most_common()))


def by_hash(record: dict[str, Any]) -> bytes:
    """Where a text stands in the order."""
    return hashlib.blake2b(record["text"].encode(), digest_size=8).digest()


if __name__ == "__main__":
    main()
