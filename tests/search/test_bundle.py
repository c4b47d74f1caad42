"""A bundle: two encoders of one space in one folder, opened as one."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from click.testing import CliRunner
from sentence_transformers import SentenceTransformer

import emb
from emb.artifact.bundle import Bundle
from emb.artifact.manifest import Manifest
from emb.cli import cli
from emb.errors import ArtifactError, UsageError
from emb.model.embedding_model import load_model, save_model
from emb.runtime.bundle_encoder import BundleEncoder
from emb.search.bundling.agreement import validate_bundle
from emb.similarity import truncated

TEXTS = ["bread without yeast", "the river flooded the town", "a violin and an orchestra"]


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.tiny_bert(tmp_path_factory.mktemp("teacher") / "teacher", layers=2)


@pytest.fixture(scope="module")
def export(teacher: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A query encoder of fewer dims than its teacher, exported."""
    place = tmp_path_factory.mktemp("export")
    (place / "texts.txt").write_text("\n".join(tiny.SENTENCES), encoding="utf-8")
    how = {"pairs": [[2, 16], [2, 32]], "training.epochs": 0}
    run = emb.distill(teacher, data=[place / "texts.txt"], layers=2, out=place / "run", overrides=how)
    [artifact] = emb.export(run.student, layers=[2], dims=[16], out=place / "q")
    return artifact


@pytest.fixture
def bundle(export: Path, tmp_path: Path) -> Path:
    return emb.bundle(export, out=tmp_path / "both")


def test_queries_go_to_the_export_and_documents_to_its_teacher(bundle: Path, export: Path, teacher: Path) -> None:
    found = emb.load(bundle)
    assert found.dim == 16
    np.testing.assert_allclose(found.encode_query(TEXTS), emb.load(export).encode_query(TEXTS), atol=1e-6)
    whole = emb.load(teacher).encode_document(TEXTS)
    np.testing.assert_allclose(found.encode_document(TEXTS), truncated(whole, 16), atol=1e-6)
    np.testing.assert_allclose(found.encode_query(TEXTS[0], truncate_dim=8).shape, (8,))
    record = Bundle.load(bundle)
    assert record.space.proven
    assert record.document.path == str(teacher.resolve())


def test_a_server_of_queries_never_opens_the_documents_model(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = emb.load(bundle)
    assert isinstance(found, BundleEncoder)
    monkeypatch.setattr(found, "_opener", lambda *_: pytest.fail("opened"))
    assert found.encode_query(TEXTS).shape == (3, 16)
    found.encode_ids(found.tokenizer.encode(TEXTS))


def test_a_copy_needs_nothing_outside(export: Path, teacher: Path, tmp_path: Path) -> None:
    moved = shutil.copytree(teacher, tmp_path / "moved")
    emb.bundle(export, moved, out=tmp_path / "both", copy=True)
    shutil.rmtree(moved)
    assert emb.load(tmp_path / "both").encode_document(TEXTS).shape == (3, 16)


def test_a_model_that_is_gone_or_changed_is_named(export: Path, teacher: Path, tmp_path: Path) -> None:
    moved = shutil.copytree(teacher, tmp_path / "moved")
    folder = emb.bundle(export, moved, out=tmp_path / "both")
    config = moved / "config_sentence_transformers.json"
    config.write_text(json.dumps({"prompts": {"document": "passage: "}}), encoding="utf-8")
    with pytest.raises(ArtifactError, match="moved has changed since it was bundled"):
        emb.load(folder).encode_document(TEXTS)
    assert emb.load(folder, verify=False).encode_document(TEXTS).shape == (3, 16)
    shutil.rmtree(moved)
    with pytest.raises(ArtifactError, match="is not there"):
        emb.load(folder).encode_document(TEXTS)


def test_a_bundle_edited_by_hand_is_refused(bundle: Path) -> None:
    path = bundle / "bundle.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(content | {"normalize": not content["normalize"]}), encoding="utf-8")
    with pytest.raises(ArtifactError, match="changed since it was written"):
        emb.load(bundle)
    path.write_text(json.dumps(content | {"schema": 99}), encoding="utf-8")
    with pytest.raises(ArtifactError, match="not a bundle of schema"):
        emb.load(bundle)


def _dot(folder: Path) -> None:
    path = folder / "config_sentence_transformers.json"
    path.write_text(
        json.dumps(json.loads(path.read_text(encoding="utf-8")) | {"similarity_fn_name": "dot"}), encoding="utf-8"
    )


def _unnormalised(folder: Path) -> None:
    path = folder / "modules.json"
    kept = [each for each in json.loads(path.read_text(encoding="utf-8")) if "Normalize" not in each["type"]]
    path.write_text(json.dumps(kept), encoding="utf-8")


@pytest.mark.parametrize(
    ("change", "said"),
    [(_dot, "compared by cosine, those of documents dot"), (_unnormalised, "are normalised: True, those of documents")],
)
def test_sides_that_disagree_are_refused(
    change: Callable[[Path], None], said: str, export: Path, teacher: Path, tmp_path: Path
) -> None:
    other = shutil.copytree(teacher, tmp_path / "other")
    change(other)
    with pytest.raises(ArtifactError, match=said):
        emb.bundle(export, other, out=tmp_path / "both")
    assert not (tmp_path / "both").exists()


def test_another_space_is_refused_although_it_is_as_wide(export: Path, teacher: Path, tmp_path: Path) -> None:
    model, stranger = load_model(teacher), tmp_path / "stranger"
    torch.manual_seed(7)
    for each in model.parameters():
        torch.nn.init.normal_(each, std=0.3)
    save_model(model, stranger)
    with pytest.raises(ArtifactError, match="of two spaces"):
        emb.bundle(export, stranger, out=tmp_path / "both")
    narrow = tiny.tiny_bert(tmp_path / "narrow", layers=1, hidden=8)
    with pytest.raises(ArtifactError, match="queries have 16 dims, documents 8"):
        emb.bundle(export, narrow, out=tmp_path / "both")


def test_the_teacher_saved_again_is_taken_with_a_warning(
    export: Path, teacher: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    again = shutil.copytree(teacher, tmp_path / "again")
    (again / "config_sentence_transformers.json").write_text('{"prompts": {"topic": "x"}}', encoding="utf-8")
    folder = emb.bundle(export, again, out=tmp_path / "both")
    assert not Bundle.load(folder).space.proven
    assert "does not name again as its teacher" in capsys.readouterr().err


def test_the_teachers_own_export_encodes_documents(export: Path, teacher: Path, tmp_path: Path) -> None:
    [exported] = emb.export(teacher, out=tmp_path / "teacher-onnx")
    folder = emb.bundle(export, exported, out=tmp_path / "both")
    record = Bundle.load(folder)
    assert record.space.proven
    assert record.document.file == Manifest.load(exported).variants[0].file
    whole = emb.load(teacher).encode_document(TEXTS)
    np.testing.assert_allclose(emb.load(folder).encode_document(TEXTS), truncated(whole, 16), atol=1e-4)


def test_sentence_transformers_opens_the_router(export: Path, teacher: Path, tmp_path: Path) -> None:
    folder = emb.bundle(export, out=tmp_path / "both", router=True)
    ours, theirs = emb.load(folder), SentenceTransformer(str(folder / "router"), device="cpu")
    np.testing.assert_allclose(theirs.encode_query(TEXTS), ours.encode_query(TEXTS), atol=1e-4)
    np.testing.assert_allclose(theirs.encode_document(TEXTS), ours.encode_document(TEXTS), atol=1e-4)


def test_a_query_encoder_without_a_teacher_needs_a_document_model(teacher: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="names no teacher"):
        emb.bundle(teacher, out=tmp_path / "both")
    assert Bundle.load(emb.bundle(teacher, teacher, out=tmp_path / "both")).space.proven


def test_the_command_says_what_the_two_share(export: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(cli, ["bundle", "--query", str(export), "--out", str(tmp_path / "both")])
    assert done.exit_code == 0, done.output
    assert "shared: 16 dims, cosine" in done.output


def _beir(folder: Path) -> Path:
    (folder / "qrels").mkdir(parents=True)
    rows = [json.dumps({"_id": f"d{row}", "title": "", "text": text}) for row, text in enumerate(tiny.SENTENCES)]
    (folder / "corpus.jsonl").write_text("\n".join(rows), encoding="utf-8")
    asked = [json.dumps({"_id": str(row), "text": text}) for row, text in enumerate(tiny.SENTENCES[:8])]
    (folder / "queries.jsonl").write_text("\n".join(asked), encoding="utf-8")
    grades = ["query-id\tcorpus-id\tscore", *(f"{row}\td{row}\t1" for row in range(8))]
    (folder / "qrels" / "test.tsv").write_text("\n".join(grades), encoding="utf-8")
    return folder


def test_agreement_is_with_the_documents_model_alone(bundle: Path, teacher: Path, export: Path, tmp_path: Path) -> None:
    found = validate_bundle(bundle, [_beir(tmp_path / "beir")])
    names = [(each.queries, each.dim) for each in found.searches]
    small, large = (Bundle.load(bundle).query.name, Bundle.load(bundle).document.name)
    assert names == [(large, 32), (large, 16), (small, 16)]
    assert found.searches[0].overlap == 1.0
    assert found.judged
    assert found.searches[0].ndcg == pytest.approx(100)  # a text finds itself
    documents = emb.load(teacher).encode_document(tiny.SENTENCES)
    truth = np.argsort(-(emb.load(teacher).encode_query(tiny.SENTENCES[:8]) @ documents.T), axis=1)[:, :10]
    ours = np.argsort(-(emb.load(export).encode_query(tiny.SENTENCES[:8]) @ truncated(documents, 16).T), axis=1)[:, :10]
    shared = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(truth, ours, strict=True)])
    assert found.searches[2].overlap == pytest.approx(shared)
    assert json.loads((bundle / "agreement.json").read_text(encoding="utf-8"))["texts"] == 8


def test_without_judgements_queries_are_cut_from_the_documents(bundle: Path, tmp_path: Path) -> None:
    path = tmp_path / "docs.txt"
    path.write_text("\n".join(tiny.SENTENCES), encoding="utf-8")
    found = validate_bundle(bundle, [path], max_texts=6)
    assert (found.texts, found.documents, found.judged) == (6, 6, False)
    assert all(each.ndcg is None for each in found.searches)


def test_validate_shows_a_bundles_agreement(bundle: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(cli, ["validate", str(bundle), "--data", str(_beir(tmp_path / "beir"))])
    assert done.exit_code == 0, done.output
    assert "of its first ten" in done.output
    assert "nDCG@10" in done.output
    done = CliRunner().invoke(cli, ["validate", str(bundle)])
    assert isinstance(done.exception, UsageError)
    done = CliRunner().invoke(cli, ["validate", str(bundle), "--data", "x", "--min-cosine", "0.9"])
    assert isinstance(done.exception, UsageError)


def test_a_bundle_is_indexed_by_one_side_and_asked_by_the_other(bundle: Path, tmp_path: Path) -> None:
    path = tmp_path / "docs.txt"
    path.write_text("\n".join(tiny.SENTENCES), encoding="utf-8")
    emb.index(path, tmp_path / "index", bundle)
    both = emb.load(bundle)
    scores = both.encode_query([TEXTS[0]]) @ both.encode_document(tiny.SENTENCES).T
    with emb.open_index(tmp_path / "index", bundle) as found:
        assert found.description.space.dim == 16
        hits = found.search(TEXTS[0], k=3)
    assert [hit.passage for hit in hits] == [tiny.SENTENCES[row] for row in np.argsort(-scores[0])[:3]]
