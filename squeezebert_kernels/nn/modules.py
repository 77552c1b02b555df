"""The kernels as nn.Modules, to build models from: layers of one operator each, and whole SqueezeBERT blocks.

Layout is token-major ([..., channels]); for Hugging Face's [N, C, W] pass `x.transpose(1, 2)`, whose strides are taken
as they are. Parameters have the names and shapes of Hugging Face's blocks, so state_dicts fit. Weights are packed at
the first call that wants no gradient, and again when they change; calls that want one use the plain weights, which the
operators pack each time (and so does GroupedConv1d in every call). `module.computing_in(torch.int8)` packs them as
another dtype.

A block is one operator as long as its parts are what it made of them. Where one drops out, was replaced (an adapter, a
parametrization), given hooks or other numbers than its neighbours, the parts run one by one in plain PyTorch.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import ops
from ..packed import Linear
from .activations import ACTIVATIONS
from .config import BLOCK_LAYER_NORM_EPS, SqueezeBertConfig
from .packing import Packing
from .parts import Parts, Snapshot, as_built, drops, read_parts
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
            return self.opaque(input)
        (weight,) = self.packed_weights([Linear("weight", self.weight, self.bias, self.groups)], input, self.bias)
        return self._compute(input, weight)

    def channels_of(self, input: Any) -> int:
        return self.out_channels

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

    def channels_of(self, input: Any) -> int:
        return self.conv1d.out_channels

    def forward(self, input: Tensor, residual: Tensor) -> Tensor:
        """input: [..., in_channels]. residual: [..., out_channels]."""
        conv, norm, dropout = self.conv1d, self.layernorm, self.dropout
        as_made = as_built(conv, GroupedConv1x1) and as_built(norm, nn.LayerNorm) and as_built(dropout, nn.Dropout)
        if not as_made or drops(dropout) or norm.bias is None:
            return norm(dropout(conv(input)) + residual)
        if self.is_opaque(input, residual):
            return self.opaque(input, residual)
        linear = Linear("conv1d.weight", conv.weight, conv.bias, conv.groups)
        (weight,) = self.packed_weights([linear], input, residual, conv.bias, norm.weight, norm.bias)
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


class _Block(Packing):
    """What SqueezeBertLayer and SqueezeBertEncoder share: their parts, read again when they change."""

    _snapshot: Snapshot | None = None
    _parts: Parts

    def __init__(self, config: SqueezeBertConfig) -> None:
        if ACTIVATIONS[config.hidden_act] is not F.gelu:
            raise ValueError(
                f"hidden_act: expected 'gelu', the exact GELU that the kernels compute, got {config.hidden_act!r}"
            )
        super().__init__(config)

    def read_parts(self) -> Parts:
        raise NotImplementedError

    def parts(self, cu_seqlens: Tensor | None) -> Parts:
        """The parts as they are. ValueError beside cu_seqlens, where they have to be called one by one."""
        if torch.compiler.is_compiling():
            parts = self.read_parts()
        else:
            if self._snapshot is None or not self._snapshot.holds():
                self._parts = self.read_parts()
                self._snapshot = Snapshot(self)
            parts = self._parts
        if parts.reason is not None and cu_seqlens is not None:
            raise ValueError(f"cu_seqlens: expected None while {parts.reason}, got offsets")
        return parts

    def arguments(self, parts: Parts, *inputs: Tensor | None) -> tuple[list[Tensor], int, list[int], float]:
        """What `ops.encoder` takes: params, num_heads, groups, eps."""
        weights = self.packed_weights(parts.linears, *inputs, *parts.params)
        return parts.with_weights(weights), *parts.numbers

    def __getstate__(self) -> dict[str, Any]:
        state = super().__getstate__()
        return {name: value for name, value in state.items() if name not in ("_snapshot", "_parts")}


class SqueezeBertLayer(_Block, plain.SqueezeBertLayer):
    """One layer of SqueezeBERT, with the parameters of Hugging Face's SqueezeBertModule."""

    def read_parts(self) -> Parts:
        return read_parts([self])

    def forward(  # type: ignore[override]
        self, hidden_states: Tensor, mask: Tensor | None = None, cu_seqlens: Tensor | None = None
    ) -> Tensor:
        """[N, S, C] with a mask as `ops.attention` takes it, or packed [T, C] with cu_seqlens. Keeps the shape."""
        parts = self.parts(cu_seqlens)
        if parts.reason is not None:
            return super().forward(hidden_states, mask, None)[0]
        if self.is_opaque(hidden_states, mask):
            return self.opaque(hidden_states, mask, cu_seqlens)
        return ops.encoder_layer(hidden_states, *self.arguments(parts, hidden_states, mask), mask, cu_seqlens)


class SqueezeBertEncoder(_Block, plain.SqueezeBertEncoder):
    """All layers in one call, with the parameters of Hugging Face's SqueezeBertEncoder."""

    def read_parts(self) -> Parts:
        return read_parts(list(self.layers), plain.SqueezeBertLayer, SqueezeBertLayer)

    def forward(  # type: ignore[override]
        self,
        hidden_states: Tensor,
        mask: Tensor | None = None,
        cu_seqlens: Tensor | None = None,
        first_token_only: bool = False,
    ) -> Tensor:
        """As SqueezeBertLayer; first_token_only: only each sequence's first token, [N, C] (N = 1 for [S, C])."""
        parts = self.parts(cu_seqlens)
        if parts.reason is not None:
            for layer in self.layers:
                output = layer(hidden_states, mask, None)
                hidden_states = output if isinstance(output, Tensor) else output[0]
            first = hidden_states[:, 0] if hidden_states.dim() == 3 else hidden_states[:1]
            return first if first_token_only else hidden_states
        if self.is_opaque(hidden_states, mask):
            return self.opaque(hidden_states, mask, cu_seqlens, first_token_only=first_token_only)
        arguments = self.arguments(parts, hidden_states, mask)
        return ops.encoder(hidden_states, *arguments, mask, cu_seqlens, first_token_only)
