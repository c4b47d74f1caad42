"""Which settings of a sentence-transformers module are carried; any other that is not at its default is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from emb.errors import ArtifactError

_POOLING_FLAGS = {
    f"pooling_mode_{name}"
    for name in ("cls_token", "mean_tokens", "max_tokens", "mean_sqrt_len_tokens", "weightedmean_tokens", "lasttoken")
}
# `unpad_inputs` changes how a batch is computed, not what comes out.
_CARRIED = {
    "Transformer": {"max_seq_length", "do_lower_case", "unpad_inputs"},
    "Pooling": {"embedding_dimension", "word_embedding_dimension", "pooling_mode", "include_prompt"} | _POOLING_FLAGS,
    "StaticEmbedding": set(),
    "Dense": {"in_features", "out_features", "bias", "activation_function", "use_residual"},
    "Normalize": set(),
}
_TEXT_OUT = ("sentence_embedding", None)
_DEFAULTS: dict[str, dict[str, tuple[Any, ...]]] = {
    "Transformer": {
        "transformer_task": ("feature-extraction",),
        "module_output_name": ("token_embeddings", None),
        "processing_kwargs": ({}, None),
        "query_length": (None,),
        "document_length": (None,),
        "query_expansion": (None,),
    },
    "Pooling": {},
    "StaticEmbedding": {},
    "Dense": {"module_input_name": _TEXT_OUT, "module_output_name": _TEXT_OUT},
    "Normalize": {"module_input_name": _TEXT_OUT, "module_output_name": _TEXT_OUT},
}


def refuse_settings(module: Any, kind: str, source: str | Path) -> None:
    """Look at every setting that the module would save.

    Raises:
        ArtifactError: one is not carried and not at its default, named with its value.
    """
    settings = dict(module.get_config_dict()) if hasattr(module, "get_config_dict") else {}
    if kind == "Transformer":
        _refuse_other_outputs(settings.pop("modality_config", None), source)
    for name, value in settings.items():
        if name not in _CARRIED[kind] and value not in _DEFAULTS[kind].get(name, ()):
            raise ArtifactError(
                f"{source}: {kind} with {name} = {value!r} is not supported",
                f"a {kind} is carried with {_usual(kind, name)}",
            )


def _refuse_other_outputs(modalities: dict[str, Any] | None, source: str | Path) -> None:
    text = (modalities or {}).get("text", {"method": "forward", "method_output_name": "last_hidden_state"})
    if text.get("method") != "forward" or text.get("method_output_name") != "last_hidden_state":
        hint = "carried is method forward with method_output_name last_hidden_state"
        raise ArtifactError(f"{source}: Transformer with modality_config text = {text!r} is not supported", hint)


def _usual(kind: str, name: str) -> str:
    defaults = _DEFAULTS[kind].get(name)
    return f"{name} = {defaults[0]!r}" if defaults else f"these settings only: {', '.join(sorted(_CARRIED[kind]))}"
