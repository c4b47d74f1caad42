"""Reading evaluation sets, scoring them, and the table of a student, its exits and its teacher."""

from __future__ import annotations

import csv
import gzip
import itertools
import json
import math
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from retrieval_set import write_set

from emb.artifact.fingerprints import fingerprint, weights_hash
from emb.artifact.lineage import TeacherRecord
from emb.artifact.manifest import Manifest
from emb.artifact.variants import distinct
from emb.cli import cli
from emb.commands import console
from emb.data.evaluation_sets import PairTask, RetrievalTask, read_tasks
from emb.errors import ArtifactError, DataError, TeacherError, UsageError
from emb.evaluate.evaluate import evaluate
from emb.evaluate.subjects import TorchSubject
from emb.export import export
from emb.quantize.vectors.codecs import fit_codec, load_codec, save_codec
from emb.runtime.encoder import load
from emb.similarity import spearman, truncated


@pytest.fixture
def beir(tmp_path: Path, sentences: list[str]) -> Path:
    """A BEIR folder of the tiny models' sentences."""
    return write_set(tmp_path / "sets" / "tinyset", sentences)


@pytest.fixture
def sts(tmp_path: Path, sentences: list[str]) -> Path:
    """An STS table with quotation marks that are no quoting."""
    path = tmp_path / "sets" / "pairs.tsv"
    path.parent.mkdir(exist_ok=True)
    rows = [f'"{a}\t{b}\t{i % 6}' for i, (a, b) in enumerate(itertools.pairwise(sentences))]
    path.write_text("sentence1\tsentence2\tscore\n" + "\n".join(rows) + "\n", encoding="utf-8")
    return path


def _task(relevant: dict[str, dict[str, int]], documents: int = 12) -> RetrievalTask:
    return RetrievalTask(
        "t", {query: "a question" for query in relevant}, {f"d{i}": f"text {i}" for i in range(documents)}, relevant
    )


def test_ndcg_by_hand() -> None:
    # The query points along the first axis, and document i stands at i × 5 degrees from it: ranks 1, 2, 3 …
    angles = np.radians(5 * np.arange(12))
    documents = np.stack([np.cos(angles), np.sin(angles)], 1)
    task = _task({"q": {"d1": 2, "d3": 1, "d11": 1, "gone": 1}})
    gained = 2 / math.log2(3) + 1 / math.log2(5)  # ranks 2 and 4; rank 12 is beyond the cut
    ideal = 2 + 1 / math.log2(3) + 1 / math.log2(4) + 1 / math.log2(5)
    assert task.score(np.array([[3.0, 0.0]]), documents) == pytest.approx(100 * gained / ideal)


def test_a_query_does_not_find_itself() -> None:
    documents = np.eye(3)
    task = RetrievalTask("t", {"d0": "same text"}, {"d0": "Title same text", "d1": "b", "d2": "c"}, {"d0": {"d1": 1}})
    assert task.score(np.array([[1.0, 0.5, 0.1]]), documents) == 100
    by_number_only = RetrievalTask("t", {"d0": "other text"}, task.documents, task.relevant)
    assert by_number_only.score(np.array([[1.0, 0.5, 0.1]]), documents) == pytest.approx(100 / math.log2(3))


def test_spearman_of_pairs() -> None:
    task = PairTask("t", ["a"] * 3, ["b"] * 3, [1.0, 2.0, 3.0])
    first = np.array([[1.0, 0.0]] * 3)
    assert task.score(first, np.array([[0.0, 1.0], [1.0, 1.0], [1.0, 0.1]])) == pytest.approx(100)
    assert task.score(first, np.array([[1.0, 0.1], [1.0, 1.0], [0.0, 1.0]])) == pytest.approx(-100)


def test_reads_beir_and_sts(beir: Path, sts: Path, sentences: list[str]) -> None:
    table, retrieval = read_tasks([beir.parent])
    assert isinstance(retrieval, RetrievalTask)
    assert isinstance(table, PairTask)
    assert len(retrieval.queries) == 10  # a grade of 0 is not relevant
    assert retrieval.documents["d0"] == f"A title {sentences[0]}"
    assert retrieval.documents["d1"] == sentences[1]
    assert table.first[0] == f'"{sentences[0]}'
    assert len(table.scores) == len(sentences) - 1


def test_bad_sets(tmp_path: Path, beir: Path, sts: Path) -> None:
    with pytest.raises(DataError, match="no such file or folder"):
        read_tasks([tmp_path / "nowhere"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no evaluation set"):
        read_tasks([tmp_path / "empty"])
    with pytest.raises(DataError, match="same name"):
        read_tasks([beir, beir])
    (beir / "queries.jsonl").write_text('{"_id": "q0", "text": "fine"}\n{"id": "q1"}\n', encoding="utf-8")
    with pytest.raises(DataError, match=r"queries\.jsonl:2: no _id"):
        read_tasks([beir])
    sts.write_text("sentence1\tscore\na\tmuch\n", encoding="utf-8")
    with pytest.raises(DataError, match="sentence2"):
        read_tasks([sts])
    sts.write_bytes(b"sentence1\tsentence2\tscore\n\xff\xfe\tb\t1\n")
    with pytest.raises(DataError, match="UTF-8"):
        read_tasks([sts])


def test_qrels_of_other_ids(beir: Path) -> None:
    (beir / "qrels" / "test.tsv").write_text("q0\tx9\t1\n", encoding="utf-8")
    with pytest.raises(DataError, match="no query has a relevant document"):
        read_tasks([beir])
    (beir / "qrels" / "test.tsv").write_text("q0\td0\tgood\nq1\td1\tbad\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"test\.tsv:1: grade 'good'"):
        read_tasks([beir])


def _grade(beir: Path, *lines: str, split: str = "test") -> None:
    (beir / "qrels" / f"{split}.tsv").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


@pytest.mark.parametrize(
    "lines",
    [
        ("query-id\tcorpus-id\tscore", "q0\td0\t2", "q1\td1\t1"),
        ("q0\td0\t2", "q1\td1\t1.0"),
        ("q0\t0\td0\t2", "q1\t0\td1\t1"),
        ("q0 0 d0 2", "q1 Q0  d1 1"),
        ("qid\titer\tdocid\trel", "q0\t0\td0\t2", "q1\t0\td1\t1"),
        ("\ufeffq0\td0\t2\r", "\r", "q1\td1\t1\r"),
    ],
    ids=["header", "plain", "trec", "trec-blanks", "trec-header", "windows"],
)
def test_grades_in_every_layout(beir: Path, lines: tuple[str, ...]) -> None:
    _grade(beir, *lines)
    [task] = read_tasks([beir])
    assert isinstance(task, RetrievalTask)
    assert task.relevant == {"q0": {"d0": 2}, "q1": {"d1": 1}}


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("q1\td1\tnan", "grade 'nan' is not a finite"),
        ("q1\td1\tinf", "grade 'inf'"),
        ("q1\td1\t", "grade ''"),
        ("q1\td1\t0.5", "'0.5' is not a whole"),
        ("q1\td1", "2 columns"),
        ("q1\t0\td1\t1", "4 columns, not 3"),
        ("q0\td0\t2", "a second grade for query 'q0' and document 'd0'"),
    ],
)
def test_grades_that_are_none(beir: Path, line: str, said: str) -> None:
    _grade(beir, "query-id\tcorpus-id\tscore", "q0\td0\t1", "q0\td0\t1", line)
    with pytest.raises(DataError, match=rf"test\.tsv:4: .*{re.escape(said)}"):
        read_tasks([beir])


def test_queries_whose_documents_are_not_in_the_corpus_are_counted(
    beir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _grade(beir, "query-id\tcorpus-id\tscore", "q0\td0\t1", "q1\tgone\t1")
    [task] = read_tasks([beir])
    assert isinstance(task, RetrievalTask)
    assert list(task.queries) == ["q0"]
    assert "1 of 2 queries have no relevant document in the corpus" in " ".join(capsys.readouterr().err.split())


def test_a_first_line_that_is_no_header_is_not_taken_for_one(beir: Path) -> None:
    _grade(beir, "q0\td0\tnan", "q1\td1\t1")
    with pytest.raises(DataError, match=r"test\.tsv:1: grade 'nan'"):
        read_tasks([beir])


def test_a_split_is_chosen_and_those_there_are_are_named(
    beir: Path, sts: Path, student_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _grade(beir, "q3\td3\t1", "gone\td3\t1", split="dev")
    [_, task] = read_tasks([beir.parent], "dev")
    assert isinstance(task, RetrievalTask)
    assert list(task.queries) == ["q3"]
    assert "1 of 2 graded queries are not in queries.jsonl" in " ".join(capsys.readouterr().err.split())
    with pytest.raises(DataError, match=r"no split 'train' in qrels\n.*dev, test"):
        read_tasks([beir], "train")
    with pytest.raises(UsageError, match="no BEIR folder"):
        read_tasks([sts], "test")
    taken: list[Any] = []

    def read(data: Any, split: str | None) -> Any:
        taken.append(split)
        return read_tasks(data, split)

    monkeypatch.setattr("emb.evaluate.evaluate.read_tasks", read)
    assert (
        console.run(cli, ["evaluate", str(student_folder), "--data", str(beir), "--dims", "16", "--split", "train"])
        == 2
    )
    assert "there is dev, test" in capsys.readouterr().err
    assert console.run(cli, ["evaluate", str(student_folder), "--data", str(beir), "--dims", "16"]) == 0
    assert taken == ["train", None]


@pytest.mark.parametrize(
    ("name", "row", "said"),
    [
        ("queries", {"_id": "q0", "text": "again"}, "the id 'q0' is used a second time"),
        ("queries", {"_id": "x", "text": None}, "null where 'text'"),
        ("queries", {"_id": "x"}, "nothing where 'text'"),
        ("queries", {"_id": "x", "text": 5}, "'text' is the number 5"),
        ("queries", {"_id": None, "text": "a"}, "no _id"),
        ("queries", {"_id": 1.5, "text": "a"}, "no _id"),
        ("queries", {"_id": "", "text": "a"}, "no _id"),
        ("corpus", {"_id": "d0", "text": "again"}, "the id 'd0'"),
        ("corpus", {"_id": "x", "title": math.nan, "text": "a"}, "'title' is NaN"),
        ("corpus", {"_id": "x", "title": "a"}, "nothing where 'text'"),
    ],
)
def test_rows_of_beir_that_are_none(
    beir: Path, sentences: list[str], name: str, row: dict[str, Any], said: str
) -> None:
    path = next(beir.glob(f"{name}.jsonl*"))
    with (
        gzip.open(path, "at", encoding="utf-8") if path.suffix == ".gz" else path.open("a", encoding="utf-8") as handle
    ):
        handle.write(json.dumps(row) + "\n")
    with pytest.raises(DataError, match=re.escape(f"{path}:{len(sentences) + 1}: ") + f".*{said}"):
        read_tasks([beir])


def test_ids_may_be_whole_numbers_and_titles_null(beir: Path) -> None:
    (beir / "queries.jsonl").write_text('\ufeff{"_id": 7, "text": "a question"}\n', encoding="utf-8")
    with gzip.open(beir / "corpus.jsonl.gz", "wt", encoding="utf-8") as handle:
        handle.write('{"_id": 8, "title": null, "text": "an answer"}\n')
    _grade(beir, "7\t8\t1")
    [task] = read_tasks([beir])
    assert isinstance(task, RetrievalTask)
    assert (task.queries, task.documents) == ({"7": "a question"}, {"8": "an answer"})


@pytest.mark.parametrize("cell", ["nan", "inf", "-inf", "", "1e999", "four", "3,5"])
@pytest.mark.parametrize("name", ["pairs.tsv", "pairs.csv"])
def test_scores_of_pairs_that_are_no_numbers(tmp_path: Path, cell: str, name: str) -> None:
    rows = [
        ["sentence1", "sentence2", "score"],
        ["a", "b", "1"],
        ["two\nlines" if name == "pairs.csv" else "a", "c", "2"],
        ["a", "d", cell],
    ]
    with (tmp_path / name).open("w", newline="", encoding="utf-8") as handle:
        csv.writer(handle, delimiter="," if name == "pairs.csv" else "\t").writerows(rows)
    line = 5 if name == "pairs.csv" else 4
    with pytest.raises(DataError, match=rf"{name}:{line}: score '{cell}' is not a finite number"):
        read_tasks([tmp_path / name])


def test_pairs_that_cannot_be_ranked_or_are_cut(tmp_path: Path) -> None:
    path = tmp_path / "pairs.tsv"
    path.write_text("sentence1\tsentence2\tscore\na\tb\t1\nc\td\t1.0\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"2 pairs; .* different scores"):
        read_tasks([path])
    path.write_text("sentence1\tsentence2\tscore\na\tb\t1\nc\td\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"pairs\.tsv:3: 2 fields where the header has 3"):
        read_tasks([path])


def test_student_and_teacher(student_folder: Path, bert_folder: Path, beir: Path, sts: Path) -> None:
    found = evaluate([student_folder], [beir, sts], teacher=bert_folder, dims=[16, 32, 48])
    sides = {(score.model, score.layers, score.dim, score.side) for score in found.scores if score.task == "tinyset"}
    symmetric = {("tiny-student", layers, dim, "symmetric") for layers in (1, 2, 3) for dim in (16, 32, 48)}
    # The teacher has 32.
    asymmetric = {("tiny-student", layers, dim, "asymmetric") for layers in (1, 2, 3) for dim in (16, 32)}
    assert sides == symmetric | asymmetric | {("tiny-bert", 3, dim, "symmetric") for dim in (16, 32)}
    assert len(found.scores) == 2 * len(sides)
    assert all(-100 <= score.value <= 100 for score in found.scores)
    assert json.loads(json.dumps(found.as_dict(), allow_nan=False))["teacher"] == "tiny-bert"


def test_an_exit_scores_as_the_model_cut_there(student_folder: Path, beir: Path) -> None:
    from emb.artifact.manifest import LayerDimPair
    from emb.model.embedding_model import load_model
    from emb.runtime.torch_encoder import TorchEncoder

    (task,) = read_tasks([beir])
    encoder = TorchEncoder(load_model(student_folder), LayerDimPair(2, 16))
    queries, documents = task.sides
    by_hand = task.score(encoder.encode_query(queries), encoder.encode_document(documents))
    found = evaluate([student_folder], [beir], dims=[16], layers=[2])
    assert [score.value for score in found.scores] == [pytest.approx(by_hand, abs=1e-6)]


def test_a_foreign_model_is_not_tried_on_the_teachers_documents(bert_folder: Path, beir: Path) -> None:
    found = evaluate([bert_folder], [beir], teacher=bert_folder, dims=[32])
    assert {score.side for score in found.scores} == {"symmetric"}


def test_documents_of_other_weights_than_the_students_teacher_are_warned_of(
    student_folder: Path, bert_folder: Path, beir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    student = shutil.copytree(student_folder, tmp_path / "student")
    for weights, told in ((weights_hash(bert_folder), False), ("other", True)):
        manifest = Manifest.load(student)
        manifest.lineage.teacher = TeacherRecord("tiny-bert", weights=weights)
        manifest.write(student)
        found = evaluate([student], [beir], teacher=bert_folder, dims=[32], layers=[2])
        assert "asymmetric" in {score.side for score in found.scores}
        assert ("was distilled from other weights" in capsys.readouterr().err) == told


def test_the_cache_gives_the_same_scores_without_encoding(
    student_folder: Path, sts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = evaluate([student_folder], [sts], dims=[16], cache=tmp_path / "cache")
    monkeypatch.setattr("emb.evaluate.subjects.TorchSubject.vectors", lambda *_: pytest.fail("encoded again"))
    assert evaluate([student_folder], [sts], dims=[16], cache=tmp_path / "cache").scores == first.scores


def test_tables(student_folder: Path, beir: Path, sts: Path, tmp_path: Path) -> None:
    found = evaluate([student_folder], [beir, sts], dims=[16], layers=[1, 3])
    assert found.header() == ["model", "layers", "precision", "dim", "documents", "tinyset nDCG@10", "pairs Spearman"]
    assert [row[:5] for row in found.rows()] == [
        ["tiny-student", layers, "fp32", "16", "itself"] for layers in ("1", "3")
    ]
    found.save(tmp_path / "table.md")
    lines = (tmp_path / "table.md").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 4
    assert {line.count("|") for line in lines} == {8}
    found.save(tmp_path / "evaluation.json")
    assert json.loads((tmp_path / "evaluation.json").read_text(encoding="utf-8"))["scores"][0]["task"] == "tinyset"


def test_two_models_of_one_name_have_rows_of_their_own(student_folder: Path, beir: Path, tmp_path: Path) -> None:
    places = [Path(shutil.copytree(student_folder, tmp_path / run / "4x128")) for run in "ab"]
    found = evaluate(places, [beir], layers=[2], dims=[16])
    assert [row[0] for row in found.rows()] == ["4x128", str(places[1])]


def test_one_side_alone(student_folder: Path, bert_folder: Path, beir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options: dict[str, Any] = {"teacher": bert_folder, "dims": [16], "layers": [2]}
    both = evaluate([student_folder], [beir], **options).scores
    encoded = []
    original = TorchSubject.vectors
    monkeypatch.setattr(
        TorchSubject,
        "vectors",
        lambda self, texts, kind: encoded.append((self.name, kind)) or original(self, texts, kind),
    )
    for side in ("symmetric", "asymmetric"):
        alone = evaluate([student_folder], [beir], side=side, **options).scores
        assert alone == [score for score in both if score.model == "tiny-bert" or score.side == side]
        assert (("tiny-student", "document") in encoded) == (side == "symmetric")
        encoded.clear()
    with pytest.raises(UsageError, match="side asymmetric: no teacher"):
        evaluate([student_folder], [beir], side="asymmetric")


def test_a_model_of_another_space_has_no_asymmetric_side(bert_folder: Path, beir: Path) -> None:
    found = evaluate([bert_folder], [beir], teacher=bert_folder, dims=[16], side="asymmetric")
    assert {(score.side, score.model) for score in found.scores} == {("symmetric", "tiny-bert")}
    assert len(found.scores) == 1, "the teacher's own"


def test_bad_usage(student_folder: Path, beir: Path) -> None:
    with pytest.raises(UsageError, match="no model"):
        evaluate([], [beir])
    with pytest.raises(UsageError, match=r"^layers 7"):
        evaluate([student_folder], [beir], layers=[7])
    with pytest.raises(UsageError, match=r"^dims 4096"):
        evaluate([student_folder], [beir], dims=[4096])
    with pytest.raises(TeacherError):
        evaluate(["./no-such-model"], [beir])


@pytest.fixture
def codec_folder(tmp_path: Path) -> Path:
    """Sign bits of 16 dims."""
    codec, quality = fit_codec(
        "binary", np.random.default_rng(0).standard_normal((200, 16)).astype(np.float32), rotation="random"
    )
    save_codec(codec, tmp_path / "codecs" / "bits", quality)
    return tmp_path / "codecs" / "bits"


def test_documents_stored_as_codes(
    student_folder: Path, bert_folder: Path, beir: Path, sts: Path, codec_folder: Path
) -> None:
    found = evaluate([student_folder], [beir, sts], teacher=bert_folder, dims=[32], layers=[2], codecs=[codec_folder])
    coded = [score for score in found.scores if score.storage]
    assert {(score.task, score.model, score.dim, score.side, score.storage) for score in coded} == {
        ("tinyset", "tiny-bert", 16, "symmetric", "bits"),
        ("tinyset", "tiny-student", 16, "symmetric", "bits"),
        ("tinyset", "tiny-student", 16, "asymmetric", "bits"),
    }
    [row] = [row for row in found.rows() if row[2] == "fp32 → bits" and row[0] == "tiny-student" and row[4] == "itself"]
    assert row[-1] == "–"  # pairs are not searched
    assert found.fingerprints["codecs"] == {"bits": load_codec(codec_folder).fingerprint}


def test_codes_score_what_search_by_hand_finds(student_folder: Path, beir: Path, codec_folder: Path) -> None:
    from emb.evaluate.scoring import encode_sides
    from emb.evaluate.subjects import open_subject

    [task] = read_tasks([beir])
    assert isinstance(task, RetrievalTask)
    queries, documents = (
        truncated(next(iter(side.values())), 16)
        for side in encode_sides(open_subject(student_folder, [2], "fp32", (), 1), task, None)
    )
    codec = load_codec(codec_folder)
    # One product at a time: equal codes tie, whatever the processor, and stay in their order.
    by_hand = (queries[:, None].astype(np.float64) * codec.decode(codec.encode(documents))).sum(-1).astype(np.float32)
    ranked = np.argsort(-by_hand, axis=1, kind="stable")
    options: dict[str, Any] = {"layers": [2], "dims": [16], "codecs": [codec_folder]}
    plain, coded = evaluate([student_folder], [beir], **options).scores
    assert coded.value == pytest.approx(task.score_rankings(ranked))
    whole = [
        evaluate([student_folder], [beir], **options, rescore=rescore, depth=20).scores[1]
        for rescore in ("float", "int8", str(codec_folder), "lvq8")
    ]
    assert whole[0].value == pytest.approx(plain.value), "rescoring all of them by floats is exact"
    assert whole[2].value == pytest.approx(coded.value)
    assert [score.storage for score in whole] == [
        "bits + float of 20",
        "bits + int8 of 20",
        "bits + bits of 20",
        "bits + lvq8 of 20",
    ]


def test_codecs_that_cannot_be_scored(
    student_folder: Path, beir: Path, sts: Path, codec_folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="no candidates without codes"):
        evaluate([student_folder], [beir], rescore="float")
    with pytest.raises(UsageError, match="same name"):
        evaluate([student_folder], [beir], codecs=[codec_folder, codec_folder])
    with pytest.raises(UsageError, match="bits: nothing was scored with its 16 dims"):
        evaluate([student_folder], [sts], codecs=[codec_folder])
    with pytest.raises(ArtifactError, match="no codec here"):
        evaluate([student_folder], [beir], codecs=[tmp_path])
    with pytest.raises(ArtifactError, match="no codec here"):
        evaluate([student_folder], [beir], codecs=[codec_folder], rescore="int9")


def test_the_command_takes_codecs(
    student_folder: Path, beir: Path, codec_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [
        "evaluate",
        str(student_folder),
        "--data",
        str(beir),
        "--dims",
        "16",
        "--layers",
        "2",
        "--codec",
        str(codec_folder),
        "--rescore",
        "float",
        "--depth",
        "20",
    ]
    assert console.run(cli, arguments) == 0
    assert "fp32 → bits + float of 20" in capsys.readouterr().out


def test_what_was_scored_is_recorded(
    student_folder: Path, bert_folder: Path, beir: Path, sts: Path, tmp_path: Path
) -> None:
    [artifact] = export(student_folder, layers=[2], dims=[16], int8=True, min_cosine=0.5, out=tmp_path / "cut")
    evaluate([artifact], [beir, sts], teacher=bert_folder).save(tmp_path / "evaluation.json")
    found = json.loads((tmp_path / "evaluation.json").read_text(encoding="utf-8"))
    files = {variant.weight_dtype: fingerprint(artifact, variant.file) for variant in distinct(Manifest.load(artifact))}
    assert {(score["weights"], score["fingerprint"]) for score in found["scores"] if score["model"] == "cut"} == set(
        files.items()
    )
    assert found["fingerprints"]["teacher"] == {"tiny-bert": weights_hash(bert_folder)}
    assert found["fingerprints"]["data"] == {task.name: task.fingerprint for task in read_tasks([beir, sts])}
    (beir / "qrels" / "test.tsv").write_text("q0\td1\t1\n", encoding="utf-8")
    assert read_tasks([beir])[0].fingerprint != found["fingerprints"]["data"]["tinyset"]


def test_a_model_of_dot_products_is_ranked_by_them() -> None:
    task = RetrievalTask("lengths", {"q": "a"}, {"long": "b", "straight": "c"}, {"q": {"long": 1}})
    queries, documents = np.float32([[1, 0]]), np.float32([[3, 3], [1, 0]])
    assert task.score(queries, documents, "dot") == 100 > task.score(queries, documents)
    pairs = PairTask("lengths", ["a", "b"], ["c", "d"], [1.0, 0.0])
    both = np.float32([[1, 0], [1, 0]])
    assert pairs.score(both, documents, "dot") == pytest.approx(100)
    assert pairs.score(both, documents) == pytest.approx(-100)


@pytest.mark.parametrize("exported", [False, True])
def test_the_models_own_measure_is_what_it_is_scored_by(
    bert_folder: Path, tmp_path: Path, sts: Path, exported: bool
) -> None:
    folder = Path(shutil.copytree(bert_folder, tmp_path / "model"))
    modules = json.loads((folder / "modules.json").read_text(encoding="utf-8"))
    (folder / "modules.json").write_text(
        json.dumps([one for one in modules if "Normalize" not in one["type"]]), encoding="utf-8"
    )
    values = []
    for measure in ("cosine", "dot"):
        path = folder / "config_sentence_transformers.json"
        path.write_text(
            json.dumps(json.loads(path.read_text(encoding="utf-8")) | {"similarity_fn_name": measure}), encoding="utf-8"
        )
        [subject] = export(folder, out=tmp_path / measure) if exported else [folder]
        encoder, task = load(subject), read_tasks([sts])[0]
        [score] = evaluate([subject], [sts], dims=[encoder.dim]).scores
        first, second = (encoder.encode(texts) for texts in task.sides)
        by_hand = [encoder.similarity(one, other)[0, 0] for one, other in zip(first, second, strict=True)]
        assert score.value == pytest.approx(100 * spearman(np.asarray(by_hand), np.asarray(task.scores)), abs=0.2)
        values.append(score.value)
    assert values[0] != pytest.approx(values[1], abs=0.5)


def test_vectors_of_other_weights_are_not_taken_from_the_cache(student_folder: Path, sts: Path, tmp_path: Path) -> None:
    [first], [second] = (
        export(student_folder, layers=[layers], dims=[16], out=tmp_path / str(layers) / "cut") for layers in (2, 3)
    )
    [before] = evaluate([first], [sts], dims=[16], cache=tmp_path / "cache").scores
    shutil.copy(second / "onnx" / "model.onnx", first / "onnx" / "model.onnx")
    with pytest.raises(ArtifactError, match=r"changed since it was written: onnx/model\.onnx"):
        evaluate([first], [sts], dims=[16], cache=tmp_path / "cache")
    [after] = evaluate([first], [sts], dims=[16], cache=tmp_path / "cache", verify=False).scores
    assert before.value != after.value


def test_only_files_of_a_precision_are_scored(student_folder: Path, tmp_path: Path, sts: Path) -> None:
    [artifact] = export(student_folder, layers=[2], dims=[16], int8=True, min_cosine=0.5, out=tmp_path / "cut")
    found = evaluate([artifact], [sts], precisions=["int8"])
    assert {score.weights for score in found.scores} == {"int8"}
    with pytest.raises(UsageError, match="fp16"):
        evaluate([artifact], [sts], precisions=["fp16"])
