"""The reference operators against literal loops in float64, their edges, and what they refuse."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from python_ref import ops
from reference_inputs import float64, layer_params
from tolerances import LITERAL, dot_bound, float32_bound


def literal_conv1x1(input: Tensor, weight: Tensor, bias: Tensor | None, groups: int) -> Tensor:
    """One sum for each token and output channel."""
    out_channels, in_per_group = weight.shape
    out_per_group = out_channels // groups
    output = torch.zeros(*input.shape[:-1], out_channels, dtype=input.dtype)
    for token in itertools.product(*map(range, input.shape[:-1])):
        for o in range(out_channels):
            first = o // out_per_group * in_per_group
            total = bias[o].item() if bias is not None else 0.0
            for i in range(in_per_group):
                total += (weight[o, i] * input[token][first + i]).item()
            output[token][o] = total
    return output


def literal_attention(
    query: Tensor, key: Tensor, value: Tensor, num_heads: int, mask: Tensor | None, scale: float
) -> Tensor:
    """One softmax for each sequence, head and query; mask additive [N, heads, Sq, Sk]."""
    size = query.shape[-1] // num_heads
    output = torch.zeros_like(query)
    for n, h, i in itertools.product(range(query.shape[0]), range(num_heads), range(query.shape[1])):
        head = slice(h * size, (h + 1) * size)
        scores = [scale * float(query[n, i, head] @ key[n, j, head]) for j in range(key.shape[1])]
        if mask is not None:
            scores = [score + float(mask[n, h, i, j]) for j, score in enumerate(scores)]
        highest = max(scores)
        if highest == -math.inf:
            continue
        weights = [math.exp(score - highest) for score in scores]
        for j, weight in enumerate(weights):
            output[n, i, head] += weight / sum(weights) * value[n, j, head]
    return output


def literal_layer_norm(input: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    mean = input.sum(-1, keepdim=True) / input.shape[-1]
    variance = ((input - mean) ** 2).sum(-1, keepdim=True) / input.shape[-1]
    return (input - mean) / (variance + eps) ** 0.5 * weight + bias


def literal_gelu(input: Tensor) -> Tensor:
    values = [x * (1.0 + math.erf(x / math.sqrt(2.0))) / 2.0 for x in input.flatten().tolist()]
    return torch.tensor(values, dtype=input.dtype).reshape(input.shape)


@pytest.mark.parametrize(("groups", "in_channels", "out_channels"), [(1, 6, 4), (2, 6, 4), (4, 8, 12), (8, 8, 8)])
@pytest.mark.parametrize("shape", [(), (5,), (2, 3), (2, 1, 3)])
def test_grouped_conv1x1(groups: int, in_channels: int, out_channels: int, shape: tuple[int, ...]) -> None:
    input = float64(*shape, in_channels)
    weight, bias = float64(out_channels, in_channels // groups), float64(out_channels)
    expected = literal_conv1x1(input, weight, bias, groups)
    torch.testing.assert_close(ops.grouped_conv1x1(input, weight, bias, groups), expected, **LITERAL)
    torch.testing.assert_close(ops.grouped_conv1x1(input, weight.unsqueeze(-1), bias, groups), expected, **LITERAL)
    torch.testing.assert_close(ops.grouped_conv1x1(input, weight, None, groups), expected - bias, **LITERAL)
    torch.testing.assert_close(ops.grouped_conv1x1_gelu(input, weight, bias, groups), literal_gelu(expected), **LITERAL)


@pytest.mark.parametrize("eps", [1e-12, 0.1])
def test_grouped_conv1x1_add_layer_norm(eps: float) -> None:
    input, residual = float64(2, 5, 12), float64(2, 5, 8)
    weight, bias, ln_weight, ln_bias = float64(8, 3), float64(8), float64(8), float64(8)
    expected = literal_layer_norm(literal_conv1x1(input, weight, bias, 4) + residual, ln_weight, ln_bias, eps)
    actual = ops.grouped_conv1x1_add_layer_norm(input, weight, bias, 4, residual, ln_weight, ln_bias, eps)
    torch.testing.assert_close(actual, expected, **LITERAL)


@pytest.mark.parametrize("kernel_size", [1, 3, 5])
@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("shape", [(2, 7), (7,), (1, 1), (0, 3), (2, 0)])
def test_grouped_conv1d(kernel_size: int, groups: int, shape: tuple[int, ...]) -> None:
    input, weight, bias = float64(*shape, 8), float64(12, 8 // groups, kernel_size), float64(12)
    actual = ops.grouped_conv1d(input, weight, bias, groups)
    assert actual.shape == (*shape, 12)
    if actual.numel():
        channels_first = F.conv1d(input.transpose(-1, -2), weight, bias, padding=kernel_size // 2, groups=groups)
        torch.testing.assert_close(actual, channels_first.transpose(-1, -2), **LITERAL)


@pytest.mark.parametrize("num_heads", [1, 2, 4])
@pytest.mark.parametrize("mask_shape", [None, (2, 4, 3, 5), (2, 1, 1, 5), (1, 1, 3, 1), (3, 5), (5,)])
@pytest.mark.parametrize("scale", [None, 0.7])
def test_attention(num_heads: int, mask_shape: tuple[int, ...] | None, scale: float | None) -> None:
    query, key, value = float64(2, 3, 8), float64(2, 5, 8), float64(2, 5, 8)
    mask = None
    if mask_shape is not None:
        mask = float64(*(num_heads if size == 4 else size for size in mask_shape))
    expanded = None if mask is None else mask.expand(2, num_heads, 3, 5)
    size = 8 // num_heads
    expected = literal_attention(query, key, value, num_heads, expanded, size**-0.5 if scale is None else scale)
    torch.testing.assert_close(ops.attention(query, key, value, num_heads, mask, scale), expected, **LITERAL)
    unbatched = None if mask is None else expanded[:1]
    actual = ops.attention(query[0], key[0], value[0], num_heads, unbatched, scale)
    torch.testing.assert_close(actual, expected[0], **LITERAL)


def test_attention_masks_where_boolean_is_false() -> None:
    query, key, value = float64(2, 3, 8), float64(2, 5, 8), float64(2, 5, 8)
    keep = torch.tensor([True, False, True, True, False])
    expected = ops.attention(query, key[:, keep], value[:, keep], 2)
    torch.testing.assert_close(ops.attention(query, key, value, 2, keep), expected, **LITERAL)


def test_attention_of_fully_masked_rows() -> None:
    """All False (or the most negative number) attends uniformly; -infinity throughout gives zeros; both without NaN."""
    query, key, value = float64(1, 2, 8), float64(1, 5, 8), float64(1, 5, 8)
    uniform = value.mean(1, keepdim=True).expand(1, 2, 8)
    nothing = torch.zeros(5, dtype=torch.bool)
    lowest = torch.full((5,), torch.finfo(torch.float64).min, dtype=torch.float64)
    torch.testing.assert_close(ops.attention(query, key, value, 2, nothing), uniform, **LITERAL)
    torch.testing.assert_close(ops.attention(query, key, value, 2, lowest), uniform, **LITERAL)

    mask = torch.zeros(2, 5, dtype=torch.float64)
    mask[0] = -math.inf
    mask[1, 2:] = -math.inf
    mask.requires_grad_()
    query.requires_grad_()
    output = ops.attention(query, key, value, 2, mask)
    assert torch.equal(output[0, 0], torch.zeros(8, dtype=torch.float64))
    torch.testing.assert_close(output[0, 1], ops.attention(query[0, 1:], key[0, :2], value[0, :2], 2)[0], **LITERAL)
    gradients = torch.autograd.grad(output.sum(), [query, mask])
    assert all(gradient.isfinite().all() for gradient in gradients)
    assert not gradients[0][0, 0].any()


def test_attention_propagates_nan() -> None:
    query, key, value = float64(1, 2, 8), float64(1, 5, 8), float64(1, 5, 8)
    query[0, 0, 0] = math.nan
    output = ops.attention(query, key, value, 2)
    assert output[0, 0, :4].isnan().all()
    assert output[0, 0, 4:].isfinite().all()
    assert output[0, 1].isfinite().all()


def test_attention_without_keys_gives_zeros() -> None:
    output = ops.attention(float64(2, 3, 8), float64(2, 0, 8), float64(2, 0, 8), 2)
    assert torch.equal(output, torch.zeros(2, 3, 8, dtype=torch.float64))


def test_grouped_qkv_attention_is_block_diagonal_when_groups_line_up() -> None:
    """With as many groups as heads, each block of channels is an attention of its own."""
    input, heads = float64(2, 5, 8), 4
    weights, biases = [float64(8, 2) for _ in range(3)], [float64(8) for _ in range(3)]
    arguments = [tensor for pair in zip(weights, biases, strict=True) for tensor in pair]
    whole = ops.grouped_qkv_attention(input, *arguments, heads, [heads] * 3)
    for head in range(heads):
        block = slice(2 * head, 2 * head + 2)
        query, key, value = (
            literal_conv1x1(input[..., block], weight[block], bias[block], 1)
            for weight, bias in zip(weights, biases, strict=True)
        )
        expected = literal_attention(query, key, value, 1, None, 2**-0.5)
        torch.testing.assert_close(whole[..., block], expected, **LITERAL)


def test_grouped_ffn() -> None:
    input, eps = float64(2, 3, 8), 1e-12
    weight_2, bias_2, weight_3, bias_3 = float64(12, 4), float64(12), float64(8, 3), float64(8)
    ln_weight, ln_bias = float64(8), float64(8)
    inner = literal_gelu(literal_conv1x1(input, weight_2, bias_2, 2))
    expected = literal_layer_norm(literal_conv1x1(inner, weight_3, bias_3, 4) + input, ln_weight, ln_bias, eps)
    actual = ops.grouped_ffn(input, weight_2, bias_2, weight_3, bias_3, [2, 4], ln_weight, ln_bias, eps)
    torch.testing.assert_close(actual, expected, **LITERAL)


@pytest.mark.parametrize("shape", [(5,), (2, 5), (0, 5), (2, 0)])
def test_embedding_layer_norm(shape: tuple[int, ...]) -> None:
    words, positions, types = float64(11, 8), float64(6, 8), float64(2, 8)
    ln_weight, ln_bias, eps = float64(8), float64(8), 0.01
    ids, type_ids = torch.randint(11, shape), torch.randint(2, shape)
    tables = (words, positions, types, ln_weight, ln_bias, eps)
    default_positions = torch.arange(shape[-1]).expand(shape)
    for given_types, given_positions in itertools.product((None, type_ids), (None, default_positions.flip(-1))):
        total = words[ids] + types[0 if given_types is None else given_types]
        total = total + positions[default_positions if given_positions is None else given_positions]
        actual = ops.embedding_layer_norm(ids, given_types, given_positions, *tables)
        torch.testing.assert_close(actual, literal_layer_norm(total, ln_weight, ln_bias, eps), **LITERAL)


@pytest.mark.parametrize("groups", [(4, 4, 4, 1, 4, 4), (1, 2, 4, 8, 2, 1)])
def test_encoder_is_its_operators_in_turn(groups: tuple[int, ...]) -> None:
    input, params, eps = float64(2, 5, 8), layer_params(8, 16, groups, layers=2), 1e-12
    mask = torch.tensor([[True] * 5, [True, True, True, False, False]])[:, None, None]
    hidden = input
    for q, qb, k, kb, v, vb, p, pb, lw, lb, i, ib, o, ob, ow, ow_bias in (params[:16], params[16:]):
        query = literal_conv1x1(hidden, q.squeeze(-1), qb, groups[0])
        key = literal_conv1x1(hidden, k.squeeze(-1), kb, groups[1])
        value = literal_conv1x1(hidden, v.squeeze(-1), vb, groups[2])
        additive = torch.zeros(2, 2, 5, 5).masked_fill(~mask, -math.inf)
        context = literal_attention(query, key, value, 2, additive, 0.5)
        attended = literal_layer_norm(literal_conv1x1(context, p.squeeze(-1), pb, groups[3]) + hidden, lw, lb, eps)
        inner = literal_gelu(literal_conv1x1(attended, i.squeeze(-1), ib, groups[4]))
        hidden = literal_layer_norm(literal_conv1x1(inner, o.squeeze(-1), ob, groups[5]) + attended, ow, ow_bias, eps)
    actual = ops.encoder(input, params, 2, groups, eps, mask)
    torch.testing.assert_close(actual, hidden, **LITERAL)
    first = ops.encoder(input, params, 2, groups, eps, mask, first_token_only=True)
    assert torch.equal(first, actual[:, 0])


def test_packed_sequences_are_computed_each_alone() -> None:
    lengths, groups = [3, 0, 1, 4], (4, 4, 4, 1, 4, 4)
    offsets = torch.tensor([0, 3, 3, 4, 8], dtype=torch.int32)
    packed, params = float64(8, 8), layer_params(8, 16, groups)
    weight, bias = float64(4, 2, 5), float64(4)
    sequences = packed.split(lengths)

    alone = torch.cat([ops.grouped_conv1d(sequence, weight, bias, 4) for sequence in sequences])
    torch.testing.assert_close(ops.grouped_conv1d(packed, weight, bias, 4, offsets), alone, **LITERAL)
    alone = torch.cat([ops.grouped_qkv_attention(s, *params[:6], 2, groups[:3]) for s in sequences])
    actual = ops.grouped_qkv_attention(packed, *params[:6], 2, groups[:3], cu_seqlens=offsets)
    torch.testing.assert_close(actual, alone, **LITERAL)
    alone = torch.cat([ops.encoder(s, params, 2, groups, 1e-12) for s in sequences])
    actual = ops.encoder(packed, params, 2, groups, 1e-12, cu_seqlens=offsets)
    torch.testing.assert_close(actual, alone, **LITERAL)

    no_empty = torch.tensor([0, 3, 4, 8], dtype=torch.int32)
    first = ops.encoder(packed, params, 2, groups, 1e-12, None, no_empty, first_token_only=True)
    torch.testing.assert_close(first, actual[[0, 3, 4]], **LITERAL)


def test_encoder_of_one_sequence_or_none() -> None:
    groups = (4, 4, 4, 1, 4, 4)
    params, input = layer_params(8, 16, groups), float64(5, 8)
    batched = ops.encoder(input.unsqueeze(0), params, 2, groups, 1e-12)
    torch.testing.assert_close(ops.encoder(input, params, 2, groups, 1e-12), batched[0], **LITERAL)
    first = ops.encoder(input, params, 2, groups, 1e-12, first_token_only=True)
    torch.testing.assert_close(first, batched[:, 0], **LITERAL)
    for empty in (float64(0, 5, 8), float64(2, 0, 8), float64(0, 8)):
        assert ops.encoder(empty, params, 2, groups, 1e-12).shape == empty.shape
    none = torch.zeros(1, dtype=torch.int32)
    assert ops.encoder(float64(0, 8), params, 2, groups, 1e-12, cu_seqlens=none).shape == (0, 8)
    for shape in ((0, 8), (0, 5, 8)):
        alone = None if len(shape) == 3 else none
        first = ops.encoder(float64(*shape), params, 2, groups, 1e-12, None, alone, first_token_only=True)
        assert first.shape == (0, 8)


@pytest.mark.parametrize(("in_channels", "out_channels", "groups"), [(768, 768, 1), (768, 3072, 4), (3072, 768, 1)])
def test_float32_dot_products_stay_within_their_bound(in_channels: int, out_channels: int, groups: int) -> None:
    """The bound that kernels are held to, tried on PyTorch's own float32."""
    length = in_channels // groups
    input, weight, bias = float64(16, in_channels), float64(out_channels, length), float64(out_channels)
    input, weight, bias = (tensor.float().double() for tensor in (input, weight, bias))
    exact = ops.grouped_conv1x1(input, weight, bias, groups)
    rounded = ops.grouped_conv1x1(input.float(), weight.float(), bias.float(), groups)
    magnitude = ops.grouped_conv1x1(input.abs(), weight.abs(), bias.abs(), groups)
    error = (rounded.double() - exact).abs()
    assert (error <= dot_bound(length, magnitude)).all()
    assert error.any()


def test_float32_stays_within_its_bound_at_real_size() -> None:
    """The bound that kernels are held to, tried on PyTorch's own float32."""
    channels, inner, tokens, groups = 768, 3072, 8, (4, 4, 4, 1, 4, 4)
    params, input = layer_params(channels, inner, groups), float64(2, tokens, channels)
    input, params = input.float().double(), [tensor.float().double() for tensor in params]
    exact = ops.encoder_layer(input, params, 12, groups, 1e-12)
    rounded = ops.encoder_layer(input.float(), [tensor.float() for tensor in params], 12, groups, 1e-12)
    bound = float32_bound(192, 64, tokens, channels, channels, 192, 768, channels)
    error = float((rounded.double() - exact).abs().max())
    assert 0.0 < error < bound


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_dtype_is_kept(dtype: torch.dtype) -> None:
    params = [tensor.to(dtype) for tensor in layer_params(8, 16, (4, 4, 4, 1, 4, 4))]
    mask = torch.tensor([True, True, True, False, False])
    output = ops.encoder_layer(float64(2, 5, 8).to(dtype), params, 2, (4, 4, 4, 1, 4, 4), 1e-12, mask)
    assert output.dtype == dtype
    assert output.isfinite().all()


def test_first_tokens_of_no_sequences() -> None:
    """A batch of nothing has no rows, with or without tokens."""
    weights = [torch.zeros(4, 4) if i % 2 == 0 and i not in (8, 14) else torch.zeros(4) for i in range(16)]
    for tokens in (0, 3):
        output = ops.encoder(torch.zeros(0, tokens, 4), weights, 2, [1] * 6, 1e-12, first_token_only=True)
        assert output.shape == (0, 4)
