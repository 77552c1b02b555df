"""What a kernel would be launched with, without a GPU: the launch functions run on tensors without memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import torch

from squeezebert_kernels.triton import attention, grouped_conv1x1, grouped_ffn, grouped_qkv_attention
from squeezebert_kernels.triton.arguments import Linear, Mask, Norm, Rows, Sequences
from squeezebert_kernels.triton.tuning import Tile

CHANNELS, INNER, GROUPS, HEADS = 768, 3072, 4, 12


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


def linear(out: int, depth: int, groups: int, dtype: torch.dtype, device: str) -> Linear:
    weight = values(out, depth // groups, dtype=dtype, device=device)
    return Linear(weight, depth // groups, values(out, dtype=dtype, device=device), out, depth, groups, 1)


def norm(dtype: torch.dtype, device: str) -> Norm:
    return Norm(*(values(CHANNELS, dtype=dtype, device=device) for _ in range(2)), 1e-12)


def prepare(operator: str, dtype: torch.dtype, device: str, count: int, length: int = 128) -> Callable[[], None]:
    """A function that launches `operator` as SqueezeBERT does, on `count` tokens in sequences of `length`."""
    x = Rows(values(count, CHANNELS, dtype=dtype, device=device), count, CHANNELS, CHANNELS)
    output = torch.empty_like(x.data)
    arrivals = torch.zeros(1, -(-count // 16), dtype=torch.int32, device=device)
    sequences = Sequences(-(-count // length), length, None)
    if operator == "grouped_conv1x1":
        layer, normal = linear(CHANNELS, CHANNELS, 1, dtype, device), norm(dtype, device)

        def launch() -> None:
            grouped_conv1x1.run(x, layer, output, residual=x, norm=normal, arrivals=arrivals.zero_())

    elif operator == "grouped_ffn":
        first, last = (linear(*shape, GROUPS, dtype, device) for shape in ((INNER, CHANNELS), (CHANNELS, INNER)))
        normal = norm(dtype, device)

        def launch() -> None:
            grouped_ffn.run(x, first, last, normal, output, arrivals.zero_())

    elif operator == "attention":

        def launch() -> None:
            attention.run(x, x, x, sequences, length, HEADS, Mask(), 0.125, output)

    elif operator == "grouped_qkv_attention":
        projections = [linear(CHANNELS, CHANNELS, GROUPS, dtype, device) for _ in range(3)]

        def launch() -> None:
            grouped_qkv_attention.run(x, sequences, *projections, HEADS, Mask(), 0.125, output)

    else:
        raise ValueError(f"operator: expected one with rows in the table, got {operator}")
    return launch


@contextmanager
def using(tile: Tile) -> Iterator[None]:
    """Every kernel takes the block sizes of `tile`."""
    modules = (attention, grouped_conv1x1, grouped_ffn, grouped_qkv_attention)
    patches = [patch.object(module, "tile_for", lambda *_: tile) for module in modules]
    for each in patches:
        each.start()
    try:
        yield
    finally:
        for each in patches:
            each.stop()


def record(operator: str, dtype: torch.dtype, tile: Tile, count: int, length: int = 128) -> Launch:
    """The launch of `operator` with the block sizes of `tile`."""
    launches: list[Launch] = []

    def remember(kernel: Any, programs: int, tile: Tile, device: Any, *args: Any, **constants: Any) -> None:
        launches.append(Launch(kernel, programs, tile, args, constants))

    modules = (attention, grouped_conv1x1, grouped_ffn, grouped_qkv_attention)
    patches = [patch.object(module, "launch", remember) for module in modules]
    for each in patches:
        each.start()
    try:
        with using(tile):
            prepare(operator, dtype, "meta", count, length)()
    finally:
        for each in patches:
            each.stop()
    (launch,) = launches
    return launch
