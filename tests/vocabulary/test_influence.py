"""The rows that go cost little in pieces, and what they are read in counts for more once they are gone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from families import write_family
from tiny import SENTENCES
from tokenizers import Tokenizer, models, pre_tokenizers

from emb.data.corpus import Text
from emb.errors import UsageError
from emb.model.embedding_model import EmbeddingModel, load_model
from emb.vocabulary import choose_tokens
from emb.vocabulary.choose_tokens import AUTO, COUNTS, INFLUENCE, WAYS, choose
from emb.vocabulary.closure import closed
from emb.vocabulary.influence import kept_by_counts, kept_by_influence
from emb.vocabulary.reading import read, written
from emb.vocabulary.readings import Readings
from emb.vocabulary.surgery import fixed_ids, table_of, tokenizer_json
from emb.vocabulary.tokenizer_json import TokenizerJson
from emb.vocabulary.trim import trim
from emb.vocabulary.usage import token_counts

KINDS = ["bert", "qwen3", "gemma3", "xlm-roberta"]  # WordPiece, byte-level BPE, BPE with ▁, Unigram
TEXTS = [Text(text) for text in SENTENCES]


def _of(model: EmbeddingModel, texts: list[Text] = TEXTS) -> Readings:
    return Readings(tokenizer_json(model), written(model, texts), fixed_ids(model))


@pytest.fixture(scope="module", params=KINDS)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> EmbeddingModel:
    """A tiny model of each kind of tokenizer."""
    return load_model(write_family(request.param, tmp_path_factory.mktemp(request.param)))


def _toy(bert_folder: Path, tokens: list[str], texts: list[str]) -> Readings:
    """A WordPiece vocabulary of letters and `tokens`."""
    state = json.loads((bert_folder / "tokenizer.json").read_text(encoding="utf-8"))
    named = [each["content"] for each in sorted(state["added_tokens"], key=lambda each: int(each["id"]))]
    letters = "abcdefgh"
    vocab = [*named, *letters, *(f"##{letter}" for letter in letters), *tokens]
    state["model"]["vocab"] = {token: index for index, token in enumerate(vocab)}
    return Readings(TokenizerJson.of(Tokenizer.from_str(json.dumps(state))), texts)


def _bpe(tokens: list[str], texts: list[str] = ()) -> Readings:  # type: ignore[assignment]
    """A BPE of letters and `tokens`, written as the two parts of each: "ab c"."""
    pairs = [(left, right) for left, right in (each.split() for each in tokens)]
    vocab = {token: index for index, token in enumerate([*"abcdef", *(left + right for left, right in pairs)])}
    tokenizer = Tokenizer(models.BPE(vocab, pairs))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return Readings(TokenizerJson.of(tokenizer), texts)


def _pieces(readings: Readings, token: str, gone: tuple[str, ...] = ()) -> list[str]:
    own, names = readings.source.pieces, readings.source.tokens
    kept = set(readings.ids) - {own[each] for each in gone}
    return [names[index] for index in readings.pieces([own[token]], kept)[own[token]]]


@pytest.mark.parametrize("way", WAYS)
def test_the_number_is_exact_and_the_tokens_can_be_reached(model: EmbeddingModel, way: str) -> None:
    readings = _of(model)
    for rows in (len(readings.always), len(readings.always) + 7, len(readings.ids)):
        kept = choose(model, readings, rows, way, None).kept
        assert len(kept) == rows
        assert set(readings.always) <= set(kept)
        assert set(fixed_ids(model)) <= set(kept)
        assert kept == sorted(closed(readings.source, kept))
        assert trim(readings.source, kept, fixed_ids(model)).kept == kept


@pytest.mark.parametrize("way", WAYS)
def test_fewer_than_must_stay_or_more_than_there_are_is_refused(model: EmbeddingModel, way: str) -> None:
    readings = _of(model)
    for rows in (len(readings.always) - 1, len(readings.ids) + 1):
        with pytest.raises(UsageError, match="must stay") as caught:
            choose(model, readings, rows, way, None)
        assert caught.value.hint == f"choose {len(readings.always):,} to {len(readings.ids):,}"


def test_pieces_are_those_of_the_tokenizer_without_the_token(model: EmbeddingModel) -> None:
    readings, source = _of(model), tokenizer_json(model)
    counts = readings.counts(readings.ids)
    needed = {step for index in readings.ids for step in closed(source, [index]) - {index}}
    for index in [each for each in readings.ids if counts[each] and each not in {*readings.always, *needed}]:
        kept = [each for each in readings.ids if each != index]
        plain = readings.tokenizer(kept)
        surface = source.surface(source.tokens[index])
        if source.continuation and not source.tokens[index].startswith(source.continuation):
            surface = " " + surface
        found = [kept[place] for place in plain.encode(surface, add_special_tokens=False).ids]
        space = source.pieces.get("▁")
        expected = readings.pieces([index], readings.ids)[index]
        assert [each for each in found if each != space] == [each for each in expected if each != space]


def test_the_whole_vocabulary_reads_as_the_model_does(model: EmbeddingModel) -> None:
    readings = _of(model)
    assert readings.counts(readings.ids).tolist() == token_counts(model, TEXTS).tolist()


def test_the_texts_are_read_with_what_is_kept(model: EmbeddingModel) -> None:
    readings = _of(model)
    kept = kept_by_counts(readings, len(readings.always) + 5)
    counts = readings.counts(kept)
    gone = sorted(set(readings.ids) - set(kept))
    assert not counts[gone].any()
    assert counts.sum() > readings.counts(readings.ids).sum()


def test_a_token_of_wordpiece_falls_into_the_longest_pieces_but_itself(bert_folder: Path) -> None:
    toy = _toy(bert_folder, ["abc", "ab", "##cd", "abcd", "##bcd"], [])
    assert _pieces(toy, "abcd") == ["abc", "##d"]
    assert _pieces(toy, "##bcd") == ["##b", "##cd"]
    assert _pieces(toy, "abc") == ["ab", "##c"]
    assert _pieces(toy, "abcd", gone=("abc",)) == ["ab", "##cd"]


def test_a_token_of_a_bpe_falls_into_the_two_of_its_last_merge() -> None:
    toy = _bpe(["b c", "a b", "a bc", "abc d"])
    assert _pieces(toy, "abcd") == ["abc", "d"]
    assert _pieces(toy, "abc") == ["a", "bc"]
    assert _pieces(toy, "a") == []


def test_a_token_of_a_unigram_falls_into_the_likeliest_pieces() -> None:
    pieces = [("<unk>", 0.0), ("a", -5.0), ("b", -5.0), ("c", -5.0), ("ab", -4.0), ("bc", -3.0), ("abc", -1.0)]
    toy = Readings(TokenizerJson.of(Tokenizer(models.Unigram(pieces, 0))), [])
    assert _pieces(toy, "abc") == ["a", "bc"]
    assert _pieces(toy, "abc", gone=("bc",)) == ["ab", "c"]


def test_a_step_stays_with_what_it_leads_to_however_rarely_it_is_read() -> None:
    toy = _bpe(["d e", "a b", "c d", "cd f"], ["cdf cdf cdf ab ab de"])
    own = toy.source.pieces
    kept = kept_by_counts(toy, len(toy.always) + 2)
    assert {own["cd"], own["cdf"]} <= set(kept)  # "cd" alone is in no text, "ab" in two
    assert own["ab"] not in kept


def test_of_tokens_as_little_used_the_step_comes_before_what_it_leads_to() -> None:
    vocab = {token: index for index, token in enumerate([*"abc", "abc", "ab"])}  # the step has the higher id
    toy = Readings(TokenizerJson.of(Tokenizer(models.BPE(vocab, [("a", "b"), ("ab", "c")]))), [])
    assert kept_by_counts(toy, 4) == [0, 1, 2, vocab["ab"]]


def test_a_row_that_equals_its_pieces_goes_first_however_often_it_is_read(bert_folder: Path) -> None:
    toy = _toy(bert_folder, ["ab", "cd", "ef"], ["ab " * 50 + "cd ef"])
    v, table = toy.source.pieces, torch.randn(len(toy.ids), 8, generator=torch.Generator().manual_seed(0))
    table[v["ab"]] = (table[v["a"]] + table[v["##b"]]) / 2
    kept = kept_by_influence(table, toy, len(toy.ids) - 1)
    assert kept == [index for index in toy.ids if index != v["ab"]]


def test_of_rows_as_far_from_their_pieces_the_rarer_goes(bert_folder: Path) -> None:
    toy = _toy(bert_folder, ["ab", "cd", "ef"], ["ab ab cd ef ef"])
    table, own = torch.zeros(len(toy.ids), 8), toy.source.pieces
    table[[own[each] for each in ("ab", "cd", "ef")]] = 1
    kept = kept_by_influence(table, toy, len(toy.ids) - 1)
    assert kept == [index for index in toy.ids if index != own["cd"]]


def test_distance_weighs_more_than_its_square(bert_folder: Path) -> None:
    toy = _toy(
        bert_folder, ["ab", "cd"], ["ab " * 5 + "cd"]
    )  # squared distances of 1 and 3: 5 · 1 > 3, yet 5 · 1² < 3²
    table, own = torch.zeros(len(toy.ids), 1), toy.source.pieces
    table[own["ab"]], table[own["cd"]] = 1.0, 3.0**0.5
    kept = kept_by_influence(table, toy, len(toy.ids) - 1)
    assert own["cd"] in kept
    assert own["ab"] not in kept


def test_pieces_of_what_has_gone_count_in_the_next_round(bert_folder: Path) -> None:
    # "abcd" goes in the first round and is read as "abc", "##d" then; "ef" is the more frequent until it has gone.
    toy = _toy(bert_folder, ["abc", "ef", "abcd", "gh"], ["abcd abcd abc ef ef gh gh gh gh gh"])
    v, table = toy.source.pieces, torch.zeros(len(toy.ids), 2)
    table[v["abc"]], table[v["ef"]], table[v["gh"]] = torch.tensor([1.0, 0]), torch.tensor([1.0, 0]), torch.ones(2)
    table[v["abcd"]] = torch.tensor([0.5, 0.1])
    rows = len(toy.ids) - 2
    assert v["abc"] not in kept_by_influence(table, toy, rows, rounds=1)
    assert v["abc"] in kept_by_influence(table, toy, rows, rounds=2)


def test_no_round_is_spent_on_what_is_never_read(bert_folder: Path) -> None:
    # The same with twenty tokens that no text has: a first round that takes these out would be none at all.
    idle = [f"a{one}{two}h" for one in "abcde" for two in "abcd"]
    toy = _toy(bert_folder, ["abc", "ef", "abcd", "gh", *idle], ["abcd abcd abc ef ef gh gh gh gh gh"])
    v, table = toy.source.pieces, torch.zeros(len(toy.ids), 2)
    table[v["abc"]], table[v["ef"]], table[v["gh"]] = torch.tensor([1.0, 0]), torch.tensor([1.0, 0]), torch.ones(2)
    table[v["abcd"]] = torch.tensor([0.5, 0.1])
    assert v["abc"] in kept_by_influence(table, toy, len(toy.ids) - len(idle) - 2, rounds=2)


def test_rows_without_a_token_do_not_count(bert_folder: Path) -> None:
    toy = _toy(bert_folder, ["ab", "cd"], ["ab cd"])
    table = torch.ones(len(toy.ids) + 30, 4)
    assert kept_by_influence(table, toy, len(toy.ids)) == toy.ids


def test_auto_takes_what_leaves_whole_texts_nearest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = load_model(write_family("bert", tmp_path))
    readings, dev = _of(model), read(model, TEXTS)
    own = readings.source.pieces
    frequent, rare = ([index for index in readings.ids if index != own[word]] for word in ("the", "committee"))
    for bad, good in ((INFLUENCE, COUNTS), (COUNTS, INFLUENCE)):
        ways = {bad: lambda *_: frequent, good: lambda *_: rare}
        monkeypatch.setattr(choose_tokens, "WAYS", ways)
        found = choose(model, readings, len(rare), AUTO, dev)
        assert (found.way, found.kept) == (good, rare)
        cosines = {each.way: each.cosine for each in found.scores}
        assert cosines[bad] < cosines[good] < 1


def test_both_ways_go_by_the_tables_of_the_model(tmp_path: Path) -> None:
    model = load_model(write_family("bert", tmp_path))
    readings = _of(model)
    rows = len(readings.always) + 20
    assert choose(model, readings, rows, INFLUENCE, None).kept == kept_by_influence(table_of(model), readings, rows)
    assert choose(model, readings, rows, COUNTS, None).kept == kept_by_counts(readings, rows)
