"""What a request holds, at the very limits."""

from __future__ import annotations

import pytest
from indexing import Hashed

from emb.search.server.problems import INVALID, TOO_LARGE, Problem
from emb.search.server.reading import id_rows, listed


def test_as_many_texts_as_a_request_may_have_are_taken() -> None:
    assert listed(["a"] * 3, "input", 3) == ["a"] * 3
    with pytest.raises(Problem, match="4 texts, and a request may have 3") as found:
        listed(["a"] * 4, "input", 3)
    assert found.value.kind is TOO_LARGE


def test_ids_end_with_the_vocabulary() -> None:
    tokenizer = Hashed().tokenizer
    size = tokenizer.tokenizer.get_vocab_size()
    assert [row.tolist() for row in id_rows(tokenizer, [[0, size - 1]], "input")] == [[0, size - 1]]
    for wrong in (size, -1):
        with pytest.raises(Problem, match=f"ids end at {size - 1}") as found:
            id_rows(tokenizer, [[1], [0, wrong]], "input")
        assert found.value.kind is INVALID
    assert len(id_rows(tokenizer, [[1] * tokenizer.max_length], "input")[0]) == tokenizer.max_length
