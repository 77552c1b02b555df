"""The feed-forward half of a layer: FFN2, GELU, FFN3, residual, LayerNorm."""

from __future__ import annotations

from types import ModuleType

import pytest

import python_ref.ops as reference
from problems import EPS, FLOAT, HIDDEN, INTERMEDIATE, SHAPES, Timed, activations, exact, layer, norm
from tolerances import float32_bound


@pytest.mark.parametrize("shape", SHAPES)
def bench_grouped_ffn(timed: Timed, backend: ModuleType, shape: str) -> None:
    """768 -> 3072 -> 768, 4 groups each."""
    x = activations(SHAPES[shape])
    laid_out = backend.layout(x)
    up, down = layer(backend, HIDDEN, INTERMEDIATE, 4), layer(backend, INTERMEDIATE, HIDDEN, 4)
    groups, (ln_weight, ln_bias), tokens = [up.groups, down.groups], norm(), x.shape[0] * x.shape[1]
    timed(
        lambda: backend.grouped_ffn(
            laid_out, up.weight, up.bias, down.weight, down.bias, groups, ln_weight, ln_bias, EPS
        ),
        reference.grouped_ffn(
            *exact([x, up.plain, up.bias, down.plain, down.bias]), groups, *exact([ln_weight, ln_bias]), EPS
        ),
        flops=up.flops(tokens) + down.flops(tokens),
        bytes=FLOAT * (up.plain.numel() + down.plain.numel() + 2 * x.numel()),
        bound=float32_bound(up.plain.shape[1], down.plain.shape[1], HIDDEN),
    )
