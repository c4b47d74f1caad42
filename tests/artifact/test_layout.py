"""The files around an encoder: what transformers 5 renamed is there under its former names too."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from emb.artifact.layout import write_older_keys

FULL, SLIDING = {"rope_type": "default", "rope_theta": 5.0}, {"rope_type": "default", "rope_theta": 3.0}
KINDS = ["full_attention", "sliding_attention", "sliding_attention", "sliding_attention", "full_attention"]
CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "one rope": ({"rope_parameters": FULL}, {"rope_theta": 5.0}),
    "a stretched rope": (
        {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 5.0}},
        {"rope_theta": 5.0, "rope_scaling": {"rope_type": "linear", "factor": 2.0}},
    ),
    "gemma": (
        {"model_type": "gemma3_text", "rope_parameters": {"full_attention": FULL, "sliding_attention": SLIDING}},
        {"rope_theta": 5.0, "rope_local_base_freq": 3.0},
    ),
    "modernbert": (
        {
            "model_type": "modernbert",
            "layer_types": KINDS,
            "rope_parameters": {"full_attention": FULL, "sliding_attention": SLIDING},
        },
        {"global_rope_theta": 5.0, "local_rope_theta": 3.0, "global_attn_every_n_layers": 4},
    ),
    "modernbert cut to two layers": (
        {
            "model_type": "modernbert",
            "layer_types": KINDS[:2],
            "rope_parameters": {"full_attention": FULL, "sliding_attention": SLIDING},
        },
        {"global_rope_theta": 5.0, "local_rope_theta": 3.0, "global_attn_every_n_layers": 2},
    ),
    "distilbert": ({"dim": 32, "n_layers": 2}, {"hidden_size": 32, "num_hidden_layers": 2}),
    "bert": ({"hidden_size": 32, "pad_token_id": 0}, {}),
}


@pytest.mark.parametrize("name", CASES)
def test_older_keys_are_added_and_newer_ones_stay(tmp_path: Path, name: str) -> None:
    given, added = CASES[name]
    (tmp_path / "config.json").write_text(json.dumps(given))
    write_older_keys(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text()) == given | added


def test_a_pad_token_that_is_none_is_not_named(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"pad_token_id": null, "eos_token_id": null}')
    write_older_keys(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text()) == {"eos_token_id": None}


def test_what_is_there_already_is_kept(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"rope_theta": 7.0, "rope_parameters": FULL}))
    write_older_keys(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["rope_theta"] == 7.0


def test_a_saved_qwen3_says_its_rope_twice_and_loads_as_before(qwen3_folder: Path, tmp_path: Path) -> None:
    import torch

    from emb.model.embedding_model import load_model, save_model

    model = load_model(qwen3_folder)
    rope = {"rope_type": "default", "rope_theta": 1e6}
    config = model.encoder.config
    config.update({"rope_parameters": rope} if hasattr(config, "rope_parameters") else {"rope_theta": 1e6})
    save_model(model, tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["rope_theta"] == 1e6
    again = load_model(tmp_path)
    assert getattr(again.encoder.config, "rope_parameters", rope) == rope
    assert all(
        torch.equal(ours, theirs)
        for ours, theirs in zip(model.encoder.parameters(), again.encoder.parameters(), strict=True)
    )
