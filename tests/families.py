"""A tiny random model of each architecture, in the layout in which such models are published.

The tokenizers are of the kinds that ship with them, made here with the tokenizers library: WordPiece, byte-level
BPE, unigram, and BPE over letters that falls back to bytes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tiny
import torch
from tiny import SENTENCES
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

LAYERS, HIDDEN, HEADS, MAX_LENGTH = 4, 32, 4, 48
WINDOW = 8  # tokens: most texts are longer
_SIZES = {
    "hidden_size": HIDDEN,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "intermediate_size": 2 * HIDDEN,
}
_NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
# Not the default, as in Qwen3-Embedding.
_FAST = {
    "rope_theta": 1e6,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1e6},
}
_GROUPED = {"num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 256}


@dataclass(frozen=True)
class Family:
    """How one architecture is published.

    Attributes:
        model: a function of the vocabulary's size that gives the random encoder.
        tokenizer: writes the tokenizer's files into a folder and gives the vocabulary's size.
        dense: widths of the projections behind pooling.
    """

    model: Callable[[int], Any]
    tokenizer: Callable[[Path], int]
    pooling: str = "mean"
    dense: tuple[int, ...] = ()
    prompts: dict[str, str] = field(default_factory=dict)


def write_family(name: str, folder: Path) -> Path:
    """Write the tiny model of family `name`: a sentence-transformers folder."""
    family = FAMILIES[name]
    torch.manual_seed(0)
    folder.mkdir(parents=True, exist_ok=True)
    vocab = family.tokenizer(folder)
    tiny.save_random(family.model(vocab), folder)
    _publish_window(folder / "config.json")
    tiny.write_modules(folder, family.pooling, HIDDEN, family.dense, MAX_LENGTH, family.prompts)
    return folder


def _publish_window(path: Path) -> None:
    config = json.loads(path.read_text(encoding="utf-8"))
    if config.get("use_bidirectional_attention"):  # transformers 4 writes the half that it computes with
        path.write_text(json.dumps(config | {"sliding_window": 2 * WINDOW}), encoding="utf-8")


def _transformer(kind: str, **values: Any) -> Callable[[int], Any]:
    """A random encoder of class `<kind>Model` with the config `<kind>Config`."""

    def build(vocab: int) -> Any:
        import transformers

        config = getattr(transformers, f"{kind}Config")(vocab_size=vocab, **values)
        return getattr(transformers, f"{kind}Model")(config)

    return build


def _mpnet(folder: Path) -> int:
    return tiny.write_wordpiece(
        folder, {"bos_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>", "unk_token": "[UNK]"}, "MPNetTokenizer"
    )


def _byte_bpe(
    first: list[str], named: dict[str, str], template: str, side: str = "right", kind: str | None = None
) -> Callable[[Path], int]:
    """Byte-level BPE whose first ids are the special tokens `first`."""

    def write(folder: Path) -> int:
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        tokenizer.train_from_iterator(
            SENTENCES,
            trainers.BpeTrainer(vocab_size=400, special_tokens=first, initial_alphabet=alphabet, show_progress=False),
        )
        return _finish(folder, tokenizer, first, named, template, side, kind)

    return write


def _unigram(folder: Path) -> int:
    """XLM-R's kind: pieces with scores, spaces as ▁, no lowercasing."""
    first = ["<s>", "<pad>", "</s>", "<unk>"]
    words = sorted({word for text in SENTENCES for word in re.findall(r"\w+", text)})
    pieces = [("▁" + word, -4.0) for word in words] + [("▁", -6.0)] + [(letter, -8.0) for letter in _letters()]
    tokenizer = Tokenizer(models.Unigram([(token, 0.0) for token in first] + pieces, unk_id=3, byte_fallback=False))
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    named = {
        "bos_token": "<s>",
        "pad_token": "<pad>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "cls_token": "<s>",
        "sep_token": "</s>",
    }
    return _finish(folder, tokenizer, first, named, "<s> $A </s>", "right", "XLMRobertaTokenizer")


def _letter_bpe(
    first: list[str], named: dict[str, str], template: str, side: str, kind: str | None = None
) -> Callable[[Path], int]:
    """BPE over letters, as Gemma and Llama have it: spaces are ▁, what is unknown becomes bytes."""

    def write(folder: Path) -> int:
        merges = [("t", "h"), ("th", "e"), ("▁", "the"), ("i", "n"), ("▁", "a"), ("o", "u"), ("e", "r")]
        tokens = [
            *first,
            *(f"<0x{byte:02X}>" for byte in range(256)),
            "▁",
            *_letters(),
            *(left + right for left, right in merges),
        ]
        vocab = {token: index for index, token in enumerate(tokens)}
        tokenizer = Tokenizer(models.BPE(vocab, merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True))
        tokenizer.normalizer = normalizers.Replace(" ", "▁")
        tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
        return _finish(folder, tokenizer, first, named, template, side, kind)

    return write


def _letters() -> list[str]:
    return sorted({letter for text in SENTENCES for letter in text} - {" "})


def _finish(
    folder: Path, tokenizer: Any, special: list[str], named: dict[str, str], template: str, side: str, kind: str | None
) -> int:
    from transformers import PreTrainedTokenizerFast

    tokenizer.add_special_tokens(special)
    used = [(token, tokenizer.token_to_id(token)) for token in special if token in template]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=template, pair=f"{template} $B:1", special_tokens=used
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, padding_side=side, model_max_length=512, **named
    ).save_pretrained(folder)
    tiny.name_tokenizer(
        folder, kind, **({"add_bos_token": True, "add_eos_token": True} if kind == "GemmaTokenizer" else {})
    )
    return int(tokenizer.get_vocab_size())


_ROBERTA = _byte_bpe(
    ["<s>", "<pad>", "</s>", "<unk>", "<mask>"],
    {
        "bos_token": "<s>",
        "pad_token": "<pad>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "cls_token": "<s>",
        "sep_token": "</s>",
        "mask_token": "<mask>",
    },
    "<s> $A </s>",
    kind="RobertaTokenizer",
)


def _two_inputs(write: Callable[[Path], int]) -> Callable[[Path], int]:
    """As published models that know no second segment have it: their tokenizers name the inputs they make."""

    def written(folder: Path) -> int:
        count = write(folder)
        names = ["input_ids", "attention_mask"]
        tiny.name_tokenizer(folder, "PreTrainedTokenizerFast", model_input_names=names)
        return count

    return written


_MODERN = _byte_bpe(
    ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"],
    {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]"},
    "[CLS] $A [SEP]",
)
_QWEN = _byte_bpe(
    ["<|endoftext|>"], {"pad_token": "<|endoftext|>", "eos_token": "<|endoftext|>"}, "$A <|endoftext|>", side="left"
)
_GEMMA = _letter_bpe(
    ["<pad>", "<eos>", "<bos>", "<unk>"],
    {"pad_token": "<pad>", "eos_token": "<eos>", "bos_token": "<bos>", "unk_token": "<unk>"},
    "<bos> $A <eos>",
    "right",
    kind="GemmaTokenizer",
)
_LLAMA = _letter_bpe(
    ["<unk>", "<s>", "</s>"],
    {"pad_token": "</s>", "eos_token": "</s>", "bos_token": "<s>", "unk_token": "<unk>"},
    "<s> $A </s>",
    "left",
)

# Positions of RoBERTa and MPNet begin behind the padding token's id, 1: two rows of the table are never read.
_OFFSET = {"max_position_embeddings": MAX_LENGTH + 2, "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}
_GEMMA_PROMPTS = {"query": "task: search result | query: ", "document": "title: none | text: "}

FAMILIES: dict[str, Family] = {
    "bert": Family(
        _transformer("Bert", **_SIZES, **_NO_DROPOUT, max_position_embeddings=64), tiny.write_wordpiece, "cls"
    ),
    "roberta": Family(_transformer("Roberta", **_SIZES, **_NO_DROPOUT, **_OFFSET, type_vocab_size=1), _ROBERTA),
    "xlm-roberta": Family(
        _transformer("XLMRoberta", **_SIZES, **_NO_DROPOUT, **_OFFSET, type_vocab_size=1),
        _unigram,
        "cls",
        prompts={"query": "query: ", "document": "text: "},
    ),
    "mpnet": Family(_transformer("MPNet", **_SIZES, **_NO_DROPOUT, **_OFFSET), _mpnet),
    "distilbert": Family(
        _transformer(
            "DistilBert",
            dim=HIDDEN,
            n_layers=LAYERS,
            n_heads=HEADS,
            hidden_dim=2 * HIDDEN,
            dropout=0.0,
            attention_dropout=0.0,
            max_position_embeddings=64,
        ),
        _two_inputs(tiny.write_wordpiece),
    ),
    "modernbert": Family(
        _transformer(
            "ModernBert",
            **_SIZES,
            pad_token_id=0,
            cls_token_id=2,
            sep_token_id=3,
            bos_token_id=2,
            eos_token_id=3,
            local_attention=WINDOW,
            max_position_embeddings=256,
        ),
        _two_inputs(_MODERN),
    ),
    "qwen3": Family(
        _transformer("Qwen3", **_SIZES, **_GROUPED, **_FAST, bos_token_id=0, eos_token_id=0, pad_token_id=0),
        _QWEN,
        "lasttoken",
        prompts={"query": tiny.QUERY_PROMPT},
    ),
    "gemma3": Family(
        _transformer(
            "Gemma3Text",
            **_SIZES,
            **_GROUPED,
            query_pre_attn_scalar=8,
            sliding_window=2 * WINDOW,
            use_bidirectional_attention=True,
            layer_types=["sliding_attention", "sliding_attention", "full_attention", "sliding_attention"],
        ),
        _GEMMA,
        "mean",
        (2 * HIDDEN, HIDDEN),
        _GEMMA_PROMPTS,
    ),
    "mistral": Family(
        _transformer("Mistral", **_SIZES, **_GROUPED, sliding_window=WINDOW, bos_token_id=1, eos_token_id=2),
        _LLAMA,
        "lasttoken",
    ),
    "llama": Family(_transformer("Llama", **_SIZES, **_GROUPED, bos_token_id=1, eos_token_id=2), _LLAMA, "mean"),
    "electra": Family(
        _transformer("Electra", **_SIZES, **_NO_DROPOUT, embedding_size=16, max_position_embeddings=64),
        tiny.write_wordpiece,
    ),
    "t5": Family(lambda vocab: _t5(vocab), _unigram, "mean", (HIDDEN,)),
}


def _t5(vocab: int) -> Any:
    from transformers import T5Config, T5EncoderModel

    # Its attention is not scaled by the width of a head: larger weights would make it all or nothing.
    small = {
        "d_model": HIDDEN,
        "d_kv": 8,
        "d_ff": 2 * HIDDEN,
        "num_layers": LAYERS,
        "num_heads": HEADS,
        "relative_attention_num_buckets": 8,
        "initializer_factor": 0.3,
    }
    return T5EncoderModel(T5Config(vocab_size=vocab, **small, dropout_rate=0.0, pad_token_id=1))
