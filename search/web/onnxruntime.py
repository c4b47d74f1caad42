"""The npm package onnxruntime-web: one version of it, two of its files, each known by its hash."""

from __future__ import annotations

import base64
import hashlib
import io
import tarfile
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from emb.errors import ArtifactError, HubError
from emb.files import atomic_path, cache_root
from emb.progress import bar, note

VERSION = "1.30.0"
# The smallest build with all operators of the CPU: neither WebGPU's nor WebGL's stand in it.
SCRIPT, WASM = "ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm"
_SHA256 = {
    SCRIPT: "11e64bd8ffe11bd1a2a2f0d6275fdfbbba7262f0b76b99b53d228a8a22ef3d90",
    WASM: "3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2",
}
_URL = f"https://registry.npmjs.org/onnxruntime-web/-/onnxruntime-web-{VERSION}.tgz"
_SHA512 = "q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="  # of the registry
_BYTES = 33_106_585
_CHUNK = 1 << 20
_SECONDS = 60
_BY_HAND = (
    f"fetch it where there is a network (npm pack onnxruntime-web@{VERSION}), and name that file:"
    f" --onnxruntime-web onnxruntime-web-{VERSION}.tgz"
)


@dataclass(frozen=True)
class Runtime:
    """Its script, a module, and the WebAssembly that this one starts."""

    script: bytes
    wasm: bytes


def runtime(place: Path | None = None) -> Runtime:
    """The two files, from `place` (a folder, or the file of `npm pack`), or else from emb's cache, which is filled from
    the registry.

    Raises:
        ArtifactError: files that are missing or of another version.
        HubError: the registry cannot be reached, or sends another package.
    """
    if place is None:
        place = cached()
        if not all((place / name).is_file() for name in _SHA256):
            _fill(place)
    read = _of_archive(place) if place.is_file() else _of_folder(place)
    return Runtime(*(_checked(place, name, read(name)) for name in (SCRIPT, WASM)))


def cached() -> Path:
    """The folder in emb's cache, which need not be there."""
    return cache_root() / "onnxruntime-web" / VERSION


def _fill(folder: Path) -> None:
    note(f"onnxruntime-web {VERSION}: fetching {_BYTES / 1e6:.0f} MB from the npm registry, once")
    read = _members(io.BytesIO(_fetched()))
    for name in _SHA256:
        content = read(name)
        if content is not None:
            with atomic_path(folder / name) as partial:
                partial.write_bytes(content)


def _fetched() -> bytes:
    try:
        with urllib.request.urlopen(_URL, timeout=_SECONDS) as answer, bar("onnxruntime-web", _BYTES) as advance:
            parts: list[bytes] = []
            # One byte more than there are, so that a longer answer is noticed and not read to its end.
            while (left := _BYTES + 1 - sum(map(len, parts))) and (part := answer.read(min(_CHUNK, left))):
                parts.append(part)
                advance(len(part))
    except (OSError, urllib.error.URLError) as error:
        raise HubError(f"{_URL}: cannot be fetched ({error})", _BY_HAND) from error
    content = b"".join(parts)
    if base64.b64encode(hashlib.sha512(content).digest()).decode() != _SHA512:
        raise HubError(f"{_URL}: is not the package that was expected (sha512 differs)", _BY_HAND)
    return content


def _of_archive(path: Path) -> Callable[[str], bytes | None]:
    return _members(io.BytesIO(path.read_bytes()), path)


def _members(archive: io.BytesIO, path: Path | None = None) -> Callable[[str], bytes | None]:
    """Reads files of a package by name; nothing is unpacked to where the archive says."""

    def read(name: str) -> bytes | None:
        archive.seek(0)
        try:
            with tarfile.open(fileobj=archive) as package:
                member = package.extractfile(f"package/dist/{name}")
                return member.read() if member else None
        except KeyError:
            return None
        except tarfile.TarError as error:
            raise ArtifactError(f"{path}: is not an npm package ({error})", _BY_HAND) from error

    return read


def _of_folder(folder: Path) -> Callable[[str], bytes | None]:
    """Of the two files themselves, of a package, or of the folder that `npm install` was run in."""

    def read(name: str) -> bytes | None:
        inside = ("", "dist", "package/dist", "onnxruntime-web/dist", "node_modules/onnxruntime-web/dist")
        found = next((path for each in inside if (path := folder / each / name).is_file()), None)
        return found.read_bytes() if found else None

    return read


def _checked(place: Path, name: str, content: bytes | None) -> bytes:
    if content is None:
        raise ArtifactError(f"{place}: holds no {name} of onnxruntime-web", _BY_HAND)
    if sha256(content) != _SHA256[name]:
        hint = f"delete {place} and run the command again" if place == cached() else _BY_HAND
        raise ArtifactError(f"{place}: its {name} is not that of onnxruntime-web {VERSION}", hint)
    return content


def sha256(content: bytes) -> str:
    """Hex sha256."""
    return hashlib.sha256(content).hexdigest()
