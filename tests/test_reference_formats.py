"""The definition of the low-precision formats, python_ref.formats: known answers, literal loops, edges, refusals."""

from __future__ import annotations

import itertools
import math
import re
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from python_ref import formats, ops
from tolerances import float32_bound

LARGEST = torch.finfo(torch.float32).max
INF, NAN = math.inf, math.nan


def quantized(values: list[float], levels: int = formats.SIGNED) -> tuple[list[int], float]:
    whole, scale = formats.quantize(torch.tensor(values), levels)
    return whole.tolist(), scale.item()


@pytest.mark.parametrize(
    ("row", "values", "scale"),
    [
        ([127.0, -127.0, 1.0, 0.0], [127, -127, 1, 0], 1.0),
        ([127.0, 0.5, 1.5, 2.5, -0.5, -1.5], [127, 0, 2, 2, 0, -2], 1.0),  # to the even one of two
        ([254.0, -3.0, 5.0], [127, -2, 2], 2.0),  # -1.5 and 2.5
        ([0.0, -0.0], [0, 0], 0.0),
        ([], [], 0.0),
        ([2.0**-100, -(2.0**-101)], [127, -64], float(np.float32(2.0**-100) / np.float32(127.0))),
        ([2.0**-101, 1e-45], [0, 0], 0.0),
        ([float(np.nextafter(np.float32(2.0**-100), np.float32(0.0)))], [0], 0.0),
        ([LARGEST, -LARGEST, 1.0], [127, -127, 0], float(np.float32(LARGEST) / np.float32(127.0))),
        ([-5.0], [-127], float(np.float32(5.0) / np.float32(127.0))),
    ],
)
def test_quantize(row: list[float], values: list[int], scale: float) -> None:
    assert quantized(row) == (values, scale)


def test_quantize_what_is_never_negative() -> None:
    assert quantized([1.0, 0.0, 0.5], formats.UNSIGNED) == ([255, 0, 128], float(np.float32(1.0) / np.float32(255.0)))


@pytest.mark.parametrize("row", [[1.0, NAN], [INF, 1.0], [-INF, 0.0], [NAN, INF]])
def test_quantize_what_is_not_finite(row: list[float]) -> None:
    values, scale = quantized(row)
    assert values == [0, 0]
    assert math.isnan(scale)


def test_quantize_rounds_each_step_to_float32() -> None:
    rows = torch.randn(500, 33) * torch.logspace(-20, 20, 500)[:, None]
    values, scale = formats.quantize(rows, formats.SIGNED)
    largest = np.abs(rows.numpy()).max(-1, keepdims=True)
    inverse = np.float32(127.0) / largest
    assert inverse.dtype == np.float32
    assert np.array_equal(values.numpy(), np.rint(rows.numpy() * inverse))
    assert np.array_equal(scale.numpy(), largest / np.float32(127.0))
    assert values.abs().amax(-1).eq(127).all()


def is_nearest(value: float, exact: Fraction) -> bool:
    """No float32 is nearer to `exact` than `value` is, and of two that are as near its last bit is 0."""
    here = np.float32(value)
    distance = abs(Fraction(float(here)) - exact)
    neighbours = [np.nextafter(here, np.float32(end)) for end in (-INF, INF)]
    distances = [abs(Fraction(float(neighbour)) - exact) for neighbour in neighbours]
    return min(distances) > distance or (min(distances) == distance and here.view(np.uint32) % 2 == 0)


def test_fma_rounds_once() -> None:
    tie = 1.0 + 2.0**-12  # whose square, 1 + 2^-11 + 2^-24, is halfway between two float32
    operands = [(tie, tie, c) for c in (0.0, 2.0**-80, -(2.0**-80), 2.0**-149, 1.0, -1.0, 2.0**24)]
    operands += [
        (1.0 + 2.0**-23, -1.0, 1.0),
        (2.0**-75, 2.0**-75, 0.0),
        (2.0**-75, 2.0**-75, 2.0**-149),
        (3.0, 5.0, -15.0),
    ]
    random = torch.randn(3, 2000) * torch.logspace(-15, 15, 2000)[torch.randperm(6000).view(3, 2000) % 2000]
    operands += random.T.tolist()
    a, b, c = torch.tensor(operands).T
    for values in zip(formats.fma(a, b, c).tolist(), a.tolist(), b.tolist(), c.tolist(), strict=True):
        result, *exact = values
        assert is_nearest(result, Fraction(exact[0]) * Fraction(exact[1]) + Fraction(exact[2])), values


@pytest.mark.parametrize("c", [INF, -INF, NAN, 1.0])
@pytest.mark.parametrize("b", [INF, NAN, 0.0, 2.0])
def test_fma_of_what_is_not_finite(b: float, c: float) -> None:
    result = formats.fma(torch.tensor(1.0), torch.tensor(b), torch.tensor(c))
    torch.testing.assert_close(result, torch.tensor(b + c), rtol=0.0, atol=0.0, equal_nan=True)


def literal_conv1x1(input: Tensor, weight: Tensor, bias: Tensor | None, groups: int) -> Tensor:
    """[T, in] and [out, in / groups], one by one: whole numbers are Python's, roundings NumPy's and Fraction's."""
    out, depth = weight.shape
    output = torch.empty(len(input), out)
    for t, o in itertools.product(range(len(input)), range(out)):
        first = o // (out // groups) * depth
        left, row_scale = quantized(input[t, first : first + depth].tolist())
        right, column_scale = quantized(weight[o].tolist())
        total = np.float32(sum(x * w for x, w in zip(left, right, strict=True)))
        start = 0.0 if bias is None else bias[o].item()
        exact = Fraction(float(total * np.float32(row_scale))) * Fraction(column_scale) + Fraction(start)
        nearest = np.float32(float(exact))
        candidates = [nearest, *(np.nextafter(nearest, np.float32(end)) for end in (-INF, INF))]
        output[t, o] = next(float(candidate) for candidate in candidates if is_nearest(candidate, exact))
    return output


@pytest.mark.parametrize(("in_channels", "out", "groups"), [(1, 1, 1), (7, 5, 1), (12, 8, 4), (66, 6, 2), (6, 6, 6)])
def test_grouped_conv1x1(in_channels: int, out: int, groups: int) -> None:
    input, weight, bias = torch.randn(5, in_channels), torch.randn(out, in_channels // groups), torch.randn(out)
    input[1] = 0.0
    weight[0] = 0.0
    input[2] *= 1e10
    for start in (bias, None):
        output = ops.grouped_conv1x1(input, formats.quantize_weight(weight), start, groups)
        assert torch.equal(output, literal_conv1x1(input, weight, start, groups))


def test_what_int8_holds_exactly_is_multiplied_exactly() -> None:
    """Whole numbers up to 127 in every row and column."""
    input, weight = (torch.randint(-127, 128, shape).float() for shape in ((9, 24), (20, 12, 3)))
    input[:, ::12] = 127.0
    weight[:, 0] = -127.0
    bias = torch.randint(-1000, 1000, (20,)).float()
    quantized = formats.quantize_weight(weight)
    assert quantized.values.dtype == torch.int8
    assert quantized.scale.shape == (20, 1, 3)
    assert torch.equal(quantized.values.float(), weight)
    assert torch.equal(quantized.scale, torch.ones(20, 1, 3))
    assert torch.equal(ops.grouped_conv1d(input, quantized, bias, 2), ops.grouped_conv1d(input, weight, bias, 2))
    first = formats.Quantized(quantized.values[..., :1], quantized.scale[..., :1])
    assert torch.equal(ops.grouped_conv1x1(input, first, bias, 2), ops.grouped_conv1x1(input, weight[..., 0], bias, 2))


def test_grouped_conv1d_adds_the_middle_tap_first_and_then_the_others_in_turn() -> None:
    input, weight, bias = torch.randn(4, 6), torch.randn(6, 3, 5), torch.randn(6)
    output = ops.grouped_conv1d(input, formats.quantize_weight(weight), bias, 2)
    for t in range(4):
        row = literal_conv1x1(input[t : t + 1], weight[:, :, 2], bias, 2)
        for shift in (-2, -1, 1, 2):
            if 0 <= t + shift < 4:
                neighbour = input[t + shift : t + shift + 1]
                row = torch.stack(
                    [
                        literal_conv1x1(neighbour, weight[:, :, 2 + shift], row[0], 2)[0],
                    ]
                )
        assert torch.equal(output[t], row[0])


def test_attention() -> None:
    """Queries, keys and values by the head's row; a value's scale multiplies its exponentials, which are 0 to 255."""
    query, key, value = torch.randn(3, 8), torch.randn(5, 8), torch.randn(5, 8)
    output = ops.attention(query, key, value, 2, dtype=torch.int8)
    for head in (slice(0, 4), slice(4, 8)):
        scores = literal_conv1x1(query[:, head], key[:, head], None, 1) * 0.5
        powers = (scores - scores.amax(-1, keepdim=True)).exp()
        right, value_scale = formats.quantize(value[:, head], 127)
        left, row_scale = formats.quantize(powers * value_scale.T, 255)
        sums = torch.einsum("ij,jc->ic", left.long(), right.long()).float() * row_scale
        expected = sums / powers.sum(-1, keepdim=True)
        torch.testing.assert_close(output[:, head].double(), expected.double(), rtol=0.0, atol=float32_bound(5))


def test_attention_of_masked_rows_and_no_keys() -> None:
    query, key = torch.randn(2, 8), torch.randn(3, 8)
    mask = torch.tensor([[0.0, 0.0, 0.0], [-INF, -INF, -INF]])
    output = ops.attention(query, key, key, 2, mask, dtype=torch.int8)
    assert torch.equal(output[1], torch.zeros(8))
    assert torch.equal(output[0], ops.attention(query[:1], key, key, 2, dtype=torch.int8)[0])
    assert torch.equal(ops.attention(query, key[:0], key[:0], 2, dtype=torch.int8), torch.zeros(2, 8))


def test_a_masked_key_has_no_part_in_attention() -> None:
    query, key, value = torch.randn(2, 8), torch.randn(3, 8), torch.randn(3, 8)
    expected = ops.attention(query, key[:2], value[:2], 2, dtype=torch.int8)
    value[2] *= 100.0
    mask = torch.tensor([True, True, False])
    assert torch.equal(ops.attention(query, key, value, 2, mask, dtype=torch.int8), expected)


@pytest.mark.parametrize("value", [NAN, INF, -INF])
def test_what_is_not_finite_makes_its_row_and_group_nan(value: float) -> None:
    input, weight = torch.randn(3, 8), formats.quantize_weight(torch.randn(4, 4))
    clean = ops.grouped_conv1x1(input, weight, None, 2)
    input[1, 5] = value
    output = ops.grouped_conv1x1(input, weight, None, 2)
    assert output[1, 2:].isnan().all()
    output[1, 2:] = clean[1, 2:]
    assert torch.equal(output, clean)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("rounds_left", [False, True])
def test_rounded(dtype: torch.dtype, rounds_left: bool) -> None:
    input, weight, bias = torch.randn(5, 12), torch.randn(8, 3), torch.randn(8)
    rounded = formats.Rounded(weight.to(dtype).unsqueeze(-1), rounds_left)
    left = input.to(dtype) if rounds_left else input
    exact = ops.grouped_conv1x1(left.double(), weight.to(dtype).double(), bias.double(), 4)
    assert torch.equal(ops.grouped_conv1x1(input, rounded, bias, 4), exact.float())
    attended = ops.attention(input, input, input, 3, dtype=dtype, rounds_left=rounds_left)
    narrow = input.to(dtype).float()
    expected = ops.attention(left.float(), narrow, narrow, 3)
    if rounds_left:  # the exponentials too
        assert not torch.equal(attended, expected)
        return
    torch.testing.assert_close(attended, expected, rtol=0.0, atol=float32_bound(4, 5))


def layer(dtype: torch.dtype | None) -> list[Any]:
    """16 tensors of 8 channels, 12 inner, with weights of a format. None: float32."""
    sizes = [(8, 4), (8, 4), (8, 4), (8, 8), (12, 4), (8, 6)]
    torch.manual_seed(1)
    params: list[Any] = []
    for index, size in enumerate(sizes):
        weight = torch.randn(size) * size[1] ** -0.5
        if dtype is not None:
            weight = (
                formats.quantize_weight(weight) if dtype == torch.int8 else formats.Rounded(weight[..., None].to(dtype))
            )
        params += [weight, torch.randn(size[0])]
        if index in (3, 5):
            params += [1.0 + 0.1 * torch.randn(8), 0.1 * torch.randn(8)]
    return params


@pytest.mark.parametrize(("dtype", "digits"), [(torch.int8, 1.0), (torch.bfloat16, 1.5), (torch.float16, 2.5)])
def test_an_encoder_in_low_precision_is_near_the_one_in_float32(dtype: torch.dtype, digits: float) -> None:
    input, rest = torch.randn(2, 7, 8), (2, [2, 2, 2, 1, 2, 2], 1e-12)
    expected = ops.encoder(input, layer(None) * 2, *rest)
    errors = []
    for attention_dtype in (None, torch.float32):
        output = ops.encoder(input, layer(dtype) * 2, *rest, attention_dtype=attention_dtype)
        assert output.dtype == torch.float32
        errors.append((output - expected).square().mean().sqrt().item())
    assert 0.0 < max(errors) < 10.0**-digits
    assert errors[0] != errors[1]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: formats.quantize(torch.ones(3).double(), 127), "rows: expected float32, got torch.float64"),
        (lambda: formats.quantize_weight(torch.ones(3)), "weight: expected [out, in / groups, K], got shape [3]"),
        (
            lambda: ops.grouped_conv1x1(torch.ones(3, 4).double(), formats.quantize_weight(torch.ones(2, 4)), None, 1),
            "left: expected float32 beside a low-precision right side, got torch.float64",
        ),
        (
            lambda: ops.grouped_conv1x1(torch.ones(1, 65537), formats.quantize_weight(torch.ones(1, 65537)), None, 1),
            "weight: expected at most 65536 terms in a sum of int8 products, got 65537",
        ),
        (
            lambda: ops.grouped_conv1x1(torch.ones(3, 4), formats.quantize_weight(torch.ones(2, 2)), None, 1),
            "weight: expected 4 input channels per group",
        ),
    ],
)
def test_refused(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        call()


def test_the_longest_sum_is_taken() -> None:
    ones = torch.ones(1, formats.MOST_TERMS)
    output = formats.multiply(ones, formats.in_format(ones, torch.int8), levels=formats.UNSIGNED)
    assert output.item() == pytest.approx(formats.MOST_TERMS, rel=1e-6)
