"""The model card: it says what was measured, nothing else, and never replaces what a person wrote."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard

import emb
from emb.artifact.fingerprints import fingerprint
from emb.artifact.lineage import DataRecord, Lineage, QuantizationRecord, SourceRecord, TeacherRecord
from emb.artifact.manifest import Manifest
from emb.cli import cli
from emb.commands import console
from emb.errors import ArtifactError
from emb.publish.card import FILE, card, is_generated, write_card
from emb.publish.published_artifact import PublishedArtifact, hub_id, without_paths

RECIPE = {
    "teacher": "/home/me/all-mpnet-base-v2",
    "student": {"source": "all-MiniLM-L6-v2"},
    "capture": {"max_length": 48},
    "data": {"sources": ["/home/me/texts.txt"]},
}


@pytest.fixture(scope="module")
def exported(student_folder: Path, tmp_path_factory: pytest.TempPathFactory, sentences: list[str]) -> Path:
    """A validated artifact with an 8-bit file."""
    out = tmp_path_factory.mktemp("card") / "tiny-2x16"
    [folder] = emb.export(
        student_folder, layers=[2], dims=[16], int8=True, out=out, threads=1, calibration_texts=sentences
    )
    emb.validate(folder, texts=sentences, threads=1)
    return folder


@pytest.fixture
def artifact(exported: Path, tmp_path: Path) -> Path:
    """A copy of it, made by a recipe on another machine."""
    folder = shutil.copytree(exported, tmp_path / exported.name)
    manifest = Manifest.load(folder)
    teacher = TeacherRecord("all-mpnet-base-v2", "/home/me/all-mpnet-base-v2", "abc123", "f1", "w1")
    manifest.lineage = replace(
        manifest.lineage,
        teacher=teacher,
        recipe=RECIPE,
        data=DataRecord("d1", 1234),
        seed=7,
        versions={"torch": "9.9"},
    )
    manifest.write(folder)
    return folder


def _lineage(folder: Path, **values: Any) -> None:
    manifest = Manifest.load(folder)
    manifest.lineage = replace(manifest.lineage, **values)
    manifest.write(folder)


def _score(**values: Any) -> dict[str, Any]:
    base = {
        "task": "scifact",
        "metric": "nDCG@10",
        "model": "tiny-2x16",
        "layers": 2,
        "dim": 16,
        "weights": "fp32",
        "vectors": "float32",
        "side": "symmetric",
    }
    return base | {"value": 43.2109} | values


def _evaluate(folder: Path, *scores: dict[str, Any]) -> None:
    """An evaluation of the files that lie there, but for scores that name other weights themselves."""
    files = {variant.weight_dtype: fingerprint(folder, variant.file) for variant in Manifest.load(folder).variants}
    scores = tuple({"fingerprint": files[score["weights"]]} | score for score in scores)
    (folder / "evaluation.json").write_text(json.dumps({"teacher": "all-mpnet-base-v2", "scores": scores}))


def test_the_front_matter_is_what_the_hub_reads(artifact: Path) -> None:
    data = ModelCard(card(PublishedArtifact.read(artifact, "me/tiny"))).data
    assert (data.library_name, data.pipeline_tag, data.license, data.language) == (
        "sentence-transformers",
        "sentence-similarity",
        "apache-2.0",
        "en",
    )
    assert data.base_model == ["sentence-transformers/all-MiniLM-L6-v2", "sentence-transformers/all-mpnet-base-v2"]
    assert {"onnx", "transformers.js", "knowledge-distillation"} <= set(data.tags)
    assert data.eval_results is None


def test_licence_language_and_base_are_left_out_where_they_are_unknown(artifact: Path) -> None:
    _lineage(artifact, teacher=TeacherRecord("mine"), recipe={"student": {"source": "teacher"}})
    data = ModelCard(text := card(PublishedArtifact.read(artifact))).data
    assert (data.license, data.language, data.base_model) == (None, None, None)
    assert "`mine` not known" in text
    assert ModelCard(card(PublishedArtifact.read(artifact, license="mit"))).data.license == "mit"


def test_parents_under_different_licences_leave_the_choice_to_a_person(artifact: Path) -> None:
    _lineage(artifact, teacher=TeacherRecord("embeddinggemma-300m"))
    data = ModelCard(text := card(PublishedArtifact.read(artifact))).data
    assert data.license is None
    assert "google/embeddinggemma-300m` gemma" in text


def test_every_figure_of_the_table_of_files_is_from_parity_json(artifact: Path) -> None:
    text = card(PublishedArtifact.read(artifact))
    for found in json.loads((artifact / "parity.json").read_text())["variants"]:
        row = next(line for line in text.splitlines() if line.startswith(f"| `{found['file']}`"))
        cells = [cell.strip() for cell in row.strip("|").split("|")]
        assert cells[3] == f"{found['bytes'] / 1e6:.1f}"
        assert cells[4] == f"{min(one['min_cosine'] for one in found['settings'].values()):.5f}"
        assert cells[6] == f"{found['latency_ms']['p50']:.1f} ms"
        assert cells[8] == ("passed" if found["passed"] else "**failed**")
        assert all(f"`{other}`" in cells[0] for other in found["same_as"])


def test_figures_of_another_file_are_not_used(artifact: Path) -> None:
    value = json.loads((artifact / "parity.json").read_text())
    for found in value["variants"]:
        found["bytes"] += 1
    (artifact / "parity.json").write_text(json.dumps(value))
    rows = [line for line in card(PublishedArtifact.read(artifact)).splitlines() if line.startswith("| `onnx/")]
    assert len(rows) == 2
    assert all(row.endswith("| – | – | – | – | not validated |") for row in rows)


def test_a_window_longer_than_what_was_learned_is_named_in_card_and_report(
    artifact: Path, sentences: list[str]
) -> None:
    manifest = Manifest.load(artifact)
    assert (manifest.learned_length, manifest.max_length) == (48, 64)
    emb.validate(artifact, texts=sentences, threads=1)
    assert "In training they were cut at 48" in card(PublishedArtifact.read(artifact))
    assert "In training, texts were cut at 48 tokens; these files read up to 64." in (
        artifact / "report.html"
    ).read_text(encoding="utf-8")
    _lineage(artifact, recipe=RECIPE | {"capture": {"max_length": 64}})
    emb.validate(artifact, texts=sentences, threads=1)
    assert "In training" not in card(PublishedArtifact.read(artifact))
    assert "In training" not in (artifact / "report.html").read_text(encoding="utf-8")


def test_without_validation_the_card_says_so(artifact: Path) -> None:
    (artifact / "parity.json").unlink()
    assert "Not validated" in card(PublishedArtifact.read(artifact))


def test_a_failed_gate_is_said_with_its_figures(artifact: Path) -> None:
    value = json.loads((artifact / "parity.json").read_text())
    value["variants"][0] |= {
        "passed": False,
        "gates": [{"name": "vector length", "value": 0.5, "limit": 0.001, "passed": False, "at_most": True}],
    }
    (artifact / "parity.json").write_text(json.dumps(value))
    assert "**`onnx/model.onnx` failed a gate**: vector length is 0.5, at most 0.001 was asked." in card(
        PublishedArtifact.read(artifact)
    )


def test_scores_are_those_of_this_artifact_alone(artifact: Path) -> None:
    others = [
        _score(model=model, value=value, fingerprint="0" * 64)
        for model, value in (("all-mpnet-base-v2", 99), ("other", 98))
    ]
    _evaluate(
        artifact, _score(), _score(dim=8, value=31.5), _score(side="asymmetric", weights="int8", value=44.5), *others
    )
    text = card(PublishedArtifact.read(artifact, "me/tiny"))
    results = ModelCard(text).data.eval_results
    assert results is not None
    assert [(one.dataset_name, one.metric_type, one.metric_value) for one in results] == [
        ("scifact", "ndcg_at_10", 43.21),
        ("scifact", "ndcg_at_10", 44.5),
    ]
    assert results[1].metric_name == "nDCG@10 × 100, 16 dims, int8, documents by all-mpnet-base-v2"
    assert "31.50" in text
    assert not re.search(r"9[89]\.00", text)
    assert "No benchmark was run" not in text


def test_figures_of_other_weights_are_left_out_with_a_warning(
    artifact: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _evaluate(artifact, _score(), _score(weights="int8", value=55.5))
    assert "43.21" in card(PublishedArtifact.read(artifact))
    assert "warning" not in capsys.readouterr().err
    for variant in Manifest.load(artifact).variants:
        if variant.weight_dtype == "int8":  # another export
            shutil.copy(artifact / "onnx" / "model.onnx", artifact / variant.file)
    text = card(PublishedArtifact.read(artifact))
    assert "43.21" in text
    assert "55.50" not in text
    assert "1 figures are not of the files that lie here" in capsys.readouterr().err
    value = json.loads((artifact / "evaluation.json").read_text())
    for score in value["scores"]:
        del score["fingerprint"]  # an evaluation that does not say what it scored
    (artifact / "evaluation.json").write_text(json.dumps(value))
    assert "No benchmark was run" in card(PublishedArtifact.read(artifact))
    assert f"emb evaluate {artifact}" in capsys.readouterr().err


def test_figures_on_documents_of_another_teacher_are_left_out_with_a_warning(
    artifact: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _evaluate(artifact, _score(), _score(side="asymmetric", value=31.5))
    value = json.loads((artifact / "evaluation.json").read_text())
    for weights, shown in (("w1", True), ("w2", False)):
        (artifact / "evaluation.json").write_text(
            json.dumps(value | {"fingerprints": {"teacher": {"all-mpnet-base-v2": weights}}})
        )
        text = card(PublishedArtifact.read(artifact))
        assert "43.21" in text
        assert ("31.50" in text) == shown
        assert ("other weights than this artifact's teacher" in capsys.readouterr().err) != shown


def test_a_renamed_artifact_keeps_its_figures(artifact: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _evaluate(artifact, _score(), _score(model="all-mpnet-base-v2", fingerprint="0" * 64, value=99))
    text = card(PublishedArtifact.read(artifact.rename(artifact.with_name("renamed"))))
    assert "43.21" in text
    assert "99.00" not in text
    assert "warning" not in capsys.readouterr().err


def test_scores_of_stored_documents_say_so(artifact: Path) -> None:
    _evaluate(artifact, _score(), _score(storage="bits + float of 100", value=41.5))
    text = card(PublishedArtifact.read(artifact))
    assert "fp32 → bits + float of 100" in text
    results = ModelCard(text).data.eval_results
    assert results is not None
    assert results[1].metric_name == "nDCG@10 × 100, 16 dims, fp32, documents stored as bits + float of 100"


def test_an_evaluation_that_is_none_is_an_error(artifact: Path) -> None:
    (artifact / "evaluation.json").write_text('{"teacher": null, "scores": [{"task": "x"}]}')
    with pytest.raises(ArtifactError, match="not what emb evaluate writes"):
        card(PublishedArtifact.read(artifact))


def test_no_path_of_the_machine_is_told(artifact: Path) -> None:
    text = card(PublishedArtifact.read(artifact))
    assert "/home/me" not in text
    assert str(artifact.parent) not in text
    assert without_paths({"a": ["/x/y", "z/w", 3]}) == {"a": ["y", "z/w", 3]}


def test_the_recipe_and_the_lineage_make_it_again(artifact: Path) -> None:
    text = card(PublishedArtifact.read(artifact, "me/tiny"))
    recipe = yaml.safe_load(text.split("```yaml\n")[1].split("```")[0])
    assert recipe["capture"] == {"max_length": 48}
    assert all(
        value in text for value in ("`abc123`", "`f1`", "`w1`", "1,234 texts, hash `d1`", "torch 9.9", "| seed | 7 |")
    )
    assert "emb export run --layers 2 --dim 16 --int8 --min-cosine 0.99 --out tiny" in text
    assert "In training they were cut at 48" in text
    _lineage(artifact, quantization=QuantizationRecord("dynamic", 0.998, processor="an old one", reduce_range=True))
    text = card(PublishedArtifact.read(artifact, "me/tiny"))
    assert "--int8 --min-cosine 0.998 --reduce-range --out tiny" in text
    assert "chosen and timed on an old one" in text


def test_commands_in_the_card_exist_with_their_options(artifact: Path) -> None:
    for name, *words in (
        line.split()[1:] for line in card(PublishedArtifact.read(artifact)).splitlines() if line.startswith("emb ")
    ):
        known = {option for parameter in cli.commands[name].params for option in parameter.opts}
        assert {word for word in words if word.startswith("--")} <= known


def test_the_python_in_the_card_runs(artifact: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(artifact.parent)
    blocks = re.findall(r"```python\n(.*?)```", card(PublishedArtifact.read(artifact)), re.DOTALL)
    ours = [
        block
        for block in blocks
        if block.startswith("import emb") or ("sentence_transformers" in block and "teacher" not in block)
    ]
    assert len(ours) == 2
    for block in ours:
        scope: dict[str, Any] = {}
        exec(block, scope)
        assert scope["vectors"].shape == (1, 16)


def test_an_encoder_without_a_teacher_says_what_it_is_an_export_of(artifact: Path) -> None:
    manifest = Manifest.load(artifact)
    manifest.lineage = Lineage(source=SourceRecord("bge-small-en-v1.5", "s1"))
    manifest.write(artifact)
    text = card(PublishedArtifact.read(artifact))
    assert ModelCard(text).data.base_model == ["BAAI/bge-small-en-v1.5"]
    assert "An export of `bge-small-en-v1.5`" in text
    assert "Documents by the teacher" not in text
    assert "knowledge-distillation" not in text
    assert "emb export bge-small-en-v1.5 --layers 2" in text


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("all-MiniLM-L6-v2", "sentence-transformers/all-MiniLM-L6-v2"),
        ("me/mine", "me/mine"),
        ("mine", None),
        ("a/b/c", None),
    ],
)
def test_where_the_hub_has_a_model(name: str, expected: str | None) -> None:
    assert hub_id(name) == expected


def test_a_generated_card_is_written_anew_and_an_edited_one_left_alone(artifact: Path) -> None:
    path = write_card(PublishedArtifact.read(artifact, "me/one"))
    assert path == artifact / FILE
    assert is_generated(path.read_text())
    write_card(PublishedArtifact.read(artifact, "me/two"))
    assert "me/two" in path.read_text()
    path.write_text(path.read_text().replace("# two", "# My model"))
    with pytest.raises(ArtifactError, match="edited by hand"):
        write_card(PublishedArtifact.read(artifact))
    assert "# My model" in path.read_text()
    write_card(PublishedArtifact.read(artifact), overwrite=True)
    assert is_generated(path.read_text())
    Manifest.load(artifact).verify(artifact)


def test_the_command_writes_or_prints(artifact: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert console.run(cli, ["card", str(artifact), "--print"]) == 0
    assert capsys.readouterr().out.startswith("---\n")
    assert not (artifact / FILE).exists()
    assert console.run(cli, ["card", str(artifact), "--name", "me/mine", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said == {"path": str(artifact / FILE), "card": (artifact / FILE).read_text()}


def test_a_student_or_a_plain_folder_has_no_card(student_folder: Path, bert_folder: Path) -> None:
    with pytest.raises(ArtifactError, match="no export of it"):
        PublishedArtifact.read(student_folder)
    with pytest.raises(ArtifactError, match="not an artifact"):
        PublishedArtifact.read(bert_folder)
