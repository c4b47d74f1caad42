"""Where students come from: cut layers, fresh shapes, other models, and what is refused."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from distilling import texts
from hypothesis import given
from hypothesis import strategies as st
from tiny import QUERY_PROMPT

from emb.artifact.fingerprints import weights_hash
from emb.artifact.lineage import Lineage, TeacherRecord
from emb.artifact.manifest import Manifest
from emb.data.corpus import Text
from emb.distill.student import build_student, kept_layers, with_defaults
from emb.distill.targets import tokenise
from emb.errors import TeacherError, UsageError
from emb.model.embedding_model import EmbeddingModel, ModelSpec, layer_stack, load_model, save_model
from emb.recipes.recipe import StudentRecipe
from emb.teachers.registry import Resolved, teachers


def _build(folder: Path, seed: int = 0, **recipe: object) -> EmbeddingModel:
    teacher = Resolved(folder, "tiny")
    return build_student(
        StudentRecipe.model_validate(recipe), teacher, load_model(folder).spec, weights_hash(folder), seed=seed
    )


def _layers(model: EmbeddingModel) -> list[dict[str, torch.Tensor]]:
    owner, name, _ = layer_stack(model.encoder)
    return [layer.state_dict() for layer in getattr(owner, name)]


def _equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(a[name], b[name]) for name in a)


def _runs(student: EmbeddingModel) -> torch.Tensor:
    ids, mask = (torch.from_numpy(array) for array in student.tokenizer().pad(student.tokenizer().encode(texts(5))))
    with torch.inference_mode():
        return student.pooled(ids, mask, [student.layers])[student.layers]


@given(
    st.integers(1, 60).flatmap(lambda depth: st.tuples(st.just(depth), st.integers(1, depth))),
    st.sampled_from(["first", "spread"]),
)
def test_kept_layers_are_different_and_in_order(shape: tuple[int, int], keep: str) -> None:
    depth, layers = shape
    kept = kept_layers(depth, layers, keep)
    assert len(kept) == layers
    assert kept == sorted(set(kept))
    assert kept[0] == 0
    assert kept[-1] <= depth - 1
    assert keep == "first" or layers == 1 or kept[-1] == depth - 1


def test_kept_layers_by_name() -> None:
    assert kept_layers(12, 4, "first") == [0, 1, 2, 3]
    assert kept_layers(12, 4, "spread") == [0, 4, 7, 11]


@pytest.mark.parametrize("keep", ["first", "spread"])
@pytest.mark.parametrize("source", ["bert_folder", "qwen3_folder"])
def test_layers_cut_from_the_teacher(source: str, keep: str, request: pytest.FixtureRequest) -> None:
    folder = request.getfixturevalue(source)
    student, teacher = _build(folder, layers=2, keep=keep), load_model(folder)
    kept = [0, 1] if keep == "first" else [0, 2]
    assert student.layers == 2
    assert all(_equal(mine, _layers(teacher)[index]) for mine, index in zip(_layers(student), kept, strict=True))
    assert torch.isfinite(_runs(student)).all()


def test_uncut_teacher_is_the_default(bert_folder: Path) -> None:
    assert torch.equal(_runs(_build(bert_folder)), _runs(load_model(bert_folder)))


def test_layers_cut_from_another_model_with_the_teachers_prompts(bert_folder: Path, qwen3_folder: Path) -> None:
    teacher = Resolved(qwen3_folder, "tiny")
    student = build_student(
        StudentRecipe(source=str(bert_folder), layers=1), teacher, load_model(qwen3_folder).spec, "", seed=0
    )
    assert student.layers == 1
    assert student.spec.pooling == "mean"  # the student's own; the teacher's is lasttoken
    assert student.spec.prompts == {"query": QUERY_PROMPT, "document": ""}
    assert student.spec.max_length == 64


def test_existing_student_goes_on(student_folder: Path, bert_folder: Path) -> None:
    teacher = Resolved(bert_folder, "tiny")
    student = build_student(
        StudentRecipe(source=str(student_folder)), teacher, load_model(bert_folder).spec, "", seed=0
    )
    assert all(_equal(*pair) for pair in zip(_layers(student), _layers(load_model(student_folder)), strict=True))


@pytest.mark.parametrize("source", ["bert_folder", "qwen3_folder"])
@pytest.mark.parametrize("shape", [(2, 16), (4, 48), (1, 64)])
def test_fresh_shape(source: str, shape: tuple[int, int], request: pytest.FixtureRequest) -> None:
    folder = request.getfixturevalue(source)
    student, teacher = _build(folder, source=f"fresh:{shape[0]}x{shape[1]}"), load_model(folder)
    assert (student.layers, student.hidden) == shape
    config = student.encoder.config
    assert config.hidden_size % config.num_attention_heads == 0
    assert config.vocab_size == teacher.encoder.config.vocab_size
    assert student.spec.pooling == teacher.spec.pooling
    vectors = _runs(student)
    assert vectors.shape == (5, shape[1])
    assert torch.isfinite(vectors).all()


def test_fresh_weights_follow_the_seed(bert_folder: Path) -> None:
    first, again, other = (_runs(_build(bert_folder, seed, source="fresh:1x32")) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize(
    "shape", ["fresh:0x32", "fresh:2x0", "fresh:2x30", "fresh:2", "fresh:axb", "fresh:-1x32", "fresh:2x32x4"]
)
def test_shape_that_cannot_be_built(bert_folder: Path, shape: str) -> None:
    with pytest.raises(UsageError, match=shape.replace("axb", "axb")) as caught:
        _build(bert_folder, source=shape)
    assert "fresh:6x384" in caught.value.hint


@pytest.mark.parametrize("source", ["teacher", "fresh:2x32"])
def test_more_layers_than_there_are(bert_folder: Path, source: str) -> None:
    with pytest.raises(UsageError, match=r"^layers 9: the student's source has") as caught:
        _build(bert_folder, source=source, layers=9)
    assert caught.value.hint.startswith("choose 1 to")


def test_unknown_student(bert_folder: Path) -> None:
    with pytest.raises(TeacherError, match="no-such-student"):
        _build(bert_folder, source="no-such-student")


def test_registry_recommends_a_student() -> None:
    def chosen(name: str | None, **recipe: object) -> tuple[str | None, int | None]:
        filled = with_defaults(
            StudentRecipe.model_validate(recipe),
            Resolved(Path(), name or "tiny", None, teachers()[name] if name else None),
        )
        return filled.source, filled.layers

    assert chosen("all-mpnet-base-v2") == ("all-MiniLM-L6-v2", 6)
    assert chosen("all-mpnet-base-v2", layers=4) == ("teacher", 4)
    assert chosen("qwen3-embedding-0.6b") == ("teacher", 8)
    assert chosen("qwen3-embedding-0.6b", layers=3) == ("teacher", 3)
    assert chosen("all-mpnet-base-v2", source="fresh:2x32") == ("fresh:2x32", None)
    assert chosen(None) == ("teacher", None)


def test_student_takes_over_what_the_teacher_does_not_normalise(bert_folder: Path) -> None:
    spec = ModelSpec("mean", normalize=False, max_length=40, prompts={"query": "q: "})
    student = build_student(StudentRecipe(layers=1), Resolved(bert_folder, "tiny"), spec, "", seed=0)
    assert student.spec == ModelSpec("mean", False, 40, {"query": "q: ", "document": ""})


def test_a_student_reads_the_end_of_a_text_that_its_teacher_reads(bert_folder: Path, tmp_path: Path) -> None:
    spec = ModelSpec("mean", max_length=8, truncation_side="left")
    student = build_student(StudentRecipe(layers=1), Resolved(bert_folder, "tiny"), spec, "", seed=0)
    text = Text("a cat and a dog and a house and the rain and the river")
    whole = load_model(bert_folder).tokenizer().encode([text.text])[0]
    [row] = tokenise(student, [text], 6)
    assert row.tolist() == [whole[0], *whole[-5:]]
    student.heads["1"] = torch.nn.Identity()
    save_model(student, tmp_path / "saved")
    assert load_model(tmp_path / "saved").tokenizer().encode([text.text])[0].tolist() == [whole[0], *whole[-7:]]


def test_a_student_of_the_same_teacher_keeps_its_heads(student_folder: Path, bert_folder: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(student_folder, tmp_path / "student"))
    manifest = Manifest.load(folder)
    manifest.lineage = Lineage(TeacherRecord("a-teacher", weights="w"))
    manifest.write(folder)
    teacher, spec = Resolved(bert_folder, "tiny"), load_model(bert_folder).spec
    same = build_student(StudentRecipe(source=str(folder), layers=2), teacher, spec, "w", seed=0)
    other = build_student(StudentRecipe(source=str(folder), layers=2), teacher, spec, "another", seed=0)
    assert sorted(same.heads) == ["1", "2"]
    assert not len(other.heads)
