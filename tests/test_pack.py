"""pack_grouped_conv1x1 and pack_grouped_conv1d: that what they give is opaque, compact, traceable; what they refuse."""

from __future__ import annotations

import copy
import io
import re

import pytest
import torch
from torch import Tensor

from op_testing import NARROW, conv, randn
from squeezebert_kernels import ops

PACK = [(ops.pack_grouped_conv1x1, 1), (ops.pack_grouped_conv1d, 3)]


@pytest.mark.parametrize(("pack", "kernel_size"), PACK)
@pytest.mark.parametrize(
    ("in_channels", "out_channels", "groups"), [(24, 20, 2), (31, 33, 1), (33, 33, 33), (192, 48, 4)]
)
def test_form(pack, kernel_size: int, in_channels: int, out_channels: int, groups: int) -> None:
    weight, _ = conv(out_channels, in_channels, groups, kernel_size)
    packed = pack(weight, groups)
    assert packed.dtype == torch.uint8
    assert packed.dim() == 2
    assert packed.shape[0] == out_channels
    assert packed.is_contiguous()
    assert torch.equal(packed, pack(weight, groups))


@pytest.mark.parametrize("groups", [1, 4])
def test_packing_adds_at_most_two_percent(groups: int) -> None:
    """At SqueezeBERT's own shapes."""
    for out_channels, in_channels in ((768, 768), (3072, 768), (768, 3072)):
        weight, _ = conv(out_channels, in_channels, groups)
        packed = ops.pack_grouped_conv1x1(weight, groups)
        assert packed.nbytes <= 1.02 * weight.nbytes


@pytest.mark.parametrize("groups", [1, 4])
@pytest.mark.parametrize("dtype", NARROW)
def test_16_bits_take_half_the_memory(dtype: torch.dtype, groups: int) -> None:
    weight, _ = conv(3072, 768, groups)
    packed = ops.pack_grouped_conv1x1(weight.to(dtype), groups)
    assert packed.nbytes <= 1.02 * weight.nbytes / 2
    assert torch.equal(packed, ops.pack_grouped_conv1x1(weight.to(dtype).t().contiguous().t(), groups))


@pytest.mark.parametrize("dtype", [torch.float32, *NARROW])
@pytest.mark.parametrize(("pack", "kernel_size"), PACK)
def test_packing_as_another_dtype(pack, kernel_size: int, dtype: torch.dtype) -> None:
    weight, _ = conv(20, 24, 2, kernel_size)
    expected = pack(weight.to(dtype), 2)
    assert torch.equal(pack(weight, 2, dtype), expected)
    assert torch.equal(pack(weight.to(dtype), 2, dtype), expected)
    assert torch.equal(pack(weight.half(), 2, dtype), pack(weight.half().float().to(dtype), 2))
    torch.library.opcheck(getattr(torch.ops.squeezebert, pack.__name__).default, (weight, 2, dtype))
    compiled = torch.compile(lambda w: pack(w * 2.0, 2, dtype), fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(weight), pack(weight * 2.0, 2, dtype))


@pytest.mark.parametrize("dtype", [torch.float64, torch.uint8, torch.int32])
def test_packing_as_what_is_no_format_is_refused(dtype: torch.dtype) -> None:
    with pytest.raises(ValueError, match=rf"dtype: expected torch\.float32, .*torch\.bfloat16.*, got {dtype}"):
        ops.pack_grouped_conv1x1(torch.ones(20, 12), 2, dtype)


@pytest.mark.parametrize("dtype", [torch.float32, *NARROW])
@pytest.mark.parametrize(("pack", "kernel_size"), PACK)
def test_opcheck(pack, kernel_size: int, dtype: torch.dtype) -> None:
    weight, _ = conv(20, 24, 2, kernel_size)
    torch.library.opcheck(getattr(torch.ops.squeezebert, pack.__name__).default, (weight.to(dtype), 2))


@pytest.mark.parametrize(("pack", "kernel_size"), PACK)
def test_compile(pack, kernel_size: int) -> None:
    compiled = torch.compile(lambda w: pack(w * 2.0, 2), fullgraph=True, dynamic=True, backend="aot_eager")
    for out_channels in (20, 28):
        weight, _ = conv(out_channels, 24, 2, kernel_size)
        assert torch.equal(compiled(weight), pack(weight * 2.0, 2))


def test_a_packed_weight_survives_copies_and_files() -> None:
    weight, bias = conv(20, 24, 2)
    packed, input = ops.pack_grouped_conv1x1(weight, 2), randn(3, 24)
    expected = ops.grouped_conv1x1(input, packed, bias, 2)
    file = io.BytesIO()
    torch.save(packed, file)
    file.seek(0)
    unaligned = torch.cat([torch.zeros(1, dtype=torch.uint8), packed.flatten()])[1:].view(packed.shape)
    for other in (packed.clone(), copy.deepcopy(packed), torch.load(file), unaligned, packed.t().contiguous().t()):
        assert torch.equal(ops.grouped_conv1x1(input, other, bias, 2), expected)


def test_autocast_packs_float32() -> None:
    weight, _ = conv(20, 24, 2)
    with torch.autocast("cpu"):
        packed = ops.pack_grouped_conv1x1(weight.bfloat16(), 2)
    assert torch.equal(packed, ops.pack_grouped_conv1x1(weight.bfloat16().float(), 2))


@pytest.mark.parametrize(
    ("pack", "weight", "groups", "message"),
    [
        (ops.pack_grouped_conv1x1, torch.ones(20, 12), 0, "groups: expected a positive divisor of 20 output channels"),
        (ops.pack_grouped_conv1x1, torch.ones(20, 12), 3, "groups: expected a positive divisor of 20 output channels"),
        (ops.pack_grouped_conv1x1, torch.ones(20, 12, 3), 2, "weight: expected [out_channels, in_channels / groups]"),
        (ops.pack_grouped_conv1x1, torch.ones(20), 2, "weight: expected [out_channels, in_channels / groups] or"),
        (ops.pack_grouped_conv1x1, torch.ones(20, 0), 2, "weight: expected [out_channels, in_channels / groups] or"),
        (ops.pack_grouped_conv1d, torch.ones(20, 12, 2), 2, "odd kernel_size, got a torch.float32 tensor of shape"),
        (
            ops.pack_grouped_conv1x1,
            torch.ones(20, 12).double(),
            2,
            "weight: expected dtype torch.float32, torch.float16 or torch.bfloat16, got a",
        ),
        (
            ops.pack_grouped_conv1x1,
            torch.ones(20, 12).byte(),
            2,
            "weight: expected dtype torch.float32, torch.float16 or torch.bfloat16, got",
        ),
    ],
)
def test_refused(pack, weight: Tensor, groups: int, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        pack(weight, groups)
    assert str(error.value).startswith(f"squeezebert::{pack.__name__}: ")
