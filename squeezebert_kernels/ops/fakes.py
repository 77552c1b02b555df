"""Fake kernels: the shape each operator returns, for `torch.compile`, `torch.export` and meta tensors.

The arguments were not checked yet where these run; what is wrong in them, the real kernels say when they are called.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from ..triton.packed_format import packed_shape


class _ConvShape(ctypes.Structure):
    """squeezebert_conv_shape of csrc/include/squeezebert.h."""

    _fields_ = [(name, ctypes.c_int64) for name in ("out_channels", "in_channels", "groups", "kernel_size")]


def register(library: torch.library.Library, core: Path) -> None:
    """Registers the fakes of all operators. `core`: path of libsqueezebert.so, which knows packed weights' sizes."""
    library_of_core = ctypes.CDLL(str(core))
    packed_size, format_name = library_of_core.squeezebert_packed_size, library_of_core.squeezebert_format_name
    format_name.restype = ctypes.c_char_p
    formats: dict[torch.dtype, int] = {}
    while name := format_name(len(formats)):
        formats[getattr(torch, name.decode())] = len(formats)

    def pack(weight: Tensor, groups: int) -> Tensor:
        if weight.device.type == "cuda":
            return weight.new_empty(packed_shape(weight), dtype=torch.uint8)
        # A packed size is a step function of the shape: a symbolic shape is specialised here.
        out_channels, in_channels = int(weight.shape[0]), int(weight.shape[1]) * groups
        kernel_size = int(weight.shape[2]) if weight.dim() == 3 else 1
        shape = _ConvShape(out_channels, in_channels, groups, kernel_size)
        size = ctypes.c_size_t()
        format = formats.get(weight.dtype, 0)
        status = packed_size(ctypes.byref(shape), format, ctypes.byref(size))
        if status != 0:
            raise ValueError(f"squeezebert: groups: expected a divisor of {out_channels} output channels, got {groups}")
        return weight.new_empty((out_channels, -(-size.value // out_channels)), dtype=torch.uint8)

    fakes: dict[str, Callable[..., Tensor]] = {
        "pack_grouped_conv1x1": pack,
        "pack_grouped_conv1d": pack,
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


def _on_one_device(name: str, fake: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """`fake`, after checking that all tensors (but cu_seqlens, always on the CPU) are on the first one's device."""
    arguments = getattr(torch.ops.squeezebert, name).default._schema.arguments

    @functools.wraps(fake)
    def checked(*values: object) -> Tensor:
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
