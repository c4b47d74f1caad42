"""`emb adapt-vocab` from a folder to a folder that every other command takes."""

from __future__ import annotations

import json
from pathlib import Path

import families
import numpy as np
import pytest
import tiny
from click.testing import CliRunner

import emb
from emb.artifact.manifest import Kind, Manifest
from emb.cli import cli
from emb.data.corpus import Text
from emb.errors import ArtifactError, DataError, EmbError, GateFailed, UsageError
from emb.model.embedding_model import load_model
from emb.vocabulary.adaptation import adapt
from emb.vocabulary.profile import profile
from emb.vocabulary.proof import prove_extension
from emb.vocabulary.reading import read
from emb.vocabulary.surgery import table_of
from emb.vocabulary.usage import token_counts

WORDS = ("zebrastripe", "riverboat", "windmill", "zebrastripes")
NEW = [f"the {word} and a {other} in rain, {place}" for place in "abcd" for word in WORDS for other in WORDS]
ROWS = {"epochs": 2.0, "tokens_per_batch": 512}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tiny.tiny_bert(tmp_path / "bert", layers=2)


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    path = tmp_path / "texts.txt"
    path.write_text("\n".join([*tiny.SENTENCES[:16], *NEW]), encoding="utf-8")
    return path


def _adapt(folder: Path, texts: Path, **options: object) -> emb.vocabulary.adaptation.AdaptResult:  # type: ignore[name-defined]
    return emb.adapt_vocab(folder, data=[texts], out=folder.parent / "out", **options)  # type: ignore[arg-type]


def test_a_trimmed_folder_is_the_same_model(folder: Path, texts: Path) -> None:
    found = _adapt(folder, texts)
    assert found.folder is not None
    before, after = load_model(folder), load_model(found.folder)
    covered = [Text(text) for text in NEW]
    np.testing.assert_allclose(read(after, covered).vectors, read(before, covered).vectors, atol=1e-6)
    manifest = Manifest.load(found.folder)
    manifest.verify(found.folder)
    [record] = manifest.lineage.vocabulary
    assert (manifest.kind, record.mode, record.added) == (Kind.ADAPTED, "trim", 0)
    assert record.tokens_after < record.tokens_before
    teacher = manifest.lineage.teacher
    assert teacher is not None
    assert teacher.name == "bert"


def test_the_id_map_leads_from_old_to_new(folder: Path, texts: Path) -> None:
    found = _adapt(folder, texts, mode="both", add=3, overrides=ROWS, min_cosine=0.0)
    assert found.folder is not None
    ids = json.loads((found.folder / "id_map.json").read_text(encoding="utf-8"))
    old, new = (load_model(place).hf_tokenizer.get_vocab() for place in (folder, found.folder))
    names = {index: token for token, index in old.items()}
    assert all(new[names[int(before)]] == after for before, after in ids["kept"].items())
    assert all(new[token] == index for token, index in ids["added"].items())
    assert len(ids["added"]) == 3
    report = json.loads((found.folder / "vocab_report.json").read_text(encoding="utf-8"))
    assert report["tokens"] == {"before": len(old), "kept": len(ids["kept"]), "added": 3}
    assert {each["method"] for each in report["init"]["tried"]} >= {"mean", "first", "omp"}
    assert report["extension"]["length_ratio"] < 1
    assert "<svg" in (found.folder / "vocab_report.html").read_text(encoding="utf-8")


def test_a_student_stays_a_student_with_all_its_exits(tmp_path: Path, texts: Path) -> None:
    student = tiny.tiny_student(tmp_path / "student")
    found = _adapt(student, texts)
    assert found.folder is not None
    before, after = Manifest.load(student), Manifest.load(found.folder)
    assert after.kind == Kind.STUDENT
    assert [each.pair for each in after.pairs] == [each.pair for each in before.pairs]
    assert after.lineage.teacher == before.lineage.teacher
    assert load_model(found.folder).exits == load_model(student).exits


def test_what_is_exported_has_the_new_vocabulary(folder: Path, texts: Path) -> None:
    found = _adapt(folder, texts, mode="both", add=3, overrides=ROWS, min_cosine=0.0)
    assert found.folder is not None
    [artifact] = emb.export(found.folder, out=folder.parent / "onnx")
    assert Manifest.load(artifact).kind == Kind.ADAPTED
    lines = [*NEW[:4], *tiny.SENTENCES[18:], "ж 漢 zebrastripe"]  # new, old and fallback text
    np.testing.assert_allclose(
        emb.load(artifact).encode(lines, kind="document"),
        read(load_model(found.folder), [Text(line) for line in lines]).vectors,
        atol=1e-5,
    )


def test_an_adapted_model_is_distilled_from_and_compared_with_what_it_was(
    folder: Path, texts: Path, tmp_path: Path
) -> None:
    found = _adapt(folder, texts)
    assert found.folder is not None
    run = emb.distill(found.folder, data=[texts], layers=1, out=tmp_path / "run", max_steps=2)
    assert (
        len(load_model(run.student).hf_tokenizer.get_vocab())
        == Manifest.load(found.folder).lineage.vocabulary[0].tokens_after
    )


def test_prompts_keep_their_tokens(folder: Path, texts: Path) -> None:
    names = folder / "config_sentence_transformers.json"
    config = json.loads(names.read_text(encoding="utf-8"))
    plain = load_model(_adapt(folder, texts).folder or folder).hf_tokenizer.get_vocab()
    names.write_text(json.dumps(config | {"prompts": {"topic": "committee "}}), encoding="utf-8")
    found = load_model(_adapt(folder, texts, overwrite=True).folder or folder).hf_tokenizer.get_vocab()
    assert "committee" not in plain
    assert "committee" in found


def test_lists_and_scripts_keep_tokens(tmp_path: Path, texts: Path) -> None:
    student = tiny.tiny_student(tmp_path / "student")
    keep = tmp_path / "keep.txt"
    keep.write_text("stars dust\n\ncommittee\n", encoding="utf-8")
    plain, listed = _adapt(student, texts), _adapt(student, texts, keep=keep, overwrite=True)
    vocab = load_model(listed.folder or tmp_path).hf_tokenizer.get_vocab()
    assert {"dust", "committee"} <= set(vocab)
    assert len(vocab) >= plain.report["tokens"]["kept"]
    all_latin = _adapt(student, texts, keep_coverage=0.1, keep_scripts=["Latin"], overwrite=True)
    few = _adapt(student, texts, keep_coverage=0.1, overwrite=True)
    assert few.report["tokens"]["kept"] < all_latin.report["tokens"]["kept"]


def test_exactly_so_many_tokens_stay_and_the_better_choice_is_taken(folder: Path, texts: Path, tmp_path: Path) -> None:
    found = {way: _adapt(folder, texts, rows=90, choose=way, overwrite=True) for way in ("counts", "influence", "auto")}
    assert all(each.report["tokens"]["kept"] == 90 for each in found.values())
    assert all(found[way].report["choice"] == {"taken": way, "tried": []} for way in ("counts", "influence"))
    tried = {each["way"]: each["cosine"] for each in found["auto"].report["choice"]["tried"]}
    shown = {way: each.report["trim"]["cosine"] for way, each in found.items()}
    # What the whole table said of each is what its own table does.
    assert tried == pytest.approx({way: shown[way] for way in ("counts", "influence")}, abs=1e-5)
    assert shown["auto"] == pytest.approx(max(tried.values()), abs=1e-5)
    assert "choice" not in _adapt(folder, texts, overwrite=True).report


def test_of_so_many_tokens_those_that_are_named_stay(tmp_path: Path, texts: Path) -> None:
    student, keep = tiny.tiny_student(tmp_path / "student"), tmp_path / "keep.txt"
    keep.write_text("stars dust\n\ncommittee\n", encoding="utf-8")
    with pytest.raises(UsageError, match="must stay") as caught:
        _adapt(student, texts, rows=1, keep=keep)
    assert caught.value.hint is not None
    least = int(caught.value.hint.split()[1])
    listed = _adapt(student, texts, rows=least, keep=keep)
    vocab = load_model(listed.folder or tmp_path).hf_tokenizer.get_vocab()
    assert len(vocab) == least
    assert {"stars", "dust", "committee"} <= set(vocab)
    assert _adapt(student, texts, rows=least - 3, overwrite=True).report["tokens"]["kept"] == least - 3


@pytest.mark.parametrize("family", ["qwen3", "gemma3", "xlm-roberta", "mpnet"])
def test_exactly_so_many_tokens_of_every_kind(tmp_path: Path, texts: Path, family: str) -> None:
    folder = families.write_family(family, tmp_path / "model")
    with pytest.raises(UsageError, match="must stay") as caught:
        _adapt(folder, texts, rows=1)
    assert caught.value.hint is not None
    rows = int(caught.value.hint.split()[1]) + 5
    found = _adapt(folder, texts, rows=rows)
    assert found.report["tokens"]["kept"] == rows


def test_a_profile_says_what_trimming_would_leave(folder: Path, tmp_path: Path) -> None:
    model = load_model(folder)
    texts = [Text(text) for text in NEW]
    found = profile(model, {"new": texts[:-8]}, texts[-8:], token_counts(model, texts[:-8]))
    table = table_of(model).numel()
    assert found.share == pytest.approx(table / found.parameters)
    assert found.tokens == len(model.hf_tokenizer.get_vocab())
    [part] = found.sources
    assert part.fertility > 2
    assert found.shattered
    assert part.unknown == 0
    assert found.curve[-1][1] == 1.0
    rows = [each.rows for each in found.settings]
    assert rows == sorted(rows)
    whole = found.settings[-1]
    assert (whole.same, whole.length_ratio) == (1.0, 1.0)
    assert whole.parameters < found.parameters
    smallest = next(each for each in found.settings if each.length_ratio <= 1.01)
    assert found.suggested == smallest.coverage


def test_a_profile_knows_scripts_and_unknown_letters(folder: Path) -> None:
    russian = [Text("Быстрая лиса"), Text("Москва")]
    model, english = load_model(folder), [Text(NEW[0])] * 3
    counts = token_counts(model, [*english, *russian])
    found = profile(model, {"en": english, "ru": russian}, [Text(NEW[1])], counts)
    assert [(each.name, each.texts) for each in found.scripts] == [("Latin", 3), ("Cyrillic", 2)]
    assert found.scripts[1].unknown > 0.9


def test_an_extension_below_its_gate_writes_nothing(folder: Path, texts: Path) -> None:
    with pytest.raises(GateFailed, match="mean cosine"):
        _adapt(folder, texts, mode="extend", add=3, init="random", overrides={"epochs": 0}, min_cosine=0.9999)
    assert not (folder.parent / "out").exists()


def test_an_extension_that_shortens_nothing_fails(folder: Path) -> None:
    model = load_model(folder)
    before = read(model, [Text(text) for text in tiny.SENTENCES])
    size = len(model.hf_tokenizer.get_vocab())
    with pytest.raises(GateFailed, match="no shorter"):
        prove_extension(before, model, range(size, size + 1), 0.5)


def test_a_gate_lowered_goes_on_from_what_was_trained(
    folder: Path, texts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"mode": "extend", "add": 3, "overrides": ROWS}
    with pytest.raises(GateFailed):
        _adapt(folder, texts, **options, min_cosine=1.0)
    left = list(folder.parent.glob(".out.rows-*"))
    assert left
    _adapt(folder, texts, **options, min_cosine=0.0)
    assert not list(folder.parent.glob(".out.rows-*"))


def test_a_stronger_teacher_needs_as_many_dims(folder: Path, texts: Path, tmp_path: Path) -> None:
    other = tiny.tiny_bert(tmp_path / "wide", dim=48)
    with pytest.raises(UsageError, match="gives 48 dims, the model 32"):
        _adapt(folder, texts, mode="extend", add=3, teacher=str(other))


def test_a_stronger_teacher_is_what_rows_learn(folder: Path, texts: Path, tmp_path: Path) -> None:
    same = tiny.tiny_bert(tmp_path / "other", layers=1)
    options = {"mode": "extend", "add": 3, "overrides": ROWS, "min_cosine": 0.0}
    own = _adapt(folder, texts, **options).report["extension"]["cosine"]
    taught = _adapt(folder, texts, **options, teacher=str(same), overwrite=True).report["extension"]["cosine"]
    assert own != taught


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"mode": "extend"}, UsageError, "needs a number of new tokens"),
        ({"add": 5}, UsageError, "goes with an extension"),
        ({"mode": "extend", "add": 5, "keep_coverage": 0.9}, UsageError, "go with a trim"),
        ({"init": "first"}, UsageError, "init goes with an extension"),
        ({"teacher": "bert"}, UsageError, "teacher goes with a training"),
        ({"lora": True, "qlora": True}, UsageError, "two ways of the same training"),
        ({"keep_coverage": 0.0}, UsageError, "a share above 0"),
        ({"keep_coverage": 1.5}, UsageError, "a share above 0"),
        ({"keep_coverage": 0.9, "rows": 90}, UsageError, "both say how many tokens"),
        ({"choose": "counts"}, UsageError, "choose goes with a number"),
        ({"rows": 90, "choose": "masks"}, UsageError, "no such way"),
        ({"rows": 9}, UsageError, "must stay"),
        ({"mode": "extend", "add": 5, "rows": 90}, UsageError, "go with a trim"),
        ({"mode": "shrink"}, UsageError, "no such mode"),
        ({"mode": "extend", "add": 5, "init": "ridge"}, UsageError, "no such way"),
        ({"keep": "missing.txt"}, UsageError, "cannot be read"),
        ({"overrides": {"lrr": 1}}, UsageError, "lrr"),
        ({"overrides": {"language.lrr": 1}}, UsageError, "lrr"),
        ({"mode": "extend", "add": 4000}, UsageError, "the texts support"),
        ({"keep_scripts": ["Klingon"]}, UsageError, "no token has a letter"),
    ],
)
def test_what_cannot_be_is_said_and_nothing_written(
    folder: Path, texts: Path, options: dict[str, object], error: type[EmbError], said: str
) -> None:
    with pytest.raises(error, match=said):
        _adapt(folder, texts, **options)
    assert not list(folder.parent.glob("*out*"))


def test_texts_that_the_vocabulary_cannot_read(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "thai.txt"
    path.write_text("\n".join("ภาษาไทย" * n for n in range(1, 40)), encoding="utf-8")
    with pytest.raises(DataError, match="no token of this vocabulary"):
        _adapt(folder, path)


def test_an_export_is_refused(folder: Path, texts: Path, tmp_path: Path) -> None:
    [artifact] = emb.export(folder, out=tmp_path / "onnx")
    with pytest.raises(ArtifactError, match="is an export"):
        _adapt(artifact, texts)


def test_what_is_there_is_not_written_over(folder: Path, texts: Path) -> None:
    _adapt(folder, texts)
    with pytest.raises(ArtifactError, match="already exists"):
        _adapt(folder, texts)


def test_the_command(folder: Path, texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shown = CliRunner().invoke(
        cli, ["adapt-vocab", str(folder), "--data", str(texts), "--profile", "--out", "measured"]
    )
    assert shown.exit_code == 0
    assert "next: emb adapt-vocab" in shown.output
    assert "suggested" in shown.output
    assert (tmp_path / "measured" / "vocab_report.html").is_file()
    made = CliRunner().invoke(
        cli, ["adapt-vocab", str(folder), "--data", str(texts), "--keep-scripts", "Latin, Cyrillic", "--json"]
    )
    assert isinstance(made.exception, UsageError)  # the tiny vocabulary has no Cyrillic letter
    made = CliRunner().invoke(cli, ["adapt-vocab", str(folder), "--data", str(texts), "--keep-scripts", "Latin"])
    assert made.exit_code == 0
    assert (tmp_path / "adapted" / "bert" / "emb.json").is_file()
    options = ["--rows", "90", "--choose", "counts", "--out", "ninety", "--json"]
    made = CliRunner().invoke(cli, ["adapt-vocab", str(folder), "--data", str(texts), *options])
    assert made.exit_code == 0
    assert json.loads(made.stdout)["choice"]["taken"] == "counts"
    assert json.loads(made.stdout)["tokens"]["kept"] == 90


def test_rows_are_trained_on_texts_that_have_new_tokens(
    folder: Path, texts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[bool] = []

    def noted(model: object, new_ids: range, train: object, *rest: object) -> None:
        seen.extend(bool((row >= new_ids.start).any()) for row in train.rows)  # type: ignore[attr-defined]

    monkeypatch.setattr(adapt, "distil_rows", noted)
    _adapt(folder, texts, mode="extend", add=3, min_cosine=0.0)
    assert seen
    assert all(seen)


@pytest.mark.parametrize("method", ["lora", "qlora"])
def test_an_adapter_is_trained_merged_and_left_beside(tmp_path: Path, texts: Path, method: str) -> None:
    wide = tiny.tiny_bert(tmp_path / "wide", layers=2, hidden=64)
    settings = {
        **ROWS,
        "language.lr": 3e-3,
        "language.max_steps": 30,
        "language.epochs": 50,
        "language.precision": "fp32",
    }
    options = {"mode": "both", "add": 3, "init": "random", "min_cosine": 0.0, "overrides": settings, method: True}
    found = _adapt(wide, texts, **options)
    assert found.folder is not None
    step = found.report["language"]
    assert step["method"] == method
    assert step["kept"]
    assert step["cosine_after"] > step["cosine_before"]
    assert (found.folder / "adapter" / "adapter_model.safetensors").is_file()
    assert load_model(found.folder).exits == [2]
    assert not list(wide.parent.glob(".out.rows*"))


def test_an_adapter_that_gains_nothing_is_left_out(tmp_path: Path, texts: Path) -> None:
    wide = tiny.tiny_bert(tmp_path / "wide", layers=2, hidden=64)
    plain = _adapt(wide, texts)
    spoilt = {"language.lr": 0.5, "language.max_steps": 3, "language.warmup_steps": 0, "language.precision": "fp32"}
    found = _adapt(wide, texts, lora=True, overrides=spoilt, overwrite=True)
    assert found.folder is not None
    assert plain.folder is not None
    assert not found.report["language"]["kept"]
    assert not (found.folder / "adapter").exists()
    assert (table_of(load_model(found.folder)) == table_of(load_model(plain.folder))).all()


def test_exits_survive_the_language_stage(tmp_path: Path, texts: Path) -> None:
    student = tiny.tiny_student(tmp_path / "student")
    settings = {"language.max_steps": 3, "language.precision": "fp32", "language.lr": 1e-3}
    found = _adapt(student, texts, lora=True, overrides=settings)
    assert found.folder is not None
    assert load_model(found.folder).exits == load_model(student).exits
