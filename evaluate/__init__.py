"""Scores on retrieval, similarity and classification; and models as mteb takes them."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from emb.errors import needs_extra

if TYPE_CHECKING:
    from emb.evaluate.mteb_models import EncoderModel, SearchModel


def mteb_model(
    model: str | Path,
    *,
    doc: str | Path | None = None,
    dim: int | None = None,
    file: str | None = None,
    threads: int | None = None,
    device: str = "cpu",
    verify: bool = True,
    trust_remote_code: bool = False,
) -> EncoderModel | SearchModel:
    """A model that `mteb.evaluate(model, tasks)` takes, by the protocols of mteb 2.

    Args:
        model: a run, a student, an export, any model by folder or name; or a bundle.
        doc: the model that encodes documents, the teacher of `model`; None for `model` itself.
        dim: cut vectors to so many numbers; None for all that both sides have.
        file: one ONNX file of an export, by its path in the folder.
        threads: to compute with; None for all.
        device: "cpu", or "cuda" and others that torch knows.
        verify: compare files with the hashes that they were written with.
        trust_remote_code: let a model's repository run code of its own.

    Returns:
        An encoder for every task of texts (mteb's `EncoderProtocol`); of a bundle, or with `doc`, something that can
        only search (`SearchProtocol`): two models have no one vector for a text that is neither query nor document.

    Raises:
        MissingExtra: mteb is not installed.
        UsageError: nothing says that the two models share a space.
        EmbError: whatever a user can mend; see `emb.errors`.
    """
    with needs_extra():
        import_module("mteb")  # before a model is opened
        from emb.evaluate.mteb_door import open_mteb_model

    return open_mteb_model(
        model,
        doc,
        file,
        dim,
        threads=threads,
        device=device,
        verify=verify,
        trust_remote_code=trust_remote_code,
    )
