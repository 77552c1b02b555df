"""Gives torch.ops.squeezebert.* their bodies for CUDA tensors. Triton is imported by the first call of one."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from ..ops.autograd import DIFFERENTIABLE

# Operator -> the module of this package that has it.
MODULES = {
    "pack_grouped_conv1x1": "pack",
    "pack_grouped_conv1d": "pack",
    "quantize_weight": "pack",
    "pack_quantized": "pack",
    "unpack_quantized": "pack",
    "grouped_conv1x1": "grouped_conv1x1",
    "grouped_conv1x1_gelu": "grouped_conv1x1",
    "grouped_conv1x1_add_layer_norm": "grouped_conv1x1",
    "grouped_conv1d": "grouped_conv1d",
    "attention": "attention",
    "grouped_qkv_attention": "grouped_qkv_attention",
    "grouped_ffn": "grouped_ffn",
    "embedding_layer_norm": "embedding_layer_norm",
    "encoder_layer": "encoder_layer",
    "encoder": "encoder",
}


def register(library: torch.library.Library) -> None:
    """Registers the CUDA bodies and CUDA autocast of all operators."""
    for name in MODULES:
        library.impl(name, _body(name), "CUDA")
    for name in DIFFERENTIABLE:
        library.impl(name, _autocast(name), "AutocastCUDA")


def operator(name: str) -> Callable[..., Tensor]:
    """The function behind torch.ops.squeezebert.<name> on CUDA. Raises RuntimeError where Triton is missing."""
    try:
        return getattr(import_module(f".{MODULES[name]}", __package__), name)
    except ImportError as error:
        if (error.name or "").partition(".")[0] != "triton":
            raise
        raise RuntimeError(
            f"squeezebert::{name}: expected Triton, which runs this library on CUDA tensors, got {error}; install it "
            "with `pip install 'squeezebert_kernels[gpu]'`, or move the tensors to the CPU"
        ) from error


def _body(name: str) -> Callable[..., Tensor]:
    found: list[Callable[..., Tensor]] = []

    def body(*arguments: Any) -> Tensor:
        if not found:
            found.append(operator(name))
        return found[0](*arguments)

    return body


def _autocast(name: str) -> Callable[..., Tensor]:
    """Casts what the kernels compute with to the dtype of ``torch.autocast("cuda")``: all but masks and ids."""
    overload = getattr(torch.ops.squeezebert, name).default
    casts = [argument.name not in ("mask", "cu_seqlens") for argument in overload._schema.arguments]

    def body(*arguments: Any) -> Tensor:
        dtype = torch.get_autocast_dtype("cuda")
        with torch._C._ExcludeDispatchKeyGuard(torch._C.DispatchKeySet(torch._C.DispatchKey.AutocastCUDA)):
            return overload(
                *(_cast(value, dtype) if cast else value for value, cast in zip(arguments, casts, strict=False))
            )

    return body


def _cast(value: Any, dtype: torch.dtype) -> Any:
    """As PyTorch's autocast: floating-point tensors on CUDA, but for float64."""
    if isinstance(value, (list, tuple)):
        return [_cast(item, dtype) for item in value]
    if isinstance(value, Tensor) and value.is_cuda and value.is_floating_point() and value.dtype != torch.float64:
        return value.to(dtype)
    return value
