"""Set up and check everything: lint, types, the generated pages, the tests.

    python3 scripts/test.py [--stack optimum|integrations] [ARGUMENTS FOR PYTEST]

On the other stacks tests alone run: lint and types are those of the current one.
"""

import os
import sys

import environment

_MOST = 4  # processes: each holds torch and its models


def main() -> int:
    """Run every check, whatever an earlier one said, and return 1 if any failed, 2 for a stack that is unknown."""
    arguments, stack = sys.argv[1:], "current"
    if arguments[:1] == ["--stack"]:
        stack, arguments = " ".join(arguments[1:2]), arguments[2:]
    if stack not in environment.STACKS:
        print(f"--stack {stack}: unknown; known: {', '.join(environment.STACKS)}", file=sys.stderr)
        return 2
    some = environment.STACKS[stack].tests
    extras = (
        ("train", "dev")
        if some
        else ("train", "adapt", "minilm", "search", "serve", "milvus", "postgres", "sign", "dev")
    )
    commands = environment.prepare(*extras, stack=stack)
    # Nothing here may reach a hub; the tests that need one bring their own.
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # the tests run side by side
    side_by_side = ["-n", str(min(_MOST, os.cpu_count() or 1)), "--dist", "worksteal"]
    checks = {
        "lint": [commands / "ruff", "check", "."],
        "format": [commands / "ruff", "format", "--check", "."],
        "types": [commands / "mypy", "-p", "emb"],
        "help page": [commands / "python", "scripts/write_help.py", "--check"],
        "picture of the rooms": [commands / "python", "scripts/draw_rooms.py", "--check"],
        "tests": [commands / "pytest", "--durations=10", *side_by_side, *some, *arguments],
    }
    wanted = checks if stack == "current" else ["tests"]
    failed = [name for name in wanted if environment.run(*checks[name])]
    print(f"failed: {', '.join(failed)}" if failed else "all checks passed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
