"""Memory of `emb encode` as the file grows: Parquet in, Parquet out, a process for each size."""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import Figure, Report, Series, parser

CHILD = """
import re, sys
from emb.cli import cli
cli(sys.argv[1:], standalone_mode=False)
print(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1], file=sys.stderr)
"""


def main() -> None:
    """Measure, print, and write the JSON."""
    options = parser(__doc__, texts=None, rounds=None)
    options.add_argument(
        "--artifact", type=Path, required=True, help="export to encode with; a small one, unless time is no matter"
    )
    options.add_argument("--counts", type=_counts, default="10000,1000000", help="texts in each file")
    given = options.parse_args()
    report = Report(
        "stream", {"artifact": given.artifact.name, "counts": given.counts, "threads": given.threads, "seconds": []}
    )
    with tempfile.TemporaryDirectory() as scratch:
        peaks = []
        for count in given.counts:
            began = time.monotonic()
            peaks.append(peak_mb(given.artifact, write_texts(Path(scratch) / f"{count}.parquet", count), given.threads))
            report.settings["seconds"].append(time.monotonic() - began)
    report.series = [
        Series(f"{count:,} texts", "MB (peak)", [peak]) for count, peak in zip(given.counts, peaks, strict=True)
    ]
    report.figures = [
        Figure(
            f"peak of {given.counts[-1]:,} texts / peak of {given.counts[0]:,}", peaks[-1] / peaks[0], 1.2, at_most=True
        )
    ]
    report.write(given.out)


def write_texts(path: Path, count: int) -> Path:
    """A Parquet file of `count` different texts of 3 to 30 words, written a block at a time."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    plain = "the cat and a dog ran to an old house by the river in rain so they sat on it until it was dry"
    words = plain.split()
    writer = pq.ParquetWriter(path, pa.schema([("id", pa.int64()), ("text", pa.string())]))
    for start in range(0, count, 50_000):
        ids = list(range(start, min(start + 50_000, count)))
        writer.write_table(
            pa.table(
                {
                    "id": ids,
                    "text": [f"{index} {' '.join(words[index % 7 : index % 7 + 3 + index % 28])}" for index in ids],
                }
            )
        )
    writer.close()
    return path


def peak_mb(artifact: Path, source: Path, threads: int) -> float:
    """Peak resident set of a process that encodes `source`, its interpreter and libraries included."""
    arguments = [
        "encode",
        str(source),
        str(source.with_suffix(".out.parquet")),
        "--model",
        str(artifact),
        "--threads",
        str(threads),
        "--quiet",
    ]
    done = subprocess.run([sys.executable, "-c", CHILD, *arguments], check=True, stderr=subprocess.PIPE, text=True)
    return int(done.stderr.splitlines()[-1]) * 1024 / 1e6


def _counts(text: str) -> list[int]:
    try:
        return [int(number) for number in text.split(",")]
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text}: not whole numbers separated by commas") from error


if __name__ == "__main__":
    main()
