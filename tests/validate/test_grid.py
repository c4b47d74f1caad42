"""Every slice of a run measured side by side, and the choice among them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from distilling import corpus_file, distil

import emb
from emb.artifact.manifest import Manifest
from emb.commands.export import TARGETS as OFFERED
from emb.errors import GateFailed, UsageError
from emb.validate.grid.choice import TARGETS, Limits, choose, dominates, mark
from emb.validate.grid.grid import Grid
from emb.validate.grid.measurements import MeasuredFile
from emb.validate.grid.report import as_text


def _point(
    name: str,
    mb: float = 1,
    dim: int = 8,
    ms: float = 1,
    speed: float = 100,
    quality: float = 0.5,
    passed: bool = True,
    dtype: str = "int8",
) -> MeasuredFile:
    return MeasuredFile(
        2,
        dim,
        dtype,
        Path(name),
        "onnx/model.onnx",
        f"emb export {name}",
        int(mb * 1e6),
        passed,
        latency_ms=ms,
        texts_per_second=speed,
        quality=quality,
    )


def test_a_point_is_dominated_only_if_another_is_as_good_in_everything() -> None:
    good, worse, smaller, noise = (
        _point("a"),
        _point("b", ms=2),
        _point("c", dim=4, quality=0.4),
        _point("d", ms=1.01, speed=99, quality=0.499),
    )
    assert dominates(good, worse)
    assert not dominates(good, smaller)
    assert not dominates(smaller, good)
    assert not dominates(good, noise)
    assert not dominates(noise, good)
    assert not dominates(good, good)


def test_states_say_by_what_a_point_is_beaten() -> None:
    points = [_point("a"), _point("b", dim=16, mb=2, ms=3, speed=50), _point("c", quality=0.9, passed=False)]
    mark(points)
    assert [point.state for point in points] == ["front", "dominated", "failed"]
    assert "2x8 int8" in points[1].reason
    assert "gate" in points[2].reason


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("cpu-latency", "fast"),
        ("cpu-throughput", "many"),
        ("smallest", "small"),
        ("best", "near"),
        ("browser", "small"),
    ],
)
def test_each_target_has_its_own_winner(target: str, expected: str) -> None:
    points = [
        _point("fast", mb=4, ms=1, speed=100),
        _point("many", mb=4, ms=2, speed=300),
        _point("small", mb=1, ms=2, speed=90),
        _point("near", mb=9, ms=9, speed=10, quality=0.52),
        _point("far", mb=0.1, ms=0.1, speed=999, quality=0.3),
        _point("failed", mb=0.1, ms=0.1, speed=999, quality=0.9, passed=False),
        _point("float", mb=0.5, ms=4, speed=9, dtype="fp32")
        if target == "browser"
        else _point("none", mb=9, ms=9, speed=9),
    ]
    choice = choose(points, target, Limits())
    assert str(choice.point.folder) == expected
    assert f"{choice.point.quality:.3f}" in choice.why


def test_limits_hold_and_say_what_stands_in_the_way() -> None:
    points = [_point("large", mb=30, quality=0.9), _point("small", mb=3, quality=0.2)]
    assert str(choose(points, "best", Limits(max_mb=10)).point.folder) == "small"
    assert str(choose(points, "smallest", Limits()).point.folder) == "large"
    assert str(choose(points, "smallest", Limits(min_quality=0)).point.folder) == "small"
    with pytest.raises(GateFailed, match=r"3\.0 MB"):
        choose(points, "best", Limits(max_mb=1))
    with pytest.raises(GateFailed, match="passed its gate"):
        choose([_point("a", passed=False)], "best", Limits())


def test_the_command_offers_every_target() -> None:
    assert set(OFFERED) == set(TARGETS)


@pytest.fixture(scope="module")
def run(bert_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("grid")
    return Path(distil(bert_folder, corpus_file(folder), folder / "run").run)


@pytest.fixture(scope="module")
def grid(run: Path) -> Grid:
    return emb.export_grid(run, threads=1, min_cosine=0.9)


def test_every_trained_pair_is_exported_measured_and_told(run: Path, grid: Grid) -> None:
    trained = {(pair.layers, pair.dim) for pair in Manifest.load(run / "student").pairs}
    assert {(point.layers, point.dim) for point in grid.points} >= trained
    assert {point.weight_dtype for point in grid.points} == {"fp32", "int8"}
    assert all(point.latency_ms > 0 and point.texts_per_second > 0 and 0 < point.quality <= 1 for point in grid.points)
    assert grid.report == run / "exports" / "grid.html"
    told = json.loads((run / "exports" / "grid.json").read_text())
    assert len(told["points"]) == len(grid.points)
    assert told["origin"].startswith(("texts kept", "6 texts kept"))
    html = grid.report.read_text(encoding="utf-8")
    assert all(point.command in html for point in grid.points)
    assert "http" not in html.replace("http://www.w3.org", "")
    assert all(point.name in as_text(grid) for point in grid.points)


def test_the_same_recipe_is_checked_not_chosen_again_at_other_dims(run: Path, grid: Grid) -> None:
    for layers in {point.layers for point in grid.points}:
        counts = [
            len(Manifest.load(point.folder).lineage.quantization.candidates)
            for point in grid.points
            if point.layers == layers and point.weight_dtype == "int8"
        ]
        assert sum(count > 1 for count in counts) >= 1


def test_a_target_keeps_the_chosen_artifact_alone(run: Path, tmp_path: Path) -> None:
    found = emb.export_grid(
        run, threads=1, min_cosine=0.9, target="smallest", keep=False, min_quality=0, out=tmp_path / "small"
    )
    assert found.choice is not None
    assert [path.name for path in tmp_path.iterdir()] == ["small"]
    assert found.folders == [tmp_path / "small"]
    manifest = Manifest.load(tmp_path / "small")
    manifest.verify(tmp_path / "small")
    smallest = min((point for point in found.points if point.passed), key=lambda point: point.bytes)
    assert (manifest.layers, manifest.dim) == (smallest.layers, smallest.dim)
    assert {variant.weight_dtype for variant in manifest.variants} == {"fp32", smallest.weight_dtype}
    assert emb.load(tmp_path / "small").encode(["a text"]).shape == (1, manifest.dim)
    assert (tmp_path / "small" / "grid.html").is_file()


def test_a_target_that_nothing_meets_keeps_the_grid(run: Path, tmp_path: Path) -> None:
    with pytest.raises(GateFailed, match="max_mb"):
        emb.export_grid(run, layers=[1], threads=1, target="best", max_mb=0.001, out=tmp_path / "grid")
    assert (tmp_path / "grid" / "grid.json").is_file()
    with pytest.raises(UsageError, match="known"):
        emb.export_grid(run, target="toaster")


def test_commands_make_the_same_files_again(run: Path, tmp_path: Path) -> None:
    found = emb.export_grid(
        run,
        layers=[1],
        dims=[16],
        threads=1,
        int4=True,
        heal=1.0,
        min_cosine=0.5,
        max_mb=1,
        reduce_range=True,
        out=tmp_path / "grid",
    )
    start = f"emb export {run} --layers 1 --dim 16"
    assert {point.weight_dtype: point.command for point in found.points} == {
        "fp32": f"{start} --heal 1s",
        "int4": f"{start} --int4 --heal 1s",
        "int8": f"{start} --int8 --reduce-range --min-cosine 0.5 --max-mb 1 --heal 1s",
    }
    healing = Manifest.load(found.points[0].folder).lineage.healing
    assert {each.weights for each in healing.files} == {"fp32", "int8", "int4"}
    assert healing.seconds > 0


def test_what_a_healed_slice_gained_is_not_said_of_files_made_from_it_later(run: Path, tmp_path: Path) -> None:
    [healed] = emb.export(run, layers=[1], dims=[16], threads=1, int4=True, heal=1.0, out=tmp_path / "healed")
    [again] = emb.export(healed, threads=1, out=tmp_path / "again")
    before, after = (Manifest.load(folder).lineage.healing for folder in (healed, again))
    assert before.files
    assert after == replace(before, files=[])
    assert emb.validate(again, threads=1, max_texts=20).healing is None
