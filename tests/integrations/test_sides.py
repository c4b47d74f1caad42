"""What the embedders share: which encoder a text goes to, what is refused, and copies by the model's place."""

from __future__ import annotations

import asyncio
import copy
import importlib
import pickle
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from frameworks import DOCUMENTS, QUESTION

import emb
from emb.errors import ArtifactError, MissingExtra, UsageError
from emb.integrations.sides import Place, Sides


def test_each_side_has_its_encoder_and_its_prompt(model: Path) -> None:
    own, sides = emb.load(model), Sides(Place(str(model)))
    assert sides.query(QUESTION) == own.encode_query(QUESTION).tolist()
    assert sides.documents(DOCUMENTS) == own.encode_document(DOCUMENTS).tolist()
    assert not np.allclose(sides.query(QUESTION), sides.documents([QUESTION])[0], atol=1e-3)
    assert sides.documents([]) == []


def test_options_reach_the_encoder(bundle: Path) -> None:
    own, sides = emb.load(bundle), Sides(Place(str(bundle)))
    assert sides.query(QUESTION, truncate_dim=8) == own.encode_query(QUESTION, truncate_dim=8).tolist()
    with pytest.raises(UsageError, match="truncate_dim 99: the model has 16"):
        sides.documents(DOCUMENTS, truncate_dim=99)


def test_the_place_says_how_it_is_opened(single: Path, bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="no such folder"):
        Sides(Place(str(tmp_path / "nowhere"))).open()
    with pytest.raises(UsageError, match="a bundle names the files of its encoders"):
        Sides(Place(str(bundle), file="onnx/model.onnx")).open()
    with pytest.raises(ArtifactError, match=r"nothing\.onnx"):
        Sides(Place(str(single), file="onnx/nothing.onnx")).open()
    with pytest.raises(UsageError, match="CUDAExecutionProvider is not usable"):
        Sides(Place(str(single), device="cuda")).open()
    open_one = Sides(Place(str(single), file="onnx/model.onnx", threads=1)).open()
    assert open_one.runner.threads == 1  # type: ignore[attr-defined]


def test_a_changed_model_is_refused_unless_told_otherwise(single: Path, tmp_path: Path) -> None:
    import shutil

    folder = shutil.copytree(single, tmp_path / "copy")
    (folder / "tokenizer_config.json").write_text("{}", encoding="utf-8")
    with pytest.raises(ArtifactError, match="tokenizer_config"):
        Sides(Place(str(folder))).open()
    Sides(Place(str(folder), verify=False)).open()


def test_the_documents_model_waits_for_a_document(bundle: Path) -> None:
    sides = Sides(Place(str(bundle)))
    sides.query(QUESTION)
    assert "document" not in vars(sides.open())
    sides.documents(DOCUMENTS[:1])
    assert "document" in vars(sides.open())


def test_one_text_is_no_list_and_a_list_is_no_query(bundle: Path) -> None:
    sides = Sides(Place(str(bundle)))
    with pytest.raises(UsageError, match="a list of them is taken"):
        sides.documents(QUESTION)
    wrong: Any = [QUESTION]
    with pytest.raises(UsageError, match="takes texts and got list"):
        sides.query(wrong)


def test_vectors_that_are_no_floats_are_refused(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sides = Sides(Place(str(bundle)))
    monkeypatch.setattr(sides.open(), "encode", lambda texts, **_: np.zeros((len(texts), 2), np.uint8))
    with pytest.raises(UsageError, match="are uint8, and stores of documents compare floats"):
        sides.query(QUESTION)


def test_a_copy_for_another_process_has_the_place_alone(bundle: Path) -> None:
    sides = Sides(Place(str(bundle), threads=1))
    expected = sides.query(QUESTION)
    sent = pickle.dumps(sides)
    assert len(sent) < 500
    other = pickle.loads(sent)
    assert other.place == sides.place
    assert other.query(QUESTION) == expected
    assert copy.deepcopy(sides) is sides
    assert copy.copy(sides) is sides


def test_documents_take_turns_and_no_query_waits_behind_them(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sides = Sides(Place(str(bundle)))
    at_work, most, free, inner = 0, 0, threading.Event(), sides.documents

    def held(texts: Any, **options: Any) -> Any:
        nonlocal at_work, most
        at_work += 1
        most = max(most, at_work)
        assert free.wait(30)
        at_work -= 1
        return inner(texts, **options)

    async def work() -> Any:
        batches = [asyncio.create_task(sides.documents_async([text])) for text in DOCUMENTS[:3]]
        query = await asyncio.wait_for(sides.query_async(QUESTION), 20)
        assert not any(batch.done() for batch in batches)
        free.set()
        return query, await asyncio.gather(*batches)

    monkeypatch.setattr(sides, "documents", held)
    query, batches = asyncio.run(work())
    assert query == sides.query(QUESTION)
    assert [vector for [vector] in batches] == [inner([text])[0] for text in DOCUMENTS[:3]]
    assert most == 1


@pytest.mark.parametrize(
    ("module", "library", "extra"),
    [
        ("langchain", "langchain_core", "langchain"),
        ("llama_index", "llama_index", "llama-index"),
        ("haystack", "haystack", "haystack"),
    ],
)
def test_without_the_framework_the_command_that_brings_it_is_named(
    module: str, library: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == library]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, library, None)
    monkeypatch.delitem(sys.modules, f"emb.integrations.{module}", raising=False)
    with pytest.raises(MissingExtra, match=rf'pip install "emb-distill\[{extra}\]"'):
        importlib.import_module(f"emb.integrations.{module}")
