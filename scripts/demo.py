"""Set up, then do the main job on a small real case: distil, export, quantise, prove.

    python3 scripts/demo.py [FOLDER FOR THE RUN]

Teacher: all-MiniLM-L6-v2, its weights from a Python package. Student: its first three layers, healed on the Python
documentation that every interpreter carries. Takes minutes on two cores.
"""

import sys
from pathlib import Path

import environment

LAYERS, DIM = "3", "128"


def steps(run: Path, *distill_options: str) -> list[list[str]]:
    """The three commands of the job, each as a user would type it after `emb`."""
    teacher = ["--teacher", "all-MiniLM-L6-v2", "--recipe", "demo"]
    cut = ["--layers", LAYERS, "--dim", DIM, "--int8"]
    return [
        ["distill", *teacher, "--out", str(run), "--overwrite", *distill_options],
        ["export", str(run), *cut, "--out", str(artifact(run)), "--overwrite"],
        ["validate", str(artifact(run))],
    ]


def artifact(run: Path) -> Path:
    """Where the job puts what it makes."""
    return run / "exports" / f"{LAYERS}x{DIM}"


def main() -> int:
    """Do the job and say where its report lies; return the status of the first command that failed, or 0."""
    commands = environment.prepare("train", "minilm")
    run = Path(sys.argv[1]) if len(sys.argv) > 1 else Path("runs/demo")
    for step in steps(run):
        if status := environment.run(commands / "emb", *step):
            return status
    print(f"report: {(environment.ROOT / artifact(run) / 'report.html').as_uri()}")
    print(f'use it: emb.load("{artifact(run)}").encode(["How do I open a file?"], kind="query")')
    return 0


if __name__ == "__main__":
    sys.exit(main())
