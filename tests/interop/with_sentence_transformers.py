"""Vectors by sentence-transformers, in torch or through optimum: ARTIFACT TEXTS OUT FILE|torch."""

import json
import sys
from pathlib import Path

from sentence_transformers import SentenceTransformer

artifact, texts, out, file = sys.argv[1:]
options = (
    {}
    if file == "torch"
    else {"backend": "onnx", "model_kwargs": {"file_name": file, "provider": "CPUExecutionProvider"}}
)
model = SentenceTransformer(artifact, device="cpu", **options)
Path(out).write_text(json.dumps(model.encode(json.loads(Path(texts).read_text())).tolist()))
