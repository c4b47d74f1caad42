"""A folder whose files or weights are not whole is refused, by the file or the tensor."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import tiny_bert

from emb.errors import ArtifactError, UsageError, first_line
from emb.export.graph import write_graph
from emb.model.embedding_model import load_model
from emb.runtime.encoder import Encoder
from emb.runtime.sessions import open_session
from emb.tokens import Batch


@pytest.fixture
def folder(bert_folder: Path, tmp_path: Path) -> Path:
    """A copy to break."""
    return Path(shutil.copytree(bert_folder, tmp_path / "m"))


def _edit(folder: Path, change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> None:
    tensors = load_file(folder / "model.safetensors")
    save_file(change(tensors), folder / "model.safetensors", metadata={"format": "pt"})


def test_a_lost_layer_is_missed_by_name(folder: Path) -> None:
    _edit(folder, lambda tensors: {name: tensor for name, tensor in tensors.items() if "layer.1." not in name})
    with pytest.raises(ArtifactError, match=r"the weights lack encoder\.layer\.1\..* and \d+ more"):
        load_model(folder)


def test_a_pooler_is_not_missed(folder: Path) -> None:
    _edit(folder, lambda tensors: {name: tensor for name, tensor in tensors.items() if "pooler" not in name})
    assert load_model(folder).layers == 3


def test_a_layer_that_the_config_does_not_know_is_no_surplus(folder: Path) -> None:
    _edit(
        folder,
        lambda tensors: (
            tensors
            | {
                name.replace("layer.2", "layer.3"): tensor.clone()
                for name, tensor in tensors.items()
                if "layer.2" in name
            }
        ),
    )
    with pytest.raises(ArtifactError, match=r"config\.json knows nothing of encoder\.layer\.3\."):
        load_model(folder)


def test_a_head_for_another_task_is(folder: Path) -> None:
    _edit(folder, lambda tensors: tensors | {"classifier.weight": torch.ones(2, 32)})
    assert load_model(folder).layers == 3


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_value_that_is_no_number(folder: Path, value: float) -> None:
    def broken(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        name = next(name for name in tensors if name.endswith("word_embeddings.weight"))
        tensors[name][7, 3] = value
        return tensors

    _edit(folder, broken)
    with pytest.raises(ArtifactError, match=r"word_embeddings\.weight holds NaN or infinity"):
        load_model(folder)


def test_large_values_are_numbers(folder: Path) -> None:
    def large(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        name = next(name for name in tensors if name.endswith("layer.0.attention.self.key.bias"))
        return tensors | {name: torch.full_like(tensors[name], 3e38)}

    _edit(folder, large)
    with pytest.raises(ArtifactError, match=r"not finite|vectors"):  # not the weights: what comes of them
        load_model(folder)


def test_fewer_rows_than_ids(folder: Path) -> None:
    def cut(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        name = next(name for name in tensors if name.endswith("word_embeddings.weight"))
        return tensors | {name: tensors[name][:50].clone()}

    _edit(folder, cut)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps({**config, "vocab_size": 50}), encoding="utf-8")
    with pytest.raises(ArtifactError, match=r"the tokenizer gives \d+ ids, the token table has 50 rows"):
        load_model(folder)


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json"])
def test_a_git_lfs_pointer(folder: Path, name: str) -> None:
    (folder / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", encoding="utf-8")
    with pytest.raises(ArtifactError, match=f"{name}: is a git-lfs pointer") as caught:
        load_model(folder)
    assert "git lfs pull" in caught.value.hint


def test_a_file_that_was_cut_short(folder: Path) -> None:
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ArtifactError, match=r"model\.safetensors: damaged or cut short"):
        load_model(folder)


def test_a_lost_shard(folder: Path) -> None:
    index = {"metadata": {}, "weight_map": {"a": "model.safetensors", "b": "model-00002-of-00002.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    with pytest.raises(ArtifactError, match=r"names model-00002-of-00002\.safetensors, and there is no such file"):
        load_model(folder)


def test_a_projection_in_pickle_comes_with_the_command_that_converts_it(tmp_path: Path) -> None:
    folder = tiny_bert(tmp_path / "m", dim=16)
    expected = load_model(folder).heads["3"].state_dict()
    dense = folder / "2_Dense"
    torch.save(load_file(dense / "model.safetensors"), dense / "pytorch_model.bin")
    (dense / "model.safetensors").unlink()
    with pytest.raises(ArtifactError, match=r"2_Dense/pytorch_model\.bin: weights in pickle") as caught:
        load_model(folder)
    program = caught.value.hint.split('python -c "')[1].rstrip('"')
    exec(program, {})
    assert all(torch.equal(value, expected[name]) for name, value in load_model(folder).heads["3"].state_dict().items())


def test_a_module_without_its_folder(folder: Path) -> None:
    shutil.rmtree(folder / "1_Pooling")
    with pytest.raises(ArtifactError, match=r"modules\.json: names 1_Pooling, and there is no such folder"):
        load_model(folder)


@pytest.mark.parametrize("name", ["1_Pooling/config.json", "2_Dense/config.json", "2_Dense/model.safetensors"])
def test_a_module_without_its_files(name: str, tmp_path: Path) -> None:
    folder = tiny_bert(tmp_path / "m", dim=16)
    (folder / name).unlink()
    with pytest.raises(ArtifactError, match=f"{name}: no such file"):
        load_model(folder)


@pytest.mark.parametrize(
    ("file", "said", "hint"),
    [
        ("run.json", "a run", "student"),
        ("index.json", "an index", "config.json"),
        ("x", "a folder without", "config.json"),
    ],
)
def test_a_folder_of_another_kind_is_told_by_what_it_is(file: str, said: str, hint: str, tmp_path: Path) -> None:
    (tmp_path / file).write_text("{}", encoding="utf-8")
    with pytest.raises(ArtifactError, match=f"{tmp_path}: {said}.*, not a model") as caught:
        load_model(tmp_path)
    assert hint in caught.value.hint


def test_modules_without_a_path(folder: Path) -> None:
    modules = json.loads((folder / "modules.json").read_text(encoding="utf-8"))
    (folder / "modules.json").write_text(json.dumps([{"type": each["type"]} for each in modules]), encoding="utf-8")
    with pytest.raises(ArtifactError, match=r"modules\.json: not a list of modules"):
        load_model(folder)


@pytest.mark.parametrize("content", [[], {}, {"weight_map": ["a"]}, {"weight_map": {"a": 1}}])
def test_an_index_that_is_none(folder: Path, content: Any) -> None:
    (folder / "model.safetensors.index.json").write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(ArtifactError, match=r"index\.json: not a list of weights"):
        load_model(folder)


def test_parts_without_an_index(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    with pytest.raises(ArtifactError, match=r"index\.json: no such file, and model-00001-of-00002\.safetensors"):
        load_model(folder)


def test_parts_in_pickle_come_with_the_command_that_converts_them(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    names = sorted(tensors)
    files = {name: f"pytorch_model-0000{1 + index % 2}-of-00002.bin" for index, name in enumerate(names)}
    for file in set(files.values()):
        torch.save({name: tensors[name] for name in names if files[name] == file}, folder / file)
    index = {"metadata": {}, "weight_map": files}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index), encoding="utf-8")
    (folder / "model.safetensors").unlink()
    with pytest.raises(ArtifactError, match=r"pytorch_model-00001-of-00002\.bin: weights in pickle") as caught:
        load_model(folder)
    exec(caught.value.hint.split('python -c "')[1].rstrip('"'), {})
    found = load_model(folder).encoder.state_dict()
    assert all(torch.equal(found[name], tensor) for name, tensor in tensors.items() if "pooler" not in name)


def test_an_adapter_is_refused_with_the_command_that_merges_it(folder: Path, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    from transformers import AutoModel

    base = shutil.copytree(folder, tmp_path / "base")
    torch.manual_seed(0)
    wanted = peft.LoraConfig(r=2, target_modules=["query"], init_lora_weights=False)
    tuned = peft.get_peft_model(AutoModel.from_pretrained(base), wanted)
    tuned.save_pretrained(folder)
    with pytest.raises(ArtifactError, match=r"adapter_config\.json: an adapter") as caught:
        load_model(folder)
    exec(caught.value.hint.split('python -c "')[1].rstrip('"'), {})
    merged = AutoModel.from_pretrained(f"{folder}-merged").state_dict()
    name = "encoder.layer.0.attention.self.query.weight"
    assert not torch.allclose(merged[name], load_file(folder / "model.safetensors")[name])


def test_dimensions_that_the_folder_itself_cuts_are_refused_by_name(folder: Path) -> None:
    path = folder / "config_sentence_transformers.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | {"truncate_dim": 8}), encoding="utf-8")
    with pytest.raises(ArtifactError, match="truncate_dim = 8") as caught:
        load_model(folder)
    assert "--dim 8" in caught.value.hint


@pytest.mark.parametrize("pooling", ["mean", "cls", "lasttoken"])
def test_a_text_without_a_token_has_no_vector(folder: Path, tmp_path: Path, pooling: str) -> None:
    import dataclasses

    model = load_model(folder)
    model.spec = dataclasses.replace(model.spec, pooling=pooling)
    session = open_session(write_graph(model, tmp_path / "graph.onnx"))
    ids, mask = np.asarray([[5, 6, 7], [0, 0, 0]]), np.asarray([[1, 1, 1], [0, 0, 0]])
    (found,) = session.run(["sentence_embedding"], {"input_ids": ids, "attention_mask": mask})
    with torch.inference_mode():
        expected = model.embed(torch.from_numpy(ids), torch.from_numpy(mask)).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert found[0].any()
    assert not found[1].any()


class _Broken(Encoder):
    def run(self, input_ids: Batch, attention_mask: Batch) -> np.ndarray:  # type: ignore[override, type-arg]
        vectors = np.ones((len(input_ids), 4), np.float32)
        vectors[input_ids.shape[1] > 4] = np.nan
        return vectors


def test_a_vector_that_is_not_finite_is_told_by_its_text(folder: Path) -> None:
    encoder = _Broken(load_model(folder).tokenizer(), dim=4, prompts={}, normalize=True)
    assert encoder.encode(["a", "b"]).shape == (2, 4)
    with pytest.raises(ArtifactError, match="text 2 gets NaN or infinity: 'the cat sat on the mat'"):
        encoder.encode(["a", "the cat sat on the mat", "b"], tokens_per_batch=1)


def test_an_item_that_is_no_text_is_told_by_its_place(folder: Path) -> None:
    encoder = _Broken(load_model(folder).tokenizer(), dim=4, prompts={}, normalize=True)
    with pytest.raises(UsageError, match="got NoneType at item 1"):
        encoder.encode(["a", None])  # type: ignore[list-item]


def test_exceptions_without_a_word_are_told_by_their_name() -> None:
    assert first_line(RuntimeError()) == "RuntimeError()"
    assert first_line(RuntimeError("one\ntwo")) == "one"
