"""New tokens: learned, reached, in their places."""

from __future__ import annotations

from pathlib import Path

import families
import pytest
import tiny

from emb.errors import UsageError
from emb.model.embedding_model import load_model
from emb.vocabulary import continued_bpe
from emb.vocabulary.continued_bpe import Compound, Compounds, learn
from emb.vocabulary.extend import extend
from emb.vocabulary.letters import unknown_letters
from emb.vocabulary.surgery import tokenizer_json
from emb.vocabulary.tokenizer_json import TokenizerJson

WORDS = ("zebrastripe", "seafoam", "riverboat", "windmill", "zebrastripes", "underground")
TEXTS = [f"the {word} and a {other} in the rain, {place}" for place in "abc" for word in WORDS for other in WORDS]
KINDS = ["bert", "roberta", "xlm-roberta", "gemma3"]  # WordPiece, bytes, Unigram, letters with ▁


def _source(family: str, folder: Path) -> TokenizerJson:
    return tokenizer_json(load_model(families.write_family(family, folder)))


@pytest.mark.parametrize("family", KINDS)
def test_new_tokens_are_reached_and_stand_behind_the_old(family: str, tmp_path: Path) -> None:
    source = _source(family, tmp_path)
    found = extend(source, TEXTS, 5)
    old, new = source.tokenizer(), found.tokenizer.tokenizer()
    first = len(source.tokens)
    assert [found.tokenizer.tokens[first + place] for place in range(5)] == found.added
    assert all(found.tokenizer.tokens[index] == token for index, token in source.tokens.items())
    used = {index for text in TEXTS for index in new.encode(text).ids}
    steps = {each.token for token in found.added for each in found.compounds.depth_first(token) if each.token != token}
    assert {found.tokenizer.pieces[token] for token in found.added if token not in steps} <= used
    lengths = [sum(len(each.encode(text).ids) for text in TEXTS) for each in (old, new)]
    assert lengths[1] < 0.9 * lengths[0]
    for text in tiny.SENTENCES:
        assert new.encode(text).offsets[0] == old.encode(text).offsets[0]


@pytest.mark.parametrize("family", ["roberta", "gemma3"])
def test_old_segmentation_only_coarsens(family: str, tmp_path: Path) -> None:
    source = _source(family, tmp_path)
    found = extend(source, TEXTS, 5)
    old, new = source.tokenizer(), found.tokenizer.tokenizer()
    for text in TEXTS:
        borders = [{start for start, _ in each.encode(text).offsets} for each in (old, new)]
        assert borders[1] <= borders[0]


@pytest.mark.parametrize("family", KINDS)
def test_a_token_is_made_of_the_pieces_that_spell_it(family: str, tmp_path: Path) -> None:
    source = _source(family, tmp_path)
    found = extend(source, TEXTS, 5)
    for token in found.added:
        pieces = found.compounds.pieces(token)
        assert len(pieces) > 1
        assert all(piece in source.pieces for piece in pieces)
        spelt = pieces[0] + "".join(piece.removeprefix(source.continuation) for piece in pieces[1:])
        assert spelt == token


def test_the_same_texts_give_the_same_tokens(tmp_path: Path) -> None:
    source = _source("roberta", tmp_path)
    assert extend(source, TEXTS, 5).added == extend(source, TEXTS, 5).added


def test_the_most_frequent_pair_comes_first(tmp_path: Path) -> None:
    source = _source("bert", tmp_path)
    letters = [["gf" if place else "kd"] * 6 for place in (0, 1, 1)]
    assert learn(source, [" ".join(each) for each in letters], 2).found[0].token == "gf"


def test_rare_pairs_give_no_token(tmp_path: Path) -> None:
    source = _source("bert", tmp_path)
    seldom = continued_bpe._MIN_FREQUENCY - 1
    assert not learn(source, ["gf"] * seldom, 5).found
    assert learn(source, ["gf"] * (seldom + 1), 5).found


def test_what_saves_most_comes_first(tmp_path: Path) -> None:
    texts = ["windmill " * 2] * 6 + ["gf " * 3] * 6  # the pair is more frequent, the word saves seven tokens
    assert extend(_source("bert", tmp_path), texts, 1).added == ["windmill"]


def test_no_token_goes_beyond_a_word(tmp_path: Path) -> None:
    for family in KINDS:
        source = _source(family, tmp_path / family)
        assert all(" " not in source.surface(each.token).strip() for each in learn(source, TEXTS, 200).found)


def test_more_tokens_than_the_texts_hold(tmp_path: Path) -> None:
    source = _source("bert", tmp_path)
    with pytest.raises(UsageError, match=r"the texts support \d+ more tokens") as caught:
        extend(source, TEXTS, 5000)
    count = int(str(caught.value).split("--add ")[-1].split(")")[0]) if "--add " in str(caught.value) else None
    assert count is None or len(extend(source, TEXTS, count).added) == count


def test_compounds_know_their_making() -> None:
    made = Compounds([Compound("ab", "a", "b"), Compound("abc", "ab", "c")])
    assert made.pieces("abc") == ["a", "b", "c"]
    assert made.pieces("x") == ["x"]
    assert [each.token for each in made.depth_first("abc")] == ["ab", "abc"]


HAN = [f"{a}{b}水火木 {b}{a}" for a in "山川田" for b in "日月星" for _ in range(2)]


@pytest.mark.parametrize("family", ["bert", "xlm-roberta"])
def test_letters_that_texts_are_unknown_without_come_first(family: str, tmp_path: Path) -> None:
    source = _source(family, tmp_path)
    found = extend(source, HAN, 9)
    assert {letter.removeprefix(source.continuation) for letter in found.added} == set("山川田日月星水火木")
    before, after = (
        [each.encode(text).ids for text in HAN] for each in (source.tokenizer(), found.tokenizer.tokenizer())
    )
    assert any(source.unknown in ids for ids in before)
    assert not any(source.unknown in ids for ids in after)
    assert found.pieces(source, found.added[0]) == [source.unknown]


def test_rare_letters_and_bytes_get_no_token(tmp_path: Path) -> None:
    bert, roberta = _source("bert", tmp_path / "bert"), _source("roberta", tmp_path / "roberta")
    assert unknown_letters(bert, ["山"] * 4) == []
    assert unknown_letters(bert, [*["川"] * 6, *["山"] * 5]) == ["川", "山"]
    assert unknown_letters(bert, ["ж日ж"] * 5) == ["ж", "日"]
    assert unknown_letters(roberta, HAN) == []


def test_a_letter_within_a_word_is_another_token_than_one_that_begins_it(tmp_path: Path) -> None:
    source = _source("bert", tmp_path)
    assert set(unknown_letters(source, ["ջջա"] * 5)) == {"ջ", "##ջ", "##ա"}
