"""The command `emb search`."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from emb.commands.console import Outcome, reports
from emb.commands.next_step import QUESTION, typed
from emb.errors import UsageError
from emb.report.tables import table

if TYPE_CHECKING:
    from emb.search.index.hits import Hit

_SHOWN = 80  # characters of a passage


def _condition(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise click.BadParameter(f"{text!r} is not of the form key=value")
    return key, value


@click.command()
@click.argument("text", required=False, metavar="[TEXT]")
@click.option(
    "--index", "folder", required=True, metavar="INDEX", help="Folder of `emb index`, or where `emb sync` copied it to."
)
@click.option(
    "--query",
    metavar="MODEL",
    required=True,
    help="The encoder of queries, not their text: the folder of a bundle or an export, or the documents' own.",
)
@click.option(
    "-k", "k", type=click.IntRange(min=1), default=10, show_default=True, metavar="N", help="Documents to find."
)
@click.option(
    "--where",
    multiple=True,
    type=_condition,
    metavar="KEY=VALUE",
    help="Only documents with this metadata. Repeat: all keys must match, of several values under a key one.",
)
@click.option(
    "--depth",
    type=click.IntRange(min=1),
    default=1000,
    show_default=True,
    metavar="N",
    help="Candidates that finer vectors put in order, in an index that has them.",
)
@click.option(
    "--queries",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Search for every record of FILE, with its `_id` or `id`, instead of TEXT.",
)
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="RUN.jsonl",
    help="Write what --queries finds here.",
)
@click.option(
    "--min-relevance",
    type=click.FloatRange(0, 1),
    metavar="SHARE",
    help="Only documents as relevant as this, by the calibration that `emb calibrate` left beside the query encoder.",
)
@click.option(
    "--fallback",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    metavar="SHARE",
    help="Let the documents' encoder of a bundle read the text where that of queries is unsure, as it is of this share"
    " of queries by the calibration that `emb calibrate` left in the bundle.",
)
@click.option(
    "--any-encoder", is_flag=True, help="Take an encoder that is not known to share the documents' vector space."
)
@reports
def search(
    text: str | None,
    folder: str,
    query: str,
    k: int,
    where: Sequence[tuple[str, str]],
    depth: int,
    queries: Path | None,
    out: Path | None,
    any_encoder: bool,
    min_relevance: float | None,
    fallback: float | None,
) -> Outcome:
    """Search an index for a text.

    Prints rank, score, id, title and the passage that matches best. With --queries, one JSON line for each query.
    """
    import emb
    from emb.search.index.batch import search_file
    from emb.search.index.reader import Index

    if text is None and queries is None:
        raise _nothing_asked(folder, query)
    if (text is None) == (queries is None) or (queries is None) != (out is None):
        raise click.UsageError("give a TEXT, or --queries FILE with --out RUN.jsonl")
    if queries and (min_relevance, fallback) != (None, None):
        raise click.UsageError("--min-relevance and --fallback go with a TEXT")
    if None not in (min_relevance, fallback):
        raise click.UsageError("--min-relevance is fitted to the query encoder's scores: leave out --fallback")
    conditions: dict[str, list[str]] = {}
    for key, value in where:
        conditions.setdefault(key, []).append(value)
    with emb.open_index(folder, query, any_encoder=any_encoder) as index:
        if queries and out:
            count = search_file(index, queries, out, k, where=conditions, depth=depth)
            return Outcome({"queries": count, "out": out}, f"{count:,} queries: {out}")
        how: dict[str, Any] = {"k": k, "where": conditions, "depth": depth}
        if (min_relevance, fallback) == (None, None):
            return _shown(text, [(hit, None) for hit in index.search(text or "", **how)])
        if not isinstance(index, Index):
            asked = "--min-relevance" if fallback is None else "--fallback"
            raise UsageError(f"{asked} needs an index on disk", "name its folder with --index, or leave it out")
        if fallback is not None:
            from emb.progress import note
            from emb.search.calibration.fallback import search_or_fall_back

            hits, encoder = search_or_fall_back(index, query, text or "", fallback, **how)
            note(f"the query was read by {encoder}")
            return _shown(text, [(hit, None) for hit in hits], encoder=encoder)
        from emb.search.calibration.searching import search_relevant

        return _shown(text, search_relevant(index, query, text or "", min_relevance or 0.0, **how))


def _nothing_asked(index: str, query: str) -> UsageError:
    """No TEXT. Who takes --query for it has given words in place of a model."""
    text, model = (QUESTION, query) if Path(query).exists() else (query, "MODEL")
    return UsageError(
        "no text to search for: it stands alone, and --query names the model that reads it",
        f"run: {typed('search', text, '--index', index, '--query', model)}",
    )


def _shown(text: str | None, found: Sequence[tuple[Hit, float | None]], **more: str) -> Outcome:
    judged = any(relevance is not None for _, relevance in found)
    rows = [
        (
            hit.rank,
            f"{hit.score:.4f}",
            *([f"{relevance:.2f}"] if relevance is not None else []),
            hit.id,
            hit.title[:_SHOWN],
            " ".join(hit.passage.split())[:_SHOWN],
        )
        for hit, relevance in found
    ]
    columns = ("rank", "score", *(["relevance"] if judged else []), "id", "title", "passage")
    hits = [
        dataclasses.asdict(hit) | ({} if relevance is None else {"relevance": relevance}) for hit, relevance in found
    ]
    return Outcome({"query": text, **more, "hits": hits}, table(rows, columns) if rows else "nothing found")
