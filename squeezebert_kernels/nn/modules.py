"""The kernels as nn.Modules, to build models from: layers of one operator each, and whole SqueezeBERT blocks.

Layout is token-major ([..., channels]); for Hugging Face's [N, C, W] pass `x.transpose(1, 2)`, whose strides are taken
as they are. Parameters have the names and shapes of Hugging Face's blocks, so state_dicts fit. Weights are packed at
the first call that wants no gradient, and again when they change; calls that want one use the plain weights, which the
operators pack each time (and so does GroupedConv1d in every call).

A block is one operator as long as its parts are what it made of them. Where one drops out, was replaced (an adapter, a
parametrization), given hooks or other numbers than its neighbours, the parts run one by one in plain PyTorch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from .. import ops
from .activations import ACTIVATIONS
from .config import BLOCK_LAYER_NORM_EPS, SqueezeBertConfig
from .packing import Packing, packed_module
from .plain import encoder as plain

__all__ = [
    "GroupedConv1d",
    "GroupedConv1x1",
    "GroupedConv1x1AddLayerNorm",
    "GroupedConv1x1GELU",
    "SqueezeBertEncoder",
    "SqueezeBertLayer",
]


class GroupedConv1x1(Packing, plain.GroupedConv1x1):
    """nn.Conv1d(in_channels, out_channels, kernel_size=1, groups=groups) on tokens: [..., in] -> [..., out]."""

    def forward(self, input: Tensor) -> Tensor:
        if self.is_opaque(input):
            return packed_module(self._handle, self.out_channels, input)
        (weight,) = self.packed_weights([self], input, self.bias)
        return self._compute(input, weight)

    def _compute(self, input: Tensor, weight: Tensor) -> Tensor:
        return ops.grouped_conv1x1(input, weight, self.bias, self.groups)


class GroupedConv1x1GELU(GroupedConv1x1):
    """GroupedConv1x1 and exact GELU in one pass: FFN2."""

    def _compute(self, input: Tensor, weight: Tensor) -> Tensor:
        return ops.grouped_conv1x1_gelu(input, weight, self.bias, self.groups)


class GroupedConv1x1AddLayerNorm(Packing):
    """layernorm(dropout(conv1d(input)) + residual), in one pass where no dropout is active: FFN1 and FFN3."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        groups: int = 1,
        dropout: float = 0.0,
        eps: float = BLOCK_LAYER_NORM_EPS,
    ) -> None:
        super().__init__()
        self.conv1d = GroupedConv1x1(in_channels, out_channels, groups)
        self.layernorm = nn.LayerNorm(out_channels, eps=eps)
        self.dropout = nn.Dropout(dropout)

    def forward(self, input: Tensor, residual: Tensor) -> Tensor:
        """input: [..., in_channels]. residual: [..., out_channels]."""
        conv, norm, dropout = self.conv1d, self.layernorm, self.dropout
        kinds = ((conv, GroupedConv1x1), (norm, nn.LayerNorm), (dropout, nn.Dropout))
        if _drops(dropout) or not all(_as_built(part, kind) for part, kind in kinds):
            return norm(dropout(conv(input)) + residual)
        if self.is_opaque(input, residual):
            return packed_module(self._handle, conv.out_channels, input, residual)
        (weight,) = self.packed_weights([conv], input, residual, conv.bias, norm.weight, norm.bias)
        return ops.grouped_conv1x1_add_layer_norm(
            input, weight, conv.bias, conv.groups, residual, norm.weight, norm.bias, norm.eps
        )


class GroupedConv1d(nn.Conv1d):
    """nn.Conv1d along the sequence with 'same' padding and an odd kernel size: [N, S, in] -> [N, S, out]."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, groups: int = 1) -> None:
        super().__init__(in_channels, out_channels, kernel_size, padding=kernel_size // 2, groups=groups)

    def forward(self, input: Tensor, cu_seqlens: Tensor | None = None) -> Tensor:
        """input: [N, S, in], [S, in], or packed tokens [T, in] with int32 cu_seqlens [N + 1]."""
        return ops.grouped_conv1d(input, self.weight, self.bias, self.groups, cu_seqlens)


class SqueezeBertLayer(Packing, plain.SqueezeBertLayer):
    """One layer of SqueezeBERT, with the parameters of Hugging Face's SqueezeBertModule."""

    def __init__(self, config: SqueezeBertConfig) -> None:
        _check_activation(config)
        super().__init__(config)

    def forward(  # type: ignore[override]
        self, hidden_states: Tensor, mask: Tensor | None = None, cu_seqlens: Tensor | None = None
    ) -> Tensor:
        """[N, S, C] with a mask as `ops.attention` takes it, or packed [T, C] with cu_seqlens. Keeps the shape."""
        if _must_step([self], cu_seqlens):
            return super().forward(hidden_states, mask, None)[0]
        if self.is_opaque(hidden_states, mask):
            return packed_module(self._handle, hidden_states.shape[-1], hidden_states, mask, cu_seqlens)
        arguments = _encoder_arguments(self, [self], hidden_states, mask)
        return ops.encoder_layer(hidden_states, *arguments, mask, cu_seqlens)


class SqueezeBertEncoder(Packing, plain.SqueezeBertEncoder):
    """All layers in one call, with the parameters of Hugging Face's SqueezeBertEncoder."""

    def __init__(self, config: SqueezeBertConfig) -> None:
        _check_activation(config)
        super().__init__(config)

    def forward(  # type: ignore[override]
        self,
        hidden_states: Tensor,
        mask: Tensor | None = None,
        cu_seqlens: Tensor | None = None,
        first_token_only: bool = False,
    ) -> Tensor:
        """As SqueezeBertLayer; first_token_only: only each sequence's first token, [N, C] (N = 1 for [S, C])."""
        layers = list(self.layers)
        if not layers or _must_step(layers, cu_seqlens, replaced=not all(map(_is_layer, layers))):
            for layer in layers:
                output = layer(hidden_states, mask, None)
                hidden_states = output if isinstance(output, Tensor) else output[0]
            first = hidden_states[:, 0] if hidden_states.dim() == 3 else hidden_states[:1]
            return first if first_token_only else hidden_states
        if self.is_opaque(hidden_states, mask):
            channels = hidden_states.shape[-1]
            return packed_module(self._handle, channels, hidden_states, mask, cu_seqlens, first_token_only)
        arguments = _encoder_arguments(self, layers, hidden_states, mask)
        return ops.encoder(hidden_states, *arguments, mask, cu_seqlens, first_token_only)


def _check_activation(config: SqueezeBertConfig) -> None:
    if ACTIVATIONS[config.hidden_act] is not F.gelu:
        raise ValueError(
            f"hidden_act: expected 'gelu', the exact GELU that the kernels compute, got {config.hidden_act!r}"
        )


def _drops(dropout: Any) -> bool:
    return dropout.training and dropout.p > 0.0


def _as_built(module: nn.Module, kind: type[nn.Module]) -> bool:
    """`module` is of that very class, and nothing listens to its calls or has replaced its forward."""
    return type(module) is kind and not (
        module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
        or "forward" in module.__dict__
    )


def _is_layer(module: nn.Module) -> bool:
    return _as_built(module, plain.SqueezeBertLayer) or _as_built(module, SqueezeBertLayer)


def _must_step(layers: Sequence[Any], cu_seqlens: Tensor | None, replaced: bool = False) -> bool:
    """Whether the layers' parts have to be called one by one. ValueError beside cu_seqlens, which those do not take."""
    reason = "a layer was replaced or has hooks" if replaced else next(filter(None, map(_own_way, layers)), None)
    if reason is None and any(_numbers(layer) != _numbers(layers[0]) for layer in layers[1:]):
        reason = "the layers' group counts, heads or epsilons differ"
    if reason is not None and cu_seqlens is not None:
        raise ValueError(f"cu_seqlens: expected None while {reason}, got offsets")
    return reason is not None


def _own_way(layer: Any) -> str | None:
    """Why one operator does not compute what `layer` does; None where it does."""
    attention, first, inner, second = layer.attention, layer.post_attention, layer.intermediate, layer.output
    kinds = [
        (attention, plain.SqueezeBertSelfAttention),
        (inner, plain.ConvActivation),
        (first, plain.ConvDropoutLayerNorm),
        (second, plain.ConvDropoutLayerNorm),
    ]
    if all(_as_built(module, kind) for module, kind in kinds):
        kinds = [(conv, plain.GroupedConv1x1) for conv in _convolutions(layer)]
        kinds += [(norm, nn.LayerNorm) for norm in (first.layernorm, second.layernorm)]
        dropouts = (attention.dropout, first.dropout, second.dropout)
        kinds += [(dropout, nn.Dropout) for dropout in dropouts]
        if any(_drops(dropout) for dropout in dropouts if isinstance(dropout, nn.Dropout)):
            return "dropout is active (training mode)"
    if not all(_as_built(module, kind) for module, kind in kinds):
        return "a part of a layer was replaced or has hooks"
    norms = (first.layernorm, second.layernorm)
    if inner.act is not F.gelu or norms[0].eps != norms[1].eps or any(norm.bias is None for norm in norms):
        return "a layer has another activation than GELU, two epsilons, or a LayerNorm without parameters"
    return None


def _convolutions(layer: Any) -> list[Any]:
    attention = layer.attention
    projections = [attention.query, attention.key, attention.value]
    return [*projections, layer.post_attention.conv1d, layer.intermediate.conv1d, layer.output.conv1d]


def _numbers(layer: Any) -> tuple[int, list[int], float]:
    """num_heads, groups, eps of `layer`, as `ops.encoder` takes them."""
    groups = [convolution.groups for convolution in _convolutions(layer)]
    return layer.attention.num_heads, groups, layer.output.layernorm.eps


def _encoder_arguments(
    owner: Packing, layers: Sequence[Any], *inputs: Tensor | None
) -> tuple[list[Tensor], int, list[int], float]:
    """What `ops.encoder` takes for `layers`: params, num_heads, groups, eps. `owner` keeps their packed weights."""
    convolutions = [convolution for layer in layers for convolution in _convolutions(layer)]
    norms = [norm for layer in layers for norm in (layer.post_attention.layernorm, layer.output.layernorm)]
    rest = [module.bias for module in (*convolutions, *norms)] + [norm.weight for norm in norms]
    weights = owner.packed_weights(convolutions, *inputs, *rest)
    params: list[Tensor] = []
    for index, (convolution, weight) in enumerate(zip(convolutions, weights, strict=True)):
        params += [weight, convolution.bias]
        if index % 6 in (3, 5):  # post_attention and output end in a LayerNorm
            norm = norms[index // 6 * 2 + (index % 6 == 5)]
            params += [norm.weight, norm.bias]
    return params, *_numbers(layers[0])
