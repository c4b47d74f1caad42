"""Every vector codec by its kind: fitting, judging, storing, opening."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from emb.errors import ArtifactError, UsageError
from emb.files import atomic_folder, read_json, sha256_file, write_json
from emb.quantize.vectors.base import Codec
from emb.quantize.vectors.bebr import BebrCodec
from emb.quantize.vectors.binary import BinaryCodec
from emb.quantize.vectors.lvq import Lvq8Codec
from emb.quantize.vectors.product import ProductCodec
from emb.quantize.vectors.scalar import Float16Codec, Float32Codec, Int4Codec, Int8Codec
from emb.similarity import Vectors, cosines, neighbour_overlap

SCHEMA = 1
DESCRIPTION, ARRAYS = "codec.json", "codec.safetensors"
_CLASSES: Sequence[type[Codec]] = (
    Float32Codec,
    Float16Codec,
    Lvq8Codec,
    Int8Codec,
    Int4Codec,
    BinaryCodec,
    BebrCodec,
    ProductCodec,
)
CODECS = {codec.kind: codec for codec in _CLASSES}
_HELD_OUT = 2000  # at most a tenth
_FEWEST = 100


@dataclass(frozen=True)
class Quality:
    """What a codec keeps of vectors that it was not fitted to.

    Attributes:
        cosine: mean cosine of a vector to what its code stands for.
        overlap: mean share, 0 to 1, of a vector's 10 nearest among the held-out ones that it still finds among what
            their codes stand for.
        fitted, held_out: how many vectors the codec was fitted to, and how many it is judged on.
    """

    cosine: float
    overlap: float
    fitted: int
    held_out: int


def fit_codec(kind: str, vectors: Vectors, **options: Any) -> tuple[Codec, Quality]:
    """Fit a codec to training vectors `(texts, dim)`, all but evenly spread ones that it is judged on.

    Raises:
        UsageError: an unknown kind, an option that the kind does not have, or vectors that cannot be fitted to.
        MissingExtra: torch (bebr) or faiss (pq) is not installed.
    """
    if kind not in CODECS:
        raise UsageError(f"codec {kind!r} is unknown", f"known: {', '.join(CODECS)}")
    known = options_of(kind)
    for name in options:
        if name not in known:
            raise UsageError(
                f"--{name}: the {kind} codec has no such option",
                f"it has {', '.join(f'--{name}' for name in known) or 'none'}",
            )
    train, held_out = _split(_checked(vectors))
    codec = CODECS[kind].fit(train, **options)
    return codec, judge(codec, held_out, len(train))


def options_of(kind: str) -> list[str]:
    """What fitting a kind can be told, by name."""
    return list(inspect.signature(CODECS[kind].fit).parameters)[1:]


def judge(codec: Codec, vectors: Vectors, fitted: int) -> Quality:
    """What `codec`, fitted to `fitted` vectors, keeps of others, `vectors` `(texts, dim)`."""
    decoded = codec.decode(codec.encode(vectors))
    return Quality(float(cosines(vectors, decoded).mean()), neighbour_overlap(vectors, decoded), fitted, len(vectors))


def save_codec(codec: Codec, folder: Path, quality: Quality | None = None, *, overwrite: bool = False) -> None:
    """Write `codec` as a folder of two files: what it is in JSON, its arrays in safetensors.

    Raises:
        ArtifactError: `folder` exists and `overwrite` is not set.
        DiskError: no room.
    """
    with atomic_folder(folder, replace=overwrite) as partial:
        save_file({name: np.ascontiguousarray(array) for name, array in codec.arrays().items()}, partial / ARRAYS)
        facts = {
            "schema": SCHEMA,
            "kind": codec.kind,
            "dim": codec.dim,
            "bytes_per_vector": codec.bytes_per_vector,
            "settings": codec.settings(),
        }
        write_json(
            partial / DESCRIPTION,
            facts | {"quality": asdict(quality) if quality else None, "sha256": sha256_file(partial / ARRAYS)},
        )


def load_codec(folder: str | Path) -> Codec:
    """Open a codec that `save_codec` wrote; needs no torch.

    Raises:
        ArtifactError: not a codec, of another schema, or damaged.
    """
    folder = Path(folder)
    if not (folder / DESCRIPTION).is_file():
        raise ArtifactError(
            f"{folder}: no codec here (no {DESCRIPTION})", "fit one: emb codec VECTORS --kind bebr --out DIR"
        )
    facts, path = read_json(folder / DESCRIPTION), folder / ARRAYS
    again = "fit the codec again; vectors coded with it need it as it was"
    try:
        if facts["schema"] != SCHEMA or facts["kind"] not in CODECS:
            raise ArtifactError(
                f"{folder}: {facts['kind']} codec of schema {facts['schema']}, which this version does not read", again
            )
        if sha256_file(path) != facts["sha256"]:
            raise ArtifactError(f"{path}: changed since it was written", again)
        return CODECS[facts["kind"]].restore(facts["dim"], load_file(path), facts["settings"])
    except PermissionError:
        raise  # which is no damage
    except (KeyError, TypeError, OSError, SafetensorError) as error:
        raise ArtifactError(f"{folder}: not a whole codec ({error!r})", again) from error


def _checked(vectors: Vectors) -> Vectors:
    if vectors.ndim != 2 or vectors.dtype.kind != "f":
        raise UsageError(
            f"vectors of shape {vectors.shape} and type {vectors.dtype}",
            "a codec is fitted to float vectors (texts, dim)",
        )
    if len(vectors) < _FEWEST:
        raise UsageError(
            f"{len(vectors)} vectors, at least {_FEWEST} are needed", "ten thousand make a codec that lasts"
        )
    if not np.isfinite(vectors).all():
        raise UsageError("a vector holds NaN or infinity", "encode those texts again")
    return vectors.astype(np.float32, copy=False)


def _split(vectors: Vectors) -> tuple[Vectors, Vectors]:
    held_out = np.zeros(len(vectors), bool)
    held_out[np.linspace(0, len(vectors) - 1, min(_HELD_OUT, len(vectors) // 10)).astype(int)] = True
    return vectors[~held_out], vectors[held_out]
