"""Tiny random models in the published sentence-transformers layout, with real tokenizers.

The config files are written by hand, in the form the hub's folders have them, so that reading them is tested too.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

SENTENCES = [
    "The cat sat on the mat and looked at the rain.",
    "A list holds items in order; a set holds each item once.",
    "How do I open a file for reading in Python?",
    "Rain is expected in the north, wind in the west.",
    "Return the number of bytes written to the socket.",
    "What is the capital of France?",
    "Paris is the capital and the largest city of France.",
    "Raise ValueError when the string cannot be parsed.",
    "She bought three apples, two pears and a loaf of bread.",
    "The function returns None if no match was found.",
    "Stars are born in clouds of dust and gas.",
    "Ein kurzer deutscher Satz über das Wetter.",
    "Le chat dort sur le canapé depuis ce matin.",
    "The train to the city leaves every hour, on the hour.",
    "Sort the keys of the dictionary by their values.",
    "Light travels faster than sound through the air.",
    "yes",
    (
        "The committee met on Tuesday to discuss the budget for the coming year, and after a long debate about roads,"
        " schools and the old bridge it put the vote off until spring."
    ),
    "A",
    "Boil the water, add the salt, and cook the pasta for nine minutes.",
]
QUERY_PROMPT = "Instruct: find the text\nQuery:"


def tiny_bert(folder: Path, layers: int = 3, hidden: int = 32, dim: int | None = None, max_length: int = 64) -> Path:
    """A random BERT encoder with mean pooling, a projection to `dim` if given, and Normalize."""
    import torch
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    vocab = write_wordpiece(folder)
    config = BertConfig(
        vocab_size=vocab,
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=4,
        intermediate_size=4 * hidden,
        max_position_embeddings=128,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    save_random(BertModel(config, add_pooling_layer=False), folder)
    write_modules(folder, "mean", hidden, (dim,) if dim else (), max_length, {})
    return folder


def tiny_qwen3(folder: Path, layers: int = 3, hidden: int = 32) -> Path:
    """A random Qwen3 in the layout of Qwen3-Embedding: last-token pooling, left padding, query prompt."""
    import torch
    from transformers import Qwen3Config, Qwen3Model

    torch.manual_seed(0)
    vocab = _byte_bpe(folder)
    config = Qwen3Config(
        vocab_size=vocab,
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=hidden // 4,
        intermediate_size=2 * hidden,
        max_position_embeddings=128,
        max_window_layers=layers,
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=0,
    )
    save_random(Qwen3Model(config), folder)
    write_modules(folder, "lasttoken", hidden, (), 64, {"query": QUERY_PROMPT, "document": ""})
    return folder


def save_random(model: Any, folder: Path) -> None:
    """Save `model` with larger random weights."""
    import torch

    with torch.no_grad():  # the default initialisation leaves attention nearly uniform
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.mul_(4.0)
    model.save_pretrained(folder, safe_serialization=True)


_BERT = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]"}


def write_wordpiece(folder: Path, named: dict[str, str] | None = None, kind: str | None = None) -> int:
    """A WordPiece tokenizer over the words and letters of `SENTENCES`, with the special tokens `named` first; the size
    of its vocabulary.
    """
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    # The library's WordPiece trainer gives other ids from one run to the next.
    words = {word for text in SENTENCES for word in re.findall(r"\w+", text.lower())}
    letters = sorted({letter for word in words for letter in word} | set(".,;?"))
    named = named or _BERT
    begin, end = named.get("cls_token") or named["bos_token"], named.get("sep_token") or named["eos_token"]
    vocab = [*named.values(), *letters, *(f"##{letter}" for letter in letters), *sorted(words - set(letters))]
    tokenizer = Tokenizer(models.WordPiece({token: index for index, token in enumerate(vocab)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    special = [(token, vocab.index(token)) for token in (begin, end)]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{begin} $A {end}", pair=f"{begin} $A {end} $B:1 {end}:1", special_tokens=special
    )
    # As all-MiniLM-L6-v2 ships it: a fixed padding and truncation that must not be obeyed.
    pad = named["pad_token"]
    tokenizer.enable_padding(length=16, pad_id=vocab.index(pad), pad_token=pad)
    tokenizer.enable_truncation(16)
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=128, **named)
    wrapped.save_pretrained(folder)
    name_tokenizer(folder, kind)
    return tokenizer.get_vocab_size()


def _byte_bpe(folder: Path) -> int:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    end = "<|endoftext|>"
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        SENTENCES,
        trainers.BpeTrainer(vocab_size=500, special_tokens=[end], initial_alphabet=alphabet, show_progress=False),
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"$A {end}", pair=f"$A {end} $B:1 {end}:1", special_tokens=[(end, 0)]
    )
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=end, eos_token=end, padding_side="left", model_max_length=128
    )
    wrapped.save_pretrained(folder)
    return tokenizer.get_vocab_size()


def name_tokenizer(folder: Path, kind: str | None, **values: Any) -> None:
    """Write the class that the published folders name, which transformers then builds, and what it is built with."""
    path = folder / "tokenizer_config.json"
    if kind:
        _json(path, json.loads(path.read_text(encoding="utf-8")) | {"tokenizer_class": kind, **values})


def write_modules(
    folder: Path, pooling: str, hidden: int, dense: Sequence[int], max_length: int, prompts: dict[str, str]
) -> None:
    """The module files around an encoder: pooling, a projection to each width in `dense`, Normalize."""
    kinds = ["Transformer", "Pooling", *["Dense"] * len(dense), "Normalize"]
    modules = [
        {
            "idx": i,
            "name": str(i),
            "path": "" if i == 0 else f"{i}_{kind}",
            "type": f"sentence_transformers.models.{kind}",
        }
        for i, kind in enumerate(kinds)
    ]
    _json(folder / "modules.json", modules)
    flags = {"cls": "cls_token", "mean": "mean_tokens", "max": "max_tokens", "lasttoken": "lasttoken"}
    modes = {f"pooling_mode_{flag}": mode == pooling for mode, flag in flags.items()}
    _json(folder / "1_Pooling" / "config.json", {"word_embedding_dimension": hidden, "include_prompt": True, **modes})
    for index, (before, after) in enumerate(pairwise([hidden, *dense]), start=2):
        _dense(folder / f"{index}_Dense", before, after)
    (folder / f"{len(kinds) - 1}_Normalize").mkdir()
    _json(folder / "sentence_bert_config.json", {"max_seq_length": max_length, "do_lower_case": False})
    version = {"sentence_transformers": "2.7.0"}
    _json(
        folder / "config_sentence_transformers.json",
        {"__version__": version, "prompts": prompts, "default_prompt_name": None, "similarity_fn_name": "cosine"},
    )


def _dense(folder: Path, before: int, after: int) -> None:
    import torch
    from safetensors.torch import save_file

    _json(
        folder / "config.json",
        {
            "in_features": before,
            "out_features": after,
            "bias": False,
            "activation_function": "torch.nn.modules.linear.Identity",
        },
    )
    save_file({"linear.weight": torch.randn(after, before) / before**0.5}, folder / "model.safetensors")


def _json(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")


def tiny_student(
    folder: Path, layers: int = 3, hidden: int = 32, dim: int = 48, exits: tuple[int, ...] = (1, 2, 3)
) -> Path:
    """A student as `emb distill` leaves it: one head per exit, and `emb.json`."""
    import dataclasses
    import tempfile

    import torch

    from emb.artifact.lineage import Lineage, TeacherRecord
    from emb.artifact.manifest import Kind, Manifest, PairScores
    from emb.model.dense import linear
    from emb.model.embedding_model import EmbeddingModel, load_model, save_model

    with tempfile.TemporaryDirectory() as base:
        start = load_model(tiny_bert(Path(base) / "base", layers, hidden))
    heads: dict[int, torch.nn.Module] = {n: linear(torch.randn(dim, hidden) / hidden**0.5) for n in exits}
    spec = dataclasses.replace(start.spec, prompts={"query": "query: ", "document": ""})
    save_model(EmbeddingModel(start.encoder, start.hf_tokenizer, spec, heads), folder)
    pairs = [PairScores(n, d, cosine=0.5, overlap=0.5) for n in exits for d in (dim // 3, dim)]
    lineage = Lineage(TeacherRecord("tiny-teacher", fingerprint="0" * 64), seed=0)
    Manifest(
        Kind.STUDENT,
        exits[-1],
        dim,
        spec.pooling,
        spec.normalize,
        spec.max_length,
        dict(spec.prompts),
        pairs,
        lineage=lineage,
    ).save(folder)
    return folder
