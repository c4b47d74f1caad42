"""A bundle whose two encoders and whose two prompts differ, and its query encoder alone."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import tiny
from frameworks import DOCUMENTS, QUESTION

import emb
from emb.artifact.bundle import Bundle, EncoderRecord, SpaceRecord
from emb.artifact.fingerprints import fingerprint

os.environ["HAYSTACK_TELEMETRY_ENABLED"] = "False"  # read when it is imported
PROMPTS = {"query": "the river ", "document": "a violin "}


@pytest.fixture(scope="session")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tiny.tiny_bert(tmp_path_factory.mktemp("teacher") / "teacher", layers=2)
    path = folder / "config_sentence_transformers.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | {"prompts": PROMPTS}), encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def single(student_folder: Path, tmp_path_factory: pytest.TempPathFactory, sentences: list[str]) -> Path:
    """A query encoder of one layer and fewer dims than the teacher, exported."""
    out = tmp_path_factory.mktemp("export") / "q"
    [artifact] = emb.export(student_folder, layers=[1], dims=[16], out=out, threads=1, calibration_texts=sentences)
    return artifact


@pytest.fixture(scope="session")
def bundle(single: Path, teacher: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The two as `emb bundle` joins them, which would refuse these: they share no space."""
    folder, file = tmp_path_factory.mktemp("bundle"), "onnx/model.onnx"
    query = EncoderRecord("q", str(single), fingerprint(single, file), file, 16)
    document = EncoderRecord("teacher", str(teacher), fingerprint(teacher, None), None, 32)
    Bundle(query, document, 16, True, "cosine", SpaceRecord(24, 1.0, 1.0, True)).save(folder)
    return folder


@pytest.fixture(params=["bundle", "single"])
def model(request: pytest.FixtureRequest) -> Path:
    """A bundle, and an export that serves for both sides."""
    found: Path = request.getfixturevalue(request.param)
    return found


@pytest.fixture(scope="session")
def ranked(bundle: Path) -> list[str]:
    """The documents in the order in which the bundle finds them for the question."""
    own = emb.load(bundle)
    scores = own.similarity(own.encode_query([QUESTION]), own.encode_document(DOCUMENTS))[0]
    return [DOCUMENTS[row] for row in (-scores).argsort()]
