"""Adapting a vocabulary end to end: what is trained, on the loop of distillation, and the steps of the command."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emb.errors import UsageError, needs_extra

if TYPE_CHECKING:
    from emb.vocabulary.profile import Profile


@dataclass(frozen=True)
class AdaptResult:
    """The adapted folder, the content of its `vocab_report.json`, and what was measured before; the same of a sibling
    that got the vocabulary too.
    """

    folder: Path | None
    report: dict[str, Any]
    profile: Profile
    sibling: AdaptResult | None = None


def adapt_vocab(
    model: str | Path,
    *,
    data: Sequence[str | Path] = (),
    documents: Sequence[str | Path] = (),
    mode: str = "trim",
    keep_coverage: float | None = None,
    rows: int | None = None,
    choose: str = "auto",
    keep_scripts: Sequence[str] = (),
    keep: str | Path | None = None,
    add: int | None = None,
    init: str = "auto",
    teacher: str | Path = "self",
    lora: bool = False,
    qlora: bool = False,
    min_cosine: float = 0.85,
    propagate_to: str | Path | None = None,
    field: str = "text",
    kind_field: str = "kind",
    limit: int | None = None,
    profile: bool = False,
    out: str | Path | None = None,
    overwrite: bool = False,
    overrides: Mapping[str, Any] | None = None,
    trust_remote_code: bool = False,
) -> AdaptResult:
    """Fit the token vocabulary of `model` to texts: take out tokens they do not need, add ones they do.

    Args:
        model: a run, whose student is taken, a student, or any sentence-transformers folder or name.
        data: files, folders or hub data sets of the texts that the model will read.
        documents: files or folders that will be searched, read whole with their titles; of a BEIR folder its corpus.
        mode: "trim", "extend", or "both", in this order.
        keep_coverage: share of the occurrences of tokens in the texts that kept ones must cover; None for all.
        rows: keep exactly so many tokens instead, those that must stay and what other arguments keep among them.
        choose: by what: "counts", the tokens that the texts use most; "influence", those whose going would change most,
            for the distance of their rows from the rows of their pieces counts too; or "auto", the better of these on
            held-out texts.
        keep_scripts: scripts by their names in Unicode ("Latin", "Cyrillic", "CJK") whose tokens stay besides.
        keep: a file of texts, a line each, whose tokens stay besides.
        add: how many tokens to add.
        init: how their rows are made: "mean" (zip-tie), "first", "merge", "align", "omp", "random", or "auto", the
            best of these on held-out texts.
        teacher: whose vectors the new rows are trained towards: "self" for the model's own without them, or another
            model with as many dims.
        lora, qlora: at the end, train an adapter of all layers and of the new rows towards the same vectors, with
            `qlora` on a base in 4 bits, and merge it where held-out texts gain by it. Needs the extra `adapt`.
        min_cosine: mean cosine of held-out texts to their vectors before that an extension must keep.
        propagate_to: a model tuned from this one, with its tokenizer, that gets the same vocabulary without training;
            it is written beside `out`, its name behind that of `out`.
        field, kind_field: the fields of a record that hold the text and "query" or "document".
        limit: read so many texts at most.
        profile: measure alone; with `out`, write the report there.
        out: the adapted folder; None means `adapted/<model>`.
        overwrite: replace what is in the way.
        overrides: of the training of rows, by the names of a recipe's section `training`: `{"epochs": 5}`; of the
            adapter's, with `language.` before them.
        trust_remote_code: let the model's repository run code of its own.

    Raises:
        GateFailed: the adapted model is not what it must be; nothing is written.
        EmbError: whatever a user can mend; see `emb.errors`.
    """
    with needs_extra():
        from emb.data.corpus import Columns
        from emb.vocabulary.adaptation.options import LORA, QLORA, AdaptOptions
        from emb.vocabulary.adaptation.run import run_adaptation
        from emb.vocabulary.wanted import Wanted

    if lora and qlora:
        raise UsageError("--lora and --qlora are two ways of the same training", "choose one")
    options = AdaptOptions(
        mode,
        Wanted(keep_coverage, tuple(keep_scripts), None if keep is None else Path(keep), rows, choose),
        add,
        init,
        str(teacher),
        QLORA if qlora else LORA if lora else None,
        min_cosine,
        None if propagate_to is None else str(propagate_to),
    )
    return run_adaptation(
        model,
        [str(source) for source in data],
        [str(source) for source in documents],
        Columns(field, kind_field),
        limit,
        options,
        profile_alone=profile,
        out=None if out is None else Path(out),
        overwrite=overwrite,
        overrides=dict(overrides or {}),
        trust_remote_code=trust_remote_code,
    )
