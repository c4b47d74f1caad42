"""Texts made from a model itself, and that export and validation see what only such a text shows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import tiny_bert, tiny_qwen3
from torch import Tensor

from emb.artifact.manifest import Kind, LayerDimPair, Manifest, Variant
from emb.data.hard_texts import HARD, hard_samples, row_norms
from emb.data.probes import probes
from emb.export.calibration import calibrated_trial, texts_of
from emb.export.graph import write_graph
from emb.export.options import Options
from emb.export.source import find_source
from emb.model.embedding_model import EmbeddingModel, load_model, save_model
from emb.model.slice import slice_model
from emb.quantize.weights.half import MIN_COSINE, select_fp16
from emb.quantize.weights.judge import Trial, if_same
from emb.runtime.encoder import ArtifactEncoder
from emb.validate.proof import validate

FEW = ["The cat sat on the mat.", "What is the capital of France?", "Rain is expected in the north."]


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> EmbeddingModel:
    """A tiny BERT whose row of a letter in the middle of words is the largest."""
    return load_model(tiny_bert(tmp_path_factory.mktemp("hard") / "bert"))


def _largest(model: EmbeddingModel, token: int, factor: float = 1000.0) -> None:
    with torch.no_grad():
        model.encoder.get_input_embeddings().weight[token] *= factor


def _rare(model: EmbeddingModel) -> int:
    """The ordinary token that fewest of the other texts hold."""
    rows = model.tokenizer().encode([*FEW, *(probe.text for probe in probes(model.spec.max_length))])
    counts = np.bincount(np.concatenate(rows), minlength=len(row_norms(model)))
    for token in np.argsort(counts, kind="stable"):
        model_ = load_copy(model)
        _largest(model_, int(token))
        found = hard_samples(model_.tokenizer(), row_norms(model_))
        if not counts[token] and any(each.name == f"the row of token {token}" for each in found):
            return int(token)
    raise AssertionError("every token occurs in the other texts")


def load_copy(model: EmbeddingModel) -> EmbeddingModel:
    """A model of the same tokens whose table may be changed."""
    import copy

    return copy.deepcopy(model)


def test_the_tokens_of_the_largest_rows_occur(bert: EmbeddingModel) -> None:
    tokenizer = bert.tokenizer()
    for piece in ("##h", "capital", "[MASK]"):
        token, model = int(tokenizer.tokenizer.token_to_id(piece)), load_copy(bert)
        _largest(model, token)
        first = hard_samples(tokenizer, row_norms(model))[0]
        assert first.name == f"the row of token {token}"
        assert token in tokenizer.encode([first.text])[0], piece


def test_a_row_that_no_text_reaches_makes_room_for_the_next(bert: EmbeddingModel) -> None:
    norms = row_norms(bert)
    padded = np.concatenate([norms, [1e6, 1e6]])  # a table with more rows than tokens
    assert hard_samples(bert.tokenizer(), padded) == hard_samples(bert.tokenizer(), norms)


def test_every_special_token_and_every_script(bert: EmbeddingModel) -> None:
    tokenizer = bert.tokenizer()
    samples = hard_samples(tokenizer, row_norms(bert))
    seen = {
        int(token)
        for row in tokenizer.encode([each.text for each in samples if each.name == "special tokens"])
        for token in row[1:-1]
    }
    assert {
        int(tokenizer.tokenizer.token_to_id(token)) for token in ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
    } <= seen
    assert "letters called latin" in {each.name for each in samples}
    assert {each.kind for each in samples} == {"query", "document"}
    assert {each.group for each in samples} == {HARD}
    assert 10 < len(samples) <= 22


def test_many_special_tokens_share_texts(bert: EmbeddingModel) -> None:
    tokenizer = bert.tokenizer()
    tokenizer.tokenizer.add_special_tokens([f"<extra_{number}>" for number in range(41)])
    rows = np.ones(tokenizer.tokenizer.get_vocab_size() - 1, np.float32)
    named = [each.text for each in hard_samples(tokenizer, rows) if each.name == "special tokens"]
    assert len(named) <= 6
    assert "<extra_40>" not in " ".join(named)  # it has no row in the table
    assert all(f"<extra_{number}>" in " ".join(named) for number in range(40))


def test_scripts_are_those_of_the_vocabulary(bert: EmbeddingModel) -> None:
    tokenizer = bert.tokenizer()
    tokenizer.tokenizer.add_tokens(["ελλαδα", "ქართული"])
    norms = np.ones(tokenizer.tokenizer.get_vocab_size(), np.float32)
    names = {each.name: each.text for each in hard_samples(tokenizer, norms)}
    assert names["letters called greek"] == "ελλαδα"
    assert names["letters called georgian"] == "ქართული"


def test_validation_sees_a_file_that_is_wrong_on_one_token(tmp_path: Path, bert: EmbeddingModel) -> None:
    token = _rare(bert)
    for large in (False, True):
        model = slice_model(load_copy(bert), LayerDimPair(2, 32))
        _largest(model, token, 50.0 if large else 0.01)
        report = validate(_wrong_on(tmp_path / str(large), model, token), texts=FEW)
        assert report.passed is not large
        assert report.texts["hard"] > 5
    assert report.variants[0].groups["hard"] < 0.5 < report.variants[0].groups["odd"]
    assert f"the row of token {token}" in {each["name"] for each in report.variants[0].worst}


def _wrong_on(folder: Path, model: EmbeddingModel, token: int) -> Path:
    """An artifact whose graph turns every vector of a text with `token` round."""
    save_model(model, folder)
    broken, asked = load_copy(model), []
    states_of, finished = broken.token_states, broken.finished

    def states(ids: Tensor, mask: Tensor, exits: object = None) -> object:
        asked.append(ids)
        return states_of(ids, mask, exits)  # type: ignore[arg-type]

    broken.token_states = states  # type: ignore[assignment, method-assign]
    broken.finished = lambda *parts: finished(*parts) * (1 - 2 * (asked[-1] == token).any(1, keepdim=True).float())  # type: ignore[method-assign]
    write_graph(broken, folder / "onnx" / "model.onnx")
    Manifest(
        Kind.SLICE,
        2,
        32,
        "mean",
        True,
        model.spec.max_length,
        {"query": "", "document": ""},
        variants=[Variant("onnx/model.onnx")],
    ).save(folder)
    return folder


def test_export_judges_by_hard_texts(tmp_path: Path, bert: EmbeddingModel) -> None:
    token, model = _rare(bert), load_copy(bert)
    _largest(model, token)
    folder = tmp_path / "m"
    save_model(model, folder)
    texts = texts_of(Options(calibration_texts=FEW), find_source(folder, True), model)
    write_graph(model, folder / "onnx" / "model.onnx")
    manifest = Manifest(
        Kind.SLICE, 3, 32, "mean", True, 64, {"query": "", "document": ""}, variants=[Variant("onnx/model.onnx")]
    )
    manifest.save(folder)
    trial = calibrated_trial(manifest, ArtifactEncoder(folder), Options(), texts)
    assert any(token in row for row in trial.hard)
    assert any(token in row for row in trial.rows)
    assert any(token in row for row in trial.some())
    assert len(trial.some()) < len(trial.rows)


def test_sixteen_bits_are_refused_for_one_row(tmp_path: Path) -> None:
    model = load_model(tiny_qwen3(tmp_path / "qwen3"))
    tokenizer = model.tokenizer()
    rows = tokenizer.encode(["cat"] * 2)
    tame, hard = rows[0], tokenizer.encode(["Sort"])[0]
    _largest(model, int(next(iter(set(hard) - set(tame)))), 1e6)
    graph = write_graph(model, tmp_path / "model.onnx")
    assert select_fp16(graph, tmp_path / "tame.onnx", Trial(tokenizer, [tame], threads=1))[0] is None
    # The hard row stands where no eighth falls; the largest value is sought on it all the same.
    way, cosine = select_fp16(graph, tmp_path / "hard.onnx", Trial(tokenizer, [tame, hard], threads=1, hard=[hard]))
    assert way == "stored"
    assert cosine >= MIN_COSINE  # a table that 16 bits cannot hold stays in 32


def test_a_fused_graph_is_held_against_the_hard_texts(tmp_path: Path, bert: EmbeddingModel) -> None:
    token = int(bert.tokenizer().tokenizer.token_to_id("capital"))
    graph = write_graph(bert, tmp_path / "model.onnx")
    fused = _wrong_on(tmp_path / "wrong", load_copy(bert), token) / "onnx" / "model.onnx"
    tame, hard = (bert.tokenizer().encode([text])[0] for text in ("cat", "capital"))
    trial = Trial(bert.tokenizer(), [tame, hard], threads=1)
    assert if_same(graph, fused, trial) == fused
    trial.hard = [hard]
    assert if_same(graph, fused, trial) == graph
