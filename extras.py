"""Which installed extra brings which library, for the error when one is missing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from emb.errors import MissingExtra

_EXTRA_OF = dict.fromkeys(
    (
        "accelerate", "datasets", "filelock", "huggingface_hub", "matplotlib", "onnx", "pydantic", "scipy",
        "sentence_transformers", "torch", "transformers",
    ),
    "train",
) | {"pyarrow": "parquet", "faiss": "search", "openvino": "openvino", "nncf": "openvino", "ctranslate2": "ctranslate2"}


@contextmanager
def needs_extra() -> Iterator[None]:
    """Say which extra to install where an import inside fails.

    Raises:
        MissingExtra: a library that an extra brings is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        extra = _EXTRA_OF.get((error.name or "").split(".")[0])
        if extra is None:
            raise
        raise MissingExtra(f"{error.name} is not installed, and this needs it", f'pip install "emb-distill[{extra}]"') from error
