"""What a kernel would be launched with, without a GPU: the launch functions run on tensors without memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import torch

from squeezebert_kernels.triton import (
    attention,
    embedding_layer_norm,
    grouped_conv1d,
    grouped_conv1x1,
    grouped_ffn,
    grouped_qkv_attention,
)
from squeezebert_kernels.triton.arguments import Linear, Mask, Norm, Rows, Sequences
from squeezebert_kernels.triton.tuning import Tile

CHANNELS, GROUPS, HEADS = 768, 4, 12
VOCABULARY, POSITIONS, KERNEL_SIZE = 30528, 512, 3
MODULES = (attention, embedding_layer_norm, grouped_conv1d, grouped_conv1x1, grouped_ffn, grouped_qkv_attention)


@dataclass(frozen=True)
class Launch:
    """A kernel and everything it was launched with."""

    kernel: Any
    programs: int
    tile: Tile
    args: tuple[Any, ...]
    constants: dict[str, Any]


def values(*shape: int, dtype: torch.dtype, device: str) -> torch.Tensor:
    """Random numbers, or a tensor without memory: zeros would be faster than what kernels really see."""
    made = torch.empty(*shape, dtype=dtype, device=device)
    return made if device == "meta" else made.normal_()


def linear(out: int, depth: int, groups: int, dtype: torch.dtype, device: str, kernel_size: int = 1) -> Linear:
    shape = (out, depth // groups) if kernel_size == 1 else (out, kernel_size, depth // groups)
    weight, bias = values(*shape, dtype=dtype, device=device), values(out, dtype=dtype, device=device)
    return Linear(weight, weight.stride(0), bias, out, depth, groups, kernel_size)


def prepare(
    operator: str, dtype: torch.dtype, device: str, count: int, length: int = 128, channels: int = CHANNELS
) -> Callable[[], None]:
    """A function that launches `operator` as SqueezeBERT does, on `count` tokens in sequences of `length`."""
    x = Rows(values(count, channels, dtype=dtype, device=device), count, channels, channels)
    normal = Norm(*(values(channels, dtype=dtype, device=device) for _ in range(2)), 1e-12)
    output = torch.empty_like(x.data)
    arrivals = torch.zeros(1, -(-count // 16), dtype=torch.int32, device=device)
    sequences = Sequences(-(-count // length), length, None)
    if operator == "grouped_conv1x1":
        layer = linear(channels, channels, 1, dtype, device)

        def launch() -> None:
            grouped_conv1x1.run(x, layer, output, residual=x, norm=normal, arrivals=arrivals.zero_())

    elif operator == "grouped_ffn":
        inner = 4 * channels
        first, last = (linear(*shape, GROUPS, dtype, device) for shape in ((inner, channels), (channels, inner)))

        def launch() -> None:
            grouped_ffn.run(x, first, last, normal, output, arrivals.zero_())

    elif operator == "attention":

        def launch() -> None:
            attention.run(x, x, x, sequences, length, HEADS, Mask(), 0.125, output)

    elif operator == "grouped_qkv_attention":
        projections = [linear(channels, channels, GROUPS, dtype, device) for _ in range(3)]

        def launch() -> None:
            grouped_qkv_attention.run(x, sequences, *projections, HEADS, Mask(), 0.125, output)

    elif operator == "grouped_conv1d":
        layer = linear(channels, channels, GROUPS, dtype, device, KERNEL_SIZE)

        def launch() -> None:
            grouped_conv1d.run(x, sequences, layer, output)

    elif operator == "embedding_layer_norm":
        sizes = (VOCABULARY, POSITIONS, 2)
        words, positions, types = (values(size, channels, dtype=dtype, device=device) for size in sizes)
        ids = [torch.zeros(count, dtype=torch.int64, device=device) for _ in sizes]
        if device != "meta":
            ids[0].random_(VOCABULARY)
        problems = torch.zeros(3, dtype=torch.int64, device=device)

        def launch() -> None:
            embedding_layer_norm.run(tuple(ids), (words, positions, types), normal, length, output, problems)

    else:
        raise ValueError(f"operator: expected one with rows in the table, got {operator}")
    return launch


@contextmanager
def using(tile: Tile) -> Iterator[None]:
    """Every kernel takes the block sizes of `tile`."""
    patches = [patch.object(module, "tile_for", lambda *_: tile) for module in MODULES]
    for each in patches:
        each.start()
    try:
        yield
    finally:
        for each in patches:
            each.stop()


def record(operator: str, dtype: torch.dtype, tile: Tile, count: int, channels: int = CHANNELS) -> Launch:
    """The launch of `operator` with the block sizes of `tile`."""
    launches: list[Launch] = []

    def remember(kernel: Any, programs: int, tile: Tile, device: Any, *args: Any, **constants: Any) -> None:
        launches.append(Launch(kernel, programs, tile, args, constants))

    patches = [patch.object(module, "launch", remember) for module in MODULES]
    for each in patches:
        each.start()
    try:
        with using(tile):
            prepare(operator, dtype, "meta", count, channels=channels)()
    finally:
        for each in patches:
            each.stop()
    (launch,) = launches
    return launch
