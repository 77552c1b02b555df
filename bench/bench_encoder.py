"""The encoder: one layer, all twelve, and all twelve on a batch of sentences of mixed lengths."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from types import ModuleType

import pytest
import torch
from torch import Tensor

import python_ref.ops as reference
from problems import (
    EPS,
    FLOAT,
    GROUPS,
    HEADS,
    HIDDEN,
    INTERMEDIATE,
    LAYERS,
    SENTENCES,
    SHAPES,
    WIDTHS,
    Timed,
    activations,
    exact,
    layer,
    norm,
)
from squeezebert_kernels.compare.flops import EncoderShape, encoder_bytes, encoder_flops
from tolerances import float32_bound


@pytest.mark.parametrize("shape", SHAPES)
def bench_encoder_layer(timed: Timed, backend: ModuleType, shape: str) -> None:
    run(timed, backend, 1, activations(SHAPES[shape]))


@pytest.mark.parametrize("shape", SHAPES)
def bench_encoder(timed: Timed, backend: ModuleType, shape: str) -> None:
    run(timed, backend, LAYERS, activations(SHAPES[shape]))


def bench_encoder_sentences(timed: Timed, backend: ModuleType) -> None:
    """Eight sentences of 9 to 128 tokens, padded to 8x128 by the caller; padding is not counted as work."""
    run(timed, backend, LAYERS, activations((len(SENTENCES), max(SENTENCES))), SENTENCES)


def run(timed: Timed, backend: ModuleType, layers: int, x: Tensor, lengths: Sequence[int] | None = None) -> None:
    groups = tuple(backend.groups(count) for count in GROUPS)
    params, plain = parameters(backend, layers)
    shape = EncoderShape(layers, HIDDEN, INTERMEDIATE, groups)
    real = [x.shape[1]] * x.shape[0] if lengths is None else lengths
    rows = torch.arange(x.shape[1]) < torch.tensor(real)[:, None]
    offsets = torch.tensor([0, *accumulate(real)], dtype=torch.int32)
    laid_out = backend.layout(x)
    reductions = (
        HIDDEN // groups[0],
        HIDDEN // HEADS,
        x.shape[1],
        HIDDEN,
        HIDDEN // groups[4],
        INTERMEDIATE // groups[5],
    )
    timed(
        lambda: backend.encoder(laid_out, params, HEADS, groups, EPS, lengths),
        reference.encoder(exact(x[rows]), exact(plain), HEADS, groups, EPS, cu_seqlens=offsets),
        rows=rows,
        flops=encoder_flops(shape, real),
        bytes=encoder_bytes(shape, real, FLOAT),
        bound=float32_bound(*reductions * layers),
    )


def parameters(backend: ModuleType, layers: int) -> tuple[list[Tensor], list[Tensor]]:
    """16 tensors a layer, in the order of `squeezebert_kernels.ops.encoder`: as the backend takes them, and plain."""
    params: list[Tensor] = []
    plain: list[Tensor] = []
    for _ in range(layers):
        parts = [layer(backend, *widths, groups) for widths, groups in zip(WIDTHS, GROUPS, strict=True)]
        for index, part in enumerate(parts):
            after = norm() if index in (3, 5) else ()
            params += [part.weight, part.bias, *after]
            plain += [part.plain, part.bias, *after]
    return params, plain
