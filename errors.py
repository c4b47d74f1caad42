"""Every error a user can meet, as one tree.

    EmbError                 exit code 2: bad usage or bad input
    ├── UsageError           an option or a recipe that cannot be carried out
    ├── DataError            a corpus that cannot be read or used
    ├── TeacherError         a teacher that is unknown, out of reach, or returns no numbers
    ├── CacheError           a teacher cache that cannot be trusted
    ├── CheckpointError      a checkpoint that cannot be resumed from
    ├── TrainingError        a training that diverges
    ├── ArtifactError        a folder that is not what it claims to be, or is in the way
    ├── DiskError            no room to write, or no permission
    ├── HubError             a hub that cannot be reached, or does not take what is sent
    ├── EngineError          a vector engine that cannot be reached, or holds something else
    ├── MissingExtra         a dependency that the installed extra does not bring
    └── GateFailed           exit code 1: the work was done and did not pass

Each says what is wrong and where, and `hint` is the command or edit that mends it. Both name an option as the
command line has it; in Python, `str(error)` names the argument instead. `Terminated` stands outside: like Ctrl-C,
whose exception it extends, it is nothing to mend.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType

_COMMAND = re.compile(r"\b(emb|hf|pip|git|python3?) (-|[a-z])")  # what follows is meant for a terminal, from Python too
_OPTION = re.compile(r"(?<!\S)--([a-z][a-z0-9-]*)")
_ARGUMENTS = {
    "for": "documents",
    "move": "moved",
    "codec": "codecs",
    "doc-candidate": "doc_candidates",
    "dim": "dims",
    "precision": "precisions",
    "set": "overrides",
    "task": "tasks",
    "language": "languages",
    "no-verify": "verify=False",
    "binary": "vectors=['binary']",
    **{
        name: f"{name.replace('-', '_')}=True"
        for name in ("overwrite", "resume", "int8", "int4", "copy", "compare", "any-encoder", "trust-remote-code")
    },
}


def first_line(error: BaseException) -> str:
    """What an exception of somebody else's says, on one line; its name where it says nothing."""
    return (str(error).strip() or repr(error)).splitlines()[0]


def in_python(text: str, called: Sequence[Sequence[str]] = ()) -> str:
    """`text` with the arguments of the library in place of the options of the command line; whole commands stay.

    `called` are the arguments of functions that were called, the user's own call first: some take one dim where others
    take several.
    """
    command = _COMMAND.search(text)
    said, typed = (text[: command.start()], text[command.start() :]) if command else (text, "")
    return _OPTION.sub(lambda found: _argument(found[1], called), said) + typed


def _argument(option: str, called: Sequence[Sequence[str]]) -> str:
    plain = option.replace("-", "_")
    known = _ARGUMENTS.get(option, plain)
    if not known.isidentifier():
        return known
    return next((name for arguments in called for name in (plain, known) if name in arguments), known)


def _called(place: TracebackType | None) -> Iterator[tuple[str, ...]]:
    """Names of the arguments of this package's functions that an error came through, the outermost first."""
    while place is not None:
        code, module = place.tb_frame.f_code, str(place.tb_frame.f_globals.get("__name__"))
        if module.partition(".")[0] == "emb":
            yield code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
        place = place.tb_next


class Terminated(KeyboardInterrupt):
    """SIGTERM: what keeps its work on Ctrl-C keeps it here too."""


class EmbError(Exception):
    """Base of all errors raised for reasons a user can mend."""

    exit_code = 2

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        called = list(_called(self.__traceback__))
        return "\n  ".join(in_python(text, called) for text in (self.message, self.hint) if text)

    @property
    def told(self) -> str:
        """What a terminal shows of it."""
        return "error: " + "\n  ".join(text for text in (self.message, self.hint) if text)


class UsageError(EmbError):
    """An option or a recipe that cannot be carried out."""


class DataError(EmbError):
    """A corpus that cannot be read or used."""


class TeacherError(EmbError):
    """A teacher that is unknown, out of reach, or returns no numbers."""


class CacheError(EmbError):
    """A teacher cache that cannot be trusted."""


class CheckpointError(EmbError):
    """A checkpoint that cannot be resumed from."""


class TrainingError(EmbError):
    """A training that diverges: its loss is no number any more."""


class ArtifactError(EmbError):
    """A folder that is not what it claims to be, or is in the way."""


class DiskError(EmbError):
    """No room to write, or no permission."""


class HubError(EmbError):
    """A hub that cannot be reached, or does not take what is sent."""


class EngineError(EmbError):
    """A vector engine that cannot be reached, or holds something else than was asked for."""


class MissingExtra(EmbError):
    """A dependency that the installed extra does not bring."""


class GateFailed(EmbError):
    """The work was done and a quality gate did not pass."""

    exit_code = 1


_EXTRA_OF = dict.fromkeys(
    (
        "accelerate",
        "datasets",
        "huggingface_hub",
        "onnx",
        "pydantic",
        "scipy",
        "sentence_transformers",
        "sklearn",
        "torch",
        "transformers",
    ),
    "train",
) | {
    "bitsandbytes": "adapt",
    "cryptography": "sign",
    "peft": "adapt",
    "pyarrow": "parquet",
    "faiss": "search",
    "openvino": "openvino",
    "nncf": "openvino",
    "ctranslate2": "ctranslate2",
    "fastapi": "serve",
    "uvicorn": "serve",
    "prometheus_client": "serve",
    "langchain_core": "langchain",
    "llama_index": "llama-index",
    "haystack": "haystack",
    "mteb": "mteb",
    "milvus_lite": "milvus",
    "pymilvus": "milvus",
    "pgvector": "postgres",
    "psycopg": "postgres",
}


@contextmanager
def needs_extra() -> Iterator[None]:
    """Say which extra to install where an import inside fails.

    Raises:
        MissingExtra: a library that an extra brings is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        extra = _EXTRA_OF.get((error.name or "").split(".")[0])
        if extra is None:
            raise
        raise MissingExtra(
            f"{error.name} is not installed, and this needs it", f'pip install "emb-distill[{extra}]"'
        ) from error
