"""`emb calibrate` from texts to relevance, and who may use it."""

from __future__ import annotations

import dataclasses
import itertools
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import tiny
from calibrating import shifted
from click.testing import CliRunner

import emb
from emb.artifact.bundle import Bundle
from emb.artifact.fingerprints import weights_hash
from emb.cli import cli
from emb.errors import ArtifactError, DataError, UsageError
from emb.files import write_json
from emb.search.calibration.apply import FILE, Calibration, Side, relevant_hits
from emb.search.calibration.choose import choose_map
from emb.search.calibration.judged import judged_by_model, read_asked

TEXTS = [" ".join(pair) for pair in itertools.combinations(tiny.SENTENCES[:12], 2)]  # 66


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.tiny_bert(tmp_path_factory.mktemp("model") / "model", layers=1)


@pytest.fixture(scope="module")
def documents(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("texts") / "docs.txt"
    path.write_text("\n".join(TEXTS), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def fitted(model: Path, documents: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that is its own documents' encoder, calibrated on documents alone."""
    folder = shutil.copytree(model, tmp_path_factory.mktemp("fitted") / "model")
    emb.calibrate(folder, documents, doc=folder, max_queries=120)
    return folder


def made_up(dim: int = 6) -> Calibration:
    """A calibration of made-up rankings."""
    found = choose_map(shifted())
    sides = Side("small", "a" * 64), Side("large", "b" * 64)
    return Calibration(found.kind, found.map, *sides, dim, "made up", True, 120, 40, 0, found.figures, found.thresholds)


def test_documents_alone_are_enough(fitted: Path, documents: Path) -> None:
    found = Calibration.load(fitted)
    assert (found.judged, found.queries, found.documents, found.dim) == (False, 120, len(TEXTS), 32)
    encoder = emb.load(fitted)
    queries = encoder.encode_query(TEXTS[:3])
    scores = -np.sort(-encoder.similarity(queries, encoder.encode_document(TEXTS)), axis=1)
    relevance = found.relevance(queries, scores)
    assert relevance.shape == (3, len(TEXTS))
    assert ((relevance >= 0) & (relevance <= 1)).all()
    assert (np.diff(relevance, axis=1) <= 0).all()


def test_a_calibration_is_no_part_of_the_model(fitted: Path, model: Path) -> None:
    assert weights_hash(fitted) == weights_hash(model)


def test_a_signature_that_no_longer_holds_is_told(
    fitted: Path, documents: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = shutil.copytree(fitted, tmp_path / "model")
    emb.calibrate(folder, documents, doc=folder, max_queries=60)
    assert "signature" not in capsys.readouterr().err
    (folder / "SHA256SUMS").write_text("of the files before\n", encoding="utf-8")
    emb.calibrate(folder, documents, doc=folder, max_queries=60)
    assert f"sign it again: emb sign {folder} --key KEY" in " ".join(capsys.readouterr().err.split())


def test_it_is_read_as_it_was_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("emb.search.calibration.apply.fingerprint", lambda folder, file: "a" * 64)
    found, pairs = made_up(), shifted()
    found.save(tmp_path)
    again = Calibration.load(tmp_path)
    assert again == found
    np.testing.assert_array_equal(
        again.relevance(pairs.vectors, pairs.scores), found.relevance(pairs.vectors, pairs.scores)
    )


def test_an_edited_file_is_refused(fitted: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(fitted, tmp_path / "model")
    content = json.loads((folder / FILE).read_text(encoding="utf-8"))
    write_json(folder / FILE, content | {"map": content["map"] | {"offset": 9.0}})
    with pytest.raises(ArtifactError, match="changed since it was written"):
        Calibration.load(folder)
    write_json(folder / FILE, content | {"schema": 99})
    with pytest.raises(ArtifactError, match="not a calibration of schema"):
        Calibration.load(folder)
    (folder / FILE).unlink()
    with pytest.raises(ArtifactError, match="no such file"):
        Calibration.load(folder)


def test_another_encoder_is_refused_by_name(fitted: Path, tmp_path: Path) -> None:
    other = tiny.tiny_bert(tmp_path / "other", layers=2)
    shutil.copy(fitted / FILE, other / FILE)
    with pytest.raises(ArtifactError, match="for queries encoded by model"):
        Calibration.load(other)
    found = Calibration.load(fitted)
    found.require(found.query.fingerprint, found.document.fingerprint)
    with pytest.raises(ArtifactError, match="for documents encoded by model"):
        found.require(found.query.fingerprint, "0" * 64)


def test_a_bundle_carries_its_own(model: Path, documents: Path, tmp_path: Path) -> None:
    folder = emb.bundle(model, model, out=tmp_path / "both")
    found = emb.calibrate(folder, [documents], max_queries=100, max_documents=60)
    record = Bundle.load(folder)
    assert (found.query.fingerprint, found.document.fingerprint) == (
        record.query.fingerprint,
        record.document.fingerprint,
    )
    assert (found.queries, found.documents) == (100, 60)
    assert Calibration.load(folder) == found
    emb.load(folder).encode_query("it opens as before")
    with pytest.raises(UsageError, match="has its own documents' model"):
        emb.calibrate(folder, documents, doc=model)
    Bundle(
        record.query,
        dataclasses.replace(record.document, fingerprint="0" * 64),
        record.dim,
        record.normalize,
        record.similarity,
        record.space,
    ).save(folder)
    with pytest.raises(ArtifactError, match="for documents encoded by model"):
        Calibration.load(folder)


def _beir(folder: Path, judged: int) -> Path:
    (folder / "qrels").mkdir(parents=True)
    rows = [json.dumps({"_id": f"d{row}", "text": text}) for row, text in enumerate(TEXTS)]
    (folder / "corpus.jsonl").write_text("\n".join(rows), encoding="utf-8")
    asked = [json.dumps({"_id": str(row), "text": text[:-3]}) for row, text in enumerate(TEXTS)]
    (folder / "queries.jsonl").write_text("\n".join(asked), encoding="utf-8")
    grades = ["query-id\tcorpus-id\tscore", *(f"{row}\td{row}\t1" for row in range(judged))]
    (folder / "qrels" / "test.tsv").write_text("\n".join(grades), encoding="utf-8")
    return folder


def test_judgements_are_used_where_there_are_some(model: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(model, tmp_path / "model")
    args = ["calibrate", str(folder), "--data", str(_beir(tmp_path / "set", 60)), "--doc", str(model)]
    done = CliRunner().invoke(cli, args, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert "(kept)" in done.output
    assert "judged by people" in done.output
    found = Calibration.load(folder)
    assert (found.judged, found.queries, found.data) == (True, 60, "set")
    before = (folder / FILE).read_bytes()
    with pytest.raises(DataError, match=r"\d+ of 9 queries find .* 50 are needed"):
        emb.calibrate(folder, _beir(tmp_path / "few", 9), doc=model)
    assert (folder / FILE).read_bytes() == before


def test_a_crash_while_writing_leaves_the_former_one(
    fitted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = shutil.copytree(fitted, tmp_path / "model")
    before = {path.name for path in folder.iterdir()}
    found = Calibration.load(folder)

    def torn(path: Path, text: str, **_: str) -> int:
        path.write_bytes(text.encode()[:100])
        raise OSError("the power is gone")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "write_text", torn)
        with pytest.raises(OSError, match="power"):
            dataclasses.replace(found, kind="another").save(folder)
    assert Calibration.load(folder) == found
    assert {path.name for path in folder.iterdir()} == before


def test_other_dims_and_short_lists_are_refused() -> None:
    found, random = made_up(), np.random.default_rng(0)
    scores = random.normal(size=(2, 10))
    assert found.relevance(random.normal(size=(2, 6)), scores).shape == (2, 10)
    with pytest.raises(UsageError, match="the calibration is for 6 dims"):
        found.relevance(random.normal(size=(2, 5)), scores)
    with pytest.raises(UsageError, match="for 3 queries"):
        found.relevance(random.normal(size=(3, 6)), scores)
    with pytest.raises(UsageError, match="9 hits of a query"):
        found.relevance(random.normal(size=(2, 6)), scores[:, :9])
    small = dataclasses.replace(found, documents=4)
    assert small.relevance(random.normal(size=(2, 6)), scores[:, :4]).shape == (2, 4)


def test_hits_below_the_least_relevance_go() -> None:
    assert relevant_hits(["a", "b", "c"], np.array([0.9, 0.5, 0.4]), 0.5) == [("a", 0.9), ("b", 0.5)]
    with pytest.raises(UsageError, match=r"min_relevance 1\.5"):
        relevant_hits(["a"], np.array([0.9]), 1.5)


def test_the_documents_model_adds_what_it_finds_first() -> None:
    documents = np.eye(4, dtype=np.float32)
    query = np.array([[0.7, 0.9, 0.8, 0.1]], np.float32)
    assert judged_by_model(query, documents, [{1}], "dot") == [{1}]
    assert judged_by_model(query, documents, [{3}], "dot") == [{1, 3}]


def test_data_that_cannot_be_used(documents: Path, model: Path) -> None:
    with pytest.raises(UsageError, match="documents have no judgements"):
        read_asked([str(documents)], "train", (10, 10))
    with pytest.raises(UsageError, match="relevance is fitted to documents"):
        read_asked([], None, (10, 10))
    with pytest.raises(UsageError, match="names no teacher"):
        emb.calibrate(model, documents)
    with pytest.raises(ArtifactError, match=r"nothing: no such (folder|model)"):
        emb.calibrate(model / "nothing", documents)


def test_drawn_queries_are_the_same_each_time_and_others_with_another_seed(documents: Path) -> None:
    first, again, other = (read_asked([str(documents)], None, (30, 50), seed).queries for seed in (0, 0, 1))
    assert list(first) == list(again)
    assert set(first) != set(other)
