"""Tiny sets of three kinds, and models that share a space: a student and its teacher, and two in a bundle."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from mteb_sets import write_sets

import emb
from emb.artifact.fingerprints import weights_hash
from emb.artifact.lineage import TeacherRecord
from emb.artifact.manifest import Manifest


@pytest.fixture(scope="session")
def sets(tmp_path_factory: pytest.TempPathFactory, sentences: list[str]) -> dict[str, Path]:
    """Files for search, pairs and labels."""
    found: dict[str, Path] = write_sets(tmp_path_factory.mktemp("sets"), sentences)
    return found


@pytest.fixture(scope="session")
def student(student_folder: Path, bert_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny student, which names the tiny model as its teacher."""
    folder = shutil.copytree(student_folder, tmp_path_factory.mktemp("students") / "small")
    manifest = Manifest.load(folder)
    manifest.lineage.teacher = TeacherRecord("tiny-bert", weights=weights_hash(bert_folder))
    manifest.write(folder)
    return folder


@pytest.fixture(scope="session")
def bundle(bert_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model bundled with itself, saved again with other words before queries."""
    query = shutil.copytree(bert_folder, tmp_path_factory.mktemp("queries") / "asking")
    path = query / "config_sentence_transformers.json"
    settings = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(settings | {"prompts": {"query": "yes ", "document": ""}}), encoding="utf-8")
    return emb.bundle(query, bert_folder, out=query.parent / "both")
