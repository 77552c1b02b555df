"""grouped_ffn: FFN2, GELU, FFN3, residual and LayerNorm in one launch.

Where both convolutions have the same groups, a group is a multilayer perceptron of its own, 192 -> 768 -> 192 in
SqueezeBERT. A program takes a block of tokens and a group, keeps the tokens' channels and the sums of all the group's
output channels, and walks over the intermediate channels as flash attention walks over keys: a block of them is
computed, goes through GELU and is used up at once. Where tokens, and so programs, are few, several programs may share a
group's output channels (`Tile.split`): each computes all the intermediate ones, so every sum keeps its order. The last
program with a block of rows normalises them (`tiles.last_normalizes`). Other groups take two launches of
`grouped_conv1x1`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import triton
import triton.language as tl
from torch import Tensor

from . import grouped_conv1x1, tiles
from .arguments import Arguments, Linear, Norm, Rows
from .grouped_conv1x1 import new_arrivals, new_output
from .launch import blocks, launch, power_of_two, precision, tile_for
from .tuning import MAX_WIDTH


@triton.jit
def grouped_ffn_kernel(
    input,
    intermediate_weight,
    intermediate_bias,
    output_weight,
    output_bias,
    ln_weight,
    ln_bias,
    output,
    arrivals,
    rows,
    input_stride,
    intermediate_weight_stride,
    output_weight_stride,
    eps,
    GROUPS: tl.constexpr,
    WIDTH: tl.constexpr,  # channels of a group
    INNER: tl.constexpr,  # intermediate channels of a group
    NORM_WIDTH: tl.constexpr,
    NORM_ROWS: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_INNER: tl.constexpr,
    BLOCK_WIDTH: tl.constexpr,  # divides WIDTH
    SPLIT: tl.constexpr,  # programs that share a group's output channels; divides WIDTH // BLOCK_WIDTH
    SWAP: tl.constexpr,
    PRECISION: tl.constexpr,
):
    CHANNELS: tl.constexpr = GROUPS * WIDTH
    PARTS: tl.constexpr = WIDTH // BLOCK_WIDTH // SPLIT  # of the output channels that are this program's own
    row_block = tl.program_id(0) // (GROUPS * SPLIT)
    group = tl.program_id(0) // SPLIT % GROUPS
    first_channel = group * WIDTH + tl.program_id(0) % SPLIT * (PARTS * BLOCK_WIDTH)
    row = row_block.to(tl.int64) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    # Past the last row, the last one is computed again, and not stored.
    x_rows = input + tl.minimum(row, rows - 1) * input_stride + group * WIDTH
    part = tl.arange(0, BLOCK_WIDTH)

    x = ()
    sums = ()
    for start in tl.static_range(0, WIDTH, BLOCK_WIDTH):
        x = x + (tiles.load_depth(x_rows, start, WIDTH, BLOCK_WIDTH),)  # type: ignore[assignment]
    for _ in tl.static_range(PARTS):
        sums = sums + (tiles.zeros(BLOCK_ROWS, BLOCK_WIDTH, SWAP),)  # type: ignore[assignment]
    for start in range(0, INNER, BLOCK_INNER):
        inner = start + tl.arange(0, BLOCK_INNER)
        real = inner < INNER
        channel = group * INNER + tl.minimum(inner, INNER - 1)
        w_rows = intermediate_weight + channel.to(tl.int64) * intermediate_weight_stride
        h = tiles.zeros(BLOCK_ROWS, BLOCK_INNER, SWAP)
        for i in tl.static_range(WIDTH // BLOCK_WIDTH):
            w = tiles.load_depth(w_rows, i * BLOCK_WIDTH, WIDTH, BLOCK_WIDTH)
            h = tiles.multiply(x[i], w, h, SWAP, PRECISION)
        h = tiles.gelu(tiles.add_bias(h, intermediate_bias, channel, real, SWAP), output)
        # Past the last intermediate channel, the weights read below are zeros.
        h = tiles.as_rows(h.to(input.dtype.element_ty), SWAP)
        new_sums = ()
        for i in tl.static_range(PARTS):
            out = (first_channel + i * BLOCK_WIDTH + part).to(tl.int64)
            w = tiles.load_depth(output_weight + out * output_weight_stride, start, INNER, BLOCK_INNER)
            new_sums = new_sums + (tiles.multiply(h, w, sums[i], SWAP, PRECISION),)  # type: ignore[assignment]
        sums = new_sums

    for i in tl.static_range(PARTS):
        channel = first_channel + i * BLOCK_WIDTH + part
        y = tiles.as_rows(tiles.add_bias(sums[i], output_bias, channel, channel < CHANNELS, SWAP), SWAP)
        inside = (row < rows)[:, None] & (channel < CHANNELS)[None, :]
        y += tl.load(input + row[:, None] * input_stride + channel[None, :], mask=inside, other=0.0).to(tl.float32)
        at = output + row[:, None] * CHANNELS + channel[None, :]
        tl.store(at, y.to(output.dtype.element_ty), mask=inside)
    tiles.last_normalizes(
        output,
        arrivals,
        row_block,
        rows,
        ln_weight,
        ln_bias,
        eps,
        GROUPS * SPLIT,
        CHANNELS,
        NORM_WIDTH,
        BLOCK_ROWS,
        NORM_ROWS,
    )


def is_fused(intermediate: Linear, output: Linear) -> bool:
    """A group of one convolution is a group of the other, and narrow, and cut into blocks without a rest."""
    return intermediate.groups == output.groups and output.width <= MAX_WIDTH and output.width % 16 == 0


def run(rows: Rows, intermediate: Linear, last: Linear, norm: Norm, output: Tensor, arrivals: Tensor) -> None:
    """Launches the kernel, or the two of the general path. output: contiguous; arrivals as `grouped_conv1x1.run`."""
    if not is_fused(intermediate, last):
        hidden = output.new_empty(rows.count, intermediate.out_channels)
        grouped_conv1x1.run(rows, intermediate, hidden, gelu=True)
        hidden_rows = Rows(hidden, rows.count, intermediate.out_channels, intermediate.out_channels)
        grouped_conv1x1.run(hidden_rows, last, output, residual=rows, norm=norm, arrivals=arrivals)
        return
    tile = tile_for("grouped_ffn", output, rows.count, last.out_channels)
    block_width = tile.block_depth
    while last.width % block_width:
        block_width //= 2
    if tile.swap and block_width < 64:
        # Too narrow for the long side of the matrix instruction, which then has to be along the rows.
        tile = dataclasses.replace(tile, swap=False, block_rows=max(tile.block_rows, 64))
    split = math.gcd(tile.split, last.width // block_width)
    launch(
        grouped_ffn_kernel,
        blocks(rows.count, tile.block_rows) * last.groups * split,
        tile,
        output.device,
        rows.data,
        intermediate.data,
        intermediate.bias,
        last.data,
        last.bias,
        norm.weight,
        norm.bias,
        output,
        arrivals,
        rows.count,
        rows.stride,
        intermediate.stride,
        last.stride,
        norm.eps,
        GROUPS=last.groups,
        WIDTH=last.width,
        INNER=intermediate.width,
        NORM_WIDTH=power_of_two(last.out_channels),
        NORM_ROWS=tile.norm_rows,
        BLOCK_ROWS=tile.block_rows,
        BLOCK_INNER=tile.block_columns,
        BLOCK_WIDTH=block_width,
        SPLIT=split,
        SWAP=tile.swap,
        PRECISION=precision(output.dtype),
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
    arguments = Arguments("grouped_ffn", "input", input)
    rows = arguments.rows("input", input)
    counts = arguments.group_counts(groups, ("intermediate", "output"))
    names = ("intermediate_weight", "intermediate_bias", "groups[0]")
    intermediate = arguments.linear(names, intermediate_weight, intermediate_bias, counts[0], rows.channels)
    names = ("output_weight", "output_bias", "groups[1]")
    last = arguments.linear(names, output_weight, output_bias, counts[1], intermediate.out_channels)
    if last.out_channels != rows.channels:
        expected = f"{rows.channels} output channels, as many as input has"
        arguments.fail("output_weight", expected, str(last.out_channels))
    norm = arguments.norm("ln_weight", "ln_bias", (ln_weight, ln_bias), eps, rows.channels)
    output = new_output(input, rows.channels)
    run(rows, intermediate, last, norm, output, new_arrivals(rows.count, input.device))
    return output
