"""LangChain's own store and retriever, with the real package."""

from __future__ import annotations

import asyncio
import copy
import json
import pickle
from pathlib import Path

import pytest
from frameworks import DOCUMENTS, QUESTION, example

import emb
from emb.errors import ArtifactError, UsageError

pytest.importorskip("langchain_core", reason="needs python3 scripts/test.py --stack integrations")

from langchain_core.vectorstores import InMemoryVectorStore
from pydantic import ValidationError

from emb.integrations.langchain import EmbEmbeddings

pytestmark = pytest.mark.interop


def test_vectors_are_our_own(model: Path) -> None:
    own, found = emb.load(model), EmbEmbeddings(model)
    assert found.embed_query(QUESTION) == own.encode_query(QUESTION).tolist()
    assert found.embed_documents(DOCUMENTS) == own.encode_document(DOCUMENTS).tolist()
    assert asyncio.run(found.aembed_query(QUESTION)) == found.embed_query(QUESTION)
    assert asyncio.run(found.aembed_documents(DOCUMENTS)) == found.embed_documents(DOCUMENTS)


def test_options_are_used_in_every_form(bundle: Path) -> None:
    own, found = emb.load(bundle), EmbEmbeddings(bundle, truncate_dim=8, batch_size=2, threads=1)
    queries, documents = own.encode_query(QUESTION, truncate_dim=8), own.encode_document(DOCUMENTS, truncate_dim=8)
    for each in (found.embed_query(QUESTION), asyncio.run(found.aembed_query(QUESTION))):
        assert each == pytest.approx(queries, abs=1e-6)
    for many in (found.embed_documents(DOCUMENTS), asyncio.run(found.aembed_documents(DOCUMENTS))):
        assert [each for vector in many for each in vector] == pytest.approx(documents.ravel(), abs=1e-6)
    with pytest.raises(UsageError, match="batch_size 0"):
        EmbEmbeddings(bundle, batch_size=0).embed_query(QUESTION)


def test_a_bar_is_drawn_when_asked_for(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    silent, loud = EmbEmbeddings(bundle), EmbEmbeddings(bundle, show_progress=True)
    silent.embed_documents(DOCUMENTS)
    assert capsys.readouterr() == ("", "")
    loud.embed_documents(DOCUMENTS)
    assert capsys.readouterr() != ("", "")
    asyncio.run(loud.aembed_documents(DOCUMENTS))
    assert capsys.readouterr() != ("", "")


def test_the_store_finds_what_the_bundle_finds(bundle: Path, ranked: list[str]) -> None:
    store = InMemoryVectorStore(EmbEmbeddings(bundle))
    store.add_texts(DOCUMENTS)
    hits = store.as_retriever(search_kwargs={"k": len(DOCUMENTS)}).invoke(QUESTION)
    assert [hit.page_content for hit in hits] == ranked
    later = asyncio.run(store.asimilarity_search(QUESTION, k=len(DOCUMENTS)))
    assert [hit.page_content for hit in later] == ranked


def test_it_is_saved_by_its_place(bundle: Path) -> None:
    found = EmbEmbeddings(bundle, truncate_dim=8)
    saved = json.loads(found.model_dump_json())
    assert saved["model"] == str(bundle)
    for again in (EmbEmbeddings(**saved), pickle.loads(pickle.dumps(found)), copy.deepcopy(found)):
        assert again == found
        assert again.embed_query(QUESTION) == found.embed_query(QUESTION)
    assert len(pickle.dumps(found)) < 2000


def test_what_is_wrong_is_said_at_once(bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="no such folder"):
        EmbEmbeddings(tmp_path / "nowhere")
    with pytest.raises(ValidationError, match="trust_remote_code"):
        EmbEmbeddings(bundle, trust_remote_code=True)
    with pytest.raises(ValidationError, match="frozen"):
        setattr(EmbEmbeddings(bundle), "device", "cuda")  # noqa: B010 - to the type checker it cannot be set either


def test_the_page_is_right(bundle: Path, ranked: list[str]) -> None:
    assert [hit.page_content for hit in example("LangChain", bundle)] == ranked[:3]
