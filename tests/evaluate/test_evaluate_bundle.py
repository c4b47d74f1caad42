"""A bundle under evaluation: what it does in a search, and nothing else; and what is asked of mteb where that is not
installed.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

import emb
from emb.cli import cli
from emb.commands import console
from emb.data.evaluation_sets import read_tasks
from emb.errors import ArtifactError, MissingExtra, UsageError
from emb.evaluate.evaluate import evaluate
from emb.runtime.encoder import load


def test_queries_are_the_one_encoders_and_documents_the_others(bundle: Path, sets: dict[str, Path]) -> None:
    both, [task] = load(bundle), read_tasks([sets["search"]])
    queries, documents = task.sides
    found = evaluate([bundle], [sets["search"]], dims=[16, 32])
    cut = {
        dim: task.score(both.encode_query(queries, truncate_dim=dim), both.encode_document(documents, truncate_dim=dim))
        for dim in (16, 32)
    }
    assert {
        (score.model, score.dim, score.side): pytest.approx(score.value)
        for score in found.scores
        if score.model == "both"
    } == {("both", dim, "asymmetric"): value for dim, value in cut.items()}
    assert {(score.model, score.side) for score in found.scores} == {("both", "asymmetric"), ("tiny-bert", "symmetric")}
    assert found.teacher == "tiny-bert"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"teacher": "tiny-bert"}, "a bundle brings its own teacher"),
        ({"side": "symmetric"}, "side symmetric: the two sides of"),
        ({"layers": [1]}, "a bundle has one query encoder"),
    ],
)
def test_a_bundle_has_one_way_of_searching(
    bundle: Path, sets: dict[str, Path], options: dict[str, Any], said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        evaluate([bundle], [sets["search"]], **options)


def test_a_bundle_that_has_changed_is_not_scored(bundle: Path, sets: dict[str, Path], tmp_path: Path) -> None:
    changed = shutil.copytree(bundle, tmp_path / "changed")
    (changed / "query" / "config_sentence_transformers.json").write_text("{}", encoding="utf-8")
    with pytest.raises(ArtifactError, match="has changed since it was bundled"):
        evaluate([changed], [sets["search"]], dims=[32])
    assert evaluate([changed], [sets["search"]], dims=[32], verify=False).scores


@pytest.mark.parametrize("more", [["--task", "SciFact"], ["--data", "search", "--mteb-json", "out"]])
def test_without_mteb_the_line_to_install_it_is_told(
    more: list[str], bert_folder: Path, sets: dict[str, Path], monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setitem(sys.modules, "mteb", None)
    words = [str(sets.get(word, word)) for word in more]
    assert console.run(cli, ["evaluate", str(bert_folder), *words]) == 2
    assert capsys.readouterr().err.endswith('needs it\n  pip install "emb-distill[mteb]"\n')
    with pytest.raises(MissingExtra, match=r"emb-distill\[mteb\]"):
        emb.mteb_model("a-model-that-need-not-be-there")
