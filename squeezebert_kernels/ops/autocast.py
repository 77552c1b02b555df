"""CPU autocast: the kernels compute in float32, to which ``torch.autocast("cpu")`` casts lower precisions.

Plain weights of 16 bits are cast with the rest; packed ones stay what they are. float64 is never cast and meets the
kernels' own dtype error.
"""

from __future__ import annotations

import torch

from .autograd import DIFFERENTIABLE

PACKING = (
    "pack_grouped_conv1x1",
    "pack_grouped_conv1d",
    "quantize_weight",
    "pack_quantized",
    "unpack_quantized",
    "unpack_grouped_conv1x1",
    "pack_encoder_layer",
    "unpack_encoder_layer",
)


def register(library: torch.library.Library) -> None:
    """Registers the casts of all operators."""
    for name in (*PACKING, *DIFFERENTIABLE):
        torch.library.register_autocast(f"squeezebert::{name}", "cpu", torch.float32, lib=library)
