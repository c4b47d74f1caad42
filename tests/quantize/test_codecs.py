"""Vector codecs: what each keeps, that scores are those of the decoded vectors, and that a stored codec is the fitted
one.
"""

from __future__ import annotations

import json
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emb.commands.codec import KINDS
from emb.errors import ArtifactError, MissingExtra, UsageError
from emb.quantize.vectors.base import Codec
from emb.quantize.vectors.bebr import BebrCodec
from emb.quantize.vectors.binary import BinaryCodec
from emb.quantize.vectors.bits import BitCodec, looked_up, signs, tables
from emb.quantize.vectors.codecs import ARRAYS, CODECS, DESCRIPTION, fit_codec, load_codec, save_codec
from emb.quantize.vectors.lvq import Lvq8Codec
from emb.quantize.vectors.scalar import Float32Codec, Int4Codec, Int8Codec
from emb.similarity import Vectors, neighbour_overlap, unit

DIM = 24
OPTIONS: dict[str, dict[str, Any]] = {
    "bebr": {"codes": 2, "bits": 16, "steps": 20},
    "pq": {"pieces": 4},
    "binary": {"rotation": "itq", "centre": True},
}
BYTES = {"float32": 96, "float16": 48, "lvq8": 28, "int8": 24, "int4": 12, "binary": 3, "bebr": 4, "pq": 4}


@cache
def vectors(count: int = 600, dim: int = DIM, seed: int = 0) -> Vectors:
    """Unit vectors with a mean, uneven dimensions and some clusters, as models give them."""
    random = np.random.default_rng(seed)
    centres = random.standard_normal((12, dim)) * np.linspace(2, 0.3, dim)
    return unit(centres[random.integers(12, size=count)] + 0.7 * random.standard_normal((count, dim)) + 0.3)


@cache
def fitted(kind: str) -> Codec:
    """A codec of each kind, fitted once."""
    return fit_codec(kind, vectors(), **OPTIONS.get(kind, {}))[0]


def error(codec: Codec, given: Vectors) -> float:
    """Squared error of what codes stand for."""
    return float(np.square(codec.decode(codec.encode(given)) - given).sum())


@pytest.mark.parametrize("kind", CODECS)
def test_a_code_has_its_size_and_stands_for_its_vector(kind: str) -> None:
    codec, quality = fit_codec(kind, vectors(), **OPTIONS.get(kind, {}))
    codes = codec.encode(vectors())
    assert codes.nbytes == len(codes) * codec.bytes_per_vector == len(codes) * BYTES[kind]
    assert codec.decode(codes).shape == (600, DIM)
    assert codec.decode(codes).dtype == np.float32
    assert quality.cosine > (0.75 if kind in ("binary", "bebr", "pq") else 0.99)
    assert quality.overlap > (0.3 if kind in ("binary", "bebr", "pq") else 0.85)
    assert (quality.fitted, quality.held_out) == (540, 60)


@pytest.mark.parametrize("kind", CODECS)
def test_scores_are_dot_products_with_what_the_codes_stand_for(kind: str) -> None:
    codec, queries = fitted(kind), vectors(70, seed=1)
    codes = codec.encode(vectors())
    np.testing.assert_allclose(codec.scores(queries, codes), queries @ codec.decode(codes).T, atol=1e-5)
    query_codes = codec.encode(queries)
    np.testing.assert_allclose(
        codec.symmetric(query_codes, codes), codec.decode(query_codes) @ codec.decode(codes).T, atol=1e-5
    )
    assert codec.scores(queries, codes[:0]).shape == (70, 0)


@pytest.mark.parametrize("kind", CODECS)
def test_a_stored_codec_gives_the_same_codes(kind: str, tmp_path: Path) -> None:
    codec, quality = fit_codec(kind, vectors(), **OPTIONS.get(kind, {}))
    save_codec(codec, tmp_path / "codec", quality)
    again = load_codec(tmp_path / "codec")
    assert (again.kind, again.dim, again.name) == (kind, DIM, codec.name)
    codes = codec.encode(vectors())
    assert np.array_equal(again.encode(vectors()), codes)
    assert np.array_equal(again.decode(codes), codec.decode(codes))
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == [DESCRIPTION, ARRAYS]


@pytest.mark.parametrize("kind", CODECS)
def test_vectors_of_another_dim_are_refused(kind: str) -> None:
    codec = fitted(kind)
    for call in (codec.encode, lambda given: codec.scores(given, codec.encode(vectors(3)))):
        with pytest.raises(UsageError, match="fitted to 24 dims"):
            call(np.zeros((2, 8), np.float32))


@given(st.integers(1, 40), st.integers(0, 2**32 - 1))
def test_lookup_tables_add_up_to_the_dot_product(bits: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    weights, codes = (
        random.standard_normal((3, bits)).astype(np.float32),
        np.packbits(random.random((5, bits)) > 0.5, axis=1),
    )
    np.testing.assert_allclose(looked_up(tables(weights), codes), weights @ signs(codes, bits).T, atol=1e-5)


def test_plain_sign_bits_are_the_stored_convention() -> None:
    codec = BinaryCodec.fit(vectors())
    assert np.array_equal(codec.encode(vectors()), np.packbits(vectors() > 0, axis=1))
    assert np.array_equal(
        BinaryCodec.fit(vectors(), bits=16).encode(vectors()), np.packbits(vectors()[:, :16] > 0, axis=1)
    )


def test_steps_of_each_vectors_own_behind_a_rotation_are_finer_than_ranges_of_all() -> None:
    wide = unit(np.random.default_rng(2).standard_t(3, (1000, 96)).astype(np.float32))  # rare and large, as models'
    exact = wide @ wide.T

    def missed(codec: Codec) -> float:
        return float(np.square(codec.scores(wide, codec.encode(wide)) - exact).mean() ** 0.5)

    best = missed(Lvq8Codec.fit(wide))
    assert best < 0.5 * missed(Int8Codec.fit(wide))
    assert best < 0.7 * missed(Lvq8Codec(np.eye(96, dtype=np.float32)))


@pytest.mark.parametrize("length", [2.0**-120, 1024.0, 2.0**120])
def test_steps_of_each_vectors_own_know_no_outside(length: float) -> None:
    codec = fitted("lvq8")
    alone, far = codec.encode(vectors()), codec.encode(np.float32(length) * vectors())
    assert np.array_equal(alone[:, :DIM], far[:, :DIM])
    np.testing.assert_allclose(codec.decode(far) / np.float32(length), codec.decode(alone), rtol=1e-4, atol=1e-6)


def test_equal_vectors_have_equal_codes_wherever_they_stand() -> None:
    codec = Lvq8Codec.fit(vectors(dim=96))
    alone = np.concatenate([codec.encode(vectors(dim=96)[row : row + 1]) for row in range(600)])
    assert np.array_equal(codec.encode(vectors(dim=96)), alone)


def test_no_vector_at_all_stands_for_none() -> None:
    codec = fitted("lvq8")
    assert not codec.decode(codec.encode(np.zeros((1, DIM), np.float32))).any()


def test_the_scale_of_a_code_makes_its_product_with_its_own_vector_exact() -> None:
    codec = fitted("lvq8")
    found = (codec.decode(codec.encode(vectors())) * vectors()).sum(1)
    np.testing.assert_allclose(found, np.square(vectors()).sum(1), rtol=2e-6)


@pytest.mark.parametrize("rotation", ["random", "itq"])
def test_a_rotation_keeps_dot_products(rotation: str) -> None:
    directions = BinaryCodec.fit(vectors(), rotation=rotation).directions
    np.testing.assert_allclose(
        (vectors() @ directions.T) @ (vectors() @ directions.T).T, vectors() @ vectors().T, atol=1e-5
    )
    fewer = BinaryCodec.fit(vectors(), rotation=rotation, bits=10).directions
    np.testing.assert_allclose(fewer @ fewer.T, np.eye(10), atol=1e-5)


@given(st.sampled_from(["random", "itq"]), st.integers(4, DIM), st.booleans(), st.integers(0, 2**32 - 1))
def test_documents_and_queries_are_turned_alike(rotation: str, bits: int, centre: bool, seed: int) -> None:
    codec = BinaryCodec.fit(vectors(), rotation=rotation, bits=bits, centre=centre, seed=seed)
    queries, documents = vectors(5, seed=1), vectors()
    turned = (documents - codec.centre) @ codec.directions.T
    assert np.array_equal(codec.encode(documents), np.packbits(turned > 0, axis=1))
    expected = codec.scale * (queries @ codec.directions.T) @ np.where(turned > 0, 1, -1).T
    np.testing.assert_allclose(
        codec.scores(queries, codec.encode(documents)), expected + (queries @ codec.centre)[:, None], atol=1e-5
    )


@pytest.mark.parametrize("rotation", ["random", "itq"])
def test_a_rotation_is_that_of_its_seed(rotation: str) -> None:
    first, again, other = (BinaryCodec.fit(vectors(), rotation=rotation, seed=seed).directions for seed in (3, 3, 4))
    assert np.array_equal(first, again)
    assert not np.allclose(first, other, atol=0.01)


def test_itq_loses_less_than_another_rotation() -> None:
    errors = [
        error(BinaryCodec.fit(vectors(), rotation=rotation, centre=True), vectors())
        for rotation in ("itq", "random", "none")
    ]
    assert errors[0] == min(errors)
    assert errors[0] < 0.97 * errors[1]


def test_coded_queries_on_sign_bits_are_hamming_distances() -> None:
    codec = BinaryCodec.fit(vectors(), rotation="random")
    codes = codec.encode(vectors())
    distances = np.unpackbits(codes[:9, None] ^ codes[None], axis=2).sum(2, dtype=int)
    np.testing.assert_allclose(codec.symmetric(codes[:9], codes) / codec.scale**2, DIM - 2 * distances, atol=1e-3)


def test_faiss_finds_the_same_by_hamming_distance() -> None:
    faiss = pytest.importorskip("faiss")
    codec = BinaryCodec.fit(vectors())
    codes = codec.encode(vectors())
    index = faiss.IndexBinaryFlat(DIM)
    index.add(codes)
    distances, _ = index.search(codes[:9], 10)
    ours = np.sort((DIM - codec.symmetric(codes[:9], codes) / codec.scale**2) / 2, axis=1)[:, :10]
    np.testing.assert_allclose(distances, ours, atol=1e-3)


def test_int4_ranges_lose_no_more_than_full_ones() -> None:
    heavy = np.sign(vectors()) * np.abs(vectors()) ** 3  # a few large values far out
    full = Int4Codec.fit(vectors()).__class__(Int8Codec.fit(heavy).ranges)
    assert error(Int4Codec.fit(heavy), heavy) < 0.9 * error(full, heavy)


def test_every_further_code_stores_some_of_what_was_missed() -> None:
    codec = BebrCodec.fit(vectors(), codes=4, bits=16, steps=30)
    prefixes = [BebrCodec(codec.encoders[:count], codec.decoders[:count]) for count in range(1, 5)]
    errors = [error(prefix, vectors()) for prefix in prefixes]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.5 * errors[0]
    longer = codec.encode(vectors())
    assert all(np.array_equal(prefix.encode(vectors()), longer[:, : prefix.bytes_per_vector]) for prefix in prefixes)


def test_training_finds_more_neighbours_than_its_start() -> None:
    trained, start = (fit_codec("bebr", vectors(4000), codes=1, bits=16, steps=steps)[1] for steps in (300, 0))
    assert trained.overlap > start.overlap


def test_training_is_the_same_every_time() -> None:
    first, second, other = (BebrCodec.fit(vectors(), codes=1, bits=16, steps=5, seed=seed) for seed in (3, 3, 4))
    assert np.array_equal(first.encoders, second.encoders)
    assert not np.array_equal(first.encoders, other.encoders)


def test_compatible_codes_find_documents_in_old_codes() -> None:
    shifted = unit(vectors(2000) + 0.2 * vectors(2000, seed=9))
    old = BebrCodec.fit(vectors(2000), codes=2, bits=16, steps=20)
    new = BebrCodec.fit(shifted, steps=50, compatible=old)
    assert np.array_equal(new.decoders, old.decoders)
    assert new.name == old.name
    assert not np.array_equal(new.encode(shifted), old.encode(shifted))
    exact, coded = shifted[:50] @ vectors().T, old.symmetric(new.encode(shifted[:50]), old.encode(vectors()))
    near = [np.argsort(-scores, axis=1)[:, :10] for scores in (exact, coded)]
    assert (near[0][:, :, None] == near[1][:, None, :]).any(2).mean() > 0.35  # by chance: 0.02


def test_bad_options() -> None:
    for kind, options, message in (
        ("zip", {}, "codec 'zip' is unknown"),
        ("int8", {"bits": 8}, "bits: the int8 codec has no such option"),
        ("binary", {"bits": 25}, "25 bits of 24 dims"),
        ("binary", {"rotation": "left"}, "rotation 'left' is unknown"),
        ("bebr", {"bits": 12}, "bits 12: codes must fill whole bytes"),
        ("bebr", {"compatible": fitted("int8")}, "int8 codec"),
        ("bebr", {"compatible": fitted("bebr"), "bits": 8}, "2 codes of 16 bits"),
        ("pq", {"pieces": 7}, "cannot be cut into 7"),
    ):
        with pytest.raises(UsageError, match=message):
            fit_codec(kind, vectors(), **options)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (np.zeros((99, 8)), "at least 100"),
        (np.zeros((200, 8), np.int8), "float vectors"),
        (np.full((200, 8), np.nan), "NaN"),
    ],
)
def test_vectors_that_cannot_be_fitted_to(bad: Vectors, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        fit_codec("int8", bad)


def test_a_codec_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="no codec here"):
        load_codec(tmp_path)
    save_codec(fitted("int8"), tmp_path / "codec")
    with pytest.raises(ArtifactError, match="already exists"):
        save_codec(fitted("int4"), tmp_path / "codec")
    facts = json.loads((tmp_path / "codec" / DESCRIPTION).read_text())
    for wrong in ({"kind": "zip"}, {"schema": 9}, {"sha256": "0"}, {"settings": None, "kind": "binary"}):
        (tmp_path / "codec" / DESCRIPTION).write_text(json.dumps(facts | wrong))
        with pytest.raises(ArtifactError):
            load_codec(tmp_path / "codec")
    (tmp_path / "codec" / DESCRIPTION).write_text(json.dumps(facts))
    (tmp_path / "codec" / ARRAYS).write_bytes(b"not tensors")
    with pytest.raises(ArtifactError, match="changed"):
        load_codec(tmp_path / "codec")
    save_codec(fitted("int4"), tmp_path / "codec", overwrite=True)
    assert load_codec(tmp_path / "codec").kind == "int4"


def test_learned_codes_need_no_torch_and_product_codes_name_their_extra(tmp_path: Path) -> None:
    save_codec(fitted("bebr"), tmp_path / "bebr")
    save_codec(fitted("pq"), tmp_path / "pq")
    code = (
        "import sys; sys.modules.update(torch=None, faiss=None)\n"
        "import numpy as np\n"
        "from emb.quantize.vectors.codecs import load_codec\n"
        f"assert load_codec({str(tmp_path / 'bebr')!r}).encode(np.ones((2, {DIM}))).shape == (2, 4)\n"
        "from emb.errors import MissingExtra\n"
        "try:\n"
        f"    load_codec({str(tmp_path / 'pq')!r}).encode(np.ones((2, {DIM})))\n"
        "except MissingExtra as error:\n"
        "    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert 'pip install "emb-distill[search]"' in done.stdout


def test_fitting_without_torch_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.delitem(sys.modules, "emb.quantize.vectors.bebr_training", raising=False)
    with pytest.raises(MissingExtra, match="train"):
        BebrCodec.fit(vectors())


def test_the_command_knows_every_kind() -> None:
    assert tuple(CODECS) == KINDS
    assert all(codec.kind == kind for kind, codec in CODECS.items())
    assert issubclass(BebrCodec, BitCodec)
    assert Float32Codec.fit(vectors()).dim == DIM


def test_more_bytes_find_more() -> None:
    found = [
        neighbour_overlap(vectors(), (codec := fitted(kind)).decode(codec.encode(vectors())))
        for kind in ("binary", "int4", "int8", "float16", "float32")
    ]
    assert found == sorted(found)
    assert found[-1] == 1
