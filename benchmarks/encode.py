"""Encoding: an exported int8 artifact, and `SentenceTransformer.encode` in torch fp32 on the same folder.

Throughput on texts of mixed lengths, in the order they come, and latency of one short query at a time. An artifact
is a sentence-transformers folder as well, so the peer loads the very student that was exported. onnxruntime alone
on the fp32 file, in batches of 32 as a caller would write it, shows what is the format's and what is emb's. Where
the artifact holds optimum's files (`--exporter optimum`), emb runs them as well, and sentence-transformers runs the
int8 one as its own documentation says, through optimum.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

import torch
from common import Figure, Report, Series, interleave, model_folder, parser, ratio, sample

from emb.artifact.manifest import Manifest, Variant
from emb.model.embedding_model import open_sentence_transformer
from emb.runtime.encoder import ArtifactEncoder, Encoder
from emb.runtime.sessions import open_session

BATCH = 32
SHORT = 60  # characters
Encode = Callable[[list[str]], object]
PEER = "SentenceTransformer.encode fp32"


def main() -> None:
    """Measure, print, and write the JSON."""
    options = parser(__doc__, texts=1000)
    options.add_argument(
        "--artifact", type=Path, help="exported folder with an int8 file; without it, --student is exported first"
    )
    options.add_argument(
        "--student", default="all-MiniLM-L6-v2", help="run, student or encoder to export: a name or a folder"
    )
    options.add_argument("--queries", type=int, default=100, help="short queries per round of latency")
    given = options.parse_args()
    torch.set_num_threads(given.threads)
    with tempfile.TemporaryDirectory() as scratch:
        folder = given.artifact or exported(given.student, Path(scratch) / "artifact", given.threads)
        manifest = Manifest.load(folder)
        report = measure(folder, manifest, given.texts, given.limit, given.queries, given.rounds, given.threads)
    report.settings |= {
        "artifact": Path(given.artifact or given.student).name,
        "layers": manifest.layers,
        "dim": manifest.dim,
        "threads": given.threads,
    }
    report.write(given.out)


def exported(student: str, folder: Path, threads: int) -> Path:
    """`student` exported whole, with an int8 file."""
    import emb

    source = Path(student) if Path(student).exists() else model_folder(student)
    return emb.export(source, int8=True, out=folder, threads=threads)[0]


def measure(
    folder: Path, manifest: Manifest, file: str | None, limit: int, count: int, rounds: int, threads: int
) -> Report:
    """Throughput of each contender on mixed texts, then latency on short queries."""
    pool = sample(file, max(20_000, limit))
    texts = [item.text for item in pool[:limit]]
    queries = [item.text for item in pool if item.kind == "query" and len(item.text) <= SHORT][:count]
    contenders = encoders(folder, manifest, threads)
    rates = interleave({name: throughput(encode, texts) for name, encode in contenders.items()}, rounds)
    delays = interleave({name: latency(encode, queries) for name, encode in contenders.items()}, rounds)
    series = [Series(name, "texts/s", found) for name, found in rates.items()] + [
        Series(f"{name}, batch 1", "ms (p50)", found) for name, found in delays.items()
    ]
    ours = next(iter(contenders))
    variant = _variant(manifest, "int8")
    figures = [
        Figure(f"{ours} / {PEER}: texts/s", ratio(rates[ours], rates[PEER]), 3),
        Figure(f"{PEER} / {ours}: latency at batch 1", ratio(delays[PEER], delays[ours]), 4),
    ]
    theirs = [name for name in contenders if name.startswith("optimum's int8")]
    figures += [Figure(f"{ours} / {name}: texts/s", ratio(rates[ours], rates[name])) for name in theirs]
    figures += [Figure(f"{name} / {ours}: latency at batch 1", ratio(delays[name], delays[ours])) for name in theirs]
    figures += (
        [Figure("min cosine of the int8 file to fp32, as exported", variant.min_cosine, 0.99)]
        if variant.min_cosine is not None
        else []
    )
    settings = {
        "texts": len(texts),
        "queries": len(queries),
        "int8_recipe": variant.quantizer,
        "file_mb": (folder / variant.file).stat().st_size / 1e6,
    }
    return Report("encode", settings, series, figures)


def encoders(folder: Path, manifest: Manifest, threads: int) -> dict[str, Encode]:
    """What is compared, each as list of texts → vectors."""
    int8, fp32 = (ArtifactEncoder(folder, _variant(manifest, dtype).file, threads) for dtype in ("int8", "fp32"))
    peer = open_sentence_transformer(folder)
    return {
        "emb int8": int8.encode_document,
        PEER: lambda texts: peer.encode_document(texts, batch_size=BATCH),
        "emb fp32": fp32.encode_document,
        "onnxruntime fp32": plain(folder / fp32.variant.file, fp32, threads),
        **through_optimum(folder, manifest, threads),
    }


def through_optimum(folder: Path, manifest: Manifest, threads: int) -> dict[str, Encode]:
    """optimum's files in the artifact, if it has any, run by emb; the int8 one by sentence-transformers too."""
    theirs = [variant for variant in manifest.variants if variant.exporter == "optimum"]
    found: dict[str, Encode] = {
        f"optimum's {variant.weight_dtype}, run by emb": ArtifactEncoder(folder, variant.file, threads).encode_document
        for variant in theirs
    }
    for variant in (each for each in theirs if each.weight_dtype == "int8"):
        found["optimum's int8, run by sentence-transformers"] = by_sentence_transformers(folder, variant.file, threads)
    return found


def by_sentence_transformers(folder: Path, file: str, threads: int) -> Encode:
    """sentence-transformers' own ONNX backend on one file; needs the stack with optimum."""
    from onnxruntime import SessionOptions
    from sentence_transformers import SentenceTransformer

    options = SessionOptions()
    options.intra_op_num_threads = threads
    model = SentenceTransformer(
        str(folder),
        device="cpu",
        backend="onnx",
        model_kwargs={"file_name": file, "provider": "CPUExecutionProvider", "session_options": options},
    )
    return lambda texts: model.encode_document(texts, batch_size=BATCH)


def plain(file: Path, encoder: Encoder, threads: int) -> Encode:
    """onnxruntime with batches of 32 texts in the order given."""
    session, tokenizer = open_session(file, threads), encoder.tokenizer

    def encode(texts: list[str]) -> object:
        found = []
        for first in range(0, len(texts), BATCH):
            ids, mask = tokenizer.pad(
                tokenizer.encode(texts[first : first + BATCH], encoder.prompts.get("document", ""))
            )
            found.append(session.run(["sentence_embedding"], {"input_ids": ids, "attention_mask": mask})[0])
        return found

    return encode


def throughput(encode: Encode, texts: list[str]) -> Callable[[], float]:
    """texts/s over the whole list."""

    def run() -> float:
        started = time.perf_counter()
        encode(texts)
        return len(texts) / (time.perf_counter() - started)

    return run


def latency(encode: Encode, queries: Sequence[str]) -> Callable[[], float]:
    """Median milliseconds of one query alone."""

    def run() -> float:
        return median(_milliseconds(encode, query) for query in queries)

    return run


def _milliseconds(encode: Encode, query: str) -> float:
    started = time.perf_counter()
    encode([query])
    return (time.perf_counter() - started) * 1000


def _variant(manifest: Manifest, dtype: str) -> Variant:
    return next(
        variant for variant in manifest.variants if variant.weight_dtype == dtype and variant.vector_dtype == "float32"
    )


if __name__ == "__main__":
    main()
