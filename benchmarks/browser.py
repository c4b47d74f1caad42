"""A folder served as files, and headless Chromium before it, driven through chromedriver's own protocol (WebDriver)."""

from __future__ import annotations

import base64
import functools
import json
import re
import shutil
import subprocess
import tempfile
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import MappingProxyType
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
_ARGUMENTS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage"),
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",  # no other name can be looked up
)
_KEYS = {
    **{"Down": "\ue015", "Up": "\ue013", "Left": "\ue012", "Right": "\ue014"},
    **{"Enter": "\ue007", "Escape": "\ue00c", "Tab": "\ue004"},
}
_SECONDS = 120
# What a page of `emb web` makes of texts, by its own scripts. Run it beside the page, at its style sheet: no policy
# keeps WebAssembly to a worker there.
VECTORS = """
return (async ([texts]) => {
  const [{ load, loadPage }, { openSearch }] = [await import("./loading.js"), await import("./search.js")];
  const page = await loadPage(), { encoder, tokenizer } = await openSearch(page, await load(page, () => 0));
  const ids = texts.map((text) => tokenizer.ids(text)), vectors = [];
  for (const each of ids) vectors.push(Array.from(await encoder.encode(each)));
  return { ids, vectors };
})(arguments);
"""


def missing() -> str | None:
    """What is not installed of a browser and its driver; None if both are."""
    if not any(map(shutil.which, NAMES)):
        return "Chromium is not installed"
    return None if shutil.which("chromedriver") else "chromedriver is not installed"


class _Quiet(SimpleHTTPRequestHandler):
    def __init__(self, *args: Any, headers: Mapping[str, str], **options: Any) -> None:
        self.more = headers
        super().__init__(*args, **options)

    def end_headers(self) -> None:
        """With those of the server besides."""
        for name, value in self.more.items():
            self.send_header(name, value)
        super().end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing."""


@contextmanager
def served(folder: Path, headers: Mapping[str, str] = MappingProxyType({})) -> Iterator[str]:
    """The address of a server of `folder`, as `python -m http.server` serves it but for `headers` besides."""
    handler = functools.partial(_Quiet, directory=str(folder), headers=headers)
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


class Browser:
    """One window."""

    def __init__(self, address: str) -> None:
        self.address = address

    def get(self, url: str) -> None:
        """Open a page."""
        self._post("url", {"url": url})

    def run(self, script: str, *arguments: Any) -> Any:
        """What a function body returns in the page; a promise is waited for."""
        return self._post("execute/sync", {"script": script, "args": list(arguments)})

    def wait(self, condition: str) -> None:
        """Wait until the expression holds."""
        self.run(
            f"return new Promise((done, fail) => {{ const end = Date.now() + {1000 * _SECONDS};"
            f" (function look() {{ if ({condition}) done(); else if (Date.now() > end) fail(new Error('too long'));"
            " else setTimeout(look, 20); })(); });"
        )

    def press(self, *keys: str) -> None:
        """Press keys by name, or type texts."""
        strokes = [letter for key in keys for letter in _KEYS.get(key, key)]
        actions = [{"type": kind, "value": letter} for letter in strokes for kind in ("keyDown", "keyUp")]
        self._post("actions", {"actions": [{"type": "key", "id": "keys", "actions": actions}]})

    def devtools(self, command: str, **parameters: Any) -> Any:
        """A command of Chromium's own protocol."""
        return self._post("goog/cdp/execute", {"cmd": command, "params": parameters})

    def picture(self, path: Path) -> None:
        """Write what the window shows as PNG."""
        path.write_bytes(base64.b64decode(_answer(f"{self.address}/screenshot")))

    def _post(self, command: str, content: Any) -> Any:
        return _answer(f"{self.address}/{command}", content)


@contextmanager
def chromium() -> Iterator[Browser]:
    """A fresh headless browser, closed at the end."""
    program = next(filter(None, map(shutil.which, NAMES)))
    driver = subprocess.Popen(["chromedriver", "--port=0"], stdout=subprocess.PIPE, text=True)
    assert driver.stdout is not None
    port = next(found[1] for line in driver.stdout if (found := re.search(r"successfully on port (\d+)", line)))
    root = f"http://127.0.0.1:{port}/session"
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        options = {"binary": program, "args": [*_ARGUMENTS, f"--user-data-dir={profile}"]}
        timeouts = {"script": 1000 * _SECONDS, "pageLoad": 1000 * _SECONDS}
        wanted = {"browserName": "chrome", "goog:chromeOptions": options, "timeouts": timeouts}
        try:
            session = _answer(root, {"capabilities": {"alwaysMatch": wanted}})["sessionId"]
            yield Browser(f"{root}/{session}")
            urllib.request.urlopen(urllib.request.Request(f"{root}/{session}", method="DELETE"), timeout=_SECONDS)
        finally:
            driver.terminate()
            driver.wait()


def _answer(url: str, content: Any = None) -> Any:
    data = None if content is None else json.dumps(content).encode()
    try:
        with urllib.request.urlopen(urllib.request.Request(url, data), timeout=2 * _SECONDS) as response:
            return json.load(response)["value"]
    except urllib.error.HTTPError as error:
        raise RuntimeError(json.load(error)["value"]["message"]) from error
