"""Folders as people publish them: each gives sentence-transformers' own vectors through `emb.load`, or is refused by
name.
"""

from __future__ import annotations

import inspect
import itertools
import json
import shlex
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from families import write_family
from sentence_transformers import SentenceTransformer
from tiny import QUERY_PROMPT, tiny_bert, write_modules, write_wordpiece

from emb.errors import ArtifactError
from emb.export import export
from emb.runtime.encoder import load
from emb.similarity import cosines

TEXTS = [
    "yes",
    "How do I open a file for reading in Python?",
    "the cat and the rain and the old bridge " * 20,
    "Ein Satz über das Wetter.",
]
_E5 = {"query": "query: ", "passage": "passage: ", "clustering": "cluster: "}


def _family(name: str) -> Callable[[Path], Path]:
    return lambda folder: write_family(name, folder)


def _edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | changes), encoding="utf-8")


def _with_dense(folder: Path) -> Path:
    tiny_bert(folder, dim=24)
    _edit(folder / "2_Dense" / "config.json", activation_function="torch.nn.modules.activation.Tanh")
    return folder


def _with_residual(folder: Path) -> Path:
    """Two projections with the input added: one of other width, which projects it too, and one of the same."""
    from sentence_transformers.models import Dense

    if "use_residual" not in inspect.signature(Dense).parameters:
        pytest.skip("this sentence-transformers has no residual Dense")
    torch.manual_seed(0)
    started = SentenceTransformer(str(tiny_bert(folder / "base")), device="cpu")
    modules = [
        started[0],
        started[1],
        Dense(32, 24, use_residual=True),
        Dense(24, 24, activation_function=torch.nn.ReLU(), use_residual=True),
        started[2],
    ]
    SentenceTransformer(modules=modules, device="cpu").save(str(folder / "whole"))
    return folder / "whole"


def _with_prompts(folder: Path) -> Path:
    tiny_bert(folder)
    _edit(folder / "config_sentence_transformers.json", prompts=_E5, default_prompt_name="query")
    return folder


def _dot(folder: Path) -> Path:
    tiny_bert(folder)
    modules = json.loads((folder / "modules.json").read_text(encoding="utf-8"))
    (folder / "modules.json").write_text(
        json.dumps([one for one in modules if "Normalize" not in one["type"]]), encoding="utf-8"
    )
    _edit(folder / "config_sentence_transformers.json", similarity_fn_name="dot")
    return folder


def _legacy(folder: Path) -> Path:
    """Before 2.0: the encoder in a folder of its own, keys of that time, nothing about prompts."""
    inner = write_family("bert", folder / "0_Transformer")
    for name in ("modules.json", "config_sentence_transformers.json"):
        (inner / name).unlink()
    for name in ("1_Pooling", "2_Normalize"):
        shutil.rmtree(inner / name)
    write_modules(folder, "mean", 32, (), 48, {})
    modules = json.loads((folder / "modules.json").read_text(encoding="utf-8"))
    (folder / "modules.json").write_text(
        json.dumps([modules[0] | {"path": "0_Transformer"}, *modules[1:]]), encoding="utf-8"
    )
    (folder / "config_sentence_transformers.json").unlink()
    (folder / "sentence_bert_config.json").unlink()
    return folder


def _rows() -> Any:
    from sentence_transformers.models import StaticEmbedding
    from tokenizers import Tokenizer, models

    return StaticEmbedding(Tokenizer(models.WordLevel({"a": 0, "b": 1}, unk_token="a")), embedding_dim=8)


def _static(folder: Path) -> Path:
    """A table of token rows over a tokenizer that would add special tokens, and a projection."""
    from sentence_transformers.models import Dense, Normalize, StaticEmbedding
    from tokenizers import Tokenizer

    write_wordpiece(folder / "tokenizer")
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer" / "tokenizer.json"))
    tokenizer.no_truncation()
    torch.manual_seed(0)
    SentenceTransformer(
        modules=[StaticEmbedding(tokenizer, embedding_dim=32), Dense(32, 24), Normalize()], device="cpu"
    ).save(str(folder / "whole"))
    return folder / "whole"


def _saved(folder: Path, *modules: Any) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        SentenceTransformer(modules=list(modules), device="cpu").save(str(folder))
    return folder


def _router(folder: Path) -> Path:
    """Queries by token rows, documents by a transformer that is pooled by its first token: no default of anything."""
    from sentence_transformers.models import Normalize, Pooling, Router

    encoder = SentenceTransformer(str(tiny_bert(folder.parent / "base")), device="cpu")[0]
    return _saved(
        folder,
        Router({"query": [_rows()], "document": [encoder, Pooling(32, "cls")]}, default_route="document"),
        Normalize(),
    )


CARRIED: dict[str, Callable[[Path], Path]] = {
    "bert": _family("bert"),
    "mpnet": _family("mpnet"),
    "qwen3": _family("qwen3"),
    "modernbert": _family("modernbert"),
    "xlm-r": _family("xlm-roberta"),
    "t5": _family("t5"),
    "dense": _with_dense,
    "residual": _with_residual,
    "prompts": _with_prompts,
    "dot": _dot,
    "legacy": _legacy,
    "static": _static,
}


@pytest.mark.parametrize("layout", CARRIED)
def test_vectors_are_those_of_sentence_transformers(layout: str, tmp_path: Path) -> None:
    folder = CARRIED[layout](tmp_path / layout)
    theirs, ours = SentenceTransformer(str(folder), device="cpu"), load(folder)
    assert (
        ours.similarity_fn_name == (theirs.similarity_fn_name or "cosine") == ("dot" if layout == "dot" else "cosine")
    )
    for prompt in ("", QUERY_PROMPT):
        expected = np.stack([theirs.encode(text, prompt=prompt) for text in TEXTS])
        assert cosines(expected, ours.encode(TEXTS, prompt=prompt)).min() >= 0.9999
    np.testing.assert_allclose(
        ours.encode_query(TEXTS), np.stack([theirs.encode_query(text) for text in TEXTS]), atol=2e-5
    )


@pytest.mark.parametrize("layout", [name for name in CARRIED if name not in ("modernbert", "xlm-r", "mpnet")])
def test_exports_give_the_same(layout: str, tmp_path: Path) -> None:
    folder = CARRIED[layout](tmp_path / layout)
    [artifact] = export(folder, out=tmp_path / "out", calibration_texts=TEXTS * 4)
    before, onnx, torch_ = load(folder), load(artifact), load(artifact, backend="torch")
    assert [type(each).__name__ for each in (onnx, torch_)] == ["ArtifactEncoder", "TorchEncoder"]
    for after, kind in itertools.product((onnx, torch_), ("query", "document")):
        assert cosines(before.encode(TEXTS, kind=kind), after.encode(TEXTS, kind=kind)).min() >= 0.9999


def test_a_router_is_refused_with_the_command_that_makes_a_folder_of_one_side(tmp_path: Path) -> None:
    folder = _router(tmp_path / "router")
    with pytest.raises(ArtifactError, match="modules Router, Normalize are not supported") as refused:
        load(folder)
    subprocess.run(
        shlex.split(refused.value.hint.partition(": ")[2].replace("python", sys.executable, 1)),
        check=True,
        capture_output=True,
    )
    expected = SentenceTransformer(str(folder), device="cpu").encode_document(TEXTS)
    np.testing.assert_allclose(load(tmp_path / "router-document").encode_document(TEXTS), expected, atol=2e-5)


def test_an_unknown_order_of_modules_is_refused_by_name(tmp_path: Path) -> None:
    from sentence_transformers.models import Normalize

    with pytest.raises(
        ArtifactError, match="modules StaticEmbedding, Normalize, Normalize are not supported"
    ) as refused:
        load(_saved(tmp_path / "twice", _rows(), Normalize(), Normalize()))
    assert "in this order: Transformer and Pooling" in refused.value.hint
