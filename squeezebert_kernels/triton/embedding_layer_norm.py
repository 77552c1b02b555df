"""embedding_layer_norm: the sum of the word, position and token type embeddings of each token, then LayerNorm."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from . import tiles
from .arguments import DTYPES, Arguments, Norm, describe
from .launch import launch, power_of_two
from .tuning import Tile

# A program gathers, sums and normalises whole rows: bound by memory, so the same sizes serve every chip.
_TILE = Tile(4, 0, 0, 4, 1, False, "4 x 1024 float32 are 32 registers a thread, and 128 tokens make 32 programs")


@triton.jit
def add_embedding(sum, ids, table, ROWS, bad, which: tl.constexpr, channel, real, CHANNELS: tl.constexpr):
    """sum + table[ids]; an id outside the table counts as row 0 and is remembered in `bad`, as 1 << which."""
    fits = (ids >= 0) & (ids < ROWS)
    at = table + tl.where(fits, ids, 0).to(tl.int64)[:, None] * CHANNELS + channel[None, :]
    sum += tl.load(at, mask=real[None, :], other=0.0).to(tl.float32)
    return sum, bad | tl.where(fits, 0, 1 << which)


@triton.jit
def embedding_layer_norm_kernel(
    input_ids,
    token_type_ids,
    position_ids,
    words,
    positions,
    types,
    ln_weight,
    ln_bias,
    output,
    problems,
    rows,
    tokens,
    word_rows,
    position_rows,
    type_rows,
    eps,
    CHANNELS: tl.constexpr,
    WIDTH: tl.constexpr,  # CHANNELS, or the next power of two
    BLOCK_ROWS: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    channel = tl.arange(0, WIDTH)
    real = channel < CHANNELS
    inside = row < rows
    bad = tl.zeros((BLOCK_ROWS,), tl.int32)
    x = tl.zeros((BLOCK_ROWS, WIDTH), tl.float32)
    ids = tl.load(input_ids + row, mask=inside, other=0)
    x, bad = add_embedding(x, ids, words, word_rows, bad, 0, channel, real, CHANNELS)
    ids = row % tokens if position_ids is None else tl.load(position_ids + row, mask=inside, other=0)
    x, bad = add_embedding(x, ids, positions, position_rows, bad, 1, channel, real, CHANNELS)
    if token_type_ids is None:
        ids = tl.zeros((BLOCK_ROWS,), tl.int64)
    else:
        ids = tl.load(token_type_ids + row, mask=inside, other=0)
    x, bad = add_embedding(x, ids, types, type_rows, bad, 2, channel, real, CHANNELS)

    y = tiles.layer_norm(x, real, ln_weight, ln_bias, channel, eps, CHANNELS)
    y = tl.where((bad != 0)[:, None], float("nan"), y)
    at = output + row[:, None] * CHANNELS + channel[None, :]
    tl.store(at, y.to(output.dtype.element_ty), mask=inside[:, None] & real[None, :])
    tl.atomic_or(problems + tl.zeros((BLOCK_ROWS,), tl.int32), bad, mask=inside & (bad != 0))


def run(
    ids: tuple[Tensor, Tensor | None, Tensor | None],
    tables: tuple[Tensor, Tensor, Tensor],
    norm: Norm,
    tokens: int,
    output: Tensor,
    problems: Tensor,
) -> None:
    """Launches the kernel. ids: input_ids, token_type_ids, position_ids, contiguous, one for each row of output.

    tokens: of each sequence, from which positions are counted when there are no position_ids. problems: int32 [1], 0:
    bit 0, 1 or 2 is set when an id of input_ids, position_ids or token_type_ids is outside its table. Rows with such
    an id come out as NaN.
    """
    channels = tables[0].shape[1]
    launch(
        embedding_layer_norm_kernel,
        -(-ids[0].numel() // _TILE.block_rows),
        _TILE,
        output.device,
        *ids,
        *tables,
        norm.weight,
        norm.bias,
        output,
        problems,
        ids[0].numel(),
        max(tokens, 1),
        *(table.shape[0] for table in tables),
        norm.eps,
        CHANNELS=channels,
        WIDTH=power_of_two(channels),
        BLOCK_ROWS=_TILE.block_rows,
    )


def _as_ids(arguments: Arguments, name: str, ids: Tensor, like: Tensor) -> Tensor:
    arguments.on_device(name, ids)
    if ids.dtype not in (torch.int64, torch.int32):
        arguments.fail(name, "a torch.int64 or torch.int32 tensor", describe(ids))
    sizes = [1] * (like.dim() - ids.dim()) + list(ids.shape)
    if len(sizes) != like.dim() or any(size not in (1, full) for size, full in zip(sizes, like.shape, strict=True)):
        arguments.fail(name, f"a shape that broadcasts to that of input_ids, {list(like.shape)}", describe(ids))
    return ids.expand(like.shape).contiguous()


def _as_table(arguments: Arguments, name: str, table: Tensor, like: Tensor) -> Tensor:
    arguments.same(name, table, like.dtype)
    if table.dim() != 2 or table.shape[1] != like.shape[1]:
        arguments.fail(name, f"[rows, {like.shape[1]}]", describe(table))
    return table.contiguous()


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
    """While a CUDA graph is captured, nothing can be raised for an id outside its table: its row comes out as NaN."""
    arguments = Arguments("embedding_layer_norm", "input_ids", input_ids, (torch.int64, torch.int32))
    if input_ids.dim() == 0:
        arguments.fail("input_ids", "at least one dimension, the last one tokens", "a scalar")
    if word_embeddings.dim() != 2 or word_embeddings.shape[1] == 0:
        arguments.fail("word_embeddings", "[vocabulary, channels]", describe(word_embeddings))
    if word_embeddings.dtype not in DTYPES:
        names = " or ".join([", ".join(map(str, DTYPES[:-1])), str(DTYPES[-1])])
        arguments.fail("word_embeddings", f"dtype {names}", describe(word_embeddings))
    named = {
        "word_embeddings": word_embeddings,
        "position_embeddings": position_embeddings,
        "token_type_embeddings": token_type_embeddings,
    }
    words, positions, types = (_as_table(arguments, name, table, word_embeddings) for name, table in named.items())
    arguments.dtype = word_embeddings.dtype  # that of the rest
    norm = arguments.norm("ln_weight", "ln_bias", (ln_weight, ln_bias), eps, words.shape[1])
    tokens = input_ids.shape[-1]
    if position_ids is None and tokens > positions.shape[0]:
        expected = f"at most {positions.shape[0]} tokens (the rows of position_embeddings)"
        arguments.fail("input_ids", expected, describe(input_ids))
    given = {"input_ids": input_ids, "token_type_ids": token_type_ids, "position_ids": position_ids}
    ids = tuple(None if value is None else _as_ids(arguments, name, value, input_ids) for name, value in given.items())
    output = torch.empty((*input_ids.shape, words.shape[1]), dtype=words.dtype, device=words.device)
    problems = torch.zeros(1, dtype=torch.int32, device=words.device)
    run(ids, (words, positions, types), norm, tokens, output, problems)  # type: ignore[arg-type]
    if not (problems.is_cuda and torch.cuda.is_current_stream_capturing()):
        _raise_for(int(problems), ids, (words, positions, types))
    return output


def _raise_for(problems: int, ids: tuple[Tensor | None, ...], tables: tuple[Tensor, ...]) -> None:
    input_ids, token_type_ids, position_ids = ids
    named = {"input_ids": input_ids, "position_ids": position_ids, "token_type_ids": token_type_ids}
    for bit, ((name, values), table) in enumerate(zip(named.items(), tables, strict=True)):
        if problems >> bit & 1:
            low, high = (0, 0) if values is None else (int(values.min()), int(values.max()))
            raise IndexError(
                f"squeezebert::embedding_layer_norm: {name}: expected ids from 0 to {table.shape[0] - 1}, got ids from "
                f"{low} to {high}"
            )
