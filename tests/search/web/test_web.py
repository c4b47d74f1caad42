"""What `emb web` writes and refuses; the scripts and the page itself are tried beside."""

from __future__ import annotations

import gzip
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from tiny import SENTENCES, tiny_bert
from tokenizers import AddedToken, Tokenizer, normalizers, pre_tokenizers, processors
from web_pages import documents, static_encoder, unpacked, wordpiece

import emb
import emb.search.web.build as build
from emb.cli import cli
from emb.commands.web import CODECS as OFFERED
from emb.errors import ArtifactError, DataError, UsageError
from emb.files import read_json
from emb.search.web.codes import CODECS
from emb.search.web.static_side import require_same_vectors
from emb.search.web.table import Table, read_rows
from emb.search.web.tokenizer import page_tokenizer
from emb.search.web.write import Download, _snippet
from emb.similarity import cosines
from emb.tokens import TextTokenizer

FILES = {
    *("index.html", "style.css", "icon.svg", "app.js", "search.js", "loading.js", "tokenizer.js", "encoder.js"),
    *("results.js", "documents.js", "page.json"),
    *("encoder.json.packed", "table.bin.packed", "documents.bin.packed", "texts.json.packed"),
}


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return static_encoder(tmp_path_factory.mktemp("static") / "encoder")


@pytest.fixture(scope="module")
def docs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return documents(tmp_path_factory.mktemp("docs") / "documents.jsonl")


@pytest.mark.parametrize("out", [".", "..", "site/.."])
def test_a_place_without_a_name_is_refused_before_anything_is_read(out: str, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="no name of its own"):
        emb.web(tmp_path / "nothing", tmp_path / "nothing.jsonl", tmp_path / "nothing", out=out, overwrite=True)


def test_the_folder_holds_the_page_and_says_what_it_weighs(encoder: Path, docs: Path, tmp_path: Path) -> None:
    page = emb.web(encoder, docs, encoder, out=tmp_path / "web", dim=16, snippet=20)
    folder = tmp_path / "web"
    assert {path.name for path in folder.iterdir()} == FILES
    fetched = [path for path in folder.iterdir() if path.name != "page.json"]
    assert page.download.bytes == sum(path.stat().st_size for path in fetched)
    whole = [gzip.decompress(each.read_bytes()) if each.suffix == ".packed" else each.read_bytes() for each in fetched]
    assert page.download.unpacked == sum(map(len, whole)) > page.download.bytes
    told = read_json(folder / "page.json")
    assert told["download"] == vars(page.download)
    assert told["title"] == "Search documents"
    for file in told["files"].values():
        assert (folder / file["file"]).stat().st_size == file["bytes"]
    assert len(unpacked(folder, "documents.bin")) == 40 * 16 + 2 * 16 * 4
    texts = json.loads(unpacked(folder, "texts.json"))
    assert page.texts == Download((folder / "texts.json.packed").stat().st_size, len(unpacked(folder, "texts.json")))
    assert len(texts) == page.documents == 40
    assert texts[1] == ["Note 1", "A list holds items…"]


def test_nothing_comes_from_another_address(encoder: Path, docs: Path, tmp_path: Path) -> None:
    emb.web(encoder, docs, encoder, out=tmp_path / "web")
    for path in (tmp_path / "web").glob("*.[hcj]*"):
        if path.suffix != ".packed":
            assert "//" not in path.read_text(encoding="utf-8").replace("// ", ""), path.name
    html = (tmp_path / "web" / "index.html").read_text(encoding="utf-8")
    assert "default-src 'none'; script-src 'self'" in html
    assert "unsafe" not in html


def test_bits_are_an_eighth(encoder: Path, docs: Path, tmp_path: Path) -> None:
    emb.web(encoder, docs, encoder, out=tmp_path / "web", dim=16, codec="binary")
    assert len(unpacked(tmp_path / "web", "documents.bin")) == 40 * 2 + 16 * 16 * 4


def test_a_version_changes_with_its_file_alone(encoder: Path, docs: Path, tmp_path: Path) -> None:
    for name, length in (("a", 300), ("b", 10)):
        emb.web(encoder, docs, encoder, out=tmp_path / name, snippet=length)
    a, b = (read_json(tmp_path / name / "page.json")["files"] for name in ("a", "b"))
    assert {name for name in a if a[name]["version"] != b[name]["version"]} == {"texts"}


def test_rows_keep_their_direction_whatever_their_length() -> None:
    rows = np.random.default_rng(0).normal(size=(50, 32)) * np.geomspace(1e-4, 1e3, 50)[:, None]
    rows[7] = 0
    table = Table.of(rows.astype(np.float32))
    found = table.encode([np.array([row]) for row in range(50)], normalize=False)
    assert np.delete(cosines(rows, found), 7).min() > 0.999
    assert not found[7].any()


def test_a_bundle_names_both_encoders(encoder: Path, docs: Path, tmp_path: Path) -> None:
    bundle = emb.bundle(encoder, encoder, out=tmp_path / "both")
    page = emb.web(bundle, docs, out=tmp_path / "web")
    assert page.documents == 40
    with pytest.raises(UsageError, match="have no encoder"):
        emb.web(encoder, docs, out=tmp_path / "other")


def test_of_a_run_the_static_encoder_is_taken(encoder: Path, docs: Path, tmp_path: Path) -> None:
    for run in ("run", "run/static"):
        (tmp_path / run).mkdir()
        (tmp_path / run / "run.json").write_text(json.dumps({"status": "finished"}), encoding="utf-8")
    shutil.copytree(encoder, tmp_path / "run" / "static" / "student")
    assert emb.web(tmp_path / "run", docs, encoder, out=tmp_path / "web").documents == 40


def _normaliser(tokenizer: Tokenizer) -> None:
    tokenizer.normalizer = normalizers.NFKC()


def _borders(tokenizer: Tokenizer) -> None:
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()


def _inside(tokenizer: Tokenizer) -> None:
    tokenizer.post_processor = processors.TemplateProcessing(single="$A <s> $A", special_tokens=[("<s>", 2)])


def _words(tokenizer: Tokenizer) -> None:
    tokenizer.add_tokens([AddedToken("alone", single_word=True)])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_normaliser, "normalizer is NFKC, not BertNormalizer"),
        (_borders, "pre_tokenizer is Whitespace, not BertPreTokenizer"),
        (_inside, "post_processor does more than to put tokens around"),
        (_words, "'alone' stands for single words only"),
    ],
)
def test_other_tokenizers_are_refused_by_name(change: Callable[[Tokenizer], None], said: str) -> None:
    tokenizer = wordpiece()
    change(tokenizer)
    with pytest.raises(ArtifactError, match=said):
        page_tokenizer(TextTokenizer(tokenizer, max_length=64, pad_id=0), "")


def test_layers_that_were_not_exported_are_refused_before_documents_are_encoded(
    docs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "_vectors", lambda *_: pytest.fail("encoded"))
    layered = tiny_bert(tmp_path / "layered", layers=1)
    with pytest.raises(ArtifactError, match=r"runs no ONNX file.*\n.*emb export FOLDER"):
        emb.web(layered, docs, layered, out=tmp_path / "web")
    assert not (tmp_path / "web").exists()


def test_a_module_behind_the_table_is_refused(encoder: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(encoder, tmp_path / "copy")
    modules = read_json(copy / "modules.json")
    (copy / "modules.json").write_text(json.dumps([modules[0], modules[1] | {"type": "a.Dense"}]), encoding="utf-8")
    with pytest.raises(ArtifactError, match="cannot run the module Dense"):
        read_rows(copy)


def test_a_table_that_is_not_the_encoders_is_noticed(encoder: Path) -> None:
    opened, rows = emb.load(encoder), read_rows(encoder)
    assert require_same_vectors(opened, Table.of(rows), SENTENCES) > 0.999
    with pytest.raises(ArtifactError, match="not the query encoder's"):
        require_same_vectors(opened, Table.of(rows[::-1]), SENTENCES)


def test_another_space_is_refused(encoder: Path, docs: Path, tmp_path: Path) -> None:
    narrow = static_encoder(tmp_path / "narrow", dim=8)
    with pytest.raises(ArtifactError, match="queries have 24 dims, documents 8"):
        emb.web(encoder, docs, narrow, out=tmp_path / "web")
    stranger = tiny_bert(tmp_path / "stranger", layers=1)
    with pytest.raises(ArtifactError, match="two spaces"):
        emb.web(encoder, docs, stranger, out=tmp_path / "web")


def test_bad_inputs_are_named(encoder: Path, docs: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty.txt"
    empty.write_text("\n \n", encoding="utf-8")
    with pytest.raises(DataError, match="no document with a text\n  check the path that was given for documents"):
        emb.web(encoder, empty, encoder, out=tmp_path / "web")
    with pytest.raises(UsageError, match="25 dims cannot be kept: the query encoder has 24"):
        emb.web(encoder, docs, encoder, out=tmp_path / "web", dim=25)
    with pytest.raises(UsageError, match="the codec pq is unknown here"):
        emb.web(encoder, docs, encoder, out=tmp_path / "web", codec="pq")
    (tmp_path / "web").mkdir()
    (tmp_path / "web" / "mine.txt").touch()
    with pytest.raises(ArtifactError, match="already exists"):
        emb.web(encoder, docs, encoder, out=tmp_path / "web")
    assert emb.web(encoder, docs, encoder, out=tmp_path / "web", overwrite=True).documents == 40


def test_very_many_documents_are_warned_of(
    encoder: Path, docs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(build, "_MANY", 39)
    emb.web(encoder, docs, encoder, out=tmp_path / "web")
    assert "40 documents: more than 39" in capsys.readouterr().err


def test_snippets_end_with_a_word() -> None:
    assert _snippet("one two\nthree", 7) == "one two…"
    assert _snippet("one two three", 9) == "one two…"
    assert _snippet("one two", 7) == "one two"
    assert _snippet("漢" * 9, 5) == f"{'漢' * 5}…"
    assert _snippet("one", 0) == ""


def test_the_command_tells_the_download(encoder: Path, docs: Path, tmp_path: Path) -> None:
    options = ["web", str(encoder), str(docs), "--doc", str(encoder), "--out", str(tmp_path / "web")]
    done = CliRunner().invoke(cli, options)
    assert done.exit_code == 0, done.output
    assert "40 documents, 24 dims, int8" in done.output
    assert "unpacked), of which texts" in done.output
    assert OFFERED == CODECS
