"""Which tokens a model's texts ask for, and the model with these alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from emb.data.corpus import Text
from emb.errors import DataError, UsageError
from emb.model.embedding_model import EmbeddingModel
from emb.progress import note
from emb.tokens import Ids
from emb.vocabulary.choose_tokens import AUTO, WAYS, Choice, choose
from emb.vocabulary.proof import prove_readable, prove_special
from emb.vocabulary.reading import Reading, written
from emb.vocabulary.readings import Readings
from emb.vocabulary.surgery import fixed_ids, replace_vocabulary, tokenizer_json
from emb.vocabulary.tokenizer_json import TokenizerJson
from emb.vocabulary.trim import covering, of_scripts, trim


@dataclass(frozen=True)
class Wanted:
    """What says which tokens stay.

    Attributes:
        coverage: share of the texts' tokens, 0 to 1, whose occurrences are kept; None for all that occur.
        rows: how many tokens are kept instead, exactly and in all.
        choose: the way these are chosen, one of `choose_tokens.WAYS`; "auto" is the best of them on held-out texts.
        scripts: whose letters' tokens stay besides.
        keep: a file of texts, a line each, whose tokens stay besides.
    """

    coverage: float | None = None
    scripts: Sequence[str] = ()
    keep: Path | None = None
    rows: int | None = None
    choose: str = AUTO

    def __post_init__(self) -> None:
        if self.rows is not None and self.coverage is not None:
            raise UsageError("--rows and --keep-coverage both say how many tokens stay", "give one of them")
        if self.choose not in (AUTO, *WAYS):
            raise UsageError(f"--choose {self.choose}: no such way", f"known: {AUTO}, {', '.join(WAYS)}")
        if self.rows is None and self.choose != AUTO:
            raise UsageError("--choose goes with a number of tokens", "add --rows N, for example --rows 8000")
        if self.coverage is not None and not 0 < self.coverage <= 1:
            raise UsageError(f"--keep-coverage {self.coverage}: a share above 0, at most 1", "for example 0.9999")


@dataclass(frozen=True)
class Fitted:
    """The former ids of the tokens that a model has left, ascending; and how they were chosen, if by their number."""

    kept: list[int]
    choice: Choice | None


def trim_to(
    model: EmbeddingModel, texts: Sequence[Text], counts: Ids, wanted: Wanted, dev: Reading | None = None
) -> Fitted:
    """Take out of `model`, in place, the tokens that neither texts nor its prompts nor anything else asks for.

    `counts` is how often the `texts` have each id (`usage.token_counts`); `dev`, held-out texts as `model` reads them,
    is what ways of choosing are compared on.

    Raises:
        DataError: the texts have no token of the vocabulary.
        GateFailed: some text would be read as unknown that was not.
        UsageError: a script that is not there, a file that cannot be read, or fewer rows than must stay.
    """
    source, choice = tokenizer_json(model), None
    ordinary = _ordinary(source, counts)
    asked = _besides(model, source, wanted) | set(fixed_ids(model))
    if wanted.rows is None:
        asked |= covering(counts, 1.0 if wanted.coverage is None else wanted.coverage, ordinary)
    else:
        choice = choose(model, Readings(source, written(model, texts), asked), wanted.rows, wanted.choose, dev)
        asked |= set(choice.kept)
    found = trim(source, asked)
    replace_vocabulary(model, found.tokenizer, found.kept)
    prove_tokenizer(source, found.tokenizer)
    return Fitted(found.kept, choice)


def prove_tokenizer(before: TokenizerJson, after: TokenizerJson) -> None:
    """Hold that special tokens are read as such, and that nothing has become unknown.

    Raises:
        GateFailed: it is not so.
    """
    prove_special(before, after)
    note(f"{prove_readable(before, after):,} odd and random texts tried: none has a new unknown token")


def _ordinary(source: TokenizerJson, counts: Ids) -> set[int]:
    """The tokens that say something; the texts must have some."""
    found = set(source.pieces.values()) - {source.unknown} - set(source.added.values())
    if not counts[sorted(found)].any():
        raise DataError("the texts have no token of this vocabulary", "give --data in a language that the model reads")
    return found


def _besides(model: EmbeddingModel, source: TokenizerJson, wanted: Wanted) -> set[int]:
    """The tokens that are kept whatever the texts are."""
    found = of_scripts(source, wanted.scripts) if wanted.scripts else set()
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
