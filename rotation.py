"""The rotation along the principal axes of vectors, which gives them dims worth cutting.

An orthonormal rotation leaves every dot product as it is. The one along the principal axes of a teacher's vectors
puts into the first dims what most of their products come from, so that a cut loses least (the optimal linear
compression of inner products, Eckart and Young 1936). Second moments are taken, not covariances: what is searched
by are products, and a mean that all vectors share is part of them.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from emb.errors import DataError
from emb.similarity import Vectors


def principal_rotation(vectors: Vectors) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """The rotation `(dim, dim)` float32 to multiply vectors by (`rotation @ vector`), and the energy of its dims.

    Rows are the eigenvectors of the second moments of `vectors` `(texts, dim)`, the largest first; each is turned so
    that its largest number is positive, which makes the result the same everywhere; but of fewer vectors than dims the
    last rows are any basis of what is left, which may depend on the number of threads.

    Raises:
        DataError: fewer vectors than would fill a tenth of the dims.
    """
    count, dim = vectors.shape
    if count < max(2, dim // 10):
        raise DataError(
            f"{count:,} vectors are too few to find {dim} directions in", f"give at least {max(2, dim // 10):,} texts"
        )
    moments = vectors.T.astype(np.float64) @ vectors.astype(np.float64) / count
    energy, directions = np.linalg.eigh(moments)
    rotation = directions[:, ::-1].T
    largest = rotation[np.arange(dim), np.abs(rotation).argmax(axis=1)]
    return (rotation * np.sign(largest)[:, None]).astype(np.float32), np.maximum(energy[::-1], 0.0)
