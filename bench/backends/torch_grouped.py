"""SqueezeBERT as Hugging Face writes it: PyTorch's own grouped Conv1d on [N, C, S], plain attention."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from . import dense
from .dense import PARAMS_PER_LAYER, padding_mask


def groups(count: int) -> int:
    return count


def weight(plain: Tensor, groups: int) -> Tensor:
    return plain.unsqueeze(-1) if plain.dim() == 2 else plain


def layout(tokens: Tensor) -> Tensor:
    return tokens.transpose(1, 2).contiguous()


def tokens(output: Tensor) -> Tensor:
    return output.transpose(1, 2)


def grouped_conv1x1(input: Tensor, weight: Tensor, bias: Tensor, groups: int) -> Tensor:
    return F.conv1d(input, weight, bias, groups=groups)


def grouped_conv1x1_gelu(input: Tensor, weight: Tensor, bias: Tensor, groups: int) -> Tensor:
    return F.gelu(F.conv1d(input, weight, bias, groups=groups))


def grouped_conv1x1_add_layer_norm(
    input: Tensor,
    weight: Tensor,
    bias: Tensor,
    groups: int,
    residual: Tensor,
    ln_weight: Tensor,
    ln_bias: Tensor,
    eps: float,
) -> Tensor:
    total = F.conv1d(input, weight, bias, groups=groups) + residual
    return F.layer_norm(total.permute(0, 2, 1), ln_weight.shape, ln_weight, ln_bias, eps).permute(0, 2, 1)


def grouped_conv1d(input: Tensor, weight: Tensor, bias: Tensor, groups: int) -> Tensor:
    return F.conv1d(input, weight, bias, padding="same", groups=groups)


def attention(query: Tensor, key: Tensor, value: Tensor, num_heads: int, mask: Tensor | None = None) -> Tensor:
    queries, keys, values = (part.unflatten(1, (num_heads, -1)) for part in (query, key, value))
    scores = torch.matmul(queries.permute(0, 1, 3, 2), keys) / math.sqrt(keys.shape[2])
    if mask is not None:
        scores = scores + mask
    context = torch.matmul(scores.softmax(-1), values.permute(0, 1, 3, 2))
    return context.permute(0, 1, 3, 2).contiguous().flatten(1, 2)


def grouped_qkv_attention(
    input: Tensor,
    query_weight: Tensor,
    query_bias: Tensor,
    key_weight: Tensor,
    key_bias: Tensor,
    value_weight: Tensor,
    value_bias: Tensor,
    num_heads: int,
    groups: Sequence[int],
    mask: Tensor | None = None,
) -> Tensor:
    query = F.conv1d(input, query_weight, query_bias, groups=groups[0])
    key = F.conv1d(input, key_weight, key_bias, groups=groups[1])
    value = F.conv1d(input, value_weight, value_bias, groups=groups[2])
    return attention(query, key, value, num_heads, mask)


def grouped_ffn(
    input: Tensor,
    intermediate_weight: Tensor,
    intermediate_bias: Tensor,
    output_weight: Tensor,
    output_bias: Tensor,
    groups: Sequence[int],
    ln_weight: Tensor,
    ln_bias: Tensor,
    eps: float,
) -> Tensor:
    intermediate = grouped_conv1x1_gelu(input, intermediate_weight, intermediate_bias, groups[0])
    return grouped_conv1x1_add_layer_norm(
        intermediate, output_weight, output_bias, groups[1], input, ln_weight, ln_bias, eps
    )


def embedding_layer_norm(*arguments: Any) -> Tensor:
    return dense.embedding_layer_norm(*arguments).permute(0, 2, 1)


def encoder(
    input: Tensor,
    params: Sequence[Tensor],
    num_heads: int,
    groups: Sequence[int],
    eps: float,
    lengths: Sequence[int] | None = None,
) -> Tensor:
    """lengths: real tokens of each sequence of the padded `input`; None means all."""
    real = padding_mask(input.shape[2], lengths)
    mask = None if real is None else torch.zeros(real.shape).masked_fill(~real, torch.finfo(torch.float32).min)
    for start in range(0, len(params), PARAMS_PER_LAYER):
        (qw, qb, kw, kb, vw, vb, w1, b1, ln1w, ln1b, w2, b2, w3, b3, ln2w, ln2b) = params[start : start + 16]
        context = grouped_qkv_attention(input, qw, qb, kw, kb, vw, vb, num_heads, groups[:3], mask)
        middle = grouped_conv1x1_add_layer_norm(context, w1, b1, groups[3], input, ln1w, ln1b, eps)
        input = grouped_ffn(middle, w2, b2, w3, b3, groups[4:], ln2w, ln2b, eps)
    return input
