"""What the page works out, run by node: how two lists differ, and which encoder a switch means."""

from __future__ import annotations

import json
import shutil
import subprocess
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

pytestmark = [
    pytest.mark.interop,
    pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed"),
]


def _run(place: Path, script: str, *given: Any) -> Any:
    """What the script, which sees the modules and `given`, gives to `tell`."""
    with resources.as_file(resources.files("emb.search.server") / "page") as page:
        for name in ("ranks.js", "switch.js"):
            shutil.copyfile(page / name, place / name.replace(".js", ".mjs"))
    (place / "run.mjs").write_text(
        'import * as ranks from "./ranks.mjs"; import * as change from "./switch.mjs";\n'
        f"const given = {json.dumps(given)}, tell = (value) => console.log(JSON.stringify(value));\n{script}",
        encoding="utf-8",
    )
    done = subprocess.run(["node", str(place / "run.mjs")], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_marks_say_what_the_student_does_in_both_lists(tmp_path: Path) -> None:
    told = _run(tmp_path, "tell(ranks.marks(...given))", ["a", "b", "c", "x"], ["a", "c", "y", "z", "b"])
    assert told == {
        "student": ["= same rank", "▲ 3, teacher’s rank 5", "▼ 1, teacher’s rank 2", "○ not in the teacher’s first 5"],
        "teacher": [
            "= same rank",
            "▼ 1, student’s rank 3",
            "○ not in the student’s first 4",
            "○ not in the student’s first 4",
            "▲ 3, student’s rank 2",
        ],
    }
    assert _run(tmp_path, "tell(ranks.shared(...given))", ["a", "b", "x"], ["a", "y", "b"]) == {"both": 2, "same": 1}
    assert _run(tmp_path, "tell(ranks.marks(...given))", [], []) == {"student": [], "teacher": []}


def _encoder(name: str, layers: int | None, precision: str, *dims: int, side: str = "query") -> dict[str, Any]:
    return {"name": name, "side": side, "layers": layers, "precision": precision, "dims": list(dims)}


GRID = [
    _encoder("a", 2, "int8", 768, 128),
    _encoder("b", 0, "int8", 768, 128),
    _encoder("c", 0, "int8", 128),
    _encoder("d", 2, "fp32", 768, 128),
    _encoder("t", 12, "fp32", 768, 128, side="teacher"),
]


def test_an_encoder_made_for_fewer_dims_comes_before_one_that_is_cut(tmp_path: Path) -> None:
    told = _run(tmp_path, "tell(change.choicesOf(given[0]))", GRID)
    assert [tuple(each.values()) for each in told] == [
        ("a", "2", "768", "int8"),
        ("a", "2", "128", "int8"),
        ("b", "0", "768", "int8"),
        ("c", "0", "128", "int8"),
        ("d", "2", "768", "fp32"),
        ("d", "2", "128", "fp32"),
    ]


def test_encoders_that_nothing_else_tells_apart_have_their_names(tmp_path: Path) -> None:
    given = [_encoder("a", 2, "int8", 768), _encoder("b", 2, "int8", 768), _encoder("c", None, "fp32", 768)]
    told = _run(tmp_path, "tell(change.choicesOf(given[0]).map(change.titleOf))", given)
    assert told == ["2 layers (a), 768 dims, int8", "2 layers (b), 768 dims, int8", "c, 768 dims, fp32"]


@pytest.mark.parametrize(
    ("axis", "value", "expected"),
    [("layers", "0", "b"), ("dim", "128", "a"), ("precision", "fp32", "d")],
)
def test_a_switch_changes_no_more_than_it_must(axis: str, value: str, expected: str, tmp_path: Path) -> None:
    script = "const all = change.choicesOf(given[0]); tell(change.nearest(all, all[0], given[1], given[2]))"
    told = _run(tmp_path, script, GRID, axis, value)
    assert (told["encoder"], told[axis]) == (expected, value)
    # From two layers in fp32, no layers are to be had in int8 alone: the dim stays.
    script = "const all = change.choicesOf(given[0]); tell(change.nearest(all, all[5], 'layers', '0'))"
    assert _run(tmp_path, script, GRID) == {"encoder": "c", "layers": "0", "dim": "128", "precision": "int8"}


def test_values_are_in_order(tmp_path: Path) -> None:
    script = "const all = change.choicesOf(given[0]); tell(change.AXES.map((axis) => change.valuesOf(all, axis)))"
    assert _run(tmp_path, script, GRID) == [["0", "2"], ["128", "768"], ["int8", "fp32"]]
