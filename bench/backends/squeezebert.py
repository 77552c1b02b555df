"""This library: `squeezebert_kernels.ops` on packed weights and [N, S, C], in one of its number formats."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import torch
from torch import Tensor

from squeezebert_kernels import ops
from squeezebert_kernels.ops import (
    embedding_layer_norm,
    grouped_conv1d,
    grouped_conv1x1,
    grouped_conv1x1_add_layer_norm,
    grouped_conv1x1_gelu,
    grouped_ffn,
    grouped_qkv_attention,
)

__all__ = [
    "attention",
    "embedding_layer_norm",
    "grouped_conv1d",
    "grouped_conv1x1",
    "grouped_conv1x1_add_layer_norm",
    "grouped_conv1x1_gelu",
    "grouped_ffn",
    "grouped_qkv_attention",
]


dtype = "float32"


def use_dtype(name: str) -> None:
    """What weights are packed as from now on, and keys and values."""
    global dtype
    dtype = name


def groups(count: int) -> int:
    return count


def weight(plain: Tensor, groups: int) -> Tensor:
    pack = ops.pack_grouped_conv1x1 if plain.dim() == 2 else ops.pack_grouped_conv1d
    return pack(plain, groups, getattr(torch, dtype))


def layout(tokens: Tensor) -> Tensor:
    return tokens


def attention(query: Tensor, key: Tensor, value: Tensor, num_heads: int) -> Tensor:
    return ops.attention(query, key, value, num_heads, dtype=getattr(torch, dtype))


def tokens(output: Tensor) -> Tensor:
    return output


def encoder(
    input: Tensor,
    params: Sequence[Tensor],
    num_heads: int,
    groups: Sequence[int],
    eps: float,
    lengths: Sequence[int] | None = None,
) -> Tensor:
    """lengths: real tokens of each sequence of the padded `input`; the padding is taken out before and put back after,
    which is timed too, since the others are handed a padded batch."""
    if lengths is None:
        return ops.encoder(input, params, num_heads, groups, eps)
    real = torch.arange(input.shape[1]) < torch.tensor(lengths)[:, None]
    offsets = torch.tensor([0, *accumulate(lengths)], dtype=torch.int32)
    output = torch.zeros_like(input)
    output[real] = ops.encoder(input[real], params, num_heads, groups, eps, None, offsets)
    return output
