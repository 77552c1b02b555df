"""Modules that keep packed forms of their weights: when these serve, and how torch.compile sees such a module.

A graph holds one opaque operator for a call of a module that wants no gradient. It calls the module itself, so weights
are packed once in compiled models too, and again when they change. Where a gradient is wanted, and in exported
programs, the kernels' operators stand in the graph, and take the plain weights.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from operator import is_
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from .. import opaque
from ..packed import Linear, Packed
from ..precision import Dtype, as_dtype

if TYPE_CHECKING:
    from typing_extensions import Self


class Packing(nn.Module):
    """A module that keeps packed forms of its weights, outside its state and its copies."""

    _packed: Packed | None = None
    _dtype = torch.float32

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._register()

    def computing_in(self, dtype: Dtype) -> Self:
        """Packs weights (and attention's keys and values) as `dtype` from now on, where no gradient is wanted; returns
        the module. dtype: as for `squeezebert_kernels.optimize`. Parameters, inputs and outputs stay float32."""
        self._dtype = as_dtype("dtype", dtype)
        return self

    def packed_weights(self, linears: list[Linear], *tensors: Tensor | None) -> list[Tensor]:
        """The weights of `linears` as the operators take them, given the other `tensors` of the call."""
        weights = [linear.weight for linear in linears]
        if torch.compiler.is_compiling() or _wants_gradient((*tensors, *weights)):
            return weights
        if not all(map(_is_packable, weights)):
            return weights
        packed = self._packed
        if packed is None or packed.stale or not self._is_of(packed, weights):
            if not all(map(_lasts, weights)):
                return weights
            packed = Packed([replace(linear, dtype=self._dtype) for linear in linears])
            self._packed = packed
        packed.refresh()
        return packed.packed

    def _is_of(self, packed: Packed, weights: Sequence[Tensor]) -> bool:
        items: Any = packed.items
        return items[0].dtype == self._dtype and _same(weights, [item.weight for item in items])

    def is_opaque(self, *inputs: Tensor | None) -> bool:
        """Whether the call with these inputs is to be `opaque` in the graph that is being compiled."""
        # is_exporting() itself is always True to torch 2.10's Dynamo.
        if not torch.compiler.is_dynamo_compiling() or torch.compiler._is_exporting_flag:
            return False
        if torch.is_autocast_enabled("cpu"):  # whose casts are the operators'
            return False
        parameters = list(self.parameters())
        return all(map(_is_packable, (inputs[0], *parameters))) and not _wants_gradient((*inputs, *parameters))

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in ("_packed", "_handle")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._register()

    def opaque(self, *inputs: Tensor | None, first_token_only: bool = False) -> Tensor:
        """The call with these inputs, as one operator."""
        return opaque.call(self._handle, [*inputs], [first_token_only])[0]

    def channels_of(self, input: Any) -> int:
        """Of the output."""
        return input.shape[-1]

    def _opaque_call(self, tensors: Sequence[Tensor | None], flags: Sequence[bool]) -> list[Tensor]:
        given = (*tensors, *flags)
        return [self.forward(*given[: self.forward.__code__.co_argcount - 1])]

    def _opaque_like(self, tensors: Sequence[Any], flags: Sequence[bool]) -> list[Tensor]:
        input, channels = tensors[0], self.channels_of(tensors[0])
        if not flags[0]:
            return [input.new_empty(*input.shape[:-1], channels)]
        cu_seqlens = tensors[2]
        count = cu_seqlens.shape[0] - 1 if cu_seqlens is not None else input.shape[0] if input.dim() == 3 else 1
        return [input.new_empty(count, channels)]

    def _register(self) -> None:
        self._handle = opaque.register(self)


def _is_packable(tensor: Tensor | None) -> bool:
    return tensor is not None and tensor.dtype == torch.float32 and tensor.is_cpu


def _lasts(weight: Tensor) -> bool:
    """Not computed for this call alone, as a parametrization and torch.func's functions do."""
    return type(weight) is nn.Parameter and not torch._C._functorch.is_functorch_wrapped_tensor(weight)


def _wants_gradient(tensors: Iterable[Tensor | None]) -> bool:
    return torch.is_grad_enabled() and any(tensor is not None and tensor.requires_grad for tensor in tensors)


def _same(weights: Sequence[Tensor], others: Sequence[Tensor]) -> bool:
    return len(weights) == len(others) and all(map(is_, weights, others))
