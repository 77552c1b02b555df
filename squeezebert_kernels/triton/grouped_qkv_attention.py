"""grouped_qkv_attention: projection and attention in one launch, without Q, K and V going to memory.

A head whose channels lie within one group of each projection needs nothing but that group's input channels. So a
program takes a block of queries of one head of one sequence, projects them, and then walks over the sequence: it
projects a block of keys and values and attends to it at once. Up to one block of queries (most sentences) nothing is
projected twice. Where a head straddles groups, or heads or groups are wide, each projection is a `grouped_conv1x1`,
followed by `attention`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from . import attention, grouped_conv1x1, tiles
from .arguments import Arguments, Linear, Mask, Rows, Sequences
from .grouped_conv1x1 import new_output
from .launch import block, blocks, launch, precision, tile_for
from .tuning import MAX_DEPTH, MAX_HEAD_SIZE


@triton.jit
def grouped_qkv_attention_kernel(
    input,
    query_weight,
    query_bias,
    key_weight,
    key_bias,
    value_weight,
    value_bias,
    mask,
    offsets,
    output,
    tokens,  # of each sequence, where offsets is None
    queries,  # of each sequence, at most: all tokens, or only the first ones
    input_stride,
    query_weight_stride,
    key_weight_stride,
    value_weight_stride,
    mask_sequence_stride,
    mask_head_stride,
    mask_query_stride,
    mask_key_stride,
    scale,
    QUERY_GROUPS: tl.constexpr,
    KEY_GROUPS: tl.constexpr,
    VALUE_GROUPS: tl.constexpr,
    IN_CHANNELS: tl.constexpr,
    HEADS: tl.constexpr,
    HEAD_SIZE: tl.constexpr,
    BLOCK_SIZE: tl.constexpr,  # HEAD_SIZE, or the next power of two
    FIRST_ONLY: tl.constexpr,  # a query's row of the output is its sequence
    BOOLEAN_MASK: tl.constexpr,
    BLOCK_QUERIES: tl.constexpr,
    BLOCK_KEYS: tl.constexpr,
    QUERY_BLOCK_DEPTH: tl.constexpr,
    KEY_BLOCK_DEPTH: tl.constexpr,
    VALUE_BLOCK_DEPTH: tl.constexpr,
    PRECISION: tl.constexpr,
):
    CHANNELS: tl.constexpr = HEADS * HEAD_SIZE
    query_blocks = tl.cdiv(queries, BLOCK_QUERIES)
    head = tl.program_id(0) % HEADS
    query_block = tl.program_id(0) // HEADS % query_blocks
    sequence = (tl.program_id(0) // HEADS // query_blocks).to(tl.int64)
    if offsets is not None:
        first = tl.load(offsets + sequence).to(tl.int64)
        count = (tl.load(offsets + sequence + 1) - first).to(tl.int32)
    else:
        first = sequence * tokens
        count = tokens
    q = query_block * BLOCK_QUERIES + tl.arange(0, BLOCK_QUERIES)
    if query_block * BLOCK_QUERIES < count:
        size = tl.arange(0, BLOCK_SIZE)
        real = size < HEAD_SIZE
        channel = head * HEAD_SIZE + tl.minimum(size, HEAD_SIZE - 1)
        wide = channel.to(tl.int64)
        # The input channels of the group that the head belongs to, in each projection.
        query_input = input + head * HEAD_SIZE // (CHANNELS // QUERY_GROUPS) * (IN_CHANNELS // QUERY_GROUPS)
        key_input = input + head * HEAD_SIZE // (CHANNELS // KEY_GROUPS) * (IN_CHANNELS // KEY_GROUPS)
        value_input = input + head * HEAD_SIZE // (CHANNELS // VALUE_GROUPS) * (IN_CHANNELS // VALUE_GROUPS)

        q_row = first + tl.minimum(q, count - 1)
        q_tile = tiles.project(
            query_input + q_row * input_stride,
            query_weight + wide * query_weight_stride,
            query_bias,
            channel,
            real,
            IN_CHANNELS // QUERY_GROUPS,
            BLOCK_QUERIES,
            BLOCK_SIZE,
            QUERY_BLOCK_DEPTH,
            PRECISION,
        )
        q_tile = tl.where(real[None, :], q_tile, 0.0).to(input.dtype.element_ty)
        if mask is not None:
            mask += sequence * mask_sequence_stride + head.to(tl.int64) * mask_head_stride
        accumulator = tl.zeros((BLOCK_QUERIES, BLOCK_SIZE), tl.float32)
        highest = tl.full((BLOCK_QUERIES,), float("-inf"), tl.float32)
        total = tl.zeros((BLOCK_QUERIES,), tl.float32)
        for start in range(0, count, BLOCK_KEYS):
            k = start + tl.arange(0, BLOCK_KEYS)
            k_row = first + tl.minimum(k, count - 1)
            k_tile = tiles.project(
                key_input + k_row * input_stride,
                key_weight + wide * key_weight_stride,
                key_bias,
                channel,
                real,
                IN_CHANNELS // KEY_GROUPS,
                BLOCK_KEYS,
                BLOCK_SIZE,
                KEY_BLOCK_DEPTH,
                PRECISION,
            ).to(input.dtype.element_ty)
            v_tile = tiles.project(
                value_input + k_row * input_stride,
                value_weight + wide * value_weight_stride,
                value_bias,
                channel,
                real,
                IN_CHANNELS // VALUE_GROUPS,
                BLOCK_KEYS,
                BLOCK_SIZE,
                VALUE_BLOCK_DEPTH,
                PRECISION,
            ).to(input.dtype.element_ty)
            # Where the head is padded, q_tile is zero, so what k_tile holds there does not count.
            scores = tl.zeros((BLOCK_QUERIES, BLOCK_KEYS), tl.float32)
            scores = tiles.dot(q_tile, tl.trans(k_tile), scores, PRECISION) * scale
            scores = tiles.mask_scores(
                scores, mask, q, k, mask_query_stride, mask_key_stride, count, count, BOOLEAN_MASK
            )
            accumulator, highest, total = tiles.attend(scores, v_tile, accumulator, highest, total, PRECISION)
        context = tiles.finish_attention(accumulator, total)
        if FIRST_ONLY:
            row = sequence + q
            inside = (q < 1)[:, None] & real[None, :]
        else:
            row = first + q
            inside = (q < count)[:, None] & real[None, :]
        at = output + row[:, None] * CHANNELS + channel[None, :]
        tl.store(at, context.to(output.dtype.element_ty), mask=inside)


def is_fused(query: Linear, key: Linear, value: Linear, num_heads: int) -> bool:
    """Every head lies within one group of each projection, and heads and groups are narrow."""
    head_size = query.out_channels // num_heads
    if head_size > MAX_HEAD_SIZE:
        return False
    return all(linear.width % head_size == 0 and linear.depth <= MAX_DEPTH for linear in (query, key, value))


def run(
    rows: Rows,
    sequences: Sequences,
    query: Linear,
    key: Linear,
    value: Linear,
    num_heads: int,
    mask: Mask,
    scale: float,
    output: Tensor,
    first_only: bool = False,
) -> None:
    """Launches the kernel, or the four of the general path. output: contiguous, [rows, C]; or, where first_only,
    [sequences, C]: the context of each sequence's first token alone."""
    if not is_fused(query, key, value, num_heads):
        _run_apart(rows, sequences, query, key, value, num_heads, mask, scale, output, first_only)
        return
    tile = tile_for("grouped_qkv_attention", output, rows.count)
    head_size = query.out_channels // num_heads
    queries = min(sequences.longest, 1) if first_only else sequences.longest
    launch(
        grouped_qkv_attention_kernel,
        sequences.count * blocks(queries, tile.block_rows) * num_heads,
        tile,
        output.device,
        rows.data,
        query.data,
        query.bias,
        key.data,
        key.bias,
        value.data,
        value.bias,
        mask.data,
        sequences.offsets,
        output,
        sequences.longest,
        queries,
        rows.stride,
        query.stride,
        key.stride,
        value.stride,
        *mask.strides,
        scale,
        QUERY_GROUPS=query.groups,
        KEY_GROUPS=key.groups,
        VALUE_GROUPS=value.groups,
        IN_CHANNELS=rows.channels,
        HEADS=num_heads,
        HEAD_SIZE=head_size,
        BLOCK_SIZE=block(MAX_HEAD_SIZE, head_size),
        FIRST_ONLY=first_only,
        BOOLEAN_MASK=mask.boolean,
        BLOCK_QUERIES=tile.block_rows,
        BLOCK_KEYS=tile.block_columns,
        QUERY_BLOCK_DEPTH=block(tile.block_depth, query.depth),
        KEY_BLOCK_DEPTH=block(tile.block_depth, key.depth),
        VALUE_BLOCK_DEPTH=block(tile.block_depth, value.depth),
        PRECISION=precision(output.dtype),
    )


def _run_apart(
    rows: Rows,
    sequences: Sequences,
    query: Linear,
    key: Linear,
    value: Linear,
    num_heads: int,
    mask: Mask,
    scale: float,
    output: Tensor,
    first_only: bool,
) -> None:
    projected = []
    for linear in (query, key, value):
        data = output.new_empty(rows.count, linear.out_channels)
        grouped_conv1x1.run(rows, linear, data)
        projected.append(Rows(data, rows.count, linear.out_channels, linear.out_channels))
    q, k, v = projected
    context = output if not first_only else torch.empty_like(q.data)
    attention.run(q, k, v, sequences, sequences.longest, num_heads, mask, scale, context)
    if first_only:
        first = first_rows(sequences, output.device).clamp(max=rows.count - 1)
        torch.index_select(context, 0, first, out=output)


def first_rows(sequences: Sequences, device: torch.device) -> Tensor:
    """The row of each sequence's first token: int32 [sequences]."""
    if sequences.offsets is not None:
        return sequences.offsets[:-1]
    return torch.arange(0, sequences.count, dtype=torch.int64, device=device) * sequences.longest


def check_projections(
    arguments: Arguments,
    names: Sequence[tuple[str, str, str]],
    tensors: Sequence[tuple[Tensor, Tensor | None]],
    groups: Sequence[int],
    in_channels: int,
) -> list[Linear]:
    """The query, key and value convolutions, which have equal output channels."""
    linears = [
        arguments.linear(name, weight, bias, count, in_channels)
        for name, (weight, bias), count in zip(names, tensors, groups, strict=True)
    ]
    channels = linears[0].out_channels
    for name, linear in zip(names[1:], linears[1:], strict=True):
        if linear.out_channels != channels:
            expected = f"{channels} output channels, as many as {names[0][0]} has"
            arguments.fail(name[0], expected, str(linear.out_channels))
    return linears


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
    arguments = Arguments("grouped_qkv_attention", "input", input)
    arguments.own_dtype("attention_dtype", attention_dtype)
    rows, sequences = arguments.sequences("input", input, cu_seqlens)
    counts = arguments.group_counts(groups, ("query", "key", "value"))
    names = [(f"{name}_weight", f"{name}_bias", f"groups[{i}]") for i, name in enumerate(("query", "key", "value"))]
    tensors = [(query_weight, query_bias), (key_weight, key_bias), (value_weight, value_bias)]
    query, key, value = check_projections(arguments, names, tensors, counts, rows.channels)
    arguments.heads(num_heads, query.out_channels)
    checked = arguments.self_mask(mask, cu_seqlens, sequences, num_heads)
    output = new_output(input, query.out_channels)
    scale = attention.scale_or_default(scale, query.out_channels // num_heads)
    run(rows, sequences, query, key, value, num_heads, checked, scale, output)
    return output
