"""What training adds to the layer: which values are dropped, defined in integers, and the layer with dropout."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .ops import grouped_conv1x1

POST_ATTENTION, OUTPUT, ATTENTION = 0, 1, 2  # sites; attention's is + head

_MASK = (1 << 64) - 1


def dropout_factors(seed: int, site: int, sequence: int, row: int, count: int, p: float) -> Tensor:
    """float64 [count]: 0 where the value is dropped, 1 / (1 - p) elsewhere, for the channels or keys of one row.

    seed: taken modulo 2^64. row: the token's place in its sequence.
    """
    key = _mixed(_mixed(_mixed(seed & _MASK, site), sequence), row)
    low, high = np.uint32(key & 0xFFFFFFFF), np.uint32(key >> 32)
    x = low + np.arange(count, dtype=np.uint32) * np.uint32(0x9E3779B9)
    x = (x ^ (x >> np.uint32(16))) * np.uint32(0x21F0AAAD)
    x = ((x ^ (x >> np.uint32(15))) + high) * np.uint32(0xD35A2D97)
    x ^= x >> np.uint32(15)
    single = np.float32(p)
    kept = x >= np.uint32(int(float(single) * 2.0**32))
    return torch.from_numpy(kept * float(np.float32(1) / (np.float32(1) - single)))


def _mixed(key: int, value: int) -> int:
    """SplitMix64's finalizer of the `value`-th number after `key`."""
    z = (key + (value + 1) * 0x9E3779B97F4A7C15) & _MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
    return z ^ (z >> 31)


def encoder_layer_training(
    input: Tensor,
    params: Sequence[Tensor],
    num_heads: int,
    groups: Sequence[int],
    eps: float,
    mask: Tensor | None = None,
    cu_seqlens: Tensor | None = None,
    hidden_dropout: float = 0.0,
    attention_dropout: float = 0.0,
    seed: Tensor | None = None,
) -> Tensor:
    """One layer with dropout, sequence by sequence.

    input: [N, S, C], or packed [T, C] with `cu_seqlens`; mask: float, [N, 1 or heads, 1 or S, S]. Returns its shape.
    """
    number = 0 if seed is None else int(seed)
    rows = list(input) if cu_seqlens is None else [input[start:end] for start, end in pairwise(cu_seqlens.tolist())]

    def dropped(values: Tensor, site: int, sequence: int, p: float) -> Tensor:
        if p == 0.0:
            return values
        count = values.shape[1]
        factors = [dropout_factors(number, site, sequence, row, count, p) for row in range(values.shape[0])]
        return values * torch.stack(factors) if factors else values

    def one(x: Tensor, sequence: int) -> Tensor:
        query, key, value = (
            grouped_conv1x1(x, params[2 * i], params[2 * i + 1], groups[i]).unflatten(1, (num_heads, -1))
            for i in range(3)
        )
        scores = torch.einsum("qhd,khd->hqk", query, key) * query.shape[2] ** -0.5
        if mask is not None:
            scores = scores + mask.expand(len(rows), num_heads, x.shape[0], x.shape[0])[sequence]
        heads = [
            dropped(scores[head].softmax(1), ATTENTION + head, sequence, attention_dropout) @ value[:, head]
            for head in range(num_heads)
        ]
        attended = grouped_conv1x1(torch.stack(heads, 1).flatten(1), params[6], params[7], groups[3])
        attended = dropped(attended, POST_ATTENTION, sequence, hidden_dropout) + x
        attended = F.layer_norm(attended, params[8].shape, params[8], params[9], eps)
        inner = F.gelu(grouped_conv1x1(attended, params[10], params[11], groups[4]))
        output = dropped(grouped_conv1x1(inner, params[12], params[13], groups[5]), OUTPUT, sequence, hidden_dropout)
        return F.layer_norm(output + attended, params[14].shape, params[14], params[15], eps)

    outputs = [one(x, sequence) for sequence, x in enumerate(rows)]
    return torch.stack(outputs) if cu_seqlens is None else torch.cat(outputs)
