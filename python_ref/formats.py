"""The low-precision formats, defined: what a right side holds, what becomes of a left side, and every rounding.

A weight of `python_ref.ops` is a tensor, or one of the classes here. Activations, biases and outputs are float32.

`Quantized`, int8. Both sides of a product are quantized (`quantize`): the right side one column at a time, the left
side one row of what the product multiplies at a time, which for a grouped convolution is one token's channels of one
group. Their products add up to an integer S, exactly, and then

    y = fma(float(S) * row_scale, column_scale, start)

where start is the bias, 0, or what is added to. float(S), the product and the fma round once each, to nearest even, and
nothing else does: these are the bits of the kernels, on every instruction set. Attention's values are an exception
(`multiply_values`).

`Rounded`, bfloat16 and float16: the right side is rounded to nearest even, and on instruction sets that multiply in the
format so is the left; the sums are float32, in the order of the instructions. Here they are exact and rounded once.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from squeezebert_kernels.checks import check

SIGNED = 127  # levels: of weights, activations, queries, keys and values
UNSIGNED = 255  # of rows that are never negative: the exponentials of a softmax
MOST_TERMS = 2**16  # of a sum, which then fits int32 with 255 * 127 for each
SMALLEST = 2.0**-100  # rows that reach no further are zeros


@dataclass(frozen=True)
class Quantized:
    """values: int8 [out, in / groups, K]. scale: float32 [out, 1, K]. The weight is values * scale."""

    values: Tensor
    scale: Tensor


@dataclass(frozen=True)
class Rounded:
    """values: [out, in / groups, K] in torch.bfloat16 or torch.float16. rounds_left: whether the left side is too."""

    values: Tensor
    rounds_left: bool = False


Weight = Tensor | Quantized | Rounded


def quantize(rows: Tensor, levels: int) -> tuple[Tensor, Tensor]:
    """Rows [..., n] of float32 as whole numbers (int32) from -levels to levels, and their scales [..., 1].

    inverse = levels / m and scale = m / levels, where m is the largest magnitude of the row; value = x * inverse, to
    the nearest whole number, the even one of two. A row with NaN or infinity has the scale NaN, one with nothing of
    2^-100 or more the scale 0, and both have values 0.
    """
    check(rows.dtype == torch.float32, f"rows: expected float32, got {rows.dtype}")
    # The bits of magnitudes are in the order of the magnitudes, NaN last. A zero more: a row may be empty.
    largest = F.pad(rows.abs(), (0, 1)).view(torch.int32).amax(-1, keepdim=True).view(torch.float32)
    used = largest.isfinite() & (largest >= SMALLEST)
    largest = largest.where(largest.isfinite(), torch.nan)
    divisor = largest.where(used, 1.0)
    # As tensors: a number divided by a tensor is, to PyTorch, the number times the reciprocal.
    level = torch.full_like(divisor, float(levels))
    values = torch.where(used, (rows * (level / divisor)).round(), 0.0)
    scale = torch.where(used, divisor / level, largest * 0.0)
    return values.int(), scale


def quantize_weight(weight: Tensor) -> Quantized:
    """One scale for each output channel of each tap. weight: float32 [out, in / groups, K], or without K for K = 1."""
    if weight.dim() == 2:
        weight = weight.unsqueeze(-1)
    check(weight.dim() == 3, f"weight: expected [out, in / groups, K], got shape {list(weight.shape)}")
    values, scale = quantize(weight.mT, SIGNED)
    return Quantized(values.to(torch.int8).mT.contiguous(), scale.mT.contiguous())


def shape_of(weight: Weight) -> torch.Size:
    return weight.shape if isinstance(weight, Tensor) else weight.values.shape


def dtype_of(weight: Weight) -> torch.dtype:
    return weight.dtype if isinstance(weight, Tensor) else weight.values.dtype


def tap(weight: Weight, k: int) -> Weight:
    """The tap k of a weight [out, in / groups, K], as a right side: columns [out], each [in / groups]."""
    if isinstance(weight, Quantized):
        return Quantized(weight.values[:, :, k], weight.scale[:, 0, k])
    return Rounded(weight.values[:, :, k], weight.rounds_left) if isinstance(weight, Rounded) else weight[:, :, k]


def split(columns: Weight, groups: int) -> Weight:
    """A right side of out columns as one of [groups, out / groups]."""
    if isinstance(columns, Quantized):
        return Quantized(columns.values.unflatten(0, (groups, -1)), columns.scale.unflatten(0, (groups, -1)))
    if isinstance(columns, Rounded):
        return Rounded(columns.values.unflatten(0, (groups, -1)), columns.rounds_left)
    return columns.unflatten(0, (groups, -1))


def in_format(columns: Tensor, dtype: torch.dtype, rounds_left: bool = False) -> Weight:
    """Float32 columns [..., columns, depth] (attention's keys) as a right side of a format."""
    if dtype == torch.int8:
        values, scale = quantize(columns, SIGNED)
        return Quantized(values, scale.squeeze(-1))
    return columns if dtype == columns.dtype else Rounded(columns.to(dtype), rounds_left)


def multiply_values(powers: Tensor, values: Tensor, dtype: torch.dtype, rounds_left: bool = False) -> Tensor:
    """A softmax's exponentials [..., queries, keys] times attention's values [..., keys, channels], in a format.

    int8: a value of a head has one scale, by which its key's exponentials are multiplied before they are quantized.
    """
    if dtype != torch.int8:
        return multiply(powers, in_format(values.mT, dtype, rounds_left))
    whole, scale = quantize(values, SIGNED)
    ones = torch.ones(values.shape[:-2] + values.shape[-1:])
    return multiply(powers * scale.mT, Quantized(whole.mT, ones), levels=UNSIGNED)


def multiply(left: Tensor, right: Weight, start: Tensor | None = None, levels: int = SIGNED) -> Tensor:
    """start + left times right: [..., rows, depth] and columns [..., columns, depth] -> [..., rows, columns].

    levels: those of the left side, where it is quantized.
    """
    if isinstance(right, Tensor):
        output = left @ right.mT
        return output if start is None else output + start
    check(left.dtype == torch.float32, f"left: expected float32 beside a low-precision right side, got {left.dtype}")
    depth = left.shape[-1]
    start = left.new_zeros(()) if start is None else start
    if isinstance(right, Rounded):
        rounded = left.to(right.values.dtype) if right.rounds_left else left
        return (rounded.double() @ right.values.double().mT + start.double()).float()
    check(depth <= MOST_TERMS, f"weight: expected at most {MOST_TERMS} terms in a sum of int8 products, got {depth}")
    values, row_scale = quantize(left, levels)
    sums = values.double() @ right.values.double().mT + 0.0  # exact; and zero has no sign, as among integers
    return fma(sums.float() * row_scale, right.scale.unsqueeze(-2), start)


def fma(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    """a * b + c of float32, rounded once: in float64 the product is exact, and the sum is rounded to odd there (to the
    neighbour whose last bit is 1, unless it is exact), so that rounding it again to float32 does no harm.

    Source: Boldo and Melquiond 2008, IEEE Trans. Comput. 57, 462.
    """
    product, c = torch.broadcast_tensors(a.double() * b.double(), c.double())
    total = product + c
    of_c = total - product
    error = (product - (total - of_c)) + (c - of_c)  # Knuth's two-sum: exact
    bits = total.contiguous().view(torch.int64)
    away = torch.where((error > 0) == (total > 0), 1, -1)
    is_even_and_inexact = ((error > 0) | (error < 0)) & (bits % 2 == 0)
    return torch.where(is_even_and_inexact, bits + away, bits).view(torch.float64).float()
