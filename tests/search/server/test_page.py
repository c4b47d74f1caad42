"""The page at `/` as the server sends it: a few files, open to all, that ask nobody else for anything."""

from __future__ import annotations

import re
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
from searchable import Searchable
from serving import get, post, searching_app

from emb.runtime.encoder import Encoder, load
from emb.search.server.app import create_app
from emb.search.server.page_routes import PAGE

KEY = b"s3cret"
NOT_THERE = [
    *("/page", "/page/", "/page/nothing.js", "/index.html", "/page/index.html", "/page/__init__.py"),
    *("/page/../settings.py", "/page/%2e%2e/settings.py", "/page/..%2fsettings.py", "//etc/passwd"),
    *("/page/app.js%00", "/page/%2fetc%2fpasswd", "/page/..\\settings.py", "/PAGE/app.js"),
]


@pytest.fixture(scope="module")
def app(searchable: Searchable) -> Any:
    return searching_app(searchable.bundle, searchable.index, key=KEY)


@pytest.fixture(scope="module")
def files(app: Any) -> dict[str, str]:
    return {path: get(app, path).text for path in PAGE}


@pytest.mark.parametrize("path", PAGE)
def test_a_browser_gets_it_without_a_key_and_with_a_policy(path: str, app: Any) -> None:
    answer = get(app, path)
    assert answer.status_code == 200
    kinds = {"js": "text/javascript", "css": "text/css", "svg": "image/svg+xml", "/": "text/html"}
    assert answer.headers["content-type"].startswith(kinds[path.rpartition(".")[2]])
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'; script-src 'self'; style-src 'self'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "require-trusted-types-for 'script'" in policy
    assert "unsafe" not in policy
    assert (answer.headers["x-content-type-options"], answer.headers["referrer-policy"]) == ("nosniff", "no-referrer")


def test_what_it_shows_asks_for_the_key(app: Any) -> None:
    assert get(app, "/search/encoders").status_code == 401
    assert post(app, "/search", {"query": "a"}).status_code == 401
    header = {"Authorization": f"Bearer {KEY.decode()}"}
    assert get(app, "/search/encoders", headers=header).status_code == 200


@pytest.mark.parametrize("path", NOT_THERE)
def test_no_path_reaches_other_files(path: str, app: Any) -> None:
    answer = get(app, path, headers={"Authorization": f"Bearer {KEY.decode()}"})
    assert answer.status_code == 404
    assert set(answer.json()) == {"error", "error_type"}


def test_it_is_only_read(app: Any) -> None:
    for path in PAGE:
        assert post(app, path, {}).status_code == 405


def test_it_loads_no_more_than_the_server_has(files: dict[str, str]) -> None:
    loaded = set(re.findall(r'(?:href|src)="(page/[^"]+)"', files["/"]))
    imported = {name for text in files.values() for name in re.findall(r'from "\./([^"]+)"', text)}
    assert {f"/{path}" for path in loaded} | {f"/page/{name}" for name in imported} | {"/"} == set(PAGE)
    package = {each.name for each in resources.files("emb.search.server").joinpath("page").iterdir()}
    assert package - {"index.html"} <= {Path(path).name for path in PAGE}


def test_no_script_stands_in_it_and_no_other_address(files: dict[str, str]) -> None:
    assert not re.search(r"<script(?![^>]*src=)|<style|\son[a-z]+=|\sstyle=|javascript:", files["/"])
    for path, text in files.items():
        addresses = set(re.findall(r"(?:https?:)?//[\w.-]+\.[a-z]{2,}[\w./-]*", text))
        assert addresses <= {"http://www.w3.org/2000/svg"}, path
        assert not re.search(
            r"innerHTML|insertAdjacentHTML|document\.write|\beval\(|localStorage|sessionStorage|cookie", text
        )


def test_without_an_index_there_is_none(bert_folder: Path) -> None:
    encoder: Encoder = load(bert_folder)
    for path in PAGE:
        assert get(create_app(encoder), path).status_code == 404
