"""The documents' side of a bundle: the encoder that was named, or the one that measuring chose."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from emb.artifact.bundle import ChoiceRecord, SpaceRecord
from emb.errors import UsageError
from emb.machine import device
from emb.runtime.encoder import Encoder, load
from emb.search.bundling.candidates import Candidate, candidates
from emb.search.bundling.choice import Limits, choose
from emb.search.bundling.sample import sample_of
from emb.search.bundling.space import check_space, require_fit


@dataclass(frozen=True)
class Trial:
    """What the documents' encoder is to be chosen by: exports of it to try, documents, how many of them, what may be
    lost, and where it is measured (None: a GPU where there is one). Without `data` nothing is measured.
    """

    exports: Sequence[Path] = ()
    data: Sequence[str] = ()
    max_texts: int = 300
    limits: Limits = field(default_factory=Limits)
    device: str | None = None

    def require(self, file: str | None) -> None:
        """Check that it can be carried out where `file` of the documents' model was asked for.

        Raises:
            UsageError: it cannot.
        """
        if self.exports and not self.data:
            raise UsageError(
                "--doc-candidate: nothing to choose on", "add --data PATH: documents like those that will be indexed"
            )
        if self.data and file:
            raise UsageError(f"--document-file {file}: --data chooses the file", "leave one of the two out")


@dataclass(frozen=True)
class Documents:
    """The encoder of documents, the space that it shares with the queries, and how it was chosen, if so."""

    taken: Candidate
    space: SpaceRecord
    choice: ChoiceRecord | None = None


def documents_of(
    query: Encoder, folder: Path, named: tuple[str, Path], file: str | None, trial: Trial, **options: Any
) -> Documents:
    """Open the documents' model `named`, or choose among it and its exports, for the queries of `query` in `folder`;
    `options` are those of `emb.load`.

    Raises:
        ArtifactError: the two do not share a space, or a candidate is no export of the model.
        UsageError: too few documents to choose on.
    """
    name, model = named
    if not trial.data:
        taken = Candidate(name, model, file, "fp32", load(model, file=file, **options))
        return Documents(taken, check_space(query, taken.encoder, (folder, model)))
    where = trial.device or str(device())
    tried = candidates(named, trial.exports, where, **options)
    space = check_space(query, tried[0].encoder, (folder, model))  # before an hour goes into what cannot be searched
    for each in tried[1:]:
        require_fit(query, each.encoder, (folder, each.folder))
    task = sample_of(trial.data, trial.max_texts)
    taken, record = choose(query, tried, task, trial.limits, where, options.get("threads"))
    return Documents(taken, space, record)
