"""Picks a row of the table and starts a kernel."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor

from . import tuning
from .tuning import Tile


def tile_for(operator: str, like: Tensor, rows: int, norm_channels: int | None = None) -> Tile:
    """The block sizes for `rows` tokens in the dtype and on the device of `like`; norm_channels as in `tuning.tile`."""
    return tuning.tile(architecture_of(like.device), operator, tuning.arithmetic(like.dtype), rows, norm_channels)


def precision(dtype: torch.dtype) -> str:
    """Triton's input_precision: tf32 where torch.backends.cuda.matmul.allow_tf32, exact otherwise."""
    return "tf32" if tuning.arithmetic(dtype) == "tf32" else "ieee"


def launch(kernel: Any, programs: int, tile: Tile, device: torch.device, *args: Any, **constants: Any) -> None:
    """Starts `programs` programs of `kernel` on the current stream of `device`."""
    if programs == 0:
        return
    options = {"num_warps": tile.warps, "num_stages": tile.stages}
    if device.type == "cuda":
        with torch.cuda.device(device):
            kernel[(programs,)](*args, **constants, **options)
    else:  # Triton's interpreter, in tests
        kernel[(programs,)](*args, **constants, **options)


def power_of_two(number: int) -> int:
    """The smallest power of two that is not below `number`."""
    return 1 << max(number - 1, 0).bit_length()


def block(most: int, needed: int) -> int:
    """A block of at most `most` for `needed` elements; 16 is the least that a matrix instruction takes."""
    return max(16, min(most, power_of_two(needed)))


def blocks(total: int, size: int) -> int:
    return -(-total // size)


@cache
def architecture_of(device: torch.device) -> str:
    """The rows of the table for a device. Raises RuntimeError, which names it, for one that is too old."""
    if device.type != "cuda":
        return "sm_90"  # the interpreter computes with those rows
    try:
        return tuning.architecture(torch.cuda.get_device_capability(device))
    except RuntimeError as error:
        raise RuntimeError(f"{error} on {torch.cuda.get_device_name(device)}") from error
