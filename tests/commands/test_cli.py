"""The command line's manners: what is printed where, which exit code, and how fast --help is."""

from __future__ import annotations

import dataclasses
import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest

from emb.cli import SHELLS, cli
from emb.commands import console
from emb.commands.console import Outcome, plain, reports
from emb.commands.options import duration, numbers, setting
from emb.errors import ArtifactError, DataError, EmbError, GateFailed, TeacherError, UsageError
from emb.report.tables import table

HEAVY = ("torch", "transformers", "sentence_transformers", "onnx", "onnxruntime", "numpy", "pydantic", "yaml", "rich")


@dataclasses.dataclass
class Ran:
    """What a command printed and returned."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@pytest.fixture
def emb(capsys: pytest.CaptureFixture[str]) -> Any:
    """Run `emb` in this process."""

    def run(*args: str | Path, group: click.Group = cli) -> Ran:
        status = console.run(group, [str(arg) for arg in args])
        printed = capsys.readouterr()
        return Ran(status, printed.out, printed.err)

    return run


def failing(error: BaseException) -> click.Group:
    """A group with one command, `fail`, that raises `error` after a print."""
    group = click.Group()

    @group.command()
    @reports
    def fail() -> Outcome:
        print("a library talks")
        raise error

    return group


def test_help_is_quick_and_imports_nothing_heavy() -> None:
    code = f"import sys, emb.cli; print([name for name in {HEAVY} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
    # Processor time: what the clock shows besides is other people's work on this machine.
    spent = [_processor_seconds([sys.executable, "-m", "emb.cli", "--help"]) for _ in range(5)]
    print(f"emb --help: {min(spent):.3f} s")
    assert min(spent) <= 0.3


def _processor_seconds(command: list[str]) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, capture_output=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def test_what_is_missing_is_told_with_what_it_is_for(emb: Any) -> None:
    option = emb("search", "a question", "--index", "docs.index")
    assert (option.status, option.out) == (2, "")
    assert "Missing option '--query'" in option.err
    assert "The encoder of queries, not their text" in option.err
    assert "see: emb search --help" in option.err
    assert "emb web [OPTIONS] QUERY-ENCODER DOCS..." in emb("web", "runs/mine").err


def test_models_as_a_table(emb: Any) -> None:
    ran = emb("models")
    assert ran.status == 0
    assert ran.out.splitlines()[0].split()[:3] == ["name", "parameters", "layers"]
    assert any(line.startswith("qwen3-embedding-0.6b") for line in ran.out.splitlines())


def test_models_as_json_are_one_object(emb: Any) -> None:
    models = {model["name"]: model for model in emb("models", "--json").json["models"]}
    assert len(models) == 11
    assert models["qwen3-embedding-0.6b"]["hub_id"] == "Qwen/Qwen3-Embedding-0.6B"


def test_models_of_one_language(emb: Any) -> None:
    found = emb("models", "--language", "multilingual", "--json").json["models"]
    assert {model["languages"] for model in found} == {"multilingual"}


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (DataError("bad", "mend"), 2),
        (UsageError("bad", "mend"), 2),
        (GateFailed("bad", "mend"), 1),
        (EmbError("bad", "mend"), 2),
    ],
)
def test_an_error_is_told_with_its_hint_and_exit_code(emb: Any, error: EmbError, status: int) -> None:
    ran = emb("fail", group=failing(error))
    assert ran.status == status
    assert ran.err == "error: bad\n  mend\n"
    assert ran.out == "a library talks\n"


def test_with_json_an_error_is_an_object_too_and_nothing_else_is_on_stdout(emb: Any) -> None:
    ran = emb("fail", "--json", group=failing(TeacherError("bad", "mend")))
    assert ran.json == {"error": {"kind": "TeacherError", "message": "bad", "hint": "mend"}}
    assert ran.err == "a library talks\nerror: bad\n  mend\n"


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Log files go here."""
    monkeypatch.setenv("EMB_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("EMB_DEBUG", raising=False)


def _foreign() -> list[BaseException]:
    import yaml
    from pyarrow import ArrowInvalid
    from safetensors import SafetensorError

    typical = [yaml.YAMLError("odd"), TypeError("x"), AttributeError("x"), EOFError("No data left")]
    return [*typical, ZeroDivisionError(), SafetensorError("invalid header\nsecond line"), ArrowInvalid("no rows")]


@pytest.mark.parametrize("error", _foreign(), ids=lambda error: type(error).__name__)
def test_an_error_that_nobody_foresaw_is_one_line_and_a_file(emb: Any, tmp_path: Path, error: BaseException) -> None:
    ran = emb("fail", group=failing(error))
    assert ran.status == 70
    [log] = (tmp_path / "cache" / "logs").glob(f"emb-*-{os.getpid()}.log")
    first = str(error).split("\n")[0] or repr(error)
    # A line end that click prints at the end of a file is no line of the message.
    assert ran.err.lstrip("\n") == f"unexpected error: {type(error).__name__}: {first}; the traceback is in {log}\n"
    written = log.read_text(encoding="utf-8")
    assert written.startswith("Traceback")
    assert "raise error" in written
    assert type(error).__name__ in written


def test_an_error_that_nobody_foresaw_is_an_object_with_json(emb: Any) -> None:
    error = emb("fail", "--json", group=failing(ZeroDivisionError("one")))
    assert error.json["error"]["kind"] == "Unexpected"
    assert error.json["error"]["message"] == "unexpected error: ZeroDivisionError: one"
    assert ".log" in error.json["error"]["hint"]


def test_without_a_cache_folder_the_log_lies_with_temporary_files(
    emb: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("in the way", encoding="utf-8")
    (tmp_path / "temporary").mkdir()
    monkeypatch.setenv("EMB_CACHE", str(tmp_path / "file"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    ran = emb("fail", group=failing(ZeroDivisionError()))
    [log] = (tmp_path / "temporary").glob("emb-*.log")
    assert ran.err.endswith(f"the traceback is in {log}\n")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "file"))
    assert emb("fail", group=failing(ZeroDivisionError())).status == 70


def test_a_user_without_a_home_and_without_a_writable_folder_is_told_what_failed(
    emb: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nowhere() -> str:
        raise FileNotFoundError(2, "No usable temporary directory found")

    def homeless(_: type[Path]) -> Path:
        raise RuntimeError("Could not determine home directory.")

    for name in ("EMB_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", classmethod(homeless))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert f"the traceback is in {tmp_path / 'emb' / 'logs'}" in emb("fail", group=failing(ZeroDivisionError())).err
    monkeypatch.setattr("tempfile.gettempdir", nowhere)
    ran = emb("fail", group=failing(ZeroDivisionError("one")))
    assert ran.status == 70
    assert ran.err == "unexpected error: ZeroDivisionError: one; add --debug to see where\n"


def test_a_file_that_may_not_be_read_is_named(emb: Any) -> None:
    ran = emb("fail", group=failing(PermissionError(13, "Permission denied", "/srv/model.onnx")))
    assert ran.status == 2
    assert ran.err.startswith("error: /srv/model.onnx: Permission denied\n  let the user who runs this")


def _debuggable(error: BaseException) -> click.Group:
    group = failing(error)
    group.params.append(click.Option(["--debug"], is_flag=True, expose_value=False))
    return group


@pytest.mark.parametrize(("error", "status"), [(ZeroDivisionError("one"), 70), (DataError("bad"), 2)])
def test_debug_shows_the_traceback(emb: Any, monkeypatch: pytest.MonkeyPatch, error: Exception, status: int) -> None:
    ran = emb("--debug", "fail", group=_debuggable(error))
    assert ran.status == status
    assert "Traceback" in ran.err
    assert ran.err.count("raise error") == 1
    assert "Traceback" not in emb("fail", group=_debuggable(error)).err
    for value, shown in (("1", True), ("0", False), ("", False)):
        monkeypatch.setenv("EMB_DEBUG", value)
        assert ("Traceback" in emb("fail", group=_debuggable(error)).err) == shown


def test_emb_takes_debug_before_a_command(emb: Any) -> None:
    ran = emb("--debug", "evaluate", "x", "--data", "missing")
    assert ran.status == 2
    assert "Traceback" in ran.err
    assert emb("--debug", "models").status == 0


@pytest.mark.parametrize("args", [[], ["--debug"]])
def test_emb_alone_prints_help(emb: Any, args: list[str]) -> None:
    ran = emb(*args)
    assert (ran.status, ran.err) == (0, "")
    assert ran.out.startswith("Usage: emb")
    assert all(name in ran.out for name in cli.commands)


def test_a_missing_library_names_the_extra(emb: Any) -> None:
    ran = emb("fail", group=failing(ModuleNotFoundError("No module named 'torch'", name="torch")))
    assert ran.status == 2
    assert 'pip install "emb-distill[train]"' in ran.err


def test_a_missing_module_of_no_extra_is_a_programming_error(emb: Any) -> None:
    ran = emb("fail", group=failing(ModuleNotFoundError("No module named 'emb.nothing'", name="emb.nothing")))
    assert ran.status == 70
    assert "pip install" not in ran.err


@pytest.mark.parametrize(
    "args", [["fly"], ["export", "--layers", "four"], ["distill", "--nope"], ["evaluate"], ["models", "extra"]]
)
def test_bad_usage_is_exit_code_2_and_points_to_help(emb: Any, args: list[str]) -> None:
    ran = emb(*args, "--json")
    assert ran.status == 2
    assert ran.json["error"]["kind"] == "UsageError"
    assert "--help" in ran.err
    assert "Traceback" not in ran.err


@pytest.mark.parametrize(
    "args",
    [
        ["evaluate", "model", "--data", "set", "--out"],
        ["search", "--index", "i", "--query", "m", "--queries", "q.jsonl", "--out"],
    ],
    ids=lambda args: args[0],
)
def test_a_folder_in_the_place_of_a_result_is_told_before_the_work(emb: Any, args: list[str], tmp_path: Path) -> None:
    ran = emb(*args, str(tmp_path))
    assert (ran.status, "is a directory" in ran.err) == (2, True)


@pytest.mark.parametrize(
    "command", ["bundle", "calibrate", "encode", "evaluate", "export", "index", "migrate", "serve", "validate"]
)
def test_more_threads_than_any_machine_has_are_refused(emb: Any, command: str) -> None:
    ran = emb(command, "--threads", "100000", *(["a", "b"] if command == "encode" else []))
    assert (ran.status, "1<=x<=1024" in ran.err) == (2, True)


def test_ctrl_c_says_how_to_go_on(emb: Any) -> None:
    ran = emb("fail", group=failing(KeyboardInterrupt()))
    assert ran.status == 130
    assert "run the same command again" in ran.err


def test_ctrl_c_while_distilling_names_resume(emb: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(**_: Any) -> None:
        raise KeyboardInterrupt

    import emb as package

    monkeypatch.setattr(package, "distill", stopped)
    ran = emb("distill", "--teacher", "x")
    assert ran.status == 130
    assert "--resume" in ran.err


def test_a_reader_that_goes_away_is_no_error() -> None:
    command = f"{sys.executable} -m emb.cli models | head -n 1"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_quiet_silences_notes_and_not_the_result(emb: Any) -> None:
    from emb import progress

    group = click.Group()

    @group.command()
    @reports
    def talk() -> Outcome:
        progress.note("a note")
        return Outcome({}, "the result")

    try:
        assert emb("talk", "--quiet", group=group).out == "the result\n"
        assert progress._console.quiet
    finally:
        progress.set_quiet(False)


@pytest.mark.parametrize("shell", SHELLS)
def test_completion_prints_a_script_for_each_shell(emb: Any, shell: str) -> None:
    assert "_EMB_COMPLETE" in emb("completion", shell).out
    assert "_EMB_COMPLETE" in emb("completion", shell, "--json").json["script"]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("emb distill --teacher qwen3-embedding-0", "qwen3-embedding-0.6b"),
        ("emb exp", "export"),
        ("emb export --in", "--int8"),
    ],
)
def test_completion_knows_commands_options_and_models(words: str, expected: str) -> None:
    environment = {
        **os.environ,
        "_EMB_COMPLETE": "bash_complete",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split()) - 1),
    }
    code = "import sys; sys.argv = ['emb']; from emb.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert f"plain,{expected}" in done.stdout.splitlines()


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("90s", 90), ("45m", 2700), ("1h30m", 5400), ("1.5 h", 5400), ("2d", 172800)]
)
def test_durations(text: str, seconds: float) -> None:
    assert duration(text) == seconds


@pytest.mark.parametrize("text", ["", "0", "soon", "5x", "-3m", "m", "1h-2m"])
def test_a_duration_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter, match="not a time"):
        duration(text)


def test_numbers_come_alone_or_in_lists() -> None:
    assert numbers("4") == (4,)
    assert numbers("2,4, 6") == (2, 4, 6)
    for bad in ("0", "-1", "4.5", "", "4,,6"):
        with pytest.raises(click.BadParameter, match="whole number"):
            numbers(bad)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("training.seed=3", ("training.seed", 3)),
        ("a=true", ("a", True)),
        ("pairs=[[2, 64]]", ("pairs", [[2, 64]])),
        ("a=b=c", ("a", "b=c")),
    ],
)
def test_settings_have_the_types_of_yaml(text: str, expected: tuple[str, Any]) -> None:
    assert setting(text) == expected


@pytest.mark.parametrize(
    "text", ["novalue", "=3", "a=[1", "a={x: 1, x: 2}", "a=!!python/object/apply:os.system ['true']"]
)
def test_a_setting_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter):
        setting(text)


def test_json_holds_only_what_json_knows() -> None:
    @dataclasses.dataclass
    class Thing:
        path: Path
        score: float

    value = plain({"thing": Thing(Path("a/b"), float("nan")), 3: np.float32(0.5), "list": (np.arange(2), np.inf)})
    assert value == {"thing": {"path": "a/b", "score": None}, "3": 0.5, "list": [[0, 1], None]}
    assert json.loads(json.dumps(value, allow_nan=False)) == value


def test_a_table_lines_up() -> None:
    assert table([("a", 1, 0.5), ("bcd", 20, None)], ("name", "n", "x")).splitlines() == [
        "name   n  x",
        "a      1  0.5000",
        "bcd   20  –",
    ]


def test_evaluate_without_data_on_disk_is_bad_input(emb: Any, tmp_path: Path) -> None:
    ran = emb("evaluate", "x", "--data", tmp_path / "missing", "--json")
    assert ran.status == 2
    assert ran.json["error"]["kind"] == "DataError"


def test_export_of_a_folder_that_is_no_model(emb: Any, tmp_path: Path) -> None:
    ran = emb("export", tmp_path / "missing", "--layers", "2")
    assert ran.status == 2
    assert "Traceback" not in ran.err


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupt_from_outside_has_its_exit_code(number: signal.Signals, status: int) -> None:
    code = (
        "import signal, time; from emb.commands import console; from emb.cli import cli\n"
        # A shell that runs the tests in the background has its children ignore interrupts.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "cli.commands['models'].callback = lambda **_: (print('on', flush=True), time.sleep(60))\n"
        "raise SystemExit(console.run(cli, ['models']))"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "on\n"
    process.send_signal(number)
    _, err = process.communicate(timeout=30)
    assert process.returncode == status
    assert err.strip() == "error: stopped\n  run the same command again"


def test_sigterm_is_as_it_was_afterwards(emb: Any) -> None:
    for before in (signal.SIG_DFL, signal.SIG_IGN):
        outside = signal.signal(signal.SIGTERM, before)
        try:
            emb("models")
            assert signal.getsignal(signal.SIGTERM) == before
        finally:
            signal.signal(signal.SIGTERM, outside)


def test_every_kind_of_error_has_an_exit_code() -> None:
    kinds = [ArtifactError, DataError, GateFailed, TeacherError, UsageError]
    assert {kind.exit_code for kind in kinds} == {1, 2}
