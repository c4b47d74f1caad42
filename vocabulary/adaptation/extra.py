"""Calling peft and bitsandbytes, which an extra brings, without what they say that no user can change."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from emb.errors import needs_extra


@contextmanager
def adapt_extra() -> Iterator[None]:
    """Name the extra where an import inside fails, and keep notes meant for the authors of libraries to themselves.

    bitsandbytes tells at its import that it lacks a kernel for a layout that is avoided here; peft asks transformers
    by names that the next version will not have.

    Raises:
        MissingExtra: peft or bitsandbytes is not installed.
    """
    logger = logging.getLogger("bitsandbytes")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with needs_extra(), warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        logger.setLevel(level)
