"""The API of text-embeddings-inference."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from serving import get, post

from emb.runtime.encoder import Encoder, load
from emb.search.server.app import create_app
from emb.search.server.settings import Settings


@pytest.fixture(scope="module")
def encoder(student_folder: Path) -> Encoder:
    return load(student_folder, threads=1)


@pytest.fixture(scope="module")
def app(encoder: Encoder) -> Any:
    return create_app(encoder, Settings(served_model_name="tiny", max_client_batch_size=30), about={"pooling": "mean"})


@pytest.mark.parametrize("single", [True, False])
def test_embed_gives_the_encoders_vectors(app: Any, encoder: Encoder, sentences: list[str], single: bool) -> None:
    answer = post(app, "/embed", {"inputs": sentences[0] if single else sentences})
    expected = encoder.encode(sentences[:1] if single else sentences)
    np.testing.assert_allclose(answer.json(), expected, atol=1e-6)
    texts = sentences[:1] if single else sentences
    assert answer.headers["x-compute-tokens"] == str(sum(map(len, encoder.tokenizer.encode(texts))))
    assert answer.headers["x-compute-characters"] == str(sum(map(len, texts)))


@pytest.mark.parametrize("normalize", [True, False])
def test_dimensions_are_cut_and_normalised_unless_told_not_to(
    app: Any, encoder: Encoder, sentences: list[str], normalize: bool
) -> None:
    found = post(app, "/embed", {"inputs": sentences, "dimensions": 5, "normalize": normalize}).json()
    whole = encoder.encode(sentences)[:, :5]
    expected = encoder.encode(sentences, truncate_dim=5) if normalize else whole
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("name", ["query", "document"])
def test_a_prompt_goes_by_its_name(app: Any, encoder: Encoder, name: str) -> None:
    found = post(app, "/embed", {"inputs": "the cat", "prompt_name": name}).json()
    np.testing.assert_allclose(found, encoder.encode(["the cat"], kind=name), atol=1e-6)


def test_prompts_of_other_names_are_found(encoder: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(encoder.prompts, "clustering", "What is it about? ")
    found = post(create_app(encoder), "/embed", {"inputs": "the cat", "prompt_name": "clustering"}).json()
    np.testing.assert_allclose(found, encoder.encode(["the cat"], prompt="What is it about? "), atol=1e-6)


def test_a_request_may_forbid_or_ask_to_cut(app: Any, encoder: Encoder) -> None:
    text = "the cat sat on the mat " * 40
    assert post(app, "/embed", {"inputs": text, "truncate": False}).status_code == 413
    found = post(create_app(encoder, Settings(auto_truncate=False)), "/embed", {"inputs": text, "truncate": True})
    np.testing.assert_allclose(found.json(), encoder.encode([text]), atol=1e-6)


@pytest.mark.parametrize(
    ("body", "status", "kind", "said"),
    [
        ({}, 422, "Validation", "inputs is missing"),
        ({"inputs": 7}, 422, "Validation", "inputs: must be a string or a list of strings"),
        ({"inputs": ["a", 7]}, 422, "Validation", "inputs: must be a string or a list of strings"),
        ({"inputs": ""}, 400, "Empty", "empty text"),
        ({"inputs": []}, 400, "Empty", "inputs is empty"),
        ({"inputs": "a\0b"}, 422, "Tokenizer", "NUL"),
        ({"inputs": ["a"] * 31}, 413, "Validation", "31 texts, and a request may have 30"),
        ({"inputs": "a", "dimensions": 49}, 422, "Validation", "1 to 48"),
        ({"inputs": "a", "prompt_name": "poem"}, 422, "Validation", "no prompt 'poem'; it has document, query"),
        ({"inputs": "a", "truncation_direction": "left"}, 422, "Validation", "cut on the right"),
        ({"inputs": "a", "normalize": "no"}, 422, "Validation", "boolean"),
    ],
)
def test_a_request_that_cannot_be_answered_is_told_why(app: Any, body: Any, status: int, kind: str, said: str) -> None:
    answer = post(app, "/embed", body)
    assert (answer.status_code, answer.json()["error_type"]) == (status, kind)
    assert set(answer.json()) == {"error", "error_type"}
    assert said in answer.json()["error"]


def test_half_of_a_surrogate_pair_is_no_text(app: Any) -> None:
    headers = {"content-type": "application/json"}
    answer = post(app, "/embed", None, json=None, content=b'{"inputs": "\\ud800"}', headers=headers)
    assert (answer.status_code, answer.json()["error_type"]) == (422, "Tokenizer")


def test_info_says_what_is_served(app: Any, encoder: Encoder) -> None:
    found = get(app, "/info").json()
    assert found["model_id"] == "tiny"
    assert found["model_type"] == {"embedding": {"pooling": "mean"}}
    assert found["max_input_length"] == encoder.max_length
    assert found["max_client_batch_size"] == 30
    assert found["model_dtype"] == "float32"


def test_health_and_its_end(encoder: Encoder) -> None:
    app = create_app(encoder)
    assert (get(app, "/health").status_code, get(app, "/health").content) == (200, b"")
    app.state.service.close()
    assert get(app, "/health").status_code == 503
    assert post(app, "/embed", {"inputs": "a"}).json()["error_type"] == "Unhealthy"


def test_metrics_count_what_was_done(encoder: Encoder, sentences: list[str]) -> None:
    app = create_app(encoder)
    post(app, "/embed", {"inputs": sentences})
    post(app, "/v1/embeddings", {"input": "a"})
    post(app, "/embed", {"inputs": ""})
    lines = get(app, "/metrics").text.splitlines()
    figures = {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if line[0] != "#")}
    assert figures['te_request_count{method="batch"}'] == figures['te_request_success{method="batch"}'] == 1
    assert figures['te_request_success{method="single"}'] == 1
    assert figures['te_request_failure{err="empty"}'] == 1
    assert figures["te_embed_count"] == figures["te_embed_success"] == len(sentences) + 1
    assert figures["te_request_input_length_count"] == len(sentences) + 1
    assert figures["te_batch_next_size_sum"] == len(sentences) + 1
    assert figures["te_request_inference_duration_count"] == figures["te_request_duration_count"] == 2
    assert math.isclose(figures["te_batch_next_tokens_sum"], figures["te_request_input_length_sum"])
    assert figures["te_queue_size"] == 0


def test_the_schema_is_served_and_no_page_that_loads_from_elsewhere(app: Any) -> None:
    found = get(app, "/openapi.json").json()
    assert {"/v1/embeddings", "/v1/models", "/embed", "/info", "/health", "/metrics"} <= set(found["paths"])
    assert get(app, "/docs").status_code == get(app, "/redoc").status_code == 404
