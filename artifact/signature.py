"""A folder signed as a whole: `SHA256SUMS` over every file of it, and `SHA256SUMS.sig`, an ed25519 signature of that.

Both are what common tools write and read (RFC 8032, RFC 8410): `sha256sum -c` checks the first, `openssl pkeyutl
-verify` the second.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from emb.artifact.manifest import SIGNED
from emb.errors import ArtifactError, UsageError, needs_extra
from emb.files import atomic_path, sha256_file

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

SUMS, SIGNATURE = SIGNED
_SIGN = "sign it as it is now, if you trust it: emb sign FOLDER --key KEY"
_MAKE = "make one: openssl genpkey -algorithm ed25519 -out key.pem"
_PUBLIC = "give what this writes: openssl pkey -in key.pem -pubout -out public.pem"


def sign(folder: str | Path, key: str | Path) -> Path:
    """Sign a bundle, or any other folder, with every file in it.

    Args:
        folder: the folder; a signature that it has is replaced.
        key: a file with an ed25519 private key (PEM, not protected by a passphrase).

    Returns:
        The signature's file.

    Raises:
        ArtifactError: no folder, or it holds what cannot be signed: a link, a pipe, or a name of several lines.
        MissingExtra: the extra `sign` is not installed.
        UsageError: no such key, or none of that kind.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ArtifactError(f"{folder}: no such folder", "give the folder of a bundle or an export")
    private = _private(Path(key))
    sums = _listed(_hashes(folder))
    (folder / SIGNATURE).unlink(missing_ok=True)  # between the two writes it is unsigned, never signed wrongly
    for name, content in ((SUMS, sums), (SIGNATURE, private.sign(sums))):
        with atomic_path(folder / name) as partial:
            partial.write_bytes(content)
    return folder / SIGNATURE


def is_signed(folder: Path) -> bool:
    """Whether somebody signed `folder`."""
    return (folder / SIGNATURE).exists() or (folder / SUMS).exists()


def require_signed(folder: Path, trusted_key: str | Path) -> None:
    """Hold `folder` against its signature, and every file in it against what was signed.

    Raises:
        ArtifactError: not signed, signed with another key, or a file was changed, added or removed since.
        MissingExtra: the extra `sign` is not installed.
        UsageError: no such key, or none of that kind.
    """
    public = _public(Path(trusted_key))
    with needs_extra():
        from cryptography.exceptions import InvalidSignature
    if missing := [name for name in (SUMS, SIGNATURE) if not (folder / name).is_file()]:
        raise ArtifactError(f"{folder}: not signed, there is no {' and no '.join(missing)}", _SIGN)
    sums = (folder / SUMS).read_bytes()
    try:
        public.verify((folder / SIGNATURE).read_bytes(), sums)
    except InvalidSignature:
        raise ArtifactError(
            f"{folder}: {SIGNATURE} is no signature of {SUMS} by {trusted_key}",
            f"it was signed with another key, or one of the two was edited; {_SIGN}",
        ) from None
    _require_same(folder, _read(sums), _hashes(folder))


def _require_same(folder: Path, signed: dict[str, str], found: dict[str, str]) -> None:
    wrong = {
        "changed": [name for name in signed.keys() & found.keys() if signed[name] != found[name]],
        "removed": signed.keys() - found.keys(),
        "added": found.keys() - signed.keys(),
    }
    told = "; ".join(f"{what}: {', '.join(sorted(names))}" for what, names in wrong.items() if names)
    if told:
        raise ArtifactError(f"{folder}: not as it was signed; {told}", f"put the former files back, or {_SIGN}")


def _hashes(folder: Path) -> dict[str, str]:
    """sha256 of every file below `folder` but the signature's own two, by its path there."""
    names = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*"))}
    links = sorted(name for name, path in names.items() if path.is_symlink() or not (path.is_file() or path.is_dir()))
    broken = [name for name in names if set(name) & set("\\\r\n")]  # sha256sum writes these in another form
    if links or broken:
        raise ArtifactError(
            f"{folder}: {', '.join(map(repr, links + broken))} cannot be signed",
            "put a file there in place of a link or a pipe, and give it a name of one line",
        )
    return {name: sha256_file(path) for name, path in names.items() if path.is_file() and name not in (SUMS, SIGNATURE)}


def _listed(hashes: dict[str, str]) -> bytes:
    """As `sha256sum` writes them, a file a line, in the order of their names."""
    return "".join(f"{hashes[name]}  {name}\n" for name in sorted(hashes)).encode(errors="surrogateescape")


def _read(sums: bytes) -> dict[str, str]:
    lines = sums.decode(errors="surrogateescape").split("\n")[:-1]
    pairs = (line.split("  ", 1) for line in lines)
    return {name: digest for digest, name in pairs}


def _private(path: Path) -> Ed25519PrivateKey:
    with needs_extra():
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
        from cryptography.hazmat.primitives.serialization import load_pem_private_key
    content = _content(path, "--key")
    try:
        found: Any = load_pem_private_key(content, password=None)
    except TypeError as error:
        raise UsageError(
            f"--key {path}: is protected by a passphrase, which nobody is there to type",
            f"write it without one, where only you can read it: openssl pkey -in {path} -out plain.pem",
        ) from error
    except Exception as error:  # of a damaged key, the library raises several kinds
        raise UsageError(f"--key {path}: not a private key (PEM)", _MAKE) from error
    if not isinstance(found, Ed25519PrivateKey):
        raise UsageError(f"--key {path}: a key of another kind than ed25519", _MAKE)
    return found


def _public(path: Path) -> Ed25519PublicKey:
    with needs_extra():
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
        from cryptography.hazmat.primitives.serialization import load_pem_public_key
    content = _content(path, "--trusted-key")
    if b"PRIVATE KEY" in content:
        raise UsageError(f"--trusted-key {path}: a private key, which stays with who signs", _PUBLIC)
    try:
        found: Any = load_pem_public_key(content)
    except Exception as error:
        raise UsageError(f"--trusted-key {path}: not a public key (PEM)", _PUBLIC) from error
    if not isinstance(found, Ed25519PublicKey):
        raise UsageError(f"--trusted-key {path}: a key of another kind than ed25519", _PUBLIC)
    return found


def _content(path: Path, option: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UsageError(
            f"{option} {path}: cannot be read ({error.strerror})", "give a file with a key (PEM)"
        ) from error
