"""emb push, against a hub on this machine: what arrives is what lay there, and each refusal says what to do."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import huggingface_hub
import numpy as np
import pytest
from loopback import LARGE, Hub, serving

import emb
from emb.artifact.manifest import Manifest
from emb.cli import cli
from emb.commands import console
from emb.errors import ArtifactError, GateFailed, HubError, UsageError
from emb.files import sha256_file
from emb.publish.card import is_generated
from emb.publish.push import push

REPO = "me/tiny"


@pytest.fixture(scope="module")
def exported(student_folder: Path, tmp_path_factory: pytest.TempPathFactory, sentences: list[str]) -> Path:
    out = tmp_path_factory.mktemp("push") / "artifact"
    [folder] = emb.export(
        student_folder, layers=[2], dims=[16], vectors=["binary"], out=out, threads=1, calibration_texts=sentences
    )
    return folder


@pytest.fixture
def artifact(exported: Path, tmp_path: Path) -> Path:
    """An artifact as it may lie on a disk: with files beside it that are none of it."""
    folder = shutil.copytree(exported, tmp_path / "artifact")
    for name in (".DS_Store", "onnx/.model.onnx.partial", "notes.txt"):
        (folder / name).write_text("mine")
    manifest = Manifest.load(folder)
    manifest.lineage.teacher = replace(manifest.lineage.teacher, path="/home/me/teacher")
    manifest.write(folder)
    return folder


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub where the repository does not exist yet, and a token that may make it."""
    (tmp_path / "served").mkdir()
    with serving(Hub(tmp_path / "served", REPO, exists=False)) as served:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", served.url)
        for place in ("constants", "file_download"):  # the client before 1.0 keeps a copy
            monkeypatch.setattr(
                f"huggingface_hub.{place}.HUGGINGFACE_CO_URL_TEMPLATE",
                served.url + "/{repo_id}/resolve/{revision}/{filename}",
                raising=False,
            )
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
        # Transformers 4 keeps a copy.
        monkeypatch.setattr("transformers.utils.hub._is_offline_mode", False, raising=False)
        # Files in chunks, to a server that only the real hub has.
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
        getattr(
            huggingface_hub.utils, "reset_sessions", lambda: None
        )()  # the client before 1.0 keeps sessions that refuse to go online
        monkeypatch.setenv("HF_TOKEN", served.token)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        yield served


def _served(hub: Hub, name: str) -> Any:
    return json.loads((hub.folder / name).read_text(encoding="utf-8"))


def test_what_arrives_is_the_artifact_byte_for_byte_in_one_commit(hub: Hub, artifact: Path) -> None:
    done = push(artifact, REPO)
    own = set(Manifest.load(artifact).files)
    assert set(hub.files()) == own | {"emb.json", "README.md"}
    assert all((hub.folder / name).read_bytes() == (artifact / name).read_bytes() for name in [*own, "README.md"])
    assert {name for name in own if (artifact / name).stat().st_size >= LARGE} >= {
        "model.safetensors",
        "onnx/model.onnx",
    }
    assert len(hub.lfs) > 1
    [commit] = hub.commits
    assert commit["summary"] == f"emb {emb.__version__}: 2 layers, 16 dims"
    assert done.left == [".DS_Store", "notes.txt", "onnx/.model.onnx.partial"]
    assert done.commit is not None
    assert [(made["organization"], made["name"]) for made in hub.created] == [("me", "tiny")]


def test_what_was_pushed_loads_everywhere_with_the_same_vectors(
    hub: Hub, artifact: Path, tmp_path: Path, sentences: list[str]
) -> None:
    from huggingface_hub import snapshot_download
    from sentence_transformers import SentenceTransformer

    push(artifact, REPO)
    folder = snapshot_download(REPO, local_dir=tmp_path / "downloaded")
    Manifest.load(Path(folder)).verify(Path(folder))
    expected = emb.load(artifact).encode(sentences, kind="query")
    assert np.array_equal(emb.load(folder).encode(sentences, kind="query"), expected)
    model = SentenceTransformer(REPO, cache_folder=str(tmp_path / "cache"), device="cpu")
    np.testing.assert_allclose(model.encode_query(sentences), expected, atol=1e-5)


@pytest.mark.skipif(
    int(huggingface_hub.__version__.split(".")[0]) < 2,
    reason="earlier clients ask for the store of chunks in another way",
)
def test_in_chunks_too_what_comes_back_is_what_went(hub: Hub, artifact: Path, tmp_path: Path) -> None:
    hf_xet = pytest.importorskip("hf_xet")
    hub.chunks = tmp_path / "chunks"
    hub.chunks.mkdir()
    large = [artifact / name for name in Manifest.load(artifact).files if (artifact / name).stat().st_size >= LARGE]
    stored = zip(large, hf_xet.hash_files([str(path) for path in large]), strict=True)
    hub.xet = {sha256_file(path): found.hash for path, found in stored}
    # In processes of their own: the client reads its settings when it is imported.
    settings = {
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(tmp_path / "hf"),
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_XET": "0",
        "HF_TOKEN": hub.token,
    }
    download = (
        f"from huggingface_hub import snapshot_download as get; get({REPO!r}, local_dir={str(tmp_path / 'back')!r})"
    )
    for command in (["-m", "emb.cli", "push", str(artifact), "--to", REPO, "--quiet"], ["-c", download]):
        done = subprocess.run(
            [sys.executable, *command],
            env={**os.environ, **settings},
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
    assert hub.lfs == {}
    assert set(hub.chunked) == {path.relative_to(artifact).as_posix() for path in large}
    assert all(
        (tmp_path / "back" / name).read_bytes() == (artifact / name).read_bytes()
        for name in Manifest.load(artifact).files
    )


def test_where_it_was_made_is_not_published(hub: Hub, artifact: Path) -> None:
    (artifact / "parity.json").write_text(
        json.dumps(
            {
                "artifact": str(artifact),
                "variants": [],
                "texts": {"text": 1, "odd": 1, "long": 1},
                "created": "2030-01-01",
                "machine": {"threads": 1, "processor": "p", "onnxruntime": "1"},
            }
        )
    )
    push(artifact, REPO)
    assert _served(hub, "emb.json")["lineage"]["teacher"] == {
        **asdict(Manifest.load(artifact).lineage.teacher),
        "path": "teacher",
    }
    assert _served(hub, "parity.json")["artifact"] == "artifact"
    assert all(str(artifact.parent).encode() not in (hub.folder / name).read_bytes() for name in hub.files())


def test_pushing_again_replaces_and_removes_what_an_earlier_push_left(
    hub: Hub, artifact: Path, exported: Path, tmp_path: Path
) -> None:
    push(artifact, REPO)
    (hub.folder / "LICENSE").write_text("mine")
    manifest = Manifest.load(artifact)
    (artifact / "onnx/model_vectors_binary.onnx").unlink()
    manifest.variants = manifest.variants[:1]
    manifest.save(artifact)
    done = push(artifact, REPO, message="smaller")
    assert done.removed == ["onnx/model_vectors_binary.onnx"]
    assert "onnx/model_vectors_binary.onnx" not in hub.files()
    assert (hub.folder / "LICENSE").read_text() == "mine"
    assert [commit["summary"] for commit in hub.commits][1:] == ["smaller"]


def test_a_branch_is_made_and_committed_to(hub: Hub, artifact: Path) -> None:
    push(artifact, REPO, revision="v2", private=True)
    assert hub.branches == ["v2"]
    assert hub.created[0].get("visibility", hub.created[0].get("private")) in ("private", True)
    assert len(hub.commits) == 1


def test_a_card_that_a_person_wrote_in_the_repository_is_spared(hub: Hub, artifact: Path) -> None:
    hub.exists = True
    (hub.folder / "README.md").write_text("# By hand")
    with pytest.raises(ArtifactError, match=r"README.md was written or edited by hand"):
        push(artifact, REPO)
    assert hub.commits == []
    push(artifact, REPO, overwrite=True)
    assert is_generated((hub.folder / "README.md").read_text())


def test_a_card_that_a_person_wrote_in_the_artifact_is_sent_as_it_is(hub: Hub, artifact: Path) -> None:
    (artifact / "README.md").write_text("# By hand")
    push(artifact, REPO)
    assert (hub.folder / "README.md").read_text() == "# By hand"


def test_a_dry_run_asks_nobody_and_writes_nothing(
    artifact: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    before = sorted(artifact.rglob("*"))
    assert console.run(cli, ["push", str(artifact), "--to", REPO, "--dry-run", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert set(said["files"]) == {*Manifest.load(artifact).files, "emb.json", "README.md"}
    assert said["left"] == [".DS_Store", "notes.txt", "onnx/.model.onnx.partial"]
    assert said["commit"] is None
    assert sorted(artifact.rglob("*")) == before


def test_the_command_says_where_it_went(hub: Hub, artifact: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert console.run(cli, ["push", str(artifact), "--to", REPO, "--quiet"]) == 0
    said = capsys.readouterr().out
    assert "stays here: .DS_Store, notes.txt" in said
    assert f"published: {hub.url}/{REPO}/commit/" in said


def test_changed_and_failed_files_are_refused_unless_told_so(hub: Hub, artifact: Path) -> None:
    manifest = Manifest.load(artifact)
    manifest.variants[1].passed = False
    manifest.write(artifact)
    with pytest.raises(GateFailed, match=r"model_vectors_binary.onnx failed the gate"):
        push(artifact, REPO)
    (artifact / "config.json").write_text("{}")
    with pytest.raises(ArtifactError, match=r"changed since it was written: config.json"):
        push(artifact, REPO, allow_failed=True)
    assert hub.commits == []
    push(artifact, REPO, allow_failed=True, verify=False)
    assert "failed its gate" in (hub.folder / "README.md").read_text()


@pytest.mark.parametrize("name", ["tiny", "me/tiny/more", "me/", "../tiny", "me/ti ny"])
def test_a_name_that_is_no_repository(artifact: Path, name: str) -> None:
    with pytest.raises(UsageError, match="not a repository"):
        push(artifact, name)


def test_without_a_token(hub: Hub, artifact: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", "/nowhere/token")
    with pytest.raises(HubError, match="no token to write with") as told:
        push(artifact, REPO)
    assert "hf auth login" in told.value.hint


def test_with_a_wrong_token(hub: Hub, artifact: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    with pytest.raises(HubError, match="does not accept the token"):
        push(artifact, REPO)


def test_an_owner_that_the_token_may_not_write_to(hub: Hub, artifact: Path) -> None:
    hub.refuses["create"] = 403
    with pytest.raises(HubError, match="the token may not write to me"):
        push(artifact, REPO)


REFUSALS = [
    ("commit", 400, "the commit was not taken"),
    ("commit", 403, "the token may not write"),
    ("card", 400, "is no licence"),
    ("upload", 400, "the commit was not taken"),
]


@pytest.mark.parametrize(("step", "status", "message"), REFUSALS)
def test_a_commit_that_the_hub_refuses(hub: Hub, artifact: Path, step: str, status: int, message: str) -> None:
    hub.refuses[step] = status
    with pytest.raises(HubError, match=message):
        push(artifact, REPO)
    assert hub.commits == []


def test_a_hub_out_of_reach(hub: Hub, artifact: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(HubError, match="out of reach"):
        push(artifact, REPO)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(HubError, match="out of reach"):
        push(artifact, REPO)
