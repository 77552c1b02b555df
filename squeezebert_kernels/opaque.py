"""Modules that torch.compile is to see as one operator, which calls the module itself when the graph runs.

The graph stays whole, and what a module decides at a call, by its weights or by values, it decides at run time.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any
from weakref import WeakValueDictionary

import torch
from torch import Tensor, nn

_modules: WeakValueDictionary[int, nn.Module] = WeakValueDictionary()
_handles = itertools.count()


def register(module: nn.Module) -> int:
    """A number that stands for `module` in a graph, as long as it lives."""
    handle = next(_handles)
    _modules[handle] = module
    return handle


@torch.library.custom_op(
    "squeezebert_kernels::opaque", mutates_args=(), schema="(int handle, Tensor?[] tensors, bool[] flags) -> Tensor[]"
)
def call(handle: int, tensors: Sequence[Tensor | None], flags: Sequence[bool]) -> list[Tensor]:
    """What the module's `_opaque_call` returns: fresh tensors, which share no memory with each other.

    Its `_opaque_like` returns tensors of the same shapes and dtypes, made of the same arguments, which may be fake.
    """
    module: Any = _modules[handle]
    with torch.no_grad():
        return module._opaque_call(tensors, flags)


@call.register_fake
def _(handle: int, tensors: Sequence[Tensor | None], flags: Sequence[bool]) -> list[Tensor]:
    module: Any = _modules[handle]
    return module._opaque_like(tensors, flags)
