"""Every architecture that embeddings come in: loaded, cut, exported and quantised, against torch and against
sentence-transformers.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import families
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from families import FAMILIES, HIDDEN, LAYERS, MAX_LENGTH, write_family
from sentence_transformers import SentenceTransformer
from tiny import SENTENCES
from torch import nn

import emb
from emb.artifact import layout
from emb.artifact.manifest import LayerDimPair, Manifest
from emb.errors import ArtifactError, UsageError
from emb.export import equivalence as check
from emb.export import pipeline
from emb.export.graph import write_graph
from emb.export.quantized_files import int8_file
from emb.machine import has_vnni
from emb.model.dense import linear
from emb.model.embedding_model import EmbeddingModel, cut_layers, load_model, save_model
from emb.model.slice import slice_model
from emb.publish.doctor import examine
from emb.quantize.weights import half, select, surgery
from emb.quantize.weights.fusing import fuse
from emb.quantize.weights.half import select_fp16
from emb.quantize.weights.judge import Trial, smallest_cosine
from emb.quantize.weights.saturation import EIGHT_BITS, SEVEN_BITS
from emb.quantize.weights.schemes import schemes
from emb.quantize.weights.select import select_int8
from emb.runtime.sessions import open_session
from emb.runtime.torch_encoder import TorchEncoder
from emb.similarity import Vectors, cosines
from emb.tokens import Batch

# One longer than any model here reads, one with no text, one with letters that no tokenizer here knows.
TEXTS = [*SENTENCES[:7], " ".join(SENTENCES), "", "Tōkyō 東京 😀"]
PAIR = LayerDimPair(3, 16)
ALIKE = {"electra", "llama", "mistral"}  # made of the same operators as BERT and Qwen3: a few recipes are enough
INT8 = int8_file()


@dataclass(frozen=True)
class Subject:
    """A family's folder, its model with an exit trained (so to say) at three layers, that exit's slice, and the slice's
    graph.
    """

    name: str
    folder: Path
    model: EmbeddingModel
    sliced: EmbeddingModel
    graph: Path

    @property
    def rows(self) -> list[np.ndarray]:
        return self.model.tokenizer().encode(TEXTS)


@pytest.fixture(scope="module", params=FAMILIES)
def subject(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Subject:
    place = tmp_path_factory.mktemp(request.param)
    folder = write_family(request.param, place / "model")
    model = _with_exit(load_model(folder))
    sliced = slice_model(model, PAIR)
    return Subject(request.param, folder, model, sliced, write_graph(sliced, place / "graph" / "model.onnx"))


def _with_exit(model: EmbeddingModel) -> EmbeddingModel:
    torch.manual_seed(1)
    heads: dict[int, nn.Module] = {
        PAIR.layers: linear(torch.randn(HIDDEN, HIDDEN) / HIDDEN**0.5),
        LAYERS: model.heads[str(LAYERS)],
    }
    return EmbeddingModel(model.encoder, model.hf_tokenizer, model.spec, heads).eval()


def _alone(model: EmbeddingModel, rows: list[np.ndarray], pair: LayerDimPair | None = None) -> Vectors:
    return TorchEncoder(model, pair).encode_ids(rows, tokens_per_batch=1)


def _batches(model: EmbeddingModel, rows: list[np.ndarray]) -> dict[str, list[Batch]]:
    padder = model.tokenizer()
    return {
        "alone": [padder.pad([row]) for row in rows],
        "left": [padder.pad(rows, "left")],
        "right": [padder.pad(rows, "right")],
    }


def _run(graph: Path, batches: list[Batch]) -> Vectors:
    session = open_session(graph, 1)
    return np.concatenate(
        [session.run(["sentence_embedding"], {"input_ids": ids, "attention_mask": mask})[0] for ids, mask in batches]
    )


def test_loaded_gives_what_sentence_transformers_gives(subject: Subject) -> None:
    reference = SentenceTransformer(str(subject.folder), device="cpu")
    # Transformers 4 adds token types, which not all models take.
    reference.tokenizer.model_input_names = [
        "input_ids",
        "attention_mask",
    ]
    expected = reference.encode(TEXTS, batch_size=4)
    rows, whole = subject.rows, LayerDimPair(LAYERS, expected.shape[1])
    assert max(map(len, rows)) == subject.model.spec.max_length == MAX_LENGTH
    # A model that gives one vector for all would prove nothing.
    assert len(np.unique(expected.round(3), axis=0)) == len(TEXTS)
    np.testing.assert_allclose(_alone(subject.model, rows, whole), expected, atol=5e-6)
    encoder = TorchEncoder(subject.model, whole)
    for batches in _batches(subject.model, rows).values():
        np.testing.assert_allclose(np.concatenate([encoder.run(*batch) for batch in batches]), expected, atol=5e-6)


def test_slice_is_the_exit_in_torch_and_in_sentence_transformers(subject: Subject, tmp_path: Path) -> None:
    expected = _alone(subject.model, subject.rows, PAIR)
    np.testing.assert_allclose(_alone(subject.sliced, subject.rows), expected, atol=5e-6)
    save_model(subject.sliced, tmp_path / "slice")
    np.testing.assert_allclose(
        SentenceTransformer(str(tmp_path / "slice"), device="cpu").encode(TEXTS, batch_size=4), expected, atol=5e-6
    )
    assert load_model(tmp_path / "slice").layers == PAIR.layers


def test_graph_is_the_slice_however_texts_are_padded(subject: Subject) -> None:
    expected = _alone(subject.sliced, subject.rows)
    for batches in _batches(subject.model, subject.rows).values():
        found = _run(subject.graph, batches)
        np.testing.assert_allclose(found, expected, atol=1e-5)
        assert cosines(expected, found).min() >= 0.99999
    check.check_slice(subject.model, subject.sliced, PAIR)
    check.check_graph(subject.sliced, subject.graph)


def _trial(subject: Subject) -> Trial:
    tokenizer = subject.model.tokenizer()
    # Without VNNI, sums of products of random weights of 8 bits are clipped: such a processor gets 7.
    largest = EIGHT_BITS if has_vnni() else SEVEN_BITS
    return Trial(
        tokenizer, subject.rows, [tokenizer.pad([row]) for row in subject.rows[:6]], threads=1, largest=largest
    )


def test_fused_and_in_sixteen_bits_it_is_still_the_slice(subject: Subject, tmp_path: Path) -> None:
    heads = subject.model.encoder.config.num_attention_heads
    assert heads == 4
    fused = fuse(subject.graph, tmp_path / "fused.onnx", heads, HIDDEN)
    assert smallest_cosine(subject.graph, fused, _trial(subject)) >= 0.99999
    way, cosine = select_fp16(subject.graph, tmp_path / "half.onnx", _trial(subject))
    assert way in (None, "stored")
    assert cosine >= half.MIN_COSINE
    assert (tmp_path / "half.onnx").stat().st_size < subject.graph.stat().st_size


def test_every_recipe_builds_and_most_pass(subject: Subject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(select, "_time", lambda *_: None)  # nothing here is about speed
    if subject.name in ALIKE:
        monkeypatch.setattr(select, "schemes", lambda *given: schemes(*given)[::3])
    fused = fuse(subject.graph, tmp_path / "fused.onnx", 4, HIDDEN)
    candidates = select_int8(subject.graph, fused, tmp_path / "onnx" / "int8.onnx", _trial(subject))
    assert [each.name for each in candidates if each.min_cosine is None] == []
    assert sum(each.passed for each in candidates) >= len(candidates) // 2, [
        (each.name, each.min_cosine) for each in candidates
    ]


@pytest.fixture(scope="module", params=["xlm-roberta", "gemma3"])
def large(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An export of everything, as if protobuf ended at 10 kB."""
    place = tmp_path_factory.mktemp("large")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(surgery, "EXTERNAL_ABOVE", 10_000)
        patch.setattr(pipeline, "int8_file", lambda *_: INT8)
        patch.setattr(select, "schemes", lambda *given: schemes(*given)[2:3])
        patch.setattr(select, "ROUNDS", 1)
        source = write_family(request.param, place / "source")
        [folder] = emb.export(
            source,
            layers=[3],
            dims=[16],
            int8=True,
            fp16=True,
            vectors=["int8"],
            out=place / "out",
            calibration_texts=SENTENCES,
            threads=1,
        )
    return folder


def test_data_lies_beside_each_graph_under_the_name_clients_look_for(large: Path) -> None:
    graphs = [
        "model.onnx",
        "model_fp16.onnx",
        INT8.removeprefix("onnx/"),
        "model_quantized.onnx",
        "model_vectors_int8.onnx",
    ]
    assert sorted(each.name for each in (large / "onnx").iterdir()) == sorted(
        [*graphs, *(f"{name}_data" for name in graphs)]
    )
    for name in graphs:
        stored = onnx.load(str(large / "onnx" / name), load_external_data=False)
        assert {
            entry.value
            for tensor in stored.graph.initializer
            for entry in tensor.external_data
            if entry.key == "location"
        } == {f"{name}_data"}
    config = json.loads((large / "config.json").read_text(encoding="utf-8"))
    assert config["transformers.js_config"] == {"use_external_data_format": dict.fromkeys(graphs, 1)}


def test_graphs_with_data_give_the_slice_s_vectors_from_any_folder(
    large: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = SentenceTransformer(str(large), device="cpu").encode(TEXTS, prompt_name="query")
    ids, mask = emb.load(large).tokenizer.pad(
        emb.load(large).tokenizer.encode(TEXTS, Manifest.load(large).prompts.get("query", ""))
    )
    monkeypatch.chdir(tmp_path)
    for variant in Manifest.load(large).variants:
        if variant.vector_dtype == "float32":
            session = onnxruntime.InferenceSession(
                os.path.relpath(large / variant.file), providers=["CPUExecutionProvider"]
            )
            [found] = session.run(["sentence_embedding"], {"input_ids": ids, "attention_mask": mask})
            assert (
                cosines(expected, found).min() > {"fp32": 0.99999, "fp16": 0.9999, "int8": 0.99}[variant.weight_dtype]
            ), variant
    Manifest.load(large).verify(large)
    assert emb.load(large, file="onnx/model_vectors_int8.onnx").encode(TEXTS).dtype == np.int8


def test_doctor_and_validate_know_data_files(large: Path, tmp_path: Path) -> None:
    assert {found.client: found.problems for found in examine(large) if found.problems} == {}
    report = emb.validate(large, texts=SENTENCES, max_texts=8, threads=1)
    assert [
        (each.file, gate)
        for each in report.variants
        if each.vector_dtype == "float32"
        for gate in each.gates
        if not gate.passed
    ] == []
    assert all(each.bytes > (large / each.file).stat().st_size for each in report.variants)
    folder = shutil.copytree(large, tmp_path / "copy")
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    del config["transformers.js_config"]
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    found = {found.client: " ".join(found.problems) for found in examine(folder)}
    assert "use_external_data_format" in found["transformers.js"]
    (folder / "onnx/model.onnx_data").unlink()
    found = {found.client: " ".join(found.problems) for found in examine(folder)}
    assert all(
        "model.onnx_data" in found[client]
        for client in ("fastembed", "text-embeddings-inference, CPU", "onnxruntime and tokenizers")
    )


def _family(name: str, folder: Path) -> EmbeddingModel:
    return load_model(write_family(name, folder))


def test_no_more_tokens_than_there_are_positions(tmp_path: Path) -> None:
    folder = write_family("roberta", tmp_path / "roberta")
    config = folder / "sentence_bert_config.json"
    # As many as rows in the table.
    config.write_text(json.dumps({"max_seq_length": MAX_LENGTH + 2, "do_lower_case": False}), encoding="utf-8")
    model = load_model(folder)
    assert model.spec.max_length == MAX_LENGTH
    assert TorchEncoder(model).encode([" ".join(SENTENCES)]).shape == (1, HIDDEN)


def test_positions_that_begin_further_on_are_kept(tmp_path: Path) -> None:
    model = _family("bert", tmp_path / "bert")
    table = model.encoder.embeddings.position_embeddings
    with model._counted_from_the_text(torch.tensor([[0, 1, 1]])):
        found = table(torch.tensor([[2, 3, 4]]))
    assert torch.equal(found, table(torch.tensor([[2, 2, 3]])))
    assert torch.equal(table(torch.tensor([[2, 3, 4]]))[0, 2], table.weight[4])  # and no longer than asked


def test_gemma_s_window_survives_being_saved_twice(tmp_path: Path) -> None:
    model = _family("gemma3", tmp_path / "gemma3")
    assert model.encoder.config.sliding_window == families.WINDOW + 1  # half of what the file says, both sides apart
    save_model(model, tmp_path / "once")
    save_model(load_model(tmp_path / "once"), tmp_path / "twice")
    assert (
        json.loads((tmp_path / "twice" / "config.json").read_text(encoding="utf-8"))["sliding_window"]
        == 2 * families.WINDOW
    )


OLDER = {
    "qwen3": {"rope_theta": 1e6},
    "modernbert": {"global_rope_theta": 160_000.0, "local_rope_theta": 10_000.0, "global_attn_every_n_layers": 3},
    "gemma3": {"rope_theta": 1e6, "rope_local_base_freq": 10_000.0},
}


@pytest.mark.parametrize("name", OLDER)
def test_transformers_4_finds_the_positions_it_looks_for(tmp_path: Path, name: str) -> None:
    model = _family(name, tmp_path / name)
    save_model(model, tmp_path / "saved")
    config = json.loads((tmp_path / "saved" / "config.json").read_text(encoding="utf-8"))
    assert {key: config.get(key) for key in OLDER[name]} == OLDER[name]
    again = load_model(tmp_path / "saved").encoder.config
    assert getattr(again, "rope_parameters", None) == getattr(model.encoder.config, "rope_parameters", None)


def test_stretched_positions_are_told_in_full(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(
        json.dumps({"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 5e5}}), encoding="utf-8"
    )
    layout.write_older_keys(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    assert config["rope_theta"] == 5e5
    assert config["rope_scaling"] == {"rope_type": "linear", "factor": 2.0}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "gemma3",
            {
                "tokenizer_class": "GemmaTokenizer",
                "add_bos_token": True,
                "add_eos_token": True,
                "model_input_names": ["input_ids", "attention_mask"],
            },
        ),
        (
            "distilbert",
            {"tokenizer_class": "PreTrainedTokenizerFast", "model_input_names": ["input_ids", "attention_mask"]},
        ),
        ("xlm-roberta", {"tokenizer_class": "XLMRobertaTokenizer"}),
    ],
)
def test_transformers_4_makes_the_same_tokens(tmp_path: Path, name: str, expected: dict[str, Any]) -> None:
    save_model(_family(name, tmp_path / name), tmp_path / "saved")
    config = json.loads((tmp_path / "saved" / "tokenizer_config.json").read_text(encoding="utf-8"))
    # As transformers 4 writes it; both read either.
    config["tokenizer_class"] = config["tokenizer_class"].replace("TokenizerFast", "Tokenizer")
    assert {key: config.get(key) for key in expected} == expected | {
        "tokenizer_class": expected["tokenizer_class"].replace("TokenizerFast", "Tokenizer")
    }


def test_layers_known_by_number_alone_keep_their_kind(tmp_path: Path) -> None:
    model = _family("modernbert", tmp_path / "modernbert")
    model.encoder.config.layer_types, model.encoder.config.global_attn_every_n_layers = None, 3  # transformers 4
    with pytest.raises(UsageError, match="local layers would become global"):
        cut_layers(model, [0, 3])
    cut_layers(model, [0, 1])
    assert model.layers == 2


def test_shared_layers_are_exported_whole_and_not_cut(tmp_path: Path) -> None:
    from transformers import AlbertConfig, AlbertModel

    families.FAMILIES["bert"].tokenizer(tmp_path)
    sizes = {
        "hidden_size": 32,
        "embedding_size": 16,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "intermediate_size": 64,
        "max_position_embeddings": 64,
    }
    families.tiny.save_random(AlbertModel(AlbertConfig(vocab_size=200, **sizes)), tmp_path)
    families.tiny.write_modules(tmp_path, "mean", 32, (), 48, {})
    model = load_model(tmp_path)
    graph = write_graph(model, tmp_path / "onnx" / "model.onnx")
    np.testing.assert_allclose(
        _run(graph, _batches(model, model.tokenizer().encode(TEXTS))["left"]),
        TorchEncoder(model).encode(TEXTS),
        atol=5e-6,
    )
    with pytest.raises(ArtifactError, match="no list of 4 layers"):
        slice_model(model, LayerDimPair(2, 32))


@pytest.mark.parametrize(
    ("file", "value", "message"),
    [
        (
            "1_Pooling/config.json",
            {"word_embedding_dimension": HIDDEN, "pooling_mode_mean_tokens": False, "pooling_mode_max_tokens": True},
            "pooling 'max'",
        ),
        (
            "1_Pooling/config.json",
            {
                "word_embedding_dimension": HIDDEN,
                "pooling_mode_lasttoken": True,
                "pooling_mode_mean_tokens": False,
                "include_prompt": False,
            },
            "include_prompt",
        ),
    ],
)
def test_pooling_that_would_give_other_vectors_is_refused(tmp_path: Path, file: str, value: Any, message: str) -> None:
    folder = write_family("qwen3", tmp_path / "qwen3")
    (folder / file).write_text(json.dumps(value), encoding="utf-8")
    with pytest.raises(ArtifactError) as caught:
        load_model(folder)
    assert message in str(caught.value)


def test_modules_in_another_order_are_refused(tmp_path: Path) -> None:
    folder = write_family("gemma3", tmp_path / "gemma3")
    modules = json.loads((folder / "modules.json").read_text(encoding="utf-8"))
    dense, normalize = modules[2:4], modules[4]
    (folder / "modules.json").write_text(
        json.dumps([*modules[:2], normalize | {"idx": 2}, *(each | {"idx": each["idx"] + 1} for each in dense)]),
        encoding="utf-8",
    )
    with pytest.raises(ArtifactError, match="Normalize, Dense"):
        load_model(folder)


def test_a_model_of_several_parts_is_refused(tmp_path: Path) -> None:
    from transformers import CLIPConfig, CLIPModel

    small = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    encoder = CLIPModel(CLIPConfig(text_config=small, vision_config=small | {"image_size": 8, "patch_size": 4}))
    model = _family("bert", tmp_path / "bert")
    with pytest.raises(ArtifactError, match="CLIPModel is not supported"):
        EmbeddingModel(encoder, model.hf_tokenizer, model.spec)


def test_a_graph_that_came_out_wrong_is_found(tmp_path: Path) -> None:
    model = _family("distilbert", tmp_path / "distilbert")
    graph = write_graph(model, tmp_path / "model.onnx")
    check.check_graph(model, graph)
    model.encoder.embeddings.position_embeddings.weight.data[MAX_LENGTH // 2 :] = 0
    with pytest.raises(ArtifactError, match="DistilBertModel: the traced graph gives other vectors"):
        check.check_graph(model, graph)


@pytest.mark.parametrize(
    ("broken", "said"),
    [("embed", "fails on some rows of token ids"), ("session", "the traced graph fails"), ("open", "does not take")],
)
def test_what_torch_and_onnxruntime_raise_is_told_by_the_architecture(
    broken: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any, **__: Any) -> None:
        raise RuntimeError("4 by 64")

    model = _family("bert", tmp_path / "bert")
    graph = write_graph(model, tmp_path / "model.onnx")
    if broken == "embed":
        monkeypatch.setattr(EmbeddingModel, "embed", fails)
    else:
        session = SimpleNamespace(run=fails, get_outputs=lambda: [SimpleNamespace(name="v")])
        monkeypatch.setattr(check, "open_session", fails if broken == "open" else lambda path: session)
    with pytest.raises(ArtifactError, match=rf"BertModel: .*{said}.*4 by 64") as caught:
        check.check_graph(model, graph)
    assert "encode with torch" in caught.value.hint


def test_a_slice_that_is_not_its_exit_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = _with_exit(_family("modernbert", tmp_path / "modernbert"))
    monkeypatch.setattr(EmbeddingModel, "_final_norm", lambda self, state: state)
    with pytest.raises(ArtifactError, match="gives other vectors than its exit"):
        check.check_slice(model, slice_model(model, PAIR), PAIR)


def test_fusing_that_changes_vectors_is_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, other = _family("bert", tmp_path / "bert"), _family("distilbert", tmp_path / "distilbert")
    graph, wrong = (write_graph(each, tmp_path / f"{type(each.encoder).__name__}.onnx") for each in (model, other))
    tokenizer = model.tokenizer()
    trial = Trial(tokenizer, tokenizer.encode(TEXTS), threads=1)
    monkeypatch.setattr(select, "schemes", lambda *given: schemes(*given)[2:3])
    monkeypatch.setattr(select, "ROUNDS", 1)
    [found] = select_int8(graph, wrong, tmp_path / "onnx" / "int8.onnx", trial)
    assert found.passed
    assert "fusing operators changed the vectors" in " ".join(capsys.readouterr().err.split())


def test_what_overflows_in_sixteen_bits_is_only_stored_in_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = _family("gemma3", tmp_path / "gemma3")
    with torch.no_grad():
        model.encoder.embed_tokens.weight[:, 0] += 400  # one channel of thousands, as trained decoders have
    graph = write_graph(model, tmp_path / "model.onnx")
    tokenizer = model.tokenizer()
    trial = Trial(tokenizer, tokenizer.encode(TEXTS), threads=1)
    assert half.largest_value(graph, tmp_path / "probed.onnx", trial.rows, tokenizer) > 65_504
    way, cosine = select_fp16(graph, tmp_path / "half.onnx", trial)
    assert way == "stored"
    assert half.MIN_COSINE <= cosine == smallest_cosine(graph, tmp_path / "half.onnx", trial)
    assert "16 bits end at 65,504" in " ".join(capsys.readouterr().err.split())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["gemma3", "half.onnx", "model.onnx"]


@pytest.mark.parametrize("name", ["mpnet", "t5"])  # those that count distances in whole numbers up to the last
def test_whole_numbers_overflow_nothing(name: str, tmp_path: Path) -> None:
    model = _family(name, tmp_path / name)
    graph = write_graph(model, tmp_path / "model.onnx")
    tokenizer = model.tokenizer()
    long = tokenizer.encode(["a " * 40])  # far enough for the logarithm of distances
    assert half.largest_value(graph, tmp_path / "probed.onnx", long, tokenizer) < 1000
    assert select_fp16(graph, tmp_path / "half.onnx", Trial(tokenizer, long, threads=1))[0] is None


def test_what_is_too_coarse_in_sixteen_bits_is_only_stored_in_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = _family("distilbert", tmp_path / "distilbert")
    graph = write_graph(model, tmp_path / "model.onnx")
    tokenizer = model.tokenizer()
    trial = Trial(tokenizer, tokenizer.encode(TEXTS), threads=1)
    monkeypatch.setattr(half, "write_fp16", lambda graph, out: out.write_bytes(b"no graph"))
    way, cosine = select_fp16(graph, tmp_path / "half.onnx", trial)
    assert way == "stored"
    assert cosine >= half.MIN_COSINE


@pytest.mark.parametrize("op", ["MatMul", "Add"])
def test_onnxruntime_still_cannot_compute_in_bfloat16_on_a_cpu(op: str) -> None:
    # The reason why there is no --bf16; once this fails, there can be one.
    value, to = onnx.helper.make_tensor_value_info, onnx.TensorProto.BFLOAT16
    steps = [
        onnx.helper.make_node("Cast", ["x"], ["b"], to=to),
        onnx.helper.make_node(op, ["b", "b"], ["c"]),
        onnx.helper.make_node("Cast", ["c"], ["y"], to=1),
    ]
    graph = onnx.helper.make_graph(steps, "bf16", [value("x", 1, [2, 2])], [value("y", 1, [2, 2])])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=9)
    with pytest.raises(ArtifactError, match=f"Could not find an implementation for {op}"):
        open_session(model.SerializeToString())
