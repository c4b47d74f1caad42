"""Models that bring code of their own: refused with the option that allows them, and carried through every command with
it.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer
from tiny import SENTENCES, tiny_bert

import emb
from emb.errors import ArtifactError, EmbError
from emb.evaluate.evaluate import evaluate
from emb.runtime.encoder import ArtifactEncoder

_CODE = """
from transformers import BertConfig, BertModel

class OwnConfig(BertConfig):
    model_type = "own"

class OwnModel(BertModel):
    config_class = OwnConfig

    def forward(self, *args, **kwargs):
        output = super().forward(*args, **kwargs)
        output.last_hidden_state = output.last_hidden_state * 2 + 1
        return output
"""


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A folder whose vectors nobody gets without its code."""
    folder = tiny_bert(tmp_path / "own")
    (folder / "modeling_own.py").write_text(_CODE, encoding="utf-8")
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    named = {
        "model_type": "own",
        "architectures": ["OwnModel"],
        "auto_map": {"AutoConfig": "modeling_own.OwnConfig", "AutoModel": "modeling_own.OwnModel"},
    }
    (folder / "config.json").write_text(json.dumps(config | named), encoding="utf-8")
    return folder


def _sts(folder: Path) -> Path:
    path = folder / "sts.tsv"
    rows = [f"{a}\t{b}\t{number % 5}" for number, (a, b) in enumerate(itertools.pairwise(SENTENCES))]
    path.write_text("\n".join(["sentence1\tsentence2\tscore", *rows]) + "\n", encoding="utf-8")
    return path


_USES: dict[str, Callable[[Path, Path, dict[str, Any]], Any]] = {
    "load": lambda own, at, trust: emb.load(own, **trust),
    "export": lambda own, at, trust: emb.export(own, out=at / "out", calibration_texts=SENTENCES, **trust),
    "grid": lambda own, at, trust: emb.export_grid(
        own, dims=[16], out=at / "grid", calibration_texts=SENTENCES, **trust
    ),
    "evaluate": lambda own, at, trust: evaluate([own], data=[str(_sts(at))], **trust),
    "distill": lambda own, at, trust: emb.distill(
        teacher=str(own), data=[_texts(at)], out=at / "run", max_steps=2, **trust
    ),
}


def _texts(at: Path) -> str:
    (at / "texts.txt").write_text("\n".join(f"{a} {b}" for a in SENTENCES for b in SENTENCES[:4]), encoding="utf-8")
    return str(at / "texts.txt")


@pytest.mark.parametrize("use", _USES)
def test_its_code_runs_only_when_it_is_allowed(use: str, own: Path, tmp_path: Path) -> None:
    with pytest.raises(EmbError) as refused:
        _USES[use](own, tmp_path, {})
    assert "--trust-remote-code" in refused.value.hint
    _USES[use](own, tmp_path, {"trust_remote_code": True})


def test_an_export_of_it_needs_the_code_in_torch_alone(own: Path, tmp_path: Path) -> None:
    [artifact] = emb.export(own, out=tmp_path / "out", calibration_texts=SENTENCES, trust_remote_code=True)
    expected = SentenceTransformer(str(own), device="cpu", trust_remote_code=True).encode(SENTENCES)
    encoder = emb.load(artifact)
    assert isinstance(encoder, ArtifactEncoder)
    np.testing.assert_allclose(encoder.encode(SENTENCES), expected, atol=2e-5)
    with pytest.raises(ArtifactError) as refused:
        emb.validate(artifact, texts=SENTENCES)
    assert "--trust-remote-code" in refused.value.hint
    assert emb.validate(artifact, texts=SENTENCES, trust_remote_code=True).passed
