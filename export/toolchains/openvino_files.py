"""The same slice through OpenVINO, with NNCF's 8 bits, to be held beside this package's own graphs."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from emb.artifact.manifest import Variant
from emb.errors import MissingExtra
from emb.export.graph import silent
from emb.runtime.engine import unreported
from emb.tokens import Batch

NAME = "openvino"
SOURCE = "onnx/model.onnx"
# The names under which sentence-transformers and optimum-intel look for them.
GRAPH = "openvino/openvino_model.xml"
INT8 = "openvino/openvino_model_qint8_quantized.xml"


def require_openvino() -> None:
    """Make sure that OpenVINO and NNCF are there.

    Raises:
        MissingExtra: one is not, naming the command that brings it.
    """
    try:
        with unreported():
            import nncf
            import openvino  # noqa: F401
    except ImportError as error:
        raise MissingExtra(
            f"--exporter openvino: OpenVINO or NNCF is not installed ({error})", 'pip install "emb-distill[openvino]"'
        ) from error
    nncf.set_log_level(logging.ERROR)


def write_openvino(folder: Path, int8_file: str | None, calibration: Sequence[Batch]) -> list[Variant]:
    """Write our fp32 graph in OpenVINO's format, or with `int8_file` NNCF's 8 bits of it, ranges taken from the
    `calibration` batches.
    """
    import openvino

    # Pooling, projection and normalisation are inside our graph, and stay inside.
    model = openvino.Core().read_model(str(folder / SOURCE))
    if int8_file is not None:
        model = _quantized(model, calibration)
    file = GRAPH if int8_file is None else INT8
    openvino.save_model(model, str(folder / file), compress_to_fp16=False)
    return [
        Variant(GRAPH, exporter=NAME) if int8_file is None else Variant(INT8, "int8", quantizer="nncf", exporter=NAME)
    ]


def _quantized(model: Any, calibration: Sequence[Batch]) -> Any:
    import nncf

    data = nncf.Dataset([{"input_ids": ids, "attention_mask": mask} for ids, mask in calibration])
    with silent():
        return nncf.quantize(model, data, model_type=nncf.ModelType.TRANSFORMER, subset_size=len(calibration))
