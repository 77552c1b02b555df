"""Fake kernels: the shape each operator returns, for `torch.compile`, `torch.export` and meta tensors.

The arguments were not checked yet where these run; what is wrong in them, the real kernels say when they are called.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..triton.packed_format import packed_shape

_WEIGHTS = (0, 2, 4, 6, 10, 12)  # in a layer's 16 tensors


class _ConvShape(ctypes.Structure):
    """squeezebert_conv_shape of csrc/include/squeezebert.h."""

    _fields_ = [(name, ctypes.c_int64) for name in ("out_channels", "in_channels", "groups", "kernel_size")]


def register(library: torch.library.Library, core: Path) -> None:
    """Registers the fakes of all operators. `core`: path of libsqueezebert.so, which knows packed weights' sizes."""
    sizes = _Sizes(core)

    def pack(weight: Tensor, groups: int, dtype: torch.dtype | None = None) -> Tensor:
        if weight.device.type == "cuda":
            return weight.new_empty(packed_shape(weight, dtype), dtype=torch.uint8)
        # A packed size is a step function of the shape: a symbolic shape is specialised here.
        out_channels, in_channels = int(weight.shape[0]), int(weight.shape[1]) * groups
        kernel_size = int(weight.shape[2]) if weight.dim() == 3 else 1
        shape = _ConvShape(out_channels, in_channels, groups, kernel_size)
        size = sizes.packed(shape, weight.dtype if dtype is None else dtype)
        return weight.new_empty((out_channels, -(-size // out_channels)), dtype=torch.uint8)

    def pack_layer(params: Sequence[Tensor], groups: Sequence[int], *_: object) -> Tensor:
        return params[0].new_empty(sizes.packed_layer(params, groups), dtype=torch.uint8)

    fakes: dict[str, Callable[..., Any]] = {
        "pack_grouped_conv1x1": pack,
        "pack_grouped_conv1d": pack,
        "quantize_weight": _quantized,
        "pack_quantized": lambda values, scale, groups: pack(values, groups, torch.int8),
        "unpack_quantized": _unpacked_quantized,
        "unpack_grouped_conv1x1": _unpacked,
        "pack_encoder_layer": pack_layer,
        "repack_encoder_layer": lambda *_: None,
        "unpack_encoder_layer": _unpacked_layer,
        "grouped_conv1x1": _convolved,
        "grouped_conv1x1_gelu": _convolved,
        "grouped_conv1x1_add_layer_norm": _convolved,
        "grouped_conv1d": _convolved,
        "attention": _like_first,
        "grouped_qkv_attention": _convolved,
        "grouped_ffn": _like_first,
        "embedding_layer_norm": _embedded,
        "encoder_layer": _like_first,
        "encoder": _encoded,
    }
    for name, fake in fakes.items():
        torch.library.register_fake(f"squeezebert::{name}", _on_one_device(name, fake), lib=library)


class _Sizes:
    """Sizes of what is packed, which the core library knows."""

    def __init__(self, core: Path) -> None:
        library = ctypes.CDLL(str(core))
        self._packed_size, format_name = library.squeezebert_packed_size, library.squeezebert_format_name
        format_name.restype = ctypes.c_char_p
        self._formats: dict[torch.dtype, int] = {}
        while name := format_name(len(self._formats)):
            self._formats[getattr(torch, name.decode())] = len(self._formats)

    def packed(self, shape: _ConvShape, dtype: torch.dtype) -> int:
        size = ctypes.c_size_t()
        if self._packed_size(ctypes.byref(shape), self._formats.get(dtype, 0), ctypes.byref(size)) != 0:
            raise ValueError(
                f"squeezebert: groups: expected a divisor of {shape.out_channels} output channels, got {shape.groups}"
            )
        return size.value

    def packed_layer(self, params: Sequence[Tensor], groups: Sequence[int]) -> int:
        """As csrc/api/packed_layer.cc lays it out: a header of 256 bytes, then whole lines of 64."""
        size, channels = 256, int(params[0].shape[0])
        for index, param in enumerate(params):
            if index in _WEIGHTS:
                width = int(params[_WEIGHTS[-2]].shape[0]) if index == _WEIGHTS[-1] else channels
                shape = _ConvShape(int(param.shape[0]), width, groups[_WEIGHTS.index(index)], 1)
                size += self.packed(shape, self._dtype_of(param, shape))
            else:
                size += -(-int(param.shape[0]) * 4 // 64) * 64
        return size

    def _dtype_of(self, weight: Tensor, shape: _ConvShape) -> torch.dtype:
        """Of a packed one, what takes as many bytes."""
        if weight.dtype != torch.uint8:
            return weight.dtype
        rows = shape.out_channels
        return next((d for d in self._formats if -(-self.packed(shape, d) // rows) == weight.shape[1]), weight.dtype)


def _quantized(weight: Tensor) -> tuple[Tensor, Tensor]:
    scale = weight.new_empty((weight.shape[0], 1, *weight.shape[2:]), dtype=torch.float32)
    return weight.new_empty(weight.shape, dtype=torch.int8), scale


def _unpacked_quantized(weight: Tensor, in_channels: int, groups: int, kernel_size: int = 1) -> tuple[Tensor, Tensor]:
    return _quantized(weight.new_empty((weight.shape[0], in_channels // groups, kernel_size), dtype=torch.int8))


def _unpacked(weight: Tensor, in_channels: int, groups: int) -> Tensor:
    return weight.new_empty((weight.shape[0], in_channels // groups), dtype=torch.float32)


def _unpacked_layer(layer: Tensor, channels: int, intermediate_channels: int, groups: Sequence[int]) -> list[Tensor]:
    widths = [(channels, channels)] * 4 + [(intermediate_channels, channels), (channels, intermediate_channels)]
    sizes: list[tuple[int, ...]] = []
    for index, ((out_channels, in_channels), count) in enumerate(zip(widths, groups, strict=True)):
        sizes += [(out_channels, in_channels // count), (out_channels,)]
        if index in (3, 5):  # post_attention and output end in a LayerNorm
            sizes += [(channels,)] * 2
    return [layer.new_empty(size, dtype=torch.float32) for size in sizes]


def _like_first(input: Tensor, *_: object) -> Tensor:
    return input.new_empty(input.shape)


def _convolved(input: Tensor, weight: Tensor, *_: object) -> Tensor:
    return input.new_empty((*input.shape[:-1], weight.shape[0]))


def _embedded(
    input_ids: Tensor, token_type_ids: Tensor | None, position_ids: Tensor | None, word_embeddings: Tensor, *_: object
) -> Tensor:
    return word_embeddings.new_empty((*input_ids.shape, word_embeddings.shape[1]))


def _encoded(
    input: Tensor,
    params: Sequence[Tensor],
    num_heads: int,
    groups: Sequence[int],
    eps: float,
    mask: Tensor | None = None,
    cu_seqlens: Tensor | None = None,
    first_token_only: bool = False,
) -> Tensor:
    if not first_token_only:
        return input.new_empty(input.shape)
    if cu_seqlens is not None:
        return input.new_empty((cu_seqlens.shape[0] - 1, input.shape[-1]))
    return input.new_empty((input.shape[0] if input.dim() == 3 else 1, input.shape[-1]))


def _on_one_device(name: str, fake: Callable[..., Any]) -> Callable[..., Any]:
    """`fake`, after checking that all tensors (but cu_seqlens, always on the CPU) are on the first one's device."""
    arguments = getattr(torch.ops.squeezebert, name).default._schema.arguments

    @functools.wraps(fake)
    def checked(*values: object) -> Any:
        device = None
        for argument, value in zip(arguments, values, strict=False):
            if argument.name == "cu_seqlens":
                continue
            for tensor in value if isinstance(value, (list, tuple)) else (value,):
                if not isinstance(tensor, Tensor):
                    continue
                if device is None:
                    device = tensor.device
                elif tensor.device != device:
                    raise ValueError(
                        f"squeezebert::{name}: {argument.name}: expected a tensor on {device}, where "
                        f"{arguments[0].name} is, got one on {tensor.device}"
                    )
        return fake(*values)

    return checked
