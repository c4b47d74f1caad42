"""OpenAI's API: the official client, and every way in which a request is refused."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import openai
import pytest
from serving import get, listening, post

from emb.runtime.encoder import Encoder, load
from emb.search.server.app import create_app
from emb.search.server.settings import Settings
from emb.similarity import unit

SETTINGS = Settings(served_model_name="tiny", alias=("me/tiny",), max_client_batch_size=30)


@pytest.fixture(scope="module")
def encoder(student_folder: Path) -> Encoder:
    return load(student_folder, threads=1)


@pytest.fixture(scope="module")
def app(encoder: Encoder) -> Any:
    return create_app(encoder, SETTINGS)


@pytest.fixture(scope="module")
def client(encoder: Encoder) -> Iterator[openai.OpenAI]:
    with listening(create_app(encoder, SETTINGS)) as address:
        with openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0) as found:
            yield found


def _vectors(answer: Any) -> Any:
    assert [item.index for item in answer.data] == list(range(len(answer.data)))
    return np.array([item.embedding for item in answer.data])


@pytest.mark.parametrize("encoding", [openai.omit, "float", "base64"])
def test_the_official_client_gets_the_encoders_vectors(
    client: openai.OpenAI, encoder: Encoder, sentences: list[str], encoding: Any
) -> None:
    answer = client.embeddings.create(model="tiny", input=sentences, encoding_format=encoding)
    if encoding == "base64":
        found = np.array([np.frombuffer(base64.b64decode(str(item.embedding)), "<f4") for item in answer.data])
    else:
        found = _vectors(answer)
    np.testing.assert_allclose(found, encoder.encode(sentences), atol=1e-6)
    tokens = sum(map(len, encoder.tokenizer.encode(sentences)))
    assert (answer.usage.prompt_tokens, answer.usage.total_tokens, answer.model) == (tokens, tokens, "tiny")


def test_one_text_is_a_list_of_one(client: openai.OpenAI, encoder: Encoder) -> None:
    answer = client.embeddings.create(model="me/tiny", input="the cat")
    np.testing.assert_allclose(_vectors(answer), encoder.encode(["the cat"]), atol=1e-6)
    assert answer.model == "me/tiny"


def test_fewer_dimensions_are_normalised_again(client: openai.OpenAI, encoder: Encoder, sentences: list[str]) -> None:
    found = _vectors(client.embeddings.create(model="tiny", input=sentences, dimensions=7))
    np.testing.assert_allclose(found, encoder.encode(sentences, truncate_dim=7), atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)


@pytest.mark.parametrize(
    ("named", "kind"),
    [("query", "query"), ("search_query", "query"), ("passage", "document"), ("search_document", "document")],
)
def test_a_request_may_say_which_prompt_its_texts_get(
    client: openai.OpenAI, encoder: Encoder, named: str, kind: str
) -> None:
    answer = client.embeddings.create(model="tiny", input="the cat", extra_body={"input_type": named})
    np.testing.assert_allclose(_vectors(answer), encoder.encode(["the cat"], kind=kind), atol=1e-6)
    assert np.abs(encoder.encode("the cat", kind="query") - encoder.encode("the cat")).max() > 1e-3


@pytest.mark.parametrize("kind", ["query", "document"])
def test_a_server_has_a_default_prompt(encoder: Encoder, kind: str) -> None:
    found = post(create_app(encoder, Settings(kind=kind)), "/v1/embeddings", {"input": "the cat"}).json()
    np.testing.assert_allclose(found["data"][0]["embedding"], encoder.encode("the cat", kind=kind), atol=1e-6)


def test_token_ids_are_read_as_they_are(client: openai.OpenAI, encoder: Encoder, sentences: list[str]) -> None:
    rows = [row.tolist() for row in encoder.tokenizer.encode(sentences)]
    expected = encoder.encode(sentences)
    one = client.embeddings.create(model="tiny", input=rows[0], extra_body={"input_type": "query"})
    np.testing.assert_allclose(_vectors(one), expected[:1], atol=1e-6)
    np.testing.assert_allclose(_vectors(client.embeddings.create(model="tiny", input=rows)), expected, atol=1e-6)
    assert one.usage.prompt_tokens == len(rows[0])


def test_models_are_listed_and_found(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["tiny"]
    assert client.models.retrieve("me/tiny").id == "tiny"


def test_an_unknown_model_is_openais_404(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        client.embeddings.create(model="text-embedding-3-small", input="the cat")
    assert caught.value.code == "model_not_found"
    assert "'tiny'" in str(caught.value)
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("../../etc/passwd")


def test_long_texts_are_cut_or_refused(encoder: Encoder) -> None:
    text = "the cat sat on the mat " * 40
    found = post(create_app(encoder), "/v1/embeddings", {"input": text}).json()
    np.testing.assert_allclose(found["data"][0]["embedding"], encoder.encode(text), atol=1e-6)
    assert found["usage"]["total_tokens"] == encoder.max_length
    refused = post(create_app(encoder, Settings(auto_truncate=False)), "/v1/embeddings", {"input": ["a", text]})
    assert refused.status_code == 413
    assert "1 of 2 texts" in refused.json()["error"]["message"]


@pytest.mark.parametrize(
    ("body", "status", "param", "said"),
    [
        ({}, 400, "input", "input is missing"),
        ({"input": ""}, 400, "input", "input[0] is an empty text"),
        ({"input": []}, 400, "input", "input is empty"),
        ({"input": ["a", ""]}, 400, "input", "input[1] is an empty text"),
        ({"input": [[]]}, 400, "input", "input[0] holds no token"),
        ({"input": ["a", "b\0c"]}, 400, "input", "NUL"),
        ({"input": "a", "dimensions": 0}, 400, "dimensions", "1 to 48"),
        ({"input": "a", "dimensions": 49}, 400, "dimensions", "1 to 48"),
        ({"input": "a", "dimensions": "7"}, 400, "dimensions", "integer"),
        ({"input": "a", "encoding_format": "hex"}, 400, "encoding_format", "'float' or 'base64'"),
        ({"input": "a", "input_type": "poem"}, 400, "input_type", "'query'"),
        ({"input": 5}, 400, "input", "a list of token ids"),
        ({"input": [True]}, 400, "input", "a list of token ids"),
        ({"input": ["a", 5]}, 400, "input", "a list of token ids"),
        ({"input": {"text": "a"}}, 400, "input", "a list of token ids"),
        ({"input": [10**6]}, 400, "input", "another's mean other words"),
        ({"input": [-1]}, 400, "input", "another's mean other words"),
        ({"input": [5] * 65}, 413, "input", "64 are read"),
        ({"input": ["a"] * 31}, 413, "input", "31 texts, and a request may have 30"),
        ({"input": "a", "model": "gpt"}, 404, "model", "does not exist"),
        (["a"], 400, None, "a JSON object"),
    ],
)
def test_a_request_that_cannot_be_answered_is_told_why(
    app: Any, body: Any, status: int, param: str | None, said: str
) -> None:
    answer = post(app, "/v1/embeddings", body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (status, param)
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}
    assert answer.json()["error"]["type"] == "invalid_request_error"
    assert said in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b'{"input": "a\\ud800b"}', "half of a surrogate pair"),
        (b'{"input": ["ok", "\\udfff"]}', "half of a surrogate pair"),
        (b'{"input": "a"', "not JSON"),
        (b'{"input": "\xff"}', "body"),
        (b"[" * 100_000, "body"),
        (b"", "JSON object"),
    ],
)
def test_what_is_no_json_or_no_unicode_is_refused(app: Any, content: bytes, said: str) -> None:
    answer = post(app, "/v1/embeddings", None, json=None, content=content, headers={"content-type": "application/json"})
    assert answer.status_code == 400
    assert said in answer.json()["error"]["message"]


def test_a_page_of_another_site_cannot_ask(app: Any) -> None:
    # What a browser sends to any address without asking it first is text/plain.
    answer = post(
        app, "/v1/embeddings", None, json=None, content=b'{"input": "a"}', headers={"content-type": "text/plain"}
    )
    assert answer.status_code == 400


@pytest.mark.parametrize("path", ["/v1/embeddings", "/v1/nothing", "/nothing"])
def test_paths_and_methods_that_are_not_there(app: Any, path: str) -> None:
    answer = get(app, path)
    assert answer.status_code == (405 if path.endswith("embeddings") else 404)
    assert ("error_type" in answer.json()) is not path.startswith("/v1")


@pytest.mark.parametrize("path", ["/v1/embeddings", "/embed"])
def test_a_vector_that_is_not_finite_is_never_sent(
    encoder: Encoder, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    inner = encoder.encode_ids

    def spoiled(rows: Any, **options: Any) -> Any:
        short = np.array([[len(row) == 3] for row in rows])
        return np.where(short, np.float32(np.nan), inner(rows))

    monkeypatch.setattr(encoder, "encode_ids", spoiled)
    app = create_app(encoder)
    answer = post(app, path, {"input": ["the cat", "a"], "inputs": ["the cat", "a"]})
    assert answer.status_code == (500 if path.startswith("/v1") else 424)
    assert "text 2 gets NaN or infinity" in answer.text
    assert post(app, path, {"input": "the cat", "inputs": "the cat"}).status_code == 200


def test_an_encoder_that_fails_is_a_500_without_its_secrets(encoder: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    app = create_app(encoder)

    def fail(rows: Any, **options: Any) -> Any:
        raise RuntimeError("/home/someone/model is broken")

    monkeypatch.setattr(app.state.service.batcher, "encode", fail)
    answer = post(app, "/v1/embeddings", {"input": "a"})
    assert (answer.status_code, answer.json()["error"]["type"]) == (500, "server_error")
    assert "someone" not in answer.text


def test_vectors_of_other_lengths_stay_as_long_as_they_are(
    encoder: Encoder, sentences: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    inner = encoder.encode_ids
    monkeypatch.setattr(encoder, "encode_ids", lambda rows, **options: 3 * inner(rows, **options))
    monkeypatch.setattr(encoder, "normalize", False)
    app = create_app(encoder)
    for dimensions in (None, 5, encoder.dim):
        body = {"input": sentences, "inputs": sentences, "dimensions": dimensions}
        found = post(app, "/v1/embeddings", body).json()["data"]
        expected = encoder.encode(sentences)[:, :dimensions]
        np.testing.assert_allclose([item["embedding"] for item in found], expected, atol=3e-6)
        np.testing.assert_allclose(post(app, "/embed", body).json(), unit(expected), atol=1e-6)
        np.testing.assert_allclose(post(app, "/embed", body | {"normalize": False}).json(), expected, atol=3e-6)
