"""The texts that every client gets, and emb's own torch vectors of them: ARTIFACT TEXTS OUT COUNT."""

import json
import sys
from pathlib import Path

import emb
from emb.distill.corpus import default_corpus

artifact, texts, out, count = sys.argv[1:]
chosen = [item.text for item in default_corpus(20 * int(count)).texts[::20]][: int(count)]
Path(texts).write_text(json.dumps(chosen))
Path(out).write_text(json.dumps(emb.load(artifact, backend="torch").encode(chosen).tolist()))
