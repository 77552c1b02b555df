"""The activation functions that `hidden_act` may name, by Hugging Face's names (those without parameters)."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor


def gelu_tanh(input: Tensor) -> Tensor:
    """The tanh approximation of GELU (Hendrycks and Gimpel 2016, arXiv 1606.08415, section 2)."""
    return F.gelu(input, approximate="tanh")


def gelu_clipped(input: Tensor) -> Tensor:
    """Exact GELU held within -10 and 10 (Wu et al. 2020, arXiv 2004.09602, section 4)."""
    return F.gelu(input).clamp(-10.0, 10.0)


def quick_gelu(input: Tensor) -> Tensor:
    """The sigmoid approximation of GELU (arXiv 1606.08415, section 2)."""
    return input * torch.sigmoid(1.702 * input)


def laplace(input: Tensor) -> Tensor:
    """The integral of a normal density of mean sqrt(1/2) and variance 1 / (4 pi) (Ma et al. 2022, arXiv 2209.10655).

    The constants are rounded as Hugging Face rounds them.
    """
    return 0.5 * (1.0 + torch.erf((input - 0.707107) / (0.282095 * math.sqrt(2.0))))


def relu_squared(input: Tensor) -> Tensor:
    """relu(x)^2 (So et al. 2021, arXiv 2109.08668)."""
    return F.relu(input).square()


def identity(input: Tensor) -> Tensor:
    return input


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_10": gelu_clipped,
    "gelu_accurate": gelu_tanh,
    "gelu_fast": gelu_tanh,
    "gelu_new": gelu_tanh,
    "gelu_python": F.gelu,
    "gelu_python_tanh": gelu_tanh,
    "gelu_pytorch_tanh": gelu_tanh,
    "hardswish": F.hardswish,
    "laplace": laplace,
    "leaky_relu": F.leaky_relu,
    "linear": identity,
    "mish": F.mish,
    "quick_gelu": quick_gelu,
    "relu": F.relu,
    "relu2": relu_squared,
    "relu6": F.relu6,
    "sigmoid": torch.sigmoid,
    "silu": F.silu,
    "swish": F.silu,
    "tanh": torch.tanh,
}
