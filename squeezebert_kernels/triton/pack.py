"""Packed weights on CUDA: pack_grouped_conv1x1 and pack_grouped_conv1d.

Plain weights are as fast here as packed ones; packing exists so that one program serves both kinds of device. A packed
weight is uint8 [out_channels, bytes] (or [out_channels, kernel_size, bytes] along a sequence): the weight's own rows,
each padded to a multiple of 64 bytes whose remainder by three tells the dtype. So a weight of another dtype, layer or
device is refused by its shape alone, without waiting for the device to be read.
"""

from __future__ import annotations

import torch
from torch import Tensor

_UNIT = 64
_REMAINDER = {torch.float32: 0, torch.float16: 1, torch.bfloat16: 2}


def bytes_of(depth: int, dtype: torch.dtype) -> int:
    """The bytes of a packed row of `depth` elements."""
    units = -(-depth * dtype.itemsize // _UNIT)
    return (units + (_REMAINDER[dtype] - units) % 3) * _UNIT


def packed_shape(weight: Tensor) -> tuple[int, ...]:
    """The shape of a plain weight's packed form."""
    size = bytes_of(int(weight.shape[1]), weight.dtype)
    if weight.dim() == 3 and weight.shape[2] != 1:
        return (int(weight.shape[0]), int(weight.shape[2]), size)
    return (int(weight.shape[0]), size)


def pack_grouped_conv1x1(weight: Tensor, groups: int) -> Tensor:
    return _pack("pack_grouped_conv1x1", weight, groups, any_kernel_size=False)


def pack_grouped_conv1d(weight: Tensor, groups: int) -> Tensor:
    return _pack("pack_grouped_conv1d", weight, groups, any_kernel_size=True)


def _pack(op: str, weight: Tensor, groups: int, any_kernel_size: bool) -> Tensor:
    from .arguments import Arguments

    arguments = Arguments(op, "weight", weight)
    linear = arguments.linear(("weight", "bias", "groups"), weight, None, groups, None, any_kernel_size)
    shape = packed_shape(weight)
    packed = torch.zeros(shape, dtype=torch.uint8, device=weight.device)
    elements = packed.view(weight.dtype)
    elements[..., : linear.depth] = linear.data.reshape(*shape[:-1], linear.depth)
    return packed
