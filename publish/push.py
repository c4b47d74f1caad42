"""Publishing an artifact: its own files, with a fresh card, in one commit to a hub repository."""

from __future__ import annotations

import dataclasses
import json
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emb.artifact.manifest import FILE as MANIFEST
from emb.errors import ArtifactError, GateFailed, HubError, UsageError
from emb.files import read_json
from emb.progress import is_quiet, note
from emb.publish.card import FILE as CARD
from emb.publish.card import card, is_generated, write_card
from emb.publish.published_artifact import PublishedArtifact
from emb.teachers.registry import OF_THE_CLIENT

if TYPE_CHECKING:
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

_BESIDE = (MANIFEST, "parity.json", "report.html", "evaluation.json")
_NAME = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")


@dataclass(frozen=True)
class Pushed:
    """What was sent, or would be: files by name with their bytes, what stayed behind, what an earlier push had left and
    is now gone.
    """

    to: str
    files: dict[str, int]
    left: list[str]
    removed: list[str]
    commit: str | None = None
    url: str | None = None


def push(
    artifact: Path,
    to: str,
    *,
    private: bool = False,
    revision: str | None = None,
    message: str | None = None,
    license: str | None = None,
    dry_run: bool = False,
    verify: bool = True,
    allow_failed: bool = False,
    overwrite: bool = False,
) -> Pushed:
    """Send an artifact to the repository `to`, "owner/name", which is made if it does not exist.

    Args:
        private: make the repository private, if it has to be made.
        revision: branch to commit to, made if it does not exist; None is the main one.
        dry_run: ask nobody and write nothing, only say what would be sent.
        verify: refuse files that changed since they were written.
        allow_failed: send files that failed their gate as well; the card says so.
        overwrite: replace a card in the repository that a person wrote.

    Raises:
        ArtifactError: not an artifact, or changed since it was written.
        GateFailed: a file failed its gate.
        HubError: no token, out of reach, or refused by the hub.
    """
    if not _NAME.fullmatch(to):
        raise UsageError(f"--to {to}: not a repository", "give it as OWNER/NAME")
    published = PublishedArtifact.read(artifact, to, license)
    _check(published, verify, allow_failed)
    text = _card(published, dry_run)
    names = [
        name
        for name in [*sorted(published.manifest.files), *_BESIDE, CARD]
        if name == CARD or (artifact / name).is_file()
    ]
    sizes = {name: len(text.encode()) if name == CARD else (artifact / name).stat().st_size for name in names}
    plan = Pushed(to, sizes, _left(artifact, names), [])
    return plan if dry_run else _send(published, plan, text, private, revision, message, overwrite)


def _check(published: PublishedArtifact, verify: bool, allow_failed: bool) -> None:
    if verify:
        published.manifest.verify(published.folder)
    failed = [variant.file for variant in published.manifest.variants if variant.passed is False]
    if failed and not allow_failed:
        raise GateFailed(
            f"{published.folder}: {', '.join(failed)} failed the gate",
            "export again with another dim, or train longer, or add --allow-failed: the card will say so",
        )
    if not published.parity:
        note(
            f"{published.folder}: not validated, and the card says so; before you publish:"
            f" emb validate {published.folder}"
        )


def _card(published: PublishedArtifact, dry_run: bool) -> str:
    path = published.folder / CARD
    if path.is_file() and not is_generated(text := path.read_text(encoding="utf-8")):
        note(
            f"{path}: written or edited by hand, and sent as it is; for a new one:"
            f" emb card {published.folder} --overwrite"
        )
        return text
    return card(published) if dry_run else write_card(published).read_text(encoding="utf-8")


def _left(folder: Path, names: list[str]) -> list[str]:
    below = (path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*")) if path.is_file())
    return [name for name in below if name not in names]


def _send(
    published: PublishedArtifact,
    plan: Pushed,
    text: str,
    private: bool,
    revision: str | None,
    message: str | None,
    overwrite: bool,
) -> Pushed:
    from huggingface_hub import HfApi, get_token

    if get_token() is None:
        raise HubError(
            f"{plan.to}: no token to write with",
            "run: hf auth login, or set HF_TOKEN; a token with write access comes from the hub's settings",
        )
    api = HfApi()
    with _quiet(), _told(plan.to, "the repository cannot be made or opened"):
        api.create_repo(plan.to, private=private or None, exist_ok=True)
        if revision:
            api.create_branch(plan.to, branch=revision, exist_ok=True)
        there = set(api.list_repo_files(plan.to, revision=revision))
        _spare(api, plan.to, revision, there, text, overwrite)
        removed = _stale(api, plan.to, revision, there, set(plan.files))
    with _quiet(), _told(plan.to, "the commit was not taken"):
        done = api.create_commit(
            plan.to,
            _operations(published, plan, text, removed),
            commit_message=message or _message(published),
            revision=revision,
        )
    return Pushed(plan.to, plan.files, plan.left, removed, done.oid, done.commit_url)


def _operations(
    published: PublishedArtifact, plan: Pushed, text: str, removed: list[str]
) -> list[CommitOperationAdd | CommitOperationDelete]:
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    added = [CommitOperationAdd(name, _content(published, name, text)) for name in plan.files]
    return [*added, *(CommitOperationDelete(name) for name in removed)]


def _content(published: PublishedArtifact, name: str, text: str) -> bytes | str:
    """A file's bytes, or its path; records of where it was made go without that machine's folders."""
    if name == CARD:
        return text.encode()
    if name == MANIFEST:
        return _json(dataclasses.replace(published.manifest, lineage=published.lineage).sealed())
    if name == "parity.json":
        value = read_json(published.folder / name)
        return _json(value | {"artifact": Path(value["artifact"]).name})
    return str(published.folder / name)


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()


def _spare(api: HfApi, to: str, revision: str | None, there: set[str], text: str, overwrite: bool) -> None:
    """Stop before a card that a person wrote in the repository is replaced."""
    if CARD not in there or overwrite:
        return
    found = _fetch(api, to, revision, CARD).decode("utf-8", "replace")
    if found != text and not is_generated(found):
        raise ArtifactError(
            f"{to}: its {CARD} was written or edited by hand",
            "copy it into the artifact to keep it, or add --overwrite to replace it",
        )


def _stale(api: HfApi, to: str, revision: str | None, there: set[str], ours: set[str]) -> list[str]:
    """Files of an earlier artifact in the repository that this one lacks; what was put there otherwise stays."""
    if MANIFEST not in there:
        return []
    try:
        before = set(json.loads(_fetch(api, to, revision, MANIFEST)).get("files", {})) | set(_BESIDE)
    except (ValueError, AttributeError):
        return []
    return sorted((before & there) - ours)


def _fetch(api: HfApi, to: str, revision: str | None, name: str) -> bytes:
    with tempfile.TemporaryDirectory() as place:
        return Path(api.hf_hub_download(to, name, revision=revision, local_dir=place)).read_bytes()


def _message(published: PublishedArtifact) -> str:
    import emb

    return f"emb {emb.__version__}: {published.manifest.layers} layers, {published.manifest.dim} dims"


@contextmanager
def _quiet() -> Iterator[None]:
    from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    was = are_progress_bars_disabled()
    if is_quiet() and not was:
        disable_progress_bars()
    try:
        yield
    finally:
        if is_quiet() and not was:
            enable_progress_bars()


@contextmanager
def _told(to: str, what: str) -> Iterator[None]:
    """Turn what the hub or the way to it raises into a `HubError` with the thing to do."""
    try:
        yield
    except Exception as error:
        # Uploads run in threads whose errors arrive wrapped.
        causes = [error, *([error.__cause__] if error.__cause__ else [])]
        status = next(
            (code for each in causes if (code := getattr(getattr(each, "response", None), "status_code", None))), None
        )
        foreign = any(
            isinstance(each, OSError | ValueError) or type(each).__module__.split(".")[0] in OF_THE_CLIENT
            for each in causes
        )
        if isinstance(error, ArtifactError) or not foreign:
            raise
        raise _refusal(to, what, error, status) from error


def _refusal(to: str, what: str, error: Exception, status: int | None) -> HubError:
    reason = str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__
    if status == 401:
        return HubError(
            f"{to}: the hub does not accept the token", "run: hf auth login, or set HF_TOKEN to one with write access"
        )
    if status in (403, 404):
        return HubError(
            f"{to}: {what}: the token may not write to {to.split('/')[0]}, or there is no such owner",
            "give an owner of yours, or a token with write access to it",
        )
    if status is None and not isinstance(error, ValueError):
        return HubError(
            f"{to}: the hub is out of reach ({reason})",
            "nothing was published; unset HF_HUB_OFFLINE or check the network, and run the same command again",
        )
    return HubError(
        f"{to}: {what}: {reason}", "nothing was published; mend what it names and run the same command again"
    )
