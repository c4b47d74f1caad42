"""What frameworks are given to find, and the examples of docs/integrations.md."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import tiny

DOCUMENTS = tiny.SENTENCES[:12]
QUESTION = tiny.SENTENCES[3]
PAGE = Path(__file__).resolve().parents[1] / "docs" / "integrations.md"


def example(heading: str, model: Path) -> Any:
    """What the example under `heading` finds."""
    _, section = PAGE.read_text(encoding="utf-8").split(f"\n## {heading}\n")
    [lines] = re.findall(r"```python\n(.*?)```", section.split("\n## ")[0], re.DOTALL)
    assert "bundles/mine" in lines
    scope: dict[str, Any] = {"documents": DOCUMENTS, "question": QUESTION}
    exec(lines.replace("bundles/mine", str(model)), scope)
    return scope["found"]
