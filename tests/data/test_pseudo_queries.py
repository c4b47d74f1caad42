"""Pseudo-queries: what is cut from documents, and what is never read."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from emb.data import pseudo_queries as room
from emb.data.corpus import Corpus, Text
from emb.data.documents import Document, read_documents
from emb.data.pseudo_queries import Cuts, pseudo_queries, sentences
from emb.data.query_corpus import as_queries, fitted_corpus
from emb.errors import DataError

HARBOUR = Document(
    "The harbour",
    "The old harbour freezes in January. Ships wait outside for the ice breaker to come. "
    "Nobody knows who built the first quay there. A lighthouse was added in 1870 by the province.",
)
MILL = Document("", "A water mill grinds rye by the river. The miller keeps bees. His bread is known in three valleys.")


ALL = Cuts()


def _texts(documents: list[Document], cuts: Cuts = ALL, seed: int = 0) -> list[str]:
    return [each.text for each in pseudo_queries(documents, cuts, seed)]


def _beir(folder: Path) -> Path:
    (folder / "qrels").mkdir(parents=True)
    rows = [{"_id": str(n), "title": each.title, "text": each.text} for n, each in enumerate((HARBOUR, MILL))]
    with gzip.open(folder / "corpus.jsonl.gz", "wt", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    (folder / "queries.jsonl").write_bytes(b"\xff\xfe read by nobody")
    (folder / "qrels" / "test.tsv").write_bytes(b"\xff\xfe read by nobody")
    return folder


def test_a_title_a_beginning_and_more_are_cut() -> None:
    found = _texts([HARBOUR])
    parts = sentences(HARBOUR.text)
    assert found[:2] == ["The harbour", parts[0]]
    assert set(parts) <= set(found)
    spans = [text for text in found if text not in parts and text != HARBOUR.title]
    assert len(spans) > 1  # a span may be a whole sentence, which is there already
    assert all(any(text in part for part in parts) for text in spans[:-1])
    words = spans[-1].split()
    assert 2 <= len(words) <= 5
    assert all(word in HARBOUR.whole.lower() for word in words)


def test_where_no_keywords_are_cut_no_words_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counting the words of half a million passages takes half a minute."""
    plain = Cuts(1, 1, keywords=0)
    found = _texts([HARBOUR, MILL], plain)
    assert found == [text for text in _texts([HARBOUR, MILL], Cuts(1, 1, keywords=1)) if text in found]
    monkeypatch.setattr(room, "_words", lambda text: pytest.fail("counted"))
    assert _texts([HARBOUR, MILL], plain) == found


def test_cuts_say_how_many() -> None:
    assert _texts([HARBOUR], Cuts(sentences=0, spans=0, keywords=0))[:2] == ["The harbour", sentences(HARBOUR.text)[0]]
    none, all_ = (len(_texts([HARBOUR], Cuts(number, 0, 0))) for number in (0, 9))
    assert none < all_ == 1 + len(sentences(HARBOUR.text))


def test_the_same_every_time_by_seed_and_document() -> None:
    assert _texts([HARBOUR, MILL]) == _texts([HARBOUR, MILL])
    assert _texts([HARBOUR, MILL], seed=1) != _texts([HARBOUR, MILL])
    own = Cuts(keywords=0)  # which words are rare is the corpus's own
    assert set(_texts([MILL], own)) <= set(_texts([HARBOUR, MILL], own))


def test_keywords_are_rare_words() -> None:
    common = "the report says that weather along this coast was often rather windy"
    rare = "zeppelin quicksilver ambergris porphyry tamarind obelisk cinnabar vellum halyard mistral"
    documents = [*(Document("", f"{common} number{n}") for n in range(30)), Document("", f"{common} {rare}")]
    keywords = _texts(documents, Cuts(sentences=0, spans=0, keywords=1))[-1].split()
    assert set(keywords) <= set(rare.split())
    assert keywords == [word for word in rare.split() if word in keywords]


def test_each_text_once_whatever_its_case_and_of_its_first_document() -> None:
    shouted = Document(HARBOUR.title.upper(), HARBOUR.text)
    found = pseudo_queries([HARBOUR, shouted], Cuts(0, 0, 0))
    assert [(each.text, each.document) for each in found if each.text.lower() == "the harbour"] == [("The harbour", 0)]


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("One two three. Four five six! Seven eight nine?", ["One two three.", "Four five six!", "Seven eight nine?"]),
        ("Costs 3.5 million a year. No more is known.", ["Costs 3.5 million a year.", "No more is known."]),
        ("A line without end\nand another one here", ["A line without end", "and another one here"]),
        (
            "这是一个关于嵌入模型的句子。第二句话讨论搜索引擎。",
            ["这是一个关于嵌入模型的句子。", "第二句话讨论搜索引擎。"],
        ),
        ("Short one. This is long enough.", ["This is long enough."]),
        ("Too short.", ["Too short."]),
        ("", []),
    ],
)
def test_sentences(text: str, parts: list[str]) -> None:
    assert sentences(text) == parts


def test_of_chinese_too_spans_are_shorter_than_sentences() -> None:
    text = "这是一个关于嵌入模型的很长的句子它没有任何空格也没有停顿直到最后才结束。"
    found = _texts([Document("", text)], Cuts(0, 3, 0))
    assert found[0] == text
    assert all(len(each) <= 20 for each in found[1:])
    assert len(found) > 1


def test_very_long_sentences_are_cut_and_one_word_is_a_query() -> None:
    assert len(_texts([Document("", "word " * 500)])[0].split()) == 40
    assert _texts([Document("", "Supercalifragilistic")]) == ["Supercalifragilistic"]
    assert _texts([Document("Only a title", "")], Cuts(0, 0, 0)) == ["Only a title"]


def test_of_an_evaluation_set_the_corpus_alone_is_read(tmp_path: Path) -> None:
    assert read_documents([str(_beir(tmp_path / "set"))]) == [HARBOUR, MILL]


def test_a_folder_that_is_no_evaluation_set_is_read_whole(tmp_path: Path) -> None:
    for name, text in (("corpus", "in the first file"), ("more", "in the second one")):
        (tmp_path / f"{name}.jsonl").write_text(json.dumps({"text": text}) + "\n", encoding="utf-8")
    assert [each.text for each in read_documents([str(tmp_path)])] == ["in the first file", "in the second one"]


def test_queries_of_an_evaluation_set_are_warned_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = _beir(tmp_path / "set")
    (folder / "queries.jsonl").write_text('{"_id": "q", "text": "who built the quay?"}\n', encoding="utf-8")
    read_documents([str(folder / "queries.jsonl")])
    assert "no longer be judged" in " ".join(capsys.readouterr().err.split())


def test_documents_once_and_those_without_a_text_not(tmp_path: Path) -> None:
    rows = [{"text": "the same text"}, {"text": "the same text"}, {"text": "", "title": None}, {"text": "another"}]
    path = tmp_path / "d.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    assert [each.whole for each in read_documents([str(path)])] == ["the same text", "another"]


@pytest.mark.parametrize(
    ("content", "told"),
    [('{"text": ""}\n', "no document with a text"), ('{"text": "a b c", "title": 0}\n', "title is no string")],
)
def test_what_is_no_document_is_told(tmp_path: Path, content: str, told: str) -> None:
    path = tmp_path / "d.jsonl"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=told):
        read_documents([str(path)])
    with pytest.raises(DataError, match="no such file"):
        read_documents([str(tmp_path / "gone.jsonl")])


def test_passages_become_queries_and_queries_stay() -> None:
    question = [Text(f"who lives at number {n}?", "query") for n in range(20)]
    found = as_queries(Corpus([Text(HARBOUR.text), *question]), seed=0)
    assert {item.kind for item in found.texts} == {"query"}
    assert found.texts[:20] == question
    assert HARBOUR.text not in [item.text for item in found.texts]
    assert sentences(HARBOUR.text)[0] in [item.text for item in found.texts]


@pytest.mark.parametrize("mix", [0.0, 0.25, 0.5])
def test_general_texts_are_the_share_that_was_asked(mix: float) -> None:
    documents = [Document("", f"{HARBOUR.text} It has berth number {n}.") for n in range(30)]
    general = Corpus([Text(f"who lives at number {n}?", "query") for n in range(500)])
    found = fitted_corpus(pseudo_queries(documents), general, mix=mix, seed=0)
    beside = [item for item in found.texts if item.text.startswith("who lives")]
    assert len(beside) / len(found) == pytest.approx(mix, abs=0.01)
    turned = Corpus(general.texts[::-1])
    again = fitted_corpus(pseudo_queries(documents), turned, mix=mix, seed=0)
    assert {item.text for item in again.texts} == {item.text for item in found.texts}


def test_too_few_documents_are_told_with_what_helps() -> None:
    general = Corpus([Text(f"q {n}", "query") for n in range(400)])
    with pytest.raises(DataError, match="3 pseudo-queries, and 3 texts beside them") as caught:
        fitted_corpus(pseudo_queries([Document("Two words", "Hello")]), general, mix=0.5, seed=0)
    assert "--for-queries" in caught.value.hint


def test_general_texts_are_no_more_than_there_are() -> None:
    general = Corpus([Text("who lives here?", "query")] + [Text(f"q {n}", "query") for n in range(16)])
    documents = [Document("", f"{HARBOUR.text} It has berth number {n}.") for n in range(30)]
    found = fitted_corpus(pseudo_queries(documents), general, mix=0.9, seed=0)
    assert {item.text for item in general.texts} <= {item.text for item in found.texts}
