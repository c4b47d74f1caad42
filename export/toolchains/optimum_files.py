"""The same slice through optimum's exporter and quantiser, to be held beside this package's own graph."""

from __future__ import annotations

import tempfile
from pathlib import Path

import onnx

from emb.artifact.manifest import Variant
from emb.errors import MissingExtra
from emb.export.graph import TOKENS, silent
from emb.model.embedding_model import quiet
from emb.quantize.weights.surgery import EXTERNAL_ABOVE, graph_bytes, rename, save_graph

NAME = "optimum"
GRAPH = "onnx/model_optimum.onnx"


def require_optimum() -> None:
    """Make sure that optimum's ONNX half is there and works with the installed transformers.

    Raises:
        MissingExtra: it is not, naming the command that brings it.
    """
    try:
        import optimum.exporters.onnx
        import optimum.onnxruntime  # noqa: F401
    except ImportError as error:
        raise MissingExtra(
            "--exporter optimum: optimum's ONNX exporter is not installed, or not beside the transformers it needs"
            f" ({error})",
            'in an environment of its own: pip install torch==2.13.0 && pip install "emb-distill[optimum]"',
        ) from error


def write_optimum(folder: Path, int8_file: str | None) -> list[Variant]:
    """Export the sentence-transformers folder `folder` once more through optimum.

    optimum traces the folder as sentence-transformers runs it, so that pooling, projection and normalisation are
    inside its graph too and `sentence_embedding` is the finished vector. With `int8_file`, the name of this
    package's 8-bit weights for the processor at hand, optimum's dynamic quantisation for that processor follows,
    with its own settings.
    """
    with tempfile.TemporaryDirectory(dir=folder / "onnx", prefix=".optimum-") as scratch:
        return _write(folder, Path(scratch), int8_file)


def _write(folder: Path, scratch: Path, int8_file: str | None) -> list[Variant]:
    with silent(), quiet():
        _export(folder, scratch)
        if int8_file is None:
            return [Variant(GRAPH, exporter=NAME)]
        # Our names end with the name of optimum's configuration for the same processor.
        config = Path(int8_file).stem.split("int8_")[1]
        quantized = int8_file.replace("model_", "model_optimum_")
        _quantize(folder, scratch, config, folder / quantized)
    return [Variant(GRAPH, exporter=NAME), Variant(quantized, "int8", quantizer=config, exporter=NAME)]


def _export(folder: Path, scratch: Path) -> None:
    from optimum.exporters.onnx import main_export

    # Its own comparison with torch is left out: every file is measured by `emb validate`.
    main_export(
        str(folder),
        scratch,
        task="feature-extraction",
        library_name="sentence_transformers",
        do_validation=False,
        local_files_only=True,
    )
    model = onnx.load(str(scratch / "model.onnx"))
    rename(model.graph, "token_embeddings", TOKENS)  # the name under which optimum's own classes look for them
    save_graph(model, folder / GRAPH)


def _quantize(folder: Path, scratch: Path, config: str, out: Path) -> None:
    from optimum.onnxruntime import ORTQuantizer
    from optimum.onnxruntime.configuration import AutoQuantizationConfig
    from transformers import AutoConfig

    settings = getattr(AutoQuantizationConfig, config)(is_static=False)
    quantizer = ORTQuantizer(folder / GRAPH, AutoConfig.from_pretrained(folder))
    quantizer.quantize(settings, scratch, "int8", use_external_data_format=graph_bytes(folder / GRAPH) > EXTERNAL_ABOVE)
    # Written anew rather than moved: a large graph names its data file inside.
    save_graph(onnx.load(str(scratch / f"{Path(GRAPH).stem}_int8.onnx")), out)
