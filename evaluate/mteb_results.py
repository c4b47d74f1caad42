"""Scores as the files that mteb writes and reads: `results/MODEL/REVISION/TASK.json` beside `model_meta.json`."""

from __future__ import annotations

import datetime
import json
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from emb.errors import UsageError, needs_extra
from emb.evaluate.mteb_models import Facts
from emb.evaluate.mteb_tasks import METRICS
from emb.evaluate.scores import Score
from emb.files import atomic_path, write_json

_NAMES = {ours: theirs for theirs, ours in METRICS.items()}


class ResultFolder:
    """A folder of results that `mteb.ResultCache(folder).load_results()` reads."""

    def __init__(self, folder: Path, languages: Sequence[str] = ()) -> None:
        """Write below `folder`; `languages`, such as "eng-Latn", are those of sets that are not mteb's.

        Raises:
            MissingExtra: mteb is not installed.
            UsageError: no language of that name.
        """
        with needs_extra():
            import mteb
            from mteb.languages import check_language_code
        self.folder, self._languages, self._mteb = folder, list(languages), mteb
        for code in languages:
            try:
                check_language_code(code)
            except ValueError as error:
                raise UsageError(f"--language {code}: mteb knows no such language", "for example eng-Latn") from error

    def of_files(self, scores: Sequence[Score], split: str, revision: str, facts: Facts) -> Path:
        """Write what was scored on a set in files: `scores` are all metrics of one output, the main one first."""
        names = _NAMES if facts.similarity == "cosine" else _NAMES | {"Spearman": "spearman"}
        figures = {names.get(score.metric, score.metric): score.value / 100 for score in scores}
        version = self._mteb.__version__
        entry = {
            "main_score": next(iter(figures.values())),
            **figures,
            "hf_subset": "default",
            "languages": self._languages,
            "mteb_version": version,
            "evaluator": f"emb {metadata.version('emb-distill')}",  # no code of mteb has scored this
        }
        result = self._mteb.TaskResult(
            dataset_revision=revision,
            task_name=scores[0].task,
            mteb_version=version,
            scores={split: [entry]},
            evaluation_time=None,
            date=datetime.datetime.now(datetime.UTC),
        )
        return self.of_task(result, facts)

    def of_task(self, result: Any, facts: Facts) -> Path:
        """Write what mteb itself found."""
        meta = facts.meta()
        name = {"task_name": result.task_name, "model_name": meta}
        path: Path = self._mteb.ResultCache(self.folder).get_task_result_path(**name)
        with atomic_path(path) as partial:
            result.to_disk(partial)
        write_json(path.with_name("model_meta.json"), json.loads(json.dumps(meta.to_dict(), default=str)))
        return path
