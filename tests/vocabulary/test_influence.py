"""The rows that go cost little in pieces, and what they are read in counts for more once they are gone."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny import SENTENCES, tiny_qwen3
from tokenizers import Tokenizer

from emb.errors import ArtifactError, UsageError
from emb.tokens import TextTokenizer
from emb.vocabulary.influence import kept_by_influence
from emb.vocabulary.word_pieces import WordPieces


@pytest.fixture(scope="module")
def whole(bert_folder: Path) -> WordPieces:
    """The tiny tokenizer's vocabulary, and the sentences."""
    return WordPieces(TextTokenizer.from_folder(bert_folder, 128), SENTENCES)


def _toy(bert_folder: Path, tokens: list[str], texts: list[str]) -> WordPieces:
    """A vocabulary of letters and `tokens`."""
    import json

    state = json.loads((bert_folder / "tokenizer.json").read_text(encoding="utf-8"))
    named = [each["content"] for each in sorted(state["added_tokens"], key=lambda each: int(each["id"]))]
    letters = "abcdefgh"
    vocab = [*named, *letters, *(f"##{letter}" for letter in letters), *tokens]
    state["model"]["vocab"] = {token: index for index, token in enumerate(vocab)}
    return WordPieces(TextTokenizer(Tokenizer.from_str(json.dumps(state)), max_length=64, pad_id=0), texts)


def test_letters_and_special_tokens_must_stay(whole: WordPieces) -> None:
    kept = {whole.tokens[index] for index in whole.always}
    assert {"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "##a"} <= kept
    assert "cat" not in kept


def test_the_whole_vocabulary_reads_as_before(whole: WordPieces, bert_folder: Path) -> None:
    before = TextTokenizer.from_folder(bert_folder, 128).encode(SENTENCES)
    assert whole.tokenizer(whole.ids).encode(SENTENCES[0]).ids == before[0].tolist()
    ids = [index for row in before for index in row]
    assert whole.counts(whole.ids).tolist() == torch.bincount(torch.tensor(ids), minlength=len(whole.ids)).tolist()


def test_ids_of_a_part_are_places_in_it_and_counts_are_by_former_id(whole: WordPieces) -> None:
    kept = [index for index in whole.ids if whole.tokens[index] != "cat"]
    found = whole.tokenizer(kept).encode("the cat")
    assert found.tokens == ["[CLS]", "the", "c", "##a", "##t", "[SEP]"]
    assert [whole.tokens[kept[place]] for place in found.ids] == found.tokens
    counts, before = whole.counts(kept), whole.counts(whole.ids)
    assert counts[whole.vocab["cat"]] == 0
    assert counts[whole.vocab["c"]] == before[whole.vocab["c"]] + 1


def test_a_token_falls_into_the_longest_pieces_but_itself(bert_folder: Path) -> None:
    toy = _toy(bert_folder, ["abc", "ab", "##cd", "abcd", "##bcd", "x"], [])
    v = toy.vocab
    assert toy.pieces([v["abcd"], v["##bcd"], v["x"], v["abc"]], toy.ids) == {
        v["abcd"]: [v["abc"], v["##d"]],
        v["##bcd"]: [v["##b"], v["##cd"]],
        v["x"]: [v["[UNK]"]],
        v["abc"]: [v["ab"], v["##c"]],
    }
    left = [index for index in toy.ids if index != v["abc"]]
    assert toy.pieces([v["abcd"]], left) == {v["abcd"]: [v["ab"], v["##cd"]]}


def test_a_row_that_equals_its_pieces_goes_first_however_often_it_is_read(bert_folder: Path) -> None:
    toy = _toy(bert_folder, ["ab", "cd", "ef"], ["ab " * 50 + "cd ef"])
    v, table = toy.vocab, torch.randn(len(toy.ids), 8, generator=torch.Generator().manual_seed(0))
    table[v["ab"]] = (table[v["a"]] + table[v["##b"]]) / 2
    kept = kept_by_influence(table, toy, rows=len(toy.ids) - 1, always=toy.always)
    assert kept == [index for index in toy.ids if index != v["ab"]]


def test_of_rows_as_far_from_their_pieces_the_rarer_goes(bert_folder: Path) -> None:
    toy = _toy(bert_folder, ["ab", "cd", "ef"], ["ab ab cd ef ef"])
    table = torch.zeros(len(toy.ids), 8)
    table[[toy.vocab[each] for each in ("ab", "cd", "ef")]] = 1
    kept = kept_by_influence(table, toy, rows=len(toy.ids) - 1, always=toy.always)
    assert kept == [index for index in toy.ids if index != toy.vocab["cd"]]


def test_distance_weighs_more_than_its_square(bert_folder: Path) -> None:
    toy = _toy(
        bert_folder, ["ab", "cd"], ["ab " * 5 + "cd"]
    )  # squared distances of 1 and 3: 5 · 1 > 3, yet 5 · 1² < 3²
    table = torch.zeros(len(toy.ids), 1)
    table[toy.vocab["ab"]], table[toy.vocab["cd"]] = 1.0, 3.0**0.5
    kept = kept_by_influence(table, toy, rows=len(toy.ids) - 1, always=toy.always)
    assert toy.vocab["cd"] in kept
    assert toy.vocab["ab"] not in kept


def test_pieces_of_what_has_gone_count_in_the_next_round(bert_folder: Path) -> None:
    # "abcd" goes in the first round and is read as "abc", "##d" then; "ef" is the more frequent until it has gone.
    toy = _toy(bert_folder, ["abc", "ef", "abcd", "gh"], ["abcd abcd abc ef ef gh gh gh gh gh"])
    v, table = toy.vocab, torch.zeros(len(toy.ids), 2)
    table[v["abc"]], table[v["ef"]], table[v["gh"]] = torch.tensor([1.0, 0]), torch.tensor([1.0, 0]), torch.ones(2)
    table[v["abcd"]] = torch.tensor([0.5, 0.1])
    rows = len(toy.ids) - 2
    assert v["abc"] not in kept_by_influence(table, toy, rows=rows, always=toy.always, rounds=1)
    assert v["abc"] in kept_by_influence(table, toy, rows=rows, always=toy.always, rounds=2)


def test_rows_without_a_token_are_never_kept(bert_folder: Path) -> None:
    toy = _toy(bert_folder, ["ab", "cd"], ["ab cd"])
    table = torch.ones(len(toy.ids) + 30, 4)
    assert kept_by_influence(table, toy, rows=len(toy.ids), always=toy.always) == toy.ids
    with pytest.raises(UsageError, match=f"the table has {len(toy.ids)}"):
        kept_by_influence(table, toy, rows=len(toy.ids) + 1, always=toy.always)


def test_texts_are_read_as_the_model_reads_them(bert_folder: Path) -> None:
    reader = TextTokenizer.from_folder(bert_folder, 5)
    reader.lowercase = True
    short = WordPieces(reader, ["THE CAT sat on the mat"])
    assert short.texts == ["the cat sat on the mat"]
    assert short.counts(short.ids).sum() == 5


def test_a_number_below_what_must_stay_is_refused(whole: WordPieces) -> None:
    with pytest.raises(UsageError, match="must stay"):
        kept_by_influence(torch.ones(len(whole.ids), 4), whole, rows=3, always=whole.always)


def test_another_kind_of_tokenizer_is_refused(tmp_path: Path) -> None:
    folder = tiny_qwen3(tmp_path / "qwen3")
    with pytest.raises(ArtifactError, match="kind BPE"):
        WordPieces(TextTokenizer.from_folder(folder, 128), [])
