"""What is known of an artifact for its model card: where it comes from, and what was measured on the files that lie
there.
"""

from __future__ import annotations

import re
from dataclasses import MISSING, asdict, dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

from emb.artifact.fingerprints import fingerprint
from emb.artifact.lineage import Lineage
from emb.artifact.manifest import Manifest, Variant, bytes_of, is_artifact, no_artifact
from emb.artifact.variants import distinct
from emb.errors import ArtifactError
from emb.evaluate.scores import Evaluation, Score
from emb.files import read_json
from emb.progress import warn
from emb.teachers.registry import RegistryEntry, find

_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
_METRICS = {
    "nDCG@10": ("information-retrieval", "ndcg_at_10"),
    "Spearman": ("semantic-similarity", "cosine_spearman"),
    "accuracy": ("text-classification", "accuracy"),
    "F1": ("text-classification", "f1"),
    "AP": ("text-classification", "ap"),
}
_TAGS = ["sentence-transformers", "feature-extraction", "sentence-similarity", "onnx", "transformers.js"]


@dataclass(frozen=True)
class PublishedArtifact:
    """An artifact under the name it is published by, "owner/name" or only a name; `license` overrides what follows from
    the parents.
    """

    folder: Path
    manifest: Manifest
    name: str
    license: str | None = None

    @classmethod
    def read(cls, folder: Path, name: str | None = None, license: str | None = None) -> PublishedArtifact:
        """Open an artifact.

        Raises:
            ArtifactError: not an artifact with ONNX files.
        """
        if not is_artifact(folder):
            raise no_artifact(folder)
        manifest = Manifest.load(folder)
        if not manifest.variants:
            raise ArtifactError(f"{folder}: a student, and no export of it", f"run: emb export {folder} --int8")
        return cls(folder, manifest, name or folder.resolve().name, license)

    @cached_property
    def lineage(self) -> Lineage:
        """The manifest's lineage without the paths of the machine it was made on."""
        return Lineage.read(without_paths(asdict(self.manifest.lineage)))

    @cached_property
    def parents(self) -> list[str]:
        """Names of the models it was made from: what the student started from, then the teacher."""
        start = str(((self.lineage.recipe or {}).get("student") or {}).get("source") or "teacher")
        made_from = [each.name for each in (self.lineage.teacher, self.lineage.source) if each]
        return made_from if start == "teacher" or start.startswith("fresh:") else [start, *made_from]

    @cached_property
    def known(self) -> list[RegistryEntry]:
        """The registry's entries of the parents it knows."""
        return [entry for name in self.parents if (entry := find(name.split("/")[-1]))]

    @property
    def teacher(self) -> str | None:
        """The teacher by its hub id, or by name where the hub may not have it."""
        teacher = self.lineage.teacher
        return None if teacher is None else hub_id(teacher.name) or teacher.name

    @cached_property
    def parity(self) -> dict[str, Any]:
        """`parity.json`, or nothing if it is missing."""
        path = self.folder / "parity.json"
        return dict(read_json(path)) if path.is_file() else {}

    def measured(self, variant: Variant) -> dict[str, Any] | None:
        """What `emb validate` measured on a file; nothing if it was another file (of another size) or none."""
        size = self.size(variant)
        reports = self.parity.get("variants", [])
        return next(
            (dict(one) for one in reports if variant.file in (one["file"], *one["same_as"]) and one["bytes"] == size),
            None,
        )

    def size(self, variant: Variant) -> int:
        """Bytes of a file and all that belongs to it."""
        return bytes_of(self.folder, variant.file)

    @cached_property
    def files(self) -> list[Variant]:
        """The files that can be run, each once."""
        return distinct(self.manifest)

    @cached_property
    def evaluation(self) -> Evaluation:
        """The scores in `evaluation.json` of the very files that lie here; figures of others under this artifact's name
        are warned of.
        """
        path = self.folder / "evaluation.json"
        if not path.is_file():
            return Evaluation()
        found = _read_evaluation(path)
        here = {
            fingerprint(self.folder, variant.file) for variant in self.files if (self.folder / variant.file).is_file()
        }
        mine = [score for score in found.scores if score.fingerprint in here]
        stale = [score for score in found.scores if score not in mine and score.model == self.folder.resolve().name]
        others = len(stale) if stale or mine else len(found.scores)
        if others:
            warn(
                f"{path}: {others} figures are not of the files that lie here and are left out; measure again: emb"
                f" evaluate {self.folder} --data … --out {path}"
            )
        return Evaluation(self._by_own_teacher(mine, found, path), found.teacher, found.fingerprints)

    def _by_own_teacher(self, scores: list[Score], found: Evaluation, path: Path) -> list[Score]:
        """`scores` without those on documents of other weights than the artifact's teacher's, where both are known."""
        teacher = self.manifest.lineage.teacher
        own, used = teacher.weights if teacher else None, found.fingerprints.get("teacher", {}).get(str(found.teacher))
        if None in (own, used) or own == used or all(score.side == "symmetric" for score in scores):
            return scores
        warn(
            f"{path}: the documents of its asymmetric figures are by other weights than this artifact's teacher has;"
            " those figures are left out"
        )
        return [score for score in scores if score.side == "symmetric"]


def _read_evaluation(path: Path) -> Evaluation:
    value = read_json(path)
    known = {each.name: each.default is MISSING for each in fields(Score)}
    try:
        scores = [
            Score(**{key: one[key] for key, needed in known.items() if needed or key in one}) for one in value["scores"]
        ]
        return Evaluation(scores, value["teacher"], value.get("fingerprints") or {})
    except (KeyError, TypeError) as error:
        raise ArtifactError(
            f"{path}: not what emb evaluate writes", f"write it again: emb evaluate {path.parent} --data … --out {path}"
        ) from error


def hub_id(name: str) -> str | None:
    """Where the hub has a model: by the registry, or because the name is such an id."""
    entry = find(name.split("/")[-1])
    return entry.hub_id if entry else name if _HUB_ID.fullmatch(name) else None


def without_paths(value: Any) -> Any:
    """`value` with every absolute path cut to its last part: where a file lay on some machine is nobody's business."""
    if isinstance(value, dict):
        return {key: without_paths(item) for key, item in value.items()}
    if isinstance(value, list):
        return [without_paths(item) for item in value]
    return Path(value).name if isinstance(value, str) and Path(value).is_absolute() else value


def front_matter(published: PublishedArtifact) -> str:
    """The card's YAML: library, base models, licence and language where they are known, and the scores that were
    measured.
    """
    from huggingface_hub import EvalResult, ModelCardData

    results = [
        EvalResult(**_result(published, score))
        for score in published.evaluation.scores
        if score.dim == published.manifest.dim
    ]
    data = ModelCardData(
        library_name="sentence-transformers",
        pipeline_tag="sentence-similarity",
        tags=[*_TAGS, *(["knowledge-distillation"] if published.teacher else [])],
        base_model=_base_models(published),
        license=_license(published),
        language=_language(published),
        model_name=published.name.split("/")[-1] if results else None,
        eval_results=results or None,
    )
    return f"---\n{data.to_yaml()}\n---\n"


def _base_models(published: PublishedArtifact) -> list[str] | None:
    return list(dict.fromkeys(found for name in published.parents if (found := hub_id(name)))) or None


def _license(published: PublishedArtifact) -> str | None:
    # One parent of unknown or other licence, and which one applies is for a person to say.
    licences = {entry.licence for entry in published.known}
    return published.license or (
        licences.pop() if len(licences) == 1 and len(published.known) == len(published.parents) else None
    )


def _language(published: PublishedArtifact) -> str | None:
    # A student reads what its start reads, whatever its teacher reads besides.
    return published.known[0].languages if published.known else None


def _result(published: PublishedArtifact, score: Score) -> dict[str, Any]:
    task, metric = _METRICS.get(score.metric, ("feature-extraction", score.metric))
    precision = score.weights if score.vectors == "float32" else f"{score.weights}, {score.vectors} vectors"
    documents = "" if score.side == "symmetric" else f", documents by {published.evaluation.teacher}"
    stored = f", documents stored as {score.storage}" if score.storage else ""
    name = f"{score.metric} × 100, {score.dim} dims, {precision}{documents}{stored}"
    return {
        "task_type": task,
        "dataset_type": score.task,
        "dataset_name": score.task,
        "metric_type": metric,
        "metric_name": name,
        "metric_value": round(score.value, 2),
    }
