"""Query encoders: what a recipe leaves open, layers cut from the teacher or none at all, and what is kept of search."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file
from sentence_transformers import SentenceTransformer
from tiny import SENTENCES

import emb
from emb.artifact.manifest import Kind, LayerDimPair, Manifest, PairScores
from emb.cli import cli
from emb.data.corpus import Corpus, Text
from emb.data.documents import Document
from emb.data.pseudo_queries import Cuts, pseudo_queries, sentences
from emb.distill import targets
from emb.distill.query_encoder import with_query_defaults
from emb.distill.retention import KnownItems, advised, found_again, known_items, with_retention
from emb.distill.student import depth_of, kept_layers
from emb.errors import UsageError
from emb.files import write_json
from emb.model.embedding_model import load_model
from emb.model.static import StaticEncoder
from emb.recipes.recipe import Recipe, load_recipe
from emb.tokens import TextTokenizer


@pytest.fixture(autouse=True)
def _cache(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMB_CACHE", str(place / "cache"))


@pytest.fixture(scope="module")
def static(place: Path) -> Any:
    """A run that made a static encoder for the documents."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EMB_CACHE", str(place / "cache"))
        return emb.distill(
            str(place / "teacher"),
            documents=[place / "docs.jsonl"],
            data=[place / "general.txt"],
            layers=0,
            out=place / "static",
            overrides={"pairs": [[0, 16], [0, 32]], "training.epochs": 20},
        )


def _filled(**values: Any) -> Recipe:
    return with_query_defaults(load_recipe(None, {"teacher": "t", **values}))


def test_a_query_encoder_is_cut_from_the_teacher_with_short_windows() -> None:
    recipe = _filled(**{"data.documents": ["d"]})
    assert (recipe.student.source, recipe.student.layers, recipe.student.keep) == ("teacher", 4, "spread")
    assert recipe.capture.max_length == 64
    assert _filled(**{"data.as_queries": True}).student.layers == 4


def test_what_the_recipe_says_stays() -> None:
    given = {"data.documents": ["d"], "student.layers": 2, "student.keep": "ends", "capture.max_length": 99}
    recipe = _filled(**given, **{"training.epochs": 7})
    assert (recipe.student.layers, recipe.student.keep, recipe.capture.max_length) == (2, "ends", 99)
    assert recipe.training.epochs == 7
    own = _filled(**{"data.documents": ["d"], "student.source": "mine"})
    assert (own.student.source, own.student.layers) == ("mine", None)


def test_the_default_corpus_is_said_to_be_for_trying_only(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(targets, "default_corpus", lambda limit: Corpus([Text("a text")]))
    targets.corpus_of(load_recipe(None, {"teacher": "t"}))
    assert "for trying only" in " ".join(capsys.readouterr().err.split())
    (tmp_path / "own.txt").write_text("\n".join(SENTENCES))
    targets.corpus_of(load_recipe(None, {"teacher": "t", "data.sources": [str(tmp_path / "own.txt")]}))
    assert "for trying only" not in " ".join(capsys.readouterr().err.split())


def test_another_recipe_is_left_alone() -> None:
    recipe = load_recipe(None, {"teacher": "t"})
    assert with_query_defaults(recipe) == recipe


@pytest.mark.parametrize(
    ("layers", "keep", "kept"),
    [
        (1, "ends", [11]),
        (2, "ends", [0, 11]),
        (3, "ends", [0, 10, 11]),
        (4, "ends", [0, 1, 10, 11]),
        (12, "ends", list(range(12))),
        (2, "spread", [0, 11]),
        (3, [1, 4, 9], [1, 4, 9]),
    ],
)
def test_which_layers_stay(layers: int, keep: Any, kept: list[int]) -> None:
    assert kept_layers(12, layers, keep) == kept


def test_of_a_shallow_teacher_all_layers_are_kept() -> None:
    recipe = load_recipe(None, {"teacher": "t", "data.documents": ["d"]})
    assert [with_query_defaults(recipe, depth).student.layers for depth in (None, 2, 4, 12, 0)] == [4, 2, 4, 4, 0]
    named = load_recipe(None, {"teacher": "t", "data.documents": ["d"], "student.keep": [0, 5]})
    assert with_query_defaults(named, 12).student.layers == 2


def test_the_depth_is_read_from_the_config(place: Path, tmp_path: Path) -> None:
    assert depth_of(place / "teacher") == 4
    assert depth_of(tmp_path) is None
    write_json(tmp_path / "config.json", {"n_layers": 6})
    assert depth_of(tmp_path) == 6


def test_a_list_of_layers_and_another_number_are_refused() -> None:
    with pytest.raises(UsageError, match="2 layers, not 3"):
        kept_layers(12, 3, [0, 11])
    assert kept_layers(12, 12, [0, 11]) == [0, 11]  # no number was given


@pytest.mark.parametrize("keep", [[], [0, 12], [3, 3], [4, 2]])
def test_layers_that_are_not_there_or_twice_are_refused(keep: list[int]) -> None:
    with pytest.raises(UsageError, match="layers are 0 to 11"):
        kept_layers(12, len(keep), keep)


def test_named_layers_are_those_of_the_teacher(place: Path, tmp_path: Path) -> None:
    found = emb.distill(
        str(place / "teacher"),
        documents=[place / "docs.jsonl"],
        out=tmp_path / "run",
        overrides={"student.keep": [0, 3], "student.layers": 2, "training.epochs": 0},
    )
    kept, whole = load_model(found.student).encoder, load_model(place / "teacher").encoder
    for mine, theirs in zip(kept.encoder.layer, (whole.encoder.layer[0], whole.encoder.layer[3]), strict=True):
        torch.testing.assert_close(mine.output.dense.weight, theirs.output.dense.weight)


def test_the_static_encoder_learns_the_teacher_s_queries(static: Any, place: Path) -> None:
    manifest = Manifest.load(static.student)
    assert (manifest.kind, manifest.layers, manifest.dim) == (Kind.STUDENT, 0, 32)
    assert [each.pair for each in static.scores] == [LayerDimPair(0, 16), LayerDimPair(0, 32)]
    assert static.scores[-1].cosine > 0.9
    assert static.scores[-1].retention > 0.6
    training = manifest.lineage.recipe["training"]
    assert (training["lr"], training["tokens_per_batch"], training["epochs"]) == (1e-2, 8192, 20)


def test_it_is_a_static_embedding_for_any_client(static: Any, tmp_path: Path) -> None:
    [artifact] = emb.export(static.run, dims=[16], int8=True, out=tmp_path / "out", threads=1)
    assert not list(artifact.glob("*_Dense"))  # the cut is in the table
    model = SentenceTransformer(str(artifact), device="cpu")
    assert type(model[0]).__name__ == "StaticEmbedding"
    assert tuple(model[0].embedding.weight.shape)[1] == 16
    assert set(load_file(artifact / "model.safetensors")) == {"embeddings"}  # model2vec's name, and a flag it reads
    assert json.loads((artifact / "config.json").read_text(encoding="utf-8"))["normalize"] is True
    expected = model.encode(SENTENCES)
    np.testing.assert_allclose(emb.load(artifact, file="onnx/model.onnx").encode(SENTENCES), expected, atol=1e-6)
    whole = emb.load(static.student).encode(SENTENCES)[:, :16]
    np.testing.assert_allclose(expected, whole / np.linalg.norm(whole, axis=1, keepdims=True), atol=1e-5)
    assert emb.validate(artifact, threads=1, max_texts=20).passed


def test_every_kind_of_file_of_a_static_student(static: Any, tmp_path: Path) -> None:
    given: dict[str, Any] = {"dims": [16], "out": tmp_path / "out", "threads": 1}
    with pytest.raises(UsageError, match="no layers to train under rounding"):
        emb.export(static.run, int8=True, heal=1.0, **given)
    [artifact] = emb.export(static.run, int8=True, fp16=True, vectors=["int8", "binary"], **given)
    report = emb.validate(artifact, threads=1, max_texts=20)
    assert {(each.weight_dtype, each.vector_dtype) for each in report.variants} >= {
        ("fp32", "float32"),
        ("int8", "float32"),
        ("int8", "int8"),
        ("int8", "ubinary"),
    }
    coded = next(each for each in report.variants if each.vector_dtype == "int8")
    assert all(each.passed for each in report.variants if each is not coded), str(report)
    # Rows of single tokens leave the ranges of texts, so the gate of 16 coded dims is not for this tiny table; but the
    # empty text, which has no vector, costs nothing.
    assert coded.min_cosine > 0.5


def test_a_static_query_reads_no_special_token(static: Any) -> None:
    tokenizer = TextTokenizer.from_folder(static.student, 64)
    special = {tokenizer.tokenizer.token_to_id(token) for token in ("[CLS]", "[SEP]")}
    assert not special & set(tokenizer.encode([SENTENCES[0]])[0])


def test_weights_are_folded_into_the_rows() -> None:
    encoder, ids = StaticEncoder.fresh(9, 4, seed=0), torch.arange(9)[None]
    assert encoder.weights is not None
    torch.nn.init.normal_(encoder.weights)
    before = encoder(ids).last_hidden_state
    encoder.fold()
    assert encoder.weights is None
    torch.testing.assert_close(encoder(ids).last_hidden_state, before)
    encoder.fold()  # once is enough
    torch.testing.assert_close(encoder(ids).last_hidden_state, before)


def test_averaging_goes_before_folding(place: Path, tmp_path: Path) -> None:
    given: dict[str, Any] = {"documents": [place / "docs.jsonl"], "layers": 0}
    tables = [
        load_model(
            emb.distill(
                str(place / "teacher"),
                out=tmp_path / str(share),
                overrides={"training.average": share, "training.epochs": 2},
                **given,
            ).student
        ).encoder.embedding.weight
        for share in (1.0, 0.5, 1e-9)
    ]
    start = StaticEncoder.fresh(*tables[0].shape, seed=0).embedding.weight
    torch.testing.assert_close(tables[2], start, atol=1e-6, rtol=0)
    assert not torch.allclose(tables[1], tables[0], atol=1e-3)


def test_a_fresh_table_is_that_of_its_seed() -> None:
    one, same, other = (StaticEncoder.fresh(9, 4, seed).embedding.weight for seed in (0, 0, 1))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_a_static_run_resumes_to_the_same_weights(static: Any, place: Path, tmp_path: Path) -> None:
    again = emb.distill(
        str(place / "teacher"),
        documents=[place / "docs.jsonl"],
        data=[place / "general.txt"],
        layers=0,
        out=tmp_path / "again",
        overrides={"pairs": [[0, 16], [0, 32]], "training.epochs": 20},
    )
    one, other = (load_model(each.student).encoder.embedding.weight for each in (static, again))
    torch.testing.assert_close(one, other, atol=0, rtol=0)


DOCUMENTS = [Document("", f"{a} {b}") for a, b in pairwise(SENTENCES)]
BASIS = np.eye(len(DOCUMENTS), dtype=np.float32)


def test_known_items_are_held_out_cuts_and_their_documents() -> None:
    cuts = pseudo_queries(DOCUMENTS, Cuts(spans=0, keywords=0), 0)
    held_out = [Text("of no document", "query"), *(Text(each.text, "query") for each in cuts[::4])]
    found = known_items(held_out, cuts, BASIS)
    assert found.rows == list(range(1, len(held_out)))
    assert found.sources == [each.document for each in cuts[::4]]


HARBOUR = Document(
    "The harbour",
    "The old harbour freezes in January. Ships wait outside for the ice breaker to come. Nobody knows who built it.",
)


def test_titles_and_sentences_alone_say_what_a_search_keeps() -> None:
    cuts = pseudo_queries([HARBOUR], Cuts(sentences=1, spans=3, keywords=2), 0)
    told = [cuts[row].text for row in known_items([Text(each.text, "query") for each in cuts], cuts, BASIS[:1]).rows]
    assert told[0] == HARBOUR.title
    assert set(told[1:]) < set(sentences(HARBOUR.text))
    assert len(told) == 3 < len(cuts)


def test_a_text_cut_from_the_same_document_is_no_rival() -> None:
    query, documents = np.array([[1.0, 0.0]]), np.array([[0.6, 0.8], [0.0, 1.0], [1.0, 0.1], [0.9, 0.1]])
    for owners, ahead in ((None, 2), ([0, 1, -1, -1], 2), ([0, 1, -1, 0], 1), ([0, 1, 0, 0], 0)):
        assert found_again(query, documents, [0], owners=owners) == pytest.approx(1 / np.log2(ahead + 2))


def test_found_again_is_ndcg_of_one_document() -> None:
    assert found_again(BASIS[:2], BASIS, [0, 1]) == 1.0
    mixed = BASIS[0] + 2 * BASIS[1] + 3 * BASIS[2]
    assert found_again(mixed[None], BASIS, [0]) == pytest.approx(1 / np.log2(4))
    assert found_again(mixed[None], BASIS, [1]) == pytest.approx(1 / np.log2(3))
    falling = np.arange(len(BASIS), 0, -1, dtype=np.float32)
    assert found_again(falling[None], BASIS, [10]) == 0.0


def test_a_query_without_a_vector_finds_nothing_by_luck() -> None:
    assert found_again(np.zeros((1, len(BASIS)), np.float32), BASIS, [15]) == 0.0


def test_lengths_count_where_the_teacher_s_do() -> None:
    documents = np.asarray([[1, 0], [3, 3]], np.float32)
    query = np.asarray([[1, 0]], np.float32)
    assert found_again(query, documents, [0]) == 1.0
    assert found_again(query, documents, [0], "dot") < 1.0


def test_retention_is_the_student_s_share_of_the_teacher_s_own() -> None:
    rows = list(range(40))
    documents = np.random.default_rng(0).normal(size=(40, 16)).astype(np.float32)
    noise = np.random.default_rng(1).normal(size=(40, 16)).astype(np.float32)
    scores = [PairScores(0, dim, 0.9, 0.9) for dim in (4, 16)]
    items = KnownItems(rows, rows, documents)
    teacher = documents + 0.9 * noise
    pairs = {each.pair: teacher[:, : each.dim] for each in scores}
    cut, same = with_retention(scores, items, teacher, pairs)
    assert same.retention == 1.0
    assert cut.retention is not None
    assert 0 < cut.retention < 1
    worse = {each.pair: (documents + 3 * noise)[:, : each.dim] for each in scores}
    assert with_retention(scores, items, teacher, worse)[1].retention < 1
    few = KnownItems(rows[:20], rows[:20], documents)
    assert with_retention(scores, few, teacher, pairs) == scores


@pytest.mark.parametrize(
    ("kept", "taken"),
    [
        ([0.90, 0.97, 0.98], (2, 8)),  # near the best, with fewer layers
        ([0.90, 0.95, 0.98], (4, 8)),
        ([0.99, 0.97, 0.98], (0, 8)),
        ([None, None, None], (0, 8)),
    ],
)
def test_the_pair_to_take_is_the_smallest_that_keeps_about_as_much(
    kept: list[float | None], taken: tuple[int, int]
) -> None:
    scores = [PairScores(n, 8, 0.9, 0.9, value) for n, value in zip((0, 2, 4), kept, strict=True)]
    found = advised([*scores, *(PairScores(each.layers, 16, 0.9, 0.9, each.retention) for each in scores)])
    assert found is not None
    assert (found.layers, found.dim) == taken
    assert advised([]) is None


def test_the_command_says_what_is_kept_and_what_to_export(static: Any, place: Path, tmp_path: Path) -> None:
    arguments = ["--teacher", str(place / "teacher"), "--for", str(place / "docs.jsonl"), "--layers", "0"]
    settings = ["--set", "training.epochs=1", "--out", str(tmp_path / "run")]
    done = CliRunner().invoke(cli, ["distill", *arguments, *settings])
    assert done.exit_code == 0, done.output
    assert "kept in your documents" in done.stdout
    advice = done.stdout.split("next: emb ")[1].split()
    assert advice[:4] == ["export", str(tmp_path / "run"), "--layers", "0"]
    again = CliRunner().invoke(cli, [*advice, "--threads", "1", "--out", str(tmp_path / "out")])
    assert again.exit_code == 0, again.output
