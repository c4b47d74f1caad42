"""Set up, then make Python's own documentation searchable: student, index and a page in the browser.

    python3 scripts/search_demo.py [OPTIONS OF emb demo search]

Called again, it goes on where it was, and shows the page at once where nothing is left to do.
"""

import signal
import sys

import environment


def main() -> int:
    """Run `emb demo search` in the environment that it needs."""
    commands = environment.prepare("train", "minilm", "search", "serve")
    # Ctrl-C ends the server, which answers what it has accepted; this process waits for it.
    signal.signal(signal.SIGINT, lambda number, frame: None)
    return environment.run(commands / "emb", "demo", "search", *sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
