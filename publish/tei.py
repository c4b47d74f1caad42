"""What text-embeddings-inference reads of an artifact, and where it stops.

Found in its source (router, core/download, backends/ort, backends/candle), not by running it. Its image for CPUs
runs `onnx/model.onnx`; the one for GPUs runs the safetensors in candle.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from emb.publish.doctor import Patient

# Each key with the types it is parsed into; one of another type, or null, stops the server.
_ROUTER = {"architectures": list, "model_type": str, "max_position_embeddings": int}
_ORT = {"hidden_size": int, "num_hidden_layers": int}
_ALIASES = {"max_position_embeddings": "n_positions", "hidden_size": "n_embd", "num_hidden_layers": "n_layer"}
_FLAGS = ("pooling_mode_cls_token", "pooling_mode_mean_tokens")
_OFFSET = {"roberta", "xlm-roberta", "camembert"}
_CANDLE = {
    "bert",
    "camembert",
    "distilbert",
    "gemma3_text",
    "mistral",
    "modernbert",
    "mpnet",
    "new",
    "nomic_bert",
    "qwen2",
    "qwen3",
    "roberta",
    "xlm-roberta",
}
_ROPE = {
    "qwen2": ["rope_theta"],
    "qwen3": ["rope_theta"],
    "mistral": ["rope_theta"],
    "gemma3_text": ["rope_theta", "rope_local_base_freq"],
    "modernbert": ["global_rope_theta", "local_rope_theta", "global_attn_every_n_layers"],
}
_MODULES = {f"sentence_transformers.models.{name}" for name in ("Transformer", "Pooling", "Dense", "Normalize")}
STATIC, _NO_STATIC = "StaticEmbedding", "it serves no static model"
_ACTIVATIONS = {"torch.nn.modules.linear.Identity", "torch.nn.modules.activation.Tanh"}


def on_cpu(patient: Patient) -> Iterator[str]:
    """What stops its ONNX backend, or gives other vectors."""
    if STATIC in patient.modules:
        yield _NO_STATIC
        return
    yield from patient.has("onnx/model.onnx", *_COMMON)
    if (patient.folder / "model.onnx").is_file():
        yield "model.onnx is read in place of onnx/model.onnx: remove it"
    if (patient.folder / "onnx/model.onnx.data").is_file():
        yield (
            "the graph's data lies in onnx/model.onnx.data, and must in onnx/model.onnx_data: export it again with emb"
            " export"
        )
    yield from patient.inputs()
    yield from patient.output("sentence_embedding")
    yield from _common(patient, _ROUTER | _ORT)
    if not isinstance(patient.json("config.json").get("eos_token_id"), int | None):
        yield "config.json: eos_token_id is no single number: keep the first"


def on_gpu(patient: Patient) -> Iterator[str]:
    """What stops its candle backend, or gives other vectors."""
    if STATIC in patient.modules:
        yield _NO_STATIC
        return
    yield from patient.has(*_COMMON, "modules.json")
    if not any((patient.folder / name).is_file() for name in ("model.safetensors", "model.safetensors.index.json")):
        yield "model.safetensors is missing: export it again with emb export"
    yield from _common(patient, _ROUTER)
    config = patient.json("config.json")
    kind = config.get("model_type")
    if kind and kind not in _CANDLE:
        yield (
            f"config.json: model_type {kind} is none that it knows ({', '.join(sorted(_CANDLE))}): serve it on the CPU"
        )
    if missing := [name for name in _ROPE.get(kind, []) if name not in config]:
        yield f"config.json lacks {', '.join(missing)}: export it again with emb export"
    yield from _modules(patient)


_COMMON = ("config.json", "tokenizer.json", "1_Pooling/config.json", "sentence_bert_config.json")


def _common(patient: Patient, keys: dict[str, type]) -> Iterator[str]:
    config = patient.json("config.json")
    for name, kind in keys.items():
        if config and not isinstance(config.get(name, config.get(_ALIASES.get(name, ""))), kind):
            yield f"config.json lacks {name}, or it is no {kind.__name__}: set it"
    if "pad_token_id" in config and not isinstance(config["pad_token_id"], int):
        yield f"config.json: pad_token_id is {config['pad_token_id']!r}: remove it"
    if any(str(name).endswith("Classification") for name in config.get("architectures") or []):
        yield "config.json: architectures names a classifier, and it would be served as one: name the encoder"
    yield from _pooling(patient)
    yield from _limit(patient, config)
    yield from _prompts(patient)


def _pooling(patient: Patient) -> Iterator[str]:
    pooling = patient.json("1_Pooling/config.json")
    if not pooling:
        return
    if not all(isinstance(pooling.get(flag), bool) for flag in _FLAGS) or not any(
        pooling.get(flag) is True for flag in (*_FLAGS, "pooling_mode_lasttoken")
    ):
        yield (
            "1_Pooling/config.json has no pooling_mode_…: true, the only form it reads: export it again with emb export"
        )


def _limit(patient: Patient, config: dict[str, Any]) -> Iterator[str]:
    found, wanted = patient.json("sentence_bert_config.json").get("max_seq_length"), patient.manifest.max_length
    if found != wanted:
        yield f"sentence_bert_config.json does not say max_seq_length {wanted}: set it"
    positions = config.get("max_position_embeddings")
    offset = (config.get("pad_token_id") or 0) + 1 if config.get("model_type") in _OFFSET else 0
    if isinstance(positions, int) and wanted > positions - offset:
        yield (
            f"texts may have {wanted} tokens, and the encoder has {positions - offset} positions: lower max_seq_length"
            " in sentence_bert_config.json"
        )


def _prompts(patient: Patient) -> Iterator[str]:
    prompts = patient.json("config_sentence_transformers.json").get("prompts")
    if prompts is not None and not (
        isinstance(prompts, dict) and all(isinstance(text, str) for text in prompts.values())
    ):
        yield "config_sentence_transformers.json: a prompt is no text: write an empty one"


def _modules(patient: Patient) -> Iterator[str]:
    modules = patient.json("modules.json") or []
    if strange := sorted({module["type"] for module in modules} - _MODULES):
        yield (
            f"modules.json names {', '.join(strange)}: it would leave out the projection; export it again with emb"
            " export"
        )
    for module in modules:
        if module["type"].endswith(".Dense"):
            yield from patient.has(f"{module['path']}/model.safetensors")
            yield from _dense(f"{module['path']}/config.json", patient.json(f"{module['path']}/config.json"))


def _dense(name: str, config: dict[str, Any]) -> Iterator[str]:
    if not isinstance(config.get("bias"), bool):
        yield f"{name} does not say bias true or false: set it"
    if config.get("activation_function") not in (None, *_ACTIVATIONS):
        yield f"{name}: activation {config['activation_function']} is neither Identity nor Tanh: serve it on the CPU"
    if config.get("use_residual"):
        yield f"{name}: the input is added to the projection, which it does not do: serve it on the CPU"
