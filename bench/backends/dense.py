"""BERT: the dense layers that SqueezeBERT's grouped convolutions replace, as PyTorch runs them on [N, S, C]."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

PARAMS_PER_LAYER = 16


def groups(count: int) -> int:
    return 1


def weight(plain: Tensor, groups: int) -> Tensor:
    return plain


def layout(tokens: Tensor) -> Tensor:
    return tokens


def tokens(output: Tensor) -> Tensor:
    return output


def grouped_conv1x1(input: Tensor, weight: Tensor, bias: Tensor, groups: int) -> Tensor:
    return F.linear(input, weight, bias)


def grouped_conv1x1_gelu(input: Tensor, weight: Tensor, bias: Tensor, groups: int) -> Tensor:
    return F.gelu(F.linear(input, weight, bias))


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
    return F.layer_norm(F.linear(input, weight, bias) + residual, ln_weight.shape, ln_weight, ln_bias, eps)


def grouped_conv1d(input: Tensor, weight: Tensor, bias: Tensor, groups: int) -> Tensor:
    return F.conv1d(input.transpose(1, 2), weight, bias, padding="same").transpose(1, 2)


def attention(query: Tensor, key: Tensor, value: Tensor, num_heads: int, mask: Tensor | None = None) -> Tensor:
    heads = (part.unflatten(-1, (num_heads, -1)).transpose(1, 2) for part in (query, key, value))
    return F.scaled_dot_product_attention(*heads, attn_mask=mask).transpose(1, 2).flatten(2)


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
    query = F.linear(input, query_weight, query_bias)
    key = F.linear(input, key_weight, key_bias)
    return attention(query, key, F.linear(input, value_weight, value_bias), num_heads, mask)


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
    intermediate = F.gelu(F.linear(input, intermediate_weight, intermediate_bias))
    return F.layer_norm(
        F.linear(intermediate, output_weight, output_bias) + input, ln_weight.shape, ln_weight, ln_bias, eps
    )


def embedding_layer_norm(
    input_ids: Tensor,
    token_type_ids: Tensor,
    position_ids: Tensor,
    word_embeddings: Tensor,
    position_embeddings: Tensor,
    token_type_embeddings: Tensor,
    ln_weight: Tensor,
    ln_bias: Tensor,
    eps: float,
) -> Tensor:
    words = F.embedding(input_ids, word_embeddings)
    total = words + F.embedding(position_ids, position_embeddings) + F.embedding(token_type_ids, token_type_embeddings)
    return F.layer_norm(total, ln_weight.shape, ln_weight, ln_bias, eps)


def encoder(
    input: Tensor,
    params: Sequence[Tensor],
    num_heads: int,
    groups: Sequence[int],
    eps: float,
    lengths: Sequence[int] | None = None,
) -> Tensor:
    """lengths: real tokens of each sequence of the padded `input`; None means all."""
    mask = padding_mask(input.shape[1], lengths)
    for start in range(0, len(params), PARAMS_PER_LAYER):
        (qw, qb, kw, kb, vw, vb, w1, b1, ln1w, ln1b, w2, b2, w3, b3, ln2w, ln2b) = params[start : start + 16]
        context = grouped_qkv_attention(input, qw, qb, kw, kb, vw, vb, num_heads, groups[:3], mask)
        middle = grouped_conv1x1_add_layer_norm(context, w1, b1, groups[3], input, ln1w, ln1b, eps)
        input = grouped_ffn(middle, w2, b2, w3, b3, groups[4:], ln2w, ln2b, eps)
    return input


def padding_mask(length: int, lengths: Sequence[int] | None) -> Tensor | None:
    """Boolean [N, 1, 1, S], True where there is a token; None when there is no padding."""
    if lengths is None:
        return None
    return (torch.arange(length) < torch.tensor(lengths)[:, None])[:, None, None, :]
