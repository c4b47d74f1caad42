"""What an export is asked to write, and which wishes contradict one another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from emb.artifact.manifest import LayerDimPair
from emb.errors import UsageError
from emb.export.vector_graphs import VECTOR_DTYPES


@dataclass(frozen=True)
class Options:
    """What to write besides the fp32 graph; the fields are those of `emb.export`."""

    int8: bool = False
    fp16: bool = False
    vectors: tuple[str, ...] = ()
    calibration_texts: Sequence[str] | None = None
    threads: int | None = None
    min_cosine: float = 0.99
    reduce_range: bool = False
    exporter: str | Sequence[str] = "emb"
    scheme: str | None = None  # of 8 bits, to try before all others
    int4: bool = False
    heal: float | None = None
    heal_data: tuple[str, ...] = ()
    max_mb: float | None = None  # of the 8-bit file
    trust_remote_code: bool = False

    def flags(self, weight_dtype: str) -> str:
        """What an `emb export` of one file with such weights is given besides layers and dims, with a space before
        each.
        """
        found = [] if weight_dtype == "fp32" else [f"--{weight_dtype}"]
        if weight_dtype == "int8":
            found += ["--reduce-range"] if self.reduce_range else []
            found += [f"--min-cosine {self.min_cosine:g}"] if self.min_cosine != Options.min_cosine else []
            found += [f"--max-mb {self.max_mb:g}"] if self.max_mb else []
        found += [f"--heal {self.heal:g}s"] if self.heal else []
        return "".join(f" {each}" for each in found)


def refuse_impossible(options: Options, pairs: Sequence[LayerDimPair]) -> None:
    """Refuse what cannot be, before anything is written.

    Raises:
        UsageError: an unknown kind of vector, an option that lacks its other half, dims that do not fill bytes.
    """
    unknown = set(options.vectors) - set(VECTOR_DTYPES)
    if unknown:
        raise UsageError(f"--vectors {', '.join(sorted(unknown))}: unknown", f"known: {', '.join(VECTOR_DTYPES)}")
    if options.heal and not (options.int8 or options.int4 or "binary" in options.vectors):
        raise UsageError("--heal: no file to heal for", "add --int8, --int4 or --binary")
    if options.heal and not all(pair.layers for pair in pairs):
        raise UsageError("--heal: a static model has no layers to train under rounding", "leave it out")
    if options.heal_data and not options.heal:
        raise UsageError("--heal-data without --heal", "say for how long: --heal 10m")
    if options.max_mb and not options.int8:
        raise UsageError("--max-mb without a file to fit", "add --int8, --grid or --target")
    odd = [pair.dim for pair in pairs if pair.dim % 8 and "binary" in options.vectors]
    if odd:
        raise UsageError(
            f"--vectors binary: {odd[0]} dims do not fill whole bytes", "choose a dim that is a multiple of 8"
        )
