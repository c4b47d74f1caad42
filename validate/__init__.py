"""The proof: every file that ships, run as clients run it, against the model it came from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from emb.artifact.runs import newest_export
from emb.doors import open_door
from emb.errors import needs_extra

if TYPE_CHECKING:
    from emb.validate.findings import ParityReport


def validate(
    artifact: str | Path | None = None,
    *,
    against: str | Path | None = None,
    data: Sequence[str] = (),
    texts: Sequence[str] | None = None,
    max_texts: int = 500,
    min_cosine: float | None = None,
    verify: bool = True,
    threads: int | None = None,
    trust_remote_code: bool = False,
) -> ParityReport:
    """Compare the files of an exported artifact with the model they were made from.

    Writes `parity.json` and `report.html` into it and marks each file as passed or not;
    `emb.validate.proof.validate` describes the arguments.

    Raises:
        ArtifactError: not an exported artifact, or changed since it was written.
        DataError: `data` cannot be read.
        TeacherError: `against` cannot be found.
    """
    artifact = newest_export() if artifact is None else artifact
    with needs_extra():
        from emb.validate.proof import validate as prove
    return prove(
        artifact,
        against=against,
        data=data,
        texts=texts,
        max_texts=max_texts,
        min_cosine=min_cosine,
        verify=verify,
        threads=threads,
        trust_remote_code=trust_remote_code,
    )


open_door(__name__, validate)
