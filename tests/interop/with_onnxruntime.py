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
found = tokenizer.encode_batch(json.loads(Path(texts).read_text()))
inputs = {"input_ids": np.array([each.ids for each in found]), "attention_mask": np.array([each.attention_mask for each in found])}
[vectors] = session.run(["sentence_embedding"], inputs)
Path(out).write_text(json.dumps(vectors.tolist()))
