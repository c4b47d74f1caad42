"""What a model's vectors depend on, as one hash: two folders with the same fingerprint give the same vectors. Needs no
torch.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from emb.artifact.manifest import SIGNED, Manifest, paths_of
from emb.files import sha256_file

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "sentence_bert_config.json")
# Facts about the folder, not about the vectors the model gives.
_NOT_MODEL = {
    "emb.json",
    "parity.json",
    "evaluation.json",
    "calibration.json",
    "data_config.json",
    "id_map.json",
    "vocab_report.json",
    *SIGNED,
}
_NEVER_READ = {".md", ".html", ".pdf", ".png", ".jpg", ".jpeg", ".svg", ".h5", ".msgpack", ".ot"}
# Other runtimes' copies of the same model, and what a run keeps beside its student.
_OTHER_ROOMS = {"onnx", "openvino", "ctranslate2", "exports"}


def fingerprint(folder: Path, file: str | None = None) -> str:
    """Of one ONNX file of an artifact, or of a folder in torch; paths and reports written later change nothing."""
    return graph_hash(folder, file) if file else weights_hash(folder)


def graph_hash(folder: Path, file: str) -> str:
    """Of an artifact's model file, all that belongs to it, the tokenizer, and the facts of the manifest that vectors
    depend on.
    """
    path, manifest = folder / file, Manifest.load(folder)
    files = [
        *(each for each in (paths_of(folder, file) if path.is_file() else ()) if each.is_file()),
        *(folder / name for name in TOKENIZER_FILES if (folder / name).is_file()),
    ]
    facts: list[Any] = [manifest.dim, manifest.normalize, manifest.max_length, manifest.prompts, manifest.calibration]
    if path.suffix == ".bin":  # CTranslate2's ends at the token vectors: what follows is read from the modules
        heads = [folder / "modules.json", *sorted(folder.glob("*_Dense/config.json"))]
        facts += [manifest.pooling, [sha256_file(each) for each in heads if each.is_file()]]
    # By suffix and not by name: a file that was given another name is still the same.
    named = ((each.name.removeprefix(path.name), each) for each in files)
    return _hash(named, json.dumps(facts, sort_keys=True))


def weights_hash(folder: Path) -> str:
    """Of every file below a model folder that loading may read, by name and content: what is not known to be unread
    counts.
    """
    return _hash(
        (path.relative_to(folder).as_posix(), path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and _is_read(path.relative_to(folder))
    )


def verify_model(folder: Path, manifest: Manifest) -> None:
    """Compare what torch reads of an artifact with the hashes it was written with.

    Raises:
        ArtifactError: naming the files that are missing or changed.
    """
    manifest.verify(folder, [name for name in manifest.files if _is_read(Path(name))])


def _is_read(path: Path) -> bool:
    """Whether loading a model folder may read the file at `path`, relative to it."""
    hidden = any(part.startswith(".") for part in path.parts)
    return not (
        hidden or path.parts[0] in _OTHER_ROOMS or path.suffix.lower() in _NEVER_READ or path.as_posix() in _NOT_MODEL
    )


def content_hash(value: Any) -> str:
    """Of anything JSON can hold, and of other things by how they are written."""
    return hashlib.sha256(json.dumps(value, default=str).encode()).hexdigest()


def _hash(files: Iterable[tuple[str, Path]], *facts: str) -> str:
    state = hashlib.sha256("".join(facts).encode())
    for name, path in files:
        state.update(f"{name}\0{sha256_file(path)}\0".encode())
    return state.hexdigest()
