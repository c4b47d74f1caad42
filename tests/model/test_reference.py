"""Whatever folder is loaded gives sentence-transformers' own vectors, or is refused by what is not carried."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from emb.errors import ArtifactError
from emb.model.embedding_model import EmbeddingModel, load_model, open_sentence_transformer, save_model
from emb.model.reference import check_reference
from emb.similarity import cosines
from emb.tokens import TextTokenizer, prompt_of

TEXTS = [
    "The cat sat on the mat.",
    "yes",
    "How do I open a file?",
    " ".join(f"the {word}" for word in "abcdefghijklmnopqrstuvwxyz" * 3),
]


def _copy(folder: Path, to: Path, **files: dict[str, Any]) -> Path:
    """A copy with some keys of some JSON files changed; `__` stands for the `/` of a path."""
    shutil.copytree(folder, to)
    for name, changes in files.items():
        path = to / (name.replace("__", "/") + ".json")
        path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), **changes}), encoding="utf-8")
    return to


def _ours(model: EmbeddingModel, texts: list[str]) -> np.ndarray[Any, Any]:
    tokenizer = model.tokenizer()
    batches = [tokenizer.pad(rows) for rows in ([row] for row in tokenizer.encode(texts))]
    with torch.inference_mode():
        return np.concatenate([model.embed(*(torch.from_numpy(array) for array in batch)).numpy() for batch in batches])


def _reference(folder: Path, texts: list[str], **how: Any) -> np.ndarray[Any, Any]:
    loaded = open_sentence_transformer(folder)
    return np.stack([loaded.encode(text, show_progress_bar=False, **how) for text in texts])


def test_a_folder_without_modules_says_which_pooling_it_got(
    qwen3_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from sentence_transformers import SentenceTransformer

    folder = Path(shutil.copytree(qwen3_folder, tmp_path / "plain"))
    for name in ("modules.json", "config_sentence_transformers.json", "sentence_bert_config.json"):
        (folder / name).unlink(missing_ok=True)
    shutil.rmtree(folder / "1_Pooling")
    model = load_model(folder)
    assert f"no modules.json, so {model.spec.pooling} pooling is taken" in " ".join(capsys.readouterr().err.split())
    assert model.spec.pooling == SentenceTransformer(str(folder), device="cpu")[1].get_config_dict()["pooling_mode"]
    load_model(qwen3_folder)
    assert "modules.json" not in capsys.readouterr().err


def test_a_tokenizer_that_cuts_at_the_beginning_does_so_here_and_when_saved(bert_folder: Path, tmp_path: Path) -> None:
    folder = _copy(
        bert_folder,
        tmp_path / "left",
        tokenizer_config={"truncation_side": "left"},
        sentence_bert_config={"max_seq_length": 12},
    )
    expected = _reference(folder, TEXTS)
    assert (
        cosines(
            expected[-1:],
            _reference(_copy(bert_folder, tmp_path / "r", sentence_bert_config={"max_seq_length": 12}), TEXTS[-1:]),
        )
        < 0.999
    )
    save_model(load_model(folder), tmp_path / "saved")
    for place in (folder, tmp_path / "saved"):
        assert cosines(expected, _ours(load_model(place), TEXTS)).min() > 0.99999
    alone = TextTokenizer.from_folder(tmp_path / "saved", 12).encode(TEXTS)
    assert [row.tolist() for row in alone] == [row.tolist() for row in load_model(folder).tokenizer().encode(TEXTS)]


def test_prompts_default_and_similarity_are_kept(bert_folder: Path, tmp_path: Path) -> None:
    prompts = {"query": "find ", "document": "", "clustering": "sort by subject: "}
    settings = {"prompts": prompts, "default_prompt_name": "clustering", "similarity_fn_name": "dot"}
    folder = _copy(bert_folder, tmp_path / "m", config_sentence_transformers=settings)
    save_model(load_model(folder), tmp_path / "saved")
    saved = open_sentence_transformer(tmp_path / "saved")
    assert (dict(saved.prompts), saved.default_prompt_name, saved.similarity_fn_name) == (prompts, "clustering", "dot")
    assert cosines(_reference(folder, TEXTS), _reference(tmp_path / "saved", TEXTS)).min() > 0.99999


def test_prompts_that_sentence_transformers_would_not_take_are_told(
    bert_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    load_model(_copy(bert_folder, tmp_path / "e5", config_sentence_transformers={"prompts": {"passage": "text: "}}))
    assert "documents are read behind 'text: '" in " ".join(capsys.readouterr().err.split())
    load_model(_copy(bert_folder, tmp_path / "m", config_sentence_transformers={"prompts": {"document": "text: "}}))
    assert "documents are read" not in capsys.readouterr().err


def test_documents_may_be_called_passages_or_a_corpus() -> None:
    assert prompt_of({"query": "q: ", "document": "", "passage": "p: ", "corpus": "c: "}, "document") == "p: "
    assert prompt_of({"corpus": "c: "}, "document") == "c: "
    assert prompt_of({"document": "d: ", "passage": "p: "}, "document") == "d: "
    assert prompt_of({"query": "q: ", "passage": "p: "}, "query") == "q: "
    assert prompt_of({"passage": "p: "}, "query") == ""


def test_lower_case_follows_the_tokenizer_and_not_python(bert_folder: Path, tmp_path: Path) -> None:
    folder = _copy(bert_folder, tmp_path / "m", sentence_bert_config={"do_lower_case": True})
    texts = ["ΟΔΥΣΣΕΥΣ", "İstanbul", "[CLS] A [SEP]"]
    assert cosines(_reference(folder, texts), _ours(load_model(folder), texts)).min() > 0.99999


@pytest.mark.parametrize(
    ("file", "changes", "named"),
    [
        ("2_Dense__config", {"module_output_name": "other"}, "module_output_name"),
        ("2_Dense__config", {"module_input_name": "token_embeddings"}, "module_input_name"),
        ("1_Pooling__config", {"pooling_mode_mean_tokens": False, "pooling_mode_max_tokens": True}, "max"),
    ],
)
def test_a_setting_that_is_not_carried_is_refused_by_name(
    tmp_path: Path, file: str, changes: dict[str, Any], named: str
) -> None:
    from tiny import tiny_bert

    tiny_bert(tmp_path / "m", dim=32)
    with pytest.raises(ArtifactError, match=rf"changed: .*{named}"):
        load_model(_copy(tmp_path / "m", tmp_path / "changed", **{file: changes}))


def test_a_window_beyond_the_trained_positions_is_refused(qwen3_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="window of 300 tokens, its positions were trained up to 128") as caught:
        load_model(_copy(qwen3_folder, tmp_path / "m", sentence_bert_config={"max_seq_length": 300}))
    assert "max_seq_length to 128" in caught.value.hint


def test_the_legacy_layout_of_a_transformer_in_a_folder_of_its_own(bert_folder: Path, tmp_path: Path) -> None:
    folder, inner = tmp_path / "m", tmp_path / "m" / "0_Transformer"
    shutil.copytree(bert_folder, inner)
    for name in ("modules.json", "config_sentence_transformers.json", "1_Pooling", "2_Normalize"):
        shutil.move(inner / name, folder / name)
    modules = json.loads((folder / "modules.json").read_text(encoding="utf-8"))
    modules[0]["path"] = "0_Transformer"
    (folder / "modules.json").write_text(json.dumps(modules), encoding="utf-8")
    assert cosines(_reference(folder, TEXTS), _ours(load_model(folder), TEXTS)).min() > 0.99999


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"pooling": "cls"}, "vectors differ"),
        ({"truncation_side": "left"}, "token ids"),
        ({"max_length": 20}, "token ids"),
        ({"lowercase": True}, None),
    ],
)
def test_what_is_read_otherwise_than_by_sentence_transformers_is_noticed(
    bert_folder: Path, change: dict[str, Any], named: str | None
) -> None:
    loaded, model = open_sentence_transformer(bert_folder), load_model(bert_folder)
    model.spec = dataclasses.replace(model.spec, **change)
    if named is None:  # this tokenizer lowers by itself
        check_reference(loaded, model, bert_folder)
        return
    if "max_length" in change:
        loaded.max_seq_length = 20
        check_reference(loaded, model, bert_folder)
        loaded.max_seq_length = 19
    with pytest.raises(ArtifactError, match=named):
        check_reference(loaded, model, bert_folder)


def test_a_forgotten_projection_is_noticed(tmp_path: Path) -> None:
    from tiny import tiny_bert

    folder = tiny_bert(tmp_path / "m", dim=32)
    model = load_model(folder)
    model.heads[str(model.layers)] = torch.nn.Identity()
    with pytest.raises(ArtifactError, match="vectors differ"):
        check_reference(open_sentence_transformer(folder), model, folder)


def test_vectors_that_are_no_numbers_are_noticed(bert_folder: Path) -> None:
    loaded, model = open_sentence_transformer(bert_folder), load_model(bert_folder)
    with torch.no_grad():
        model.encoder.embeddings.word_embeddings.weight.fill_(float("nan"))
    with pytest.raises(ArtifactError, match="not finite"):
        check_reference(loaded, model, bert_folder)


def test_an_encoder_that_calls_its_pooler_unasked_is_carried(bert_folder: Path) -> None:
    from transformers import LayoutLMConfig, LayoutLMModel

    model = load_model(bert_folder)
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 32}
    encoder = LayoutLMModel(LayoutLMConfig(vocab_size=model.encoder.config.vocab_size, **sizes))
    vectors = _ours(EmbeddingModel(encoder.eval(), model.hf_tokenizer, model.spec), TEXTS[:2])
    assert np.isfinite(vectors).all()
    assert not any("pooler" in name for name in encoder.state_dict())


def test_an_encoder_that_fails_on_a_text_is_told_by_its_name(
    bert_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any, **__: Any) -> None:
        raise RuntimeError("index 4 is out of bounds")

    monkeypatch.setattr(EmbeddingModel, "embed", fails)
    with pytest.raises(ArtifactError, match=r"BertModel fails on a text \(index 4 is out of bounds\)") as caught:
        load_model(bert_folder)
    assert "max_seq_length" in caught.value.hint


def test_token_types_other_than_0_are_refused_by_name(bert_folder: Path, tmp_path: Path) -> None:
    folder = _copy(bert_folder, tmp_path / "m")
    path = folder / "tokenizer.json"
    state = json.loads(path.read_text(encoding="utf-8"))
    for step in state["post_processor"]["single"]:
        next(iter(step.values()))["type_id"] = 1
    path.write_text(json.dumps(state), encoding="utf-8")
    names = ["input_ids", "token_type_ids", "attention_mask"]
    config = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    (folder / "tokenizer_config.json").write_text(json.dumps(config | {"model_input_names": names}), encoding="utf-8")
    with pytest.raises(ArtifactError, match="token_type_ids"):
        load_model(folder)


def test_a_tokenizer_in_python_is_refused_by_name(bert_folder: Path, tmp_path: Path) -> None:
    from transformers import ByT5Tokenizer

    folder = _copy(bert_folder, tmp_path / "m")
    (folder / "tokenizer.json").unlink()
    ByT5Tokenizer().save_pretrained(folder)
    with pytest.raises(ArtifactError, match="ByT5Tokenizer is a tokenizer in Python"):
        load_model(folder)
