"""The sentence-transformers folder as files, written so that current and older clients read it.

sentence-transformers ≥ 5.4 renamed the keys of its config files, transformers 5 those of rotary positions;
text-embeddings-inference and older clients know only the former names. Both are written, and module types by their
former path, which every version resolves.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emb.files import atomic_path, read_json, write_json

if TYPE_CHECKING:
    from torch import Tensor

EXITS_FILE = "exits.safetensors"
_MODULES = "sentence_transformers.models."
# transformers 4 makes their special tokens anew, whatever tokenizer.json says.
_REBUILT = {
    "GemmaTokenizer",
    "LlamaTokenizer",
}
_THETAS = {
    "modernbert": {"full_attention": "global_rope_theta", "sliding_attention": "local_rope_theta"},
    "gemma3_text": {"full_attention": "rope_theta", "sliding_attention": "rope_local_base_freq"},
}
_OLDER_NAMES = {"hidden_size": "dim", "num_hidden_layers": "n_layers"}  # DistilBERT has only the latter
_FLAGS = {"cls": "pooling_mode_cls_token", "mean": "pooling_mode_mean_tokens", "lasttoken": "pooling_mode_lasttoken"}


@dataclass(frozen=True)
class DensePart:
    """One projection as it is written: `weight` `(out, in)`, `bias` `(out,)` or none, the class path of the activation
    behind.

    `residual` says whether the input is added to the result, behind `residual_weight` `(out, in)` where the widths
    differ.
    """

    weight: Tensor
    bias: Tensor | None
    activation: str
    residual: bool = False
    residual_weight: Tensor | None = None


def write_sentence_transformers(
    folder: Path, spec: dict[str, Any], hidden: int, dense: Sequence[DensePart], *, static: bool = False
) -> None:
    """Write the module files around an encoder already saved in `folder`; `static` is one without layers.

    `spec` holds pooling, normalize, max_length, prompts, default_prompt and similarity; `dense` the projections, in
    order.
    """
    lead = ["StaticEmbedding"] if static else ["Transformer", "Pooling"]
    types = [*lead, *["Dense"] * len(dense), *(["Normalize"] if spec["normalize"] else [])]
    paths = ["" if index == 0 else f"{index}_{kind}" for index, kind in enumerate(types)]
    write_json(
        folder / "modules.json",
        [
            {"idx": i, "name": str(i), "path": path, "type": _MODULES + kind}
            for i, (kind, path) in enumerate(zip(types, paths, strict=True))
        ],
    )
    if not static:
        write_json(folder / "1_Pooling" / "config.json", _pooling_config(spec["pooling"], hidden))
    for index, part in enumerate(dense, start=len(lead)):
        _write_dense(folder / f"{index}_Dense", part)
    if spec["normalize"]:
        (folder / paths[-1]).mkdir(exist_ok=True)
        write_json(folder / paths[-1] / "config.json", {})
    write_json(
        folder / "sentence_bert_config.json",
        {"max_seq_length": spec["max_length"], "do_lower_case": spec.get("lowercase", False)},
    )
    prompts = {"query": "", "document": "", **spec["prompts"]}
    names = {
        "model_type": "SentenceTransformer",
        "prompts": prompts,
        "default_prompt_name": spec.get("default_prompt"),
        "similarity_fn_name": spec.get("similarity", "cosine"),
    }
    write_json(
        folder / "config_sentence_transformers.json", {"__version__": {"sentence_transformers": "5.1.0"}, **names}
    )


def write_limits(folder: Path, max_length: int, inputs: Sequence[str], side: str = "right") -> None:
    """Let the tokenizer's own files say where texts are cut and that batches are padded to their longest.

    Each client reads another of them: fastembed the smaller of `model_max_length` and `max_length`, `tokenizers`
    what `tokenizer.json` says. all-MiniLM-L6-v2 ships with 256 in one and 128 in two others. `inputs` are what the
    model takes of what tokenizers give: transformers 4 hands it all of them.
    """
    config = read_json(folder / "tokenizer_config.json")
    config.pop("max_length", None)
    if config.get("tokenizer_class") == "TokenizersBackend":
        config["tokenizer_class"] = "PreTrainedTokenizerFast"  # its name before transformers 5, which knows both
    if config.get("tokenizer_class") in _REBUILT:
        config |= _ends(folder, config)
    write_json(
        folder / "tokenizer_config.json",
        config | {"model_max_length": max_length, "model_input_names": list(inputs), "truncation_side": side},
    )
    tokenizer = read_json(folder / "tokenizer.json")
    tokenizer["truncation"] = {
        "direction": side.capitalize(),
        "max_length": max_length,
        "strategy": "LongestFirst",
        "stride": 0,
    }
    if tokenizer.get("padding"):
        tokenizer["padding"]["strategy"] = "BatchLongest"
    with atomic_path(folder / "tokenizer.json") as partial:
        partial.write_text(json.dumps(tokenizer, ensure_ascii=False, separators=(",", ":")), encoding="utf-8")


def _ends(folder: Path, config: dict[str, Any]) -> dict[str, bool]:
    """Whether `tokenizer.json` puts a token before and behind a text, as transformers 4 wants to be told."""
    from tokenizers import Tokenizer

    found = Tokenizer.from_file(str(folder / "tokenizer.json")).encode("").tokens
    first, last = (
        token["content"] if isinstance(token := config.get(name), dict) else token
        for name in ("bos_token", "eos_token")
    )
    return {"add_bos_token": found[:1] == [first], "add_eos_token": found[-1:] == [last]}


def write_older_keys(folder: Path) -> None:
    """Say in `config.json` what transformers 4 and text-embeddings-inference look for under former names.

    Without them they take their defaults: Qwen3's positions turn a hundred times faster, and its vectors are others.
    """
    config = read_json(folder / "config.json")
    older = (
        _older_positions(config)
        | _older_pattern(config)
        | {name: config[key] for name, key in _OLDER_NAMES.items() if key in config}
    )
    if config.get("pad_token_id", 0) is None:
        del config["pad_token_id"]  # text-embeddings-inference stops at a null
    write_json(folder / "config.json", older | config)


def _older_positions(config: dict[str, Any]) -> dict[str, Any]:
    rope = config.get("rope_parameters") or {}
    if "rope_theta" in rope:
        scaling = {key: value for key, value in rope.items() if key != "rope_theta"}
        return {"rope_theta": rope["rope_theta"]} | (
            {"rope_scaling": scaling} if scaling.get("rope_type", "default") != "default" else {}
        )
    names = _THETAS.get(config.get("model_type", ""), {})
    return {name: rope[kind]["rope_theta"] for kind, name in names.items() if kind in rope}


def _older_pattern(config: dict[str, Any]) -> dict[str, Any]:
    # ModernBERT: every how many layers one looks at the whole text, the first included.
    if config.get("model_type") != "modernbert" or not config.get("layer_types"):
        return {}
    whole = [index for index, kind in enumerate(config["layer_types"]) if kind == "full_attention"]
    return {"global_attn_every_n_layers": whole[1] if len(whole) > 1 else len(config["layer_types"])}


def _pooling_config(pooling: str, hidden: int) -> dict[str, Any]:
    flags = {flag: mode == pooling for mode, flag in _FLAGS.items()}
    return {
        "word_embedding_dimension": hidden,
        **flags,
        "include_prompt": True,
        "embedding_dimension": hidden,
        "pooling_mode": pooling,
    }


def _write_dense(folder: Path, part: DensePart) -> None:
    from safetensors.torch import save_file

    folder.mkdir(exist_ok=True)
    shape = {"in_features": part.weight.shape[1], "out_features": part.weight.shape[0], "bias": part.bias is not None}
    # Older versions know nothing of residuals and stop at the key: it is written where it says something.
    write_json(
        folder / "config.json",
        {**shape, "activation_function": part.activation, **({"use_residual": True} if part.residual else {})},
    )
    tensors = {"linear.weight": part.weight, "linear.bias": part.bias, "residual.weight": part.residual_weight}
    save_file(
        {name: tensor.detach().float().contiguous() for name, tensor in tensors.items() if tensor is not None},
        folder / "model.safetensors",
    )
