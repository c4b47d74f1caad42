"""The same encoder interface over a torch model: students, teachers, any sentence-transformers folder."""

from __future__ import annotations

from pathlib import Path

import torch

from emb.manifest import LayerDimPair
from emb.model import EmbeddingModel, load_model
from emb.serve.encoder import Encoder, Vectors
from emb.tokens import Ids


class TorchEncoder(Encoder):
    """An `EmbeddingModel`, or one (layers, dim) exit of it, on the device it lies on."""

    def __init__(self, model: EmbeddingModel, pair: LayerDimPair | None = None) -> None:
        super().__init__(model.tokenizer(), dim=pair.dim if pair else model.dim, prompts=model.spec.prompts, normalize=model.spec.normalize)
        self.model = model.eval()
        self.pair = pair

    @torch.inference_mode()
    def run(self, input_ids: Ids, attention_mask: Ids) -> Vectors:
        """Vectors `(batch, dim)` float32 of one padded batch, inputs `(batch, tokens)`."""
        device = next(self.model.parameters()).device
        ids, mask = (torch.from_numpy(array).to(device) for array in (input_ids, attention_mask))
        return self.model.embed(ids, mask, self.pair).float().cpu().numpy()


def load_torch(folder: Path, threads: int | None = None) -> TorchEncoder:
    """Open a sentence-transformers folder; `threads` sets torch's for the whole process."""
    if threads:
        torch.set_num_threads(threads)
    return TorchEncoder(load_model(folder))
