"""A page whose query encoder has layers: what is written, and in headless Chromium what it answers."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browsing import READY, STATUS, tools
from tiny import SENTENCES, tiny_bert
from web_pages import documents, runtime_at_hand, static_encoder, unpacked

import emb
from emb.data.documents import read_documents
from emb.errors import ArtifactError, UsageError
from emb.files import read_json
from emb.runtime.encoder import ArtifactEncoder
from emb.search.web import onnxruntime
from emb.search.web.codes import stored
from emb.search.web.layered_side import _file, layered_side
from emb.similarity import cosines

FILES = {
    *("index.html", "style.css", "icon.svg", "app.js", "search.js", "loading.js", "tokenizer.js", "documents.js"),
    *(
        "results.js",
        "layers.js",
        "remote.js",
        "worker.js",
        "onnxruntime.js",
        "onnxruntime.txt",
        "page.json",
        "encoder.json.packed",
    ),
    *("model.onnx.packed", "onnxruntime.wasm.packed", "documents.bin.packed", "texts.json.packed"),
}
DIM = 24
QUERIES = [*SENTENCES, "apples and pears", "the weather in Paris", "capital", "rain " * 100]

at_hand = runtime_at_hand()
_lacking = tools.missing() or (
    None if at_hand else "onnxruntime-web is neither in $EMB_NODE_MODULES nor in emb's cache"
)
in_chromium = pytest.mark.skipif(_lacking is not None, reason=str(_lacking))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A teacher of two layers, its export in 8 bits, and documents."""
    folder = tmp_path_factory.mktemp("layers")
    teacher = tiny_bert(folder / "teacher", layers=2, max_length=32)
    emb.export(teacher, int8=True, calibration_texts=SENTENCES, threads=1, min_cosine=0.9, out=folder / "export")
    documents(folder / "documents.jsonl")
    return folder


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of stand-ins for the runtime's files, for what needs no browser."""
    contents = {onnxruntime.SCRIPT: b"export {}", onnxruntime.WASM: b"\0asm" * 1000}
    (tmp_path / "package" / "dist").mkdir(parents=True)
    for name, content in contents.items():
        (tmp_path / "package" / "dist" / name).write_bytes(content)
        monkeypatch.setitem(onnxruntime._SHA256, name, onnxruntime.sha256(content))
    return tmp_path / "package"


def written(place: Path, out: Path, package: Path | None, **options: Any) -> Any:
    return emb.web(
        place / "export", place / "documents.jsonl", place / "teacher", out=out, onnxruntime_web=package, **options
    )


def test_the_folder_holds_the_very_file_that_was_exported(place: Path, package: Path, tmp_path: Path) -> None:
    page = written(place, tmp_path / "web", package, dim=DIM)
    assert {path.name for path in page.folder.iterdir()} == FILES
    file = ArtifactEncoder(place / "export").variant.file
    assert "int8" in file or "quantized" in file
    assert unpacked(page.folder, "model.onnx") == (place / "export" / file).read_bytes()
    assert (page.folder / "onnxruntime.js").read_bytes() == b"export {}"
    assert unpacked(page.folder, "onnxruntime.wasm") == b"\0asm" * 1000
    fetched = [path for path in page.folder.iterdir() if path.name not in ("page.json", "onnxruntime.txt")]
    assert page.download.bytes == sum(path.stat().st_size for path in fetched)
    assert "Microsoft" in (page.folder / "onnxruntime.txt").read_text(encoding="utf-8")
    told = read_json(page.folder / "page.json")
    assert (told["kind"], told["dim"], page.cosine) == ("onnx", DIM, None)


def test_vectors_to_try_are_those_of_python(place: Path, package: Path, tmp_path: Path) -> None:
    page = written(place, tmp_path / "web", package, dim=DIM)
    tried = json.loads(unpacked(page.folder, "encoder.json"))["tried"]
    theirs = emb.load(place / "export").encode_query([text for text, _ in tried], truncate_dim=DIM)
    assert len(tried) == 3
    np.testing.assert_allclose([vector for _, vector in tried], theirs, atol=1e-5)


def test_a_bundle_names_the_file(place: Path, package: Path, tmp_path: Path) -> None:
    bundle = emb.bundle(f"{place / 'export'}", place / "teacher", out=tmp_path / "both")
    page = emb.web(bundle, place / "documents.jsonl", out=tmp_path / "web", onnxruntime_web=package)
    assert page.documents == 40


def test_large_files_are_told_of_and_what_the_page_cannot_run_is_refused(
    place: Path, package: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    encoder = ArtifactEncoder(place / "export", "onnx/model.onnx")
    layered_side(encoder, place / "export", DIM, SENTENCES, package)
    assert "model.onnx: fp32 weights make a large download" in capsys.readouterr().err
    encoder.variant = replace(encoder.variant, vector_dtype="int8")
    with pytest.raises(ArtifactError, match=r"model\.onnx: returns int8 vectors"):
        _file(encoder, place / "export")
    copy = shutil.copytree(place / "export", tmp_path / "copy")
    (copy / "onnx" / "model.onnx.data").touch()
    with pytest.raises(ArtifactError, match="keeps weights in a file beside it"):
        _file(ArtifactEncoder(copy, "onnx/model.onnx"), copy)


def test_a_runtime_for_a_static_encoder_is_refused(place: Path, package: Path, tmp_path: Path) -> None:
    encoder = static_encoder(tmp_path / "static")
    with pytest.raises(UsageError, match="a static encoder runs without it"):
        emb.web(encoder, place / "documents.jsonl", encoder, out=tmp_path / "web", onnxruntime_web=package)


@pytest.fixture(scope="module")
def site(place: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page at notes/, with the real runtime."""
    site = tmp_path_factory.mktemp("site")
    written(place, site / "notes", at_hand, dim=DIM, title="Notes")
    return site


@pytest.fixture(scope="module")
def window() -> Iterator[Any]:
    with tools.chromium() as browser:
        yield browser


@pytest.fixture
def browser(window: Any, site: Path) -> Iterator[Any]:
    with tools.served(site) as address:
        window.get(f"{address}/notes/")
        window.wait(READY)
        yield window


def asked(browser: Any, text: str) -> list[tuple[int, float]]:
    """Rows and scores of what the page shows for a text."""
    browser.run(
        "document.getElementById('query').value = arguments[0]; document.getElementById('form').requestSubmit()", text
    )
    browser.wait(f"document.getElementById('results').dataset.query === {json.dumps(text.strip())}")
    found = browser.run(
        "return Array.from(document.querySelectorAll('#results li'),"
        " (each) => [Number(each.dataset.row), Number(each.querySelector('.score').textContent)])"
    )
    return [(row, score) for row, score in found]


def failed(window: Any, address: str) -> str:
    """What the page at `address` says when it does not start."""
    window.get(address)
    window.wait(f"{STATUS}.startsWith('Loading failed')")
    assert window.run("return document.getElementById('retry').hidden") is False
    return str(window.run(f"return {STATUS}"))


@in_chromium
@pytest.mark.interop
def test_its_vectors_are_those_of_python(place: Path, site: Path, window: Any) -> None:
    with tools.served(site) as address:
        window.get(f"{address}/notes/style.css")  # no policy there keeps WebAssembly to a worker
        found = window.run(tools.VECTORS, QUERIES)
    encoder = emb.load(place / "export", threads=1)
    assert found["ids"] == [ids.tolist() for ids in encoder.tokenizer.encode(QUERIES)]
    theirs = np.concatenate([encoder.encode_query([text], truncate_dim=DIM) for text in QUERIES])
    near = cosines(theirs, np.array(found["vectors"]))
    print(f"cosine: least {near.min():.6f}, mean {near.mean():.6f}")
    assert near.min() > 0.999
    assert np.linalg.norm(found["vectors"], axis=1) == pytest.approx(1)


@in_chromium
@pytest.mark.interop
def test_its_first_ten_are_those_of_python(place: Path, browser: Any) -> None:
    texts = [each.whole for each in read_documents([str(place / "documents.jsonl")])]
    index = stored(emb.load(place / "teacher").encode_document(texts, truncate_dim=DIM), "int8")
    for text in QUERIES[:5]:
        [scores] = index.codec.scores(emb.load(place / "export").encode_query([text], truncate_dim=DIM), index.codes)
        found, theirs = asked(browser, text), np.sort(scores)[::-1][:10]
        # Up to ties: what the page shows scores as Python's own ten do.
        np.testing.assert_allclose([score for _, score in found], theirs, atol=0.01)
        np.testing.assert_allclose(scores[[row for row, _ in found]], theirs, atol=0.01)


@in_chromium
@pytest.mark.interop
def test_of_texts_typed_in_a_row_the_last_one_is_shown(browser: Any) -> None:
    alone = asked(browser, SENTENCES[8])
    asked(browser, "rain")
    shown = browser.run(
        "const field = document.getElementById('query'), form = document.getElementById('form');"
        "const list = document.getElementById('results'), seen = [];"
        "new MutationObserver(() => seen.push(list.dataset.query)).observe(list, {attributeFilter: ['data-query']});"
        "for (const text of arguments[0]) { field.value = text; form.requestSubmit(); }"
        "return new Promise((done) => setTimeout(() => done(seen), 1500))",
        SENTENCES[:9],
    )
    assert shown == [SENTENCES[8]]
    assert asked(browser, SENTENCES[8]) == alone


@in_chromium
@pytest.mark.interop
def test_an_arrow_waits_for_the_results(browser: Any) -> None:
    asked(browser, "apples")
    browser.run("document.getElementById('query').focus(); document.getElementById('query').value = ''")
    browser.press("rain in the north", "Enter", "Down")
    browser.wait("document.activeElement.id !== 'query'")
    assert browser.run("return document.getElementById('results').dataset.query") == "rain in the north"
    assert browser.run("return document.activeElement.textContent") == browser.run(
        "return document.querySelector('#results button').textContent"
    )


@in_chromium
@pytest.mark.interop
def test_a_worker_comes_from_the_page_alone(browser: Any) -> None:
    for script in ("new Worker('worker.js')", "trustedTypes.createPolicy('mine', {createScriptURL: (each) => each})"):
        with pytest.raises(RuntimeError, match=r"TrustedScriptURL|disallowed"):
            browser.run(script)
    assert "Download: " in browser.run("return document.getElementById('about').textContent")


@in_chromium
@pytest.mark.interop
def test_a_server_that_isolates_the_page_gives_it_threads(site: Path, window: Any) -> None:
    headers = {"Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Embedder-Policy": "require-corp"}
    with tools.served(site, headers) as address:
        window.get(f"{address}/notes/")
        window.wait(READY)
        assert window.run("return crossOriginIsolated") is True
        assert len(asked(window, "rain")) == 10


@in_chromium
@pytest.mark.interop
def test_loading_shows_how_far_it_is(site: Path, window: Any) -> None:
    window.devtools("Network.enable")
    slow = {"latency": 0, "uploadThroughput": -1, "offline": False}
    with tools.served(site) as address:
        try:
            window.devtools("Network.emulateNetworkConditions", downloadThroughput=1.5e6, **slow)
            window.devtools("Network.setCacheDisabled", cacheDisabled=True)
            window.run(f"location.href = '{address}/notes/?slow'")
            window.wait("document.getElementById('progress').value > 0.3")
            assert " MB of " in window.run("return document.getElementById('bytes').textContent")
            assert window.run("return document.getElementById('query').disabled")
        finally:
            window.devtools("Network.emulateNetworkConditions", downloadThroughput=-1, **slow)
            window.devtools("Network.setCacheDisabled", cacheDisabled=False)
        window.wait(READY)
        assert window.run("return document.getElementById('progress').hidden")


@in_chromium
@pytest.mark.interop
def test_what_is_amiss_is_said(site: Path, window: Any, tmp_path: Path) -> None:
    folder = shutil.copytree(site, tmp_path / "site") / "notes"
    with tools.served(folder) as address:
        model = folder / "model.onnx.packed"
        content = bytearray(model.read_bytes())
        content[-9] ^= 1
        model.write_bytes(content)
        assert "model.onnx.packed is damaged or of another version" in failed(window, f"{address}/?damaged")
        model.unlink()
        assert "model.onnx.packed: the server answered 404" in failed(window, f"{address}/?gone")
        window.run("return new Promise((done) => setTimeout(done, 500))")
        assert window.run("return document.getElementById('bytes').hidden")  # what still came is not counted on
    without = "delete globalThis.WebAssembly"
    with tools.served(site) as address:
        script = window.devtools("Page.addScriptToEvaluateOnNewDocument", source=without)["identifier"]
        assert "this browser has no WebAssembly" in failed(window, f"{address}/notes/?without")
        window.devtools("Page.removeScriptToEvaluateOnNewDocument", identifier=script)
    broken = shutil.copytree(site / "notes", tmp_path / "broken")
    (broken / "onnxruntime.js").write_text("import './nowhere.js'", encoding="utf-8")
    with tools.served(broken) as address:
        assert "layers.js" in failed(window, f"{address}/?broken")


@in_chromium
@pytest.mark.interop
def test_a_browser_that_computes_otherwise_is_not_believed(
    place: Path, window: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    turned = lambda *_: [[text, [(-1.0) ** row for row in range(DIM)]] for text in SENTENCES[:3]]  # noqa: E731
    monkeypatch.setattr("emb.search.web.layered_side._tried", turned)
    written(place, tmp_path / "web", at_hand, dim=DIM)
    with tools.served(tmp_path / "web") as address:
        assert "computes other vectors than the model's own (cosine " in failed(window, address)
