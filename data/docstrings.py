"""The docstrings of Python files; files are parsed, never imported."""

from __future__ import annotations

import ast
import sysconfig
import warnings
from collections import deque
from collections.abc import Iterator
from pathlib import Path

_SKIPPED = {"test", "tests", "idlelib", "lib2to3", "__pycache__", "site-packages"}


def source_files(folder: Path) -> Iterator[Path]:
    """The Python files below a folder, in the order of their names, but for tests and what is installed there."""
    for path in sorted(folder.rglob("*.py")):
        if not _SKIPPED & set(path.relative_to(folder).parts):
            yield path


def standard_library() -> Path:
    """The folder of the standard library."""
    return Path(sysconfig.get_path("stdlib"))


def docstrings(path: Path) -> Iterator[tuple[str, str]]:
    """Each docstring of a file with the name of what it describes, `Path.open`, the file's own first with an empty
    name; nothing of files that are no Python of this version.
    """
    try:
        with warnings.catch_warnings(action="ignore"):
            tree = ast.parse(path.read_text(encoding="utf-8"))
    except (SyntaxError, ValueError, OSError, RecursionError):
        return  # templates and files for other versions of Python
    queue: deque[tuple[ast.AST, str]] = deque([(tree, "")])
    while queue:
        node, name = queue.popleft()
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            name = name if isinstance(node, ast.Module) else f"{name}.{node.name}".lstrip(".")
            if text := ast.get_docstring(node):
                yield name, text
        queue.extend((child, name) for child in ast.iter_child_nodes(node))
