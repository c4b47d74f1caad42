"""Vectors by onnxruntime and tokenizers alone: ARTIFACT TEXTS OUT FILE."""

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from tokenizers import Tokenizer

artifact, texts, out, file = sys.argv[1:]
tokenizer = Tokenizer.from_file(f"{artifact}/tokenizer.json")
tokenizer.enable_padding()
session = onnxruntime.InferenceSession(f"{artifact}/{file}", providers=["CPUExecutionProvider"])
chosen, vectors = json.loads(Path(texts).read_text()), []
for start in range(0, len(chosen), 16):
    found = tokenizer.encode_batch(chosen[start : start + 16])
    inputs = {"input_ids": np.array([each.ids for each in found]), "attention_mask": np.array([each.attention_mask for each in found])}
    vectors += session.run(["sentence_embedding"], inputs)[0].tolist()
Path(out).write_text(json.dumps(vectors))
