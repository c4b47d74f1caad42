"""Make `.venv` beside the project with everything pinned; the other scripts call `prepare`.

Needs Python 3.11 or newer and nothing else. A second call finds its stamp and returns at once.
"""

import sys

if sys.version_info < (3, 11):  # noqa: UP036 - said here, before an old Python stumbles over the syntax below
    sys.exit("Python 3.11 or newer is needed, this is " + sys.version.split()[0] + ": try python3.11 " + sys.argv[0])

import hashlib
import json
import os
import subprocess
import time
import venv
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
VENV = ROOT / ".venv"
CONSTRAINTS = ROOT / "constraints.txt"
_PACKAGES = ("", "distill", "export", "quantize", "recipes")


def prepare(*extras: str) -> Path:
    """Install the project with `extras`, where that has not been done, and return the folder of its commands."""
    stamp = _read_stamp()
    wanted = sorted({*extras, *stamp.get("extras", [])})
    now = {"extras": wanted, "requirements": _requirements(), "files": _shipped_files()}
    if now != stamp:
        _install(stamp, now)
        _stamp_file().write_text(json.dumps(now), encoding="utf-8")
    return _commands()


def run(*command: str | Path) -> int:
    """Run one of the environment's commands from the project's root, its output shown; return its exit status."""
    print("$", *(_shown(part) for part in command), flush=True)
    began = time.monotonic()
    status = subprocess.run([str(part) for part in command], cwd=ROOT, check=False).returncode
    print(f"  {'done' if status == 0 else f'exit status {status}'} in {time.monotonic() - began:.0f} s\n", flush=True)
    return status


def _install(before: dict[str, Any], now: dict[str, Any]) -> None:
    if not (_commands() / _python()).exists():
        print(f"making {VENV.name} with Python {sys.version.split()[0]}", flush=True)
        venv.create(VENV, with_pip=True)
    if {**before, "files": None} != {**now, "files": None}:
        # torch on its own and first, so that nothing else's requirement picks another build of it.
        _pip(_pin("setuptools"), _pin("torch"))
    target = f"{ROOT}[{','.join(now['extras'])}]"
    # The strict mode maps the root folder to the package `emb` for type checkers as well; it lists
    # files one by one, which is why a new file calls for installing again.
    _pip("--no-build-isolation", "-e", target, "--config-settings", "editable_mode=strict")


def _pip(*arguments: str) -> None:
    command: list[str | Path] = [_commands() / _python(), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-c", CONSTRAINTS, *arguments]
    if run(*command):
        sys.exit("installing failed: see above; a half-made environment is mended by running this again, or by deleting .venv first")


def _pin(name: str) -> str:
    return next(line for line in CONSTRAINTS.read_text(encoding="utf-8").splitlines() if line.startswith(f"{name}=="))


def _requirements() -> str:
    parts = [CONSTRAINTS.read_bytes(), (ROOT / "pyproject.toml").read_bytes(), sys.version.encode(), str(ROOT).encode()]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


def _shipped_files() -> list[str]:
    found = (path for package in _PACKAGES for pattern in ("*.py", "*.yaml") for path in (ROOT / package).glob(pattern))
    return sorted(path.relative_to(ROOT).as_posix() for path in found)


def _read_stamp() -> dict[str, Any]:
    try:
        return dict(json.loads(_stamp_file().read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return {}


def _stamp_file() -> Path:
    return VENV / "emb-installed.json"


def _commands() -> Path:
    return VENV / ("Scripts" if os.name == "nt" else "bin")


def _python() -> str:
    return "python.exe" if os.name == "nt" else "python"


def _shown(part: str | Path) -> str:
    text = str(part)
    return text.replace(f"{ROOT}{os.sep}", "").replace(str(ROOT), ".")


if __name__ == "__main__":
    print(prepare("train", "minilm", "dev"))
