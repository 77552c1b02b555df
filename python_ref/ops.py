"""The operators in plain PyTorch: what each one computes, said as plainly as it can be said.

One function for each operator of `torch.ops.squeezebert`, with the same name and arguments; in place of packed weights
it takes plain ones, or those of a low-precision format (`python_ref.formats` defines what is then computed). They are
the oracle of the tests and, through autograd, of every gradient, so with plain weights they are built from
differentiable ATen operations and work in any floating dtype. Nothing that users run imports them: the package takes
its gradients of `squeezebert_kernels.ops.formulas`, written for speed, which the tests hold against these as they hold
the kernels. Here every step is spelled out (sums over channels, softmax, erf), and nothing is shared but the checks of
arguments.

Layout is token-major: the last dimension is channels. The operators that look along a sequence take [N, S, C] (N
sequences of S tokens), [S, C] (one sequence) or, with `cu_seqlens` (int32, on the CPU: N + 1 offsets, the first 0, the
last T), packed tokens [T, C] in which sequence n is rows cu_seqlens[n] to cu_seqlens[n + 1].

Source of the architecture: Iandola et al. 2020, SqueezeBERT, arXiv 2006.11316, section 3.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from squeezebert_kernels.checks import check, check_broadcasts, naming_ids

from . import formats
from .checks import check_bias, check_group_counts, check_heads, check_sequences, check_weight
from .formats import Weight

TENSORS_PER_LAYER = 16


def grouped_conv1x1(input: Tensor, weight: Weight, bias: Tensor | None, groups: int) -> Tensor:
    """Position-wise grouped convolution: each token's channels, in `groups` blocks, times each block's own matrix.

    output[..., g, o] = bias[g, o] + sum over i of weight[g, o, i] * input[..., g, i]

    input: [..., in_channels], any leading dimensions.
    weight: [out_channels, in_channels / groups] or [out_channels, in_channels / groups, 1] (as torch.nn.Conv1d has it).
    bias: [out_channels] or None. Returns [..., out_channels]. Raises ValueError when shapes or groups do not fit.
    """
    weight = _three_dimensional(weight)
    check_weight(formats.shape_of(weight), input.shape[-1], groups, kernel_size=1)
    check_bias(bias, formats.shape_of(weight)[0])
    return _multiply_groups(input, formats.tap(weight, 0), bias, groups)


def grouped_conv1x1_gelu(input: Tensor, weight: Weight, bias: Tensor | None, groups: int) -> Tensor:
    """`grouped_conv1x1`, then exact GELU: gelu(x) = x * (1 + erf(x / sqrt(2))) / 2. Shapes as `grouped_conv1x1`."""
    output = grouped_conv1x1(input, weight, bias, groups)
    return output * (1.0 + torch.erf(output / math.sqrt(2.0))) / 2.0


def grouped_conv1x1_add_layer_norm(
    input: Tensor,
    weight: Weight,
    bias: Tensor | None,
    groups: int,
    residual: Tensor,
    ln_weight: Tensor,
    ln_bias: Tensor,
    eps: float,
) -> Tensor:
    """`grouped_conv1x1`, plus `residual`, then LayerNorm over the channels: post-LayerNorm, as in BERT.

    residual: [..., out_channels], the shape of the output. ln_weight, ln_bias: [out_channels]. eps is added to the
    variance. Other shapes as `grouped_conv1x1`.
    """
    output = grouped_conv1x1(input, weight, bias, groups)
    check(
        residual.shape == output.shape,
        f"residual: expected the shape of the output, {list(output.shape)}, got {list(residual.shape)}",
    )
    return _layer_norm(output + residual, ln_weight, ln_bias, eps)


def grouped_conv1d(
    input: Tensor, weight: Weight, bias: Tensor | None, groups: int, cu_seqlens: Tensor | None = None
) -> Tensor:
    """Grouped convolution along the sequence, odd kernel size K, padded with zeros to the same length.

    output[t] = bias + sum over k of W_k input[t + k - (K - 1) / 2], where tokens outside the sequence are zero and W_k
    is the block-diagonal matrix of weight[:, :, k].

    input: [N, S, in_channels], [S, in_channels], or packed [T, in_channels] with `cu_seqlens`.
    weight: [out_channels, in_channels / groups, K], or without the last dimension for K = 1.
    bias: [out_channels] or None. Returns the input's shape with out_channels in place of in_channels.
    """
    weight = _three_dimensional(weight)
    check_weight(formats.shape_of(weight), input.shape[-1], groups)
    check_bias(bias, formats.shape_of(weight)[0])
    middle = formats.shape_of(weight)[2] // 2

    def convolve(tokens: Tensor) -> Tensor:
        length = tokens.shape[-2]
        output = _multiply_groups(tokens, formats.tap(weight, middle), bias, groups)
        # The others in turn add to the rows whose neighbour lies inside.
        for shift in range(-middle, middle + 1):
            first, last = max(0, -shift), length - max(0, shift)
            if shift == 0 or first >= last:
                continue
            before, rows, after = output.split([first, last - first, length - last], dim=-2)
            neighbours = tokens[..., first + shift : last + shift, :]
            rows = _multiply_groups(neighbours, formats.tap(weight, middle + shift), rows, groups)
            output = torch.cat([before, rows, after], dim=-2)
        return output

    return _for_each_sequence(convolve, input, cu_seqlens)


def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    num_heads: int,
    mask: Tensor | None = None,
    scale: float | None = None,
    dtype: torch.dtype | None = None,
    rounds_left: bool = False,
) -> Tensor:
    """Multi-head scaled dot-product attention: softmax(scale * Q K^T + mask) V, in each head.

    query: [N, Sq, C] or [Sq, C]; key and value: [N, Sk, C] or [Sk, C]. Head h owns channels h * d to (h + 1) * d, where
    d = C / num_heads. mask: broadcastable to [N, heads, Sq, Sk] (N = 1 without a batch). Floating: added. Boolean, True
    = attend: the most negative finite number of query's dtype is added where False, so a row that is False throughout
    attends uniformly; a row of -infinity throughout gives zeros. scale: None means 1 / sqrt(d). dtype: what keys and
    values are multiplied as: None for the dtype of query, or a low-precision format (then query is float32);
    rounds_left: whether its products round the left side. Returns the shape of query.
    """
    check(query.dim() in (2, 3), f"query: expected [N, Sq, C] or [Sq, C], got shape {list(query.shape)}")
    expected = [*query.shape[:-2], "Sk", query.shape[-1]]
    check(
        key.dim() == query.dim() and key.shape[:-2] == query.shape[:-2] and key.shape[-1] == query.shape[-1],
        f"key: expected shape {expected} beside query {list(query.shape)}, got {list(key.shape)}",
    )
    check(value.shape == key.shape, f"value: expected the shape of key, {list(key.shape)}, got {list(value.shape)}")
    check_heads(num_heads, query.shape[-1])
    queries, keys, values = (tensor.unflatten(-1, (num_heads, -1)).transpose(-2, -3) for tensor in (query, key, value))
    scale = 1.0 / math.sqrt(queries.shape[-1]) if scale is None else scale
    dtype = query.dtype if dtype is None else dtype
    scores = formats.multiply(queries, formats.in_format(keys, dtype, rounds_left)) * scale
    if mask is not None:
        scores = scores + _additive_mask(mask, scores)
    nothing_to_attend = (scores == -math.inf).all(-1, keepdim=True)
    scores = scores.where(~nothing_to_attend, 0.0)
    highest = scores.detach().amax(-1, keepdim=True) if scores.shape[-1] else 0.0
    powers = (scores - highest).exp().where(~nothing_to_attend, 0.0)
    attended = formats.multiply_values(powers, values, dtype, rounds_left)
    total = powers.sum(-1, keepdim=True).where(~nothing_to_attend, 1.0)
    return (attended * (1.0 / total)).transpose(-2, -3).flatten(-2)


def grouped_qkv_attention(
    input: Tensor,
    query_weight: Weight,
    query_bias: Tensor | None,
    key_weight: Weight,
    key_bias: Tensor | None,
    value_weight: Weight,
    value_bias: Tensor | None,
    num_heads: int,
    groups: Sequence[int],
    mask: Tensor | None = None,
    cu_seqlens: Tensor | None = None,
    scale: float | None = None,
    attention_dtype: torch.dtype | None = None,
) -> Tensor:
    """Self-attention from its input: three `grouped_conv1x1` projections, then `attention` within each sequence.

    input: [N, S, C], [S, C], or packed [T, C] with `cu_seqlens` (then without a mask). groups: those of query, key,
    value. Weights and biases as `grouped_conv1x1`. attention_dtype: None for the format of query_weight. The rest as
    `attention`. Returns the projections' shape.
    """
    check_group_counts(groups, 3)
    check(mask is None or cu_seqlens is None, "mask: expected None beside cu_seqlens, got both")

    dtype, rounds_left = formats.dtype_of(query_weight), getattr(query_weight, "rounds_left", False)
    dtype = dtype if attention_dtype is None else attention_dtype

    def attend(tokens: Tensor) -> Tensor:
        query = grouped_conv1x1(tokens, query_weight, query_bias, groups[0])
        key = grouped_conv1x1(tokens, key_weight, key_bias, groups[1])
        value = grouped_conv1x1(tokens, value_weight, value_bias, groups[2])
        return attention(query, key, value, num_heads, mask, scale, dtype, rounds_left)

    return _for_each_sequence(attend, input, cu_seqlens)


def grouped_ffn(
    input: Tensor,
    intermediate_weight: Weight,
    intermediate_bias: Tensor | None,
    output_weight: Weight,
    output_bias: Tensor | None,
    groups: Sequence[int],
    ln_weight: Tensor,
    ln_bias: Tensor,
    eps: float,
) -> Tensor:
    """FFN2, GELU, FFN3, residual, LayerNorm: layer_norm(conv_output(gelu(conv_intermediate(input))) + input).

    input: [..., C], any leading dimensions. groups: those of intermediate and output. Weights and biases as
    `grouped_conv1x1`; ln_weight, ln_bias: [C]. Returns the shape of input.
    """
    check_group_counts(groups, 2)
    intermediate = grouped_conv1x1_gelu(input, intermediate_weight, intermediate_bias, groups[0])
    return grouped_conv1x1_add_layer_norm(
        intermediate, output_weight, output_bias, groups[1], input, ln_weight, ln_bias, eps
    )


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
    """The sum of the word, position and token type embeddings of each token, then LayerNorm.

    input_ids: integer [..., S]. token_type_ids, position_ids: integer, broadcastable to input_ids; None means 0, and
    0 to S - 1. Tables: [rows, C]. ln_weight, ln_bias: [C]. Returns [..., S, C].
    Raises IndexError, naming the argument, for an id outside its table.
    """
    if position_ids is None:
        check(
            input_ids.dim() >= 1, "input_ids: expected at least one dimension when position_ids is None, got a scalar"
        )
        position_ids = torch.arange(input_ids.shape[-1], device=input_ids.device)
    if token_type_ids is None:
        token_type_ids = torch.zeros_like(input_ids)
    embeddings = (
        _look_up("input_ids", input_ids, input_ids, word_embeddings)
        + _look_up("position_ids", position_ids, input_ids, position_embeddings)
        + _look_up("token_type_ids", token_type_ids, input_ids, token_type_embeddings)
    )
    return _layer_norm(embeddings, ln_weight, ln_bias, eps)


def encoder_layer(
    input: Tensor,
    params: Sequence[Any],
    num_heads: int,
    groups: Sequence[int],
    eps: float,
    mask: Tensor | None = None,
    cu_seqlens: Tensor | None = None,
    attention_dtype: torch.dtype | None = None,
) -> Tensor:
    """One SqueezeBERT layer; with every group count 1, one BERT layer.

    y = layer_norm(post_attention(attention(query(x), key(x), value(x))) + x)
    output = layer_norm(output(gelu(intermediate(y))) + y)

    input: [N, S, C], [S, C], or packed [T, C] with `cu_seqlens`. params: 16 tensors in Hugging Face's order: weight and
    bias of query, key, value, post_attention and its LayerNorm, intermediate, output and its LayerNorm. groups: the
    six group counts [query, key, value, post_attention, intermediate, output]. attention_dtype as
    `grouped_qkv_attention`. Returns the shape of input.
    """
    check_group_counts(groups, 6)
    check(
        len(params) == TENSORS_PER_LAYER, f"params: expected {TENSORS_PER_LAYER} tensors per layer, got {len(params)}"
    )
    projections, post_attention, feed_forward = params[:6], params[6:10], params[10:]
    query_weight, query_bias, key_weight, key_bias, value_weight, value_bias = projections
    context = grouped_qkv_attention(
        input,
        query_weight,
        query_bias,
        key_weight,
        key_bias,
        value_weight,
        value_bias,
        num_heads,
        groups[:3],
        mask,
        cu_seqlens,
        attention_dtype=attention_dtype,
    )
    weight, bias, ln_weight, ln_bias = post_attention
    hidden = grouped_conv1x1_add_layer_norm(context, weight, bias, groups[3], input, ln_weight, ln_bias, eps)
    intermediate_weight, intermediate_bias, output_weight, output_bias, ln_weight, ln_bias = feed_forward
    return grouped_ffn(
        hidden, intermediate_weight, intermediate_bias, output_weight, output_bias, groups[4:], ln_weight, ln_bias, eps
    )


def encoder(
    input: Tensor,
    params: Sequence[Any],
    num_heads: int,
    groups: Sequence[int],
    eps: float,
    mask: Tensor | None = None,
    cu_seqlens: Tensor | None = None,
    first_token_only: bool = False,
    attention_dtype: torch.dtype | None = None,
) -> Tensor:
    """`encoder_layer` after `encoder_layer`; params holds 16 tensors for each layer in turn.

    first_token_only: return only the row of each sequence's first token, [N, C] (N = 1 for an input of [S, C]); every
    sequence must then have a token. Otherwise returns the shape of input.
    """
    check(
        len(params) > 0 and len(params) % TENSORS_PER_LAYER == 0,
        f"params: expected {TENSORS_PER_LAYER} tensors for each of one or more layers, got {len(params)}",
    )
    check_sequences(input, cu_seqlens)
    hidden = input
    for start in range(0, len(params), TENSORS_PER_LAYER):
        layer = params[start : start + TENSORS_PER_LAYER]
        hidden = encoder_layer(hidden, layer, num_heads, groups, eps, mask, cu_seqlens, attention_dtype)
    return _first_tokens(hidden, cu_seqlens) if first_token_only else hidden


def _three_dimensional(weight: Weight) -> Weight:
    return weight.unsqueeze(-1) if isinstance(weight, Tensor) and weight.dim() == 2 else weight


def _multiply_groups(input: Tensor, columns: Weight, start: Tensor | None, groups: int) -> Tensor:
    """start ([out], or the shape of the output) + each group's channels times its columns [out / groups]."""

    def groups_first(tensor: Tensor) -> Tensor:
        return tensor.reshape(-1, groups, tensor.shape[-1] // groups).transpose(0, 1)

    blocks = formats.split(columns, groups)
    output = formats.multiply(groups_first(input), blocks, None if start is None else groups_first(start))
    return output.transpose(0, 1).reshape(*input.shape[:-1], formats.shape_of(columns)[0])


def _layer_norm(input: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """(input - mean) / sqrt(variance + eps) * weight + bias, over the last dimension; the variance divides by C."""
    centred = input - input.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + eps).sqrt() * weight + bias


def _additive_mask(mask: Tensor, scores: Tensor) -> Tensor:
    """`mask` in the dtype of `scores`, additive and checked to broadcast to scores' shape."""
    shape = scores.shape if scores.dim() == 4 else (1, *scores.shape)
    check_broadcasts("mask", mask, shape)
    if mask.dtype == torch.bool:
        additive = torch.zeros(mask.shape, dtype=scores.dtype, device=scores.device)
        mask = additive.masked_fill(~mask, torch.finfo(scores.dtype).min)
    check(mask.is_floating_point(), f"mask: expected a floating or boolean dtype, got {mask.dtype}")
    if mask.dim() > scores.dim():
        mask = mask.squeeze(0)
    return mask.to(scores.dtype)


def _for_each_sequence(compute: Callable[[Tensor], Tensor], input: Tensor, cu_seqlens: Tensor | None) -> Tensor:
    """compute(input) when input is [N, S, C] or [S, C]; else compute() of each packed sequence, concatenated again."""
    check_sequences(input, cu_seqlens)
    if cu_seqlens is None or cu_seqlens.numel() == 1:
        return compute(input)
    offsets = cu_seqlens.tolist()
    return torch.cat([compute(input[start:end]) for start, end in pairwise(offsets)])


def _first_tokens(hidden: Tensor, cu_seqlens: Tensor | None) -> Tensor:
    """The row of each sequence's first token: [N, C]."""
    if cu_seqlens is not None:
        lengths = cu_seqlens.diff()
        empty = (lengths == 0).nonzero().flatten().tolist()
        check(
            not empty, f"cu_seqlens: expected a token in every sequence (first_token_only), got empty ones at {empty}"
        )
        return hidden[cu_seqlens[:-1].long()]
    check(
        hidden.shape[-2] > 0 or (hidden.dim() == 3 and hidden.shape[0] == 0),
        f"input: expected a token in every sequence (first_token_only), got shape {list(hidden.shape)}",
    )
    # The sum of one row is the row; and of none, in a batch of no sequences and no tokens, it is nothing.
    return hidden[:, :1].sum(1) if hidden.dim() == 3 else hidden[:1]


def _look_up(name: str, ids: Tensor, input_ids: Tensor, table: Tensor) -> Tensor:
    """Rows `ids` of `table`; ids must broadcast to input_ids. Errors name the argument `name`."""
    check_broadcasts(name, ids, input_ids.shape)
    with naming_ids(name, ids, table.shape[0]):
        return F.embedding(ids, table)
