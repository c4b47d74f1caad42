"""The documentation says what the program does."""

from __future__ import annotations

import ast
import inspect
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest

import emb
from emb.cli import cli
from emb.recipes.recipe import shipped
from emb.runtime.encoder import Encoder

ROOT = Path(__file__).resolve().parents[1]


def _commands(group: click.Group, before: str = "") -> Iterator[tuple[str, click.Command]]:
    """Every command by its name, those of a group inside the group too."""
    for name, command in sorted(group.commands.items()):
        if isinstance(command, click.Group):
            yield from _commands(command, f"{name} ")
        else:
            yield f"{before}{name}", command


COMMANDS = list(_commands(cli))


def test_the_page_of_commands_is_current() -> None:
    done = subprocess.run(
        [sys.executable, "scripts/write_help.py", "--check"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(("name", "command"), COMMANDS)
def test_every_command_and_every_option_says_what_it_does(name: str, command: click.Command) -> None:
    assert command.help
    silent = [option.opts[0] for option in command.params if isinstance(option, click.Option) and not option.help]
    assert not silent, f"emb {name}: no help for {', '.join(silent)}"


@pytest.mark.parametrize(("name", "command"), COMMANDS)
def test_every_command_has_json_and_quiet(name: str, command: click.Command) -> None:
    assert {"--json", "--quiet"} <= {option for parameter in command.params for option in parameter.opts}, name


@pytest.mark.parametrize(("name", "command"), COMMANDS)
def test_short_help_is_not_cut_off(name: str, command: click.Command) -> None:
    assert not command.get_short_help_str(80).endswith("..."), name


@pytest.mark.parametrize(
    "page",
    [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))],
    ids=lambda page: page.name,
)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8"))
    missing = [target for target in targets if "://" not in target and not (page.parent / target).exists()]
    assert not missing


def test_the_first_lines_of_the_readme_are_calls_that_exist() -> None:
    """They run on real weights in `scripts/demo.py`, with the same arguments; here, names that were changed are
    noticed.
    """
    [lines] = re.findall(r"```python\n(import emb.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    assert len([line for line in lines.splitlines() if line.strip()]) <= 6
    calls = [node for node in ast.walk(ast.parse(lines)) if isinstance(node, ast.Call)]
    named = {
        node.func.attr: {word.arg: ast.literal_eval(word.value) for word in node.keywords}
        for node in calls
        if isinstance(node.func, ast.Attribute)
    }
    for name in ("distill", "export", "load"):
        inspect.signature(getattr(emb, name)).bind(*([None] if name != "distill" else []), **named[name])
    inspect.signature(Encoder.encode).bind(None, "a text", **named["encode"])
    assert named["distill"]["recipe"] in shipped()
    assert ([str(layers) for layers in named["export"]["layers"]], [str(dim) for dim in named["export"]["dims"]]) == (
        ["3"],
        ["128"],
    )


def test_the_lines_without_emb_give_the_same_vectors(
    student_folder: Path, tmp_path: Path, sentences: list[str]
) -> None:
    [folder] = emb.export(
        student_folder, layers=[2], dims=[16], out=tmp_path / "artifact", threads=1, calibration_texts=sentences
    )
    [lines] = re.findall(
        r"```python\n(import numpy.*?)```", (ROOT / "docs" / "clients.md").read_text(encoding="utf-8"), re.DOTALL
    )
    assert len(lines.strip().splitlines()) <= 15
    scope: dict[str, Any] = {}
    exec(
        re.sub(
            r"^folder, file = .*$",
            lambda _: f"folder, file = {str(folder)!r}, 'onnx/model.onnx'",
            lines,
            flags=re.MULTILINE,
        ),
        scope,
    )
    encoder = emb.load(folder)
    for kind in ("query", "document"):
        found = scope["encode"](sentences, encoder.prompts.get(kind, ""))
        np.testing.assert_allclose(found, encoder.encode(sentences, kind=kind), atol=1e-6)


PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def _typed(page: Path) -> list[str]:
    """Every line of the page's code that is a command of `emb`, without its comment."""
    blocks = re.findall(r"```bash\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    lines = [line.strip() for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    return [re.sub(r"\s#.*", "", line).split(" && ")[0] for line in lines if line.startswith("emb ")]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_in_the_docs_are_taken_as_they_are_pasted(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names, options, choices and numbers, and all that is required: click reads each as it would from a shell."""
    monkeypatch.setattr(click.Path, "convert", lambda self, value, param, ctx: value)  # the reader's files
    for line in _typed(page):
        group: click.Group = cli
        name, *words = shlex.split(line)[1:]
        while isinstance(inner := group.commands[name], click.Group):
            group, [name, *words] = inner, words
        try:
            inner.make_context(name, words)
        except click.UsageError as error:
            pytest.fail(f"{page.name}: {line}: {error.format_message()}")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_docs_name_exports_where_they_are_written(page: Path) -> None:
    """`emb export` of a run writes below the run: a reader who pastes `exports/2x256` finds nothing there."""
    loose = [line for line in _typed(page) if re.search(r"(?<![\w/])exports/\d+x\d+", line)]
    assert not loose


def test_the_readme_names_every_page() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert [page.name for page in (ROOT / "docs").glob("*.md") if f"(docs/{page.name})" not in text] == []


def _calls(page: Path) -> Iterator[tuple[str, ast.Call]]:
    """Every call of a function of `emb` in the Python of a page, by that one's name."""
    for block in re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.Call) and (name := re.fullmatch(r"emb\.(\w+)", ast.unparse(node.func))):
                yield name[1], node


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_calls_in_the_docs_are_taken_with_their_arguments(page: Path) -> None:
    for name, call in _calls(page):
        signature = inspect.signature(getattr(emb, name))
        signature.bind(*call.args, **{word.arg: word.value for word in call.keywords if word.arg})
