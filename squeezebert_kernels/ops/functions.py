"""The operators as typed functions: what each computes, and the shapes of its arguments.

What holds for all of them, layouts and dtypes first, is said once, in `squeezebert_kernels.ops`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

_ops = torch.ops.squeezebert


def pack_grouped_conv1x1(weight: Tensor, groups: int, dtype: torch.dtype | None = None) -> Tensor:
    """Packs the weight of a position-wise grouped convolution for the instruction set in use.

    weight: [out_channels, in_channels / groups] or [out_channels, in_channels / groups, 1], any strides, float32,
        float16 or bfloat16.
    dtype: what it is packed as: torch.float32, torch.float16, torch.bfloat16 or torch.int8 (as `quantize_weight` and
        `pack_quantized` do); None for its own.

    Returns uint8 [out_channels, bytes_per_channel]: opaque bytes that know their shape, groups and instruction set.
    Those made for another instruction set or layer are refused when used.
    """
    return _ops.pack_grouped_conv1x1.default(weight, groups, dtype)


def pack_grouped_conv1d(weight: Tensor, groups: int, dtype: torch.dtype | None = None) -> Tensor:
    """Packs the weight of a grouped convolution along the sequence, for `grouped_conv1d`.

    weight: [out_channels, in_channels / groups, K], K odd; dtypes and result as for `pack_grouped_conv1x1`.
    """
    return _ops.pack_grouped_conv1d.default(weight, groups, dtype)


def quantize_weight(weight: Tensor) -> tuple[Tensor, Tensor]:
    """A weight as whole numbers and one scale for each output channel of each tap: weight = values * scale, about.

    weight: [out_channels, in_channels / groups] or [out_channels, in_channels / groups, K], K odd, float32, float16 or
        bfloat16.

    scale = m / 127, where m is the largest magnitude of the channel's tap, and values = weight * (127 / m), to the
    nearest whole number, the even one of two; a channel without anything of 2^-100 or more has the scale 0, one with
    NaN or infinity the scale NaN, and both values 0. This is what packing as int8 does.

    Returns values: int8, the shape of weight; scale: float32, the same shape with 1 in place of in_channels / groups.
    """
    return _ops.quantize_weight.default(weight)


def pack_quantized(values: Tensor, scale: Tensor, groups: int) -> Tensor:
    """Packs a weight given as `quantize_weight` gives it: the portable form of an int8 weight, for files.

    values: int8 [out_channels, in_channels / groups] or [out_channels, in_channels / groups, K], K odd.
    scale: float32, the same shape with 1 in place of in_channels / groups.

    Returns uint8 [out_channels, bytes_per_channel], as `pack_grouped_conv1x1`.
    """
    return _ops.pack_quantized.default(values, scale, groups)


def unpack_quantized(weight: Tensor, in_channels: int, groups: int, kernel_size: int = 1) -> tuple[Tensor, Tensor]:
    """The values [out_channels, in_channels / groups, K] and scale [out_channels, 1, K] of a weight packed as int8."""
    return _ops.unpack_quantized.default(weight, in_channels, groups, kernel_size)


def unpack_grouped_conv1x1(weight: Tensor, in_channels: int, groups: int) -> Tensor:
    """The weight that `pack_grouped_conv1x1` packed, rounded to what it was packed as.

    weight: a packed one, on the CPU, of so many input channels and groups.

    Returns float32 [out_channels, in_channels / groups].
    """
    return _ops.unpack_grouped_conv1x1.default(weight, in_channels, groups)


def pack_encoder_layer(
    params: Sequence[Tensor], groups: Sequence[int], eps: float, attention_dtype: torch.dtype | None = None
) -> Tensor:
    """Packs an encoder layer into one tensor, on the CPU: its weights for the instruction set in use, and the rest.

    params: 16 tensors, groups, eps: as `encoder_layer` takes them; weights plain or packed.
    attention_dtype: as for `grouped_qkv_attention`.

    Returns uint8 [bytes]: opaque bytes that know all of this, in the order in which it is used. They can be copied to
    any place; one that is a multiple of 64 is fastest.
    """
    return _ops.pack_encoder_layer.default(params, groups, eps, attention_dtype)


def repack_encoder_layer(packed: Tensor, params: Sequence[Tensor]) -> None:
    """Writes other values into a layer that `pack_encoder_layer` made, in place, packed as those were.

    params: 16 plain tensors of the shapes that it was packed from.
    """
    _ops.repack_encoder_layer.default(packed, params)


def unpack_encoder_layer(
    layer: Tensor, channels: int, intermediate_channels: int, groups: Sequence[int]
) -> list[Tensor]:
    """The 16 tensors that `pack_encoder_layer` packed, weights rounded to what they were packed as.

    layer: a packed one, of so many channels and groups.

    Returns copies, float32: weights [out_channels, in_channels / groups], the others [channels].
    """
    return _ops.unpack_encoder_layer.default(layer, channels, intermediate_channels, groups)


def grouped_conv1x1(input: Tensor, weight: Tensor, bias: Tensor | None, groups: int) -> Tensor:
    """Position-wise grouped convolution: each token's channels, in `groups` blocks, times each block's own matrix.

    output[..., g, o] = bias[g, o] + sum over i of weight[g, o, i] * input[..., g, i]

    input: [..., in_channels], any leading dimensions. Returns [..., out_channels].
    """
    return _ops.grouped_conv1x1.default(input, weight, bias, groups)


def grouped_conv1x1_gelu(input: Tensor, weight: Tensor, bias: Tensor | None, groups: int) -> Tensor:
    """`grouped_conv1x1`, then exact GELU: gelu(x) = x * (1 + erf(x / sqrt(2))) / 2.

    input: [..., in_channels], any leading dimensions. Returns [..., out_channels].
    """
    return _ops.grouped_conv1x1_gelu.default(input, weight, bias, groups)


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
    """layer_norm(grouped_conv1x1(input) + residual) over the channels: the end of each half of a layer.

    input: [..., in_channels], any leading dimensions. residual: the shape of the output, any strides of its own.
    ln_weight, ln_bias: [out_channels]. eps: added to the variance, not negative (SqueezeBERT: 1e-12).
    Returns [..., out_channels].
    """
    return _ops.grouped_conv1x1_add_layer_norm.default(input, weight, bias, groups, residual, ln_weight, ln_bias, eps)


def grouped_conv1d(
    input: Tensor, weight: Tensor, bias: Tensor | None, groups: int, cu_seqlens: Tensor | None = None
) -> Tensor:
    """Grouped convolution along each sequence, odd kernel size K, zero-padded to the same length.

    output[t] = bias + sum over k of weight[:, :, k] input[t + k - (K - 1) / 2], zero outside the sequence

    input: [N, S, in_channels], [S, in_channels], or packed [T, in_channels] with cu_seqlens.
    weight: [out_channels, in_channels / groups, K], without the last dimension for K = 1, or packed by
    `pack_grouped_conv1d`.
    Returns the shape of input with out_channels in place of in_channels.
    """
    return _ops.grouped_conv1d.default(input, weight, bias, groups, cu_seqlens)


def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    num_heads: int,
    mask: Tensor | None = None,
    scale: float | None = None,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """Multi-head scaled dot-product attention: softmax(scale * Q K^T + mask) V in each head.

    query: [N, Sq, C] or [Sq, C]. key, value: [N, Sk, C] or [Sk, C]. Head h owns channels h * d to (h + 1) * d, where
    d = C / num_heads. scale: None means 1 / sqrt(d). With Sk = 0 the output is zero. Returns the shape of query.

    dtype: on the CPU, what keys and values are packed as, as if they were weights: torch.float32 (None means that),
    torch.float16, torch.bfloat16 or torch.int8. On CUDA None. Gradients are those of the unrounded products.

    Source: Vaswani et al. 2017, arXiv 1706.03762, section 3.2.
    """
    return _ops.attention.default(query, key, value, num_heads, mask, scale, dtype)


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
    """Self-attention from its input: three `grouped_conv1x1` projections, then `attention` within each sequence.

    input: [N, S, in_channels], [S, in_channels], or packed [T, in_channels] with cu_seqlens (then without a mask).
    groups: [query, key, value]. The three weights have the same out_channels C, which num_heads divides.
    attention_dtype: the dtype of `attention`; None means what query_weight is, or is packed as.
    Returns the shape of input with C in place of in_channels.
    """
    return _ops.grouped_qkv_attention.default(
        input,
        query_weight,
        query_bias,
        key_weight,
        key_bias,
        value_weight,
        value_bias,
        num_heads,
        groups,
        mask,
        cu_seqlens,
        scale,
        attention_dtype,
    )


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
    """FFN2, GELU, FFN3, residual and LayerNorm: layer_norm(conv_output(gelu(conv_intermediate(input))) + input).

    input: [..., C], any leading dimensions. groups: [intermediate, output]. ln_weight, ln_bias: [C]. eps: added to the
    variance, not negative. Returns the shape of input.
    """
    return _ops.grouped_ffn.default(
        input,
        intermediate_weight,
        intermediate_bias,
        output_weight,
        output_bias,
        groups,
        ln_weight,
        ln_bias,
        eps,
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
    """LayerNorm over the sum of three embeddings: those of the token, its position and its type.

    layer_norm(word_embeddings[input_ids] + position_embeddings[position_ids] + token_type_embeddings[token_type_ids])

    input_ids: int64 or int32 [..., S]. token_type_ids: broadcasts to input_ids; None means 0. position_ids: broadcasts
    to input_ids; None means 0 to S - 1, and S may not exceed the rows of position_embeddings. Tables: [rows, C].
    ln_weight, ln_bias: [C]. eps: added to the variance, not negative. Returns [..., S, C].

    Raises IndexError for an id outside its table.
    """
    return _ops.embedding_layer_norm.default(
        input_ids,
        token_type_ids,
        position_ids,
        word_embeddings,
        position_embeddings,
        token_type_embeddings,
        ln_weight,
        ln_bias,
        eps,
    )


def encoder_layer(
    input: Tensor,
    params: Sequence[Tensor],
    num_heads: int,
    groups: Sequence[int],
    eps: float,
    mask: Tensor | None = None,
    cu_seqlens: Tensor | None = None,
) -> Tensor:
    """One layer; with every group count 1, one BERT layer.

    y = layer_norm(post_attention(attention(query(x), key(x), value(x))) + x)
    output = layer_norm(output(gelu(intermediate(y))) + y)

    input: [N, S, C], [S, C], or packed [T, C] with cu_seqlens (then without a mask).
    params: 16 tensors in Hugging Face's order: weight and bias of query, key, value, post_attention, post_attention's
    LayerNorm, intermediate, output, output's LayerNorm. Weights plain or packed. Or one tensor, made of them by
    `pack_encoder_layer`.
    groups: [query, key, value, post_attention, intermediate, output]; [] beside a packed layer, which has its own, and
    its own eps: what is given then is not read.
    Returns the shape of input.
    """
    return _ops.encoder_layer.default(input, params, num_heads, groups, eps, mask, cu_seqlens)


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
    """`encoder_layer` after `encoder_layer` in one call: params holds 16 tensors for each layer in turn, or a packed
    layer for each, which may differ in groups and eps.

    first_token_only: return only the row of each sequence's first token, [N, C] (N = 1 for an input of [S, C]), and
    compute in the last layer only what it needs; every sequence must then have a token. Otherwise returns the shape of
    input.
    """
    return _ops.encoder.default(input, params, num_heads, groups, eps, mask, cu_seqlens, first_token_only)
