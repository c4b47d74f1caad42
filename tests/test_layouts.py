"""Folders as people publish them: each gives sentence-transformers' own vectors through `emb.load`, or is refused by name."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from families import write_family
from sentence_transformers import SentenceTransformer
from tiny import QUERY_PROMPT, tiny_bert, write_modules

from emb.errors import ArtifactError
from emb.export import export
from emb.serve.encoder import load
from emb.similarity import cosines

TEXTS = ["yes", "How do I open a file for reading in Python?", "the cat and the rain and the old bridge " * 20, "Ein Satz über das Wetter."]
_E5 = {"query": "query: ", "passage": "passage: ", "clustering": "cluster: "}


def _family(name: str) -> Callable[[Path], Path]:
    return lambda folder: write_family(name, folder)


def _edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | changes), encoding="utf-8")


def _with_dense(folder: Path) -> Path:
    tiny_bert(folder, dim=24)
    _edit(folder / "2_Dense" / "config.json", activation_function="torch.nn.modules.activation.Tanh")
    return folder


def _with_prompts(folder: Path) -> Path:
    tiny_bert(folder)
    _edit(folder / "config_sentence_transformers.json", prompts=_E5, default_prompt_name="query")
    return folder


def _dot(folder: Path) -> Path:
    tiny_bert(folder)
    modules = json.loads((folder / "modules.json").read_text(encoding="utf-8"))
    (folder / "modules.json").write_text(json.dumps([one for one in modules if "Normalize" not in one["type"]]), encoding="utf-8")
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
    (folder / "modules.json").write_text(json.dumps([modules[0] | {"path": "0_Transformer"}, *modules[1:]]), encoding="utf-8")
    (folder / "config_sentence_transformers.json").unlink()
    (folder / "sentence_bert_config.json").unlink()
    return folder


def _static() -> Any:
    from sentence_transformers.models import StaticEmbedding
    from tokenizers import Tokenizer, models

    return StaticEmbedding(Tokenizer(models.WordLevel({"a": 0, "b": 1}, unk_token="a")), embedding_dim=8)


def _saved(build: Callable[[], Any]) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            SentenceTransformer(modules=[build()], device="cpu").save(str(folder))
        return folder

    return write


def _router() -> Any:
    from sentence_transformers.models import Router

    return Router({"query": [_static()], "document": [_static()]}, default_route="document")


CARRIED: dict[str, Callable[[Path], Path]] = {
    "bert": _family("bert"), "mpnet": _family("mpnet"), "qwen3": _family("qwen3"), "modernbert": _family("modernbert"),
    "xlm-r": _family("xlm-roberta"), "t5": _family("t5"), "dense": _with_dense, "prompts": _with_prompts, "dot": _dot, "legacy": _legacy,
}  # fmt: skip
REFUSED = {"static": (_saved(_static), "StaticEmbedding"), "router": (_saved(_router), "Router")}


@pytest.mark.parametrize("layout", CARRIED)
def test_vectors_are_those_of_sentence_transformers(layout: str, tmp_path: Path) -> None:
    folder = CARRIED[layout](tmp_path / layout)
    theirs, ours = SentenceTransformer(str(folder), device="cpu"), load(folder)
    assert ours.similarity_fn_name == (theirs.similarity_fn_name or "cosine") == ("dot" if layout == "dot" else "cosine")
    for prompt in ("", QUERY_PROMPT):
        expected = np.stack([theirs.encode(text, prompt=prompt) for text in TEXTS])
        assert cosines(expected, ours.encode(TEXTS, prompt=prompt)).min() >= 0.9999
    np.testing.assert_allclose(ours.encode_query(TEXTS), np.stack([theirs.encode_query(text) for text in TEXTS]), atol=2e-5)


@pytest.mark.parametrize("layout", [name for name in CARRIED if name not in ("modernbert", "xlm-r", "mpnet")])
def test_exports_give_the_same(layout: str, tmp_path: Path) -> None:
    folder = CARRIED[layout](tmp_path / layout)
    [artifact] = export(folder, out=tmp_path / "out", calibration_texts=TEXTS * 4)
    before, after = load(folder), load(artifact)
    assert type(after).__name__ == "OnnxEncoder"
    for kind in ("query", "document"):
        assert cosines(before.encode(TEXTS, kind=kind), after.encode(TEXTS, kind=kind)).min() >= 0.9999


@pytest.mark.parametrize("layout", REFUSED)
def test_what_is_not_carried_is_refused_by_name(layout: str, tmp_path: Path) -> None:
    write, module = REFUSED[layout]
    with pytest.raises(ArtifactError, match=rf"modules {module} are not supported") as refused:
        load(write(tmp_path / layout))
    assert "Transformer, Pooling" in refused.value.hint
