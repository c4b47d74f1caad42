"""Hold the programs that people use to the vectors of an export, each in an environment of its own.

    python3 scripts/interop.py [CLIENT…]

Exports all-MiniLM-L6-v2 at 128 dims with int8 and int4, encodes the same 200 texts with every client, and compares
with emb's own torch vectors; indexes are asked for the neighbours that numpy finds among 2,000 stored vectors.
Needs a package index; transformers.js needs Node, and its page Chromium.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import venv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import environment

HOME = environment.ROOT / "runs" / "interop"
CLIENTS = environment.ROOT / "tests" / "interop"
TEXTS = 200
FP32, INT8, INT4 = "onnx/model.onnx", "onnx/model_quantized.onnx", "onnx/model_q4.onnx"
LIMITS = {"fp32": 0.9999, "int8": 0.99, "int4": 0.9, "float vectors": 1.0, "int8 vectors": 1.0, "binary vectors": 1.0}
CHROMIUM = "with_chromium.mjs"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")


@dataclass(frozen=True)
class Client:
    """Packages to install, the script that encodes (or searches), and its last argument per precision.

    `indexes` are asked for neighbours and write the share found, per query; others write vectors.
    """

    packages: list[str]
    script: str
    files: dict[str, str]
    indexes: bool = False

    def missing(self) -> str | None:
        """A program that this machine lacks and no package index brings."""
        if self.script.endswith(".mjs") and not (shutil.which("node") and shutil.which("npm")):
            return "Node and npm"
        return f"a browser (one of {', '.join(BROWSERS)})" if self.script == CHROMIUM and browser() is None else None


def browser() -> str | None:
    """The Chromium or Chrome of this machine."""
    return next((found for name in BROWSERS if (found := shutil.which(name))), None)


STORED = {f"{kind} vectors": kind for kind in ("float", "int8", "binary")}
CURRENT = [environment.STACKS["current"].pin(name) for name in ("torch", "sentence-transformers")]
OLDER = [
    environment.STACKS["optimum"].pin(name)
    for name in ("torch", "transformers", "sentence-transformers", "optimum", "optimum-onnx", "onnxruntime")
]
KNOWN = {
    "onnxruntime": Client(
        ["onnxruntime", "tokenizers", "numpy"], "with_onnxruntime.py", {"fp32": FP32, "int8": INT8, "int4": INT4}
    ),
    "fastembed": Client(["fastembed==0.9.1"], "with_fastembed.py", {"fp32": FP32, "int8": INT8, "int4": INT4}),
    "transformers.js": Client(
        ["@huggingface/transformers@4"], "with_transformers.mjs", {"fp32": "fp32", "int8": "q8", "int4": "q4"}
    ),
    "transformers.js, Chromium": Client(
        ["@huggingface/transformers@4"], CHROMIUM, {"fp32": "fp32", "int8": "q8", "int4": "q4"}
    ),
    "sentence-transformers 6": Client(CURRENT, "with_sentence_transformers.py", {"fp32": "torch"}),
    "sentence-transformers 5.7": Client(OLDER, "with_sentence_transformers.py", {"fp32": "torch"}),
    "optimum-onnx": Client(OLDER, "with_sentence_transformers.py", {"fp32": FP32, "int8": INT8}),
    "faiss": Client(["faiss-cpu==1.15.1", "numpy"], "with_faiss.py", STORED, indexes=True),
    "usearch": Client(["usearch==2.26.6", "numpy"], "with_usearch.py", STORED, indexes=True),
}


def main() -> int:
    """Print a line per client and precision; return 1 if one falls below its limit, 2 for a client unknown here."""
    unknown = set(sys.argv[1:]) - KNOWN.keys()
    if unknown:
        print(f"unknown: {', '.join(sorted(unknown))}; known: {', '.join(KNOWN)}", file=sys.stderr)
        return 2
    commands = environment.prepare("train", "minilm")
    HOME.mkdir(parents=True, exist_ok=True)
    artifact, texts = HOME / "artifact", HOME / "texts.json"
    cut = ["--dim", "128", "--int8", "--int4", "--vectors", "int8", "--vectors", "binary"]
    steps: list[list[str | Path]] = [
        [commands / "emb", "export", "all-MiniLM-L6-v2", *cut, "--out", artifact, "--overwrite", "--quiet"],
        [commands / "python", CLIENTS / "reference.py", artifact, texts, HOME / "reference.json", str(TEXTS)],
    ]
    if any(environment.run(*step) for step in steps):
        return 1
    reference = json.loads((HOME / "reference.json").read_text())
    return 1 if sum(failures(name, artifact, texts, reference) for name in sys.argv[1:] or KNOWN) else 0


def failures(name: str, artifact: Path, texts: Path, reference: list[list[float]]) -> int:
    """Try a client in each precision and say how it went; the number of those below their limit."""
    client, failed = KNOWN[name], 0
    if lacks := client.missing():
        print(f"skipped {name:26} this machine lacks {lacks}", flush=True)
        return 0
    for precision in client.files:
        found = answers(name, client, precision, artifact, texts)
        lowest = (min(found) if len(found) == TEXTS else -1.0) if client.indexes else least_cosine(reference, found)
        measure = "smallest share of ten neighbours" if client.indexes else "smallest cosine"
        passed = lowest >= LIMITS[precision]
        failed += not passed
        print(
            f"{'passed' if passed else 'FAILED'}  {name:26} {precision:14}  {measure} {lowest:.6f} of {TEXTS} texts",
            flush=True,
        )
    return failed


def answers(name: str, client: Client, precision: str, artifact: Path, texts: Path) -> list[Any]:
    """What a client makes of the texts: a vector or a share each; none where it cannot be installed or stops with an
    error.
    """
    try:
        runner = _runner(client)
    except subprocess.CalledProcessError as error:
        print(f"{name}: {error}", file=sys.stderr)
        return []
    out = HOME / f"{name}-{precision}.json"
    out.unlink(missing_ok=True)
    subprocess.run(
        [*runner, str(artifact), str(texts), str(out), client.files[precision]],
        check=False,
        cwd=HOME,
        env={**os.environ, "BROWSER": browser() or ""},
    )
    return list(json.loads(out.read_text())) if out.is_file() else []


def least_cosine(reference: list[list[float]], found: list[list[float]]) -> float:
    """Smallest cosine of a text's two vectors; -1 if there are not as many."""
    if len(found) != len(reference):
        return -1.0
    return min(
        sum(x * y for x, y in zip(a, b, strict=True)) / (_length(a) * _length(b))
        for a, b in zip(reference, found, strict=True)
    )


def _length(vector: list[float]) -> float:
    return sum(x * x for x in vector) ** 0.5


def _runner(client: Client) -> list[str]:
    """The command that runs a client's script, in an environment made once for its packages."""
    script = CLIENTS / client.script
    if script.suffix == ".mjs":
        local = shutil.copy(script, HOME / script.name)  # Node looks for packages beside the script
        if not (HOME / "node_modules").is_dir():
            # Without the packages' own scripts: one of them fetches CUDA libraries from elsewhere.
            subprocess.run(
                ["npm", "install", "--ignore-scripts", "--silent", "--no-fund", "--no-audit", *client.packages],
                check=True,
                cwd=HOME,
            )
        return ["node", str(local)]
    home = HOME / f"venv-{hash_of(client.packages)}"
    python = home / "bin" / "python"
    if not (home / "ready").is_file():
        venv.create(home, with_pip=True)
        for group in (client.packages[:1], client.packages):  # torch first, so that nothing else picks another build
            subprocess.run([python, "-m", "pip", "install", "-qq", "--disable-pip-version-check", *group], check=True)
        (home / "ready").touch()
    return [str(python), str(script)]


def hash_of(packages: list[str]) -> str:
    """A name for an environment with these packages."""
    return hashlib.sha256("\n".join(packages).encode()).hexdigest()[:10]


if __name__ == "__main__":
    sys.exit(main())
