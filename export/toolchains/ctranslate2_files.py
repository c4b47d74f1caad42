"""The same slice through CTranslate2's converter, to be held beside this package's own graphs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from emb.artifact.manifest import Variant
from emb.errors import ArtifactError, MissingExtra
from emb.export.graph import silent
from emb.model.embedding_model import EmbeddingModel, quiet
from emb.runtime.head import ACTIVATIONS

NAME = "ctranslate2"
FILE = "ctranslate2/model.bin"
INT8 = "int8_float32"  # CTranslate2's name of weights in 8 bits, everything else in fp32
# What its converter makes encoders of. Of others that it knows it makes decoders, or one of two parts.
ARCHITECTURES = ("bert", "camembert", "distilbert", "roberta", "xlm-roberta")


def check_ctranslate2(model: EmbeddingModel) -> None:
    """Make sure that CTranslate2 is there and knows the model.

    Raises:
        MissingExtra: it is not there, naming the command that brings it.
        ArtifactError: it does not know the architecture, or numpy not what follows.
    """
    try:
        import ctranslate2  # noqa: F401
    except ImportError as error:
        raise MissingExtra(
            f"--exporter ctranslate2: CTranslate2 is not installed ({error})", 'pip install "emb-distill[ctranslate2]"'
        ) from error
    kind = model.encoder.config.model_type
    if kind not in ARCHITECTURES:
        raise _refused(f"it makes no encoder of {kind}, only of {', '.join(ARCHITECTURES)}")
    steps = {type(step).__name__ for step in model.heads.modules() if not list(step.children())}
    if unknown := steps - {"Linear", *ACTIVATIONS}:
        raise _refused(
            f"activation {', '.join(sorted(unknown))} behind a projection is not computed here, only"
            f" {', '.join(ACTIVATIONS)}"
        )


def _refused(reason: str) -> ArtifactError:
    return ArtifactError(f"ctranslate2 cannot export this model ({reason})", "leave out --exporter ctranslate2")


def write_ctranslate2(folder: Path, int8: bool) -> list[Variant]:
    """Write the encoder of a sentence-transformers folder in CTranslate2's format; what follows it stays in the
    folder's modules.
    """
    with silent(), quiet():
        _converter(folder).convert(str(folder / FILE.split("/")[0]), quantization=INT8 if int8 else "float32")
    return [Variant(FILE, "int8", quantizer=INT8, exporter=NAME) if int8 else Variant(FILE, exporter=NAME)]


def _converter(folder: Path) -> Any:
    from ctranslate2.converters import TransformersConverter

    class Converter(TransformersConverter):  # type: ignore[misc]
        """Its converter, on the older and the newer transformers."""

        def load_model(self, *places: Any, **options: Any) -> Any:
            model = super().load_model(*places, **options)
            # transformers 5 no longer says so, and the converter insists on it.
            model.config.position_embedding_type = getattr(model.config, "position_embedding_type", "absolute")
            return model

        def _load(self) -> Any:
            spec = super()._load()
            # BERT's next-sentence head: not part of an embedding, and random where the folder has none.
            for name in ("pooler_dense", "pooler_activation"):
                vars(spec).pop(name, None)
            # A tokenizer may know fewer or more tokens than the model has rows for; ids count here, not names.
            names, rows = spec._vocabulary, spec.get_vocabulary_size()
            spec.register_vocabulary([*names[:rows], *(f"<extra_id_{row}>" for row in range(len(names), rows))])
            return spec

    return Converter(str(folder))
