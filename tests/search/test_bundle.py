"""A bundle: two encoders of one space in one folder, opened as one."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from click.testing import CliRunner
from sentence_transformers import SentenceTransformer
from web_pages import static_encoder

import emb
from emb.artifact.bundle import Bundle
from emb.artifact.manifest import Manifest
from emb.cli import cli
from emb.errors import ArtifactError, UsageError
from emb.model.embedding_model import load_model, save_model
from emb.runtime.bundle_encoder import BundleEncoder
from emb.search.bundling import space
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


def test_a_query_file_runs_on_the_cpu_wherever_documents_go(bundle: Path) -> None:
    found = emb.load(bundle, device="meta")
    assert found.encode_query(TEXTS).shape == (3, 16)
    assert next(found.document.model.parameters()).device.type == "meta"  # type: ignore[attr-defined]


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
    _named(folder, similarity_fn_name="dot")


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


def test_documents_behind_another_prompt_are_refused(export: Path, teacher: Path, tmp_path: Path) -> None:
    other = _named(shutil.copytree(teacher, tmp_path / "other"), prompts={"document": "passage: "})
    with pytest.raises(ArtifactError, match="behind 'passage: '; the query encoder was made for documents behind ''"):
        emb.bundle(export, other, out=tmp_path / "both")
    said = _named(tiny.tiny_bert(tmp_path / "q", 1), prompts={"document": "passage: "})
    with pytest.raises(ArtifactError, match="behind ''; the query encoder was made for documents behind 'passage: '"):
        emb.bundle(said, teacher, out=tmp_path / "both")


def test_a_query_encoder_that_says_nothing_of_documents_takes_their_prompt(
    teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(space, "_FOUND", 0)
    large = _named(shutil.copytree(teacher, tmp_path / "d"), prompts={"document": "passage: "})
    folder = emb.bundle(tiny.tiny_bert(tmp_path / "q", 1), large, out=tmp_path / "both")
    whole = emb.load(teacher).encode([f"passage: {text}" for text in TEXTS])
    np.testing.assert_allclose(emb.load(folder).encode_document(TEXTS), whole, atol=1e-5)


@pytest.fixture(scope="module")
def whole(export: Path, teacher: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with everything inside; copied before it is edited."""
    place = tmp_path_factory.mktemp("whole")
    [exported] = emb.export(teacher, out=place / "documents")
    return emb.bundle(export, exported, out=place / "both", copy=True)


def _manifest(folder: Path, **values: Any) -> None:
    """Edit `emb.json` and seal it again, as nobody does by accident."""
    manifest = Manifest.load(folder)
    for name, value in values.items():
        setattr(manifest, name, value)
    manifest.write(folder)


def _byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (lambda side: _byte(side / "onnx" / "model.onnx"), "has changed since it was bundled"),
        (lambda side: _byte(side / "tokenizer.json"), "has changed since it was bundled"),
        (lambda side: _byte(side / "tokenizer_config.json"), "has changed since it was bundled"),
        (lambda side: _manifest(side, prompts={"query": "find: ", "document": "find: "}), "has changed since it was"),
        (lambda side: _manifest(side, dim=8), "has changed since it was bundled"),
        (lambda side: _manifest(side, max_length=9), "has changed since it was bundled"),
        (lambda side: _manifest(side, calibration={"ranges": [[0], [1]]}), "has changed since it was bundled"),
        (lambda side: _manifest(side, normalize=False), "has changed since it was bundled"),
        (lambda side: (side / "emb.json").write_text("{}", encoding="utf-8"), "schema None"),
        (lambda side: (side / "onnx" / "model.onnx").unlink(), "has changed since it was bundled"),
    ],
    ids=["weights", "tokenizer", "its settings", "prompts", "dim", "window", "ranges", "length", "manifest", "gone"],
)
@pytest.mark.parametrize("side", ["query", "document"])
def test_whatever_of_a_side_was_edited_is_refused(
    side: str, edit: Callable[[Path], Any], said: str, whole: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(whole, tmp_path / "both")
    edit(folder / side)
    with pytest.raises(ArtifactError, match=said):
        emb.load(folder).side(side)  # type: ignore[attr-defined]


def test_vectors_of_another_width_or_model_are_not_searched(whole: Path, tmp_path: Path) -> None:
    path = tmp_path / "docs.txt"
    path.write_text("\n".join(tiny.SENTENCES), encoding="utf-8")
    emb.index(path, tmp_path / "index", whole)
    other = tiny.tiny_bert(tmp_path / "other", layers=1, hidden=16)
    with pytest.raises(ArtifactError):
        emb.index(path, tmp_path / "index", other)
    with pytest.raises(ArtifactError):
        emb.open_index(tmp_path / "index", other).search(TEXTS[0])
    with emb.open_index(tmp_path / "index", whole) as found:
        assert len(found) == len(tiny.SENTENCES)  # as it was


def test_a_signed_bundle_is_opened_as_it_was_signed(
    whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keys = pytest.importorskip("cryptography.hazmat.primitives.asymmetric.ed25519")
    from cryptography.hazmat.primitives import serialization

    key = keys.Ed25519PrivateKey.generate()
    pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    (tmp_path / "key.pem").write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain))
    public = tmp_path / "public.pem"
    public.write_bytes(key.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo))
    folder = shutil.copytree(whole, tmp_path / "both")
    for ask in (emb.load, emb.serve):
        with pytest.raises(ArtifactError, match="not signed"):
            ask(folder, trusted_key=public, **({"port": 0} if ask is emb.serve else {}))
    emb.sign(folder, tmp_path / "key.pem")
    assert emb.load(folder, trusted_key=public).encode_document(TEXTS).shape == (3, 16)
    validate_bundle(folder, [_beir(tmp_path / "beir")])
    assert "agreement.json is not written" in capsys.readouterr().err
    assert emb.load(folder, trusted_key=public).dim == 16
    _byte(folder / "document" / "model.safetensors")  # which nothing reads
    with pytest.raises(ArtifactError, match=r"not as it was signed; changed: document/model\.safetensors"):
        emb.load(folder, trusted_key=public)
    assert emb.load(folder).dim == 16


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
    _same_from_the_router(folder)


def _same_from_the_router(folder: Path) -> None:
    """sentence-transformers alone makes of `router/` what we make of the bundle."""
    ours, theirs = emb.load(folder), SentenceTransformer(str(folder / "router"), device="cpu")
    assert theirs.similarity_fn_name == ours.similarity_fn_name
    texts = [*TEXTS, "", "a " * 300]
    np.testing.assert_allclose(theirs.encode_query(texts), ours.encode_query(texts), atol=1e-4)
    np.testing.assert_allclose(theirs.encode_document(texts), ours.encode_document(texts), atol=1e-4)


def _named(folder: Path, **values: Any) -> Path:
    """The folder, with these facts in the file that sentence-transformers keeps them in."""
    path = folder / "config_sentence_transformers.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | values), encoding="utf-8")
    return folder


@pytest.mark.parametrize("kind", ["static", "layered"])
@pytest.mark.parametrize("copy", [False, True])
def test_the_router_has_prompts_and_dims_of_both_sides(
    kind: str, copy: bool, teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(space, "_FOUND", 0)  # random weights share no space
    small = static_encoder(tmp_path / "q", dim=24) if kind == "static" else tiny.tiny_bert(tmp_path / "q", 1, dim=24)
    _named(small, prompts={"query": "query: ", "document": "passage: "})
    # E5 and its like call the prompt of documents so.
    large = _named(shutil.copytree(teacher, tmp_path / "d"), prompts={"query": "ask: ", "passage": "passage: "})
    folder = emb.bundle(small, large, out=tmp_path / "both", router=True, copy=copy)
    if copy:
        shutil.rmtree(large)
    _same_from_the_router(folder)
    theirs = SentenceTransformer(str(folder / "router"), device="cpu")
    assert theirs.prompts == {"query": "query: ", "document": "passage: "}
    assert theirs.encode_document(TEXTS).shape == (3, 24)


def test_the_router_normalises_nothing_that_was_not(
    teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(space, "_FOUND", 0)
    small, large = tiny.tiny_bert(tmp_path / "q", 1, dim=24), shutil.copytree(teacher, tmp_path / "d")
    for each in (small, large):
        _unnormalised(_named(each, similarity_fn_name="dot"))
    folder = emb.bundle(small, large, out=tmp_path / "both", router=True)
    _same_from_the_router(folder)
    assert (np.linalg.norm(emb.load(folder).encode_document(TEXTS), axis=1) > 1.5).all()


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
    emb.index(path, tmp_path / "index", bundle, cached=False)
    both = emb.load(bundle)
    scores = both.encode_query([TEXTS[0]]) @ both.encode_document(tiny.SENTENCES).T
    with emb.open_index(tmp_path / "index", bundle) as found:
        assert found.description.space.dim == 16
        hits = found.search(TEXTS[0], k=3)
    assert [hit.passage for hit in hits] == [tiny.SENTENCES[row] for row in np.argsort(-scores[0])[:3]]
