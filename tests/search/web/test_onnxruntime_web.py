"""Where the page's runtime comes from, and that it is the one that was meant."""

from __future__ import annotations

import base64
import hashlib
import io
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from browsing import tools

from emb.errors import ArtifactError, HubError
from emb.search.web import onnxruntime
from emb.search.web.onnxruntime import SCRIPT, WASM, cached, runtime

CONTENTS = {SCRIPT: b"export {}", WASM: b"\0asm" * 1000}


def npm_package(path: Path, contents: dict[str, bytes]) -> Path:
    """A .tgz as `npm pack` writes it."""
    with tarfile.open(path, "w:gz") as archive:
        for name, content in contents.items():
            member = tarfile.TarInfo(f"package/dist/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The registry's file on a server of this machine, pinned; and an empty cache."""
    monkeypatch.setenv("EMB_CACHE", str(tmp_path / "cache"))
    (tmp_path / "registry").mkdir()
    file = npm_package(tmp_path / "registry" / "ort.tgz", CONTENTS | {"ort.webgl.min.js": b"more"})
    content = file.read_bytes()
    for name, each in CONTENTS.items():
        monkeypatch.setitem(onnxruntime._SHA256, name, hashlib.sha256(each).hexdigest())
    monkeypatch.setattr(onnxruntime, "_SHA512", base64.b64encode(hashlib.sha512(content).digest()).decode())
    monkeypatch.setattr(onnxruntime, "_BYTES", len(content))
    with tools.served(tmp_path / "registry") as address:
        monkeypatch.setattr(onnxruntime, "_URL", f"{address}/ort.tgz")
        yield file


def test_it_is_fetched_once(registry: Path) -> None:
    found = runtime()
    assert (found.script, found.wasm) == (CONTENTS[SCRIPT], CONTENTS[WASM])
    assert {path.name for path in cached().iterdir()} == {SCRIPT, WASM}
    registry.unlink()
    assert runtime() == found


def test_another_package_is_not_taken(registry: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for other in (CONTENTS | {"more": b""}, CONTENTS | {SCRIPT: b"import 'elsewhere'"}):
        npm_package(registry, other)
        with pytest.raises(HubError, match="sha512 differs"):
            runtime()
    monkeypatch.setattr(onnxruntime, "_BYTES", 10)  # a longer one is not read to its end
    with pytest.raises(HubError, match="sha512 differs"):
        runtime()
    assert not cached().exists()


def test_without_a_network_the_file_is_asked_for(registry: Path) -> None:
    registry.unlink()
    with pytest.raises(HubError, match=r"cannot be fetched.*404[^$]*npm pack onnxruntime-web@\d.*onnxruntime_web on"):
        runtime()


@pytest.mark.parametrize(
    "inside", ["", "dist", "package/dist", "onnxruntime-web/dist", "node_modules/onnxruntime-web/dist"]
)
def test_a_folder_is_taken_as_npm_leaves_it(inside: str, registry: Path, tmp_path: Path) -> None:
    (tmp_path / "own" / inside).mkdir(parents=True)
    for name, content in CONTENTS.items():
        (tmp_path / "own" / inside / name).write_bytes(content)
    registry.unlink()
    assert runtime(tmp_path / "own").wasm == CONTENTS[WASM]
    (tmp_path / "own" / inside / WASM).write_bytes(b"other")
    with pytest.raises(ArtifactError, match=rf"{WASM} is not that of onnxruntime-web {onnxruntime.VERSION}"):
        runtime(tmp_path / "own")
    (tmp_path / "own" / inside / WASM).unlink()
    with pytest.raises(ArtifactError, match=f"holds no {WASM}"):
        runtime(tmp_path / "own")


def test_a_package_is_taken_as_it_is(registry: Path, tmp_path: Path) -> None:
    own = shutil.copyfile(registry, tmp_path / "own.tgz")
    registry.unlink()
    assert runtime(own).script == CONTENTS[SCRIPT]
    with pytest.raises(ArtifactError, match=f"holds no {WASM}"):
        runtime(npm_package(tmp_path / "half.tgz", {SCRIPT: CONTENTS[SCRIPT]}))
    own.write_bytes(b"no archive")
    with pytest.raises(ArtifactError, match="is not an npm package"):
        runtime(own)


def test_a_cache_that_was_changed_is_not_taken(registry: Path) -> None:
    runtime()
    (cached() / SCRIPT).write_bytes(b"import 'elsewhere'")
    with pytest.raises(ArtifactError, match=r"delete .* and run the command again"):
        runtime()
