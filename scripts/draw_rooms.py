#!/usr/bin/env python3
"""Draw the rooms of the package, and which imports from which, into docs/architecture.md.

    python scripts/draw_rooms.py          # write the picture
    python scripts/draw_rooms.py --check  # fail if it is not current

An arrow points the way data flows: from the room that is imported to the one that imports it. Arrows that follow
from others are left out, as are the files of the root, which every room imports.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "architecture.md"
_ELSEWHERE = {"tests", "scripts", "benchmarks", "docs", "build", "dist", "runs", "exports"}
_BLOCK = re.compile(r"```mermaid\n.*?```\n", re.DOTALL)
# Two rooms under one roof each: they share a subject, and import other rooms.
_TWO = {
    "search.calibration",
    "quantize.vectors",
    "quantize.weights",
    "search.bundling",
    "search.engines",
    "search.index",
    "search.migration",
    "search.server",
    "search.web",
    "validate.grid",
    "vocabulary.adaptation",
}

Graph = dict[str, set[str]]


def imports() -> Graph:
    """For each room, those it imports from."""
    graph: Graph = {}
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        if len(parts) < 2 or parts[0] in _ELSEWHERE or parts[0].startswith("."):
            continue
        found = graph.setdefault(_room(parts), set())
        found.update(_room(tuple(module.split(".")[1:])) for module in _modules(path) if module.count(".") > 1)
    rooms = set(graph) - {"quantize", "search"}
    return {room: (graph[room] & rooms) - {room} for room in sorted(rooms)}


def _room(parts: tuple[str, ...]) -> str:
    return ".".join(parts[:2]) if ".".join(parts[:2]) in _TWO else parts[0]


def _modules(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("emb."):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def needed(graph: Graph) -> Graph:
    """Without the imports that follow from others: of a room that imports B and C, where C imports B, only C stays."""
    return {
        room: {each for each in near if not any(each in _behind(graph, other) for other in near - {each})}
        for room, near in graph.items()
    }


def _behind(graph: Graph, room: str) -> set[str]:
    """Every room that `room` imports from, directly or not."""
    found: set[str] = set()
    todo = set(graph[room])
    while todo:
        each = todo.pop()
        if each not in found:
            found.add(each)
            todo |= graph[each]
    return found


def drawing() -> str:
    """The picture, as Mermaid reads it."""
    arrows = [f"    {source} --> {room}" for room, near in needed(imports()).items() for source in sorted(near)]
    return "\n".join(["```mermaid", "flowchart LR", *arrows, "```", ""])


def main() -> int:
    """The command."""
    page = PAGE.read_text(encoding="utf-8")
    current = _BLOCK.sub(lambda _: drawing(), page, count=1)
    if "--check" in sys.argv[1:]:
        if page != current:
            print(f"{PAGE}: the picture is not current; run: python scripts/draw_rooms.py", file=sys.stderr)
        return int(page != current)
    PAGE.write_text(current, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
