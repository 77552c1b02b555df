"""The position-wise layers one by one, beside BERT's fully-connected ones: Q, K, V; FFN1; FFN2; FFN3."""

from __future__ import annotations

from types import ModuleType

import pytest

import python_ref.ops as reference
from problems import CONV_SIZE, EPS, FLOAT, HIDDEN, INTERMEDIATE, SHAPES, Layer, Timed, activations, exact, layer, norm
from tolerances import float32_bound


def traffic(part: Layer, tokens: int, inputs: int, outputs: int) -> int:
    return FLOAT * (part.plain.numel() + tokens * (inputs + outputs))


@pytest.mark.parametrize("shape", SHAPES)
def bench_grouped_conv1x1(timed: Timed, backend: ModuleType, shape: str) -> None:
    """Q, K or V: 768 -> 768, 4 groups."""
    x, part = activations(SHAPES[shape]), layer(backend, HIDDEN, HIDDEN, 4)
    tokens, laid_out = x.shape[0] * x.shape[1], backend.layout(x)
    timed(
        lambda: backend.grouped_conv1x1(laid_out, part.weight, part.bias, part.groups),
        reference.grouped_conv1x1(*exact([x, part.plain, part.bias]), part.groups),
        flops=part.flops(tokens),
        bytes=traffic(part, tokens, HIDDEN, HIDDEN),
        bound=float32_bound(part.plain.shape[1], size=CONV_SIZE),
    )


@pytest.mark.parametrize("shape", SHAPES)
def bench_grouped_conv1x1_gelu(timed: Timed, backend: ModuleType, shape: str) -> None:
    """FFN2 and its GELU: 768 -> 3072, 4 groups."""
    x, part = activations(SHAPES[shape]), layer(backend, HIDDEN, INTERMEDIATE, 4)
    tokens, laid_out = x.shape[0] * x.shape[1], backend.layout(x)
    timed(
        lambda: backend.grouped_conv1x1_gelu(laid_out, part.weight, part.bias, part.groups),
        reference.grouped_conv1x1_gelu(*exact([x, part.plain, part.bias]), part.groups),
        flops=part.flops(tokens),
        bytes=traffic(part, tokens, HIDDEN, INTERMEDIATE),
        bound=float32_bound(part.plain.shape[1], size=CONV_SIZE),
    )


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("inputs", "groups"), [(HIDDEN, 1), (INTERMEDIATE, 4)], ids=["ffn1", "ffn3"])
def bench_grouped_conv1x1_add_layer_norm(
    timed: Timed, backend: ModuleType, inputs: int, groups: int, shape: str
) -> None:
    """FFN1 (768 -> 768, dense in SqueezeBERT too) and FFN3 (3072 -> 768, 4 groups), residual, LayerNorm."""
    x, part = activations(SHAPES[shape], inputs), layer(backend, inputs, HIDDEN, groups)
    residual, (ln_weight, ln_bias) = activations(SHAPES[shape]), norm()
    tokens, laid_out, added = x.shape[0] * x.shape[1], backend.layout(x), backend.layout(residual)
    timed(
        lambda: backend.grouped_conv1x1_add_layer_norm(
            laid_out, part.weight, part.bias, part.groups, added, ln_weight, ln_bias, EPS
        ),
        reference.grouped_conv1x1_add_layer_norm(
            *exact([x, part.plain, part.bias]), part.groups, *exact([residual, ln_weight, ln_bias]), EPS
        ),
        flops=part.flops(tokens),
        bytes=traffic(part, tokens, inputs + HIDDEN, HIDDEN),
        bound=float32_bound(part.plain.shape[1], HIDDEN),
    )
