"""Encoders and dims that `/search` offers: each searches as the index does with its vectors, others are refused."""

from __future__ import annotations

import dataclasses
import json
import shutil
import threading
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import tiny
from searchable import Searchable
from serving import get, listening, post, searching_app

import emb
from emb.errors import ArtifactError, EmbError, UsageError
from emb.runtime.bundle_encoder import BundleEncoder
from emb.runtime.encoder import load
from emb.search.index.reader import Index
from emb.search.server import offers
from emb.search.server.run import search_routers
from emb.search.server.settings import Searching, Settings

TEXT = "the river and the town"


@pytest.fixture(scope="module")
def app(searchable: Searchable) -> Any:
    also = [searchable.exports["1x16"], searchable.exports["2x32"] / "onnx" / "model.onnx", searchable.exports["1x32"]]
    return searching_app(searchable.bundle, searchable.index, compare=True, also=also, dims=[8])


def _refused(searchable: Searchable, model: Path | None = None, index: Path | None = None, **more: Any) -> EmbError:
    folder = model or searchable.bundle
    with pytest.raises(EmbError) as caught:
        search_routers(load(folder), folder, Searching(index or searchable.index, **more), Settings(folder.name))
    return caught.value


def test_what_is_offered_is_listed(app: Any) -> None:
    told = get(app, "/search/encoders").json()
    assert told["documents"] == 22
    assert [tuple(each.values()) for each in told["encoders"]] == [
        ("both", "query", 1, "fp32", [32, 16, 8]),
        ("1x16-fp32", "query", 1, "fp32", [16, 8]),
        ("2x32-fp32", "query", 2, "fp32", [32, 16, 8]),
        ("1x32-fp32", "query", 1, "fp32", [32, 16, 8]),
        ("teacher", "teacher", None, "fp32", [32, 16, 8]),
    ]
    assert [*told["encoders"][0]] == ["name", "side", "layers", "precision", "dims"]


@pytest.mark.parametrize(
    ("name", "model"), [("both", "1x32"), ("1x16-fp32", "1x16"), ("2x32-fp32", "2x32"), ("teacher", None)]
)
def test_each_searches_with_its_own_vectors(name: str, model: str | None, app: Any, searchable: Searchable) -> None:
    encoder = load(searchable.exports[model] if model else searchable.teacher)
    vector = encoder.encode(TEXT, kind="query")
    with emb.open_index(searchable.index) as index:
        for dim in (None, 8, 16, 32):
            if dim and dim > encoder.dim:
                continue
            expected = index.search_vector(vector, 5, dim=dim or encoder.dim)
            answer = post(app, "/search", {"query": TEXT, "k": 5, "encoder": name, "dim": dim}).json()
            assert [hit["id"] for hit in answer["hits"]] == [hit.id for hit in expected]
            np.testing.assert_allclose(
                [hit["score"] for hit in answer["hits"]], [hit.score for hit in expected], atol=1e-5
            )
            assert (answer["encoder"], answer["dim"]) == (name, dim or encoder.dim)


def test_the_served_encoder_answers_unless_another_is_named(app: Any) -> None:
    plain = post(app, "/search", {"query": TEXT}).json()
    assert plain["encoder"] == "both"
    assert plain["hits"] == post(app, "/search", {"query": TEXT, "encoder": "both", "dim": 32}).json()["hits"]
    assert plain["hits"] != post(app, "/search", {"query": TEXT, "encoder": "teacher"}).json()["hits"]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"encoder": "3x32"}, "there is no '3x32'; this server has both, 1x16-fp32, 2x32-fp32, 1x32-fp32, teacher"),
        ({"encoder": "../teacher"}, "there is no '../teacher'"),
        ({"encoder": ""}, "there is no ''"),
        ({"dim": 24}, "both is not searched in 24 dims; choose of 32, 16, 8"),
        ({"dim": 0}, "not searched in 0 dims"),
        ({"encoder": "1x16-fp32", "dim": 32}, "1x16-fp32 is not searched in 32 dims"),
        ({"dim": "8"}, "dim"),
        ({"characters": -1}, "characters"),
    ],
)
def test_what_is_not_offered_is_refused(body: dict[str, Any], said: str, app: Any) -> None:
    answer = post(app, "/search", {"query": TEXT} | body)
    assert answer.status_code == 422
    assert said in answer.json()["error"]


def test_passages_may_be_shortened(app: Any) -> None:
    [whole] = post(app, "/search", {"query": tiny.SENTENCES[17], "k": 1}).json()["hits"]
    [short] = post(app, "/search", {"query": tiny.SENTENCES[17], "k": 1, "characters": 13}).json()["hits"]
    assert whole["passage"] == tiny.SENTENCES[17]
    assert short == whole | {"passage": f"{tiny.SENTENCES[17][:13].rstrip()}…"}
    [same] = post(app, "/search", {"query": "yes", "k": 1, "characters": 3}).json()["hits"]
    assert same["passage"] == "yes"


def test_the_schema_tells_of_it(app: Any) -> None:
    schema = get(app, "/openapi.json").json()
    fields = schema["components"]["schemas"]["SearchRequest"]["properties"]
    assert {"encoder", "dim", "characters"} <= fields.keys()
    assert all("description" in fields[name] for name in fields)
    assert schema["paths"]["/search/encoders"]["get"]["responses"]["200"]["content"]["application/json"]["schema"]
    assert {"hits", "seconds", "encoder", "dim"} == schema["components"]["schemas"]["SearchAnswer"]["properties"].keys()
    assert "/" not in schema["paths"]


def test_the_teacher_stays_closed_unless_it_is_asked_for(searchable: Searchable) -> None:
    loaded = load(searchable.bundle)
    assert isinstance(loaded, BundleEncoder)
    search_routers(loaded, searchable.bundle, Searching(searchable.index), Settings("both"))
    assert "document" not in vars(loaded)
    search_routers(loaded, searchable.bundle, Searching(searchable.index, compare=True), Settings("both"))
    assert "document" in vars(loaded)


def test_queues_end_with_the_server(searchable: Searchable) -> None:
    before = set(threading.enumerate())
    app = searching_app(searchable.bundle, searchable.index, compare=True)
    with listening(app) as address:
        answer = httpx.post(f"{address}/search", json={"query": TEXT, "encoder": "teacher"})
        assert answer.status_code == 200
        assert "encoder" in {thread.name for thread in set(threading.enumerate()) - before}
    assert "encoder" not in {thread.name for thread in set(threading.enumerate()) - before}


def test_an_encoder_of_another_space_is_refused_by_name(searchable: Searchable, tmp_path: Path) -> None:
    stranger = tiny.tiny_bert(tmp_path / "stranger", layers=1)
    said = _refused(searchable, also=[stranger])
    assert isinstance(said, ArtifactError)
    assert said.message.startswith(f"--also {stranger}: ")
    assert "not known to be made from it" in said.message
    assert "students of teacher" in said.hint


def test_what_is_no_encoder_is_refused_by_name(searchable: Searchable, tmp_path: Path) -> None:
    (tmp_path / "file.onnx").write_bytes(b"x")
    for path in (tmp_path / "file.onnx", tmp_path / "nothing"):
        assert _refused(searchable, also=[path]).message == f"--also {path}: no model folder, and no file of one"
    (tmp_path / "empty").mkdir()
    assert "empty" in _refused(searchable, also=[tmp_path / "empty"]).message


def test_a_file_of_codes_is_refused_by_name(searchable: Searchable, tmp_path: Path) -> None:
    copy = shutil.copytree(searchable.exports["2x32"], tmp_path / "codes")
    manifest = json.loads((copy / "emb.json").read_text(encoding="utf-8")) | {"digest": ""}
    manifest["variants"][0]["vector_dtype"] = "int8"
    (copy / "emb.json").write_text(json.dumps(manifest), encoding="utf-8")
    said = _refused(searchable, also=[copy / "onnx" / "model.onnx"]).message
    assert said == f"--also {copy / 'onnx' / 'model.onnx'}: its vectors are int8, and an index is searched with floats"


def test_there_must_be_something_to_compare_with(searchable: Searchable) -> None:
    said = _refused(searchable, searchable.exports["1x32"], compare=True)
    assert isinstance(said, UsageError)
    assert "--compare: this model is no bundle" in said.message


def test_dims_that_the_index_has_not_are_refused_by_name(searchable: Searchable) -> None:
    assert _refused(searchable, dims=[64]).message == "--dim 64: dim 64: the index keeps 32"


@pytest.mark.parametrize(
    ("layout", "said"),
    [({"rotate": True}, "1x16: the query encoder has 16 dims"), ({"codec": "binary"}, "nothing but binary codes")],
)
def test_an_index_that_cannot_be_cut_takes_no_narrower_encoder(
    layout: dict[str, Any], said: str, searchable: Searchable, tmp_path: Path
) -> None:
    (tmp_path / "docs.txt").write_text("\n".join(tiny.SENTENCES * 3), encoding="utf-8")
    (tmp_path / "docs.jsonl").write_text(
        "".join(json.dumps({"id": str(n), "text": f"{text} {n}"}) + "\n" for n, text in enumerate(3 * tiny.SENTENCES)),
        encoding="utf-8",
    )
    emb.index(tmp_path / "docs.jsonl", tmp_path / "index", searchable.bundle, **layout)
    caught = _refused(searchable, index=tmp_path / "index", also=[searchable.exports["1x16"]])
    assert said in caught.message
    assert "--also" in caught.message


def test_nothing_is_offered_without_an_index(searchable: Searchable) -> None:
    for more in ({"compare": True}, {"also": [searchable.exports["2x32"]]}, {"dims": [8]}):
        with pytest.raises(UsageError, match="there is no index to search"):
            emb.serve(searchable.bundle, **more)


def test_equal_names_are_numbered(searchable: Searchable) -> None:
    export = searchable.exports["2x32"]
    app = searching_app(searchable.bundle, searchable.index, also=[export, export, export / "onnx" / "model.onnx"])
    names = [each["name"] for each in get(app, "/search/encoders").json()["encoders"]]
    assert names == ["both", "2x32-fp32", "2x32-fp32-2", "2x32-fp32-3"]


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"origins": ["another"]}, "not model, which encoded the documents, and not known to be made from it"),
        ({"normalize": False}, "vectors are of length 1, the documents' of any length"),
        ({"similarity": "euclidean"}, "compares by cosine, the documents' encoder by euclidean"),
        ({"dim": 16}, "has 32 dims, the documents' encoder 16"),
    ],
)
def test_a_bundle_is_held_against_documents_of_another_encoder_on_both_sides(
    changed: dict[str, Any], said: str, searchable: Searchable
) -> None:
    served, other = load(searchable.bundle), searchable.exports["1x32"]
    assert isinstance(served, BundleEncoder)
    with emb.open_index(searchable.index) as index:
        assert isinstance(index, Index)
        known = index.description
        encoder = dataclasses.replace(known.encoder, **{"name": "model"} | changed)
        index.description = dataclasses.replace(known, encoder=encoder)
        with pytest.raises(ArtifactError, match=said) as teacher:
            offers._teacher("--compare", index, served, set())
        assert teacher.value.message.startswith("--compare: ")
        assert teacher.value.hint == "bundle model, which encoded the documents"
        with pytest.raises(ArtifactError, match="model" if "origins" in changed else said) as also:
            offers._also(index, other, {}, set())
        assert also.value.message.startswith(f"--also {other}: ")
