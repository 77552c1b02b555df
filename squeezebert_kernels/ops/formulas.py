"""The operators as compositions of ATen's: gradients are taken of them, and the models' plain path is made of them.

One function for each differentiable operator, with its name and arguments, but plain weights only, all of one floating
dtype, any. Arguments were checked before, by the operators; only a mask is checked here, which the plain path gets from
its caller. `python_ref.ops`, in the source tree, defines the same functions in its own words: the tests hold these and
the kernels against it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

from ..checks import check, check_broadcasts

TENSORS_PER_LAYER = 16


def grouped_conv1x1(input: Tensor, weight: Tensor, bias: Tensor | None, groups: int) -> Tensor:
    """A batch of `groups` matrix products: [..., in] x [out, in / groups(, 1)] -> [..., out]."""
    blocks = weight.reshape(groups, weight.shape[0] // groups, weight.shape[1])
    rows = input.unflatten(-1, (groups, weight.shape[1])).reshape(-1, *blocks.shape[::2]).transpose(0, 1)
    output = torch.bmm(rows, blocks.mT).transpose(0, 1).reshape(*input.shape[:-1], weight.shape[0])
    return output if bias is None else output + bias


def grouped_conv1x1_gelu(input: Tensor, weight: Tensor, bias: Tensor | None, groups: int) -> Tensor:
    return F.gelu(grouped_conv1x1(input, weight, bias, groups))


def grouped_conv1x1_add_layer_norm(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    groups: int,
    residual: Tensor,
    ln_weight: Tensor,
    ln_bias: Tensor,
    eps: float,
) -> Tensor:
    output = grouped_conv1x1(input, weight, bias, groups) + residual
    return F.layer_norm(output, ln_weight.shape, ln_weight, ln_bias, eps)


def grouped_conv1d(
    input: Tensor, weight: Tensor, bias: Tensor | None, groups: int, cu_seqlens: Tensor | None = None
) -> Tensor:
    """A position-wise convolution of windows, each a token and its neighbours: input channels times kernel size."""
    size = weight.shape[2] if weight.dim() == 3 else 1

    def convolve(tokens: Tensor) -> Tensor:
        padded = F.pad(tokens, (0, 0, size // 2, size // 2))
        windows = torch.stack([padded[..., k : k + tokens.shape[-2], :] for k in range(size)], dim=-1)
        return grouped_conv1x1(windows.flatten(-2), weight.flatten(1), bias, groups)

    return _in_each_sequence(convolve, input, cu_seqlens)


def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    num_heads: int,
    mask: Tensor | None = None,
    scale: float | None = None,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """dtype: what the operator rounds keys and values to, which no derivative sees."""
    probabilities = attention_probabilities(attention_scores(query, key, num_heads, mask, scale))
    return merge_heads(probabilities @ split_heads(value, num_heads))


def grouped_qkv_attention(
    input: Tensor,
    query_weight: Tensor,
    query_bias: Tensor | None,
    key_weight: Tensor,
    key_bias: Tensor | None,
    value_weight: Tensor,
    value_bias: Tensor | None,
    num_heads: int,
    groups: Sequence[int],
    mask: Tensor | None = None,
    cu_seqlens: Tensor | None = None,
    scale: float | None = None,
    attention_dtype: torch.dtype | None = None,
) -> Tensor:
    query = grouped_conv1x1(input, query_weight, query_bias, groups[0])
    key = grouped_conv1x1(input, key_weight, key_bias, groups[1])
    value = grouped_conv1x1(input, value_weight, value_bias, groups[2])

    def attend(projections: Tensor) -> Tensor:
        query, key, value = projections.chunk(3, -1)
        return attention(query, key, value, num_heads, mask, scale)

    return _in_each_sequence(attend, torch.cat([query, key, value], -1), cu_seqlens)


def grouped_ffn(
    input: Tensor,
    intermediate_weight: Tensor,
    intermediate_bias: Tensor | None,
    output_weight: Tensor,
    output_bias: Tensor | None,
    groups: Sequence[int],
    ln_weight: Tensor,
    ln_bias: Tensor,
    eps: float,
) -> Tensor:
    hidden = grouped_conv1x1_gelu(input, intermediate_weight, intermediate_bias, groups[0])
    return grouped_conv1x1_add_layer_norm(hidden, output_weight, output_bias, groups[1], input, ln_weight, ln_bias, eps)


def embedding_layer_norm(
    input_ids: Tensor,
    token_type_ids: Tensor | None,
    position_ids: Tensor | None,
    word_embeddings: Tensor,
    position_embeddings: Tensor,
    token_type_embeddings: Tensor,
    ln_weight: Tensor,
    ln_bias: Tensor,
    eps: float,
) -> Tensor:
    if position_ids is None:
        position_ids = torch.arange(input_ids.shape[-1], device=input_ids.device)
    if token_type_ids is None:
        token_type_ids = torch.zeros_like(input_ids)
    embedded = (
        F.embedding(input_ids, word_embeddings)
        + F.embedding(position_ids, position_embeddings)
        + F.embedding(token_type_ids, token_type_embeddings)
    )
    return F.layer_norm(embedded, ln_weight.shape, ln_weight, ln_bias, eps)


def encoder_layer(
    input: Tensor,
    params: Sequence[Tensor],
    num_heads: int,
    groups: Sequence[int],
    eps: float,
    mask: Tensor | None = None,
    cu_seqlens: Tensor | None = None,
) -> Tensor:
    query, query_bias, key, key_bias, value, value_bias = params[:6]
    context = grouped_qkv_attention(
        input, query, query_bias, key, key_bias, value, value_bias, num_heads, groups[:3], mask, cu_seqlens
    )
    weight, bias, ln_weight, ln_bias = params[6:10]
    attended = grouped_conv1x1_add_layer_norm(context, weight, bias, groups[3], input, ln_weight, ln_bias, eps)
    inner, inner_bias, outer, outer_bias, ln_weight, ln_bias = params[10:]
    return grouped_ffn(attended, inner, inner_bias, outer, outer_bias, groups[4:], ln_weight, ln_bias, eps)


def encoder(
    input: Tensor,
    params: Sequence[Tensor],
    num_heads: int,
    groups: Sequence[int],
    eps: float,
    mask: Tensor | None = None,
    cu_seqlens: Tensor | None = None,
    first_token_only: bool = False,
) -> Tensor:
    hidden = input
    for start in range(0, len(params), TENSORS_PER_LAYER):
        layer = params[start : start + TENSORS_PER_LAYER]
        hidden = encoder_layer(hidden, layer, num_heads, groups, eps, mask, cu_seqlens)
    if not first_token_only:
        return hidden
    if cu_seqlens is not None:
        return hidden[cu_seqlens[:-1].long()]
    # The sum of one row is the row; and of none, in a batch of no sequences and no tokens, it is nothing.
    return hidden[:, :1].sum(1) if hidden.dim() == 3 else hidden[:1]


# The parts of attention, which the plain path shows its callers and drops out from.


def attention_scores(
    query: Tensor, key: Tensor, num_heads: int, mask: Tensor | None = None, scale: float | None = None
) -> Tensor:
    """scale * Q K^T + mask, before the softmax: [N, heads, Sq, Sk], or [heads, Sq, Sk] without a batch.

    mask, scale: as `attention` takes them. Raises ValueError for a mask of another shape or dtype.
    """
    queries, keys = split_heads(query, num_heads), split_heads(key, num_heads)
    scores = (queries @ keys.mT) * (queries.shape[-1] ** -0.5 if scale is None else scale)
    return scores if mask is None else scores + _additive(mask, scores)


def attention_probabilities(scores: Tensor) -> Tensor:
    """Softmax over the last dimension, except that a row of -infinity throughout gives zeros instead of NaN."""
    nothing_to_attend = (scores == -math.inf).all(-1, keepdim=True)
    probabilities = torch.softmax(scores.masked_fill(nothing_to_attend, 0.0), dim=-1)
    return probabilities.masked_fill(nothing_to_attend, 0.0)


def split_heads(input: Tensor, num_heads: int) -> Tensor:
    """[..., S, C] -> [..., heads, S, C / heads]."""
    return input.unflatten(-1, (num_heads, -1)).transpose(-3, -2)


def merge_heads(input: Tensor) -> Tensor:
    """[..., heads, S, d] -> [..., S, heads * d]."""
    return input.transpose(-3, -2).flatten(-2)


def _additive(mask: Tensor, scores: Tensor) -> Tensor:
    check(
        mask.dtype == torch.bool or mask.is_floating_point(),
        f"mask: expected a floating or boolean dtype, got {mask.dtype}",
    )
    check_broadcasts("mask", mask, scores.shape if scores.dim() == 4 else (1, *scores.shape))
    if mask.dim() > scores.dim():
        mask = mask.squeeze(0)
    if mask.dtype != torch.bool:
        return mask.to(scores.dtype)
    return scores.new_zeros(()).masked_fill(~mask, torch.finfo(scores.dtype).min)


def _in_each_sequence(compute: Callable[[Tensor], Tensor], input: Tensor, cu_seqlens: Tensor | None) -> Tensor:
    """compute(input) when input is [N, S, C] or [S, C]; else compute() of each packed sequence, concatenated again."""
    if cu_seqlens is None or cu_seqlens.numel() < 2:
        return compute(input)
    return torch.cat([compute(input[start:end]) for start, end in pairwise(cu_seqlens.tolist())])
