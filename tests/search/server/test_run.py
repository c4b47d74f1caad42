"""The command: started, asked, and stopped as on a server of one's own."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from serving import until

import emb
from emb.cli import cli
from emb.errors import MissingExtra, UsageError
from emb.export import export
from emb.search.server import run as running
from emb.search.server.settings import Settings

CLIENT = Path(__file__).parents[2] / "interop" / "with_openai.mjs"


@pytest.fixture(scope="module")
def artifact(student_folder: Path, sentences: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    [folder] = export(
        student_folder, layers=[2], dims=[16], out=tmp_path_factory.mktemp("out") / "tiny", calibration_texts=sentences
    )
    return folder


@dataclass
class Server:
    """A server in a process of its own; `said` is what it has told so far."""

    process: subprocess.Popen[str]
    said: list[str] = field(default_factory=list)

    @property
    def address(self) -> str:
        """Where it listens."""
        return next(word for line in self.said if "is served on" in line for word in line.split() if "http" in word)

    def stop(self) -> dict[str, Any]:
        """Send it SIGTERM, and return what it says of its work."""
        self.process.send_signal(signal.SIGTERM)
        assert self.process.stdout is not None
        told = self.process.stdout.read()
        assert self.process.wait(30) == 0, self.said
        return dict(json.loads(told))


@contextmanager
def serving(model: Path, *options: str, **variables: str) -> Iterator[Server]:
    """`emb serve MODEL --port 0` with further options."""
    command = [
        sys.executable,
        "-m",
        "emb.cli",
        "serve",
        str(model),
        "--port",
        "0",
        "--threads",
        "1",
        "--json",
        *options,
    ]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | variables
    )
    server = Server(process)
    assert process.stderr is not None
    reader = threading.Thread(target=lambda: server.said.extend(iter(process.stderr.readline, "")))  # type: ignore[union-attr]
    reader.start()
    try:
        until(lambda: any("is served on" in line for line in server.said) or process.poll() is not None, 240)
        assert process.poll() is None, server.said
        yield server
    finally:
        process.kill()
        process.wait()
        reader.join(5)


def test_all_that_was_accepted_is_answered_after_sigterm(artifact: Path, sentences: list[str]) -> None:
    expected = dict(zip(sentences, emb.load(artifact).encode(sentences), strict=True))
    answered, refused = [0] * 16, [0] * 16

    def ask(number: int) -> None:
        with httpx.Client(base_url=server.address, timeout=30) as client:
            while True:
                text = sentences[(number + answered[number]) % len(sentences)]
                try:
                    answer = client.post("/embed", json={"inputs": text})
                except httpx.TransportError:  # not accepted any more
                    return
                if answer.status_code != 200:
                    refused[number] += 1
                    return
                np.testing.assert_allclose(answer.json()[0], expected[text], atol=1e-6)
                answered[number] += 1

    with serving(artifact) as server:
        clients = [threading.Thread(target=ask, args=(number,)) for number in range(16)]
        for client in clients:
            client.start()
        until(lambda: min(answered) >= 5)
        told = server.stop()
        for client in clients:
            client.join(30)
    assert told["model"] == "tiny"
    assert told["accepted"] == told["answered"] == sum(answered) + sum(refused)
    assert sum(refused) == 0


def test_a_key_from_the_environment_and_from_a_file(artifact: Path, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("secret\n", encoding="utf-8")
    for options, variables in ((["--api-key-file", str(tmp_path / "key")], {}), ([], {"EMB_API_KEY": "secret"})):
        with serving(artifact, *options, **variables) as server:
            assert httpx.get(f"{server.address}/info").status_code == 401
            headers = {"Authorization": "Bearer secret"}
            found = httpx.get(f"{server.address}/info", headers=headers).json()
            assert (found["model_id"], found["model_dtype"]) == ("tiny", "fp32")
            assert found["model_type"] == {"embedding": {"pooling": "mean"}}
            assert server.stop()["accepted"] == 1


def test_a_large_body_over_a_socket_gets_its_413(artifact: Path) -> None:
    with serving(artifact, "--payload-limit", "1000") as server:
        host, port = server.address.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=20) as line:
            head = b"POST /embed HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000000\r\n\r\n"
            line.sendall(head + b"x" * 10_000)
            assert line.recv(100).startswith(b"HTTP/1.1 413")


@pytest.mark.parametrize(
    ("host", "warned"), [("127.0.0.1", False), ("localhost", False), ("0.0.0.0", True)], ids=lambda each: str(each)
)
def test_an_open_door_to_the_network_is_warned_of(host: str, warned: bool, capsys: pytest.CaptureFixture[str]) -> None:
    place = running.Place(host, 0)
    with running._listening(place) as listener:
        running._say(listener, place, "tiny", None, ["/embed"])
        assert ("EMB_API_KEY" in capsys.readouterr().err) is warned
        running._say(listener, place, "tiny", b"secret", ["/embed"])
        assert "EMB_API_KEY" not in capsys.readouterr().err


def test_the_command_and_the_library_have_the_same_defaults() -> None:
    found = cli.commands["serve"].make_context("serve", ["model"]).params
    settings = asdict(Settings())
    assert settings.pop("only") is None  # follows from the model: a bundle's query encoder is for queries
    assert {name: found[name] for name in settings} == settings
    assert (found["host"], found["port"], found["api_key_file"]) == tuple(asdict(running.Place()).values())
    assert found["host"] == "127.0.0.1"


def test_answers_do_not_wait_for_acknowledgements() -> None:
    async def go() -> int:
        accepted = asyncio.Queue[int]()

        async def seen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            line = writer.get_extra_info("socket")
            accepted.put_nowait(line.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
            writer.close()

        with running._listening(running.Place(port=0)) as listener:
            async with await asyncio.start_server(seen, sock=listener):
                _, writer = await asyncio.open_connection(*listener.getsockname())
                writer.close()
                return await asyncio.wait_for(accepted.get(), 20)

    assert asyncio.run(go())


def test_a_port_that_is_taken_is_said(artifact: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        with pytest.raises(UsageError, match="cannot be listened on") as error:
            emb.serve(artifact, port=other.getsockname()[1])
        assert "--port" in error.value.hint


@pytest.mark.parametrize("host", ["", "[::1]", "nowhere.invalid", "192.0.2.1"])
def test_an_address_that_is_none_of_this_machine_is_said(host: str) -> None:
    with pytest.raises(UsageError, match="host") as error, running._listening(running.Place(host, 0)):
        pass
    assert "127.0.0.1" in error.value.hint


def test_without_the_extra_it_is_named(artifact: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fastapi", None)
    with pytest.raises(MissingExtra, match=r"emb-distill\[serve\]"):
        emb.serve(artifact, port=0)


def test_a_file_of_other_vectors_is_refused_with_what_to_do(
    student_folder: Path, sentences: list[str], tmp_path: Path
) -> None:
    [folder] = export(
        student_folder, layers=[1], dims=[16], vectors=["binary"], out=tmp_path / "bits", calibration_texts=sentences
    )
    file = next(path.relative_to(folder).as_posix() for path in folder.rglob("*binary*.onnx"))
    with pytest.raises(UsageError, match="file: the model's vectors are uint8"):
        emb.serve(folder, file=file, port=0)


def test_serving_an_artifact_imports_no_torch(artifact: Path) -> None:
    code = (
        "import sys\n"
        "import emb\n"
        "from emb.search.server.app import create_app\n"
        f"create_app(emb.load({str(artifact)!r}, threads=1))\n"
        "print(sorted({'torch', 'transformers', 'sentence_transformers'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "[]", done.stderr


@pytest.mark.interop
def test_openais_client_for_node(artifact: Path, tmp_path: Path) -> None:
    node = shutil.which("node")
    packages = os.environ.get("EMB_NODE_MODULES")
    if node is None or packages is None or not (Path(packages) / "openai").is_dir():
        pytest.skip("needs Node, and EMB_NODE_MODULES naming a node_modules folder with the npm package openai")
    shutil.copy(CLIENT, tmp_path)
    (tmp_path / "node_modules").symlink_to(packages)
    with serving(artifact) as server:
        command = [node, CLIENT.name, f"{server.address}/v1", "The cat sat on the mat."]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    expected = emb.load(artifact).encode("The cat sat on the mat.")
    np.testing.assert_allclose(found["embedding"], expected, atol=1e-6)
