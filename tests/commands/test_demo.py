"""`emb demo search`: each step is a command, done once, and an error of one ends the job."""

from __future__ import annotations

import http.server
import json
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from emb.cli import cli
from emb.commands import console, demo


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[list[str]]]:
    """The commands that would have run, each of which makes what it promises."""
    seen: list[list[str]] = []

    def pretend(command: Sequence[str]) -> subprocess.Popen[bytes]:
        seen.append(list(command))
        return subprocess.Popen([sys.executable, "-c", ""])

    monkeypatch.setattr(demo, "_started", pretend)
    yield seen


def _demo(out: Path, *more: str) -> int:
    return console.run(cli, ["demo", "search", "--out", str(out), "--documents", "100", "--no-browser", *more])


def test_steps_stand_in_the_order_in_which_one_needs_the_other(ran: list[list[str]], tmp_path: Path) -> None:
    assert _demo(tmp_path) == 0
    assert [command[0] for command in ran] == ["distill", "export", "bundle", "index", "web", "serve"]
    distill, export, bundle, index, web, serve = ran
    run, query = distill[distill.index("--out") + 1], bundle[bundle.index("--query") + 1]
    assert distill[distill.index("--for") + 1] == index[1] == web[2] == str(tmp_path / "documents.jsonl")
    assert export[1] == run
    assert query == f"{run}/exports/0x128"
    both = bundle[bundle.index("--out") + 1]
    assert index[index.index("--doc") + 1] == web[1] == serve[1] == both
    assert serve[serve.index("--index") + 1] == index[index.index("--out") + 1]


def test_what_is_done_is_not_done_again(ran: list[list[str]], tmp_path: Path) -> None:
    run = tmp_path / "run"
    for made, text in (
        (run / "run.json", json.dumps({"status": "finished", "at": ""})),
        (run / "exports" / "0x128" / "emb.json", "{}"),
        (tmp_path / "bundle" / "bundle.json", "{}"),
        (tmp_path / "site" / "page.json", "{}"),
    ):
        made.parent.mkdir(parents=True, exist_ok=True)
        made.write_text(text, encoding="utf-8")
    assert _demo(tmp_path, "--no-serve") == 0
    assert [command[0] for command in ran] == ["index"]


def test_a_run_that_was_stopped_goes_on(ran: list[list[str]], tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text(json.dumps({"status": "running", "at": ""}), encoding="utf-8")
    _demo(tmp_path, "--no-serve")
    assert "--resume" in ran[0]
    ran.clear()
    _demo(tmp_path / "new", "--no-serve")
    assert "--resume" not in ran[0]


def test_an_error_of_a_step_ends_the_job_with_its_exit_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(demo, "TEACHER", str(tmp_path / "nothing"))
    assert _demo(tmp_path / "out", "--no-serve") == 2
    said = capfd.readouterr()
    assert "$ emb distill --teacher" in said.err
    assert "emb distill ended with exit code 2" in said.err
    assert "emb export" not in said.err
    assert not said.out


def test_other_documents_in_the_folder_are_refused(ran: list[list[str]], tmp_path: Path) -> None:
    assert _demo(tmp_path, "--no-serve") == 0
    ran.clear()
    before = (tmp_path / "documents.jsonl").read_bytes()
    assert _demo(tmp_path, "--no-serve", "--documents", "101") == 2
    assert not ran
    assert (tmp_path / "documents.jsonl").read_bytes() == before


class _Health(http.server.BaseHTTPRequestHandler):
    asked = 0

    def do_GET(self) -> None:
        """Not ready at first."""
        type(self).asked += 1
        self.send_response(200 if type(self).asked > 2 else 503)
        self.end_headers()

    def log_message(self, *arguments: Any) -> None:
        """Nothing."""


def test_the_browser_opens_once_the_server_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[tuple[str, int]] = []
    monkeypatch.setattr(demo.webbrowser, "open", lambda address: opened.append((address, _Health.asked)))
    server = http.server.HTTPServer(("127.0.0.1", 0), _Health)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_address[1]}"
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        demo._show(address, process)
        process.communicate(b"\n")
    server.shutdown()
    server.server_close()
    assert opened == [(address, 3)]
