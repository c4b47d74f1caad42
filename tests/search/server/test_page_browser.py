"""The page in headless Chromium: two lists side by side, by keys alone, with a key, and when something is amiss."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from browsing import FOCUS, MARKS, READY, STATUS, tools
from searchable import Searchable
from serving import Held, listening, searching_app
from tiny import SENTENCES
from web_pages import BROKEN, NASTY

pytestmark = MARKS
TEXT = "the capital of the north"
KEY = "schlüssel"
IDS = "Array.from(document.querySelectorAll('#{} li'), (each) => each.dataset.id)"
MARK = "Array.from(document.querySelectorAll('#{} .change'), (each) => each.textContent)"
KINDS = "Array.from(document.querySelectorAll('#lines > g > *'), (each) => each.getAttribute('class'))"


@pytest.fixture(scope="module")
def app(searchable: Searchable) -> Any:
    also = [searchable.exports["2x32"], searchable.exports["1x16"]]
    return searching_app(searchable.bundle, searchable.index, compare=True, also=also, dims=[8])


@pytest.fixture(scope="module")
def address(app: Any) -> Iterator[str]:
    with listening(app) as found:
        yield found


@pytest.fixture(scope="module")
def window() -> Iterator[Any]:
    with tools.chromium() as browser:
        yield browser


@pytest.fixture
def browser(window: Any, address: str) -> Iterator[Any]:
    """The page, ready, on a wide screen."""
    window.devtools("Emulation.setDeviceMetricsOverride", width=1200, height=900, deviceScaleFactor=1, mobile=False)
    window.get(f"{address}/")
    window.wait(READY)
    yield window
    window.devtools("Emulation.clearDeviceMetricsOverride")
    window.devtools("Emulation.setEmulatedMedia", features=[])


def typed(browser: Any, text: str, encoder: str = "both", dim: int = 32) -> None:
    browser.run("document.getElementById('query').focus()")
    browser.press(text)
    answered(browser, text, encoder, dim)


def answered(browser: Any, text: str, encoder: str = "both", dim: int = 32) -> None:
    asked = json.dumps(f"{text}\n{encoder}\n{dim}")
    browser.wait(f"document.getElementById('columns').dataset.query === {asked}")


def found(address: str, text: str, encoder: str, dim: int = 32) -> list[str]:
    body = {"query": text, "k": 10, "encoder": encoder, "dim": dim}
    return [hit["id"] for hit in httpx.post(f"{address}/search", json=body, timeout=60).json()["hits"]]


def test_both_lists_are_what_search_finds_and_the_changes_are_theirs(browser: Any, address: str) -> None:
    assert browser.run(f"return {STATUS}") == "Type to search 22 documents."
    typed(browser, TEXT)
    student, teacher = found(address, TEXT, "both"), found(address, TEXT, "teacher")
    assert browser.run(f"return {IDS.format('student')}") == student
    assert browser.run(f"return {IDS.format('teacher')}") == teacher
    assert student != teacher
    both = set(student) & set(teacher)
    same = [one for one, other in zip(student, teacher, strict=True) if one == other]
    assert browser.run(f"return {STATUS}") == (
        f"10 of 22 documents; {len(both)} of the teacher’s first 10 are among them, {len(same)} at the same rank."
    )
    for place, said in enumerate(browser.run(f"return {MARK.format('student')}")):
        there = teacher.index(student[place]) if student[place] in both else None
        risen = None if there is None else there - place
        assert said.startswith("○" if risen is None else "▲" if risen > 0 else "▼" if risen else "=")
        assert risen in (None, 0) or f" {abs(risen)}, teacher’s rank {there + 1}" in said
    kinds = browser.run(f"return {KINDS}")
    expected = [
        "alone"
        if each not in both
        else ("same", "higher", "lower")[(teacher.index(each) > place) - (teacher.index(each) < place)]
        for place, each in enumerate(student)
    ]
    assert kinds == expected + ["alone"] * (10 - len(both))


def test_each_side_says_how_long_it_took(browser: Any) -> None:
    typed(browser, TEXT)
    for side in ("student", "teacher"):
        said = browser.run(f"return document.querySelector('#{side} .took').textContent")
        total, encoding, searching = (float(word) for word in said.replace("(", "").split() if word[0].isdigit())
        assert "ms (encoding" in said
        assert total == pytest.approx(encoding + searching, abs=1.2)
    assert (
        browser.run("return document.getElementById('student-name').textContent") == "Student: 1 layer, 32 dims, fp32"
    )
    assert browser.run("return document.getElementById('teacher-name').textContent") == "Teacher: 32 dims, fp32"


def test_a_switch_changes_the_student_alone(browser: Any, address: str) -> None:
    typed(browser, TEXT)
    teacher = browser.run(f"return {IDS.format('teacher')}")
    values = "return Array.from(document.getElementById('{}').options, (each) => each.value)"
    assert [browser.run(values.format(axis)) for axis in ("layers", "dim", "precision")] == [
        ["1", "2"],
        ["8", "16", "32"],
        ["fp32"],
    ]
    choose = "const each = document.getElementById('{}'); each.value = '{}'; each.dispatchEvent(new Event('change'))"
    browser.run(choose.format("layers", 2))
    answered(browser, TEXT, "2x32-fp32")
    assert browser.run(f"return {IDS.format('student')}") == found(address, TEXT, "2x32-fp32")
    browser.run(choose.format("dim", 8))
    answered(browser, TEXT, "2x32-fp32", 8)
    assert browser.run(f"return {IDS.format('student')}") == found(address, TEXT, "2x32-fp32", 8)
    browser.run(choose.format("layers", 1))
    answered(browser, TEXT, "1x16-fp32", 8)
    browser.run(choose.format("dim", 16))
    answered(browser, TEXT, "1x16-fp32", 16)
    assert browser.run(f"return {IDS.format('teacher')}") == teacher
    assert (
        browser.run("return document.getElementById('student-name').textContent") == "Student: 1 layer, 16 dims, fp32"
    )


def test_keys_alone_are_enough(browser: Any) -> None:
    typed(browser, TEXT)
    student, teacher = (browser.run(f"return {IDS.format(side)}") for side in ("student", "teacher"))
    where = "const li = document.activeElement.closest('li'); return [li.closest('section').id, li.dataset.id]"
    browser.press("Down", "Down")
    assert browser.run(where) == ["student", student[1]]
    browser.press("Up")
    assert browser.run(where) == ["student", student[0]]
    assert browser.run("return document.querySelector('#lines .pointed').dataset.id") == student[0]
    browser.press("Right")
    other = student[0] if student[0] in teacher else teacher[0]
    assert browser.run(where) == ["teacher", other]
    browser.press("Left")
    assert browser.run(where)[0] == "student"
    browser.press("Enter")
    assert browser.run("return document.activeElement.getAttribute('aria-expanded')") == "true"
    assert browser.run("return document.querySelectorAll('.passage.open').length") == 1
    browser.press("/")
    assert browser.run(f"return {FOCUS}") == "query"
    browser.press("a/b")  # in the field it is a letter like another
    assert browser.run("return document.getElementById('query').value") == "a/b"
    browser.press("Escape")
    assert browser.run("return document.getElementById('query').value") == ""
    assert browser.run("return document.getElementById('columns').hidden") is True
    assert browser.run(f"return {STATUS}") == "Type to search 22 documents."
    order = []
    for _ in range(3):
        browser.press("Tab")
        order.append(browser.run(f"return {FOCUS}"))
    assert order == ["layers", "dim", "precision"]


def test_markup_in_documents_stays_text(browser: Any) -> None:
    typed(browser, "markup in a title")
    titles = "return Array.from(document.querySelectorAll('h3 button'), (each) => each.textContent)"
    assert NASTY in browser.run(titles)
    browser.press("Escape")
    typed(browser, "apples img src x onerror document title taken and b more")
    assert BROKEN in browser.run("return Array.from(document.querySelectorAll('.passage'), (each) => each.textContent)")
    assert browser.run("return document.querySelectorAll('#columns script, #columns img, #columns b').length") == 0
    assert browser.run("return document.title") == "Search"


def test_the_policy_takes_no_other_script_and_no_other_address(browser: Any) -> None:
    with pytest.raises(RuntimeError, match="TrustedHTML"):
        browser.run("document.body.innerHTML = '<i>x</i>'")
    refused = browser.run(
        "const told = new Promise((done) => document.addEventListener('securitypolicyviolation', done));"
        "fetch('http://127.0.0.1:1/x').catch(() => 0); return told.then((event) => event.effectiveDirective)"
    )
    assert refused == "connect-src"


def test_an_answer_that_comes_too_late_is_dropped(
    browser: Any, app: Any, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = Held(app.state.service.encoder)
    monkeypatch.setattr(app.state.service.batcher, "encode", held)
    shown = (
        "const list = document.querySelector('#student ol'); window.shown = [];"
        "new MutationObserver(() => window.shown.push(list.querySelector('li')?.dataset.id))"
        ".observe(list, {childList: true})"
    )
    browser.run(shown)
    held.free.clear()
    browser.run("document.getElementById('query').focus()")
    browser.press(SENTENCES[16], "Enter")
    while not held.batches:
        time.sleep(0.01)
    browser.press("Escape", SENTENCES[5], "Enter")
    browser.run("return new Promise((done) => setTimeout(done, 100))")
    held.free.set()
    answered(browser, SENTENCES[5])
    firsts = set(browser.run("return window.shown")) - {None}
    assert firsts == {found(address, SENTENCES[5], "both")[0]}
    assert firsts != {found(address, SENTENCES[16], "both")[0]}


def test_typing_on_asks_once(browser: Any, app: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    held = Held(app.state.service.encoder)
    monkeypatch.setattr(app.state.service.batcher, "encode", held)
    typed(browser, TEXT)
    assert len(held.batches) < len(TEXT) / 2


def test_what_a_screen_reader_is_told(browser: Any) -> None:
    typed(browser, TEXT)
    tree = browser.devtools("Accessibility.getFullAXTree")["nodes"]
    named = {(each["role"]["value"], each.get("name", {}).get("value")) for each in tree if not each["ignored"]}
    assert named >= {
        ("searchbox", "What are you looking for?"),
        ("combobox", "Layers"),
        ("combobox", "Dims"),
        ("combobox", "Precision"),
        ("group", "Queries are encoded by"),
        ("list", "Student: 1 layer, 32 dims, fp32"),
        ("list", "Teacher: 32 dims, fp32"),
        ("region", "Student: 1 layer, 32 dims, fp32"),
    }
    assert "SvgRoot" not in {role for role, _ in named}
    status = browser.run("const each = document.getElementById('status'); return [each.role, each.ariaLive]")
    assert status == ["status", "polite"]


def test_it_fits_a_narrow_screen_and_a_dark_one(browser: Any) -> None:
    typed(browser, TEXT)
    browser.devtools("Emulation.setDeviceMetricsOverride", width=320, height=640, deviceScaleFactor=1, mobile=True)
    assert browser.run("return document.documentElement.scrollWidth") <= 320
    left, right = (
        browser.run(
            f"const each = document.getElementById('{side}').getBoundingClientRect(); return [each.x, each.top]"
        )
        for side in ("student", "teacher")
    )
    assert left[0] == right[0]
    assert left[1] < right[1]
    assert browser.run("return getComputedStyle(document.getElementById('lines')).display") == "none"
    assert "teacher’s rank" in browser.run("return document.getElementById('student').innerText")
    light = browser.run("return getComputedStyle(document.body).backgroundColor")
    browser.devtools("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark"}])
    assert browser.run("return getComputedStyle(document.body).backgroundColor") != light


def test_nothing_moves_while_an_answer_is_awaited(browser: Any) -> None:
    typed(browser, TEXT)
    browser.run(
        "window.moved = 0; new PerformanceObserver((list) => list.getEntries().forEach((each) =>"
        " window.moved += each.value)).observe({type: 'layout-shift'})"
    )
    top = "return document.getElementById('columns').getBoundingClientRect().top"
    before = browser.run(top)
    browser.press(" wind")
    answered(browser, f"{TEXT} wind")
    assert browser.run(top) == before
    assert browser.run("return window.moved") < 0.1


def test_a_key_is_asked_for_and_forgotten(searchable: Searchable, window: Any) -> None:
    app = searching_app(searchable.bundle, searchable.index, key=KEY.encode())
    with listening(app) as address:
        window.get(f"{address}/")
        window.wait("!document.getElementById('key-form').hidden")
        assert window.run(f"return {STATUS}") == "This server asks for a key."
        assert window.run(f"return {FOCUS}") == "key"
        window.press("wrong", "Enter")
        window.wait(f"{STATUS} === 'This is not the server’s key.'")
        window.press(KEY, "Enter")
        window.wait(READY)
        assert window.run("return document.getElementById('key-form').hidden") is True
        assert window.run("return document.getElementById('key').value") == ""
        typed(window, TEXT)
        assert window.run("return [localStorage.length, sessionStorage.length, document.cookie]") == [0, 0, ""]
        assert KEY not in window.run("return location.href")
        # Without a teacher there is one list, and nothing said of another.
        assert window.run("return document.getElementById('teacher').hidden") is True
        assert window.run(f"return {STATUS}") == "10 of 22 documents."
        assert set(window.run(f"return {MARK.format('student')}")) == {""}
        assert window.run("return document.getElementById('switch').hidden") is True
        window.get(f"{address}/?again")
        window.wait(f"{STATUS} === 'This server asks for a key.'")


def test_errors_are_told_and_can_be_tried_again(
    window: Any, searchable: Searchable, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = searching_app(searchable.bundle, searchable.index)
    with listening(app) as address:
        window.get(f"{address}/")
        window.wait(READY)

        def broken(*_: Any, **__: Any) -> Any:
            raise RuntimeError("broken")

        right = app.state.service.batcher.encode
        monkeypatch.setattr(app.state.service.batcher, "encode", broken)
        window.press(TEXT)
        window.wait(f"{STATUS}.startsWith('Failed: ')")
        monkeypatch.setattr(app.state.service.batcher, "encode", right)
        window.run("document.getElementById('retry').click()")
        answered(window, TEXT)
        assert window.run("return document.getElementById('retry').hidden") is True
    window.press(" more")
    window.wait(f"{STATUS} === 'Failed: the server cannot be reached.'")
    assert window.run("return document.querySelector('[aria-busy]')") is None
    assert len(window.run(f"return {IDS.format('student')}")) == 10


def test_a_filter_of_nothing_is_told(window: Any, searchable: Searchable, monkeypatch: pytest.MonkeyPatch) -> None:
    from emb.search.index.reader import Index

    monkeypatch.setattr(Index, "search_vector", lambda *_, **__: [])
    with listening(searching_app(searchable.bundle, searchable.index, compare=True)) as address:
        window.get(f"{address}/")
        window.wait(READY)
        typed(window, TEXT)
        assert window.run(f"return {STATUS}") == "No documents are found."
