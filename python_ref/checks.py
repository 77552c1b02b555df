"""Argument checks of the reference: every error names the argument, what was expected and what came."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from squeezebert_kernels.checks import check


def check_groups(groups: int, in_channels: int, out_channels: int, name: str = "groups") -> None:
    """`groups` is at least 1 and divides both channel counts."""
    check(groups >= 1, f"{name}: expected at least 1, got {groups}")
    check(
        in_channels % groups == 0 and out_channels % groups == 0,
        f"{name}: expected a divisor of {in_channels} input and {out_channels} output channels, got {groups}",
    )


def check_group_counts(groups: Sequence[int], count: int) -> None:
    """`groups` lists one group count for each of `count` convolutions."""
    check(len(groups) == count, f"groups: expected {count} group counts, got {list(groups)}")


def check_weight(weight: Sequence[int], in_channels: int, groups: int, kernel_size: int | None = None) -> None:
    """The shape of `weight` is [out, in / groups, kernel_size]; with kernel_size None, any odd one."""
    shape = list(weight)
    size = kernel_size if kernel_size is not None else "odd kernel_size"
    check(len(shape) == 3, f"weight: expected [out_channels, in_channels / groups, {size}], got shape {shape}")
    check_groups(groups, in_channels, shape[0])
    check(
        shape[1] == in_channels // groups,
        f"weight: expected {in_channels // groups} input channels per group ({in_channels} channels of input in "
        f"{groups} groups), got shape {shape}",
    )
    size_is_right = shape[2] % 2 == 1 if kernel_size is None else shape[2] == kernel_size
    check(size_is_right, f"weight: expected kernel_size {size}, got shape {shape}")


def check_bias(bias: Tensor | None, out_channels: int) -> None:
    """`bias` is None or [out_channels]."""
    if bias is not None:
        check(tuple(bias.shape) == (out_channels,), f"bias: expected shape [{out_channels}], got {list(bias.shape)}")


def check_heads(num_heads: int, channels: int) -> None:
    """`num_heads` is at least 1 and divides the channels."""
    check(
        num_heads >= 1 and channels % num_heads == 0,
        f"num_heads: expected a divisor of {channels} channels, got {num_heads}",
    )


def check_sequences(input: Tensor, cu_seqlens: Tensor | None) -> None:
    """`input` is [N, S, C] or [S, C]; with `cu_seqlens`, packed tokens [T, C] that the offsets cover exactly."""
    shape = list(input.shape)
    if cu_seqlens is None:
        check(
            input.dim() in (2, 3), f"input: expected [sequences, tokens, channels] or [tokens, channels], got {shape}"
        )
        return
    check(input.dim() == 2, f"input: expected packed tokens [tokens, channels] beside cu_seqlens, got shape {shape}")
    check(cu_seqlens.dtype == torch.int32, f"cu_seqlens: expected dtype torch.int32, got {cu_seqlens.dtype}")
    check(cu_seqlens.device.type == "cpu", f"cu_seqlens: expected a CPU tensor, got one on {cu_seqlens.device}")
    check(
        cu_seqlens.dim() == 1 and cu_seqlens.numel() >= 1,
        f"cu_seqlens: expected shape [sequences + 1], got {list(cu_seqlens.shape)}",
    )
    offsets = cu_seqlens.tolist()
    check(offsets[0] == 0, f"cu_seqlens: expected the first offset to be 0, got {offsets[0]}")
    for index, (start, end) in enumerate(pairwise(offsets)):
        check(
            start <= end,
            f"cu_seqlens: expected offsets that never decrease, got {start} then {end} at index {index + 1}",
        )
    check(
        offsets[-1] == input.shape[0],
        f"cu_seqlens: expected the last offset to be the {input.shape[0]} tokens of input, got {offsets[-1]}",
    )
