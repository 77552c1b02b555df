"""What the kernels share: matrix products of tiles, GELU, LayerNorm by the last program of a row, a step of softmax.

Sums are float32 throughout. A tile of rows (tokens) is [rows, depth], a tile of weights [columns, depth]: both have
their reduction along the second dimension, contiguous in memory. Accumulators are [rows, columns], or [columns, rows]
where SWAP.
"""

from __future__ import annotations

import triton
import triton.language as tl

LOG2_E = tl.constexpr(1.4426950408889634)
SQRT_HALF = tl.constexpr(0.7071067811865476)
# Added to a score where a boolean mask is False: the most negative float32, so a fully masked row attends uniformly.
MASKED = tl.constexpr(-3.4028234663852886e38)
# Triton's interpreter multiplies the bits of bfloat16 numbers as integers. Their products are exact in float32.
INTERPRETED = tl.constexpr(triton.knobs.runtime.interpret)


@triton.jit
def dot(a, b, accumulator, PRECISION: tl.constexpr):
    """accumulator + a b."""
    if INTERPRETED:
        a = a.to(tl.float32)
        b = b.to(tl.float32)
    return tl.dot(a, b, accumulator, input_precision=PRECISION)


@triton.jit
def load_depth(pointers, start, DEPTH: tl.constexpr, BLOCK: tl.constexpr):
    """[n, BLOCK]: elements `start` onwards behind each of n pointers; zeros from DEPTH on."""
    at = start + tl.arange(0, BLOCK)
    if DEPTH % BLOCK == 0:
        tile = tl.load(pointers[:, None] + at[None, :])
    else:
        tile = tl.load(pointers[:, None] + at[None, :], mask=(at < DEPTH)[None, :], other=0.0)
    return tile


@triton.jit
def zeros(ROWS: tl.constexpr, COLUMNS: tl.constexpr, SWAP: tl.constexpr):
    """An empty accumulator."""
    return tl.zeros((COLUMNS, ROWS) if SWAP else (ROWS, COLUMNS), tl.float32)


@triton.jit
def multiply(rows, weights, accumulator, SWAP: tl.constexpr, PRECISION: tl.constexpr):
    """accumulator + rows weights^T."""
    if SWAP:
        accumulator = dot(weights, tl.trans(rows), accumulator, PRECISION)
    else:
        accumulator = dot(rows, tl.trans(weights), accumulator, PRECISION)
    return accumulator


@triton.jit
def as_rows(accumulator, SWAP: tl.constexpr):
    """[rows, columns], however it was accumulated."""
    if SWAP:
        accumulator = tl.trans(accumulator)
    return accumulator


@triton.jit
def add_bias(accumulator, bias, channel, real, SWAP: tl.constexpr):
    """accumulator + bias[channel], for an accumulator whose columns are `channel`; bias may be None."""
    if bias is not None:
        shift = tl.load(bias + channel, mask=real, other=0.0).to(tl.float32)
        if SWAP:
            accumulator += shift[:, None]
        else:
            accumulator += shift[None, :]
    return accumulator


@triton.jit
def project(
    rows,
    weights,
    bias,
    channel,
    real,
    DEPTH: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    BLOCK_DEPTH: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """[ROWS, COLUMNS]: DEPTH channels behind the pointers `rows`, times those behind `weights`, plus bias."""
    accumulator = tl.zeros((ROWS, COLUMNS), tl.float32)
    for start in range(0, DEPTH, BLOCK_DEPTH):
        x = load_depth(rows, start, DEPTH, BLOCK_DEPTH)
        w = load_depth(weights, start, DEPTH, BLOCK_DEPTH)
        accumulator = multiply(x, w, accumulator, False, PRECISION)
    return add_bias(accumulator, bias, channel, real, False)


@triton.jit
def gelu(x, like):
    """The exact GELU, x * (1 + erf(x / sqrt(2))) / 2, for a result that is rounded to the dtype of the pointer `like`.

    In 16-bit arithmetic erf would take as long as the matrix products beside it. There erf(x / sqrt(2)) / 2 is an odd
    polynomial of degree 17 on [-4.25, 4.25], fitted so that |x * error| is smallest, and held outside. The result is
    within 5e-5 of GELU below 0, and within 5e-5 of its size above: a tenth of a unit in the last place of float16.
    """
    if like.dtype.element_ty == tl.float32:
        y = 0.5 * x * (1.0 + tl.erf(x * SQRT_HALF))
    else:
        low = tl.maximum(x, -4.25)  # below, GELU is 0 to within 5e-5
        t = tl.minimum(low, 4.25)
        u = t * t
        p = 4.547083889971937e-11 * u - 4.5153125682873e-09
        p = p * u + 1.9861617772676254e-07
        p = p * u - 5.147519004822243e-06
        p = p * u + 8.848919242154807e-05
        p = p * u - 0.001079078298062086
        p = p * u + 0.009718779474496841
        p = p * u - 0.06619028002023697
        p = p * u + 0.3988192081451416
        y = low * (t * p + 0.5)
    return y


@triton.jit
def layer_norm(x, real, ln_weight, ln_bias, channel, eps, CHANNELS: tl.constexpr):
    """LayerNorm of the rows of x, [rows, width] float32, of which the columns where `real` are channels."""
    mean = tl.sum(x, 1) / CHANNELS
    centered = tl.where(real[None, :], x - mean[:, None], 0.0)
    variance = tl.sum(centered * centered, 1) / CHANNELS
    scale = tl.load(ln_weight + channel, mask=real, other=0.0).to(tl.float32)
    shift = tl.load(ln_bias + channel, mask=real, other=0.0).to(tl.float32)
    inverse = 1.0 / tl.sqrt_rn(variance + eps)
    return centered * inverse[:, None] * scale[None, :] + shift[None, :]


@triton.jit
def last_normalizes(
    output,
    arrivals,
    row_block,
    rows,
    ln_weight,
    ln_bias,
    eps,
    PROGRAMS: tl.constexpr,
    CHANNELS: tl.constexpr,
    WIDTH: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    NORM_ROWS: tl.constexpr,
):
    """Of the PROGRAMS that store parts of the same rows of output, the last to come here normalises them, in place.

    No program waits for another. arrivals: int32, zero at the start, one for each block of rows. WIDTH: CHANNELS, or
    the next power of two.
    """
    # All threads' stores happen before the arrival is counted, and are seen by the program that counts the last one.
    tl.debug_barrier()
    arrived = tl.atomic_add(arrivals + row_block, 1, sem="acq_rel")
    if arrived == PROGRAMS - 1:
        channel = tl.arange(0, WIDTH)
        real = channel < CHANNELS
        first = row_block.to(tl.int64) * BLOCK_ROWS
        for start in range(0, BLOCK_ROWS, NORM_ROWS):
            row = first + start + tl.arange(0, NORM_ROWS)
            at = output + row[:, None] * CHANNELS + channel[None, :]
            inside = (row < rows)[:, None] & real[None, :]
            # From L2: this multiprocessor's L1 does not know what others stored.
            x = tl.load(at, mask=inside, other=0.0, cache_modifier=".cg").to(tl.float32)
            y = layer_norm(x, real, ln_weight, ln_bias, channel, eps, CHANNELS)
            tl.store(at, y.to(output.dtype.element_ty), mask=inside)


@triton.jit
def mask_scores(scores, mask, query, key, query_stride, key_stride, queries, keys, BOOLEAN: tl.constexpr):
    """scores plus the mask, whose pointer is that of this sequence and head; None is no mask."""
    if mask is not None:
        at = mask + query[:, None].to(tl.int64) * query_stride + key[None, :].to(tl.int64) * key_stride
        inside = (query < queries)[:, None] & (key < keys)[None, :]
        value = tl.load(at, mask=inside, other=0)
        if BOOLEAN:
            scores += tl.where(value != 0, 0.0, MASKED)
        else:
            scores += value.to(tl.float32)
    return tl.where((key < keys)[None, :], scores, float("-inf"))


@triton.jit
def attend(scores, values, accumulator, highest, total, PRECISION: tl.constexpr):
    """One step of the softmax along the keys: scores [queries, keys], values [keys, size].

    Keeps, for each query, the highest score so far, the sum of exp(score - highest), and the sum of values weighted by
    it (Milakov and Gimelshein 2018, arXiv 1805.02867). A query whose scores are all -infinity keeps a total of 0.
    """
    new_highest = tl.maximum(highest, tl.max(scores, 1))
    base = tl.where(new_highest == float("-inf"), 0.0, new_highest)
    weights = tl.exp2((scores - base[:, None]) * LOG2_E)
    shrink = tl.exp2((highest - base) * LOG2_E)
    total = total * shrink + tl.sum(weights, 1)
    accumulator = accumulator * shrink[:, None]
    accumulator = dot(weights.to(values.dtype), values, accumulator, PRECISION)
    return accumulator, new_highest, total


@triton.jit
def finish_attention(accumulator, total):
    """The weighted mean of the values; zeros where nothing was attended to."""
    return accumulator / tl.where(total == 0.0, 1.0, total)[:, None]
