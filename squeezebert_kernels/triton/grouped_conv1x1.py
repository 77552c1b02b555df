"""grouped_conv1x1, grouped_conv1x1_gelu and grouped_conv1x1_add_layer_norm.

One kernel. A program computes a tile of [BLOCK_ROWS tokens, BLOCK_COLUMNS output channels of one group], and adds bias,
GELU or residual while the tile is in registers. Programs that share rows follow each other, so the rows come from L2.
For LayerNorm, the tiles of sums are stored to the output, and the last program to finish with a block of rows
normalises them there, out of L2 (`tiles.last_normalizes`): one launch, and no program waits.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from . import tiles
from .arguments import Arguments, Linear, Norm, Rows, describe
from .launch import block, blocks, launch, power_of_two, precision, tile_for


@triton.jit
def grouped_conv1x1_kernel(
    input,
    weight,
    bias,
    residual,
    ln_weight,
    ln_bias,
    output,
    arrivals,
    rows,
    input_stride,
    weight_stride,
    residual_stride,
    eps,
    GROUPS: tl.constexpr,
    DEPTH: tl.constexpr,  # input channels of a group
    WIDTH: tl.constexpr,  # output channels of a group
    GELU: tl.constexpr,
    NORM_WIDTH: tl.constexpr,
    NORM_ROWS: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_COLUMNS: tl.constexpr,
    BLOCK_DEPTH: tl.constexpr,
    SWAP: tl.constexpr,
    PRECISION: tl.constexpr,
):
    TILES: tl.constexpr = (WIDTH + BLOCK_COLUMNS - 1) // BLOCK_COLUMNS
    CHANNELS: tl.constexpr = GROUPS * WIDTH
    row_block = tl.program_id(0) // (GROUPS * TILES)
    group = tl.program_id(0) % (GROUPS * TILES) // TILES
    column = tl.program_id(0) % TILES * BLOCK_COLUMNS + tl.arange(0, BLOCK_COLUMNS)
    row = row_block.to(tl.int64) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)

    # Past the last row and channel, the last one is computed again, and not stored.
    real = column < WIDTH
    channel = group * WIDTH + tl.minimum(column, WIDTH - 1)
    source = tl.minimum(row, rows - 1)
    x_rows = input + source * input_stride + group * DEPTH
    w_rows = weight + channel.to(tl.int64) * weight_stride
    accumulator = tiles.zeros(BLOCK_ROWS, BLOCK_COLUMNS, SWAP)
    for start in range(0, DEPTH, BLOCK_DEPTH):
        x = tiles.load_depth(x_rows, start, DEPTH, BLOCK_DEPTH)
        w = tiles.load_depth(w_rows, start, DEPTH, BLOCK_DEPTH)
        accumulator = tiles.multiply(x, w, accumulator, SWAP, PRECISION)
    y = tiles.as_rows(tiles.add_bias(accumulator, bias, channel, real, SWAP), SWAP)
    if GELU:
        y = tiles.gelu(y, output)

    inside = (row < rows)[:, None] & real[None, :]
    if residual is not None:
        at = residual + row[:, None] * residual_stride + channel[None, :]
        y += tl.load(at, mask=inside, other=0.0).to(tl.float32)
    tl.store(output + row[:, None] * CHANNELS + channel[None, :], y.to(output.dtype.element_ty), mask=inside)
    if arrivals is not None:
        tiles.last_normalizes(
            output,
            arrivals,
            row_block,
            rows,
            ln_weight,
            ln_bias,
            eps,
            GROUPS * TILES,
            CHANNELS,
            NORM_WIDTH,
            BLOCK_ROWS,
            NORM_ROWS,
        )


def run(
    rows: Rows,
    linear: Linear,
    output: Tensor,
    gelu: bool = False,
    residual: Rows | None = None,
    norm: Norm | None = None,
    arrivals: Tensor | None = None,
) -> None:
    """Launches the kernel: output [rows, out_channels], contiguous.

    With `norm` (which needs `residual`), arrivals: int32 zeros, at least one for each 16 rows.
    """
    tile = tile_for("grouped_conv1x1", rows.data, rows.count, None if norm is None else linear.out_channels)
    columns = block(tile.block_columns, linear.width)
    if tile.swap:
        columns = max(columns, 64)  # the long side of the matrix instruction
    launch(
        grouped_conv1x1_kernel,
        blocks(rows.count, tile.block_rows) * linear.groups * blocks(linear.width, columns),
        tile,
        output.device,
        rows.data,
        linear.data,
        linear.bias,
        None if residual is None else residual.data,
        None if norm is None else norm.weight,
        None if norm is None else norm.bias,
        output,
        None if norm is None else arrivals,
        rows.count,
        rows.stride,
        linear.stride,
        0 if residual is None else residual.stride,
        0.0 if norm is None else norm.eps,
        GROUPS=linear.groups,
        DEPTH=linear.depth,
        WIDTH=linear.width,
        GELU=gelu,
        NORM_WIDTH=power_of_two(linear.out_channels),
        NORM_ROWS=tile.norm_rows,
        BLOCK_ROWS=tile.block_rows,
        BLOCK_COLUMNS=columns,
        BLOCK_DEPTH=block(tile.block_depth, linear.depth),
        SWAP=tile.swap,
        PRECISION=precision(output.dtype),
    )


def new_arrivals(rows: int, device: torch.device, norms: int = 1) -> Tensor:
    """Counters for `norms` launches that normalise `rows` rows each: int32 zeros [norms, ...]."""
    return torch.zeros(norms, blocks(rows, 16), dtype=torch.int32, device=device)


def new_output(like: Tensor, channels: int) -> Tensor:
    return torch.empty((*like.shape[:-1], channels), dtype=like.dtype, device=like.device)


def grouped_conv1x1(input: Tensor, weight: Tensor, bias: Tensor | None, groups: int) -> Tensor:
    return _convolve("grouped_conv1x1", input, weight, bias, groups, gelu=False)


def grouped_conv1x1_gelu(input: Tensor, weight: Tensor, bias: Tensor | None, groups: int) -> Tensor:
    return _convolve("grouped_conv1x1_gelu", input, weight, bias, groups, gelu=True)


def _convolve(op: str, input: Tensor, weight: Tensor, bias: Tensor | None, groups: int, gelu: bool) -> Tensor:
    arguments = Arguments(op, "input", input)
    rows = arguments.rows("input", input)
    linear = arguments.linear(("weight", "bias", "groups"), weight, bias, groups, rows.channels)
    output = new_output(input, linear.out_channels)
    run(rows, linear, output, gelu)
    return output


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
    arguments = Arguments("grouped_conv1x1_add_layer_norm", "input", input)
    rows = arguments.rows("input", input)
    linear = arguments.linear(("weight", "bias", "groups"), weight, bias, groups, rows.channels)
    output = new_output(input, linear.out_channels)
    if residual.shape != output.shape:
        arguments.fail("residual", f"the shape of the output, {list(output.shape)}", describe(residual))
    residual_rows = arguments.rows("residual", residual)
    norm = arguments.norm("ln_weight", "ln_bias", (ln_weight, ln_bias), eps, linear.out_channels)
    arrivals = new_arrivals(rows.count, input.device)
    run(rows, linear, output, residual=residual_rows, norm=norm, arrivals=arrivals)
    return output
