"""The corpus every machine has: Python's documentation topics and the docstrings of what is installed.

Technical English, a few ten thousand texts, no download. The first line of a docstring plays the query, its
paragraphs play documents.
"""

from __future__ import annotations

import inspect
import sysconfig
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from emb.data.corpus import Corpus, Text, checked
from emb.data.docstrings import docstrings, source_files, standard_library

DEFAULT_LIMIT = 50_000
_MIN_CHARACTERS = 20


def default_corpus(limit: int | None = None) -> Corpus:
    """The first `limit` different texts, the standard library before installed packages."""
    unique = dict.fromkeys(islice(_texts(), 4 * (limit or DEFAULT_LIMIT)))
    texts = list(islice(unique, limit or DEFAULT_LIMIT))
    return checked(Corpus(texts), len(texts), ["the documentation of installed packages"])


def _texts() -> Iterator[Text]:
    yield from _topics()
    for folder in (standard_library(), Path(sysconfig.get_path("purelib"))):
        for path in source_files(folder):
            for _, text in docstrings(path):
                yield from _from_docstring(text)


def _topics() -> Iterator[Text]:
    from pydoc_data.topics import topics

    for name in sorted(topics):
        yield from _paragraphs(topics[name])


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
