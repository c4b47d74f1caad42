"""One ONNX graph: token ids and mask in, finished text vectors out."""

from __future__ import annotations

import contextlib
import io
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

import onnx
import torch
from torch import Tensor, nn

from emb.errors import ArtifactError, EmbError, first_line
from emb.export.masks import traceable_masks
from emb.model.embedding_model import EmbeddingModel
from emb.quantize.weights.surgery import save_graph

GRAPH = "onnx/model.onnx"  # in an artifact
OUTPUT, TOKENS = "sentence_embedding", "last_hidden_state"
OPSET = 17
_EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts")


class _Whole(nn.Module):
    def __init__(self, model: EmbeddingModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
        layers = self.model.exits[-1]
        states = self.model.token_states(input_ids, attention_mask, [layers])[layers]
        return self.model.finished(states, attention_mask), states


def write_graph(model: EmbeddingModel, path: Path) -> Path:
    """Write `model` as ONNX: `input_ids`, `attention_mask` `(batch, tokens)` int64 → `sentence_embedding` `(batch,
    dim)`.

    The token vectors are a second output, `last_hidden_state` `(batch, tokens, hidden)`: clients built on optimum
    know no other and pool it themselves. Who asks for the first alone pays nothing for it.

    Pooling, projection and normalisation are inside; padding may stand on either side. The graph comes from torch's
    tracing exporter with eager attention: the only form in which onnxruntime's optimiser finds the attention
    pattern. Weights beyond protobuf's 2 GB go to `<name>_data`, the name that serving programs look for.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # Beyond the limit the exporter strews one file per tensor: into a folder of their own.
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".graph-") as scratch:
        traced = Path(scratch) / path.name
        _traced(model, traced)
        save_graph(onnx.load(str(traced)), path)
    return path


def _traced(model: EmbeddingModel, path: Path) -> None:
    try:
        _trace(model, path)
    except (OSError, MemoryError, EmbError):
        raise  # a full disk is told as one
    except Exception as error:  # what the exporter raises shares no base
        raise ArtifactError(
            f"{architecture(model)} cannot be exported to ONNX ({first_line(error)})",
            "encode with torch instead: emb encode --model FOLDER",
        ) from error


def architecture(model: EmbeddingModel) -> str:
    """The name of `model`'s encoder; of a mixture of experts, that it is one: a traced graph keeps the experts its
    example took.
    """
    name = type(model.encoder).__name__
    return (
        f"{name} (a mixture of experts)" if any(getattr(model.encoder.config, key, None) for key in _EXPERTS) else name
    )


def _trace(model: EmbeddingModel, path: Path) -> None:
    ids = torch.tensor([[1, 2, 3, 4], [1, 2, 0, 0]])
    axes = {name: {0: "batch", 1: "tokens"} for name in ("input_ids", "attention_mask", TOKENS)}
    with _eager(model), traceable_masks(model.encoder), silent(), torch.inference_mode():
        torch.onnx.export(
            _Whole(model).eval(),
            (ids, (ids > 0).long()),
            str(path),
            dynamo=False,
            opset_version=OPSET,
            input_names=["input_ids", "attention_mask"],
            output_names=[OUTPUT, TOKENS],
            dynamic_axes={**axes, OUTPUT: {0: "batch"}},
        )


@contextlib.contextmanager
def _eager(model: EmbeddingModel) -> Iterator[None]:
    config = model.encoder.config
    before, cache = config._attn_implementation, getattr(config, "use_cache", None)
    config._attn_implementation = "eager"
    # transformers 4 chooses DistilBERT's class of attention when the model is made: the eager one is its parent.
    built = {
        module: type(module) for module in model.encoder.modules() if type(module).__name__ == "DistilBertSdpaAttention"
    }
    for module, kind in built.items():
        module.__class__ = kind.__bases__[0]
    if cache is not None:
        config.use_cache = False
    try:
        yield
    finally:
        for module, kind in built.items():
            module.__class__ = kind
        config._attn_implementation = before
        if cache is not None:
            config.use_cache = cache


@contextlib.contextmanager
def silent() -> Iterator[None]:
    """Hold back what torch's exporter says: its own age, and each Python value that tracing freezes."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield
