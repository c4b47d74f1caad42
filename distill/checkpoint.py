"""Checkpoints that bring a run back to the bit: weights, optimiser, random state, position.

A checkpoint is a folder of two safetensors files and a `state.json` that holds their hashes. The learning rate and
the order of batches follow from the step (`schedule.py`), so they need no state.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from emb.errors import CheckpointError, EmbError
from emb.files import atomic_folder, read_json, sha256_file, write_json
from emb.progress import warn

_KEEP = 2
_NUMBER = "number"  # behind the name of a state that is no tensor


def save_checkpoint(
    root: Path, step: int, model: nn.Module, optimizer: torch.optim.Optimizer, facts: dict[str, Any]
) -> None:
    """Write `root/step-N` atomically and drop all but the newest two, and what a crash left half-written."""
    for half in root.glob(".step-*.partial"):
        shutil.rmtree(half)
    with atomic_folder(root / f"step-{step:08d}", replace=True) as folder:
        save_file({name: value.contiguous() for name, value in _trained(model).items()}, folder / "model.safetensors")
        save_file(_flatten(optimizer) | {"rng": torch.get_rng_state()}, folder / "optimizer.safetensors")
        hashes = {path.name: sha256_file(path) for path in sorted(folder.glob("*.safetensors"))}
        state = {"step": step, "files": hashes, **facts}
        write_json(folder / "state.json", {**state, "digest": _digest(state)})
    for old in sorted(root.glob("step-*"))[:-_KEEP]:
        _drop(old)


def _drop(folder: Path) -> None:
    """Delete a checkpoint by way of a name that no resume reads: a crash meanwhile leaves none half there."""
    shutil.rmtree(folder.rename(folder.with_name(f".{folder.name}.old.partial")))


def has_checkpoint(root: Path) -> bool:
    """Whether a checkpoint was ever finished, damaged or not."""
    return any(root.glob("step-*"))


def load_checkpoint(
    root: Path, identity: str, model: nn.Module, optimizer: torch.optim.Optimizer
) -> dict[str, Any] | None:
    """Restore the newest whole checkpoint in place; return its state, or None if there is none.

    A damaged one is named and passed over: the one before it leads to the same weights.

    Raises:
        CheckpointError: there are checkpoints, and all are damaged; or the newest whole one was written under
            another `identity`.
    """
    for folder in sorted(root.glob("step-*"), reverse=True):
        state = _verified(folder)
        if state is None:
            continue
        if state["identity"] != identity:
            raise CheckpointError(
                f"{folder}: belongs to other data, another recipe or another teacher",
                "undo the change, or start again with --overwrite",
            )
        _restore(folder, model, optimizer)
        return state
    if has_checkpoint(root):
        raise CheckpointError(
            f"{root}: every checkpoint is damaged",
            "start again with --overwrite; the teacher's vectors are still cached",
        )
    return None


def _trained(model: nn.Module) -> dict[str, Tensor]:
    return {name: parameter.detach() for name, parameter in model.named_parameters() if parameter.requires_grad}


def _verified(folder: Path) -> dict[str, Any] | None:
    try:
        state: dict[str, Any] = read_json(folder / "state.json")
        bad = [
            name
            for name, digest in state["files"].items()
            if not (folder / name).is_file() or sha256_file(folder / name) != digest
        ]
        bad += ["state.json"] if state.pop("digest") != _digest(state) else []
    except (EmbError, OSError, KeyError, TypeError, AttributeError):
        bad = ["state.json"]
    if bad:
        warn(f"{folder} is damaged ({', '.join(bad)}): the checkpoint before it is used")
        return None
    return state


def _digest(state: dict[str, Any]) -> str:
    return hashlib.blake2b(json.dumps(state, sort_keys=True).encode(), digest_size=16).hexdigest()


def _restore(folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    saved = load_file(folder / "model.safetensors")
    with torch.no_grad():
        for name, parameter in _trained(model).items():
            parameter.copy_(saved[name])
    tensors = load_file(folder / "optimizer.safetensors")
    torch.set_rng_state(tensors.pop("rng"))
    _unflatten(optimizer, tensors)


def _flatten(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    state = optimizer.state_dict()["state"]
    return {f"{index}.{name}": value for index, entry in state.items() for name, value in _leaves(entry)}


def _leaves(entry: dict[str, Any]) -> Iterator[tuple[str, Tensor]]:
    """The tensors of one parameter's state. bitsandbytes counts steps in plain numbers, and has a level more, in which
    parameters share tensors: safetensors takes those only as copies.
    """
    for name, value in entry.items():
        if isinstance(value, dict):
            yield from ((f"{name}.{inner}", each.clone()) for inner, each in value.items())
        elif isinstance(value, Tensor):
            yield name, value.contiguous()
        else:
            yield f"{name}.{_NUMBER}", torch.tensor(value)


def _unflatten(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    state: dict[int, dict[str, Any]] = {}
    for key, value in tensors.items():
        index, name, *inner = key.split(".")
        entry = state.setdefault(int(index), {})
        if not inner:
            entry[name] = value
        elif inner == [_NUMBER]:
            entry[name] = value.item()
        else:
            entry.setdefault(name, {})[inner[0]] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
