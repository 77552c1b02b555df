"""SqueezeBERT's shapes, seeded inputs and weights, and what a pass costs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

HIDDEN, INTERMEDIATE, HEADS, LAYERS, EPS = 768, 3072, 12, 12, 1e-12
# query, key, value, post_attention (FFN1), intermediate (FFN2), output (FFN3)
GROUPS = (4, 4, 4, 1, 4, 4)
WIDTHS = ((HIDDEN, HIDDEN),) * 4 + ((HIDDEN, INTERMEDIATE), (INTERMEDIATE, HIDDEN))

# sequences x tokens. What is computed token by token cares about the product only.
SHAPES = {"1x8": (1, 8), "1x128": (1, 128), "8x128": (8, 128), "1x512": (1, 512)}
SENTENCES = (9, 17, 24, 31, 40, 52, 77, 128)
FLOAT = 4
# A convolution's output with its bias has root mean square 1.4; the largest of millions of errors wants the rest.
CONV_SIZE = 2.0

# The fixture `timed` of conftest.py.
Timed = Callable[..., None]


@dataclass(frozen=True)
class Layer:
    """A position-wise layer. `plain` is [out, in / groups(, K)], for the reference; `weight` what the backend takes."""

    plain: Tensor
    weight: Tensor
    bias: Tensor
    groups: int

    def flops(self, tokens: int) -> int:
        """2 per multiply-add; every weight meets every token once."""
        return 2 * tokens * self.plain.numel()


def layer(backend: ModuleType, inputs: int, outputs: int, groups: int, kernel_size: int | None = None) -> Layer:
    """A seeded layer, scaled so that outputs have the size of inputs."""
    count = backend.groups(groups)
    shape = (outputs, inputs // count) if kernel_size is None else (outputs, inputs // count, kernel_size)
    plain = torch.randn(shape) / fan_in(shape) ** 0.5
    return Layer(plain, backend.weight(plain, count), torch.randn(outputs), count)


def fan_in(shape: tuple[int, ...]) -> int:
    """Terms of the sum behind one output."""
    return torch.Size(shape[1:]).numel()


def norm() -> tuple[Tensor, Tensor]:
    """Weight and bias of a LayerNorm over the hidden size."""
    return 1 + 0.1 * torch.randn(HIDDEN), 0.1 * torch.randn(HIDDEN)


def activations(shape: tuple[int, int], channels: int = HIDDEN) -> Tensor:
    """[N, S, channels]."""
    return torch.randn(*shape, channels)


def attention_flops(shape: tuple[int, int]) -> int:
    """Q K^T and P V of every head."""
    sequences, length = shape
    return 4 * HIDDEN * sequences * length**2


def exact(value: Any) -> Any:
    """float64 for the reference: tensors, and layers' plain weights, inside any tuple or list."""
    if isinstance(value, Tensor):
        return value.double() if value.is_floating_point() else value
    if isinstance(value, tuple | list):
        return [exact(item) for item in value]
    return value
