"""The benchmarks start, and the arithmetic they share is right."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from xml.etree import ElementTree

import numpy as np
import pytest
from calibrating import shifted
from retrieval_set import write_set
from serving import listening
from tiny import SENTENCES

from emb.artifact.runs import write_status
from emb.data.evaluation_sets import RetrievalTask, read_tasks
from emb.model.embedding_model import load_model
from emb.quantize.vectors.binary import ROTATIONS
from emb.runtime.encoder import load
from emb.search.server.app import create_app
from emb.similarity import truncated, unit

FOLDER = Path(__file__).resolve().parents[1] / "benchmarks"
SCRIPTS = sorted(path.stem for path in FOLDER.glob("*.py") if path.stem not in ("browser", "common", "peer_worker"))


@pytest.fixture(scope="module")
def common() -> ModuleType:
    """The shared module."""
    return loaded("common")


def loaded(name: str) -> ModuleType:
    """A module of `benchmarks`, loaded by its path: it is no package."""
    spec = importlib.util.spec_from_file_location(f"benchmarks_{name}", FOLDER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_every_benchmark_is_here() -> None:
    assert {
        "train",
        "web_page",
        "whole_search",
        "capture",
        "codecs",
        "encode",
        "index_search",
        "startup",
        "memory",
        "qwen3_shape",
        "base_shapes",
        "byte_words",
        "calibration",
        "peers",
        "offers",
        "qlora_memory",
        "query_encoders",
        "roofline",
        "rotation",
        "serving",
        "soak",
        "engines",
        "migration",
        "smaller_tables",
        "stream",
    } == set(SCRIPTS)


def test_help_works_and_says_where_the_json_goes() -> None:
    # One process for all: they share imports that take seconds.
    code = (
        "import runpy, sys\n"
        "sys.path.insert(0, sys.argv[1])\n"
        "for name in NAMES:\n"
        "    sys.argv = [f'{sys.path[0]}/{name}.py', '--help']\n"
        "    try:\n"
        "        runpy.run_path(sys.argv[0], run_name='__main__')\n"
        "    except SystemExit as end:\n"
        "        print('exit', name, end.code)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code.replace("NAMES", repr(SCRIPTS)), str(FOLDER)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert [line for line in done.stdout.splitlines() if line.startswith("exit")] == [
        f"exit {name} 0" for name in SCRIPTS
    ]
    assert all(f"{name}.json" in "".join(done.stdout.split()) for name in SCRIPTS)


def test_the_ratio_is_that_of_the_medians(common: ModuleType) -> None:
    assert common.ratio([1.0, 6.0, 100.0], [2.0, 3.0, 1.0]) == 3.0
    assert common.ratio([4.0], [8.0]) == 0.5


def test_a_series_is_summed_up_by_median_and_extremes(common: ModuleType) -> None:
    found = common.Series("emb", "texts/s", [5.0, 1.0, 9.0, 3.0]).summary()
    assert found == {"unit": "texts/s", "median": 4.0, "min": 1.0, "max": 9.0, "rounds": [5.0, 1.0, 9.0, 3.0]}


def test_rounds_are_interleaved_after_a_warm_up(common: ModuleType) -> None:
    calls: list[str] = []

    def contender(name: str) -> float:
        calls.append(name)
        return float(len(calls))

    values = common.interleave({"a": lambda: contender("a"), "b": lambda: contender("b")}, 2)
    assert calls == ["a", "b", "a", "b", "a", "b"]
    assert values == {"a": [3.0, 5.0], "b": [4.0, 6.0]}


@pytest.mark.parametrize(
    ("value", "at_most", "reached"), [(3.0, False, True), (2.9, False, False), (3.0, True, True), (3.1, True, False)]
)
def test_a_target_is_a_floor_or_a_ceiling(common: ModuleType, value: float, at_most: bool, reached: bool) -> None:
    assert common.Figure("figure", value, 3, at_most).reached is reached
    assert common.Figure("figure", value, None, at_most).reached is None


def test_the_report_is_written_without_the_folders_of_this_machine(
    common: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        sys, "argv", ["benchmarks/train.py", "--texts", "/home/someone/texts.jsonl.gz", "--limit", "12"]
    )
    report = common.Report(
        "train", {"texts": 12}, [common.Series("emb", "texts/s", [1.234567])], [common.Figure("emb / peer", 3.5, 3)]
    )
    report.write(tmp_path / "train.json")
    found = json.loads((tmp_path / "train.json").read_text(encoding="utf-8"))
    assert found["command"] == "python benchmarks/train.py --texts texts.jsonl.gz --limit 12"
    assert found["series"]["emb"]["median"] == 1.2346
    assert found["figures"] == [{"name": "emb / peer", "value": 3.5, "target": 3, "at_most": False, "reached": True}]
    assert {"cpu", "cores", "flags"} <= set(found["machine"])
    assert {"python", "torch", "onnxruntime"} <= set(found["versions"])


def test_texts_are_drawn_from_the_whole_file_and_always_the_same(common: ModuleType, tmp_path: Path) -> None:
    file = tmp_path / "texts.jsonl"
    file.write_text(
        "".join(json.dumps({"text": f"text {n}", "kind": "query"}) + "\n" for n in range(200)), encoding="utf-8"
    )
    drawn = [item.text for item in common.sample(str(file), 20)]
    assert len(set(drawn)) == 20
    assert drawn != [f"text {n}" for n in range(20)]
    assert drawn == [item.text for item in common.sample(str(file), 20)]


def test_the_users_cache_is_left_alone(common: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:

    monkeypatch.setenv("EMB_CACHE", "mine")
    with common.temporary_cache() as folder:
        assert os.environ["EMB_CACHE"] == str(folder)
    assert os.environ["EMB_CACHE"] == "mine"
    assert not folder.exists()


def test_a_server_is_asked_for_every_text_by_so_many_clients(
    common: ModuleType, bert_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "common", common)
    serving = loaded("serving")
    app = create_app(load(bert_folder, threads=1))
    with listening(app) as address:
        seconds, delays, processor = serving.ask_all(address, SENTENCES, 8)
    assert len(delays) == app.state.service.traffic.answered == len(SENTENCES)
    assert max(delays) <= seconds
    assert processor > 0


def test_a_soaked_server_is_held_to_every_texts_own_vector(
    common: ModuleType, bert_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "common", common)
    serving = loaded("serving")
    monkeypatch.setitem(sys.modules, "serving", serving)
    soak, encoder = loaded("soak"), load(bert_folder, threads=1)
    own = dict(zip(SENTENCES, encoder.encode(SENTENCES), strict=True))
    mixed = own | {SENTENCES[0]: own[SENTENCES[1]]}
    with listening(create_app(encoder)) as address:
        found = serving.Server(SimpleNamespace(pid=os.getpid()), address)
        for expected, wrong in ((own, 0), (mixed, 3)):
            load_of = soak.Load(found, expected, 10)
            asyncio.run(load_of.ask_all(iter(3 * list(SENTENCES)), 8))
            assert (load_of.received, load_of.seen["wrong"]) == (3 * len(SENTENCES), wrong)
            assert len(load_of.memory) == 3 * len(SENTENCES) // 10
            assert min(row["mb"] for row in load_of.memory) > 1


def test_delays_are_summed_up_round_by_round_without_the_first(
    common: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "common", common)
    found = loaded("serving").points([9.0] * 21 + [each / 1000 for each in range(21)] + [0.5] * 21, 21)
    assert found == {"p50": [10.0, 500.0], "p95": [19.0, 500.0]}


def test_what_a_query_encoder_keeps_is_measured_on_its_files(
    common: ModuleType, monkeypatch: pytest.MonkeyPatch, student_folder: Path, bert_folder: Path, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "common", common)
    monkeypatch.setenv("EMB_CACHE", str(tmp_path / "cache"))
    query_encoders = loaded("query_encoders")
    run = tmp_path / "run"
    shutil.copytree(student_folder, run / "student")
    write_status(run, "finished")
    [task] = read_tasks(
        [write_set(tmp_path / "tinyset", [*SENTENCES, *(f"{a} {b}" for a in SENTENCES for b in SENTENCES)])]
    )
    [teacher], rows = query_encoders.of_collection(task, [run], str(bert_folder), [32, 16])
    assert sorted(teacher) == [16, 32]
    depths = load_model(run / "student").exits
    kinds = [("fp32", "float"), ("int8", "float"), ("int8", "int8"), ("int8", "bits")]
    assert [(row.layers, row.query, row.documents) for row in rows] == [(n, *kind) for n in depths for kind in kinds]
    small = rows[1]
    wide = run / "exports" / f"{small.layers}x32"
    file = query_encoders.int8_file(wide)
    assert "quantized" in file or "qint8" in file
    assert small.megabytes == {32: (wide / file).stat().st_size / 1e6}
    static = replace(small, layers=0, megabytes={32: 8.0, 16: 4.0})
    assert [query_encoders.megabytes(static, dim) for dim in (16, 24, 32)] == [4.0, 6.0, 8.0]
    assert query_encoders.megabytes(small, 16) == small.megabytes[32]
    assert small.milliseconds > 0
    queries = load(wide, file=file, threads=1).encode_query(task.sides[0])
    _, documents = common.teacher_vectors(task, str(bert_folder))
    assert small.scores[16] == pytest.approx(task.score(truncated(queries, 16), truncated(documents, 16)), abs=0.5)
    query_encoders.write_picture(tmp_path / "a.svg", [small], 50.0, "tinyset")
    assert ElementTree.parse(tmp_path / "a.svg").getroot().tag.endswith("svg")


def test_every_way_to_store_a_cut_vector_is_scored(common: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "common", common)
    rotation = loaded("rotation")
    random = np.random.default_rng(0)
    documents = unit(random.normal(size=(150, 16)) * np.geomspace(0.05, 1, 16)).astype(np.float32)
    queries = unit(documents[:40] + 0.1 * random.normal(size=(40, 16))).astype(np.float32)
    names = [str(row) for row in range(150)]
    relevant = {f"q{name}": {name: 1} for name in names[:40]}
    task = RetrievalTask("tiny", {name: f"query {name}" for name in relevant}, dict.fromkeys(names, "text"), relevant)
    found = rotation.scores(task, queries, documents, [16, 4])
    ways = {f"bits ({each}), {how}" for each in ROTATIONS for how in ("float queries", "coded queries", "+ int8")}
    assert set(found) == {f"{side}, {way}" for side in ("as it is", "rotated") for way in {"float", "int8", *ways}}
    plain, turned = found["as it is, float"], found["rotated, float"]
    assert turned[16] == pytest.approx(plain[16])
    assert turned[4] > plain[4] + 10  # the first dims say least in the one, most in the other
    for way in ways - {"bits (none), coded queries"}:
        assert found[f"rotated, {way}"][16] <= found["rotated, int8"][16] + 1
    assert found["rotated, bits (itq), + int8"][16] > found["rotated, bits (itq), coded queries"][16]


def test_smaller_tables_are_held_against_the_whole_one(
    common: ModuleType, monkeypatch: pytest.MonkeyPatch, bert_folder: Path, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "common", common)
    tables = loaded("smaller_tables")
    model = load_model(bert_folder)
    readings = tables.Readings(tables.tokenizer_json(model), SENTENCES, tables.fixed_ids(model))
    known = {"held out": tables.known_vectors(model, model.tokenizer().encode(SENTENCES), tmp_path)}
    domains = {"held out": SENTENCES}

    def kept_by(way: str, rows: int) -> dict[str, float]:
        ground = tables.Ground(model, readings, rows, 3, tmp_path)
        smaller, kept = tables.WAYS[way](ground)
        assert len(kept) == rows == len(tables.embedding_of(smaller).weight)
        found: dict[str, float] = tables.scores(ground, smaller, kept, domains, known)
        return found

    whole = kept_by("counts", len(readings.ids))
    assert whole == pytest.approx({"cosine, held out": 1.0, "length, held out": 1.0})
    for way in tables.WAYS:
        found = kept_by(way, len(readings.always) + 40)
        assert found["cosine, held out"] < 0.999
        assert found["length, held out"] > 1.05


def test_two_stages_are_held_against_an_exact_search(
    common: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "common", common)
    index_search = loaded("index_search")
    vectors, queries = index_search.clustered(300, 20, 64)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    index = index_search.built(vectors, tmp_path / "i", "float16")
    seconds = {"emb binary → float16": 1.0}
    built = dict(index_search.contenders(vectors, 100, {"faiss HNSW32"}, seconds))
    assert set(built) == {"faiss flat", "faiss RaBitQ", "faiss RaBitQ → int8"}
    searches = {
        "emb binary → float16": lambda query: index_search.found_by(index, 100, query),
        **{name: lambda query, each=each: index_search.nearest(each, query) for name, each in built.items()},
    }
    found = index_search.measured(searches, queries)
    exact = np.argsort(-queries @ vectors.T, axis=1)[:, :10].tolist()
    assert index_search.recall(exact, found["faiss flat"][1]) == 1
    assert index_search.recall(exact, found["emb binary → float16"][1]) > 0.98
    memory = {name: index.memory if name.startswith("emb") else 4 * vectors.size for name in found}
    report = index_search.report(found, memory, seconds, {})
    assert [figure.reached for figure in report.figures] == [True, memory["emb binary → float16"] <= 9600, None]


def test_thresholds_are_scored_on_similarities_and_on_each_map(
    common: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "common", common)
    found = loaded("calibration").scores(shifted())
    assert set(found) == {"similarity", "platt", "adapter (scores)", "adapter (scores, vector)"}
    raw, adapter = found["similarity"], found["adapter (scores)"]
    assert adapter.average_precision > raw.average_precision + 0.3
    assert found["platt"].error < raw.error
