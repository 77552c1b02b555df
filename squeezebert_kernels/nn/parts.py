"""What a block is made of, read once, and whether it still is: a few passes over flat lists before each call."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from operator import is_
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from ..packed import Linear
from .plain import encoder as plain

_get: Callable[[Mapping[str, Any], str], Any] = dict.get  # type: ignore[assignment]

# What the parts read of themselves when they are called.
_ATTRIBUTES = ("training", "p", "eps", "groups", "num_heads", "act")
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


@dataclass(frozen=True)
class Parts:
    """The layers of a block in the terms of `ops.encoder`.

    reason: why one operator does not compute what they do, None where it does; the rest is empty unless it does.
    linears: the six convolutions of each layer. params: as `ops.encoder` takes them, None where a convolution's weight
    belongs. numbers: num_heads, groups, eps.
    """

    reason: str | None
    linears: list[Linear]
    params: list[Tensor | None]
    numbers: tuple[int, list[int], float]

    def with_weights(self, weights: Sequence[Tensor]) -> list[Tensor]:
        """`params` with `weights` in their places."""
        rest = iter(weights)
        return [next(rest) if param is None else param for param in self.params]


class Snapshot:
    """The modules below `root`: which they are, their classes, parameters, hooks, and what they compute with."""

    def __init__(self, root: nn.Module) -> None:
        self._modules = list(root.modules())[1:]
        self._kinds = list(map(type, self._modules))
        self._hooks = [getattr(module, name) for module in self._modules for name in _HOOKS]
        self._sized = [root._modules]
        entries: list[tuple[Mapping[str, Any], str, Any]] = [(root._modules, *item) for item in root._modules.items()]
        for module in self._modules:
            self._sized += (module._modules, module.__dict__)  # a forward of its own is one more entry
            entries += [(owner, *item) for owner in (module._modules, module._parameters) for item in owner.items()]
            values = vars(module)
            entries += [(values, name, values[name]) for name in _ATTRIBUTES if name in values]
        self._owners, self._keys, self._values = map(list, zip(*entries, strict=True))
        self._sizes = list(map(len, self._sized))

    def holds(self) -> bool:
        return (
            all(map(is_, map(_get, self._owners, self._keys), self._values))
            and list(map(len, self._sized)) == self._sizes
            and list(map(type, self._modules)) == self._kinds
            and not any(self._hooks)
        )


def read_parts(layers: Sequence[Any], *kinds: type[nn.Module]) -> Parts:
    """The parts of `layers`, each of one of the very classes `kinds`; none: whatever is derived from a plain layer."""
    reason = None if layers else "there are no layers"
    if kinds and not all(as_built(layer, *kinds) for layer in layers):
        reason = "a layer was replaced or has hooks"
    reason = reason or next(filter(None, map(_own_way, layers)), None)
    if reason is None and any(_numbers(layer) != _numbers(layers[0]) for layer in layers[1:]):
        reason = "the layers' group counts, heads or epsilons differ"
    if reason is not None:
        return Parts(reason, [], [], (0, [], 0.0))
    linears: list[Linear] = []
    params: list[Tensor | None] = []
    for layer in layers:
        for index, conv in enumerate(_convolutions(layer)):
            linears.append(Linear(f"convolution {len(linears)}", conv.weight, conv.bias, conv.groups))
            params += (None, conv.bias)
            if index in (3, 5):  # post_attention and output end in a LayerNorm
                norm = (layer.post_attention if index == 3 else layer.output).layernorm
                params += (norm.weight, norm.bias)
    return Parts(None, linears, params, _numbers(layers[0]))


def as_built(module: nn.Module, *kinds: type[nn.Module]) -> bool:
    """`module` is of one of these very classes, and nothing listens to its calls or has replaced its forward."""
    hooked = any(getattr(module, name) for name in _HOOKS)
    return type(module) in kinds and not hooked and "forward" not in module.__dict__


def drops(dropout: Any) -> bool:
    return dropout.training and dropout.p > 0.0


def _own_way(layer: Any) -> str | None:
    """Why one operator does not compute what `layer` does; None where it does."""
    attention, first, inner, second = layer.attention, layer.post_attention, layer.intermediate, layer.output
    blocks = (
        as_built(attention, plain.SqueezeBertSelfAttention)
        and as_built(inner, plain.ConvActivation)
        and as_built(first, plain.ConvDropoutLayerNorm)
        and as_built(second, plain.ConvDropoutLayerNorm)
    )
    if not blocks:
        return "a part of a layer was replaced or has hooks"
    dropouts = (attention.dropout, first.dropout, second.dropout)
    norms, convolutions = (first.layernorm, second.layernorm), _convolutions(layer)
    if not (
        all(as_built(conv, plain.GroupedConv1x1) for conv in convolutions)
        and all(as_built(dropout, nn.Dropout) for dropout in dropouts)
        and all(as_built(norm, nn.LayerNorm) for norm in norms)
    ):
        return "a part of a layer was replaced or has hooks"
    if any(map(drops, dropouts)):
        return "dropout is active (training mode)"
    if inner.act is not F.gelu or norms[0].eps != norms[1].eps:
        return "a layer has another activation than GELU, or two epsilons"
    if any(part.bias is None for part in (*convolutions, *norms)):
        return "a part of a layer has no bias"
    return None


def _convolutions(layer: Any) -> list[Any]:
    attention = layer.attention
    projections = [attention.query, attention.key, attention.value]
    return [*projections, layer.post_attention.conv1d, layer.intermediate.conv1d, layer.output.conv1d]


def _numbers(layer: Any) -> tuple[int, list[int], float]:
    groups = [convolution.groups for convolution in _convolutions(layer)]
    return layer.attention.num_heads, groups, layer.output.layernorm.eps
