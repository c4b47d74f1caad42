"""LlamaIndex's own index, pipeline and cache, with the real package."""

from __future__ import annotations

import asyncio
import json
import pickle
from pathlib import Path

import pytest
from frameworks import DOCUMENTS, QUESTION, example

import emb
from emb.errors import ArtifactError, UsageError

pytest.importorskip("llama_index.core", reason="needs python3 scripts/test.py --stack integrations")

from llama_index.core import VectorStoreIndex
from llama_index.core.ingestion import IngestionPipeline
from llama_index.core.schema import MetadataMode, TextNode
from llama_index.core.storage.kvstore import SimpleKVStore
from pydantic import ValidationError

from emb.integrations.llama_index import EmbEmbedding

pytestmark = pytest.mark.interop


def _nodes() -> list[TextNode]:
    return [TextNode(text=text, metadata={"row": row}) for row, text in enumerate(DOCUMENTS)]


def _flat(vectors: list[list[float]]) -> list[float]:
    return [each for vector in vectors for each in vector]


def test_vectors_are_our_own(model: Path) -> None:
    own, found = emb.load(model), EmbEmbedding(model)
    query, documents = own.encode_query(QUESTION).tolist(), own.encode_document(DOCUMENTS)
    assert found.get_query_embedding(QUESTION) == query
    assert asyncio.run(found.aget_query_embedding(QUESTION)) == query
    assert found.get_text_embedding_batch(DOCUMENTS) == documents.tolist()
    assert asyncio.run(found.aget_text_embedding_batch(DOCUMENTS)) == documents.tolist()
    assert found.get_text_embedding(DOCUMENTS[1]) == pytest.approx(documents[1], abs=1e-6)
    assert asyncio.run(found.aget_text_embedding(DOCUMENTS[1])) == pytest.approx(documents[1], abs=1e-6)


def test_dims_are_cut_in_every_form(bundle: Path) -> None:
    own, found = emb.load(bundle), EmbEmbedding(bundle, truncate_dim=8, embed_batch_size=5)
    query, documents = own.encode_query(QUESTION, truncate_dim=8), own.encode_document(DOCUMENTS, truncate_dim=8)
    for vector in (found.get_query_embedding(QUESTION), asyncio.run(found.aget_query_embedding(QUESTION))):
        assert vector == pytest.approx(query, abs=1e-6)
    for many in (
        found.get_text_embedding_batch(DOCUMENTS),
        asyncio.run(found.aget_text_embedding_batch(DOCUMENTS)),
    ):
        assert _flat(many) == pytest.approx(documents.ravel(), abs=1e-6)


def test_the_index_finds_what_the_bundle_finds(bundle: Path) -> None:
    own, nodes = emb.load(bundle), _nodes()
    index = VectorStoreIndex(nodes, embed_model=EmbEmbedding(bundle))
    hits = index.as_retriever(similarity_top_k=len(nodes)).retrieve(QUESTION)
    texts = [node.get_content(metadata_mode=MetadataMode.EMBED) for node in nodes]  # with their metadata
    assert texts[0] != DOCUMENTS[0]
    scores = own.similarity(own.encode_query([QUESTION]), own.encode_document(texts))[0]
    assert [hit.node.metadata["row"] for hit in hits] == (-scores).argsort().tolist()
    assert [hit.score for hit in hits] == pytest.approx(sorted(scores.tolist(), reverse=True), abs=1e-6)
    later = asyncio.run(index.as_retriever(similarity_top_k=len(nodes)).aretrieve(QUESTION))
    assert [hit.node.node_id for hit in later] == [hit.node.node_id for hit in hits]


def test_it_is_a_step_of_a_pipeline(bundle: Path) -> None:
    nodes = IngestionPipeline(transformations=[EmbEmbedding(bundle)]).run(nodes=_nodes())
    assert all(len(node.embedding or []) == 16 for node in nodes)


def test_a_cache_that_takes_a_query_for_a_document_is_refused(bundle: Path, teacher: Path, single: Path) -> None:
    for model in (bundle, single):
        with pytest.raises(UsageError, match="it keeps one vector of each text"):
            EmbEmbedding(model, embeddings_cache=SimpleKVStore())


def test_a_cache_is_taken_where_a_text_has_one_vector(bert_folder: Path) -> None:
    cached = EmbEmbedding(bert_folder, embeddings_cache=SimpleKVStore())
    assert cached.get_text_embedding(QUESTION) == cached.get_query_embedding(QUESTION)


def test_it_is_saved_by_its_place(bundle: Path) -> None:
    found = EmbEmbedding(bundle, truncate_dim=8, embed_batch_size=7)
    saved = json.loads(found.to_json())
    assert (saved["class_name"], saved["model_name"]) == ("EmbEmbedding", str(bundle))
    for again in (EmbEmbedding.from_dict(saved), pickle.loads(pickle.dumps(found))):
        assert again.to_dict() == found.to_dict()
        assert again.get_query_embedding(QUESTION) == found.get_query_embedding(QUESTION)
    assert len(pickle.dumps(found)) < 2000


def test_what_is_wrong_is_said_at_once(bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="no such folder"):
        EmbEmbedding(tmp_path / "nowhere")
    with pytest.raises(ValidationError, match="truncate_dims"):
        EmbEmbedding(bundle, truncate_dims=8)
    with pytest.raises(ValidationError, match="frozen"):
        EmbEmbedding(bundle).device = "cuda"


def test_the_page_is_right(bundle: Path, ranked: list[str]) -> None:
    assert [hit.node.get_content() for hit in example("LlamaIndex", bundle)] == ranked[:3]
