"""A model hub on this machine with one repository, for downloads and uploads as huggingface_hub makes them."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

COMMIT = "c0ffee" * 6 + "c0ff"
LARGE = 2000  # bytes from which a file goes by LFS; the real hub looks at names and content as well


@dataclass
class Hub:
    """A hub that has one model, `name`, whose files lie in `folder`.

    `asked` records the files that were fetched; `commits` each commit's header, `lfs` the large files sent,
    `created` what a new repository was asked to be, `branches` those made. `token` is the only one that may write;
    `refuses` maps a step ("create", "commit", "upload", "card") to the status to answer with. With a folder in
    `chunks` large files go there in chunks, past this server; `xet` maps the sha256 of a file to the hash it has
    there, which the real hub knows and this one must be told.
    """

    folder: Path
    name: str
    gated: bool = False
    exists: bool = True
    token: str = "hf_loopback"
    url: str = ""
    asked: list[str] = field(default_factory=list)
    commits: list[dict[str, Any]] = field(default_factory=list)
    created: list[dict[str, Any]] = field(default_factory=list)
    branches: list[str] = field(default_factory=list)
    lfs: dict[str, bytes] = field(default_factory=dict)
    refuses: dict[str, int] = field(default_factory=dict)
    chunks: Path | None = None
    xet: dict[str, str] = field(default_factory=dict)
    chunked: dict[str, tuple[str, int]] = field(default_factory=dict)

    def files(self) -> list[str]:
        return sorted(
            [
                *self.chunked,
                *(path.relative_to(self.folder).as_posix() for path in self.folder.rglob("*") if path.is_file()),
            ]
        )

    def info(self) -> dict[str, Any]:
        return {
            "_id": "1",
            "id": self.name,
            "modelId": self.name,
            "sha": COMMIT,
            "private": False,
            "gated": self.gated,
            "disabled": False,
            "downloads": 0,
            "likes": 0,
            "tags": [],
            "siblings": [{"rfilename": name} for name in self.files()],
        }

    def tree(self) -> list[dict[str, Any]]:
        return [
            {"type": "file", "path": name, "size": self.size(name), "oid": self.etag(name)} for name in self.files()
        ]

    def size(self, name: str) -> int:
        return self.chunked[name][1] if name in self.chunked else (self.folder / name).stat().st_size

    def etag(self, name: str) -> str:
        if name in self.chunked:
            return self.chunked[name][0]
        # What the hub gives for a file that is not in LFS: git's hash of the blob.
        content = (self.folder / name).read_bytes()
        return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()

    def take(self, lines: list[dict[str, Any]]) -> None:
        """Carry out a commit: its header, then a line per file."""
        for line in lines:
            value = line["value"]
            if line["key"] == "header":
                self.commits.append(value)
                continue
            if line["key"] == "lfsFile" and value["oid"] not in self.lfs:
                self.chunked[value["path"]] = value["oid"], value["size"]
                continue
            path = self.folder / value["path"]
            if line["key"] == "deletedFile":
                path.unlink()
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(self.lfs[value["oid"]] if line["key"] == "lfsFile" else base64.b64decode(value["content"]))


class Answers(BaseHTTPRequestHandler):
    """The part of the hub's API that downloads and uploads ask for."""

    def __init__(self, hub: Hub, *args: Any) -> None:
        self.hub = hub
        super().__init__(*args)

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path, name = unquote(urlsplit(self.path).path), self.hub.name
        if not self.hub.exists:
            self._absent()
        elif path.startswith(f"/api/models/{name}/tree/"):
            self._json(self.hub.tree())
        elif path in (
            f"/api/models/{name}",
            *(f"/api/models/{name}/revision/{branch}" for branch in ("main", *self.hub.branches)),
        ):
            self._gated() if self.hub.gated else self._json(self.hub.info())
        elif path.startswith((f"/api/models/{name}/xet-write-token/", f"/api/models/{name}/xet-read-token/")):
            self._chunk_store()
        elif path.startswith(f"/{name}/resolve/"):
            self._file(path.split("/", 5)[5])
        else:
            self._absent()

    def do_POST(self) -> None:
        path, name = unquote(urlsplit(self.path).path), self.hub.name
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if path == "/api/validate-yaml":
            return self._refused("card", {"errors": [{"message": "license is no licence"}], "warnings": []})
        if self.headers.get("Authorization") != f"Bearer {self.hub.token}":
            return self._send(
                401, b'{"error":"Invalid credentials in Authorization header"}', {"Content-Type": "application/json"}
            )
        if path == "/api/repos/create":
            return self._create(json.loads(body))
        if path.startswith(f"/api/models/{name}/branch/"):
            self.hub.branches.append(path.rsplit("/", 1)[1])
            return self._json({})
        if path.startswith(f"/api/models/{name}/preupload/"):
            return self._json(
                {
                    "files": [
                        {"path": one["path"], "uploadMode": _mode(one), "shouldIgnore": False}
                        for one in json.loads(body)["files"]
                    ]
                }
            )
        if path == f"/{name}.git/info/lfs/objects/batch":
            return self._batch(json.loads(body))
        if path.startswith(f"/api/models/{name}/commit/"):
            return self._commit([json.loads(line) for line in body.splitlines()])
        self._absent()

    def do_PUT(self) -> None:
        body = (
            self.rfile.read(int(self.headers["Content-Length"])) if "Content-Length" in self.headers else self._chunks()
        )
        oid = self.path.rsplit("/", 1)[1]
        if "upload" in self.hub.refuses or hashlib.sha256(body).hexdigest() != oid:
            return self._send(self.hub.refuses.get("upload", 400), b"no", {})
        self.hub.lfs[oid] = body
        self._send(200, b"", {})

    def _chunks(self) -> bytes:
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _create(self, wanted: dict[str, Any]) -> None:
        if "create" in self.hub.refuses:
            return self._refused(
                "create", {"error": "You don't have the rights to create a model under this namespace"}
            )
        if self.hub.exists:
            return self._send(
                409,
                json.dumps({"error": "exists", "url": f"{self.hub.url}/{self.hub.name}"}).encode(),
                {"Content-Type": "application/json"},
            )
        self.hub.created.append(wanted)
        self.hub.exists = True
        self._json({"url": f"{self.hub.url}/{self.hub.name}"})

    def _batch(self, wanted: dict[str, Any]) -> None:
        # What the hub has already needs no upload.
        objects = [
            (
                one
                if one["oid"] in self.hub.lfs
                else {**one, "actions": {"upload": {"href": f"{self.hub.url}/lfs/{one['oid']}"}}}
            )
            for one in wanted["objects"]
        ]
        self._json({"transfer": "basic", "objects": objects})

    def _commit(self, lines: list[dict[str, Any]]) -> None:
        if "commit" in self.hub.refuses:
            return self._refused("commit", {"error": "refused"})
        self.hub.take(lines)
        self._json(
            {"commitUrl": f"{self.hub.url}/{self.hub.name}/commit/{COMMIT}", "commitOid": COMMIT, "success": True}
        )

    def _refused(self, step: str, value: dict[str, Any]) -> None:
        status = self.hub.refuses.get(step)
        self._send(status or 200, json.dumps(value if status else {}).encode(), {"Content-Type": "application/json"})

    def _file(self, name: str) -> None:
        if name not in self.hub.files():
            return self._send(404, b"", {"X-Error-Code": "EntryNotFound", "X-Error-Message": "no such file"})
        if name in self.hub.chunked:
            sha256, size = self.hub.chunked[name]
            where = {
                "X-Xet-Hash": self.hub.xet[sha256],
                "X-Xet-Refresh-Route": f"{self.hub.url}/api/models/{self.hub.name}/xet-read-token/{COMMIT}",
            }
            return self._send(
                200,
                b"",
                {
                    "ETag": f'"{sha256}"',
                    "X-Linked-Etag": f'"{sha256}"',
                    "X-Linked-Size": str(size),
                    "X-Repo-Commit": COMMIT,
                    **where,
                },
            )
        if self.command == "GET":
            self.hub.asked.append(name)
        self._send(
            200, (self.hub.folder / name).read_bytes(), {"ETag": f'"{self.hub.etag(name)}"', "X-Repo-Commit": COMMIT}
        )

    def _chunk_store(self) -> None:
        store, until = f"local://{self.hub.chunks}", int(time.time()) + 3600
        headers = {
            "X-Xet-Cas-Url": store,
            "X-Xet-Access-Token": "t",
            "X-Xet-Token-Expiration": str(until),
            "Content-Type": "application/json",
        }
        self._send(200, json.dumps({"casUrl": store, "accessToken": "t", "exp": until}).encode(), headers)

    def _gated(self) -> None:
        self._send(
            403, b'{"error":"gated"}', {"X-Error-Code": "GatedRepo", "X-Error-Message": "Access to model is restricted"}
        )

    def _absent(self) -> None:
        self._send(
            404,
            b'{"error":"Repository not found"}',
            {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"},
        )

    def _json(self, value: Any) -> None:
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Keep quiet."""


def _mode(file: dict[str, Any]) -> str:
    return "lfs" if file["size"] >= LARGE and not file["path"].endswith((".md", "emb.json")) else "regular"


@contextmanager
def serving(hub: Hub) -> Iterator[Hub]:
    """Answer on a port of the loopback interface until the block ends; `hub.url` says where."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Answers, hub))
    hub.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
