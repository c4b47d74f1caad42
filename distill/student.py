"""Where a student comes from: layers cut from a model, a fresh shape, or an existing model."""

from __future__ import annotations

import copy
import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn
from transformers import AutoModel

from emb.artifact.manifest import Manifest, is_artifact
from emb.data.corpus import KINDS
from emb.errors import ArtifactError, UsageError
from emb.files import read_json
from emb.model.embedding_model import EmbeddingModel, ModelSpec, cut_layers, load_model
from emb.model.static import StaticEncoder, wrapped_tokenizer
from emb.recipes.recipe import StudentRecipe
from emb.teachers.registry import Resolved, resolve

_FRESH = re.compile(r"fresh:(\d+)x(\d+)")


def with_defaults(recipe: StudentRecipe, teacher: Resolved) -> StudentRecipe:
    """Fill in what the registry recommends for this teacher where the recipe is silent."""
    if teacher.vectors is not None and (recipe.source or "teacher").split(":")[0] in ("teacher", "fresh"):
        raise UsageError(
            f"{teacher.name}: of a teacher that gives nothing but vectors no student can be cut",
            "name an encoder to start from: --student NAME|PATH",
        )
    if recipe.source is not None:
        return recipe
    entry = teacher.teacher
    if entry and entry.student and recipe.layers is None:
        return recipe.model_copy(update={"source": entry.student, "layers": entry.student_layers})
    layers = recipe.layers if recipe.layers is not None else entry.student_layers if entry else None
    return recipe.model_copy(update={"source": "teacher", "layers": layers})


def depth_of(folder: Path) -> int | None:
    """How many layers the model in `folder` has, by its config alone; None where that does not say."""
    try:
        modules = folder / "modules.json"
        first = read_json(modules)[0] if modules.is_file() else {"type": "", "path": ""}
        if first["type"].endswith("StaticEmbedding"):
            return 0
        config = read_json(folder / first["path"] / "config.json")
    except (ArtifactError, LookupError, TypeError):
        return None
    known = (config.get(name) for name in ("num_hidden_layers", "n_layers", "num_layers") if isinstance(config, dict))
    return next((int(number) for number in known if isinstance(number, int)), None)


def build_student(
    recipe: StudentRecipe,
    teacher: Resolved,
    teacher_spec: ModelSpec,
    teacher_weights: str,
    *,
    seed: int,
    trust_remote_code: bool = False,
) -> EmbeddingModel:
    """A student with the teacher's prompts and normalisation.

    It has heads only where its source was distilled from the same teacher (`teacher_weights` hashes it) and has an
    exit there; the others are still to be fitted.

    Raises:
        UsageError: more layers than the source has, or a shape that cannot be built.
    """
    source = recipe.source or "teacher"
    if recipe.layers == 0:
        return _static_student(source, teacher, teacher_spec, seed=seed, trust_remote_code=trust_remote_code)
    fresh = _FRESH.fullmatch(source)
    if source.startswith("fresh:") and not fresh:
        raise UsageError(f"--student {source}: not a shape", "write fresh:LAYERSxHIDDEN, for example fresh:6x384")
    folder = teacher.path if fresh or source == "teacher" else resolve(source, trust_remote_code=trust_remote_code).path
    base = load_model(folder, trust_remote_code=trust_remote_code)
    encoder = _fresh_encoder(base, int(fresh[1]), int(fresh[2]), seed) if fresh else base.encoder
    spec = dataclasses.replace(
        base.spec,
        max_length=min(base.spec.max_length, teacher_spec.max_length),
        **_taken_over(teacher_spec),
    )
    student = EmbeddingModel(encoder, base.hf_tokenizer, spec)
    keep = kept_layers(student.layers, recipe.layers or student.layers, recipe.keep)
    if len(keep) != student.layers:
        cut_layers(student, keep)
    known = Manifest.load(folder).lineage.teacher if is_artifact(folder) else None
    same_space = known is not None and known.weights == teacher_weights
    carried = {n: base.heads[str(n)] for n in base.exits if same_space and keep[:n] == list(range(n))}
    student.heads = nn.ModuleDict({str(n): head for n, head in carried.items()})
    return student


def _taken_over(teacher_spec: ModelSpec) -> dict[str, Any]:
    """What every student has from its teacher."""
    return {
        "normalize": teacher_spec.normalize,
        "prompts": {kind: teacher_spec.prompt(kind) for kind in KINDS},
        "default_prompt": None,
        "similarity": teacher_spec.similarity,
        "truncation_side": teacher_spec.truncation_side,  # what the teacher did not read, its vector says nothing about
    }


def _static_student(
    source: str, teacher: Resolved, teacher_spec: ModelSpec, *, seed: int, trust_remote_code: bool
) -> EmbeddingModel:
    """No layers at all: a random row per token of the source's tokenizer, as wide as the teacher's vectors."""
    folder = teacher.path if source == "teacher" else resolve(source, trust_remote_code=trust_remote_code).path
    base = load_model(folder, trust_remote_code=trust_remote_code)
    tokenizer = wrapped_tokenizer(base.hf_tokenizer.backend_tokenizer)
    spec = dataclasses.replace(
        base.spec,
        pooling="mean",
        lowercase=False,
        max_length=int(tokenizer.model_max_length),
        **_taken_over(teacher_spec),
    )
    width = base.dim if source == "teacher" else base.hidden
    table = cast(torch.nn.Embedding, base.encoder.get_input_embeddings())
    student = EmbeddingModel(StaticEncoder.fresh(table.num_embeddings, width, seed), tokenizer, spec)
    if source != "teacher":
        student.heads = nn.ModuleDict()  # a projection into the teacher's space is fitted first
    return student


def kept_layers(depth: int, layers: int, keep: str | Sequence[int]) -> list[int]:
    """0-based indices of the layers that stay.

    The first ones; ones spread evenly and ending at the last (as for "auto" before it is decided); the two ends, as
    many below as above; or those named (0-based).

    Raises:
        UsageError: more layers than there are, or one named that is not there or twice.
    """
    if not isinstance(keep, str):
        return _named_layers(depth, layers, keep)
    if layers > depth:
        hint = f"choose 1 to {depth}" if depth else "leave it out: a static model has none to choose from"
        raise UsageError(f"--layers {layers}: the student's source has {depth} layers", hint)
    if keep == "ends":
        return [*range(layers // 2), *range(depth - layers + layers // 2, depth)]
    if keep == "first" or layers == 1:
        return list(range(layers))
    return [round(index * (depth - 1) / (layers - 1)) for index in range(layers)]


def check_layers(recipe: StudentRecipe, depth: int | None) -> None:
    """Refuse layers that a teacher of `depth` layers does not have, before anything is encoded.

    Raises:
        UsageError: see `kept_layers`.
    """
    if recipe.source == "teacher" and recipe.layers != 0 and depth:
        kept_layers(depth, recipe.layers or depth, recipe.keep)


def _named_layers(depth: int, layers: int, keep: Sequence[int]) -> list[int]:
    if not keep or list(keep) != sorted(set(keep)) or not 0 <= keep[0] <= keep[-1] < depth:
        raise UsageError(
            f"student.keep {list(keep)}: the source's layers are 0 to {depth - 1}", "name each once, in ascending order"
        )
    if layers not in (depth, len(keep)):  # where no number is given it is that of all
        raise UsageError(f"student.keep {list(keep)}: {len(keep)} layers, not {layers}", "leave out --layers")
    return list(keep)


def _fresh_encoder(base: EmbeddingModel, layers: int, hidden: int, seed: int) -> Any:
    """The base's architecture and vocabulary at another size, with random weights."""
    config = copy.deepcopy(base.encoder.config)
    heads = next((hidden // width for width in (64, 32, 16) if hidden % width == 0), 0)
    if not heads or layers < 1:
        raise UsageError(
            f"--student fresh:{layers}x{hidden}: the hidden size must be a multiple of 16, the layers at least 1",
            "for example fresh:6x384",
        )
    changes = {
        "num_hidden_layers": layers,
        "hidden_size": hidden,
        "intermediate_size": 4 * hidden,
        "num_attention_heads": heads,
        "num_key_value_heads": heads,
        "head_dim": hidden // heads,
    }
    for name, value in changes.items():
        if name == "num_hidden_layers" or hasattr(config, name):
            setattr(config, name, value)
    if getattr(config, "layer_types", None):
        config.layer_types = [config.layer_types[index % len(config.layer_types)] for index in range(layers)]
    torch.manual_seed(seed)
    return AutoModel.from_config(config).float()
