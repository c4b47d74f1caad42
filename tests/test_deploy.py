"""The image file and the unit: what they install exists, what they run are commands of ours, and neither is root."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
import threading
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatch
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import click
import pytest
from test_packaging import ROOT, shipped

from emb.cli import cli
from emb.errors import EmbError, GateFailed, UsageError
from emb.search.server.settings import Settings

UNIT = ROOT / "docs" / "emb-serve.service"
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
Steps = list[tuple[str, str]]


def _steps() -> list[Steps]:
    """Instructions and their arguments, a list for each stage of the image file."""
    text = re.sub(r"\\\n\s*", "", (ROOT / "Dockerfile").read_text(encoding="utf-8"))
    stages: list[Steps] = []
    for line in text.splitlines():
        if line and not line.startswith("#"):
            name, _, rest = line.partition(" ")
            stages = [*stages, []] if name == "FROM" else stages
            stages[-1].append((name, rest.strip()))
    return stages


def _last(name: str) -> str:
    return [rest for step, rest in _steps()[-1] if step == name][-1]


def _served(words: list[str]) -> dict[str, object]:
    """What `emb serve` makes of a command's words; an option that it does not have is an error."""
    assert words[:2] == ["emb", "serve"]
    command = cli.commands["serve"]
    with command.make_context("serve", words[2:]) as context:
        assert isinstance(context, click.Context)
        return dict(context.params)


def test_the_image_installs_extras_that_exist_and_no_torch() -> None:
    [run] = [rest for name, rest in _steps()[0] if name == "RUN"]
    [found] = re.findall(r'"\.\[([a-z0-9,-]+)\]"', run)
    assert "--constraint constraints.txt" in run
    wanted = found.split(",")
    assert "serve" in wanted
    assert set(wanted) <= set(EXTRAS)
    needed = [line for extra in wanted for line in EXTRAS[extra]]
    assert not [line for line in needed if re.match(r"emb-distill|torch|transformers|sentence-transformers", line)]


def test_the_image_fetches_nothing_by_itself_and_is_not_root() -> None:
    stages = _steps()
    names = {name for stage in stages for name, _ in stage}
    assert "ADD" not in names
    assert not [rest for stage in stages for name, rest in stage if name == "RUN" and re.search(r"curl|wget|://", rest)]
    user, _, group = _last("USER").partition(":")
    assert int(user) > 0
    assert int(group) > 0
    assert [rest for stage in stages for name, rest in stage if name == "FROM" and ":" not in rest] == []


def test_the_image_serves_its_model_to_others_with_a_key() -> None:
    words = [*json.loads(_last("ENTRYPOINT")), *json.loads(_last("CMD"))]
    found = _served(words)
    assert (str(found["model"]), found["host"], str(found["api_key_file"])) == (
        "/model",
        "0.0.0.0",
        "/run/secrets/emb_api_key",
    )
    assert str(found["port"]) == _last("EXPOSE")
    assert f"127.0.0.1:{found['port']}/health" in _last("HEALTHCHECK")


@contextmanager
def _healthy(status: int) -> Iterator[int]:
    """A server whose /health has this status; its port."""

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status if self.path == "/health" else 200)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            """Keep quiet."""

    server = HTTPServer(("127.0.0.1", 0), Answers)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(("status", "healthy"), [(200, True), (503, False)])
def test_the_health_check_tells_a_server_that_answers(status: int, healthy: bool) -> None:
    python, *words = json.loads(_last("HEALTHCHECK").partition("CMD ")[2])
    assert python == "python"
    with _healthy(status) as port:
        command = [word.replace(":8080", f":{port}") for word in words]
        done = subprocess.run([sys.executable, *command], capture_output=True, check=False)
    assert (done.returncode == 0) == healthy


def test_the_image_gets_what_the_package_is_made_of_and_no_secret() -> None:
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    left_out = [line for line in lines if line and not line.startswith("#")]
    sent = [name for name in (*shipped(), "pyproject.toml", "constraints.txt", "README.md", "LICENSE")]
    assert not [name for name in sent if any(fnmatch(name.split("/")[0], each) for each in left_out)]
    for name in (".git", ".venv", ".env", "runs", "exports", "tests"):
        assert any(fnmatch(name, each) for each in left_out), name


def _unit() -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in UNIT.read_text(encoding="utf-8").splitlines():
        if "=" in line and not line.startswith("#"):
            name, _, value = line.partition("=")
            found.setdefault(name, []).append(value)
    return found


def test_the_unit_runs_a_command_of_ours_and_waits_for_it() -> None:
    unit = _unit()
    [start] = unit["ExecStart"]
    words = shlex.split(start)
    found = _served(["emb", *words[1:]])
    assert Path(words[0]).name == "emb"
    assert found["host"] == "127.0.0.1"
    name, _, _ = unit["LoadCredential"][0].partition(":")
    assert str(found["api_key_file"]) == f"${{CREDENTIALS_DIRECTORY}}/{name}"
    # What was accepted has `--timeout` to be answered, and the server a second more.
    limit = found["timeout"]
    assert isinstance(limit, float)
    assert limit == Settings().timeout
    assert int(unit["TimeoutStopSec"][0]) > limit + 1


def test_the_unit_starts_again_only_where_that_can_help() -> None:
    unit = _unit()
    assert unit["Restart"] == ["on-failure"]
    assert [int(code) for code in unit["RestartPreventExitStatus"]] == [UsageError.exit_code]
    assert EmbError.exit_code == UsageError.exit_code != GateFailed.exit_code
    assert unit["SuccessExitStatus"] == ["143"]


def _checked(*words: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """`systemd-analyze` on the unit, with a program in place of the one that is not installed here."""
    unit = folder / UNIT.name
    unit.write_text(UNIT.read_text(encoding="utf-8").replace("/opt/emb/bin/emb", "/bin/true"), encoding="utf-8")
    return subprocess.run(["systemd-analyze", *words, str(unit)], capture_output=True, text=True, check=False)


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
def test_systemd_takes_the_unit_and_finds_it_closed(tmp_path: Path) -> None:
    verified = _checked("verify", folder=tmp_path)
    assert (verified.returncode, verified.stderr) == (0, "")
    judged = _checked(
        "security", "--offline=true", "--threshold=15", folder=tmp_path
    )  # of 100; the page says 1.0 of 10
    assert judged.returncode == 0, judged.stdout
