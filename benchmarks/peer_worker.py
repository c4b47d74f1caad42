"""One contender of `peers.py`: KIND ARTIFACT TEXTS THREADS. Answers words on stdin with JSON lines on stdout.

Imports nothing that its own environment lacks; emb itself only for the kind "emb".
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

BATCH = 32


def emb(artifact, threads):
    """emb's own runtime."""
    from emb.runtime.encoder import load

    encoder = load(artifact, threads=threads)
    return lambda texts: encoder.encode(texts), {"file": encoder.variant.file, "recipe": encoder.variant.quantizer}


def torch(artifact, threads):
    """sentence-transformers in fp32."""
    model = _sentence_transformer(artifact, threads)
    return lambda texts: model.encode(texts, batch_size=BATCH), _versions("sentence-transformers", "torch")


def optimum(artifact, threads):
    """sentence-transformers through optimum: exported and quantised by them for this processor."""
    from sentence_transformers import export_dynamic_quantized_onnx_model

    plain, out = _without_onnx(artifact), tempfile.mkdtemp()
    options = {"provider": "CPUExecutionProvider"}
    export_dynamic_quantized_onnx_model(
        _sentence_transformer(plain, threads, backend="onnx", model_kwargs=options | {"export": True}),
        "avx512_vnni",
        out,
    )
    for name in ("modules.json", "config.json", "tokenizer.json", "tokenizer_config.json"):
        assert (plain / name).exists()
    shutil.copytree(Path(out) / "onnx", plain / "onnx", dirs_exist_ok=True)
    model = _sentence_transformer(
        plain, threads, backend="onnx", model_kwargs=options | {"file_name": "onnx/model_qint8_avx512_vnni.onnx"}
    )
    return lambda texts: model.encode(texts, batch_size=BATCH), _versions(
        "sentence-transformers", "optimum-onnx", "onnxruntime"
    )


def fastembed(artifact, threads, file):
    """fastembed on a file of the artifact."""
    from fastembed import TextEmbedding
    from fastembed.common.model_description import ModelSource, PoolingType

    dim = json.loads((Path(artifact) / "emb.json").read_text())["dim"]
    TextEmbedding.add_custom_model(
        "mine", PoolingType.DISABLED, False, ModelSource(hf="mine/mine"), dim, model_file=file
    )
    model = TextEmbedding("mine", specific_model_path=str(artifact), threads=threads)
    return lambda texts: np.stack(list(model.embed(texts, batch_size=BATCH))), _versions("fastembed", "onnxruntime")


def openvino(artifact, threads):
    """OpenVINO on the artifact's graph, 8 bits by NNCF's post-training quantisation for transformers."""
    import nncf
    import openvino as ov

    tokenizer, core = _tokenizer(artifact), ov.Core()
    model = core.read_model(artifact / "onnx" / "model.onnx")
    samples = nncf.Dataset(
        json.loads(Path(sys.argv[3]).read_text())["texts"][:300], lambda text: _inputs(tokenizer, [text])
    )
    quantised = nncf.quantize(model, samples, model_type=nncf.ModelType.TRANSFORMER, subset_size=300)
    many = core.compile_model(quantised, "CPU", {"PERFORMANCE_HINT": "THROUGHPUT", "INFERENCE_NUM_THREADS": threads})
    one = core.compile_model(quantised, "CPU", {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": threads})

    def encode(texts):
        if len(texts) == 1:
            return one(_inputs(tokenizer, texts))["sentence_embedding"]
        found, order, queue = {}, _sorted(texts), ov.AsyncInferQueue(many)
        queue.set_callback(lambda request, start: found.__setitem__(start, request.get_output_tensor(0).data.copy()))
        for start in range(0, len(order), BATCH):
            queue.start_async(_inputs(tokenizer, [texts[index] for index in order[start : start + BATCH]]), start)
        queue.wait_all()
        return _restored([found[start] for start in sorted(found)], order)

    return encode, _versions("openvino", "nncf")


def ctranslate2(artifact, threads):
    """CTranslate2's encoder in int8; pooling and projection in numpy behind it."""
    import ctranslate2 as ct
    from safetensors.numpy import load_file

    out = tempfile.mkdtemp()
    ct.converters.TransformersConverter(str(_without_onnx(artifact))).convert(out, quantization="int8", force=True)
    many = ct.Encoder(out, device="cpu", compute_type="int8", inter_threads=threads, intra_threads=1)
    one = ct.Encoder(out, device="cpu", compute_type="int8", inter_threads=1, intra_threads=threads)
    projection = load_file(next(artifact.glob("*_Dense")) / "model.safetensors")["linear.weight"].T
    tokenizer = _tokenizer(artifact)
    tokenizer.no_padding()

    def batch(encoder, texts):
        ids = [found.ids for found in tokenizer.encode_batch(texts)]
        states = np.asarray(encoder.forward_batch(ids).last_hidden_state)
        lengths = np.asarray([len(row) for row in ids])[:, None]
        mask = np.arange(states.shape[1])[None] < lengths
        vectors = ((states * mask[:, :, None]).sum(1) / lengths) @ projection
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    def encode(texts):
        if len(texts) == 1:
            return batch(one, texts)
        order = _sorted(texts)
        parts = [[texts[index] for index in order[start : start + BATCH]] for start in range(0, len(order), BATCH)]
        with ThreadPoolExecutor(threads) as pool:
            return _restored(list(pool.map(lambda part: batch(many, part), parts)), order)

    return encode, _versions("ctranslate2")


KINDS: dict[str, Any] = {
    "emb": emb,
    "torch": torch,
    "optimum": optimum,
    "openvino": openvino,
    "ctranslate2": ctranslate2,
    "fastembed-int8": lambda artifact, threads: fastembed(artifact, threads, "onnx/model_quantized.onnx"),
    "fastembed-fp32": lambda artifact, threads: fastembed(artifact, threads, "onnx/model.onnx"),
}


def main() -> None:
    """Load, say so, and answer until stdin ends."""
    kind, artifact, texts, threads = (
        sys.argv[1],
        Path(sys.argv[2]),
        json.loads(Path(sys.argv[3]).read_text()),
        int(sys.argv[4]),
    )
    encode, facts = KINDS[kind](artifact, threads)
    print(json.dumps(facts), flush=True)
    for word in sys.stdin:
        print(json.dumps({"value": MEASURES[word.strip()](encode, texts, artifact)}), flush=True)


def throughput(encode, texts, artifact):
    """Texts per second of all texts in one call."""
    began = time.perf_counter()
    encode(texts["texts"])
    return len(texts["texts"]) / (time.perf_counter() - began)


def latency(encode, texts, artifact):
    """Median milliseconds of one short query alone."""
    seconds = []
    for query in texts["queries"]:
        began = time.perf_counter()
        encode([query])
        seconds.append(time.perf_counter() - began)
    return 1000 * median(seconds)


def cosine(encode, texts, artifact):
    """Smallest cosine of 200 texts, and of the queries one by one, to torch in fp32."""
    chosen = texts["texts"][:200]
    expected = np.asarray(_sentence_transformer(artifact, 2).encode([*chosen, *texts["queries"]], batch_size=8))
    found = np.concatenate([np.asarray(encode(chosen)), *(np.asarray(encode([query])) for query in texts["queries"])])
    return float((expected * found).sum(1).min())


MEASURES = {"throughput": throughput, "latency": latency, "cosine": cosine}


def _sentence_transformer(artifact, threads, **options):
    import torch
    from sentence_transformers import SentenceTransformer

    torch.set_num_threads(threads)
    return SentenceTransformer(str(artifact), device="cpu", **options)


def _without_onnx(artifact):
    """A copy of the torch model alone, that a peer may write into."""
    copy = Path(tempfile.mkdtemp()) / "model"
    shutil.copytree(artifact, copy, ignore=shutil.ignore_patterns("onnx"))
    return copy


def _tokenizer(artifact):
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(artifact / "tokenizer.json"))
    tokenizer.enable_padding()
    return tokenizer


def _inputs(tokenizer, texts):
    found = tokenizer.encode_batch(texts)
    return {
        "input_ids": np.array([each.ids for each in found]),
        "attention_mask": np.array([each.attention_mask for each in found]),
    }


def _sorted(texts):
    return sorted(range(len(texts)), key=lambda index: -len(texts[index]))


def _restored(parts, order):
    vectors = np.concatenate(parts)
    found = np.empty_like(vectors)
    found[order] = vectors
    return found


def _versions(*names):
    return {name: version(name) for name in names}


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    main()
