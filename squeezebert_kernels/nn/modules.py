"""The kernels as nn.Modules, to build models from: layers of one operator each, and whole SqueezeBERT blocks.

Layout is token-major ([..., channels]); for Hugging Face's [N, C, W] pass `x.transpose(1, 2)`, whose strides are taken
as they are. Parameters have the names and shapes of Hugging Face's blocks, so state_dicts fit. Weights are packed at
the first call that wants no gradient, and again when they change; calls that want one use the plain weights, which the
operators pack each time.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import is_
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import ops
from ..integration.packed import Linear, PackedLinears
from .activations import ACTIVATIONS
from .config import BLOCK_LAYER_NORM_EPS, SqueezeBertConfig
from .plain import encoder as plain

__all__ = [
    "GroupedConv1d",
    "GroupedConv1x1",
    "GroupedConv1x1AddLayerNorm",
    "GroupedConv1x1GELU",
    "SqueezeBertEncoder",
    "SqueezeBertLayer",
]


class _Packing(nn.Module):
    """A module that keeps packed forms of its convolutions' weights, outside its state and its copies."""

    _packed: PackedLinears | None = None

    def _operands(self, convolutions: Sequence[nn.Conv1d], *tensors: Tensor | None) -> list[Tensor]:
        """The convolutions' weights as the operators take them, given the other `tensors` of the call."""
        weights = [convolution.weight for convolution in convolutions]
        wants_gradient = torch.is_grad_enabled() and any(
            tensor is not None and tensor.requires_grad for tensor in (*tensors, *weights)
        )
        if (
            wants_gradient
            or torch.compiler.is_compiling()
            or any(w.dtype != torch.float32 or not w.is_cpu for w in weights)
        ):
            return weights
        packed = self._packed
        if packed is None or packed.stale or not all(map(is_, weights, [linear.weight for linear in packed.linears])):
            linears = [
                Linear(f"convolution {index}", convolution.weight, convolution.bias, convolution.groups)
                for index, convolution in enumerate(convolutions)
            ]
            packed = PackedLinears(linears)
            self._packed = packed
        packed.refresh()
        return packed.packed

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_packed"}


class GroupedConv1x1(_Packing, plain.GroupedConv1x1):
    """nn.Conv1d(in_channels, out_channels, kernel_size=1, groups=groups) on tokens: [..., in] -> [..., out]."""

    def forward(self, input: Tensor) -> Tensor:
        (weight,) = self._operands([self], input, self.bias)
        return ops.grouped_conv1x1(input, weight, self.bias, self.groups)


class GroupedConv1x1GELU(GroupedConv1x1):
    """GroupedConv1x1 and exact GELU in one pass: FFN2."""

    def forward(self, input: Tensor) -> Tensor:
        (weight,) = self._operands([self], input, self.bias)
        return ops.grouped_conv1x1_gelu(input, weight, self.bias, self.groups)


class GroupedConv1x1AddLayerNorm(_Packing):
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
        if _active(self.dropout):
            return self.layernorm(self.dropout(self.conv1d(input)) + residual)
        conv, norm = self.conv1d, self.layernorm
        (weight,) = self._operands([conv], input, residual, conv.bias, norm.weight, norm.bias)
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


class SqueezeBertLayer(_Packing, plain.SqueezeBertLayer):
    """One layer of SqueezeBERT, with the parameters of Hugging Face's SqueezeBertModule."""

    def __init__(self, config: SqueezeBertConfig) -> None:
        _check_activation(config)
        super().__init__(config)

    def forward(  # type: ignore[override]
        self, hidden_states: Tensor, mask: Tensor | None = None, cu_seqlens: Tensor | None = None
    ) -> Tensor:
        """[N, S, C] with a mask as `ops.attention` takes it, or packed [T, C] with cu_seqlens. Keeps the shape."""
        if _drops(self, cu_seqlens):
            return super().forward(hidden_states, mask, None)[0]
        params, heads, groups, eps = _encoder_arguments(self, [self], hidden_states)
        return ops.encoder_layer(hidden_states, params, heads, groups, eps, mask, cu_seqlens)


class SqueezeBertEncoder(_Packing, plain.SqueezeBertEncoder):
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
        """As SqueezeBertLayer; first_token_only: only each sequence's first token, [N, C]."""
        if _drops(self, cu_seqlens):
            output = super().forward(hidden_states, mask, None)[0][-1]
            return output[..., 0, :] if first_token_only else output
        params, heads, groups, eps = _encoder_arguments(self, list(self.layers), hidden_states)
        return ops.encoder(hidden_states, params, heads, groups, eps, mask, cu_seqlens, first_token_only)


def _check_activation(config: SqueezeBertConfig) -> None:
    if ACTIVATIONS[config.hidden_act] is not F.gelu:
        raise ValueError(
            f"hidden_act: expected 'gelu', the exact GELU that the kernels compute, got {config.hidden_act!r}"
        )


def _active(dropout: nn.Dropout) -> bool:
    return dropout.training and dropout.p > 0.0


def _drops(module: nn.Module, cu_seqlens: Tensor | None) -> bool:
    """Some dropout of `module` is active, so its layers run one step at a time."""
    drops = any(_active(child) for child in module.modules() if isinstance(child, nn.Dropout))
    if drops and cu_seqlens is not None:
        raise ValueError("cu_seqlens: expected None while dropout is active (training mode), got offsets")
    return drops


def _encoder_arguments(
    owner: _Packing, layers: list[Any], hidden_states: Tensor
) -> tuple[list[Tensor], int, list[int], float]:
    """What `ops.encoder` takes for `layers`: params, num_heads, groups, eps. `owner` keeps their packed weights."""
    convolutions, others = [], []
    for layer in layers:
        attention, first, second = layer.attention, layer.post_attention, layer.output
        convolutions += [
            attention.query,
            attention.key,
            attention.value,
            first.conv1d,
            layer.intermediate.conv1d,
            second.conv1d,
        ]
        others += [first.layernorm, second.layernorm]
    rest = [module.bias for module in (*convolutions, *others)] + [norm.weight for norm in others]
    weights = owner._operands(convolutions, hidden_states, *rest)
    params: list[Tensor] = []
    for index, (convolution, weight) in enumerate(zip(convolutions, weights, strict=True)):
        params += [weight, convolution.bias]
        if index % 6 in (3, 5):  # post_attention and output end in a LayerNorm
            norm = others[index // 6 * 2 + (index % 6 == 5)]
            params += [norm.weight, norm.bias]
    groups = [convolution.groups for convolution in convolutions[:6]]
    return params, layers[0].attention.num_heads, groups, others[0].eps
