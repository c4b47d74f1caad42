"""A folder signed as a whole: what was signed is what is there, and nobody else signed it."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner

import emb
from emb.artifact import signature
from emb.artifact.fingerprints import weights_hash
from emb.artifact.signature import SIGNATURE, SUMS, is_signed, require_signed, sign
from emb.cli import cli
from emb.errors import ArtifactError, UsageError

serialization = pytest.importorskip("cryptography.hazmat.primitives.serialization")
ed25519 = pytest.importorskip("cryptography.hazmat.primitives.asymmetric.ed25519")
needs_openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")


def _keys(folder: Path, name: str = "key", password: bytes | None = None) -> tuple[Path, Path]:
    """A new pair of keys in PEM files: private, public."""
    key = ed25519.Ed25519PrivateKey.generate()
    cipher = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, cipher)
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    paths = folder / f"{name}.pem", folder / f"{name}-public.pem"
    for path, content in zip(paths, (private, public), strict=True):
        path.write_bytes(content)
    return paths


@pytest.fixture
def keys(tmp_path: Path) -> tuple[Path, Path]:
    return _keys(tmp_path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the kinds of files that a bundle has."""
    found = tmp_path / "both"
    for name in ("bundle.json", "query/emb.json", "query/onnx/model.onnx", "query/tokenizer.json", ".hidden"):
        (found / name).parent.mkdir(parents=True, exist_ok=True)
        (found / name).write_text(f"{name}, as it is", encoding="utf-8")
    (found / "a name with  blanks.txt").write_text("x", encoding="utf-8")
    return found


def test_a_signed_folder_is_as_it_was(folder: Path, keys: tuple[Path, Path]) -> None:
    assert sign(folder, keys[0]) == folder / SIGNATURE
    require_signed(folder, keys[1])
    lines = (folder / SUMS).read_text(encoding="utf-8").splitlines()
    assert len(lines) == 6
    digest = hashlib.sha256((folder / "query" / "emb.json").read_bytes()).hexdigest()
    assert f"{digest}  query/emb.json" in lines
    assert len((folder / SIGNATURE).read_bytes()) == 64
    sign(folder, keys[0])  # again: it does not sign itself
    require_signed(folder, keys[1])


@pytest.mark.parametrize(
    "name", ["bundle.json", "query/emb.json", "query/onnx/model.onnx", "query/tokenizer.json", ".hidden"]
)
def test_every_file_counts_to_the_last_byte(name: str, folder: Path, keys: tuple[Path, Path]) -> None:
    sign(folder, keys[0])
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(ArtifactError, match=rf"not as it was signed; changed: {name}$"):
        _refused(folder, keys[1])
    (folder / name).unlink()
    with pytest.raises(ArtifactError, match=rf"removed: {name}$"):
        _refused(folder, keys[1])


def _refused(folder: Path, public: Path) -> None:
    """Ask, and raise what is said without the hint."""
    try:
        require_signed(folder, public)
    except ArtifactError as error:
        raise ArtifactError(error.message) from None


def test_a_file_that_was_added_is_named(folder: Path, keys: tuple[Path, Path]) -> None:
    sign(folder, keys[0])
    (folder / "query" / "calibration.json").write_text("{}", encoding="utf-8")
    (folder / "query" / SUMS).write_text("in another place it is a file as any", encoding="utf-8")
    with pytest.raises(ArtifactError, match=f"added: query/{SUMS}, query/calibration.json$"):
        _refused(folder, keys[1])


def test_the_list_itself_is_signed(folder: Path, keys: tuple[Path, Path]) -> None:
    sign(folder, keys[0])
    (folder / "bundle.json").write_text("other", encoding="utf-8")
    sums = (folder / SUMS).read_text(encoding="utf-8").splitlines()
    digest = hashlib.sha256(b"other").hexdigest()
    new = [f"{digest}  bundle.json" if line.endswith("  bundle.json") else line for line in sums]
    (folder / SUMS).write_text("\n".join([*new, ""]), encoding="utf-8")
    with pytest.raises(ArtifactError, match=f"{SIGNATURE} is no signature of {SUMS}"):
        require_signed(folder, keys[1])


def test_another_key_and_none_are_told_apart(folder: Path, keys: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=f"not signed, there is no {SUMS} and no {SIGNATURE}"):
        require_signed(folder, keys[1])
    sign(folder, keys[0])
    stranger = _keys(tmp_path, "stranger")
    with pytest.raises(ArtifactError, match=r"is no signature of SHA256SUMS by .*stranger-public\.pem"):
        require_signed(folder, stranger[1])
    (folder / SIGNATURE).write_bytes(b"short")
    with pytest.raises(ArtifactError, match="is no signature"):
        require_signed(folder, keys[1])
    (folder / SIGNATURE).unlink()
    with pytest.raises(ArtifactError, match=f"not signed, there is no {SIGNATURE}"):
        require_signed(folder, keys[1])


def test_keys_that_cannot_be_used_are_named(folder: Path, keys: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is protected by a passphrase"):
        sign(folder, _keys(tmp_path, "locked", b"secret")[0])
    with pytest.raises(UsageError, match=r"key .*key-public\.pem: not a private key"):
        sign(folder, keys[1])
    with pytest.raises(UsageError, match=r"nowhere\.pem: cannot be read"):
        sign(folder, tmp_path / "nowhere.pem")
    assert not (folder / SUMS).exists()
    sign(folder, keys[0])
    with pytest.raises(UsageError, match="a private key, which stays with who signs"):
        require_signed(folder, keys[0])
    with pytest.raises(UsageError, match="not a public key"):
        require_signed(folder, folder / "bundle.json")
    with pytest.raises(ArtifactError, match="no such folder"):
        sign(tmp_path / "nowhere", keys[0])


def test_a_key_of_another_kind_is_refused(folder: Path, tmp_path: Path) -> None:
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    encoding, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    private = key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, plain)
    public = key.public_key().public_bytes(encoding, serialization.PublicFormat.SubjectPublicKeyInfo)
    for name, content in (("ec.pem", private), ("ec-public.pem", public)):
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UsageError, match="of another kind than ed25519"):
        sign(folder, tmp_path / "ec.pem")
    with pytest.raises(UsageError, match="of another kind than ed25519"):
        require_signed(folder, tmp_path / "ec-public.pem")


@pytest.mark.parametrize("kind", ["link", "pipe"])
def test_what_is_no_file_is_not_signed(kind: str, folder: Path, keys: tuple[Path, Path], tmp_path: Path) -> None:
    sign(folder, keys[0])
    if kind == "link":
        (folder / "more").symlink_to(tmp_path)
    else:
        os.mkfifo(folder / "more")
    for ask in (lambda: sign(folder, keys[0]), lambda: require_signed(folder, keys[1])):
        with pytest.raises(ArtifactError, match="'more' cannot be signed"):
            ask()


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such names")
@pytest.mark.parametrize("name", ["a\\b", "a\nb", "a\rb"])
def test_names_that_sha256sum_writes_otherwise_are_not_signed(name: str, folder: Path, keys: tuple[Path, Path]) -> None:
    (folder / name).touch()
    with pytest.raises(ArtifactError, match="cannot be signed"):
        sign(folder, keys[0])
    assert not is_signed(folder)


def test_between_two_signatures_a_folder_has_none(
    folder: Path, keys: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    sign(folder, keys[0])
    (folder / "bundle.json").write_text("changed", encoding="utf-8")
    left = [signature.atomic_path]  # the first is written, and nothing after it
    monkeypatch.setattr(signature, "atomic_path", lambda path: left.pop()(path))
    with pytest.raises(IndexError):
        sign(folder, keys[0])
    with pytest.raises(ArtifactError, match=f"not signed, there is no {SIGNATURE}$"):
        _refused(folder, keys[1])
    assert is_signed(folder)  # by half: nothing is written into it before somebody has looked


@needs_openssl
def test_openssl_makes_the_keys_and_checks_the_signature(folder: Path, tmp_path: Path) -> None:
    private, public = tmp_path / "made.pem", tmp_path / "made-public.pem"

    def openssl(*arguments: str | Path) -> int:
        return subprocess.run(["openssl", *map(str, arguments)], check=False, capture_output=True).returncode

    assert openssl("genpkey", "-algorithm", "ed25519", "-out", private) == 0
    assert openssl("pkey", "-in", private, "-pubout", "-out", public) == 0
    sign(folder, private)
    require_signed(folder, public)
    asked = ["pkeyutl", "-verify", "-pubin", "-inkey", public, "-rawin", "-in", folder / SUMS]
    assert openssl(*asked, "-sigfile", folder / SIGNATURE) == 0
    listed = subprocess.run(["sha256sum", "-c", "--quiet", SUMS], cwd=folder, check=False)
    assert listed.returncode == 0
    content = bytearray((folder / SIGNATURE).read_bytes())
    content[5] ^= 1
    (folder / SIGNATURE).write_bytes(content)
    assert openssl(*asked, "-sigfile", folder / SIGNATURE) == 1


def test_a_signature_changes_no_fingerprint(folder: Path, keys: tuple[Path, Path]) -> None:
    before = weights_hash(folder)
    sign(folder, keys[0])
    assert weights_hash(folder) == before


def test_the_commands_sign_and_look(folder: Path, keys: tuple[Path, Path]) -> None:
    done = CliRunner().invoke(cli, ["sign", str(folder), "--key", str(keys[0])])
    assert done.exit_code == 0, done.output
    looked = CliRunner().invoke(cli, ["validate", str(folder), "--trusted-key", str(keys[1])])
    assert looked.exit_code == 0, looked.output
    assert "every file is as it was signed" in looked.output
    (folder / "bundle.json").write_text("other", encoding="utf-8")
    looked = CliRunner().invoke(cli, ["validate", str(folder), "--trusted-key", str(keys[1])])
    assert isinstance(looked.exception, ArtifactError)
    looked = CliRunner().invoke(cli, ["validate", str(folder), "--trusted-key", str(keys[1]), "--no-verify"])
    assert isinstance(looked.exception, UsageError)


def test_nothing_is_opened_that_was_not_signed(folder: Path, keys: tuple[Path, Path]) -> None:
    with pytest.raises(ArtifactError, match="not signed"):
        emb.load(folder, trusted_key=keys[1])
    sign(folder, keys[0])
    with pytest.raises(ArtifactError, match="is not valid JSON"):  # looked at, and then opened
        emb.load(folder, trusted_key=keys[1])
    with pytest.raises(UsageError, match="trusted_key: what is signed is looked at"):
        emb.load(folder, trusted_key=keys[1], verify=False)
