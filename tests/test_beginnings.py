"""Of a long text no more is tokenised than what its tokens come from, and they are those of the whole."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from emb import beginnings, tokens
from emb.beginnings import Beginnings
from emb.tokens import TextTokenizer, count_cut

_QWEN = max(beginnings._PATTERNS, key=len)
_WORDS = ["the", "cat", "sat", "on", "un", "mats", "x1", "42", "don't", "we'll", "end.", "(so)", "naïve", "İ", "ΑΣ"]
_ODD = [
    *" \t\n\r\u00a0\u3000.,;[]#'$",
    "  ",
    " \u0308",
    "e\u0301",
    "漢",
    "字仮",
    "😀",
    "\u200b",
    "\ud7ff",
    "[SEP]",
    "<x>",
    "ﬁ",
]


def _trained(model: Any, trainer: Any, normalizer: Any, split: Any) -> Tokenizer:
    made = Tokenizer(model)
    made.normalizer, made.pre_tokenizer = normalizer, split
    made.train_from_iterator([" ".join(_WORDS * 3), "".join(_WORDS), "漢字 仮名 😀"] * 4, trainer)
    return made


def _bert() -> Tokenizer:
    trainer = trainers.WordPieceTrainer(vocab_size=150, special_tokens=["[UNK]", "[CLS]", "[SEP]"])
    made = _trained(
        models.WordPiece(unk_token="[UNK]"), trainer, normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    )
    made.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", None, [("[CLS]", 1), ("[SEP]", 2)])
    return made


def _bytes(split: Any, normalizer: Any = None) -> Tokenizer:
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=["<x>"])
    return _trained(models.BPE(), trainer, normalizer or normalizers.NFC(), split)


def _unigram() -> Tokenizer:
    trainer = trainers.UnigramTrainer(vocab_size=120, unk_token="<unk>", special_tokens=["<unk>", "<x>"])
    normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")])
    made = _trained(models.Unigram(), trainer, normalizer, pre_tokenizers.Metaspace())
    made.decoder = decoders.Metaspace()
    return made


def _words() -> Tokenizer:
    trainer = trainers.WordLevelTrainer(special_tokens=["[UNK]"])
    split = pre_tokenizers.Sequence([pre_tokenizers.Whitespace(), pre_tokenizers.Digits(True)])
    return _trained(models.WordLevel(unk_token="[UNK]"), trainer, normalizers.Lowercase(), split)


KNOWN: dict[str, Callable[[], Tokenizer]] = {
    "bert": _bert,
    "gpt2": lambda: _bytes(pre_tokenizers.ByteLevel(add_prefix_space=True)),
    "qwen": lambda: _bytes(
        pre_tokenizers.Sequence(
            [pre_tokenizers.Split(Regex(_QWEN), "isolated"), pre_tokenizers.ByteLevel(False, use_regex=False)]
        )
    ),
    "unigram": _unigram,
    "words": _words,
}


def _text(chosen: random.Random) -> str:
    kinds = [_WORDS, _ODD, _WORDS + [" "] * 12, ["漢", "字", "."], list("ab .")]
    return "".join(chosen.choice(kind) for kind in chosen.choices(kinds, k=12) for _ in range(chosen.randrange(1, 12)))


@pytest.mark.parametrize("lowercase", [False, True])
@pytest.mark.parametrize("kind", KNOWN)
def test_tokens_are_those_of_the_whole_text(kind: str, lowercase: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens, "_BEGINNING", 1)
    monkeypatch.setattr(tokens, "_MORE", 2)
    inner, chosen = KNOWN[kind](), random.Random(kind)
    inner.add_special_tokens([AddedToken("<m>", lstrip=True, rstrip=True), "[SEP]"])
    texts = [_text(chosen) for _ in range(400)] + ["", " ", "a", "a b " * 50]
    for length in (3, 8, 17):
        tokenizer = TextTokenizer(inner, max_length=length, pad_id=0, lowercase=lowercase)
        assert tokenizer._beginnings._at is not None
        found = tokenizer.read(texts, "query: ")
        whole = inner.encode_batch_fast(tokenizer.written(texts, "query: "))
        assert [ids.tolist() for ids, _ in found] == [each.ids for each in whole]
        assert [cut for _, cut in found] == [bool(each.overflowing) for each in whole]
        assert sum(cut for _, cut in found) == count_cut(tokenizer, texts, "query: ").cut


class _Counting:
    """A tokenizer that counts the characters it is given."""

    def __init__(self, inner: Tokenizer) -> None:
        self.inner, self.characters = inner, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def encode_batch_fast(self, texts: Sequence[str]) -> Any:
        self.characters += sum(map(len, texts))
        return self.inner.encode_batch_fast(texts)

    def encode(self, text: str) -> Any:
        self.characters += len(text)
        return self.inner.encode(text)


LONG = {"words": "the cat sat on mats. " * 50_000, "signs": ".,;" * 300_000, "ideographs": "漢字" * 400_000}


@pytest.mark.parametrize(
    ("kind", "text", "side", "most"),
    [
        *((kind, "words", "right", 20_000) for kind in KNOWN),
        ("bert", "signs", "right", 20_000),
        ("bert", "ideographs", "right", 20_000),
        ("bert", "words", "left", len(LONG["words"])),  # what is read is the end
        ("qwen", "signs", "right", len(LONG["signs"])),
    ],
)
def test_no_more_is_tokenised_than_what_can_matter(kind: str, text: str, side: str, most: int) -> None:
    inner: Any = _Counting(KNOWN[kind]())
    tokenizer = TextTokenizer(inner, max_length=64, pad_id=0, side=side)
    [(ids, cut)] = tokenizer.read([LONG[text]])
    assert (len(ids), cut) == (64, True)
    assert inner.characters <= most


def test_of_a_text_whose_end_is_kept_the_end_is_read() -> None:
    inner, text = _bert(), "the cat " * 1000 + "sat on mats"
    tokenizer = TextTokenizer(inner, max_length=8, pad_id=0, side="left")
    [(ids, cut)] = tokenizer.read([text])
    assert (ids.tolist(), cut) == (inner.encode(text).ids, True)
    assert ids.tolist() != tokenizer.read(["the cat " * 1000])[0][0].tolist()


@pytest.mark.parametrize("text", ["a" * 200_000, " " * 200_000, "the cat " * 3])
def test_a_text_that_cannot_be_cut_or_need_not_be_is_tokenised_once(text: str) -> None:
    inner: Any = _Counting(_bert())
    TextTokenizer(inner, max_length=64, pad_id=0).read([text])
    assert inner.characters == len(text)


def _with(**parts: Any) -> Tokenizer:
    made = _words()
    for name, part in parts.items():
        setattr(made, name, part)
    return made


def _with_token(content: str) -> Tokenizer:
    made = _words()
    made.add_tokens([AddedToken(content)])
    return made


@pytest.mark.parametrize(
    "made",
    [
        lambda: _with(pre_tokenizer=None),
        lambda: _with(pre_tokenizer=pre_tokenizers.Metaspace(split=False)),
        lambda: _with(pre_tokenizer=pre_tokenizers.Split(Regex(r"\w+ \w+"), "isolated")),
        lambda: _with(pre_tokenizer=pre_tokenizers.Split(" ", "merged_with_previous")),
        lambda: _with(pre_tokenizer=pre_tokenizers.Digits()),
        lambda: _with(pre_tokenizer=pre_tokenizers.ByteLevel(use_regex=False)),
        lambda: _with(pre_tokenizer=pre_tokenizers.PreTokenizer.custom(object())),
        lambda: _with(normalizer=normalizers.Replace(" ", "▁")),
        lambda: _with(normalizer=normalizers.Replace(Regex(r"\w \w"), "x")),
        lambda: _with(normalizer=normalizers.Sequence([normalizers.NFC(), normalizers.Replace("a", "")])),
        lambda: _with_token("two words"),
        lambda: _with_token("behind "),
        lambda: _with_token(" before"),
    ],
)
def test_tokenizers_that_may_look_across_a_cut_get_whole_texts(made: Callable[[], Tokenizer]) -> None:
    assert Beginnings(made()).of(LONG["words"], 10) == LONG["words"]


def test_a_bpe_that_drops_merges_gets_whole_texts() -> None:
    made = _bytes(pre_tokenizers.ByteLevel())
    assert len(Beginnings(made).of(LONG["words"], 10)) < 20
    made.model.dropout = 0.1
    assert Beginnings(made).of(LONG["words"], 10) == LONG["words"]


def test_signs_of_an_added_token_are_not_cut_through() -> None:
    made = _bert()
    assert len(Beginnings(made).of(LONG["signs"], 10)) < 20
    made.add_tokens(["<|end|>"])
    found = Beginnings(made)
    assert found.of(LONG["signs"], 10) == LONG["signs"]
    assert len(found.of(LONG["words"], 10)) < 20
