"""The general form, kernel size 3, beside the dense convolution of the same size."""

from __future__ import annotations

from types import ModuleType

import pytest

import python_ref.ops as reference
from problems import CONV_SIZE, FLOAT, HIDDEN, SHAPES, Timed, activations, exact, fan_in, layer
from tolerances import float32_bound


@pytest.mark.parametrize("shape", ["1x128", "8x128"])
def bench_grouped_conv1d(timed: Timed, backend: ModuleType, shape: str) -> None:
    """768 -> 768, 4 groups, K = 3."""
    x, part = activations(SHAPES[shape]), layer(backend, HIDDEN, HIDDEN, 4, kernel_size=3)
    tokens, laid_out = x.shape[0] * x.shape[1], backend.layout(x)
    timed(
        lambda: backend.grouped_conv1d(laid_out, part.weight, part.bias, part.groups),
        reference.grouped_conv1d(*exact([x, part.plain, part.bias]), part.groups),
        flops=part.flops(tokens),
        bytes=FLOAT * (part.plain.numel() + 2 * tokens * HIDDEN),
        bound=float32_bound(fan_in(tuple(part.plain.shape)), size=CONV_SIZE),
    )
