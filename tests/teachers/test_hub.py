"""The hub route, against a hub on this machine that serves a tiny Qwen3 under the published name."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from loopback import COMMIT, Hub, serving

HUB_ID = "Qwen/Qwen3-Embedding-0.6B"


@pytest.fixture(scope="session")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Qwen3 of small width, deep enough for the student the registry recommends."""
    from tiny import tiny_qwen3

    return tiny_qwen3(tmp_path_factory.mktemp("published") / "Qwen3-Embedding-0.6B", layers=10)


@pytest.fixture
def hub(published: Path, tmp_path: Path) -> Iterator[Hub]:
    folder = tmp_path / "served"
    shutil.copytree(published, folder)
    (folder / "pytorch_model.bin").write_bytes(b"a pickle")
    (folder / "modeling_evil.py").write_text("raise SystemExit('ran')")
    (folder / "onnx").mkdir()
    (folder / "onnx" / "model.onnx").write_bytes(b"an export of somebody else's")
    with serving(Hub(folder, HUB_ID)) as served:
        yield served


def _environment(tmp_path: Path, url: str) -> dict[str, str]:
    ours = {
        "HF_ENDPOINT": url,
        "HF_HOME": str(tmp_path / "hf"),
        "EMB_CACHE": str(tmp_path / "cache"),
        "NO_PROXY": "127.0.0.1",
        "no_proxy": "127.0.0.1",
    }
    theirs = {key: value for key, value in os.environ.items() if not key.startswith("HF_") and key != "EMB_MODELS"}
    return {**theirs, **ours, "HF_HUB_DISABLE_TELEMETRY": "1"}


def _resolve(name: str, tmp_path: Path, url: str, **more: str) -> subprocess.CompletedProcess[str]:
    code = (
        f"from emb.teachers.registry import resolve; found = resolve({name!r}); print(found.path); print(found.name);"
        " print(found.revision)"
    )
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**_environment(tmp_path, url), **more},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_a_name_is_downloaded_once_and_without_foreign_formats(hub: Hub, tmp_path: Path) -> None:
    first = _resolve("qwen3-embedding-0.6b", tmp_path, hub.url)
    path, name, revision = first.stdout.splitlines()
    assert (name, revision) == ("qwen3-embedding-0.6b", COMMIT)
    found = {file.relative_to(path).as_posix() for file in Path(path).rglob("*") if file.is_file()}
    assert found == set(hub.files()) - {"pytorch_model.bin", "modeling_evil.py", "onnx/model.onnx"}
    assert (Path(path) / "model.safetensors").read_bytes() == (hub.folder / "model.safetensors").read_bytes()
    hub.asked.clear()
    again = _resolve("Qwen/Qwen3-Embedding-0.6B", tmp_path, hub.url)
    assert again.stdout == first.stdout
    assert hub.asked == []


def test_what_was_downloaded_serves_offline(hub: Hub, tmp_path: Path) -> None:
    online = _resolve("qwen3-embedding-0.6b", tmp_path, hub.url)
    offline = _resolve("qwen3-embedding-0.6b", tmp_path, "http://127.0.0.1:9", HF_HUB_OFFLINE="1")
    assert offline.stdout == online.stdout != ""


def test_a_hub_out_of_reach_says_how_to_get_the_model(tmp_path: Path) -> None:
    done = _resolve("qwen3-embedding-0.6b", tmp_path, "http://127.0.0.1:9")
    assert f"{HUB_ID}: not on this machine, and the hub is out of reach" in done.stderr
    assert f"hf download {HUB_ID}" in done.stderr


def test_a_model_the_hub_does_not_have(hub: Hub, tmp_path: Path) -> None:
    done = _resolve("nobody/nothing", tmp_path, hub.url)
    assert "nobody/nothing: the hub has no such model, or it is private" in done.stderr


def test_a_gated_model_says_where_to_accept_its_licence(hub: Hub, tmp_path: Path) -> None:
    hub.gated = True
    done = _resolve("qwen3-embedding-0.6b", tmp_path, hub.url)
    assert f"accept it at https://huggingface.co/{HUB_ID}" in done.stderr


def test_a_repository_without_safetensors_is_refused(hub: Hub, tmp_path: Path) -> None:
    (hub.folder / "model.safetensors").unlink()
    done = _resolve("qwen3-embedding-0.6b", tmp_path, hub.url)
    assert "the repository has no safetensors weights" in done.stderr


def test_distil_by_name_downloads_the_teacher_and_trains_the_recommended_student(hub: Hub, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "emb.cli", "distill", "--teacher", "qwen3-embedding-0.6b", "--json"]
    # The command as it stands, on less text: its own corpus has tens of thousands.
    less = ["--max-steps", "4", "--set", "data.limit=200", "--set", "data.holdout=20", "--set", "projection.texts=100"]
    done = subprocess.run(
        [*command, *less],
        cwd=tmp_path,
        env=_environment(tmp_path, hub.url),
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["run"] == "runs/qwen3-embedding-0.6b"
    manifest = json.loads((tmp_path / result["student"] / "emb.json").read_text(encoding="utf-8"))
    assert (manifest["layers"], manifest["dim"], manifest["pooling"]) == (8, 32, "lasttoken")
    assert {pair["layers"] for pair in manifest["pairs"]} >= {4, 8}
    assert manifest["lineage"]["teacher"]["name"] == "qwen3-embedding-0.6b"
    assert manifest["lineage"]["teacher"]["revision"] == COMMIT
    assert manifest["prompts"]["query"].startswith("Instruct: ")
