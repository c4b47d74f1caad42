"""Other toolchains that export the same slice: their files stand beside ours, to be measured with them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from emb.artifact.manifest import Manifest, Variant, bytes_of
from emb.errors import ArtifactError, EmbError, UsageError, first_line
from emb.export.toolchains.ctranslate2_files import check_ctranslate2, write_ctranslate2
from emb.export.toolchains.openvino_files import require_openvino, write_openvino
from emb.export.toolchains.optimum_files import require_optimum, write_optimum
from emb.model.embedding_model import EmbeddingModel
from emb.progress import note
from emb.tokens import Batch


@dataclass(frozen=True)
class Exporter:
    """One toolchain.

    Attributes:
        check: raises MissingExtra where it is not installed, ArtifactError where it does not know the model.
        write: (folder, the name of our 8-bit file or None for no 8 bits, padded batches to calibrate on) to the
            files it wrote into the sentence-transformers folder.
        packages: those whose versions are recorded.
    """

    check: Callable[[EmbeddingModel], None]
    write: Callable[[Path, str | None, Sequence[Batch]], list[Variant]]
    packages: tuple[str, ...]


EXPORTERS = {
    "optimum": Exporter(
        lambda _: require_optimum(),
        lambda folder, int8_file, _: write_optimum(folder, int8_file),
        ("optimum", "optimum-onnx"),
    ),
    "openvino": Exporter(lambda _: require_openvino(), write_openvino, ("openvino", "nncf")),
    "ctranslate2": Exporter(
        check_ctranslate2,
        lambda folder, int8_file, _: write_ctranslate2(folder, int8_file is not None),
        ("ctranslate2",),
    ),
}


def check_exporters(names: str | Sequence[str], model: EmbeddingModel) -> None:
    """Make sure that every exporter named is known, is installed, and knows the model.

    Raises:
        UsageError: one is unknown.
        MissingExtra: one is not installed.
        ArtifactError: one cannot export this model.
    """
    for name in _others(names):
        EXPORTERS[name].check(model)


def add_others(
    names: str | Sequence[str], folder: Path, manifest: Manifest, int8_file: str | None, calibration: Sequence[Batch]
) -> None:
    """Export the sentence-transformers folder `folder`, with our graphs in it, once more through every exporter named,
    and list the files in `manifest`.

    With `int8_file`, the name of this package's 8-bit weights for the processor at hand, in 8 bits as well.

    Raises:
        ArtifactError: one cannot export or quantise this model.
    """
    for name in _others(names):
        note(f"through {name}")
        written = _written(name, folder, int8_file, calibration)
        for variant in written:
            note(f"  {variant.file}: {bytes_of(folder, variant.file) / 1e6:.1f} MB")
        manifest.variants += written
        manifest.lineage.export.versions |= {package: version(package) for package in EXPORTERS[name].packages}


def _others(names: str | Sequence[str]) -> list[str]:
    each = [names] if isinstance(names, str) else list(names)
    unknown = [name for name in each if name != "emb" and name not in EXPORTERS]
    if unknown:
        raise UsageError(f"--exporter {unknown[0]}: unknown", f"known: {', '.join(['emb', *EXPORTERS])}")
    return [name for name in dict.fromkeys(each) if name != "emb"]


def _written(name: str, folder: Path, int8_file: str | None, calibration: Sequence[Batch]) -> list[Variant]:
    try:
        return EXPORTERS[name].write(folder, int8_file, calibration)
    except (OSError, EmbError):
        raise  # a full disk is told as one
    except Exception as error:  # what these libraries raise shares no base
        raise ArtifactError(
            f"{name} cannot export this model ({first_line(error)})", f"leave out --exporter {name}"
        ) from error
