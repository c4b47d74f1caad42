"""The texts that every client gets, emb's own torch vectors of them, and stored vectors for indexes: ARTIFACT TEXTS OUT
COUNT.
"""

import json
import sys
from pathlib import Path

import numpy as np

import emb
from emb.data.default_corpus import default_corpus

FILES = {"float": "onnx/model.onnx", "int8": "onnx/model_vectors_int8.onnx", "binary": "onnx/model_vectors_binary.onnx"}

artifact, texts, out, count = sys.argv[1:]
corpus = [item.text for item in default_corpus(20 * int(count)).texts]
chosen, others = corpus[::20][: int(count)], corpus[1::2]
Path(texts).write_text(json.dumps(chosen))
Path(out).write_text(json.dumps(emb.load(artifact, backend="torch").encode(chosen).tolist()))
stored = {}
for kind, file in FILES.items():
    encoder = emb.load(artifact, file=file)
    stored |= {f"{kind}_documents": encoder.encode(others), f"{kind}_queries": encoder.encode(chosen, kind="query")}
np.savez(Path(texts).with_name("vectors.npz"), **stored)
