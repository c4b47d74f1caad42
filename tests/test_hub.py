"""The hub route, against a hub on this machine that serves a tiny Qwen3 under the published name."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

HUB_ID = "Qwen/Qwen3-Embedding-0.6B"
COMMIT = "c0ffee" * 6 + "c0ff"


@dataclass
class Hub:
    """A hub that has one model; `asked` records the files that were fetched."""

    folder: Path
    gated: bool = False
    asked: list[str] = field(default_factory=list)
    url: str = ""

    def files(self) -> list[str]:
        return sorted(path.relative_to(self.folder).as_posix() for path in self.folder.rglob("*") if path.is_file())

    def info(self) -> dict[str, Any]:
        return {"_id": "1", "id": HUB_ID, "modelId": HUB_ID, "sha": COMMIT, "private": False, "gated": self.gated, "disabled": False, "downloads": 0,
                "likes": 0, "tags": [], "siblings": [{"rfilename": name} for name in self.files()]}  # fmt: skip

    def tree(self) -> list[dict[str, Any]]:
        return [{"type": "file", "path": name, "size": (self.folder / name).stat().st_size, "oid": self.etag(name)} for name in self.files()]

    def etag(self, name: str) -> str:
        # What the hub gives for a file that is not in LFS: git's hash of the blob.
        content = (self.folder / name).read_bytes()
        return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


class Answers(BaseHTTPRequestHandler):
    """The part of the hub's API that a download asks for."""

    def __init__(self, hub: Hub, *args: Any) -> None:
        self.hub = hub
        super().__init__(*args)

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        if path.startswith(f"/api/models/{HUB_ID}/tree/"):
            self._json(self.hub.tree())
        elif path in (f"/api/models/{HUB_ID}", f"/api/models/{HUB_ID}/revision/main"):
            self._gated() if self.hub.gated else self._json(self.hub.info())
        elif path.startswith(f"/{HUB_ID}/resolve/"):
            self._file(path.split("/", 5)[5])
        else:
            self._send(404, b'{"error":"Repository not found"}', {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"})

    def _file(self, name: str) -> None:
        if name not in self.hub.files():
            return self._send(404, b"", {"X-Error-Code": "EntryNotFound", "X-Error-Message": "no such file"})
        if self.command == "GET":
            self.hub.asked.append(name)
        self._send(200, (self.hub.folder / name).read_bytes(), {"ETag": f'"{self.hub.etag(name)}"', "X-Repo-Commit": COMMIT})

    def _gated(self) -> None:
        self._send(403, b'{"error":"gated"}', {"X-Error-Code": "GatedRepo", "X-Error-Message": "Access to model is restricted"})

    def _json(self, value: Any) -> None:
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Keep quiet."""


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
    served = Hub(folder)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Answers, served))
    served.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield served
    server.shutdown()
    server.server_close()


def _environment(tmp_path: Path, url: str) -> dict[str, str]:
    ours = {"HF_ENDPOINT": url, "HF_HOME": str(tmp_path / "hf"), "EMB_CACHE": str(tmp_path / "cache"), "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
    theirs = {key: value for key, value in os.environ.items() if not key.startswith("HF_") and key != "EMB_MODELS"}
    return {**theirs, **ours, "HF_HUB_DISABLE_TELEMETRY": "1"}


def _resolve(name: str, tmp_path: Path, url: str, **more: str) -> subprocess.CompletedProcess[str]:
    code = f"from emb.registry import resolve; found = resolve({name!r}); print(found.path); print(found.name); print(found.revision)"
    return subprocess.run([sys.executable, "-c", code], env={**_environment(tmp_path, url), **more}, capture_output=True, text=True, check=False, timeout=120)


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
    done = subprocess.run([*command, *less], cwd=tmp_path, env=_environment(tmp_path, hub.url), capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["run"] == "runs/qwen3-embedding-0.6b"
    manifest = json.loads((tmp_path / result["student"] / "emb.json").read_text(encoding="utf-8"))
    assert (manifest["layers"], manifest["dim"], manifest["pooling"]) == (8, 32, "lasttoken")
    assert {pair["layers"] for pair in manifest["pairs"]} >= {4, 8}
    assert manifest["lineage"]["teacher"]["name"] == "qwen3-embedding-0.6b"
    assert manifest["lineage"]["teacher"]["revision"] == COMMIT
    assert manifest["prompts"]["query"].startswith("Instruct: ")
