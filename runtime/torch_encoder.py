"""The same encoder interface over a torch model: students, teachers, any sentence-transformers folder."""

from __future__ import annotations

from pathlib import Path

import torch

from emb.artifact.fingerprints import verify_model
from emb.artifact.manifest import LayerDimPair, Manifest, is_artifact
from emb.machine import usable_device
from emb.model.batches import tensors
from emb.model.embedding_model import EmbeddingModel, load_model
from emb.runtime.encoder import Encoder, unit_rows
from emb.similarity import Vectors
from emb.tokens import Ids

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class TorchEncoder(Encoder):
    """An `EmbeddingModel`, or one (layers, dim) exit of it, on the device it lies on."""

    def __init__(self, model: EmbeddingModel, pair: LayerDimPair | None = None) -> None:
        spec = model.spec
        super().__init__(
            model.tokenizer(),
            dim=pair.dim if pair else model.dim,
            prompts=spec.prompts,
            normalize=spec.normalize,
            similarity_fn_name=spec.similarity,
        )
        self.model = model.eval()
        self.pair = pair
        self._rounded = next(model.parameters()).dtype != torch.float32

    @torch.inference_mode()
    def run(self, input_ids: Ids, attention_mask: Ids) -> Vectors:
        """Vectors `(batch, dim)` float32 of one padded batch, inputs `(batch, tokens)`."""
        ids, mask = tensors((input_ids, attention_mask), self.model)
        vectors = self.model.embed(ids, mask, self.pair).float().cpu().numpy()
        return unit_rows(vectors) if self._rounded and self.normalize else vectors  # 16 bits miss length 1 by 0.4 %


def load_torch(
    folder: Path,
    threads: int | None = None,
    *,
    device: str = "cpu",
    dtype: str = "fp32",
    verify: bool = True,
    trust_remote_code: bool = False,
) -> TorchEncoder:
    """Open a sentence-transformers folder on `device`, to compute in `dtype`; `threads` sets torch's for the whole
    process.

    Raises:
        ArtifactError: not a model, or an artifact that has changed since it was written.
        UsageError: torch has no such device here.
    """
    place = usable_device(device)
    if verify and is_artifact(folder):
        verify_model(folder, Manifest.load(folder))
    if threads:
        torch.set_num_threads(threads)
    model = load_model(folder, dtype=_DTYPES[dtype], trust_remote_code=trust_remote_code)
    model.to(place)
    encoder = TorchEncoder(model)
    encoder.folder = folder
    return encoder
