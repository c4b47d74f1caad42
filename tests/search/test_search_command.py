"""`emb index` and `emb search` on the command line, without torch where the encoder is an export."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest
from test_packaging import _without_torch
from tiny import SENTENCES

import emb
from emb.cli import cli
from emb.commands import console
from emb.commands.index import CODECS, FINER
from emb.commands.sync import FINDS
from emb.search.engines import protocol
from emb.search.index import Indexed, fitted
from emb.search.index.hits import Hit
from emb.search.index.quality import Quality


@pytest.fixture(scope="module")
def artifact(student_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An export."""
    out = tmp_path_factory.mktemp("export") / "artifact"
    [folder] = emb.export(student_folder, layers=[2], dims=[16], out=out, threads=1, calibration_texts=SENTENCES)
    return folder


@pytest.fixture
def documents(tmp_path: Path) -> Path:
    """Twenty texts with a language each."""
    path = tmp_path / "docs.jsonl"
    languages = {11: "de", 12: "fr"}
    rows = [
        {"id": f"s{number}", "title": f"No. {number}", "text": text, "language": languages.get(number, "en")}
        for number, text in enumerate(SENTENCES)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_index_and_search_need_no_torch(artifact: Path, documents: Path, tmp_path: Path) -> None:
    run = "from emb.commands import console; from emb.cli import cli; raise SystemExit(console.run(cli, {}))"
    out = str(tmp_path / "i")
    built = _without_torch(
        run.format(["index", str(documents), "--doc", str(artifact), "--out", out, "--metadata", "language", "--json"])
    )
    assert built.returncode == 0, built.stderr
    told = json.loads(built.stdout)
    assert (told["documents"], told["added"], told["truncated"], told["quality"]["recall"]) == (20, 20, 0, 1.0)
    words = ["search", SENTENCES[3], "--index", out, "--query", str(artifact), "-k", "3", "--json"]
    found = _without_torch(run.format(words))
    assert found.returncode == 0, found.stderr
    hits = json.loads(found.stdout)["hits"]
    assert [hit["rank"] for hit in hits] == [1, 2, 3]
    expected = emb.open_index(out, artifact).search(SENTENCES[3], 3)
    assert [hit["id"] for hit in hits] == [hit.id for hit in expected]
    filtered = _without_torch(run.format([*words, "--where", "language=de", "--where", "language=fr"]))
    assert {hit["id"] for hit in json.loads(filtered.stdout)["hits"]} == {"s11", "s12"}


def test_the_command_speaks(
    artifact: Path, documents: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, model = str(tmp_path / "i"), str(artifact)
    assert console.run(cli, ["index", str(documents), "--doc", model, "--out", out]) == 0
    told = capsys.readouterr().out
    assert "20 documents: 20 added, 0 updated, 0 unchanged, 0 deleted" in told
    assert "0 texts were longer than the encoder reads" in told
    assert "recall@10 of an exact search: 1.000" in told
    assert console.run(cli, ["search", "the cat", "--index", out, "--query", model, "-k", "1"]) == 0
    header, row = capsys.readouterr().out.splitlines()
    assert header.split() == ["rank", "score", "id", "title", "passage"]
    assert row.startswith("1 ") or row.startswith("   1 ")
    ids = tmp_path / "ids.txt"
    ids.write_text("s1\nnobody\n", encoding="utf-8")
    assert console.run(cli, ["index", "--out", out, "--delete", str(ids)]) == 0
    assert "1 deleted (1 ids not found)" in capsys.readouterr().out


def test_a_file_of_queries(artifact: Path, documents: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, model = str(tmp_path / "i"), str(artifact)
    queries, run = tmp_path / "queries.jsonl", tmp_path / "run.jsonl"
    texts = [SENTENCES[3], "😀", SENTENCES[4]]
    queries.write_text(
        "".join(json.dumps({"_id": f"q{i}", "text": text}) + "\n" for i, text in enumerate(texts)), encoding="utf-8"
    )
    assert console.run(cli, ["index", str(documents), "--doc", model, "--out", out]) == 0
    words = ["search", "--index", out, "--query", model, "-k", "2", "--queries", str(queries), "--out", str(run)]
    assert console.run(cli, words) == 0
    lines = [json.loads(line) for line in run.read_text(encoding="utf-8").splitlines()]
    assert [line["query"] for line in lines] == ["q0", "q1", "q2"]
    assert [len(line["hits"]) for line in lines] == [2, 0, 2]
    with emb.open_index(out, artifact) as index:
        assert lines[0]["hits"][0]["id"] == index.search(texts[0], 1)[0].id
    assert "queries.jsonl:2" in "".join(capsys.readouterr().err.split())


def test_a_copy_in_an_engine_is_searched_in_the_same_words(
    artifact: Path, documents: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("pymilvus")
    pytest.importorskip("milvus_lite")
    index, there, queries = str(tmp_path / "i"), f"milvus:{tmp_path / 'engine.db'}#docs", tmp_path / "queries.jsonl"
    queries.write_text(json.dumps({"_id": "q", "text": SENTENCES[3]}) + "\n", encoding="utf-8")
    emb.index(documents, index, artifact, metadata=["language"])
    assert console.run(cli, ["sync", index, there]) == 0
    told = capsys.readouterr().out
    assert "20 documents in 20 passages: 20 written, 0 unchanged, 0 removed" in told
    assert shlex.split(told.split("next: ")[1])[:5] == ["emb", "search", "how do I open a file?", "--index", there]
    found = []
    for place in (index, there):
        out = tmp_path / "run.jsonl"
        words = ["search", "--index", place, "--query", str(artifact), "-k", "3", "--where", "language=en"]
        assert console.run(cli, [*words, "--queries", str(queries), "--out", str(out)]) == 0
        capsys.readouterr()
        assert console.run(cli, [*words, SENTENCES[3]]) == 0
        run = [[hit["id"] for hit in json.loads(line)["hits"]] for line in out.read_text().splitlines()]
        found.append((run, capsys.readouterr().out))
    assert found[0] == found[1]
    assert console.run(cli, [*words, SENTENCES[3], "--min-relevance", "0.5"]) == 2
    assert "--min-relevance needs an index on disk" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["sync", "nowhere", "qdrant://a"], "the engine 'qdrant' is unknown"),
        (["search", "--index", "i", "--query", "a cat"], "run: emb search 'a cat' --index i --query MODEL"),
        (["search", "--index", "i", "--query", "m", "--queries", "q"], "give a TEXT, or --queries FILE with --out"),
        (["search", "a", "--index", "i", "--query", "m", "--out", "o"], "give a TEXT"),
        (["search", "a", "--index", "i", "--query", "m", "--where", "x"], "not of the form key=value"),
        (["search", "a", "--index", "nowhere", "--query", "m"], "no index here"),
        (["index", "--out", "i"], "nothing to index"),
        (["index", "docs.jsonl", "--out", "i"], "name one with --doc MODEL"),
    ],
)
def test_bad_usage_is_told(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert console.run(cli, words) == 2
    assert said in capsys.readouterr().err


def test_the_command_knows_every_codec() -> None:
    assert (CODECS, FINER) == (fitted.KINDS, fitted.FINER)


def test_the_command_knows_every_way_of_finding() -> None:
    assert FINDS == protocol.FINDS


class Asked:
    """An index that notes how it is asked."""

    def __init__(self) -> None:
        self.how: dict[str, Any] = {}

    def __enter__(self) -> Asked:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def search(self, text: str, **how: Any) -> list[Hit]:
        self.how |= {"text": text, **how}
        return []


def test_what_is_asked_on_the_command_line_reaches_the_index(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = Asked()

    def opened(folder: str, query: str, *, any_encoder: bool) -> Asked:
        asked.how = {"folder": folder, "query": query, "any_encoder": any_encoder}
        return asked

    monkeypatch.setattr(emb, "open_index", opened)
    words = ["search", "a text", "--index", "i", "--query", "m"]
    assert console.run(cli, words) == 0
    assert asked.how == {
        **{"folder": "i", "query": "m", "any_encoder": False},
        **{"text": "a text", "k": 10, "where": {}, "depth": 1000},
    }
    more = ["-k", "3", "--depth", "7", "--where", "a=1", "--where", "b=x=y", "--where", "a=2", "--any-encoder"]
    assert console.run(cli, [*words, *more]) == 0
    assert (asked.how["k"], asked.how["depth"], asked.how["any_encoder"]) == (3, 7, True)
    assert asked.how["where"] == {"a": ["1", "2"], "b": ["x=y"]}


def test_ids_to_delete_are_read_without_blanks_and_those_not_found_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said: dict[str, Any] = {}

    def index(*_: Any, **how: Any) -> Indexed:
        said.update(how)
        return Indexed(tmp_path, 5, 0, 0, 5, 2, 0, Quality(5, 100, 100, None))

    monkeypatch.setattr(emb, "index", index)
    (tmp_path / "ids.txt").write_text(" a \n\nb\t\r\nc\n", encoding="utf-8")
    assert console.run(cli, ["index", "docs", "--delete", str(tmp_path / "ids.txt"), "--out", str(tmp_path / "i")]) == 0
    assert said["delete"] == ["a", "b", "c"]
    assert "2 deleted (1 ids not found)" in capsys.readouterr().out
