"""grouped_conv1d: a grouped convolution along each sequence, zero-padded to the same length.

A program computes a tile of [BLOCK_ROWS tokens of one sequence, BLOCK_COLUMNS output channels of one group], one tap of
the kernel after the other: each is a product of the tokens, shifted by the tap's distance, with its own weights.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from . import tiles
from .arguments import Arguments, Linear, Rows, Sequences
from .grouped_conv1x1 import new_output
from .launch import block, blocks, launch, precision, tile_for


@triton.jit
def grouped_conv1d_kernel(
    input,
    weight,
    bias,
    offsets,
    output,
    tokens,  # of each sequence, where offsets is None; the most of any, where not
    input_stride,
    weight_stride,  # between taps
    GROUPS: tl.constexpr,
    DEPTH: tl.constexpr,  # input channels of a group
    WIDTH: tl.constexpr,  # output channels of a group
    KERNEL_SIZE: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_COLUMNS: tl.constexpr,
    BLOCK_DEPTH: tl.constexpr,
    PRECISION: tl.constexpr,
):
    TILES: tl.constexpr = (WIDTH + BLOCK_COLUMNS - 1) // BLOCK_COLUMNS
    row_blocks = tl.cdiv(tokens, BLOCK_ROWS)
    group = tl.program_id(0) % (GROUPS * TILES) // TILES
    column = tl.program_id(0) % TILES * BLOCK_COLUMNS + tl.arange(0, BLOCK_COLUMNS)
    row_block = tl.program_id(0) // (GROUPS * TILES) % row_blocks
    sequence = (tl.program_id(0) // (GROUPS * TILES) // row_blocks).to(tl.int64)
    if offsets is not None:
        first = tl.load(offsets + sequence).to(tl.int64)
        count = (tl.load(offsets + sequence + 1) - first).to(tl.int32)
    else:
        first = sequence * tokens
        count = tokens
    row = row_block * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    if row_block * BLOCK_ROWS < count:
        real = column < WIDTH
        channel = group * WIDTH + tl.minimum(column, WIDTH - 1)
        accumulator = tl.zeros((BLOCK_ROWS, BLOCK_COLUMNS), tl.float32)
        for tap in range(KERNEL_SIZE):
            source = row + tap - KERNEL_SIZE // 2
            present = (source >= 0) & (source < count)
            x_rows = input + (first + tl.minimum(tl.maximum(source, 0), count - 1)) * input_stride + group * DEPTH
            w_rows = weight + (channel.to(tl.int64) * KERNEL_SIZE + tap) * weight_stride
            for start in range(0, DEPTH, BLOCK_DEPTH):
                x = tiles.load_depth(x_rows, start, DEPTH, BLOCK_DEPTH)
                x = tl.where(present[:, None], x, 0.0).to(x.dtype)
                w = tiles.load_depth(w_rows, start, DEPTH, BLOCK_DEPTH)
                accumulator = tiles.multiply(x, w, accumulator, False, PRECISION)
        y = tiles.add_bias(accumulator, bias, channel, real, False)
        at = output + (first + row)[:, None] * (GROUPS * WIDTH) + channel[None, :]
        tl.store(at, y.to(output.dtype.element_ty), mask=(row < count)[:, None] & real[None, :])


def run(rows: Rows, sequences: Sequences, linear: Linear, output: Tensor) -> None:
    """Launches the kernel. output: contiguous."""
    tile = tile_for("grouped_conv1d", output, rows.count)
    columns = block(tile.block_columns, linear.width)
    programs = sequences.count * blocks(sequences.longest, tile.block_rows)
    launch(
        grouped_conv1d_kernel,
        programs * linear.groups * blocks(linear.width, columns),
        tile,
        output.device,
        rows.data,
        linear.data,
        linear.bias,
        sequences.offsets,
        output,
        sequences.longest,
        rows.stride,
        linear.stride if linear.kernel_size == 1 else linear.data.stride(-2),
        GROUPS=linear.groups,
        DEPTH=linear.depth,
        WIDTH=linear.width,
        KERNEL_SIZE=linear.kernel_size,
        BLOCK_ROWS=tile.block_rows,
        BLOCK_COLUMNS=columns,
        BLOCK_DEPTH=block(tile.block_depth, linear.depth),
        PRECISION=precision(output.dtype),
    )


def grouped_conv1d(
    input: Tensor, weight: Tensor, bias: Tensor | None, groups: int, cu_seqlens: Tensor | None = None
) -> Tensor:
    arguments = Arguments("grouped_conv1d", "input", input)
    rows, sequences = arguments.sequences("input", input, cu_seqlens)
    names = ("weight", "bias", "groups")
    linear = arguments.linear(names, weight, bias, groups, rows.channels, any_kernel_size=True)
    output = new_output(input, linear.out_channels)
    run(rows, sequences, linear, output)
    return output
