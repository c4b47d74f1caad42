"""The page in headless Chromium: what it shows, with keys alone, and when something is amiss."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browsing import FOCUS, MARKS, READY, STATUS, tools
from tiny import SENTENCES
from web_pages import BROKEN, LONG, NASTY, documents, static_encoder

import emb

pytestmark = MARKS
TITLES = "Array.from(document.querySelectorAll('#results h2 button'), (each) => each.textContent)"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the page below it, at notes/search/."""
    place = tmp_path_factory.mktemp("site")
    encoder = static_encoder(place / "encoder")
    emb.web(
        encoder, documents(place / "d.jsonl"), encoder, out=place / "site" / "notes" / "search", title="<b>Notes</b>"
    )
    return place / "site"


@pytest.fixture(scope="module")
def window() -> Iterator[Any]:
    with tools.chromium() as browser:
        yield browser


@pytest.fixture
def browser(window: Any, site: Path) -> Iterator[Any]:
    """The page, opened below a path and ready."""
    with tools.served(site) as address:
        window.get(f"{address}/notes/search/")
        window.wait(READY)
        yield window


def typed(browser: Any, text: str) -> None:
    browser.run("document.getElementById('query').focus()")
    browser.press(text)
    # Earlier searches, for the beginning of the text, may have been shown meanwhile.
    browser.wait(f"document.getElementById('results').dataset.query === {json.dumps(text)}")


def test_results_come_as_one_types(browser: Any) -> None:
    assert browser.run(f"return {STATUS}") == "Type to search 40 documents."
    typed(browser, "capital of france")
    assert browser.run(f"return {STATUS}").startswith("10 of 40 documents, in ")
    results = browser.run("return Array.from(document.querySelectorAll('#results li'), (each) => each.innerText)")
    assert any("capital of France" in each for each in results[:3])
    assert browser.run("return Number(document.querySelector('.score').textContent)") > 0.3
    assert "of 40" not in browser.run("return document.getElementById('about').textContent")
    assert "Download: " in browser.run("return document.getElementById('about').textContent")


def test_a_text_without_a_title_is_shown_once(browser: Any) -> None:
    typed(browser, LONG)
    title, passage = browser.run(
        "const each = document.querySelector('#results li');"
        "return [each.querySelector('button').textContent, each.querySelector('.passage').textContent]"
    )
    assert title.endswith("…")
    assert passage.startswith("…")
    assert f"{title[:-1]} {passage[1:]}" == LONG


def test_keys_alone_are_enough(browser: Any) -> None:
    typed(browser, "the weather")
    titles = browser.run(f"return {TITLES}")
    browser.press("Down", "Down")
    assert browser.run(f"return {FOCUS}") == titles[1]
    browser.press("Up")
    assert browser.run(f"return {FOCUS}") == titles[0]
    browser.press("Enter")
    opened = "return document.activeElement.getAttribute('aria-expanded')"
    assert browser.run(opened) == "true"
    assert browser.run("return document.querySelectorAll('.passage.open').length") == 1
    browser.press("Enter")
    assert browser.run(opened) == "false"
    browser.press("Up")
    assert browser.run(f"return {FOCUS}") == "query"
    browser.press("Escape")
    assert browser.run("return document.getElementById('query').value") == ""
    assert browser.run(f"return {TITLES}") == []
    assert browser.run(f"return {STATUS}") == "Type to search 40 documents."


def test_an_arrow_right_after_typing_keeps_its_place(browser: Any) -> None:
    browser.run("document.getElementById('query').focus()")
    browser.press("rain", "Down")
    browser.wait("document.getElementById('results').dataset.query === 'rain'")
    browser.run("return new Promise((done) => setTimeout(done, 300))")  # a search that still waits would come now
    assert browser.run(f"return {FOCUS}") == browser.run(f"return {TITLES}")[0]


def test_markup_in_documents_stays_text(browser: Any) -> None:
    typed(browser, "markup in a title")
    assert NASTY in browser.run(f"return {TITLES}")
    browser.press("Escape")
    typed(browser, "img src x onerror document title taken and b more")
    passages = browser.run("return Array.from(document.querySelectorAll('.passage'), (each) => each.textContent)")
    assert BROKEN in passages
    assert browser.run("return document.querySelectorAll('#results script, #results img, #results b').length") == 0
    assert browser.run("return document.title") == "<b>Notes</b>"
    assert browser.run("return document.querySelectorAll('h1 b').length") == 0


def test_the_policy_takes_no_other_script_and_no_other_address(browser: Any) -> None:
    with pytest.raises(RuntimeError, match="TrustedScript"):
        browser.run("document.body.setAttribute('onclick', 'document.title = 1')")
    with pytest.raises(RuntimeError, match="TrustedHTML"):
        browser.run("document.body.innerHTML = '<i>x</i>'")
    refused = browser.run(
        "const told = new Promise((done) => document.addEventListener('securitypolicyviolation', done));"
        "fetch('http://127.0.0.1:1/x').catch(() => 0); return told.then((event) => event.effectiveDirective)"
    )
    assert refused == "connect-src"


def test_no_known_word_is_no_match(browser: Any) -> None:
    typed(browser, "\u0ba4\u0bae")
    assert browser.run(f"return {STATUS}") == "No match: no word of this is known."
    assert browser.run(f"return {TITLES}") == []


def test_what_a_screen_reader_is_told(browser: Any) -> None:
    typed(browser, "rain")
    tree = browser.devtools("Accessibility.getFullAXTree")["nodes"]
    named = {(each["role"]["value"], each.get("name", {}).get("value")) for each in tree if not each["ignored"]}
    assert {("searchbox", "What are you looking for?"), ("list", "Results"), ("search", "")} & named >= {
        ("searchbox", "What are you looking for?"),
        ("list", "Results"),
    }
    status = browser.run("const each = document.getElementById('status'); return [each.role, each.ariaLive]")
    assert status == ["status", "polite"]


def test_it_fits_a_narrow_screen_and_a_dark_one(browser: Any) -> None:
    typed(browser, "rain in the north")
    browser.devtools("Emulation.setDeviceMetricsOverride", width=320, height=640, deviceScaleFactor=1, mobile=True)
    assert browser.run("return document.documentElement.scrollWidth") <= 320
    light = browser.run("return getComputedStyle(document.body).backgroundColor")
    browser.devtools("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark"}])
    assert browser.run("return getComputedStyle(document.body).backgroundColor") != light
    browser.devtools("Emulation.clearDeviceMetricsOverride")
    browser.devtools("Emulation.setEmulatedMedia", features=[])


@pytest.mark.parametrize("name", ["table.bin.packed", "texts.json.packed"])
def test_a_load_that_fails_says_why(name: str, window: Any, site: Path, tmp_path: Path) -> None:
    broken = shutil.copytree(site, tmp_path / "site")
    file = broken / "notes" / "search" / name
    whole = file.read_bytes()
    file.write_bytes(whole[:-9] + bytes([whole[-9] ^ 1]) + whole[-8:])
    with tools.served(broken) as address:
        window.get(f"{address}/notes/search/index.html")
        window.wait(f"{STATUS}.startsWith('Loading failed')")
        assert f"{name} is damaged or of another version of this page" in window.run(f"return {STATUS}")
    file.write_bytes(whole[:-7])
    with tools.served(broken) as address:  # another origin, whose files no cache has
        window.get(f"{address}/notes/search/index.html")
        window.wait(f"{STATUS}.startsWith('Loading failed')")
        assert f"{name} ended after" in window.run(f"return {STATUS}")
        assert window.run("return document.getElementById('retry').hidden") is False
        file.unlink()
        window.get(f"{address}/notes/search/index.html?again")
        window.wait(f"{STATUS}.includes('404')")


def test_a_damaged_file_in_a_cache_is_asked_for_anew(window: Any, site: Path, tmp_path: Path) -> None:
    broken = shutil.copytree(site, tmp_path / "site")
    file = broken / "notes" / "search" / "texts.json.packed"
    whole = file.read_bytes()
    file.write_bytes(whole[:-7])
    with tools.served(broken, {"Cache-Control": "max-age=3600"}) as address:
        window.get(f"{address}/notes/search/index.html")
        window.wait(f"{STATUS}.startsWith('Loading failed')")
        file.write_bytes(whole)
        window.get(f"{address}/notes/search/index.html?again")
        window.wait(READY)
        assert window.run("return document.getElementById('query').disabled") is False


def test_a_file_that_is_opened_directly_explains_itself(window: Any, site: Path) -> None:
    window.get((site / "notes" / "search" / "index.html").as_uri())
    shown = window.run("return document.getElementById('unstarted').textContent")
    assert "python -m http.server" in shown
    assert SENTENCES[0] not in shown
