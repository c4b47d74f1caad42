"""mteb's task classes on tiny data built in code, and the same sets as files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from retrieval_set import write_set


def write_sets(folder: Path, sentences: Sequence[str]) -> dict[str, Path]:
    """A set for search, one of pairs and one of labelled texts."""
    pairs = folder / "tinypairs.tsv"
    rows = [
        f"{one}\t{other}\t{at * 7 % 5}" for at, (one, other) in enumerate(zip(sentences, sentences[3:], strict=False))
    ]
    search = write_set(folder / "tinysearch", sentences)
    pairs.write_text("sentence1\tsentence2\tscore\n" + "\n".join(rows) + "\n", encoding="utf-8")
    labelled = folder / "tinylabels"
    labelled.mkdir()
    for name, texts in (("train", sentences), ("test", sentences[5:])):
        lines = [json.dumps({"text": text, "label": int("," in text)}) for text in texts]
        (labelled / f"{name}.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return {"search": search, "pairs": pairs, "labels": labelled}


def tiny_task(kind: str) -> Any:
    """A task of mteb's class for "search", "pairs", "labels" or "clusters" of texts, without data."""
    from mteb.abstasks import AbsTaskClassification, AbsTaskClustering, AbsTaskRetrieval, AbsTaskSTS
    from mteb.abstasks.task_metadata import TaskMetadata

    base, type_, score = {
        "search": (AbsTaskRetrieval, "Retrieval", "ndcg_at_10"),
        "pairs": (AbsTaskSTS, "STS", "cosine_spearman"),
        "labels": (AbsTaskClassification, "Classification", "accuracy"),
        "clusters": (AbsTaskClustering, "Clustering", "v_measure"),
    }[kind]
    metadata = TaskMetadata(
        name=f"Tiny{kind.title()}",
        description="Tiny.",
        type=type_,
        dataset={"path": f"nobody/tiny-{kind}", "revision": "1"},
        eval_langs=["eng-Latn"],
        main_score=score,
    )
    return type(metadata.name, (base,), {"metadata": metadata})()
