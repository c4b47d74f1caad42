"""Rooms: imports run one way, a room is listed where it must be, and a door shares its name with no room."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from test_packaging import ROOT, shipped

BASE = {"beginnings", "doors", "errors", "files", "locks", "machine", "progress", "rotation", "similarity", "tokens"}
# What each room may import besides the files of the root; quantize and validate are two rooms each.
MAY_IMPORT = {
    "artifact": set(),
    "recipes": set(),
    "report": {"artifact"},
    "model": {"artifact"},
    "data": {"artifact"},
    "teachers": {"artifact", "data", "model"},
    "distill": {"artifact", "data", "model", "recipes", "teachers", "vocabulary"},
    "quantize.vectors": set(),
    "runtime": {"artifact", "data", "model", "quantize.vectors"},
    "integrations": {"runtime"},
    "quantize.weights": {"artifact", "runtime"},
    "export": {
        "artifact",
        "data",
        "distill",
        "model",
        "quantize.vectors",
        "quantize.weights",
        "recipes",
        "runtime",
        "teachers",
    },
    "evaluate": {"artifact", "data", "model", "quantize.vectors", "runtime", "teachers"},
    "validate": {"artifact", "data", "model", "quantize.vectors", "quantize.weights", "report", "runtime", "teachers"},
    "validate.grid": {
        "artifact",
        "data",
        "export",
        "model",
        "quantize.weights",
        "report",
        "runtime",
        "teachers",
        "validate",
    },
    "vocabulary": {"artifact", "data", "model", "report"},
    "vocabulary.adaptation": {"artifact", "data", "distill", "model", "recipes", "teachers", "vocabulary"},
    "search": {"artifact", "runtime", "teachers"},
    "search.calibration": {"artifact", "data", "runtime", "search", "search.bundling", "search.index", "teachers"},
    "search.bundling": {"artifact", "data", "report", "runtime", "search", "teachers"},
    "publish": {"artifact", "evaluate", "runtime", "teachers"},
    "search.engines": {"runtime", "search", "search.index"},
    "search.migration": {"artifact", "data", "runtime", "search", "search.calibration", "search.index"},
    "search.server": {"artifact", "runtime", "search", "search.calibration", "search.index", "search.web"},
    "search.index": {"artifact", "data", "quantize.vectors", "runtime", "search"},
    "search.web": {"artifact", "data", "quantize.vectors", "runtime", "search", "search.bundling"},
}
# Files of the root, from the first; `cli`, `commands` and the package's own door may import all.
ORDER = ["errors", "doors", "files", "locks", "progress", "machine", "similarity", "rotation", "beginnings", "tokens"]


def _room(module: str) -> str:
    """Of a dotted name below `emb`: the room, or the file of the root."""
    parts = module.split(".")
    for size in (2, 1):
        if ".".join(parts[:size]) in MAY_IMPORT:
            return ".".join(parts[:size])
    return parts[0]


def _imports(path: Path) -> Iterator[str]:
    """What a file imports from this package, at its top or inside of functions, below `emb`."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("emb."):
            yield from (f"{node.module}.{alias.name}".removeprefix("emb.") for alias in node.names)
        if isinstance(node, ast.Import):
            yield from (alias.name.removeprefix("emb.") for alias in node.names if alias.name.startswith("emb."))


def _files(room: str) -> list[Path]:
    return [
        ROOT / name
        for name in sorted(shipped())
        if name.endswith(".py") and _room(name.removesuffix(".py").replace("/", ".")) == room
    ]


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_a_room_imports_only_from_those_before_it(room: str) -> None:
    files = _files(room)
    assert files, "no such room"
    found = {_room(module) for path in files for module in _imports(path)} - BASE - {room}
    assert found <= MAY_IMPORT[room], f"{room} imports {', '.join(sorted(found - MAY_IMPORT[room]))}"


def test_the_table_has_no_circle() -> None:
    done: set[str] = set()
    while ready := [room for room, needs in MAY_IMPORT.items() if room not in done and needs <= done]:
        done.update(ready)
    assert done == set(MAY_IMPORT)


@pytest.mark.parametrize("name", ORDER)
def test_the_files_of_the_root_import_upwards(name: str) -> None:
    found = {_room(module) for module in _imports(ROOT / f"{name}.py")}
    assert found <= set(ORDER[: ORDER.index(name)])


def test_every_room_is_in_the_table() -> None:
    rooms = {
        _room(name.removesuffix(".py").replace("/", ".")) for name in shipped() if name.endswith(".py") and "/" in name
    }
    assert rooms - {"commands", "quantize"} == set(MAY_IMPORT)
    assert {path.stem for path in ROOT.glob("*.py")} == {*ORDER, "cli", "__init__"}


def test_other_rooms_reach_the_export_through_its_face() -> None:
    face = {"export.given", "export.options", "export.pipeline", "export.source"}
    others = [path for room in MAY_IMPORT if _room(room) != "export" for path in _files(room)]
    used = {module for path in others for module in _imports(path) if _room(module) == "export"}
    assert {module.rpartition(".")[0] for module in used} == face
