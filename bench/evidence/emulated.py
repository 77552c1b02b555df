"""int8 as it would be with coarser scales: the position-wise layers of a `transformers` model, fake-quantized.

Inputs and weights are rounded to the values that int8 could hold, and multiplied in float32. Everything else, attention
too, stays float32, which favours what is emulated over what the kernels do.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

LEVELS = 127


@contextmanager
def per_tensor(model: nn.Module) -> Iterator[None]:
    """While it lasts the model's Conv1d read inputs and weights with one scale per tensor, found at every call."""
    layers = [module for module in model.modules() if isinstance(module, nn.Conv1d)]
    originals = [layer.weight.detach().clone() for layer in layers]
    hooks = [layer.register_forward_pre_hook(_round_input) for layer in layers]
    try:
        for layer in layers:
            layer.weight.data.copy_(rounded(layer.weight.data))
        yield
    finally:
        for hook in hooks:
            hook.remove()
        for layer, original in zip(layers, originals, strict=True):
            layer.weight.data.copy_(original)


def rounded(values: Tensor) -> Tensor:
    """The nearest of 2 * LEVELS + 1 evenly spaced values up to the largest magnitude."""
    scale = values.abs().amax() / LEVELS
    return (values / scale).round() * scale


def _round_input(layer: nn.Module, arguments: tuple[Any, ...]) -> tuple[Tensor]:
    (values,) = arguments
    return (rounded(values),)
