"""An operator's result beside the exact one: the reference's, of the same arguments in float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from python_ref import ops as reference
from tolerances import float32_bound, size_of


def map_tensors(function: Callable[[Tensor], Any], value: Any) -> Any:
    """`value` with function(tensor) in place of every tensor, also in lists and dictionaries."""
    if isinstance(value, Tensor):
        return function(value)
    if isinstance(value, (list, tuple)):
        return [map_tensors(function, v) for v in value]
    if isinstance(value, dict):
        return {key: map_tensors(function, v) for key, v in value.items()}
    return value


def tensors(value: Any) -> list[Tensor]:
    """All tensors in `value`, in order."""
    found: list[Tensor] = []
    map_tensors(found.append, value)
    return found


def exact(operator: Callable[..., Tensor], arguments: dict[str, Any]) -> Tensor:
    """What the reference gives for the same arguments in float64."""
    wide = map_tensors(lambda t: t.double() if t.dtype == torch.float32 else t, arguments)
    return getattr(reference, operator.__name__)(**wide)


def assert_close(actual: Tensor, expected: Tensor, *reductions: int) -> None:
    """float32 against float64, within the bound for a chain of reductions of these lengths. NaN equals NaN."""
    assert actual.dtype == torch.float32
    bound = float32_bound(*reductions, size=size_of(expected[expected.isfinite()]))
    torch.testing.assert_close(actual.double(), expected, rtol=0.0, atol=bound, equal_nan=True)
