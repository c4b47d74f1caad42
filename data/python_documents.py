"""Documents that every machine has: what the standard library says of its own modules, classes and functions."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from emb.data.docstrings import docstrings, source_files, standard_library

_MIN_CHARACTERS = 60


def python_documents(limit: int | None = None) -> Iterator[dict[str, str]]:
    """The first `limit` records of id, title, text and module, `pathlib.Path.open` for one; each text stands once.

    Names with an underscore in front are left out, as are docstrings of a few words.
    """
    return islice(_public(standard_library()), limit)


def _public(folder: Path) -> Iterator[dict[str, str]]:
    seen: set[str] = set()
    for path in source_files(folder):
        module = _module(path.relative_to(folder))
        for name, text in docstrings(path):
            whole = f"{module}.{name}".rstrip(".")
            private = any(part.startswith("_") for part in whole.split("."))
            if private or len(text) < _MIN_CHARACTERS or text in seen or whole in seen:
                continue
            seen |= {text, whole}  # a function is often defined again for another system
            yield {"id": whole, "title": whole, "text": text, "module": module.partition(".")[0]}


def _module(path: Path) -> str:
    parts = path.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
