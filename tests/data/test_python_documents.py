"""Documents that every machine has: public names of the standard library, each text once."""

from __future__ import annotations

from pathlib import Path

import pytest

from emb.data import python_documents
from emb.data.docstrings import docstrings, source_files


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    words = "is described here at some length, so that a search may find it"
    files = {
        "paths.py": f'"""The module {words}."""\nclass Path:\n  """The class {words}."""\n'
        f'  def open(self): "Opening {words}."\n  def _hidden(self): "Hidden {words}."\n  def short(self): "Short."\n',
        "again.py": f'def open(): "Opening {words}."\ndef twice(): "One {words}."\ndef twice(): "Other {words}."\n',
        "_inner.py": f'"""Private {words}."""\n',
        "pack/__init__.py": f'"""The package {words}."""\n',
        "pack/tests/case.py": f'"""A test {words}."""\n',
        "broken.py": "def f(:\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    monkeypatch.setattr(python_documents, "standard_library", lambda: tmp_path)
    return tmp_path


def test_public_names_with_a_text_of_their_own(library: Path) -> None:
    found = list(python_documents.python_documents())
    assert [each["id"] for each in found] == ["again.open", "again.twice", "pack", "paths", "paths.Path"]
    assert [each["module"] for each in found] == ["again", "again", "pack", "paths", "paths"]
    assert found[1]["text"].startswith("One")  # of two of one name the first
    assert [each["id"] for each in python_documents.python_documents(2)] == ["again.open", "again.twice"]


def test_names_say_where_a_docstring_stands(library: Path) -> None:
    assert [name for name, _ in docstrings(library / "paths.py")] == [
        "", "Path", "Path.open", "Path._hidden", "Path.short",
    ]  # fmt: skip
    assert list(docstrings(library / "broken.py")) == []
    assert "case.py" not in {path.name for path in source_files(library)}
