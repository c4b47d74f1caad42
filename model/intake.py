"""What a model folder must hold before anything is built on it: whole files, whole weights, rows for every token id."""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from transformers import PreTrainedModel

from emb.artifact.manifest import what_else
from emb.errors import ArtifactError
from emb.files import read_json

_NAMED = {"type", "path"}
_NEEDED = {"Pooling": ("config.json",), "Dense": ("config.json", "model.safetensors")}
_LFS = b"version https://git-lfs"
_BIG = ("*.safetensors", "*.bin", "*.model", "tokenizer.json", "vocab.*")
# Not part of an embedding: BERT's next-sentence head; tables of numbers that follow from the config.
_NOT_NEEDED = re.compile(r"(^|\.)(pooler|position_ids|inv_freq|lm_head)(\.|$)")
# A surplus head is no matter; a layer that the config does not know of is.
_LAYER = re.compile(r"(^|\.)(layers?|block|blocks|h)\.\d+\.")
_PATCHING = threading.Lock()
_CONVERT = (
    'python -c "import torch; from safetensors.torch import save_file; '
    "save_file({{k: v.contiguous() for k, v in torch.load('{0}', weights_only=True).items()}}, '{1}')\""
)
_CONVERT_SHARDS = (
    "python -c \"from transformers import AutoModel as A; A.from_pretrained('{0}').save_pretrained('{0}')\""
)
_MERGE = (
    'python -c "from transformers import AutoModel as A; from peft import PeftModel as P; '
    "P.from_pretrained(A.from_pretrained('{0}'), '{1}').merge_and_unload().save_pretrained('{1}-merged')\""
)


def check_folder(folder: Path) -> None:
    """Look at the files of a model folder without loading them.

    Raises:
        ArtifactError: no model, a git-lfs pointer, a damaged or missing file, a module without its folder or files, an
            adapter, or weights in pickle.
    """
    if not any((folder / name).is_file() for name in ("modules.json", "config.json", "adapter_config.json")):
        kind = what_else(folder)
        raise ArtifactError(
            f"{folder}: {kind or 'a folder without modules.json and config.json'}, not a model",
            f"give {folder / 'student'}, or what emb export makes of it"
            if kind == "a run"
            else "give a folder with config.json, model.safetensors and tokenizer.json",
        )
    for pattern in _BIG:
        for path in folder.rglob(pattern):
            _refuse_pointer(path)
    for place in [folder, *_module_folders(folder)]:
        _refuse_adapter(place)
        _refuse_pickle(place)
    for path in folder.rglob("*.safetensors"):
        _refuse_damaged(path)
    for index in folder.rglob("*.safetensors.index.json"):
        _refuse_lost_shards(index)


def _refuse_pointer(path: Path) -> None:
    if path.is_file() and path.stat().st_size < 1024 and path.read_bytes().startswith(_LFS):
        raise ArtifactError(
            f"{path}: is a git-lfs pointer, not the file itself", f"fetch the file: cd {path.parent} && git lfs pull"
        )


def _module_folders(folder: Path) -> list[Path]:
    if not (folder / "modules.json").is_file():
        return []
    modules = read_json(folder / "modules.json")
    if not isinstance(modules, list) or not all(isinstance(each, dict) and each.keys() >= _NAMED for each in modules):
        raise ArtifactError(
            f"{folder / 'modules.json'}: not a list of modules, each with type and path", "download it again"
        )
    places = [folder / each["path"] for each in modules if each.get("path")]
    for module, place in zip((each for each in modules if each.get("path")), places, strict=True):
        # Normalize has nothing to store, and git keeps no empty folders.
        if not place.is_dir() and not module["type"].endswith(".Normalize"):
            raise ArtifactError(
                f"{folder / 'modules.json'}: names {module['path']}, and there is no such folder",
                "download the whole model again",
            )
        for name in _NEEDED.get(module["type"].split(".")[-1], ()):
            if not (place / name).is_file() and not (place / "pytorch_model.bin").is_file():
                raise ArtifactError(f"{place / name}: no such file", "download the whole model again")
    return places


def _refuse_pickle(place: Path) -> None:
    wanted, index = place / "model.safetensors", place / "model.safetensors.index.json"
    pickled = sorted(place.glob("pytorch_model*.bin"))
    if pickled and not wanted.is_file() and not index.is_file():
        hint = "convert it, if you trust where it comes from: "
        hint += _CONVERT.format(pickled[0], wanted) if len(pickled) == 1 else _CONVERT_SHARDS.format(place)
        raise ArtifactError(f"{pickled[0]}: weights in pickle, only safetensors are read", hint)
    shards = sorted(place.glob("model-*-of-*.safetensors"))
    if shards and not wanted.is_file() and not index.is_file():
        raise ArtifactError(f"{index}: no such file, and {shards[0].name} is a part", "download the missing index")


def _refuse_adapter(folder: Path) -> None:
    path = folder / "adapter_config.json"
    if path.is_file():
        hint = "merge it into the model it was trained on, and copy the other files of the folder beside that: "
        raise ArtifactError(f"{path}: an adapter, which is not carried", hint + _MERGE.format(_base(path), folder))


def _base(path: Path) -> str:
    config = read_json(path)
    return str(config.get("base_model_name_or_path") if isinstance(config, dict) else None)


def _refuse_damaged(path: Path) -> None:
    try:
        with safe_open(str(path), framework="pt") as tensors:
            tensors.keys()
    except (SafetensorError, OSError) as error:
        raise ArtifactError(f"{path}: damaged or cut short ({error})", "download it again") from error


def _refuse_lost_shards(index: Path) -> None:
    content = read_json(index)
    parts = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(parts, dict) or not all(isinstance(name, str) for name in parts.values()):
        raise ArtifactError(f"{index}: not a list of weights and the files that hold them", "download it again")
    shards = set(parts.values())
    lost = sorted(name for name in shards if not (index.parent / name).is_file())
    if lost:
        raise ArtifactError(
            f"{index}: names {', '.join(lost)}, and there is no such file", "download the missing shards"
        )


@contextlib.contextmanager
def loading_noted() -> Iterator[list[dict[str, Any]]]:
    """Yield a list that gets what transformers says of each model loaded inside: missing, unexpected and mismatched
    tensors.
    """
    found: list[dict[str, Any]] = []
    original = PreTrainedModel.__dict__["from_pretrained"]

    def noted(cls: Any, *args: Any, **kwargs: Any) -> Any:
        asked = kwargs.pop("output_loading_info", False)
        model, info = original.__func__(cls, *args, output_loading_info=True, **kwargs)
        found.append(info)
        return (model, info) if asked else model

    with _PATCHING:  # the class is one for all threads
        PreTrainedModel.from_pretrained = classmethod(noted)  # type: ignore[assignment, method-assign]
        try:
            yield found
        finally:
            PreTrainedModel.from_pretrained = original  # type: ignore[method-assign]


def check_loading(source: str | Path, infos: list[dict[str, Any]]) -> None:
    """Hold what transformers found in the files against what the model has.

    Raises:
        ArtifactError: tensors that are missing, and would be random, or that belong to layers the config does not know
            of.
    """
    for info in infos:
        missing = sorted(name for name in info.get("missing_keys", ()) if not _NOT_NEEDED.search(name))
        if missing:
            raise ArtifactError(
                f"{source}: the weights lack {_some(missing)}",
                "download the whole model again; missing weights would be random",
            )
        surplus = sorted(
            name for name in info.get("unexpected_keys", ()) if _LAYER.search(name) and not name.startswith("decoder.")
        )
        if surplus:
            raise ArtifactError(
                f"{source}: config.json knows nothing of {_some(surplus)}",
                "use the config.json that belongs to these weights",
            )


def check_weights(source: str | Path, model: torch.nn.Module, ids: int) -> None:
    """Look at the loaded tensors; `ids` is how many token ids the tokenizer gives.

    Raises:
        ArtifactError: NaN or infinity, or fewer rows of tokens than ids.
    """
    for name, tensor in model.named_parameters():
        # A sum is quick and keeps what is not a number; a sum that is too large is looked at again.
        if (
            tensor.is_floating_point()
            and not torch.isfinite(tensor.sum(dtype=torch.float32))
            and not torch.isfinite(tensor).all()
        ):
            raise ArtifactError(
                f"{source}: {name} holds NaN or infinity: its values are not finite",
                "the weights are damaged: download or train them again",
            )
    table = model.get_input_embeddings() if isinstance(model, PreTrainedModel) else None
    rows = getattr(table, "num_embeddings", None)
    if rows is not None and rows < ids:
        raise ArtifactError(
            f"{source}: the tokenizer gives {ids:,} ids, the token table has {rows:,} rows",
            "use the tokenizer that belongs to these weights",
        )


def _some(names: list[str]) -> str:
    return f"{', '.join(names[:3])}{f' and {len(names) - 3:,} more' if len(names) > 3 else ''}"
