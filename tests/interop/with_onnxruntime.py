"""Vectors by the very lines of docs/clients.md, onnxruntime and tokenizers alone: ARTIFACT TEXTS OUT FILE."""

import json
import re
import sys
from pathlib import Path

artifact, texts, out, file = sys.argv[1:]
page = (Path(__file__).resolve().parents[2] / "docs" / "clients.md").read_text(encoding="utf-8")
lines = re.search(r"```python\n(import numpy.*?)```", page, re.DOTALL)[1]
scope = {}
exec(
    re.sub(r"^folder, file = .*$", lambda _: f"folder, file = {artifact!r}, {file!r}", lines, flags=re.MULTILINE), scope
)
chosen = json.loads(Path(texts).read_text())
Path(out).write_text(
    json.dumps(
        [
            vector
            for start in range(0, len(chosen), 16)
            for vector in scope["encode"](chosen[start : start + 16]).tolist()
        ]
    )
)
