"""What ships: the wheel's and the sdist's files, the public names, and a runtime without torch."""

from __future__ import annotations

import ast
import functools
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ELSEWHERE = {"tests", "scripts", "benchmarks", "docs", "build", "dist", "runs", "exports"}
_KINDS = ("*.py", "*.yaml", "py.typed", "*.html", "*.css", "*.js", "icon.svg", "onnxruntime.txt")
RUNTIME = (
    "emb",
    "emb.cli",
    "emb.commands.console",
    "emb.artifact.manifest",
    "emb.tokens",
    "emb.similarity",
    "emb.machine",
    "emb.teachers.registry",
    "emb.runtime.encoder",
    "emb.runtime.streams",
    "emb.search.index.reader",
    "emb.search.engines.reader",
    "emb.search.engines.copying",
    "emb.search.index.run",
    "emb.quantize.vectors.codecs",
    "emb.search.calibration.apply",
)
FORBIDDEN = ("torch", "transformers", "sentence_transformers", "pydantic", "onnx", "datasets", "matplotlib", "scipy")


@functools.cache
def shipped() -> frozenset[str]:
    """Files of the package in the working tree: every module and every piece of data outside the other folders."""
    rooms = [path for path in ROOT.iterdir() if path.is_dir() and path.name not in ELSEWHERE and not _hidden(path)]
    files = {
        path for kind in _KINDS for path in (*ROOT.glob(kind), *(found for room in rooms for found in room.rglob(kind)))
    }
    return frozenset(
        path.as_posix() for path in (file.relative_to(ROOT) for file in files) if not any(map(_hidden, path.parents))
    )


def _hidden(path: Path) -> bool:
    return path.name.startswith(".") or path.name.endswith(".egg-info")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel and the sdist, built from a copy of the working tree."""
    source, out = tmp_path_factory.mktemp("build") / "source", tmp_path_factory.mktemp("dist")
    shutil.copytree(
        ROOT,
        source,
        ignore=shutil.ignore_patterns(".*", "build", "dist", "runs", "exports", "__pycache__", "*.egg-info"),
    )
    code = f"from setuptools import build_meta as b; b.build_wheel({str(out)!r}); b.build_sdist({str(out)!r})"
    done = subprocess.run([sys.executable, "-c", code], cwd=source, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return out


def test_the_wheel_holds_the_package_and_nothing_else(built: Path) -> None:
    with zipfile.ZipFile(next(built.glob("*.whl"))) as wheel:
        names = {name for name in wheel.namelist() if ".dist-info/" not in name}
        extra = {name.split("/", 1)[1] for name in wheel.namelist() if ".dist-info/" in name}
    assert names == {f"emb/{name}" for name in shipped()}
    assert {"emb/cli.py", "emb/py.typed", "emb/recipes/teachers.yaml", "emb/distill/__init__.py"} <= names
    assert extra == {"licenses/LICENSE", "METADATA", "WHEEL", "entry_points.txt", "top_level.txt", "RECORD"}


def test_the_sdist_holds_what_builds_the_wheel_and_nothing_else(built: Path) -> None:
    with tarfile.open(next(built.glob("*.tar.gz"))) as sdist:
        names = {member.name.split("/", 1)[1] for member in sdist if member.isfile()}
    beside = {
        "LICENSE",
        "MANIFEST.in",
        "PKG-INFO",
        "README.md",
        "constraints.txt",
        "constraints-optimum.txt",
        "pyproject.toml",
        "setup.cfg",
    }
    assert {name for name in names if ".egg-info/" not in name} == shipped() | beside


def test_only_the_console_script_is_installed(built: Path) -> None:
    with zipfile.ZipFile(next(built.glob("*.whl"))) as wheel:
        entry = wheel.read(next(name for name in wheel.namelist() if name.endswith("entry_points.txt"))).decode()
    assert entry.split() == ["[console_scripts]", "emb", "=", "emb.cli:main"]


def test_the_licence_is_apache_2() -> None:
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert "Apache License" in text
    assert "END OF TERMS AND CONDITIONS" in text


def _without_torch(code: str) -> subprocess.CompletedProcess[str]:
    """Run `code` where importing any of FORBIDDEN fails, as if it were not installed."""
    guard = (
        "import sys\n"
        "class Absent:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name.split('.')[0] in {FORBIDDEN!r}:\n"
        "            raise ModuleNotFoundError(f'No module named {name!r}', name=name)\n"
        "sys.meta_path.insert(0, Absent())\n"
    )
    return subprocess.run([sys.executable, "-c", guard + code], capture_output=True, text=True, check=False)


def test_the_runtime_imports_no_torch() -> None:
    done = _without_torch(f"import {', '.join(RUNTIME)}")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["export"], "no finished run"),
        (["export", "--grid"], "no finished run"),
        (["export", "nowhere"], "nowhere: no such folder"),
        (["validate"], "no finished run"),
        (["push", "--to", "me/it"], "no finished run"),
        (["doctor"], "no finished run"),
    ],
)
def test_nothing_is_imported_to_say_that_nothing_is_there(words: list[str], said: str, tmp_path: Path) -> None:
    run = "from emb.commands import console; from emb.cli import cli; raise SystemExit(console.run(cli, {}))"
    done = _without_torch(f"import os; os.chdir({str(tmp_path)!r}); {run.format(words)}")
    assert (done.returncode, said in done.stderr) == (2, True), done.stderr


def test_the_base_install_lists_models_and_names_the_extra_for_the_rest() -> None:
    run = "from emb.commands import console; from emb.cli import cli; raise SystemExit(console.run(cli, {}))"
    assert _without_torch(run.format(["models", "--json"])).returncode == 0
    done = _without_torch(run.format(["distill", "--teacher", str(ROOT)]))
    assert done.returncode == 2, done.stderr
    assert 'pip install "emb-distill[train]"' in done.stderr


@pytest.mark.parametrize(
    ("constraints", "more"),
    [
        ("constraints.txt", ["openvino", "ctranslate2", "langchain", "llama-index", "haystack", "mteb"]),
        ("constraints-optimum.txt", ["optimum"]),
    ],
)
def test_the_constraints_pin_every_dependency_inside_its_range(constraints: str, more: list[str]) -> None:
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    lines = (ROOT / constraints).read_text(encoding="utf-8").splitlines()
    pins = {
        canonicalize_name(name): version
        for name, version in (line.split("==") for line in lines if line and not line.startswith("#"))
    }
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    named = [
        line
        for extra in ("train", "adapt", "minilm", "search", "serve", "sign", "dev", *more)
        for line in extras[extra]
        if not line.startswith("emb-distill[")
    ]
    for requirement in map(Requirement, [*project["dependencies"], *named]):
        assert requirement.specifier.contains(pins[canonicalize_name(requirement.name)]), requirement


def test_every_extra_named_in_an_error_exists() -> None:
    extras = set(
        tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    )
    named = {
        extra
        for name in shipped()
        if name.endswith(".py")
        for extra in re.findall(r"emb-distill\[([a-z0-9]+)\]", (ROOT / name).read_text(encoding="utf-8"))
    }
    assert named <= extras


def test_nothing_pickled_is_read_and_no_yaml_is_trusted() -> None:
    trees = {name: ast.parse((ROOT / name).read_text(encoding="utf-8")) for name in shipped() if name.endswith(".py")}
    calls = [
        (name, ast.unparse(node.func))
        for name, tree in trees.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
    ]
    forbidden = (
        "yaml.load",
        "yaml.unsafe_load",
        "yaml.full_load",
        "pickle.load",
        "pickle.loads",
        "joblib.load",
        "torch.load",
        "eval",
        "exec",
    )
    unsafe = [(name, call) for name, call in calls if call in forbidden]
    assert not unsafe
    assert any(call == "yaml.safe_load" for _, call in calls)


def _of(value: object) -> str:
    return str(getattr(value, "__module__", getattr(value, "__name__", "")))


def test_the_public_names_are_the_doors() -> None:
    import emb

    ours = {
        name
        for name, value in vars(emb).items()
        if not name.startswith("_") and callable(value) and _of(value).startswith("emb")
    }
    assert ours | {"__version__"} == set(emb.__all__)
    assert all(getattr(emb, name).__doc__ for name in emb.__all__ if name != "__version__")


def test_rooms_are_doors_and_packages_at_once() -> None:
    code = (
        "import inspect\n"
        "import emb, emb.distill.losses as losses, emb.export.pairs as slices, emb.validate.proof as proof\n"
        "from emb.distill import distill; from emb.validate import validate\n"
        "assert all(callable(getattr(emb, name)) for name in emb.__all__ if name != '__version__')\n"
        "assert inspect.signature(emb.distill) == inspect.signature(distill) and callable(validate)\n"
        "assert losses.__name__ == 'emb.distill.losses' and slices.resolve_pairs and proof.validate\n"
        "try: emb.distill(teacher='nowhere-at-all')\n"
        "except emb.errors.EmbError as error: assert 'nowhere-at-all' in str(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_user_of_the_doors_is_type_checked(tmp_path: Path) -> None:
    user = tmp_path / "user.py"
    user.write_text(
        "import emb\n"
        "result = emb.distill(teacher='all-MiniLM-L6-v2', layers=3)\n"
        "reveal_type(result.run)\n"
        "reveal_type(emb.export(result.run, layers=[3], dims=[128], int8=True))\n"
        "vectors = emb.load('artifact').encode(['a text'], kind='query', truncate_dim=64)\n"
        "emb.distill(teacher=3)\n",
        encoding="utf-8",
    )
    # With the project's settings and cache: what `mypy -p emb` has read is not read again.
    command = [
        sys.executable,
        "-m",
        "mypy",
        "--config-file",
        str(ROOT / "pyproject.toml"),
        "--cache-dir",
        str(ROOT / ".mypy_cache"),
        str(user),
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert 'Revealed type is "pathlib.Path"' in done.stdout, done.stdout
    assert 'Revealed type is "list[pathlib.Path]"' in done.stdout, done.stdout
    assert 'Argument "teacher" to "distill" has incompatible type "int"' in done.stdout, done.stdout
    assert (
        len([line for line in done.stdout.splitlines() if line.startswith("user.py:") and " error: " in line]) == 1
    ), done.stdout
