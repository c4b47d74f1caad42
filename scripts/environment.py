"""Make an environment beside the project with everything pinned; the other scripts call `prepare`.

    python3 scripts/environment.py [STACK]

The stack is "current" (`.venv`), "optimum" (`.venv-optimum`, with what optimum's exporter needs) or "integrations"
(`.venv-integrations`, with LangChain, LlamaIndex and Haystack). Needs Python 3.11 or newer and nothing else. A second
call finds its stamp and returns at once.
"""

import sys

if sys.version_info < (3, 11):  # noqa: UP036 - said here, before an old Python stumbles over the syntax below
    sys.exit("Python 3.11 or newer is needed, this is " + sys.version.split()[0] + ": try python3.11 " + sys.argv[0])

import hashlib
import json
import os
import subprocess
import time
import tomllib
import venv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Stack:
    """Versions tested together: the environment they live in, the file that pins them, the extras they need, and the
    tests to run there; none named, all.
    """

    home: Path
    constraints: Path
    extras: tuple[str, ...] = ()
    tests: tuple[str, ...] = ()

    @property
    def commands(self) -> Path:
        """The folder of the environment's commands."""
        return self.home / ("Scripts" if os.name == "nt" else "bin")

    @property
    def python(self) -> Path:
        """The environment's Python."""
        return self.commands / ("python.exe" if os.name == "nt" else "python")

    @property
    def stamp(self) -> Path:
        """Where it is noted what has been installed."""
        return self.home / "emb-installed.json"

    def pin(self, name: str) -> str:
        """The line that pins a package, such as `torch==2.13.0`."""
        return next(
            line for line in self.constraints.read_text(encoding="utf-8").splitlines() if line.startswith(f"{name}==")
        )


STACKS = {
    "current": Stack(ROOT / ".venv", ROOT / "constraints.txt"),
    "optimum": Stack(ROOT / ".venv-optimum", ROOT / "constraints-optimum.txt", ("optimum",)),
    # Sixty packages that nothing else needs; the versions are those of the current stack.
    "integrations": Stack(
        ROOT / ".venv-integrations",
        ROOT / "constraints.txt",
        ("langchain", "llama-index", "haystack"),
        ("tests/integrations",),
    ),
}


def prepare(*extras: str, stack: str = "current") -> Path:
    """Install the project with `extras`, where that has not been done, and return the folder of its commands."""
    chosen = STACKS[stack]
    stamp = _read_stamp(chosen)
    wanted = sorted({*extras, *chosen.extras, *stamp.get("extras", [])})
    now = {"extras": wanted, "requirements": _requirements(chosen), "files": _shipped_files()}
    if now != stamp:
        _install(chosen, stamp, now)
        chosen.stamp.write_text(json.dumps(now), encoding="utf-8")
    return chosen.commands


def run(*command: str | Path) -> int:
    """Run one of the environment's commands from the project's root, its output shown; return its exit status."""
    print("$", *(_shown(part) for part in command), flush=True)
    began = time.monotonic()
    status = subprocess.run([str(part) for part in command], cwd=ROOT, check=False).returncode
    print(f"  {'done' if status == 0 else f'exit status {status}'} in {time.monotonic() - began:.0f} s\n", flush=True)
    return status


def _install(stack: Stack, before: dict[str, Any], now: dict[str, Any]) -> None:
    if not stack.python.exists():
        print(f"making {stack.home.name} with Python {sys.version.split()[0]}", flush=True)
        venv.create(stack.home, with_pip=True)
    if {**before, "files": None} != {**now, "files": None}:
        # torch on its own and first, so that nothing else's requirement picks another build of it.
        _pip(stack, stack.pin("setuptools"), stack.pin("torch"))
    target = f"{ROOT}[{','.join(now['extras'])}]"
    # The strict mode maps the root folder to the package `emb` for type checkers as well; it lists
    # files one by one, which is why a new file calls for installing again.
    _pip(stack, "--no-build-isolation", "-e", target, "--config-settings", "editable_mode=strict")


def _pip(stack: Stack, *arguments: str) -> None:
    command: list[str | Path] = [
        stack.python,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "-c",
        stack.constraints,
        *arguments,
    ]
    if run(*command):
        sys.exit(
            "installing failed: see above; a half-made environment is mended by running this again, or by deleting"
            f" {stack.home.name} first"
        )


def _requirements(stack: Stack) -> str:
    parts = [
        stack.constraints.read_bytes(),
        (ROOT / "pyproject.toml").read_bytes(),
        sys.version.encode(),
        str(ROOT).encode(),
    ]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


def _shipped_files() -> list[str]:
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]["packages"]
    folders = [ROOT.joinpath(*package.split(".")[1:]) for package in packages]
    found = (path for folder in folders for pattern in ("*.py", "*.yaml") for path in folder.glob(pattern))
    return sorted(path.relative_to(ROOT).as_posix() for path in found)


def _read_stamp(stack: Stack) -> dict[str, Any]:
    try:
        return dict(json.loads(stack.stamp.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return {}


def _shown(part: str | Path) -> str:
    text = str(part)
    return text.replace(f"{ROOT}{os.sep}", "").replace(str(ROOT), ".")


def main() -> int:
    """Make the environment of the stack that is named, the current one by default."""
    name = (sys.argv[1:] or ["current"])[0]
    if name not in STACKS:
        print(f"{name}: no such stack; known: {', '.join(STACKS)}", file=sys.stderr)
        return 2
    print(prepare("train", "adapt", "minilm", "serve", "sign", "dev", stack=name))
    return 0


if __name__ == "__main__":
    sys.exit(main())
