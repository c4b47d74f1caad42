"""Which tokens a model's texts ask for, and the model with these alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from emb.errors import DataError, UsageError
from emb.model.embedding_model import EmbeddingModel
from emb.progress import note
from emb.tokens import Ids
from emb.vocabulary.proof import prove_readable, prove_special
from emb.vocabulary.surgery import fixed_ids, replace_vocabulary, tokenizer_json
from emb.vocabulary.tokenizer_json import TokenizerJson
from emb.vocabulary.trim import Trimmed, covering, of_scripts, trim


@dataclass(frozen=True)
class Wanted:
    """What says which tokens stay.

    Attributes:
        coverage: share of the texts' tokens, 0 to 1, whose occurrences are kept; None for all that occur.
        scripts: whose letters' tokens stay besides.
        keep: a file of texts, a line each, whose tokens stay besides.
    """

    coverage: float | None = None
    scripts: Sequence[str] = ()
    keep: Path | None = None

    def __post_init__(self) -> None:
        if self.coverage is not None and not 0 < self.coverage <= 1:
            raise UsageError(f"--keep-coverage {self.coverage}: a share above 0, at most 1", "for example 0.9999")


def trim_to(model: EmbeddingModel, counts: Ids, wanted: Wanted) -> Trimmed:
    """Take out of `model`, in place, the tokens that neither texts nor its prompts nor anything else asks for.

    `counts` is how often the texts have each id (`usage.token_counts`).

    Raises:
        DataError: the texts have no token of the vocabulary.
        GateFailed: some text would be read as unknown that was not.
        UsageError: a script that is not there, or a file that cannot be read.
    """
    source = tokenizer_json(model)
    found = trim(source, _asked_for(model, source, counts, wanted), fixed_ids(model))
    replace_vocabulary(model, found.tokenizer, found.kept)
    prove_tokenizer(source, found.tokenizer)
    return found


def prove_tokenizer(before: TokenizerJson, after: TokenizerJson) -> None:
    """Hold that special tokens are read as such, and that nothing has become unknown.

    Raises:
        GateFailed: it is not so.
    """
    prove_special(before, after)
    note(f"{prove_readable(before, after):,} odd and random texts tried: none has a new unknown token")


def _asked_for(model: EmbeddingModel, source: TokenizerJson, counts: Ids, wanted: Wanted) -> set[int]:
    ordinary = set(source.pieces.values()) - {source.unknown} - set(source.added.values())
    if not counts[sorted(ordinary)].any():
        raise DataError("the texts have no token of this vocabulary", "give --data in a language that the model reads")
    found = covering(counts, 1.0 if wanted.coverage is None else wanted.coverage, ordinary)
    if wanted.scripts:
        found |= of_scripts(source, wanted.scripts)
    lines = _lines(wanted.keep) if wanted.keep else []
    found |= {source.pieces[line] for line in lines if line in source.pieces}
    tokenizer = source.tokenizer()
    for text in [*lines, *model.spec.prompts.values()]:
        found |= set(tokenizer.encode(text, add_special_tokens=False).ids)
    return found


def _lines(path: Path) -> list[str]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--keep {path}: cannot be read ({error})", "a text file in UTF-8, a text per line") from error
    return [line for line in lines if line.strip()]
