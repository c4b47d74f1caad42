"""A fine-tuned sibling gets the vocabulary of the model that was adapted, without training."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from click.testing import CliRunner

import emb
from emb.artifact.manifest import Manifest
from emb.cli import cli
from emb.data.corpus import Text
from emb.errors import ArtifactError, UsageError
from emb.model.embedding_model import EmbeddingModel, load_model, save_model
from emb.vocabulary.propagate import propagated_rows
from emb.vocabulary.reading import read
from emb.vocabulary.surgery import table_of

WORDS = ("zebrastripe", "riverboat", "windmill", "zebrastripes")
NEW = [f"the {word} and a {other} in rain, {place}" for place in "abcd" for word in WORDS for other in WORDS]
ROWS = {"epochs": 2.0, "tokens_per_batch": 512}


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return tiny.tiny_bert(tmp_path / "bert", layers=2)


@pytest.fixture
def sibling(base: Path, tmp_path: Path) -> Path:
    """The base with its rows turned."""
    model = load_model(base)
    with torch.no_grad():
        table_of(model).add_(0.3 * table_of(model).roll(1, dims=1))
    return _saved(model, tmp_path / "tuned")


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    path = tmp_path / "texts.txt"
    path.write_text("\n".join([*tiny.SENTENCES[:16], *NEW]), encoding="utf-8")
    return path


def _saved(model: EmbeddingModel, folder: Path) -> Path:
    save_model(model, folder)
    return folder


def _random(rows: int, width: int = 6, seed: int = 0) -> np.ndarray:  # type: ignore[type-arg]
    return np.random.default_rng(seed).standard_normal((rows, width)).astype(np.float32)


def test_a_sibling_turned_by_a_matrix_gets_rows_turned_by_it() -> None:
    base, turn, pieces = _random(40), _random(6, seed=1), [[i, i + 1] for i in range(20)]
    new = _random(20, seed=2)
    made = propagated_rows(base, base @ turn, new, pieces)
    np.testing.assert_allclose(made["overlap"], new @ turn, atol=1e-4)
    np.testing.assert_allclose(made["conversion"], new @ turn, atol=1e-4)
    np.testing.assert_array_equal(made["swap"], new)
    np.testing.assert_allclose(made["mean"][3], (base @ turn)[3:5].mean(0), atol=1e-6)


def test_overlap_reads_all_rows_and_conversion_the_pieces_alone() -> None:
    base, turn, pieces = _random(40), _random(6, seed=1), [[i, i + 1] for i in range(20)]
    tuned = base @ turn
    tuned[30:] = 0.0
    new = _random(20, seed=2)
    made = propagated_rows(base, tuned, new, pieces)
    np.testing.assert_allclose(made["conversion"], new @ turn, atol=1e-4)
    assert np.abs(made["overlap"] - new @ turn).max() > 0.1


def test_what_few_rows_say_nothing_of_stays_as_it_is() -> None:
    base, pieces = _random(40), [[0], [1]]
    made = propagated_rows(base, 2 * base, _random(2, seed=2), pieces)
    odd = np.linalg.svd(base[:2])[2][2:]  # directions that the two pieces have nothing of
    np.testing.assert_allclose(made["conversion"] @ odd.T, _random(2, seed=2) @ odd.T, atol=1e-5)


def test_both_folders_are_written_with_one_vocabulary(base: Path, sibling: Path, texts: Path, tmp_path: Path) -> None:
    found = emb.adapt_vocab(
        base, data=[texts], mode="both", add=3, min_cosine=0.0, overrides=ROWS, propagate_to=sibling, out=tmp_path / "o"
    )
    assert found.sibling is not None
    assert found.sibling.folder == tmp_path / "o-tuned"
    ids, theirs = (
        json.loads((folder / "id_map.json").read_text(encoding="utf-8"))
        for folder in (tmp_path / "o", found.sibling.folder)
    )
    assert ids == theirs
    tried = [each["method"] for each in found.sibling.report["init"]["tried"]]
    assert tried == ["mean", "swap", "overlap", "conversion"]
    cosines = {each["method"]: each["cosine"] for each in found.sibling.report["init"]["tried"]}
    assert cosines[found.sibling.report["init"]["taken"]] == max(cosines.values())
    manifest = Manifest.load(found.sibling.folder)
    manifest.verify(found.sibling.folder)
    assert manifest.lineage.vocabulary[0].source == "tuned"


def test_a_sibling_that_is_the_model_itself_gets_its_rows(base: Path, texts: Path, tmp_path: Path) -> None:
    twin = _saved(load_model(base), tmp_path / "twin")
    found = emb.adapt_vocab(
        base, data=[texts], mode="extend", add=3, min_cosine=0.0, propagate_to=twin, out=tmp_path / "o"
    )
    assert found.sibling is not None
    assert found.folder is not None
    assert found.sibling.folder is not None
    assert found.sibling.report["init"]["taken"] in ("swap", "overlap")
    ours, theirs = (load_model(folder) for folder in (found.folder, found.sibling.folder))
    lines = [Text(text) for text in NEW]
    np.testing.assert_allclose(read(theirs, lines).vectors, read(ours, lines).vectors, atol=1e-4)


def test_a_trim_is_handed_on_too(base: Path, sibling: Path, texts: Path, tmp_path: Path) -> None:
    found = emb.adapt_vocab(base, data=[texts], propagate_to=sibling, out=tmp_path / "o")
    assert found.sibling is not None
    assert found.sibling.folder is not None
    before, after = load_model(sibling), load_model(found.sibling.folder)
    covered = [Text(text) for text in NEW]
    np.testing.assert_allclose(read(after, covered).vectors, read(before, covered).vectors, atol=1e-6)
    assert found.sibling.report["trim"]["max_abs_diff"] <= 1e-6


def test_another_tokenizer_is_refused_before_anything_is_read(base: Path, texts: Path, tmp_path: Path) -> None:
    other = tiny.tiny_bert(tmp_path / "cased", layers=2)
    path = other / "tokenizer.json"
    state = json.loads(path.read_text(encoding="utf-8"))
    state["normalizer"] = None
    path.write_text(json.dumps(state), encoding="utf-8")
    with pytest.raises(ArtifactError, match="normalizer differs"):
        emb.adapt_vocab(base, data=[texts], propagate_to=other, out=tmp_path / "o")
    assert not (tmp_path / "o").exists()


def test_another_vocabulary_and_another_width_are_refused(base: Path, texts: Path, tmp_path: Path) -> None:
    trimmed = emb.adapt_vocab(base, data=[texts], out=tmp_path / "trimmed").folder
    assert trimmed is not None
    with pytest.raises(ArtifactError, match="model differs"):
        emb.adapt_vocab(base, data=[texts], propagate_to=trimmed, out=tmp_path / "o")
    narrow = tiny.tiny_bert(tmp_path / "narrow", layers=1, hidden=16)
    with pytest.raises(ArtifactError, match="rows of 16 numbers"):
        emb.adapt_vocab(base, data=[texts], propagate_to=narrow, out=tmp_path / "o")


def test_what_exists_is_refused_for_the_sibling_as_well(base: Path, sibling: Path, texts: Path, tmp_path: Path) -> None:
    (tmp_path / "o-tuned").mkdir()
    (tmp_path / "o-tuned" / "mine.txt").touch()
    with pytest.raises(ArtifactError, match="o-tuned: already exists"):
        emb.adapt_vocab(base, data=[texts], propagate_to=sibling, out=tmp_path / "o")
    with pytest.raises(UsageError, match="propagate_to hands on"):
        emb.adapt_vocab(base, data=[texts], propagate_to=sibling, lora=True, out=tmp_path / "p")


def test_the_command_shows_both(base: Path, sibling: Path, texts: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(
        cli,
        ["adapt-vocab", str(base), "--data", str(texts), "--propagate-to", str(sibling), "--out", str(tmp_path / "o")],
    )
    assert done.exit_code == 0, done.output
    assert f"{tmp_path / 'o-tuned'}\nnext: emb export" in done.output


def test_rows_are_turned_from_the_base_to_the_sibling(base: Path, texts: Path, tmp_path: Path) -> None:
    model = load_model(base)
    with torch.no_grad():
        table_of(model).mul_(-1.0)  # and a first matrix that turns it back: other rows, the same vectors
        norm = model.encoder.embeddings.LayerNorm
        model.encoder.embeddings.position_embeddings.weight.mul_(-1.0)
        model.encoder.embeddings.token_type_embeddings.weight.mul_(-1.0)
        norm.weight.mul_(-1.0)
    twin = _saved(model, tmp_path / "twin")
    found = emb.adapt_vocab(
        base, data=[texts], mode="extend", add=3, min_cosine=0.0, propagate_to=twin, out=tmp_path / "o"
    )
    assert found.sibling is not None
    assert found.folder is not None
    assert found.sibling.folder is not None
    cosines = {each["method"]: each["cosine"] for each in found.sibling.report["init"]["tried"]}
    assert cosines["overlap"] > cosines["swap"] + 0.01
    lines = [Text(text) for text in NEW]
    ours, theirs = (load_model(folder) for folder in (found.folder, found.sibling.folder))
    np.testing.assert_allclose(read(theirs, lines).vectors, read(ours, lines).vectors, atol=1e-3)
