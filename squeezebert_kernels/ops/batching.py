"""`torch.vmap` over the operators: one call for each slice of the batched arguments.

A row's bits do not depend on what else is computed, so this is what the calls one after the other give, to the bit.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from .autocast import PACKING
from .autograd import DIFFERENTIABLE
from .training import NAMES as TRAINING


def register(library: torch.library.Library) -> None:
    """Registers the rule for all operators and their backwards."""
    for name in (*PACKING, *DIFFERENTIABLE, *(f"{name}_backward" for name in DIFFERENTIABLE), *TRAINING):
        torch.library.register_vmap(f"squeezebert::{name}", _one_by_one(name), lib=library)


def _one_by_one(name: str) -> Callable[..., tuple[Any, Any]]:
    overload = getattr(torch.ops.squeezebert, name).default

    def rule(info: Any, in_dims: tuple[Any, ...], *arguments: Any) -> tuple[Any, Any]:
        values, structure = pytree.tree_flatten(arguments)
        dims = pytree.tree_flatten(in_dims, is_leaf=lambda dim: dim is None)[0]
        outputs = [
            overload(*structure.unflatten([_slice(value, dim, index) for value, dim in zip(values, dims, strict=True)]))
            for index in range(info.batch_size)
        ]
        if isinstance(outputs[0], Tensor):
            return torch.stack(outputs), 0
        stacked = [torch.stack(parts) for parts in zip(*outputs, strict=True)]
        return stacked, [0] * len(stacked)

    return rule


def _slice(value: Any, dim: int | None, index: int) -> Any:
    return value if dim is None else value.select(dim, index)
