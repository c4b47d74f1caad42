"""Hold LangChain, LlamaIndex and Haystack to a model's own vectors and order, on documents of an evaluation set.

    python tests/interop/with_frameworks.py MODEL BEIR-FOLDER [DOCUMENTS] [QUERIES]

Every framework embeds the same documents into its store in memory and retrieves all of them for each query.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

os.environ["HAYSTACK_TELEMETRY_ENABLED"] = "False"  # read when it is imported

import numpy as np
from haystack import Document
from haystack.components.retrievers.in_memory import InMemoryEmbeddingRetriever
from haystack.document_stores.in_memory import InMemoryDocumentStore
from langchain_core.vectorstores import InMemoryVectorStore
from llama_index.core import VectorStoreIndex
from llama_index.core.schema import TextNode

import emb
from emb.data.evaluation_sets import RetrievalTask, read_tasks
from emb.integrations.haystack import EmbDocumentEmbedder, EmbTextEmbedder
from emb.integrations.langchain import EmbEmbeddings
from emb.integrations.llama_index import EmbEmbedding
from emb.similarity import Vectors

CLOSE = 1e-6
Ranked = list[int]
Asked = tuple[Vectors, Callable[[str], tuple[list[float], Ranked]]]


def main() -> int:
    """Print a line for each framework; 1 if one is further away than CLOSE, or has another order."""
    model, data, *counts = sys.argv[1:]
    documents, queries = read(Path(data), *map(int, counts))
    own = emb.load(model)
    vectors, asked = own.encode_document(documents), [own.encode_query(query) for query in queries]
    failed = 0
    for name, ready in FRAMEWORKS.items():
        began = time.perf_counter()
        theirs, ask = ready(model, documents)
        took = time.perf_counter() - began
        answers = [ask(query) for query in queries]
        away = max(
            float(np.abs(theirs - vectors).max()),
            *(float(np.abs(found - expected).max()) for (found, _), expected in zip(answers, asked, strict=True)),
        )
        same = sum(
            in_order(order, own.similarity(query, vectors)[0]) for (_, order), query in zip(answers, asked, strict=True)
        )
        failed += away > CLOSE or same < len(queries)
        print(
            f"{name:11} {len(documents)} documents in {took:.1f} s; vectors within {away:.1e};"
            f" {same} of {len(queries)} queries in the same order",
            flush=True,
        )
    return int(failed > 0)


def read(folder: Path, documents: int = 30, queries: int = 50) -> tuple[list[str], list[str]]:
    """The first texts of an evaluation set: documents, and queries."""
    [task] = [each for each in read_tasks([folder]) if isinstance(each, RetrievalTask)]
    return list(task.documents.values())[:documents], list(task.queries.values())[:queries]


def in_order(order: Ranked, scores: Vectors) -> bool:
    """Whether all are there and no score of ours is below the next; equal ones may stand either way."""
    return sorted(order) == list(range(len(scores))) and all(
        scores[first] >= scores[second] - CLOSE for first, second in pairwise(order)
    )


def langchain(model: str, documents: list[str]) -> Asked:
    """LangChain's store."""
    embeddings = EmbEmbeddings(model)
    store = InMemoryVectorStore(embeddings)
    names = store.add_texts(documents, ids=[str(row) for row in range(len(documents))])
    vectors = np.asarray([store.store[name]["vector"] for name in names], np.float32)

    def ask(query: str) -> tuple[list[float], Ranked]:
        hits = store.similarity_search(query, k=len(documents))
        return embeddings.embed_query(query), [int(hit.id or -1) for hit in hits]

    return vectors, ask


def llama_index(model: str, documents: list[str]) -> Asked:
    """LlamaIndex's index."""
    embedding = EmbEmbedding(model)
    nodes = [TextNode(id_=str(row), text=text) for row, text in enumerate(documents)]
    index = VectorStoreIndex(nodes, embed_model=embedding)
    kept = index.vector_store.data.embedding_dict
    retriever = index.as_retriever(similarity_top_k=len(documents))

    def ask(query: str) -> tuple[list[float], Ranked]:
        return embedding.get_query_embedding(query), [int(hit.node.node_id) for hit in retriever.retrieve(query)]

    return np.asarray([kept[str(row)] for row in range(len(documents))], np.float32), ask


def haystack(model: str, documents: list[str]) -> Asked:
    """Haystack's store and retriever."""
    store, query_side = InMemoryDocumentStore(embedding_similarity_function="cosine"), EmbTextEmbedder(model)
    given = [Document(id=str(row), content=text) for row, text in enumerate(documents)]
    embedded = EmbDocumentEmbedder(model).run(given)["documents"]
    store.write_documents(embedded)
    retriever = InMemoryEmbeddingRetriever(store, top_k=len(documents))

    def ask(query: str) -> tuple[list[float], Ranked]:
        vector = query_side.run(query)["embedding"]
        return vector, [int(hit.id) for hit in retriever.run(vector)["documents"]]

    return np.asarray([each.embedding for each in embedded], np.float32), ask


FRAMEWORKS = {"LangChain": langchain, "LlamaIndex": llama_index, "Haystack": haystack}

if __name__ == "__main__":
    sys.exit(main())
