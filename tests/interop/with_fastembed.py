"""Vectors by fastembed: ARTIFACT TEXTS OUT FILE."""

import json
import sys
from pathlib import Path

from fastembed import TextEmbedding
from fastembed.common.model_description import ModelSource, PoolingType

artifact, texts, out, file = sys.argv[1:]
dim = json.loads((Path(artifact) / "emb.json").read_text())["dim"]
TextEmbedding.add_custom_model("mine", PoolingType.DISABLED, False, ModelSource(hf="mine/mine"), dim, model_file=file)
model = TextEmbedding("mine", specific_model_path=artifact)
Path(out).write_text(
    json.dumps([vector.tolist() for vector in model.embed(json.loads(Path(texts).read_text()), batch_size=16)])
)
