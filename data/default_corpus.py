"""The corpus every machine has: Python's documentation topics and the docstrings of what is installed.

Technical English, a few ten thousand texts, no download. The first line of a docstring plays the query, its
paragraphs play documents. Files are parsed, never imported.
"""

from __future__ import annotations

import ast
import inspect
import sysconfig
import warnings
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from emb.data.corpus import Corpus, Text, checked

DEFAULT_LIMIT = 50_000
_MIN_CHARACTERS = 20
_SKIPPED = {"test", "tests", "idlelib", "lib2to3", "__pycache__"}


def default_corpus(limit: int | None = None) -> Corpus:
    """The first `limit` different texts, the standard library before installed packages."""
    unique = dict.fromkeys(islice(_texts(), 4 * (limit or DEFAULT_LIMIT)))
    texts = list(islice(unique, limit or DEFAULT_LIMIT))
    return checked(Corpus(texts), len(texts), ["the documentation of installed packages"])


def _texts() -> Iterator[Text]:
    yield from _topics()
    for folder in (sysconfig.get_path("stdlib"), sysconfig.get_path("purelib")):
        for path in sorted(Path(folder).rglob("*.py")):
            if not _SKIPPED & set(path.relative_to(folder).parts) and (
                "site-packages" not in path.relative_to(folder).parts
            ):
                yield from _docstrings(path)


def _topics() -> Iterator[Text]:
    from pydoc_data.topics import topics

    for name in sorted(topics):
        yield from _paragraphs(topics[name])


def _docstrings(path: Path) -> Iterator[Text]:
    try:
        with warnings.catch_warnings(action="ignore"):
            tree = ast.parse(path.read_text(encoding="utf-8"))
    except (SyntaxError, ValueError, OSError, RecursionError):
        return  # templates and files for other versions of Python
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and (
            text := ast.get_docstring(node)
        ):
            yield from _from_docstring(text)


def _from_docstring(text: str) -> Iterator[Text]:
    summary, _, rest = text.partition("\n\n")
    line = " ".join(summary.split())
    if len(line) >= _MIN_CHARACTERS:
        yield Text(line, "query")
    yield from _paragraphs(rest)


def _paragraphs(text: str) -> Iterator[Text]:
    for block in inspect.cleandoc(text).split("\n\n"):
        paragraph = " ".join(block.split())
        if len(paragraph) >= 2 * _MIN_CHARACTERS and not paragraph.startswith((">>>", "..", "--", "+-", "==")):
            yield Text(paragraph, "document")
