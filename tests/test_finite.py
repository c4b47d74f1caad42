"""NaN and infinity reach no file and no score: the text is told by its place and its beginning."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from emb.errors import ArtifactError
from emb.evaluate.evaluate import evaluate
from emb.evaluate.subjects import TorchSubject
from emb.runtime import streams
from emb.runtime.encoder import Encoder, load
from emb.runtime.streams import encode_file
from emb.similarity import NotFiniteError, first_not_finite, require_finite

POISON = "a text whose vector overflows"


@pytest.fixture
def poisoned(bert_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Encoder:
    """An encoder that gives infinity for the longest text of a batch of one."""
    encoder = load(bert_folder, threads=1)
    original = encoder.encode_ids

    def encode_ids(rows: Any, **options: Any) -> Any:
        vectors = original(rows, **options)
        bad = encoder.tokenizer.encode([POISON])[0].tolist()
        vectors[[row.tolist() == bad for row in rows], 3] = np.inf
        return vectors

    monkeypatch.setattr(encoder, "encode_ids", encode_ids)
    return encoder


def _source(folder: Path, before: int) -> Path:
    path = folder / "in.jsonl"
    texts = [*(f"the cat sat {place}" for place in range(before)), POISON, "the end"]
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    return path


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl", ".npy"])
def test_a_file_is_not_written_and_the_text_is_named_by_its_place_in_the_source(
    poisoned: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    monkeypatch.setattr(streams, "BLOCK", 7)
    source, out = _source(tmp_path, 17), tmp_path / f"out{suffix}"
    with pytest.raises(NotFiniteError) as caught:
        encode_file(poisoned, source, out)
    assert caught.value.message == f"{source}: text 18 gets NaN or infinity: {POISON!r}"
    assert not out.exists()


def test_a_stream_counts_from_its_beginning(poisoned: Encoder) -> None:
    stream = poisoned.encode_stream(["one", "two", "three", POISON], block=2)
    assert len(next(stream)) == 2
    with pytest.raises(NotFiniteError, match=r"^text 4 gets NaN or infinity"):
        next(stream)


def _bad_vectors(original: Callable[..., Any]) -> Callable[..., Any]:
    def vectors(self: TorchSubject, texts: list[str], kind: str) -> Any:
        found = original(self, texts, kind)
        next(iter(found.values()))[2, 0] = np.nan
        return found

    return vectors


def test_nothing_is_scored_or_cached(
    bert_folder: Path, sentences: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, cache = tmp_path / "pairs.tsv", tmp_path / "cache"
    rows = [f"{text}\tthe cat\t{place}" for place, text in enumerate(sentences[:6])]
    data.write_text("sentence1\tsentence2\tscore\n" + "\n".join(rows) + "\n", encoding="utf-8")
    good = evaluate([bert_folder], [data], dims=[16])
    with monkeypatch.context() as patch:
        patch.setattr(TorchSubject, "vectors", _bad_vectors(TorchSubject.vectors))
        for place in (None, cache):
            with pytest.raises(ArtifactError, match="layer 3: text 3 gets NaN or infinity") as caught:
                evaluate([bert_folder], [data], dims=[16], cache=place)
            assert repr(sentences[2][:80]) in caught.value.message
    assert not list(cache.rglob("*.npz"))
    assert evaluate([bert_folder], [data], dims=[16], cache=cache).scores == good.scores


def test_what_an_older_version_cached_is_looked_at_too(bert_folder: Path, sentences: list[str], tmp_path: Path) -> None:
    data, cache = tmp_path / "pairs.tsv", tmp_path / "cache"
    data.write_text(
        "sentence1\tsentence2\tscore\n"
        + "".join(f"{text}\tthe cat\t{place}\n" for place, text in enumerate(sentences[:6])),
        encoding="utf-8",
    )
    evaluate([bert_folder], [data], dims=[16], cache=cache)
    for path in cache.glob("*.npz"):
        with np.load(path) as stored:
            arrays = {name: stored[name].copy() for name in stored.files}
        next(iter(arrays.values()))[-1] = np.inf
        with path.open("wb") as handle:
            np.savez(handle, **arrays)
    with pytest.raises(ArtifactError, match="text 6 gets NaN"):
        evaluate([bert_folder], [data], dims=[16], cache=cache)


def test_the_first_row_is_found_and_large_numbers_are_none() -> None:
    vectors = np.zeros((5, 3), np.float32)
    assert first_not_finite(vectors) is None
    vectors[1], vectors[2] = 3e38, 3e38  # finite, and more than float32 holds when summed
    assert first_not_finite(vectors) is None
    vectors[3, 2], vectors[4, 0] = -np.inf, np.nan
    assert first_not_finite(vectors) == 3
    vectors[2, 0], vectors[3, 2] = np.inf, -np.inf  # the sum of both is no number
    assert first_not_finite(vectors) == 2
    assert first_not_finite(np.zeros((2, 3), np.int8)) is None
    assert first_not_finite(np.empty((0, 3), np.float32)) is None


def test_the_message_shows_the_beginning_alone() -> None:
    with pytest.raises(ArtifactError) as caught:
        require_finite(np.full((1, 2), np.nan), ["x" * 500], "here: ")
    assert caught.value.message == f"here: text 1 gets NaN or infinity: '{'x' * 80}'"
