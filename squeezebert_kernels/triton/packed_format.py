"""The form of packed weights on CUDA, which their shape alone tells.

A packed weight is uint8 [out_channels, bytes] (or [out_channels, kernel_size, bytes] along a sequence): the weight's
own rows, each padded to a multiple of 64 bytes whose remainder by three tells the dtype. So a weight of another dtype,
layer or device is refused by its shape, without waiting for the device to be read. Needs no Triton.
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


def packed_shape(weight: Tensor, dtype: torch.dtype | None = None) -> tuple[int, ...]:
    """The shape of a plain weight's packed form, in its own dtype or another."""
    size = bytes_of(int(weight.shape[1]), weight.dtype if dtype is None else dtype)
    if weight.dim() == 3 and weight.shape[2] != 1:
        return (int(weight.shape[0]), int(weight.shape[2]), size)
    return (int(weight.shape[0]), size)
