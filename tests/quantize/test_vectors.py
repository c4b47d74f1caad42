"""int8 and binary vectors: within half a step, clipped, packed as numpy packs."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from emb.errors import UsageError
from emb.quantize.vectors.ranges import (
    binarize,
    calibrate,
    dequantize_int4,
    dequantize_int8,
    quantize_int4,
    quantize_int8,
    unpack_binary,
)

FLOATS = arrays(np.float32, (7, 16), elements=st.floats(-1, 1, width=32))


@given(FLOATS)
def test_int8_comes_back_to_within_half_a_step(vectors: np.ndarray) -> None:
    ranges = calibrate(vectors)
    back = dequantize_int8(quantize_int8(vectors, ranges), ranges)
    half = (ranges[1] - ranges[0]) / 255 / 2
    assert (np.abs(back - vectors) <= half * 1.001 + 1e-6).all()


@given(arrays(np.float32, (5, 7), elements=st.floats(-1, 1, width=32)))
def test_int4_comes_back_to_within_half_a_step(vectors: np.ndarray) -> None:
    ranges = calibrate(vectors)
    packed = quantize_int4(vectors, ranges)
    assert packed.shape == (5, 4)
    half = (ranges[1] - ranges[0]) / 15 / 2
    assert (np.abs(dequantize_int4(packed, ranges) - vectors) <= half * 1.001 + 1e-6).all()


def test_int4_puts_the_first_dimension_into_the_high_half() -> None:
    ranges = np.asarray([[0.0, 0.0], [15.0, 15.0]], np.float32)
    assert quantize_int4(np.asarray([[10.0, 3.0], [99.0, -9.0]], np.float32), ranges).tolist() == [[0xA3], [0xF0]]


def test_calibration_leaves_a_share_outside() -> None:
    vectors = np.linspace(-1, 1, 1001, dtype=np.float32)[:, None]
    assert calibrate(vectors, 0.1).ravel().tolist() == pytest.approx([-0.9, 0.9], abs=1e-6)
    assert calibrate(vectors).ravel().tolist() == [-1.0, 1.0]


def test_int8_clips_what_lies_beyond_the_calibration() -> None:
    ranges = np.asarray([[-1.0, -1.0], [1.0, 1.0]], np.float32)
    assert quantize_int8(np.asarray([[5.0, -5.0]], np.float32), ranges).tolist() == [[127, -128]]


def test_a_dimension_that_never_moves_stays_itself() -> None:
    vectors = np.full((4, 8), 0.25, np.float32)
    ranges = calibrate(vectors)
    np.testing.assert_allclose(dequantize_int8(quantize_int8(vectors, ranges), ranges), vectors, atol=1e-6)


@given(FLOATS)
def test_bits_are_signs_first_dimension_highest(vectors: np.ndarray) -> None:
    packed = binarize(vectors)
    assert packed.dtype == np.uint8
    assert packed.shape == (7, 2)
    np.testing.assert_array_equal(unpack_binary(packed), vectors > 0)


def test_first_dimension_is_the_highest_bit() -> None:
    assert binarize(np.asarray([[1, -1, -1, -1, -1, -1, -1, -1]], np.float32)).tolist() == [[128]]


def test_ranges_of_another_dim_are_refused() -> None:
    with pytest.raises(UsageError, match="16 dims, the ranges 8"):
        quantize_int8(np.zeros((1, 16), np.float32), np.zeros((2, 8)))
    with pytest.raises(UsageError, match="16 dims, the ranges 8"):
        quantize_int4(np.zeros((1, 16), np.float32), np.zeros((2, 8)))
