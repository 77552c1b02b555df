"""What an operator is given, checked, in the words of the CPU operators, and put in the terms of the kernels.

Every error is a ValueError "squeezebert::<op>: <argument>: expected <what>, got <what>".
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NoReturn

import torch
from torch import Tensor

from .packed_format import bytes_of

DTYPES = (torch.float32, torch.float16, torch.bfloat16)
MAX_TOKENS = 2**31 - 1
TENSORS_PER_LAYER = 16


@dataclass(frozen=True)
class Rows:
    """Tokens: `count` rows of `channels` elements, `stride` elements apart, behind `data`."""

    data: Tensor
    count: int
    channels: int
    stride: int


@dataclass(frozen=True)
class Linear:
    """A grouped convolution. data: [out_channels, kernel_size, in_channels / groups], rows `stride` elements apart."""

    data: Tensor
    stride: int
    bias: Tensor | None
    out_channels: int
    in_channels: int
    groups: int
    kernel_size: int

    @property
    def depth(self) -> int:
        """Input channels of a group."""
        return self.in_channels // self.groups

    @property
    def width(self) -> int:
        """Output channels of a group."""
        return self.out_channels // self.groups


@dataclass(frozen=True)
class Norm:
    """LayerNorm's parameters."""

    weight: Tensor
    bias: Tensor
    eps: float


@dataclass(frozen=True)
class Sequences:
    """Which rows form sequences: `count` of them, of at most `longest` tokens.

    offsets: int32 [count + 1] where the rows are, or None when each sequence has exactly `longest` tokens.
    """

    count: int
    longest: int
    offsets: Tensor | None


@dataclass(frozen=True)
class Mask:
    """A mask by its strides along [sequences, heads, queries, keys]; boolean ones as bytes. data None: no mask."""

    data: Tensor | None = None
    boolean: bool = False
    strides: tuple[int, ...] = (0, 0, 0, 0)


@dataclass(frozen=True)
class Layer:
    """The parts of one encoder layer."""

    query: Linear
    key: Linear
    value: Linear
    post_attention: Linear
    post_attention_norm: Norm
    intermediate: Linear
    output: Linear
    output_norm: Norm


def describe(tensor: Tensor) -> str:
    """ "a torch.float32 tensor of shape [2, 3]"."""
    return f"a {tensor.dtype} tensor of shape {list(tensor.shape)}"


class Arguments:
    """Checks the arguments of one call of `op`. `first`, named `name`, sets the device and dtype of all."""

    def __init__(self, op: str, name: str, first: Tensor, dtypes: Sequence[torch.dtype] = DTYPES) -> None:
        self.op, self.name = op, name
        self.device, self.dtype = first.device, first.dtype
        if first.dtype not in dtypes:
            names = ", ".join(map(str, dtypes[:-1]))
            self.fail(name, f"dtype {names} or {dtypes[-1]}", describe(first))

    def fail(self, argument: str, expected: str, got: str) -> NoReturn:
        raise ValueError(f"squeezebert::{self.op}: {argument}: expected {expected}, got {got}")

    def same(self, argument: str, tensor: Tensor, dtype: torch.dtype | None = None) -> None:
        """The tensor is on the device of the first one and of its dtype (or of `dtype`)."""
        self.on_device(argument, tensor)
        wanted = dtype or self.dtype
        if tensor.dtype != wanted:
            self.fail(argument, f"dtype {wanted}", describe(tensor))

    def own_dtype(self, argument: str, dtype: torch.dtype | None) -> None:
        """A dtype to compute in, which on CUDA is that of the arguments."""
        if dtype not in (None, self.dtype):
            self.fail(argument, f"None, or {self.dtype} as {self.name} is, on CUDA", str(dtype))

    def on_device(self, argument: str, tensor: Tensor) -> None:
        if tensor.device != self.device:
            self.fail(argument, f"a tensor on {self.device}, where {self.name} is", f"one on {tensor.device}")

    def rows(self, argument: str, tensor: Tensor) -> Rows:
        """Any tensor of rank >= 1. Copied only if its rows do not lie one stride apart."""
        self.same(argument, tensor)
        if tensor.dim() == 0:
            self.fail(argument, "at least one dimension, the last one channels", "a scalar")
        channels = tensor.shape[-1]
        if channels == 0:
            self.fail(argument, "at least one channel", describe(tensor))
        count = math.prod(tensor.shape[:-1])
        stride = _row_stride(tensor)
        if stride is None:
            tensor, stride = tensor.contiguous(), channels
        return Rows(tensor, count, channels, stride)

    def vector(self, argument: str, tensor: Tensor, size: int) -> Tensor:
        self.same(argument, tensor)
        if tensor.dim() != 1 or tensor.shape[0] != size:
            self.fail(argument, f"shape [{size}]", describe(tensor))
        return tensor.contiguous()

    def epsilon(self, eps: float) -> float:
        if not eps >= 0:
            self.fail("eps", "a number that is not negative", str(eps))
        return float(eps)

    def norm(self, weight: str, bias: str, values: tuple[Tensor, Tensor], eps: float, channels: int) -> Norm:
        """`weight` and `bias` name the two `values`."""
        scale, shift = self.vector(weight, values[0], channels), self.vector(bias, values[1], channels)
        return Norm(scale, shift, self.epsilon(eps))

    def group_counts(self, groups: Sequence[int], names: Sequence[str]) -> list[int]:
        if len(groups) != len(names):
            words = {2: "two", 3: "three", 6: "six"}[len(names)]
            self.fail("groups", f"{words} group counts, [{', '.join(names)}]", str(list(groups)))
        return list(groups)

    def heads(self, num_heads: int, channels: int) -> None:
        if num_heads < 1 or channels % num_heads:
            self.fail("num_heads", f"a positive divisor of {channels} channels", str(num_heads))

    def linear(
        self,
        names: tuple[str, str, str],
        weight: Tensor,
        bias: Tensor | None,
        groups: int,
        in_channels: int | None,
        any_kernel_size: bool = False,
    ) -> Linear:
        """`names`: those of weight, bias and groups. A packed weight (uint8) is used as it is.

        in_channels None: whatever the weight has.
        """
        name, bias_name, _ = names
        self.on_device(name, weight)
        if weight.dtype == torch.uint8 and in_channels is not None:
            linear = self._packed(names, weight, groups, in_channels, any_kernel_size)
        else:
            linear = self._plain(names, weight, groups, in_channels, any_kernel_size)
        if bias is None:
            return linear
        return Linear(**{**vars(linear), "bias": self.vector(bias_name, bias, linear.out_channels)})

    def _plain(
        self, names: tuple[str, str, str], weight: Tensor, groups: int, in_channels: int | None, any_kernel_size: bool
    ) -> Linear:
        name, _, groups_name = names
        self.same(name, weight)
        shape = list(weight.shape)
        kernel_size = shape[2] if len(shape) == 3 else 1
        fits = kernel_size % 2 == 1 if any_kernel_size else kernel_size == 1
        if len(shape) not in (2, 3) or weight.numel() == 0 or not fits:
            expected = "[out_channels, in_channels / groups] or [out_channels, in_channels / groups, 1]"
            if any_kernel_size:
                expected = "[out_channels, in_channels / groups, kernel_size] with an odd kernel_size"
            self.fail(name, expected, describe(weight))
        self._divides(groups_name, groups, in_channels, shape[0])
        if in_channels is None:
            in_channels = shape[1] * groups
        if shape[1] != in_channels // groups:
            self.fail(
                name,
                f"{in_channels // groups} input channels per group ({in_channels} channels, groups = {groups})",
                describe(weight),
            )
        data = weight.permute(0, 2, 1).contiguous() if kernel_size > 1 else weight.reshape(shape[0], shape[1])
        if data.stride(-1) != 1 and shape[1] != 1:
            data = data.contiguous()
        stride = data.stride(0) if data.stride(0) >= shape[1] else data.contiguous().stride(0)
        return Linear(data, stride, None, shape[0], in_channels, groups, kernel_size)

    def _divides(self, groups_name: str, groups: int, in_channels: int | None, out_channels: int) -> None:
        if groups < 1 or out_channels % groups or (in_channels or 0) % groups:
            input = "" if in_channels is None else f"{in_channels} input and "
            self.fail(groups_name, f"a positive divisor of {input}{out_channels} output channels", str(groups))

    def _packed(
        self, names: tuple[str, str, str], weight: Tensor, groups: int, in_channels: int, any_kernel_size: bool
    ) -> Linear:
        name, _, groups_name = names
        if weight.numel() == 0 or weight.dim() not in (2, 3):
            self.fail(name, "a packed weight [out_channels, bytes_per_channel]", describe(weight))
        self._divides(groups_name, groups, in_channels, weight.shape[0])
        depth = in_channels // groups
        kernel_size = weight.shape[1] if weight.dim() == 3 else 1
        if kernel_size != 1 and not any_kernel_size:
            self.fail(name, "a packed weight of kernel size 1", f"one of kernel size {kernel_size}")
        if weight.shape[-1] != bytes_of(depth, self.dtype):
            self.fail(
                name,
                f"a weight packed by pack_grouped_conv1x1 or pack_grouped_conv1d on a CUDA device in {self.dtype}, for "
                f"{depth} input channels per group ({in_channels} channels, groups = {groups})",
                describe(weight),
            )
        data = weight.contiguous().view(self.dtype)
        return Linear(data, data.shape[-1], None, weight.shape[0], in_channels, groups, kernel_size)

    def sequences(self, argument: str, tensor: Tensor, cu_seqlens: Tensor | None = None) -> tuple[Rows, Sequences]:
        """[N, S, C] or [S, C]; packed tokens [T, C] beside cu_seqlens, whose offsets are copied to the device."""
        if cu_seqlens is not None:
            if tensor.dim() != 2:
                self.fail(argument, "packed tokens [tokens, channels] beside cu_seqlens", describe(tensor))
            lengths = self._lengths(cu_seqlens, tensor.shape[0])
            offsets = self._to_device(cu_seqlens)
            return self.rows(argument, tensor), Sequences(len(lengths), max(lengths, default=0), offsets)
        if tensor.dim() not in (2, 3):
            self.fail(argument, "[sequences, tokens, channels] or [tokens, channels]", describe(tensor))
        count = tensor.shape[0] if tensor.dim() == 3 else 1
        for number in (count, math.prod(tensor.shape[:-1])):
            if number > MAX_TOKENS:
                self.fail(argument, f"at most {MAX_TOKENS} tokens (offsets are int32)", f"{number} tokens")
        return self.rows(argument, tensor), Sequences(count, tensor.shape[-2], None)

    def _lengths(self, cu_seqlens: Tensor, tokens: int) -> list[int]:
        name = "cu_seqlens"
        if cu_seqlens.device.type != "cpu":
            self.fail(name, "a CPU tensor", f"one on {cu_seqlens.device}")
        if cu_seqlens.dtype != torch.int32:
            self.fail(name, f"dtype {torch.int32}", describe(cu_seqlens))
        if cu_seqlens.dim() != 1 or cu_seqlens.numel() == 0:
            self.fail(name, "shape [sequences + 1]", describe(cu_seqlens))
        offsets = cu_seqlens.tolist()
        if offsets[0] != 0:
            self.fail(name, "the first offset to be 0", str(offsets[0]))
        for index, (start, end) in enumerate(pairwise(offsets)):
            if end < start:
                self.fail(name, "offsets that never decrease", f"{start} then {end} at index {index + 1}")
        if offsets[-1] != tokens:
            self.fail(name, f"the last offset to be the {tokens} tokens of input", str(offsets[-1]))
        return [end - start for start, end in pairwise(offsets)]

    def _to_device(self, cu_seqlens: Tensor) -> Tensor:
        if self.device.type == "cuda" and torch.cuda.is_current_stream_capturing():
            raise RuntimeError(
                f"squeezebert::{self.op}: cu_seqlens: expected none while a CUDA graph is captured, since its offsets "
                "would be read from the host only once; optimize(model) captures packed batches itself"
            )
        return cu_seqlens.contiguous().to(self.device)

    def mask(self, mask: Tensor | None, sequences: int, heads: int, queries: int, keys: int) -> Mask:
        """A boolean mask, or an additive one of float32 or the dtype of the call."""
        if mask is None:
            return Mask()
        self.on_device("mask", mask)
        kinds = dict.fromkeys((torch.float32, self.dtype))
        if mask.dtype != torch.bool and mask.dtype not in kinds:
            self.fail("mask", f"a boolean or {' or '.join(map(str, kinds))} tensor", describe(mask))
        wanted = [sequences, heads, queries, keys]
        sizes = [1] * (4 - mask.dim()) + list(mask.shape)
        if mask.dim() > 4 or any(size not in (1, full) for size, full in zip(sizes, wanted, strict=True)):
            self.fail("mask", f"a shape that broadcasts to {wanted}", describe(mask))
        spread = mask.expand(wanted)
        boolean = mask.dtype == torch.bool
        return Mask(spread.view(torch.uint8) if boolean else spread, boolean, spread.stride())

    def self_mask(self, mask: Tensor | None, cu_seqlens: Tensor | None, sequences: Sequences, heads: int) -> Mask:
        """The mask of self-attention, which cannot come together with cu_seqlens."""
        if mask is not None and cu_seqlens is not None:
            self.fail("mask", "none beside cu_seqlens, which already separates the sequences", describe(mask))
        return self.mask(mask, sequences.count, heads, sequences.longest, sequences.longest)


def _row_stride(tensor: Tensor) -> int | None:
    """The distance between consecutive rows, when all leading dimensions lie one distance apart."""
    channels = tensor.shape[-1]
    if channels != 1 and tensor.stride(-1) != 1:
        return None
    rows, stride = 1, channels
    for dimension in range(tensor.dim() - 2, -1, -1):
        if tensor.shape[dimension] == 1:
            continue
        if rows == 1:
            stride = tensor.stride(dimension)
        if tensor.stride(dimension) != stride * rows:
            return None
        rows *= tensor.shape[dimension]
    return stride if stride >= channels else None
