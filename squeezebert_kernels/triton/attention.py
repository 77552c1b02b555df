"""attention: multi-head scaled dot-product attention over queries, keys and values in memory.

A program computes a block of queries of one head of one sequence, and walks over the keys as flash attention does (Dao
et al. 2022, arXiv 2205.14135): scores never leave the chip. Heads wider than 128 are taken 64 channels at a time, and
each 64 channels of the output by a program of its own. Source: Vaswani et al. 2017, arXiv 1706.03762.
"""

from __future__ import annotations

import dataclasses
import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from . import tiles
from .arguments import Arguments, Mask, Rows, Sequences, describe
from .grouped_conv1x1 import new_output
from .launch import block, blocks, launch, precision, tile_for


@triton.jit
def attention_kernel(
    query,
    key,
    value,
    mask,
    offsets,
    output,
    queries,  # of each sequence, where offsets is None; the most of any, where not
    keys,
    query_stride,
    key_stride,
    value_stride,
    mask_sequence_stride,
    mask_head_stride,
    mask_query_stride,
    mask_key_stride,
    scale,
    HEADS: tl.constexpr,
    HEAD_SIZE: tl.constexpr,
    BLOCK_SIZE: tl.constexpr,  # channels of a head that are taken at a time
    BOOLEAN_MASK: tl.constexpr,
    BLOCK_QUERIES: tl.constexpr,
    BLOCK_KEYS: tl.constexpr,
    PRECISION: tl.constexpr,
):
    PARTS: tl.constexpr = (HEAD_SIZE + BLOCK_SIZE - 1) // BLOCK_SIZE
    query_blocks = tl.cdiv(queries, BLOCK_QUERIES)
    part = tl.program_id(0) % PARTS
    head = tl.program_id(0) // PARTS % HEADS
    query_block = tl.program_id(0) // (PARTS * HEADS) % query_blocks
    sequence = (tl.program_id(0) // (PARTS * HEADS) // query_blocks).to(tl.int64)
    if offsets is not None:  # packed tokens: as many keys as queries
        first_query = tl.load(offsets + sequence).to(tl.int64)
        first_key = first_query
        query_count = (tl.load(offsets + sequence + 1) - first_query).to(tl.int32)
        key_count = query_count
    else:
        first_query = sequence * queries
        first_key = sequence * keys
        query_count = queries
        key_count = keys

    q = query_block * BLOCK_QUERIES + tl.arange(0, BLOCK_QUERIES)
    if query_block * BLOCK_QUERIES < query_count:
        column = head * HEAD_SIZE
        q_rows = query + (first_query + tl.minimum(q, query_count - 1)) * query_stride + column
        if PARTS == 1:
            q_tile = tiles.load_depth(q_rows, 0, HEAD_SIZE, BLOCK_SIZE)
        if mask is not None:
            mask += sequence * mask_sequence_stride + head.to(tl.int64) * mask_head_stride
        accumulator = tl.zeros((BLOCK_QUERIES, BLOCK_SIZE), tl.float32)
        highest = tl.full((BLOCK_QUERIES,), float("-inf"), tl.float32)
        total = tl.zeros((BLOCK_QUERIES,), tl.float32)
        for start in range(0, key_count, BLOCK_KEYS):
            k = start + tl.arange(0, BLOCK_KEYS)
            k_row = first_key + tl.minimum(k, key_count - 1)
            k_rows = key + k_row * key_stride + column
            scores = tl.zeros((BLOCK_QUERIES, BLOCK_KEYS), tl.float32)
            if PARTS == 1:
                k_tile = tiles.load_depth(k_rows, 0, HEAD_SIZE, BLOCK_SIZE)
                scores = tiles.dot(q_tile, tl.trans(k_tile), scores, PRECISION)
            else:
                for at in range(0, HEAD_SIZE, BLOCK_SIZE):
                    q_part = tiles.load_depth(q_rows, at, HEAD_SIZE, BLOCK_SIZE)
                    k_part = tiles.load_depth(k_rows, at, HEAD_SIZE, BLOCK_SIZE)
                    scores = tiles.dot(q_part, tl.trans(k_part), scores, PRECISION)
            v_rows = value + k_row * value_stride + column
            v_tile = tiles.load_depth(v_rows, part * BLOCK_SIZE, HEAD_SIZE, BLOCK_SIZE)
            scores *= scale
            scores = tiles.mask_scores(
                scores, mask, q, k, mask_query_stride, mask_key_stride, query_count, key_count, BOOLEAN_MASK
            )
            accumulator, highest, total = tiles.attend(scores, v_tile, accumulator, highest, total, PRECISION)
        context = tiles.finish_attention(accumulator, total)
        channel = part * BLOCK_SIZE + tl.arange(0, BLOCK_SIZE)
        target = output + (first_query + q)[:, None] * (HEADS * HEAD_SIZE) + (column + channel)[None, :]
        inside = (q < query_count)[:, None] & (channel < HEAD_SIZE)[None, :]
        tl.store(target, context.to(output.dtype.element_ty), mask=inside)


def run(
    query: Rows,
    key: Rows,
    value: Rows,
    sequences: Sequences,
    keys: int,
    num_heads: int,
    mask: Mask,
    scale: float,
    output: Tensor,
) -> None:
    """Launches the kernel. keys: of each sequence, where sequences.offsets is None. output: contiguous."""
    tile = tile_for("attention", output, query.count)
    head_size = query.channels // num_heads
    block_size = block(128, head_size) if head_size <= 128 else 64
    if block_size > 64:
        tile = dataclasses.replace(tile, stages=min(tile.stages, 2))  # as much shared memory as with heads of 64
    launch(
        attention_kernel,
        sequences.count * blocks(sequences.longest, tile.block_rows) * num_heads * blocks(head_size, block_size),
        tile,
        output.device,
        query.data,
        key.data,
        value.data,
        mask.data,
        sequences.offsets,
        output,
        sequences.longest,
        keys,
        query.stride,
        key.stride,
        value.stride,
        *mask.strides,
        scale,
        HEADS=num_heads,
        HEAD_SIZE=head_size,
        BLOCK_SIZE=block_size,
        BOOLEAN_MASK=mask.boolean,
        BLOCK_QUERIES=tile.block_rows,
        BLOCK_KEYS=tile.block_columns,
        PRECISION=precision(output.dtype),
    )


def scale_or_default(scale: float | None, head_size: int) -> float:
    return 1.0 / math.sqrt(head_size) if scale is None else float(scale)


def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    num_heads: int,
    mask: Tensor | None = None,
    scale: float | None = None,
    dtype: torch.dtype | None = None,
) -> Tensor:
    arguments = Arguments("attention", "query", query)
    arguments.own_dtype("dtype", dtype)
    queries, sequences = arguments.sequences("query", query)
    expected = [*query.shape[:-2], *key.shape[-2:-1], query.shape[-1]]
    if key.dim() != query.dim() or list(key.shape) != expected:
        arguments.fail("key", f"the shape of query, {list(query.shape)}, but for the number of tokens", describe(key))
    keys = arguments.rows("key", key)
    if value.shape != key.shape:
        arguments.fail("value", f"the shape of key, {list(key.shape)}", describe(value))
    values = arguments.rows("value", value)
    arguments.heads(num_heads, queries.channels)
    checked = arguments.mask(mask, sequences.count, num_heads, query.shape[-2], key.shape[-2])
    output = new_output(query, queries.channels)
    scale = scale_or_default(scale, queries.channels // num_heads)
    run(queries, keys, values, sequences, key.shape[-2], num_heads, checked, scale, output)
    return output
