"""scripts/gpu_student.sh: its commands are ones that exist, and what is stopped or out of time goes on."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from emb.cli import cli
from emb.recipes.recipe import Recipe, load_recipe

SCRIPT = Path(__file__).resolve().parents[1] / "scripts" / "gpu_student.sh"
# In place of emb: notes its arguments and finishes at once; the run that the file HANG names never ends.
EMB = """#!/usr/bin/env bash
out=
for word; do [ "$last" = --out ] && out=$word; last=$word; done
printf '%s\\n' "$@" >"$(mktemp "$LOG/$(ls "$LOG" | wc -l).XXXX")"
if [ "$1" = evaluate ]; then echo '{}' >"$out"; exit; fi
mkdir -p "$out" && echo '{"status": "running"}' >"$out/run.json"
if [ -e "$HANG" ] && [ "$(basename "$out")" = "$(cat "$HANG")" ]; then
    trap 'exit 143' TERM
    touch "$HANG.here"
    while :; do sleep 0.05; done
fi
echo '{
  "status": "finished"
}' >"$out/run.json"
"""
PARTS = [("1", "static", "layers-6"), ("2", "closed-form", "minilm")]

pytestmark = pytest.mark.skipif(
    not (shutil.which("bash") and shutil.which("timeout")), reason="needs bash and coreutils' timeout"
)


class Machine:
    """A folder with the script's surroundings, in which it can be called."""

    def __init__(self, folder: Path) -> None:
        self.out, self.hang, self.calls = folder / "out", folder / "hang", folder / "calls"
        self.calls.mkdir()
        emb = folder / "emb"
        emb.write_text(EMB, encoding="utf-8")
        emb.chmod(0o755)
        given = {"EMB": emb, "LOG": self.calls, "HANG": self.hang, "OUT": self.out, "TEXT": "en.jsonl"}
        self.surroundings = {**os.environ, **{name: str(value) for name, value in given.items()}, "SETS": "a/one b/two"}

    def start(self, part: str, **settings: str) -> subprocess.Popen[str]:
        """The script, running."""
        return subprocess.Popen(
            ["bash", str(SCRIPT), part], env={**self.surroundings, **settings}, stderr=subprocess.PIPE, text=True
        )

    def call(self, part: str, **settings: str) -> tuple[int, str]:
        """Its status and what it said."""
        process = self.start(part, **settings)
        _, said = process.communicate(timeout=60)
        return process.returncode, said

    def commands(self) -> list[list[str]]:
        """What it has asked emb for since the last look."""
        files = sorted(self.calls.iterdir(), key=lambda path: int(path.name.split(".")[0]))
        found = [path.read_text(encoding="utf-8").splitlines() for path in files]
        for path in files:
            path.unlink()
        return found


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def _recipe(command: list[str]) -> Recipe:
    """The recipe that the words after `emb distill` come to; click and the schema refuse what they do not know."""
    given = cli.commands["distill"].make_context("distill", command[1:]).params
    values = {"teacher": given["teacher"], "data.as_queries": given["for_queries"] or None}
    values |= {"student.layers": given["layers"], "training.max_time": given["max_time"], **dict(given["settings"])}
    return load_recipe(given["recipe"], {key: value for key, value in values.items() if value is not None})


@pytest.mark.parametrize(("part", "short", "main"), PARTS)
def test_its_commands_exist_and_come_in_order(part: str, short: str, main: str, machine: Machine) -> None:
    status, said = machine.call(part, LIMIT="50")
    assert status == 0, said
    first, second, scoring = machine.commands()
    assert [command[-1] for command in (first, second)] == [str(machine.out / name) for name in (short, main)]
    for command in (first, second):
        recipe = _recipe(command)
        assert (recipe.teacher, recipe.data.limit) == ("all-mpnet-base-v2", 50)
        assert recipe.capture.tokens_per_batch == 16384
    assert 200 < (_recipe(second).training.max_time or 0) < 420
    scored = cli.commands["evaluate"].make_context("evaluate", scoring[1:]).params
    assert scored["models"] == tuple(str(machine.out / name) for name in (short, main))
    assert scored["data"] == ("a/one", "b/two")


def test_the_exits_of_part_1(machine: Machine) -> None:
    machine.call("1")
    recipe = _recipe(machine.commands()[1])
    assert {layers for layers, _ in recipe.pairs or ()} == {1, 2, 4, 6}  # none of 0 layers: that is the short run
    assert {dim for _, dim in recipe.pairs or ()} == {128, 256, 384, 768}


def test_a_finished_part_says_so_and_does_nothing(machine: Machine) -> None:
    machine.call("1")
    machine.commands()
    status, said = machine.call("1")
    assert (status, machine.commands()) == (0, [])
    assert "finished: " in said
    assert "layers-6.json" in said


@pytest.mark.parametrize(("part", "short", "main"), PARTS)
def test_out_of_time_what_is_finished_is_scored_and_the_rest_goes_on(
    part: str, short: str, main: str, machine: Machine
) -> None:
    machine.hang.write_text(main, encoding="utf-8")
    status, said = machine.call(part, TIME="10s", BUDGET="4", KEEP="2")
    assert status == 124
    assert "the same call goes on" in said
    *_, scoring = machine.commands()
    assert str(machine.out / short) in scoring
    assert str(machine.out / main) not in scoring
    machine.hang.unlink()
    status, said = machine.call(part)
    resumed, scoring = machine.commands()
    assert status == 0, said
    assert resumed == ["distill", "--resume", "--out", str(machine.out / main)]
    assert {str(machine.out / short), str(machine.out / main)} < set(scoring)


def test_stopped_it_stops_emb_and_goes_on_later(machine: Machine) -> None:
    machine.hang.write_text("layers-6", encoding="utf-8")
    process = machine.start("1")
    here, end = machine.hang.with_suffix(".here"), time.monotonic() + 30
    while not here.exists():
        assert time.monotonic() < end
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=30)  # its end is emb's end, which holds stderr too
    assert process.returncode == 143
    assert "the same call goes on" in said
    machine.commands()
    machine.hang.unlink()
    assert machine.call("1")[0] == 0
    assert [command[:2] for command in machine.commands()] == [
        ["distill", "--resume"],
        ["evaluate", str(machine.out / "static")],
    ]


def test_an_error_of_emb_is_the_status(machine: Machine, tmp_path: Path) -> None:
    machine.surroundings["EMB"] = shutil.which("false") or "false"
    assert machine.call("2")[0] == 1
    assert not list(machine.out.glob("*.json"))


def test_a_part_that_is_none(machine: Machine) -> None:
    assert machine.call("3")[0] == 2
    assert json.dumps(machine.commands()) == "[]"
