"""How the layers of a model run: as many as go together in one call of the encoder, others a step at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .packed import Linear

_ops = torch.ops.squeezebert


@dataclass(frozen=True)
class Layer:
    """A layer as it was read: six linears in the operators' order, where one that cannot be packed is the module;
    weight and bias of both LayerNorms. token_major: foreign modules take [..., C], not [N, C, S]."""

    linears: list[Linear | nn.Module]
    norms: list[Tensor]
    heads: int
    eps: float
    token_major: bool

    def on(self, twins: dict[int, nn.Module]) -> Layer:
        """The layer with its modules' twins in their places."""
        return replace(self, linears=[twins.get(id(linear), linear) for linear in self.linears])

    @property
    def whole(self) -> bool:
        return all(isinstance(linear, Linear) for linear in self.linears)

    @property
    def numbers(self) -> tuple[Any, ...]:
        """Layers that agree in this go together in one call. None of a layer that is not whole."""
        return (self.heads, self.eps, [linear.groups for linear in self.linears if isinstance(linear, Linear)])


class WholeLayers:
    """Layers that one call of the encoder computes. form: of a linear's weight, or a float parameter, the operand."""

    def __init__(self, layers: list[Layer], form: Callable[[Any], Tensor]) -> None:
        self.heads, self.eps, self.groups = layers[0].numbers
        self.params: list[Tensor] = []
        for layer in layers:
            for position, linear in enumerate(layer.linears):
                assert isinstance(linear, Linear)
                self.params += (form(linear), form(linear.bias))
                if position in (3, 5):  # post_attention and output end in a LayerNorm
                    self.params += map(form, layer.norms[position - 3 :][:2])

    def run(self, rows: Tensor, mask: Tensor | None, cu_seqlens: Tensor | None, first_token: bool) -> Tensor:
        return _ops.encoder.default(rows, self.params, self.heads, self.groups, self.eps, mask, cu_seqlens, first_token)


class MixedLayer:
    """A layer with linears of a foreign kind (LoRA, quantized, ...): those run as their own modules."""

    def __init__(self, layer: Layer, form: Callable[[Any], Tensor], dtype: torch.dtype) -> None:
        self._layer, self._dtype = layer, dtype
        self._linears = [(form(x), form(x.bias), x.groups) if isinstance(x, Linear) else x for x in layer.linears]
        self._norms = [form(value) for value in layer.norms]

    def run(self, rows: Tensor, mask: Tensor | None, cu_seqlens: Tensor | None, first_token: bool) -> Tensor:
        """[N, S, C], without cu_seqlens."""
        query, key, value = (self._linear(index, rows) for index in range(3))
        context = _ops.attention.default(query, key, value, self._layer.heads, mask)
        if first_token:
            context, rows = context[:, 0], rows[:, 0]
        rows = self._add_and_norm(3, context, rows)
        return self._add_and_norm(5, F.gelu(self._linear(4, rows)), rows)

    def _linear(self, index: int, rows: Tensor) -> Tensor:
        linear = self._linears[index]
        if isinstance(linear, tuple):
            return _ops.grouped_conv1x1.default(rows, *linear)
        rows = rows.to(self._dtype)
        if self._layer.token_major:
            return linear(rows).float()
        wide = rows if rows.dim() == 3 else rows.unsqueeze(1)
        return linear(wide.transpose(1, 2)).transpose(1, 2).float().reshape(*rows.shape[:-1], -1)

    def _add_and_norm(self, index: int, rows: Tensor, residual: Tensor) -> Tensor:
        linear, norm = self._linears[index], self._norms[index - 3 :][:2]
        if isinstance(linear, tuple):
            return _ops.grouped_conv1x1_add_layer_norm.default(rows, *linear, residual, *norm, self._layer.eps)
        return F.layer_norm(self._linear(index, rows) + residual, norm[0].shape, norm[0], norm[1], self._layer.eps)


def runs(layers: list[Layer], form: Callable[[Any], Tensor], dtype: torch.dtype) -> list[Any]:
    """The layers in as few pieces as can be, each of which has `run`. dtype: what foreign modules take."""
    pieces: list[Any] = []
    for group in _together(layers):
        pieces.append(WholeLayers(group, form) if group[0].whole else MixedLayer(group[0], form, dtype))
    return pieces


def _together(layers: Iterable[Layer]) -> Iterator[list[Layer]]:
    group: list[Layer] = []
    for layer in layers:
        if group and not (layer.whole and group[0].whole and layer.numbers == group[0].numbers):
            yield group
            group = []
        group.append(layer)
    yield group
