"""Inputs for the tests of the reference operators."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def float64(*shape: int, requires_grad: bool = False) -> Tensor:
    """Normal random numbers in float64."""
    return torch.randn(*shape, dtype=torch.float64, requires_grad=requires_grad)


def layer_params(channels: int, inner: int, groups: Sequence[int], layers: int = 1) -> list[Tensor]:
    """The 16 tensors of each layer, float64, in the operators' order. Weights are [out, in / groups, 1], scaled so that
    activations keep their size.
    """
    q, k, v, post_attention, intermediate, output = groups

    def convolution(out_channels: int, in_channels: int, count: int) -> list[Tensor]:
        fan_in = in_channels // count
        return [float64(out_channels, fan_in, 1) * fan_in**-0.5, float64(out_channels) * 0.3]

    def layer_norm() -> list[Tensor]:
        return [1.0 + float64(channels) * 0.3, float64(channels) * 0.3]

    params: list[Tensor] = []
    for _ in range(layers):
        params += convolution(channels, channels, q) + convolution(channels, channels, k)
        params += convolution(channels, channels, v)
        params += convolution(channels, channels, post_attention) + layer_norm()
        params += convolution(inner, channels, intermediate) + convolution(channels, inner, output) + layer_norm()
    return params
