"""Packed weights on CUDA: pack_grouped_conv1x1 and pack_grouped_conv1d, into the form that `packed_format` says.

Plain weights are as fast here as packed ones; packing exists so that one program serves both kinds of device.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .arguments import DTYPES, Arguments
from .packed_format import packed_shape


def pack_grouped_conv1x1(weight: Tensor, groups: int, dtype: torch.dtype | None = None) -> Tensor:
    return _pack("pack_grouped_conv1x1", weight, groups, dtype, any_kernel_size=False)


def pack_grouped_conv1d(weight: Tensor, groups: int, dtype: torch.dtype | None = None) -> Tensor:
    return _pack("pack_grouped_conv1d", weight, groups, dtype, any_kernel_size=True)


def quantize_weight(weight: Tensor) -> tuple[Tensor, Tensor]:
    raise _no_int8("quantize_weight", "weight")


def pack_quantized(values: Tensor, scale: Tensor, groups: int) -> Tensor:
    raise _no_int8("pack_quantized", "values")


def unpack_quantized(weight: Tensor, in_channels: int, groups: int, kernel_size: int = 1) -> tuple[Tensor, Tensor]:
    raise _no_int8("unpack_quantized", "weight")


def _no_int8(op: str, argument: str) -> ValueError:
    return ValueError(f"squeezebert::{op}: {argument}: expected a CPU tensor, for int8 is for CPUs, got one on CUDA")


def _pack(op: str, weight: Tensor, groups: int, dtype: torch.dtype | None, any_kernel_size: bool) -> Tensor:
    arguments = Arguments(op, "weight", weight)
    if dtype not in (None, *DTYPES):
        arguments.fail("dtype", f"{' or '.join(map(str, DTYPES))} on CUDA", str(dtype))
    if dtype is not None:
        weight = weight.to(dtype)
        arguments = Arguments(op, "weight", weight)
    linear = arguments.linear(("weight", "bias", "groups"), weight, None, groups, None, any_kernel_size)
    shape = packed_shape(weight)
    packed = torch.zeros(shape, dtype=torch.uint8, device=weight.device)
    elements = packed.view(weight.dtype)
    elements[..., : linear.depth] = linear.data.reshape(*shape[:-1], linear.depth)
    return packed
