"""Recipes: what a distillation does, as YAML checked against one strict schema. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from emb.errors import UsageError
from emb.recipes.durations import seconds_of
from emb.recipes.yaml_files import DuplicateKeyError, load_yaml


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class StudentRecipe(_Section):
    """Where the student starts.

    `source` is "teacher", "fresh:LAYERSxHIDDEN", or a model's name or path; without one the registry's
    recommendation for the teacher applies. `layers` cuts the source, 0 of them leave a row per token; `keep` says
    which layers stay: the first ones, the two ends, ones spread evenly over the depth, the best of these by a
    closed-form start of each (auto), or a list of 0-based numbers.
    """

    source: str | None = None
    layers: int | None = Field(None, ge=0)
    keep: Literal["first", "spread", "ends", "auto"] | list[Annotated[int, Field(ge=0)]] = "first"


class CutsRecipe(_Section):
    """Pseudo-queries of each document besides its title and first sentence: sentences (or a fourth of its own, where
    that is more), spans of a few words, groups of rare words.
    """

    sentences: int = Field(4, ge=0)
    spans: int = Field(2, ge=0)
    keywords: int = Field(1, ge=0)


class DataRecipe(_Section):
    """The corpus: no `sources` means the texts every machine has (Python's own documentation).

    `parallel` are files of texts and their translations: the teacher's vector of a text is the target of both.
    `documents` are those that will be searched: pseudo-queries are cut from them, and `mix` is the share of texts from
    `sources` and `parallel` among all. `as_queries` makes queries of whatever these two hold.
    """

    sources: list[str] = []
    parallel: list[str] = []
    documents: list[str] = []
    as_queries: bool = False
    mix: float = Field(0.5, ge=0, lt=1)
    cuts: CutsRecipe = CutsRecipe()
    field: str = "text"
    kind_field: str = "kind"
    limit: int | None = Field(None, ge=1)
    holdout: int = Field(1000, ge=2)


class CaptureRecipe(_Section):
    """How teacher vectors are computed: texts cut at `max_length` tokens, in `dtype`; `column` holds those of a Parquet
    file.
    """

    max_length: int = Field(128, ge=4)
    dtype: Literal["auto", "fp32", "bf16"] = "auto"
    tokens_per_batch: int = Field(512, ge=16)
    column: str = "vector"


class ProjectionRecipe(_Section):
    """The closed-form start of each projection, ridge regression over `texts` texts, and how it ends.

    After training the singular values of each projection are raised to that one of `powers` which finds most of the
    teacher's neighbours on held-out texts; `[1]` leaves projections as they are, `[0]` makes their values equal.
    """

    texts: int = Field(20_000, ge=1)
    ridge: float = Field(1e-3, gt=0)
    powers: list[Annotated[float, Field(ge=0, le=1)]] = Field([1.0, 0.75, 0.5, 0.25], min_length=1)


class TrainingRecipe(_Section):
    """The optimisation. `lr` falls linearly to `lr_end` in each of `cycles` equal parts.

    Zero `epochs` leave the student at its closed-form start: the baseline that training has to beat. `max_steps`
    and `max_time` (20m, 1h30m, or seconds) shorten the plan, and the schedule with it. The token table is trained
    where `train_token_embeddings` says so; left open, only if it starts random. `objective` lists weighted terms,
    `[{cosine: 1.0}]`; left open, it is the cosine for a teacher of unit vectors, else the squared distance (`l2`).
    `loss: NAME`, as recipes had it before, is the one term of that name. `average` is the share of the way from the
    start to the trained weights that is kept at the end. `document_epochs` go before all others, over the documents
    that will be searched, read as far as the student reads.
    """

    epochs: float = Field(3, ge=0)
    document_epochs: float = Field(0, ge=0)
    cycles: int = Field(1, ge=1)
    tokens_per_batch: int = Field(1024, ge=16)
    lr: float = Field(2e-4, gt=0)
    lr_end: float = Field(1e-5, ge=0)
    warmup_steps: int = Field(100, ge=0)
    weight_decay: float = Field(0.01, ge=0)
    clip_norm: float = Field(1.0, gt=0)
    objective: Annotated[list[dict[str, Annotated[float, Field(gt=0)]]], Field(min_length=1)] | None = None
    train_token_embeddings: bool | None = None
    average: float = Field(1.0, gt=0, le=1)
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    seed: int = Field(0, ge=0)
    max_steps: int | None = Field(None, ge=1)
    max_time: Annotated[float, BeforeValidator(seconds_of)] | None = None
    evaluate_every: int = Field(500, ge=1)
    checkpoint_seconds: float = Field(300, ge=0)

    @model_validator(mode="before")
    @classmethod
    def _loss_is_a_term(cls, values: Any) -> Any:
        if not isinstance(values, dict) or "loss" not in values:
            return values
        if values.get("objective") is not None:
            raise ValueError("loss and objective: give one of them")
        rest = {key: value for key, value in values.items() if key not in ("loss", "objective")}
        return rest if values["loss"] is None else {**rest, "objective": [{values["loss"]: 1.0}]}

    def identity(self) -> dict[str, Any]:
        """What trained weights depend on, as JSON; a single term in the form it had when there was but one."""
        values = self.model_dump(mode="json", exclude={"checkpoint_seconds"})
        if not self.document_epochs:  # runs that began before there were any go on
            del values["document_epochs"]
        terms = [term for each in values["objective"] or () for term in each.items()]
        if len(terms) < 2 and (not terms or terms[0][1] == 1):
            del values["objective"]
            values["loss"] = terms[0][0] if terms else None
        return values

    @model_validator(mode="after")
    def _falls(self) -> TrainingRecipe:
        if self.lr_end > self.lr:
            raise ValueError(f"lr_end {self.lr_end} is above lr {self.lr}")
        return self


class RankingRecipe(_Section):
    """How an encoder for queries to known documents learns the order in which its teacher finds them, while it is
    trained.

    The loss is the KL divergence between the softmaxes, at `temperature`, of the scores of the `documents` that the
    teacher finds first; it counts `weight` times as much as the objective, 0 leaves it out.
    """

    weight: float = Field(1.0, ge=0)
    documents: int = Field(100, ge=2)
    temperature: float = Field(0.05, gt=0)


class VocabularyRecipe(_Section):
    """The student's token table, fitted to the texts and documents of the run before training.

    Kept are the tokens that make up `keep_coverage` of all occurrences (left open: all that occur), or exactly `rows`
    of them, which `choose` says how to choose (rows that are random go by counts whatever it says); besides, those of
    the scripts `keep_scripts`, and those of the texts in the file `keep`. `add` more are learned, whose rows begin as
    `init` says; then the whole table is trained unless `train_token_embeddings` says otherwise.
    """

    keep_coverage: float | None = Field(None, gt=0, le=1)
    rows: int | None = Field(None, ge=1)
    choose: Literal["influence", "counts"] = "influence"
    keep_scripts: list[str] = []
    keep: str | None = None
    add: int = Field(0, ge=0)
    init: Literal["mean", "first", "merge", "align", "random"] = "mean"

    @model_validator(mode="after")
    def _one_number(self) -> VocabularyRecipe:
        if self.rows is not None and self.keep_coverage is not None:
            raise ValueError("rows and keep_coverage both say how many tokens stay: give one of them")
        if self.rows is None and self.choose != "influence":
            raise ValueError("choose goes with rows")
        return self


class Recipe(_Section):
    """Everything a run depends on.

    `pairs` are the (layers, dim) outputs trained together; 0 layers are a static encoder beside the student.
    `rotate` turns the teacher to the documents that will be searched, so that vectors can be cut; left open, that is
    done for a teacher that was not trained to be cut. With `vocabulary` the student's token table is fitted to the
    texts; without, it is that of its source.
    """

    teacher: str
    rotate: bool | None = None
    student: StudentRecipe = StudentRecipe()
    vocabulary: VocabularyRecipe | None = None
    data: DataRecipe = DataRecipe()
    capture: CaptureRecipe = CaptureRecipe()
    projection: ProjectionRecipe = ProjectionRecipe()
    training: TrainingRecipe = TrainingRecipe()
    ranking: RankingRecipe = RankingRecipe()
    pairs: list[tuple[int, int]] | None = None


def load_recipe(name: str | None, overrides: Mapping[str, Any]) -> Recipe:
    """Read a shipped recipe or a YAML file and lay `overrides` (dotted keys) over it.

    Raises:
        UsageError: no such recipe, not YAML, or a key or value the schema does not know.
    """
    value = _read(name) if name else {}
    for key, override in overrides.items():
        _put(value, key, override)
    if not value.get("teacher"):
        raise UsageError("no teacher given", "add --teacher NAME|PATH; `emb models` lists the names")
    try:
        return Recipe.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise UsageError(
            f"recipe{f' {name}' if name else ''}: {where}: {first['msg']}", "docs/recipes.md lists every key"
        ) from error


def shipped() -> list[str]:
    """Names of the recipes in the package."""
    files = resources.files(__package__).iterdir()
    return sorted(
        file.name.removesuffix(".yaml")
        for file in files
        if file.name.endswith(".yaml") and file.name != "teachers.yaml"
    )


def dump(recipe: Recipe) -> str:
    """The recipe as YAML with every default written out."""
    return yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def _read(name: str) -> dict[str, Any]:
    path = Path(name)
    if path.is_file():
        text = _text(path)
    elif name in shipped():
        text = (resources.files(__package__) / f"{name}.yaml").read_text(encoding="utf-8")
    else:
        raise UsageError(f"--recipe {name}: no such recipe or file", f"shipped: {', '.join(shipped())}")
    try:
        value = load_yaml(text) or {}
    except DuplicateKeyError as error:
        raise UsageError(f"{name}: {error}", "keep one of the two") from error
    except yaml.YAMLError as error:
        raise UsageError(f"{name}: not valid YAML ({error})") from error
    if not isinstance(value, dict):
        raise UsageError(f"{name}: expected keys and values", "docs/recipes.md shows a recipe")
    return value


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--recipe {path}: cannot be read ({error})", "a recipe is a text file in UTF-8") from error


def _put(value: dict[str, Any], dotted: str, override: Any) -> None:
    *parents, leaf = dotted.split(".")
    for parent in parents:
        value = value.setdefault(parent, {})
        if not isinstance(value, dict):
            raise UsageError(f"{dotted}: {parent} is not a section", "docs/recipes.md lists every key")
    value[leaf] = override
