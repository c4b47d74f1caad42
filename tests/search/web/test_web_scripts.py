"""The page's scripts, run by node, give what Python gives: token ids, query vectors, rankings."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_packaging import ROOT
from tiny import SENTENCES
from tokenizers import AddedToken, processors
from web_pages import LETTERS, asked, documents, static_encoder, unpacked, wordpiece

import emb
from emb.data.documents import read_documents
from emb.search.web.codes import stored
from emb.similarity import cosines

pytestmark = [
    pytest.mark.interop,
    pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed"),
]
BY_HAND = [
    *(
        "",
        " ",
        "\0",
        "\t\n\r",
        "Straße STRASSE Straßen",
        "İstanbul ıi",
        "ΆΣ άς",
        "naïve café Ñandú Å",
        "中文字 and 中",
        "한국어 각",
    ),
    *(
        "a<s>b",
        "x <mask> y",
        "[PAD][UNK]",
        "new york NEW YORK new",
        "a" * 100,
        "a" * 101,
        "𐐀𝒜🙂",
        "\ufb01x ﬁ",
        "a\u200bb\u00adc\ufeff",
    ),
    *(
        "क्षत्रिय",
        "سلام ٣",
        "don't (stop)…«»",
        "e\u0301\u0323",
        "\ufffd\u0085x",
        "\u3000\u00a0\u2028a",
        "a_b-c/d",
        "\ue000\U000f0000",
    ),
]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("page")
    encoder = static_encoder(place / "encoder")
    emb.web(encoder, documents(place / "documents.jsonl"), encoder, out=place / "web", dim=16)
    return place


def fuzz(count: int) -> list[str]:
    """Texts of known letters, of neighbours in one block, and of any character at all."""
    rng, found = random.Random(0), []
    for row in range(count):
        block = rng.randrange(0, 0x32000) if row % 3 else rng.randrange(0, 0x3000)
        near = [chr(code) for code in range(block, block + 200) if not 0xD800 <= code < 0xE000] or ["x"]
        wild = [chr(code) for code in rng.sample(range(0x110000), 20) if not 0xD800 <= code < 0xE000]
        pools = (list(LETTERS), near, wild, list(" \t.,'-"), [*SENTENCES[0].split(), *LETTERS.upper()])
        found.append("".join(rng.choice(rng.choice(pools)) for _ in range(rng.randint(1, 40))))
    return found


def test_ids_are_those_of_the_tokenizers_library(page: Path, tmp_path: Path) -> None:
    texts = [*BY_HAND, *SENTENCES, *fuzz(3000)]
    encoder = emb.load(page / "encoder")
    known = [ids.tolist() for ids in encoder.tokenizer.encode(texts)]
    found = [each["ids"] for each in asked(page / "web", texts, tmp_path)]
    wrong = [(text, ours, theirs) for text, ours, theirs in zip(texts, found, known, strict=True) if ours != theirs]
    assert not wrong, f"{len(wrong)} of {len(texts)}: {wrong[:3]!a}"
    assert len({id for ids in known for id in ids}) > 100


@pytest.mark.parametrize(
    "settings",
    [
        {"lowercase": False},
        {"strip_accents": False},
        {"lowercase": False, "strip_accents": True},
        {"handle_chinese_chars": False, "clean_text": False},
    ],
    ids=str,
)
def test_every_setting_of_berts_normaliser_is_kept(settings: dict[str, Any], tmp_path: Path) -> None:
    encoder = static_encoder(tmp_path / "encoder", wordpiece(**settings))
    emb.web(encoder, documents(tmp_path / "documents.jsonl"), encoder, out=tmp_path / "web")
    texts = [*BY_HAND, *fuzz(300)]
    known = [ids.tolist() for ids in emb.load(encoder).tokenizer.encode(texts)]
    assert [each["ids"] for each in asked(tmp_path / "web", texts, tmp_path)] == known


@pytest.mark.parametrize("around", ["$A", "<s> $A [PAD]:1 [UNK]", "$A <s>"])
@pytest.mark.parametrize("side", ["right", "left"])
def test_texts_are_cut_where_the_encoder_cuts_them(side: str, around: str, tmp_path: Path) -> None:
    tokenizer = wordpiece()
    special = [(name, tokenizer.token_to_id(name)) for name in ("<s>", "[PAD]", "[UNK]")]
    tokenizer.post_processor = processors.TemplateProcessing(single=around, special_tokens=special)
    tokenizer.enable_truncation(5, direction=side)
    encoder = static_encoder(tmp_path / "encoder", tokenizer)
    emb.web(encoder, documents(tmp_path / "documents.jsonl"), encoder, out=tmp_path / "web")
    texts = ["a b c d e f g", "a", ""]
    found = [each["ids"] for each in asked(tmp_path / "web", texts, tmp_path)]
    assert found == [ids.tolist() for ids in emb.load(encoder).tokenizer.encode(texts)]
    assert len(found[0]) == 5


@pytest.mark.parametrize("codec", ["int8", "binary"])
def test_the_ranking_is_that_of_python(codec: str, page: Path, tmp_path: Path) -> None:
    emb.web(page / "encoder", page / "documents.jsonl", page / "encoder", out=tmp_path / "web", dim=16, codec=codec)
    encoder, texts = (
        emb.load(page / "encoder"),
        [each.whole for each in read_documents([str(page / "documents.jsonl")])],
    )
    index = stored(encoder.encode_document(texts, truncate_dim=16), codec)
    queries = [*SENTENCES, *("apples and pears", "New York in the rain", "capital")]
    vectors = encoder.encode_query(queries, truncate_dim=16)
    scores = index.codec.scores(vectors, index.codes)
    found = asked(tmp_path / "web", queries, tmp_path)
    assert cosines(vectors, np.array([each["vector"] for each in found])).min() > 0.999
    for row, each in enumerate(found):
        rows, theirs = [hit["row"] for hit in each["hits"]], np.sort(scores[row])[::-1][:10]
        assert [hit["score"] for hit in each["hits"]] == pytest.approx(theirs, abs=0.01)
        # The best ten up to ties: what the page shows scores as Python's own ten do.
        np.testing.assert_allclose(scores[row][rows], theirs, atol=0.01)


def test_equal_scores_keep_the_documents_order(page: Path, tmp_path: Path) -> None:
    twins = tmp_path / "twins.txt"
    twins.write_text("yes\nYES\nyes  yes\na")
    emb.web(page / "encoder", twins, page / "encoder", out=tmp_path / "web")
    [found] = asked(tmp_path / "web", ["yes"], tmp_path)
    assert [hit["row"] for hit in found["hits"]] == [0, 1, 2, 3]
    assert found["hits"][0]["score"] == found["hits"][2]["score"]


def test_a_query_without_a_known_word_finds_nothing(page: Path, tmp_path: Path) -> None:
    found = asked(page / "web", ["", "\u0ba4\u0bae", "\u0ba4 cat"], tmp_path)
    assert [len(each["hits"]) for each in found] == [0, 0, 10]


def test_the_prompt_of_queries_stands_before_them(page: Path, tmp_path: Path) -> None:
    encoder = shutil.copytree(page / "encoder", tmp_path / "encoder")
    config = encoder / "config_sentence_transformers.json"
    config.write_text('{"prompts": {"query": "Find: "}, "similarity_fn_name": "cosine"}', encoding="utf-8")
    emb.web(encoder, page / "documents.jsonl", encoder, out=tmp_path / "web")
    found, unknown = asked(tmp_path / "web", ["cat", "\u0ba4\u0bae"], tmp_path)
    assert unknown["hits"] == []  # the prompt's own tokens are no reason to find anything
    assert found["ids"] == emb.load(encoder).tokenizer.encode(["Find: cat"])[0].tolist()
    assert json.loads(unpacked(tmp_path / "web", "encoder.json"))["prompt"] == "Find: "


@pytest.mark.parametrize(
    ("text", "title"),
    [
        ("\U0001f642" * 60, "\U0001f642" * 45 + "…"),
        ("a" + "\U0001f642" * 60, "a" + "\U0001f642" * 44 + "…"),
        ("文" * 100, "文" * 90 + "…"),
        ("word " * 30, "word " * 17 + "word…"),
        ("\U0001f642" * 45, "\U0001f642" * 45),
    ],
)
def test_a_heading_made_of_a_text_ends_with_a_whole_character(text: str, title: str, tmp_path: Path) -> None:
    script = resources.files("emb.search.web").joinpath("page", "results.js").read_text(encoding="utf-8")
    told = f"{script}\nconsole.log(JSON.stringify(titled('', {json.dumps(text)})))"
    (tmp_path / "run.mjs").write_text(told, encoding="utf-8")
    done = subprocess.run(["node", str(tmp_path / "run.mjs")], capture_output=True, check=True)
    heading, rest = json.loads(done.stdout)
    assert heading == title
    assert (heading.removesuffix("…") + rest.removeprefix("…")).replace(" ", "") == text.replace(" ", "")


def test_the_longest_added_token_wins(page: Path, tmp_path: Path) -> None:
    tokenizer = wordpiece()
    tokenizer.add_tokens([AddedToken("a.b", normalized=False), AddedToken("a.b+", normalized=False)])
    encoder = static_encoder(tmp_path / "encoder", tokenizer)
    emb.web(encoder, page / "documents.jsonl", encoder, out=tmp_path / "web")
    texts = ["a.b+ axb a.b", "a.b+c"]
    known = [ids.tolist() for ids in emb.load(encoder).tokenizer.encode(texts)]
    assert [each["ids"] for each in asked(tmp_path / "web", texts, tmp_path)] == known


@pytest.mark.parametrize(("normalize", "vector"), [("false", [2.5, 2.0]), ("true", [0.780869, 0.624695])])
def test_a_vector_is_the_mean_of_rows_or_has_length_one(normalize: str, vector: list[float], tmp_path: Path) -> None:
    shutil.copy(ROOT / "search" / "web" / "page" / "encoder.js", tmp_path)
    (tmp_path / "package.json").write_text('{"type": "module"}', encoding="utf-8")
    script = (
        'import { openEncoder } from "./encoder.js"; const table = new ArrayBuffer(12);'
        "new Float32Array(table, 0, 2).set([1, 2]); new Int8Array(table, 8, 4).set([3, 4, 1, 0]);"
        f"const encoder = openEncoder({{ tokens: 2, dim: 2, normalize: {normalize} }}, {{ table }});"
        "console.log(JSON.stringify([[0, 1], []].map((ids) => Array.from(encoder.encode(ids)))));"
    )
    command = ["node", "--input-type=module", "--eval", script]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    of_two, of_none = json.loads(done.stdout)
    assert (of_two, of_none) == (pytest.approx(vector, abs=1e-6), [0, 0])
