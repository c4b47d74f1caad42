"""Who encodes a bundle's documents, chosen by measuring: the fastest that loses little."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
from click.testing import CliRunner

import emb
from emb.artifact.bundle import Bundle, TriedEncoder
from emb.artifact.manifest import Manifest
from emb.cli import cli
from emb.data.evaluation_sets import RetrievalTask
from emb.errors import ArtifactError, UsageError
from emb.runtime.encoder import Encoder
from emb.search.bundling import choice
from emb.search.bundling.candidates import Candidate
from emb.search.bundling.choice import Limits, Measured, choose, decide, measure
from emb.search.bundling.sample import sample_of
from emb.similarity import Vectors, unit
from emb.tokens import Ids

WORDS = ("red", "green", "blue", "old", "new", "small", "large", "wet")


class Told(Encoder):
    """An encoder of vectors that are given, by text; `calls` are the texts of each call, in order."""

    def __init__(self, vectors: dict[str, Vectors], calls: list[tuple[str, int]] | None = None, name: str = "") -> None:
        super().__init__(None, dim=len(next(iter(vectors.values()))), prompts={}, normalize=True)  # type: ignore[arg-type]
        self.vectors, self.calls, self.name = vectors, [] if calls is None else calls, name
        self.kinds: set[str | None] = set()

    def encode(self, texts: Any, **options: Any) -> Any:
        self.calls.append((self.name, len(texts)))
        self.kinds.add(options.get("kind"))
        return np.stack([self.vectors[text] for text in texts])

    def run(self, input_ids: Ids, attention_mask: Ids) -> Vectors:
        raise AssertionError


def _vectors(texts: Sequence[str], noise: float = 0.0, seed: int = 0) -> dict[str, Vectors]:
    rows = np.random.default_rng(7).normal(size=(len(texts), 24))
    rows += noise * np.random.default_rng(seed).normal(size=rows.shape)
    return dict(zip(texts, unit(rows).astype(np.float32), strict=True))


DOCUMENTS = [f"{WORDS[row % 8]} {'thing ' * (1 + row % 5)}{row}" for row in range(60)]


def _task(judged: bool = True) -> RetrievalTask:
    texts = {str(row): text for row, text in enumerate(DOCUMENTS)}
    queries = {f"q{row}": DOCUMENTS[row] for row in range(20)}
    return RetrievalTask("sixty", queries, texts, {f"q{row}": {str(row): 1} for row in range(20)} if judged else {})


def _candidates(*noises: float) -> list[Candidate]:
    return [
        Candidate(f"c{row}", Path("x"), None if row == 0 else "f.onnx", "fp32", Told(_vectors(DOCUMENTS, noise, row)))
        for row, noise in enumerate(noises)
    ]


def _clock(monkeypatch: pytest.MonkeyPatch, *speeds: float) -> None:
    """Every encoder gets through so many documents a second; the order is that of `_candidates`."""

    def timed(encoder: Any, documents: Sequence[str]) -> tuple[Vectors, float]:
        row = TRIED.index(encoder)
        return encoder.encode(documents, kind="document"), len(documents) / speeds[row]

    monkeypatch.setattr(choice, "_timed", timed)


TRIED: list[Any] = []


def _chosen(monkeypatch: pytest.MonkeyPatch, speeds: Sequence[float], noises: Sequence[float], **limits: float) -> Any:
    tried = _candidates(*noises)
    TRIED[:] = [each.encoder for each in tried]
    _clock(monkeypatch, *speeds)
    query = Told(_vectors(DOCUMENTS, 0.1, 99))
    return choose(query, tried, _task(), Limits(**limits), "cpu", 1)


def test_the_fastest_that_passes_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    taken, record = _chosen(monkeypatch, (10, 20, 30, 90), (0, 0.001, 0.002, 1.5))
    assert taken.name == "c2"
    assert [each.chosen for each in record.tried] == [False, False, True, False]
    assert record.gain == pytest.approx(3)
    assert [each.passed for each in record.tried] == [True, True, True, False]
    assert "is needed" in record.tried[3].reason
    assert "slower" in record.tried[1].reason


def test_a_limit_decides_who_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    noises, speeds = (0, 0.15), (10, 90)
    assert _chosen(monkeypatch, speeds, noises, min_cosine=0.9, min_overlap=0.5)[0].name == "c1"
    taken, record = _chosen(monkeypatch, speeds, noises, min_cosine=0.999, min_overlap=0.5)
    assert taken.name == "c0"
    assert "a cosine of 0.9" in record.tried[1].reason
    taken, record = _chosen(monkeypatch, speeds, noises, min_cosine=0.9, min_overlap=0.995)
    assert taken.name == "c0"
    assert "of the first ten, 100% is needed" in record.tried[1].reason


def test_nothing_may_be_lost_and_the_model_itself_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    taken, record = _chosen(monkeypatch, (10, 20, 90), (0, 0, 0.001), min_cosine=1, min_overlap=1)
    assert record.tried[0].min_cosine < 1  # by rounding alone
    assert taken.name == "c1"
    assert [each.passed for each in record.tried] == [True, True, False]


def test_judged_queries_may_lose_a_point(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RetrievalTask, "score", lambda self, queries, documents, measure: SCORES.pop(0))
    SCORES[:] = [50.0, 50.0, 49.1]
    assert _chosen(monkeypatch, (10, 90), (0, 0.001))[0].name == "c1"
    SCORES[:] = [50.0, 50.0, 48.9]
    taken, record = _chosen(monkeypatch, (10, 90), (0, 0.001))
    assert taken.name == "c0"
    assert record.tried[1].reason == "loses 1.1 points of nDCG@10, 1 is allowed"
    SCORES[:] = [50.0, 50.0, 58.9]  # by chance it may find more
    assert _chosen(monkeypatch, (10, 90), (0, 0.001))[0].name == "c1"


SCORES: list[float] = []


def test_loss_is_what_the_queries_of_the_small_encoder_miss(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = _candidates(0, 0.15)
    TRIED[:] = [each.encoder for each in tried]
    _clock(monkeypatch, 1, 2)
    query = Told(_vectors(DOCUMENTS, 0.5, 99))
    _, record = choose(query, tried, _task(), Limits(0, 0), "cpu", 1)
    assert query.kinds == {"query"}
    assert all(each.encoder.kinds == {"document"} for each in tried)  # type: ignore[attr-defined]
    asked = query.encode(DOCUMENTS[:20])
    first, second = (np.argsort(-(asked @ each.encoder.encode(DOCUMENTS).T), axis=1)[:, :10] for each in tried)
    shared = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(first, second, strict=True)])
    assert record.tried[1].overlap == pytest.approx(shared)
    likeness = (tried[0].encoder.encode(DOCUMENTS) * tried[1].encoder.encode(DOCUMENTS)).sum(1)
    assert record.tried[1].cosine == pytest.approx(likeness.mean(), abs=1e-6)
    assert record.tried[1].min_cosine == pytest.approx(likeness.min(), abs=1e-6)
    assert record.tried[0].overlap == 1
    assert (record.documents, record.queries, record.judged) == (60, 20, True)


def _one(name: str, speed: float, overlap: float, passed: bool = True) -> TriedEncoder:
    return TriedEncoder(name, None, "fp32", speed, overlap, overlap, overlap, None, passed)


def test_what_time_cannot_tell_apart_is_told_by_loss() -> None:
    tried = [_one("whole", 100, 1.0), _one("eight bits", 104, 0.97), _one("broken", 500, 0.2, passed=False)]
    assert [each.name for each in decide(tried, Limits()) if each.chosen] == ["whole"]
    tried[1] = replace(tried[1], documents_per_second=106)
    assert [each.name for each in decide(tried, Limits()) if each.chosen] == ["eight bits"]
    # What is found counts before how near the vectors are.
    tried = [replace(_one("found", 100, 0.98), cosine=0.992), replace(_one("near", 101, 0.97), cosine=0.999)]
    assert [each.name for each in decide(tried, Limits()) if each.chosen] == ["found"]


def test_a_round_that_was_lucky_or_disturbed_says_nothing() -> None:
    [candidate], vectors = _candidates(0), np.stack(list(_vectors(DOCUMENTS).values()))
    judge = choice._Judge(Told(_vectors(DOCUMENTS)), _task(), vectors, Limits())
    found = judge(candidate, Measured(vectors, [10, 11, 500, 12, 1]))
    assert found.documents_per_second == 11


def test_encoders_take_turns_on_documents_of_every_length() -> None:
    calls: list[tuple[str, int]] = []
    seen: dict[str, list[list[str]]] = {"a": [], "b": []}

    class Watched(Told):
        def encode(self, texts: Any, **options: Any) -> Any:
            seen[self.name].append(list(texts))
            return super().encode(texts, **options)

    encoders = [Watched(_vectors(DOCUMENTS), calls, name) for name in "ab"]
    found = measure(encoders, DOCUMENTS, encoders[0])
    assert [name for name, _ in calls] == ["a", "b", "a", "b", "b", "a", "a", "b", "b", "a", "a", "b"]
    assert [len(share) for share in seen["a"][1:]] == [12] * 5
    means = [np.mean([len(text) for text in share]) for share in seen["a"][1:]]
    assert max(means) - min(means) < 3  # of texts of 8 to 38 letters
    whole = np.stack(list(_vectors(DOCUMENTS).values()))
    np.testing.assert_allclose(found[1].vectors, whole, atol=1e-6)  # in their own order
    assert len(found[0].speeds) == 5


def test_a_sample_keeps_what_is_judged(tmp_path: Path) -> None:
    folder = tmp_path / "beir"
    (folder / "qrels").mkdir(parents=True)
    rows = [json.dumps({"_id": f"d{row}", "title": "", "text": f"text {row}"}) for row in range(200)]
    (folder / "corpus.jsonl").write_text("\n".join(rows), encoding="utf-8")
    asked = [json.dumps({"_id": f"q{row}", "text": f"asks {row}"}) for row in range(50)]
    (folder / "queries.jsonl").write_text("\n".join(asked), encoding="utf-8")
    # Some judged documents are not there, and take no room.
    grades = [f"q{row}\t{name}\t1" for row in range(50) for name in (f"d{4 * row}", f"d{4 * row + 1}", f"gone{row}")]
    (folder / "qrels" / "test.tsv").write_text("\n".join(["a\tb\tc", *grades]), encoding="utf-8")
    found = sample_of([str(folder)], 40)
    assert len(found.documents) == 40
    assert len(found.queries) == 10
    judged = {name for key in found.queries for name in found.relevant[key] if not name.startswith("gone")}
    assert judged <= found.documents.keys()
    numbers = sorted(int(key[1:]) for key in found.queries)
    assert numbers[0] < 10
    assert numbers[-1] > 40
    assert found == sample_of([str(folder)], 40)
    assert len(sample_of([str(folder)], 200).documents) == 200


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.tiny_bert(tmp_path_factory.mktemp("teacher") / "teacher", layers=2)


@pytest.fixture(scope="module")
def query(teacher: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A query encoder of fewer dims: the teacher's own first ones, since nothing need be learned here."""
    [found] = emb.export(teacher, dims=[16], out=tmp_path_factory.mktemp("query") / "q")
    return found


@pytest.fixture(scope="module")
def exported(teacher: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The teacher in ONNX, fp32 and fp16."""
    [found] = emb.export(teacher, fp16=True, out=tmp_path_factory.mktemp("exported") / "teacher-onnx")
    return found


@pytest.fixture(scope="module")
def docs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("docs") / "docs.txt"
    path.write_text("\n".join(tiny.SENTENCES), encoding="utf-8")
    return path


def _fastest(monkeypatch: pytest.MonkeyPatch, wanted: Callable[[Any], bool]) -> None:
    """Let time pass as if the encoder that `wanted` tells were the fastest."""
    timed = choice._timed

    def told(encoder: Any, documents: Sequence[str]) -> tuple[Vectors, float]:
        return timed(encoder, documents)[0], len(documents) / (100 if wanted(encoder) else 10)

    monkeypatch.setattr(choice, "_timed", told)


def _file(name: str) -> Callable[[Any], bool]:
    return lambda encoder: getattr(getattr(encoder, "variant", None), "file", None) == name


def test_an_export_of_the_teacher_becomes_the_documents_encoder(
    query: Path, teacher: Path, exported: Path, docs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _fastest(monkeypatch, _file("onnx/model_fp16.onnx"))
    folder = emb.bundle(query, teacher, out=tmp_path / "both", doc_candidates=[exported], data=[docs], threads=1)
    found = Bundle.load(folder)
    assert found.choice is not None
    tried = [(each.name, each.file, each.dtype) for each in found.choice.tried]
    assert tried[0] == ("teacher", None, "fp32")
    assert {(exported.name, "onnx/model.onnx", "fp32"), (exported.name, "onnx/model_fp16.onnx", "fp16")} <= set(tried)
    assert (found.document.file, found.document.path) == ("onnx/model_fp16.onnx", str(exported.resolve()))
    assert found.choice.chosen.file == "onnx/model_fp16.onnx"
    assert found.choice.gain == pytest.approx(10)
    assert (found.choice.dim, found.choice.documents, found.choice.data) == (16, len(tiny.SENTENCES), "docs.txt")
    both = emb.load(folder)
    assert both.document.variant.file == "onnx/model_fp16.onnx"  # type: ignore[attr-defined]
    whole = emb.load(teacher).encode_document(tiny.SENTENCES)[:, :16]
    np.testing.assert_allclose(both.encode_document(tiny.SENTENCES), unit(whole), atol=5e-3)


def test_torch_is_opened_as_it_was_measured(
    query: Path, exported: Path, docs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from emb.search.bundling import candidates

    monkeypatch.setattr(candidates, "gains_from_bf16", lambda: True)
    _fastest(monkeypatch, lambda encoder: getattr(encoder, "_rounded", False))
    folder = emb.bundle(query, exported, out=tmp_path / "both", data=[docs], min_cosine=0.9, min_overlap=0.5)
    found = Bundle.load(folder)
    assert (found.document.file, found.document.dtype) == (None, "bf16")  # although the folder has ONNX files
    document = emb.load(folder).document  # type: ignore[attr-defined]
    assert next(document.model.parameters()).dtype.itemsize == 2
    vectors = document.encode(tiny.SENTENCES)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)


def test_without_data_the_model_is_taken_as_it_is(query: Path, teacher: Path, exported: Path, tmp_path: Path) -> None:
    found = Bundle.load(emb.bundle(query, teacher, out=tmp_path / "both"))
    assert (found.choice, found.document.file, found.document.dtype) == (None, None, "fp32")
    with pytest.raises(UsageError, match="nothing to choose on"):
        emb.bundle(query, teacher, out=tmp_path / "other", doc_candidates=[exported])
    with pytest.raises(UsageError, match="data chooses the file"):
        emb.bundle(query, exported, out=tmp_path / "other", data=["x"], document_file="onnx/model.onnx")


def test_a_candidate_of_another_model_is_refused(query: Path, teacher: Path, docs: Path, tmp_path: Path) -> None:
    other = tiny.tiny_bert(tmp_path / "other", layers=1)
    [exported] = emb.export(other, out=tmp_path / "other-onnx")
    with pytest.raises(ArtifactError, match=r"does not name .* as the model it was exported from"):
        emb.bundle(query, teacher, out=tmp_path / "both", doc_candidates=[exported], data=[docs])


def test_torch_is_tried_in_what_the_device_computes_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    from emb.search.bundling import candidates

    monkeypatch.setattr(candidates, "gains_from_bf16", lambda: True)
    assert (candidates._halves("cpu"), candidates._halves("cuda:0")) == (["bf16"], ["bf16", "fp16"])
    monkeypatch.setattr(candidates, "gains_from_bf16", lambda: False)
    assert (candidates._halves("cpu"), candidates._halves("cuda")) == ([], ["fp16"])


def test_too_few_documents_choose_nobody(query: Path, teacher: Path, tmp_path: Path) -> None:
    few = tmp_path / "few.txt"
    few.write_text("\n".join(tiny.SENTENCES[:10]), encoding="utf-8")
    with pytest.raises(UsageError, match="everybody finds"):
        emb.bundle(query, teacher, out=tmp_path / "both", data=[few])
    assert not (tmp_path / "both").exists()


def test_what_cannot_be_opened_here_is_told_and_left_out(
    query: Path, teacher: Path, exported: Path, docs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import shutil

    damaged = shutil.copytree(exported, tmp_path / "damaged")
    (damaged / "onnx" / "model_fp16.onnx").write_bytes(b"nothing")
    found = Bundle.load(emb.bundle(query, teacher, out=tmp_path / "both", doc_candidates=[damaged], data=[docs]))
    assert found.choice is not None
    assert "onnx/model_fp16.onnx" not in [each.file for each in found.choice.tried]
    assert "model_fp16.onnx: left out, " in capsys.readouterr().err


def test_loss_stands_beside_gain(
    query: Path, teacher: Path, exported: Path, docs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _fastest(monkeypatch, _file("onnx/model.onnx"))
    arguments = [
        "--query",
        query,
        "--doc",
        teacher,
        "--doc-candidate",
        exported,
        "--data",
        docs,
        "--out",
        tmp_path / "both",
    ]
    done = CliRunner().invoke(cli, ["bundle", *map(str, arguments)])
    assert done.exit_code == 0, done.output
    [line] = [line for line in done.output.splitlines() if "→" in line]
    assert line.split()[:7] == ["teacher-onnx", "onnx/model.onnx", "fp32", "100.0", "10.00", "×", "1.0000"]
    assert "fastest that passes" in line
    shown = CliRunner().invoke(cli, ["validate", str(tmp_path / "both"), "--data", str(docs)])
    assert shown.exit_code == 0, shown.output
    assert line in shown.output


def test_a_bundle_of_the_first_schema_opens(query: Path, teacher: Path, tmp_path: Path) -> None:
    from emb.artifact import bundle

    folder = emb.bundle(query, teacher, out=tmp_path / "both")
    path = folder / "bundle.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    del content["choice"]
    for side in ("query", "document"):
        del content[side]["dtype"]
    content["schema"] = 1
    path.write_text(json.dumps(content | {"digest": bundle._digest(content)}), encoding="utf-8")
    found = Bundle.load(folder)
    assert (found.choice, found.document.dtype, found.schema) == (None, "fp32", 2)
    assert emb.load(folder).encode_document(["a text"]).shape == (1, 16)


def test_a_graph_of_another_runtime_is_known_by_all_its_files(exported: Path, tmp_path: Path) -> None:
    import shutil

    from emb.artifact.fingerprints import graph_hash

    folder = shutil.copytree(exported, tmp_path / "x")
    for name in ("openvino/model.xml", "openvino/model.bin", "ctranslate2/model.bin", "ctranslate2/config.json"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(name, encoding="utf-8")
    before = graph_hash(folder, "openvino/model.xml"), graph_hash(folder, "ctranslate2/model.bin")
    (folder / "openvino" / "model.bin").write_text("other weights", encoding="utf-8")
    (folder / "ctranslate2" / "config.json").write_text("other settings", encoding="utf-8")
    after = graph_hash(folder, "openvino/model.xml"), graph_hash(folder, "ctranslate2/model.bin")
    assert before[0] != after[0]
    assert before[1] != after[1]
    manifest = Manifest.load(folder)
    manifest.pooling = "cls"
    manifest.write(folder)
    assert graph_hash(folder, "ctranslate2/model.bin") != after[1]  # its head is read from there
    assert graph_hash(folder, "openvino/model.xml") == after[0]
