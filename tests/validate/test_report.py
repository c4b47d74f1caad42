"""The page and the terminal table: complete, honest about failures, self-contained, well-formed."""

from __future__ import annotations

import itertools
import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from emb.artifact.lineage import DataRecord, HealedFile, HealingRecord, Lineage
from emb.artifact.manifest import Kind, Manifest, PairScores
from emb.report.charts import Axis, Series, line_chart
from emb.report.gain_table import gain_rows
from emb.validate.findings import Gate, ParityReport, VariantReport
from emb.validate.pareto import front, plotted_files
from emb.validate.report import render
from emb.validate.terminal import as_text
from emb.validate.training_charts import read_log

HOSTILE = '<script>alert("1")</script>\x07\u202e'
_VOID = {"meta", "link", "br", "hr", "img", "input"}


class _Page(HTMLParser):
    """Checks that tags close in order; collects tags, attributes and visible text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.text = ""
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in _VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def _variant(
    file: str, weights: str, quantizer: str | None, size: int, cosine: float, speed: float, passed: bool = True
) -> VariantReport:
    figures: dict[str, float | None] = {
        "texts": 90,
        "max_abs_diff": 1e-6,
        "mean_cosine": 1.0,
        "p01_cosine": 1.0,
        "min_cosine": cosine,
        "spearman": 1.0,
        "overlap_at_10": 1.0,
    }
    found = VariantReport(
        file,
        weights,
        "float32",
        quantizer,
        size,
        latency_ms={"p50": 1.0, "p95": 2.0},
        speed={"texts_per_second": speed, "tokens_per_second": 9 * speed},
    )
    found.settings = {"as a client": figures, "batch 1": figures}
    found.worst = [{"cosine": cosine, "setting": "batch 1", "kind": "query", "name": "", "text": HOSTILE}]
    found.gates, found.passed = [Gate("min cosine to the torch slice", cosine, 0.99, passed)], passed
    return found


def _report(*variants: VariantReport) -> ParityReport:
    machine = {"processor": "A <processor> & more", "threads": 2, "onnxruntime": "1.0"}
    own = {"speed": {"texts_per_second": 50.0, "tokens_per_second": 450.0}, "teacher": None}
    passed = all(variant.passed for variant in variants)
    texts, teacher = {"text": 20, "odd": 64, "long": 6}, {"name": None, "reason": "none was named"}
    texts, teacher = {"text": 20, "odd": 64, "long": 6}, {"name": None, "reason": "none was named"}
    return ParityReport(
        "a",
        "slice",
        2,
        16,
        passed,
        "2026-01-01T00:00:00+00:00",
        machine,
        texts,
        "texts given",
        list(variants),
        own,
        teacher,
    )


def _manifest(**lineage: Any) -> Manifest:
    return Manifest(Kind.SLICE, 2, 16, "mean", True, 64, lineage=Lineage.read(lineage))


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run with a log, a student of three pairs, an evaluation, and a place for the artifact."""
    log: list[dict[str, Any]] = [{"step": step, "loss": 1 / step} for step in range(1, 1001)]
    log += [
        {"step": step, "cosine": {"2x16": step / 2000, "3x16": step / 1500}, "overlap": {"2x16": 0.1, "3x16": 0.2}}
        for step in (500, 1000)
    ]
    (tmp_path / "log.jsonl").write_text("\n".join(json.dumps(line) for line in log) + '\n{"step": 10', encoding="utf-8")
    (tmp_path / "run.json").write_text("{}", encoding="utf-8")
    (tmp_path / "student").mkdir()
    pairs = [PairScores(layers, dim, cosine=0.5, overlap=0.4) for layers in (2, 3) for dim in (16, 48)]
    Manifest(Kind.STUDENT, 3, 48, "mean", True, 64, pairs=pairs).save(tmp_path / "student")
    row = {
        "task": "scifact",
        "metric": "nDCG@10",
        "model": "mine",
        "weights": "fp32",
        "vectors": "float32",
        "side": "asymmetric",
        "value": 61.25,
    }
    scores = [row | {"layers": layers, "dim": 16} for layers in (2, 3)] + [
        row | {"model": "big", "layers": 12, "dim": 16}
    ]
    (tmp_path / "evaluation.json").write_text(json.dumps({"teacher": "big", "scores": scores}), encoding="utf-8")
    artifact = tmp_path / "exports" / "2x16"
    artifact.mkdir(parents=True)
    return tmp_path


def test_the_page_asks_nobody_for_anything(run: Path) -> None:
    page = _Page(
        render(run / "exports/2x16", _manifest(), _report(_variant("onnx/model.onnx", "fp32", None, 10**7, 1.0, 100.0)))
    )
    assert not {"script", "img", "iframe", "object", "embed"} & set(page.tags)
    assert [value for name, value in page.attributes if name in ("src", "href", "xlink:href", "srcset", "action")] == [
        "data:,"
    ]
    style = "".join(value for name, value in page.attributes if name == "style") + page.text
    assert not re.search(r"url\(|@import|https?://", style)


def test_text_of_others_stays_text(run: Path) -> None:
    raw = render(run / "exports/2x16", _manifest(), _report(_variant("onnx/<b>.onnx", "fp32", None, 10**7, 1.0, 100.0)))
    assert "<script" not in raw
    page = _Page(raw)
    assert '<script>alert("1")</script>\\x07\\u202e' in page.text  # invisible characters are shown as escapes
    assert "A <processor> & more" in page.text


def test_failures_are_said(run: Path) -> None:
    report = _report(
        _variant("onnx/model.onnx", "fp32", None, 10**7, 1.0, 100.0),
        _variant("onnx/b.onnx", "int8", "dynamic", 10**6, 0.5, 300.0, passed=False),
    )
    text = _Page(render(run / "exports/2x16", _manifest(), report)).text
    assert "✗ 1 of 2 files failed" in text
    assert "Not measured: none was named." in text
    terminal = as_text(report)
    assert "FAILED onnx/b.onnx: min cosine to the torch slice is 0.5, must be at least 0.99" in terminal
    assert (
        "✓ All 2 files passed"
        in _Page(
            render(run / "exports/2x16", _manifest(), _report(*[_variant("a", "fp32", None, 1, 1.0, 1.0)] * 2))
        ).text
    )


def test_pictures_of_the_run(run: Path) -> None:
    page = _Page(
        render(run / "exports/2x16", _manifest(), _report(_variant("onnx/model.onnx", "fp32", None, 10**7, 1.0, 100.0)))
    )
    for title in (
        "Training loss",
        "Held-out cosine to the teacher",
        "Held-out neighbour overlap@10",
        "mine, scifact: nDCG@10, asymmetric, fp32",
    ):
        assert title in page.text
    assert "big, scifact" not in page.text  # the teacher has no place in a grid of exits
    labels = [value for name, value in page.attributes if name == "aria-label"]
    assert any("2 × 16: from 0.25 to 0.5" in label for label in labels)
    assert page.tags.count("svg") == 4
    assert page.text.count("this artifact") == 4  # three grids, and the sentence above them


def test_no_run_no_curves(tmp_path: Path) -> None:
    page = _Page(render(tmp_path, _manifest(), _report(_variant("onnx/model.onnx", "fp32", None, 10**7, 1.0, 100.0))))
    assert "Training" not in page.text
    assert "Layers × dims" not in page.text
    assert read_log(tmp_path) == []


def test_a_log_cut_short_is_read_to_there(run: Path) -> None:
    assert len(read_log(run / "exports/2x16")) == 1002


def test_candidates_and_their_front(run: Path) -> None:
    tried = [
        {
            "name": "chosen",
            "what": "w",
            "bytes": 10,
            "min_cosine": 0.995,
            "texts_per_second": 200,
            "passed": True,
        },
        {"name": "slow", "what": "w", "bytes": 20, "min_cosine": 0.999, "texts_per_second": 100, "passed": True},
        {
            "name": "worse",
            "what": "w",
            "bytes": 20,
            "min_cosine": 0.992,
            "texts_per_second": 150,
            "passed": True,
        },
        {"name": "coarse", "what": "w", "bytes": 9, "min_cosine": 0.9, "texts_per_second": 300, "passed": False},
        {
            "name": "did not run",
            "what": "w",
            "bytes": 0,
            "min_cosine": None,
            "texts_per_second": None,
            "passed": False,
        },
    ]
    manifest = _manifest(quantization={"chosen": "chosen", "min_cosine": 0.99, "candidates": tried})
    report = _report(
        _variant("onnx/model.onnx", "fp32", None, 40, 1.0, 50.0),
        _variant("onnx/int8.onnx", "int8", "chosen", 10, 0.995, 400.0),
    )
    found = {each.name: each for each in plotted_files(manifest, report)}
    assert {name: each.state for name, each in found.items()} == {
        "fp32": "ships",
        "int8 (chosen)": "ships",
        "slow": "tried",
        "worse": "tried",
        "coarse": "failed",
    }
    assert found["slow"].texts_per_second == 200  # twice what it was: so is the chosen one's
    assert [speed for speed, _ in front(list(found.values()))] == [50, 200, 400, 600]
    text = _Page(render(run / "exports/2x16", manifest, report)).text
    assert "slow: tried, not chosen" in text
    assert "gate of int8: 0.99" in text


@pytest.mark.parametrize(("low", "high"), [(0, 1), (0.2, 0.93), (0, 4990), (-3, 7), (0.98, 0.981)])
def test_ticks_are_round_and_inside(low: float, high: float) -> None:
    ticks = Axis(low, high, 0, 100).ticks()
    assert 3 <= len(ticks) <= 7
    assert all(low <= tick <= high for tick in ticks)
    assert all(math.isclose(b - a, ticks[1] - ticks[0]) for a, b in itertools.pairwise(ticks))
    assert Axis(1e-7, 1, 0, 70, log=True).place(1e-3) == pytest.approx(40)


def test_long_lines_are_thinned_and_flat_ones_drawn() -> None:
    chart = line_chart("t", [Series("a", list(range(10_000)), [math.sin(x / 500) for x in range(10_000)])], "x", "y")
    assert chart.count("L") < 300
    assert "nan" not in line_chart("t", [Series("a", [1, 2], [0.0, 0.0])], "x", "y")


def test_gains_are_told_before_and_after_and_bits_as_bits() -> None:
    before, after = (
        dict.fromkeys(("cosine", "overlap", "asymmetric"), 0.1),
        dict.fromkeys(("cosine", "overlap", "asymmetric"), 0.2),
    )
    files = [HealedFile("int8", vectors, before, after) for vectors in ("float32", "ubinary")]
    healing = HealingRecord(["int8"], True, 1, 2, 3.0, DataRecord("d", 2, 1), {}, files)
    assert gain_rows(healing) == [
        ("int8", *["0.1000 → 0.2000"] * 3),
        ("int8 → binary, Hamming", *["0.1000 → 0.2000"] * 3),
    ]
