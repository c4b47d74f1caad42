"""What a model's vectors depend on, as one hash: two folders with the same fingerprint give the same vectors. Needs no torch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from emb.files import sha256_file
from emb.manifest import Manifest

_TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "sentence_bert_config.json")
_MODEL = ("*.safetensors", "*.json", "*/config.json", "*/*.safetensors", "*.model", "vocab.txt")
# Facts about the folder, not about the vectors the model gives.
_NOT_MODEL = {"emb.json", "parity.json", "evaluation.json", "data_config.json"}


def fingerprint(folder: Path, file: str | None = None) -> str:
    """Of one ONNX file of an artifact, or of a folder in torch; paths and reports written later change nothing."""
    return graph_hash(folder, file) if file else weights_hash(folder)


def graph_hash(folder: Path, file: str) -> str:
    """Of an artifact's ONNX file, the data beside it, the tokenizer, and the facts of the manifest that vectors depend on."""
    path, manifest = folder / file, Manifest.load(folder)
    files = [*sorted(path.parent.glob(f"{path.name}*")), *(folder / name for name in _TOKENIZER if (folder / name).is_file())]
    facts = [manifest.dim, manifest.normalize, manifest.max_length, manifest.prompts, manifest.calibration]
    # By suffix and not by name: a file that was given another name is still the same.
    named = ((each.name.removeprefix(path.name), each) for each in files)
    return _hash(named, json.dumps(facts, sort_keys=True))


def weights_hash(folder: Path) -> str:
    """Of a model folder's weights, tokenizer and module files, by name and content."""
    files = sorted({path for pattern in _MODEL for path in folder.glob(pattern)} - {folder / name for name in _NOT_MODEL})
    return _hash((path.relative_to(folder).as_posix(), path) for path in files)


def content_hash(value: Any) -> str:
    """Of anything JSON can hold, and of other things by how they are written."""
    return hashlib.sha256(json.dumps(value, default=str).encode()).hexdigest()


def _hash(files: Iterable[tuple[str, Path]], *facts: str) -> str:
    state = hashlib.sha256("".join(facts).encode())
    for name, path in files:
        state.update(f"{name}\0{sha256_file(path)}\0".encode())
    return state.hexdigest()
