"""Taking tokens out of a vocabulary, on every architecture and kind of tokenizer."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import families
import numpy as np
import pytest
import tiny
from tokenizers import Tokenizer, models

from emb.data.corpus import Text
from emb.errors import ArtifactError, GateFailed, UsageError
from emb.model.embedding_model import EmbeddingModel, load_model, save_model
from emb.vocabulary import closure, proof
from emb.vocabulary import trim as trimming
from emb.vocabulary.proof import prove_readable, prove_special, prove_trim
from emb.vocabulary.reading import read, rows_of
from emb.vocabulary.surgery import fixed_ids, replace_vocabulary, table_of, tokenizer_json
from emb.vocabulary.tokenizer_json import TokenizerJson
from emb.vocabulary.trim import Trimmed, covering, of_scripts, scripts_of, trim
from emb.vocabulary.usage import counts_of

TEXTS = [Text(text) for text in tiny.SENTENCES]


def _trimmed(model: EmbeddingModel, texts: Sequence[Text] = TEXTS[:8]) -> Trimmed:
    source = tokenizer_json(model)
    counts = counts_of(rows_of(model, texts), max(source.tokens) + 1)
    return trim(source, covering(counts, 1.0, source.pieces.values()), fixed_ids(model))


@pytest.mark.parametrize("family", families.FAMILIES)
def test_covered_texts_keep_their_ids_and_vectors(family: str, tmp_path: Path) -> None:
    model = load_model(families.write_family(family, tmp_path / "model"))
    source, before, found = tokenizer_json(model), read(model, TEXTS), _trimmed(model)
    replace_vocabulary(model, found.tokenizer, found.kept)
    save_model(model, tmp_path / "trimmed")
    opened = load_model(tmp_path / "trimmed")
    shown = prove_trim(before, opened, found.kept)
    assert shown.covered >= 8 / len(TEXTS)
    assert len(found.kept) < len(source.tokens)
    assert len(table_of(opened)) % 8 == 0
    assert opened.encoder.config.vocab_size == len(table_of(opened))
    prove_special(source, found.tokenizer)
    prove_readable(source, found.tokenizer)


@pytest.mark.parametrize("family", ["roberta", "mpnet"])
def test_positions_counted_from_the_padding_token_stay(family: str, tmp_path: Path) -> None:
    model = load_model(families.write_family(family, tmp_path))
    assert fixed_ids(model)[:2] == [0, 1]
    found = _trimmed(model)
    replace_vocabulary(model, found.tokenizer, found.kept)
    assert model.encoder.config.pad_token_id == 1
    model.encoder.embeddings.position_embeddings.padding_idx = 9
    assert set(range(10)) <= set(fixed_ids(model))
    assert model.hf_tokenizer.pad_token_id == 1


def test_an_id_that_moves_moves_everywhere(tmp_path: Path) -> None:
    model = load_model(tiny.tiny_bert(tmp_path))
    source = tokenizer_json(model)
    names = [source.tokens[index] for index in sorted(source.tokens)]
    moved = [*names[5:40], *names[:5], *names[40:]]  # added tokens in the middle of the ids
    middle = source.with_vocabulary(moved, {}, ())
    before = source.tokenizer().encode("the cat").tokens
    replace_vocabulary(model, middle, [source.tokens and list(source.tokens.values()).index(name) for name in moved])
    reading = read(model, TEXTS)
    found = _trimmed(model)
    replace_vocabulary(model, found.tokenizer, found.kept)
    assert prove_trim(reading, model, found.kept).covered > 0
    assert found.tokenizer.tokenizer().encode("the cat").tokens == before
    pad = model.hf_tokenizer.pad_token_id
    assert model.encoder.config.pad_token_id == pad == found.tokenizer.added["[PAD]"] != 0


def test_a_static_model_has_a_row_per_token(tmp_path: Path) -> None:
    from emb.model.embedding_model import ModelSpec
    from emb.model.static import StaticEncoder, wrapped_tokenizer

    base = load_model(tiny.tiny_bert(tmp_path))
    tokenizer = wrapped_tokenizer(base.hf_tokenizer.backend_tokenizer)
    encoder = StaticEncoder.fresh(len(tokenizer), 16, 0)
    encoder.fold()
    model = EmbeddingModel(encoder, tokenizer, ModelSpec(max_length=64))
    before, found = read(model, TEXTS), _trimmed(model)
    replace_vocabulary(model, found.tokenizer, found.kept)
    assert len(table_of(model)) == len(found.kept)
    assert prove_trim(before, model, found.kept).max_abs_diff == 0


def test_without_what_merges_go_through_text_falls_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = load_model(tiny.tiny_qwen3(tmp_path))
    before = read(model, TEXTS)
    monkeypatch.setattr(trimming, "closed", lambda source, kept: set(kept))
    found = _trimmed(model)
    replace_vocabulary(model, found.tokenizer, found.kept)
    with pytest.raises(GateFailed, match="encodes otherwise"):
        prove_trim(before, model, found.kept)


@pytest.mark.parametrize("family", ["bert", "xlm-roberta"])
def test_without_single_letters_text_is_unknown(family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = load_model(families.write_family(family, tmp_path))
    source = tokenizer_json(model)
    monkeypatch.setattr(trimming, "always", lambda source: {source.unknown, *source.added.values()})
    found = _trimmed(model, TEXTS[:2])
    monkeypatch.setattr(proof, "_FUZZ", 3000)
    with pytest.raises(GateFailed, match="unknown tokens"):
        prove_readable(source, found.tokenizer)


def test_tokens_of_a_letter_without_a_piece_stay() -> None:
    vocab = {"[UNK]": 0, "a": 1, "##a": 2, "##b": 3, "ab": 4, "xa": 5, "aq": 6}
    state = TokenizerJson.of(Tokenizer(models.WordPiece(vocab, unk_token="[UNK]")))
    assert closure.always(state) == {0, 1, 2, 3, 5, 6}  # no x begins and no ##q continues a word


def test_the_least_likely_piece_stays() -> None:
    state = TokenizerJson.of(Tokenizer(models.Unigram([("<unk>", 0.0), ("a", -2.0), ("b", -1.0), ("ab", -9.0)], 0)))
    assert state.pieces["ab"] in closure.always(state)


def test_a_merge_path_is_that_of_the_ranks() -> None:
    vocab = {token: index for index, token in enumerate(["a", "b", "c", "bc", "ab", "abc"])}
    bpe = models.BPE(vocab, [("b", "c"), ("a", "b"), ("a", "bc")])
    state = TokenizerJson.of(Tokenizer(bpe))
    assert closure.closed(state, {5}) == {0, 1, 2, 3, 5}  # by way of bc, never of ab


def test_the_fewest_tokens_that_cover() -> None:
    counts = np.asarray([0, 6, 1, 1, 2, 50])
    assert covering(counts, 0.5, range(5)) == {1}
    assert covering(counts, 0.6, range(5)) == {1}
    assert covering(counts, 0.8, range(5)) == {1, 4}
    assert covering(counts, 0.9, range(5)) == {1, 2, 4}  # of two equals the first
    assert covering(counts, 1.0, range(5)) == {1, 2, 3, 4}
    assert covering(counts, 1.0, [0]) == set()


def test_scripts_keep_their_tokens(tmp_path: Path) -> None:
    vocab = ["[UNK]", "cat", "##на", "кот", "catкот", "42", "ж"]
    state = TokenizerJson.of(Tokenizer(models.WordPiece({t: i for i, t in enumerate(vocab)}, unk_token="[UNK]")))
    assert of_scripts(state, ["Cyrillic"]) == {2, 3, 6}
    assert of_scripts(state, ["latin", "CYRILLIC"]) == {1, 2, 3, 4, 6} | {0}
    with pytest.raises(UsageError, match="Hangul"):
        of_scripts(state, ["Hangul"])
    assert scripts_of("a б 漢, 1") == {"LATIN", "CYRILLIC", "CJK"}


def test_byte_level_tokens_say_text(tmp_path: Path) -> None:
    state = tokenizer_json(load_model(tiny.tiny_qwen3(tmp_path)))
    assert state.byte_level
    assert state.surface("Ġthe") == " the"


def test_unknown_kinds_are_refused() -> None:
    with pytest.raises(ArtifactError, match="WordLevel"):
        TokenizerJson.of(Tokenizer(models.WordLevel({"a": 0}, unk_token="a")))
    with pytest.raises(ArtifactError, match="end_of_word_suffix"):
        TokenizerJson.of(Tokenizer(models.BPE({"a": 0, "a</w>": 1}, [], end_of_word_suffix="</w>")))


def test_a_second_table_is_refused(tmp_path: Path) -> None:
    import torch

    model = load_model(tiny.tiny_bert(tmp_path))
    found = _trimmed(model)
    model.encoder.register_parameter("per_token", torch.nn.Parameter(torch.zeros(len(table_of(model)), 2)))
    with pytest.raises(ArtifactError, match="per_token"):
        replace_vocabulary(model, found.tokenizer, found.kept)


def test_a_vector_that_moved_is_noticed(tmp_path: Path) -> None:
    model = load_model(tiny.tiny_bert(tmp_path))
    before, found = read(model, TEXTS), _trimmed(model)
    replace_vocabulary(model, found.tokenizer, found.kept)
    moved = dataclasses.replace(before, vectors=before.vectors + 1e-4)
    with pytest.raises(GateFailed, match="vectors of covered texts"):
        prove_trim(moved, model, found.kept)


def test_a_special_token_that_is_lost_is_noticed(tmp_path: Path) -> None:
    source = tokenizer_json(load_model(tiny.tiny_bert(tmp_path)))
    state = {**source.state, "post_processor": None}
    with pytest.raises(GateFailed, match="special token"):
        prove_special(source, TokenizerJson(state))
