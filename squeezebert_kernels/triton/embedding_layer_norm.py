"""embedding_layer_norm: the sum of the word, position and token type embeddings of each token, then LayerNorm."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from . import tiles
from .arguments import DTYPES, Arguments, Norm, describe
from .bad_ids import ID_NAMES
from .launch import blocks, launch, power_of_two, tile_for


@triton.jit
def add_embedding(
    sum, good, ids, table, rows, problems, which: tl.constexpr, inside, channel, real, CHANNELS: tl.constexpr
):
    """sum + table[ids], and whether the ids so far were `good`; one outside the table counts as row 0 here.

    Such an id is written to problems[which], by whichever thread is last, so that it is not 0: plus 1, unless negative.
    """
    fits = (ids >= 0) & (ids < rows)
    at = table + tl.where(fits, ids, 0).to(tl.int64)[:, None] * CHANNELS + channel[None, :]
    sum += tl.load(at, mask=real[None, :], other=0.0).to(tl.float32)
    wide = ids.to(tl.int64)
    tl.store(problems + which + tl.zeros_like(wide), tl.where(wide < 0, wide, wide + 1), mask=inside & (fits == 0))
    return sum, good & fits


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
    good = tl.full((BLOCK_ROWS,), True, tl.int1)
    x = tl.zeros((BLOCK_ROWS, WIDTH), tl.float32)
    ids = tl.load(input_ids + row, mask=inside, other=0)
    x, good = add_embedding(x, good, ids, words, word_rows, problems, 0, inside, channel, real, CHANNELS)
    ids = row % tokens if position_ids is None else tl.load(position_ids + row, mask=inside, other=0)
    x, good = add_embedding(x, good, ids, positions, position_rows, problems, 1, inside, channel, real, CHANNELS)
    if token_type_ids is None:
        ids = tl.zeros((BLOCK_ROWS,), tl.int64)
    else:
        ids = tl.load(token_type_ids + row, mask=inside, other=0)
    x, good = add_embedding(x, good, ids, types, type_rows, problems, 2, inside, channel, real, CHANNELS)

    y = tiles.layer_norm(x, real, ln_weight, ln_bias, channel, eps, CHANNELS)
    y = tl.where(good[:, None], y, float("nan"))
    at = output + row[:, None] * CHANNELS + channel[None, :]
    tl.store(at, y.to(output.dtype.element_ty), mask=inside[:, None] & real[None, :])


def run(
    ids: tuple[Tensor, Tensor | None, Tensor | None],
    tables: tuple[Tensor, Tensor, Tensor],
    norm: Norm,
    tokens: int,
    output: Tensor,
    problems: Tensor,
) -> None:
    """Launches the kernel. ids: input_ids, token_type_ids, position_ids, contiguous, one for each row of output.

    tokens: of each sequence, from which positions are counted when there are no position_ids. problems: int64 zeros
    [3], on the device or in pinned memory. An id of input_ids, position_ids or token_type_ids outside its
    table gives a row of NaN, and is written to its place in problems, as `bad_ids.decoded` reads it.
    """
    channels = tables[0].shape[1]
    tile = tile_for("embedding_layer_norm", output, ids[0].numel())
    launch(
        embedding_layer_norm_kernel,
        blocks(ids[0].numel(), tile.block_rows),
        tile,
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
        BLOCK_ROWS=tile.block_rows,
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
    """Waits for the ids to be seen, but while a CUDA graph is captured: one outside its table then gives NaN alone."""
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
    problems = new_problems(words.device)
    run(ids, (words, positions, types), norm, tokens, output, problems)  # type: ignore[arg-type]
    if not (problems.is_cuda and torch.cuda.is_current_stream_capturing()):
        _raise_for(problems.tolist(), ids, (words, positions, types))
    return output


def new_problems(device: torch.device) -> Tensor:
    """`problems` for a launch whose bad ids are looked at right after it, or by nobody."""
    return torch.zeros(len(ID_NAMES), dtype=torch.int64, device=device)


def _raise_for(problems: list[int], ids: tuple[Tensor | None, ...], tables: tuple[Tensor, ...]) -> None:
    input_ids, token_type_ids, position_ids = ids
    values = (input_ids, position_ids, token_type_ids)
    for name, values_of_name, table, problem in zip(ID_NAMES, values, tables, problems, strict=True):
        if problem:
            low, high = (0, 0) if values_of_name is None else (int(values_of_name.min()), int(values_of_name.max()))
            raise IndexError(
                f"squeezebert::embedding_layer_norm: {name}: expected ids from 0 to {table.shape[0] - 1}, got ids from "
                f"{low} to {high}"
            )
