"""Three embedding tables and a LayerNorm: the one operator without a matrix product, bound by memory."""

from __future__ import annotations

from types import ModuleType

import pytest
import torch

import python_ref.ops as reference
from problems import EPS, FLOAT, HIDDEN, SHAPES, Timed, exact, norm
from tolerances import float32_bound

VOCABULARY, POSITIONS, TOKEN_TYPES = 30522, 512, 2


@pytest.mark.parametrize("shape", SHAPES)
def bench_embedding_layer_norm(timed: Timed, backend: ModuleType, shape: str) -> None:
    """The published tables; the same for the dense network and for Hugging Face's SqueezeBERT."""
    size = SHAPES[shape]
    tables = [torch.randn(rows, HIDDEN) for rows in (VOCABULARY, POSITIONS, TOKEN_TYPES)]
    ids = torch.randint(VOCABULARY, size)
    types, positions = torch.zeros_like(ids), torch.arange(size[1]).expand(size)
    ln_weight, ln_bias = norm()
    tokens = size[0] * size[1]
    timed(
        lambda: backend.embedding_layer_norm(ids, types, positions, *tables, ln_weight, ln_bias, EPS),
        reference.embedding_layer_norm(ids, types, positions, *exact(tables), *exact([ln_weight, ln_bias]), EPS),
        # Two additions, and what a LayerNorm does to each value: sum, square and add, subtract, scale, shift.
        flops=tokens * HIDDEN * (2 + 6),
        # A row of the first table and a row of the output for each token; the other two tables' rows stay in cache.
        bytes=FLOAT * HIDDEN * (2 * tokens + size[1] + 1),
        bound=float32_bound(HIDDEN),
    )
