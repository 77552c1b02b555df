"""Every tolerance of the tests, and why it is what it is. Tests name one from here; none has a number of its own.

Two kinds: how close two implementations of the same formula must be (parity), and how far float32 arithmetic may be
from the exact result, as a function of how many terms are added up (bounds).
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

# Half the distance from 1 to the next float32: the relative error of one rounding.
UNIT_ROUNDOFF = 2.0**-24

# ---- parity ----

# The plain models against transformers, same weights and dtype: {"rtol", "atol"} for torch.testing.assert_close. Both
# compute the same sums in another order, on values of order 1. float32 rounding then differs by about 1e-6, float64 by
# about 1e-15, so 1e-10 cannot hide a formula that differs (a tanh GELU for an erf one differs by 1e-4).
REFERENCE_PARITY = {
    torch.float32: {"rtol": 1e-5, "atol": 1e-5},
    torch.float64: {"rtol": 1e-10, "atol": 1e-10},
}

# ops of python_ref in float64 against a literal loop, and against the package's formulas: sums of at most a few hundred
# terms of order 1.
LITERAL = {"rtol": 1e-12, "atol": 1e-12}

# ---- bounds ----


def dot_bound(reduction_length: int, magnitude: Tensor) -> Tensor:
    """Largest error of float32 dot products of `reduction_length` terms, element by element.

    magnitude: sum over i of |weight_i * input_i| (plus |bias|), float64: the reference run on absolute values.

    Each of the K additions rounds by at most UNIT_ROUNDOFF of a partial sum. Roundings go up as often as down, so K of
    them add up like sqrt(K) (Higham and Mary 2019, SIAM J. Sci. Comput. 41, A2815), whatever the order of summation.
    `magnitude` stands in for the partial sums, which are smaller by about sqrt(K) when signs are mixed: the margin.
    The 2 covers short sums, and the rounding of a bias and of the store.
    """
    return (2.0 + math.sqrt(reduction_length)) * UNIT_ROUNDOFF * magnitude


def float32_bound(*reduction_lengths: int, size: float = 1.0) -> float:
    """Largest error of a chain of float32 reductions, for values whose root mean square is `size` throughout.

    The lengths of the chained reductions add up: for attention, head size and number of keys; for a layer, those of its
    convolutions, attention and LayerNorms; for L layers, L times as much. With inputs of order 1 and weights of order
    1 / sqrt(K), partial sums have order 1, so by the argument of `dot_bound` the error's standard deviation is about
    UNIT_ROUNDOFF * sqrt(K) / 3. The factor 4 leaves 12 standard deviations: room for the softmax, GELU and LayerNorm
    between the reductions, none for bfloat16 (32768 times coarser) or a term left out.
    """
    return (2.0 + 4.0 * math.sqrt(sum(reduction_lengths))) * UNIT_ROUNDOFF * size


def size_of(values: Any) -> float:
    """The `size` of the bounds for results `values` (torch or NumPy): their root mean square, but at least 1."""
    return max(1.0, math.sqrt((values * values).mean())) if math.prod(values.shape) else 1.0


# The products whose instructions multiply numbers of 16 bits, to which they round activations.
MULTIPLY_NARROW = ("float16_neon_fp16", "bfloat16_avx512_bf16", "bfloat16_neon_bfmmla")


def narrow_weights_bound(product: str, *reduction_lengths: int, size: float = 1.0, attentions: int = 0) -> float:
    """The same for a `product` of 16-bit weights, whose exact values both sides read.

    product: as `active_product(format)` names it. That of Arm cores that multiply float16 rounds the factors to it
    and adds up to 64 products in it: each errs by a unit of roundoff, float16's, of partial sums of order 1. Those that
    multiply bfloat16 round the factors. All others widen the weights, which is exact, and compute in float32.
    attentions: how many follow each other. All kernels round keys and values to the format there. A score (a head's
    products of order 1, times 1 / sqrt(head size)) is off by half a unit of roundoff, standard deviation, and so is
    a value: 4 units leave room for both, 6 standard deviations of them.
    """
    roundoff = 2.0**-8 if product.startswith("bfloat16") else 2.0**-11
    if product in MULTIPLY_NARROW:
        return float32_bound(*reduction_lengths, size=size) * roundoff / UNIT_ROUNDOFF
    return float32_bound(*reduction_lengths, size=size) + 4.0 * attentions * roundoff * size


def low_precision_bound(dtype: torch.dtype, *reduction_lengths: int, size: float = 1.0, roundings: int = 1) -> float:
    """Largest error of a chain of reductions in `dtype` with float32 sums, for values of at most `size`.

    To the float32 bound comes, for 16-bit dtypes, a unit in the last place (twice what a rounding can do) for each of
    `roundings` roundings of values of that size, one after the other: that of the output, and those of intermediate
    results. Both sides read the same rounded inputs.
    """
    bound = float32_bound(*reduction_lengths, size=size)
    if dtype == torch.float32:
        return bound
    return bound + roundings * size * torch.finfo(dtype).eps


# Gradients of a whole small model, or of a layer's squared outputs, in float32, of two implementations: sums of up to
# a few thousand terms of order 1 to 10, which cancel. A backward that leaves a term out is off by its size.
GRADIENT_PARITY = {"rtol": 1e-4, "atol": 1e-4}

# The losses of 20 steps of two implementations of the same model, without dropout. AdamW divides by the root of a
# gradient's square, so a rounding in a gradient near zero moves a weight by up to the learning rate.
LOSS_CURVE = {"rtol": 1e-3, "atol": 1e-6}

# A model whose weights were rounded to bfloat16 beside the unrounded one: 3 digits of values of order 1.
BFLOAT16_WEIGHTS = {"rtol": 0.02, "atol": 0.02}

# Figures that a report rounds to three digits.
REPORTED = 2e-3

# A percentage printed with two decimals: half a unit of the last, as a share of 1.
PRINTED_SHARE = 0.5e-4

# The exact GELU of the kernels against float64: csrc/math/gelu.h bounds its error over all floats by 1.71e-7 beyond
# the rounding of the result.
GELU = {"rtol": UNIT_ROUNDOFF, "atol": 1.8e-7}

# A 16-bit kernel may err at most this many times as much as PyTorch's own operators do in the same dtype, both against
# float64; and as far as the float32 bound allows besides.
LOW_PRECISION_RATIO = 2.0

# `bench/`: root mean square error in a low precision against float64, as a share of the result's root mean square, for
# one operator or twelve layers. A rounding of bfloat16 errs by 2^-9 of a value at most, of float16 by 2^-12; int8's by
# 1/254 of the largest of a row, which is three times the others, hence 0.7 % on either side of a product. 72 products
# follow each other in twelve layers, half of whose errors the residual connections carry on.
FORMAT_SHARES = {"float16": 5e-3, "bfloat16": 2e-2, "int8": 1e-1}

# int8 kernels beside the reference that defines int8, where a softmax, a GELU or a LayerNorm stands between two
# products: their last bits differ by some 1e-7, so of some 10,000 values one is quantized to the other neighbour.
# Relative to the error that quantization makes: what rounds otherwise, or scales other rows, differs by 0.7 of that or
# more, flips by some hundredths of it; a small test can have none or several.
INT8_FLIPS = 0.3

# ---- programs ----

# `compare`: peers on one model of float32 weights, last hidden state after a LayerNorm, so of order 1. The largest
# difference between two runtimes on a small model is about 1e-6; a graph that ignores its mask is off by 1.
PEER_PARITY = 2e-5

# The same in low precision, of values up to 4: dynamic int8 with one scale for a tensor errs by up to 0.3 on a small
# model; outputs of another sentence, or of other weights, differ by more than 1.
COARSEST_PEER = 0.5
