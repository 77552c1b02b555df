"""Attention alone, and with its three projections, which the dense network makes from all channels."""

from __future__ import annotations

from types import ModuleType

import pytest

import python_ref.ops as reference
from problems import FLOAT, HEADS, HIDDEN, SHAPES, Timed, activations, attention_flops, exact, layer
from tolerances import float32_bound


@pytest.mark.parametrize("shape", SHAPES)
def bench_attention(timed: Timed, backend: ModuleType, shape: str) -> None:
    """12 heads of 64; the dense network's is PyTorch's scaled_dot_product_attention."""
    query, key, value = (activations(SHAPES[shape]) for _ in range(3))
    laid_out = [backend.layout(part) for part in (query, key, value)]
    timed(
        lambda: backend.attention(*laid_out, HEADS),
        reference.attention(*exact([query, key, value]), HEADS),
        flops=attention_flops(SHAPES[shape]),
        bytes=FLOAT * 4 * query.numel(),
        bound=float32_bound(HIDDEN // HEADS, query.shape[1]),
    )


@pytest.mark.parametrize("shape", SHAPES)
def bench_grouped_qkv_attention(timed: Timed, backend: ModuleType, shape: str) -> None:
    """Q, K, V (768 -> 768, 4 groups each) and the attention over them."""
    x, parts = activations(SHAPES[shape]), [layer(backend, HIDDEN, HIDDEN, 4) for _ in range(3)]
    tokens, laid_out = x.shape[0] * x.shape[1], backend.layout(x)
    groups = [part.groups for part in parts]
    weights = [tensor for part in parts for tensor in (part.weight, part.bias)]
    plain = [tensor for part in parts for tensor in (part.plain, part.bias)]
    timed(
        lambda: backend.grouped_qkv_attention(laid_out, *weights, HEADS, groups),
        reference.grouped_qkv_attention(exact(x), *exact(plain), HEADS, groups),
        flops=sum(part.flops(tokens) for part in parts) + attention_flops(SHAPES[shape]),
        bytes=FLOAT * (sum(part.plain.numel() for part in parts) + 2 * x.numel()),
        bound=float32_bound(HIDDEN // parts[0].groups, HIDDEN // HEADS, x.shape[1]),
    )
