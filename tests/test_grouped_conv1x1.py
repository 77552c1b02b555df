"""grouped_conv1x1: against the reference at every tile edge, layout, group count, and what it refuses."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from exactness import exact
from op_testing import TOKEN_COUNTS, PackedWeightsContract, conv, layouts, randn
from python_ref import ops as reference
from squeezebert_kernels import ops
from tolerances import dot_bound

# in_channels, out_channels, groups
CHANNELS = [
    (1, 1, 1),
    (1, 5, 1),
    (5, 1, 1),
    *((20, 20, groups) for groups in (1, 2, 4, 5, 10, 20)),
    (31, 33, 1),
    (33, 31, 1),
    *((33, 33, groups) for groups in (1, 3, 11, 33)),
    *((48, 192, groups) for groups in (1, 2, 3, 4, 6, 8, 12, 16, 24, 48)),
    (192, 48, 4),
    (192, 768, 4),
    (768, 192, 4),
    (768, 768, 1),
    (768, 768, 4),
]


def check(input: Tensor, weight: Tensor, bias: Tensor | None, groups: int) -> Tensor:
    """The output, after comparing it with float64, element by element, within the bound of a dot product."""
    actual = ops.grouped_conv1x1(input, weight, bias, groups)
    arguments = {"input": input, "weight": weight, "bias": bias, "groups": groups}
    expected = exact(ops.grouped_conv1x1, arguments)
    magnitude = exact(ops.grouped_conv1x1, {**arguments, "input": input.abs(), "weight": weight.abs()})
    if bias is not None:
        magnitude = magnitude + (bias.abs() - bias)
    assert actual.shape == expected.shape
    error = (actual.double() - expected).abs()
    assert (error <= dot_bound(weight.shape[1], magnitude)).all(), f"largest error {error.max()}"
    return actual


class TestGroupedConv1x1(PackedWeightsContract):
    operator = ops.grouped_conv1x1
    reductions = (12,)

    def arguments(self, tokens: int) -> dict[str, Any]:
        weight, bias = conv(20, 24, 2)
        return {"input": randn(2, tokens, 24), "weight": weight, "bias": bias, "groups": 2}

    def pack(self, arguments: dict[str, Any]) -> dict[str, Any]:
        return {**arguments, "weight": ops.pack_grouped_conv1x1(arguments["weight"], arguments["groups"])}

    @pytest.mark.parametrize("tokens", TOKEN_COUNTS)
    def test_token_counts(self, tokens: int) -> None:
        weight, bias = conv(48, 40, 4)
        check(randn(tokens, 40), weight, bias, 4)

    @pytest.mark.parametrize(("in_channels", "out_channels", "groups"), CHANNELS)
    def test_channels_and_groups(self, in_channels: int, out_channels: int, groups: int) -> None:
        weight, bias = conv(out_channels, in_channels, groups)
        check(randn(15, in_channels), weight, bias, groups)
        check(randn(15, in_channels), weight, None, groups)

    def test_input_layouts(self) -> None:
        weight, bias = conv(20, 24, 2)
        values = randn(3, 7, 24)
        expected = ops.grouped_conv1x1(values, weight, bias, 2)
        for name, input in layouts(values):
            assert torch.equal(ops.grouped_conv1x1(input, weight, bias, 2), expected), name

    def test_expanded_input(self) -> None:
        weight, bias = conv(20, 24, 2)
        row = randn(24)
        expected = ops.grouped_conv1x1(row, weight, bias, 2)
        assert torch.equal(ops.grouped_conv1x1(row.expand(4, 5, 24), weight, bias, 2), expected.expand(4, 5, 20))

    @pytest.mark.parametrize("leading", [(), (1,), (3,), (2, 3), (2, 1, 3), (0,), (2, 0, 3)])
    def test_leading_dimensions(self, leading: tuple[int, ...]) -> None:
        weight, bias = conv(20, 24, 2)
        assert check(randn(*leading, 24), weight, bias, 2).shape == (*leading, 20)

    def test_conv1d_shaped_weights(self) -> None:
        layer = torch.nn.Conv1d(24, 20, 1, groups=2).requires_grad_(False)
        input = randn(3, 24, 7)  # [N, C, W]
        output = ops.grouped_conv1x1(input.transpose(1, 2), layer.weight, layer.bias, 2)
        torch.testing.assert_close(output.transpose(1, 2), layer(input))
        squeezed = ops.grouped_conv1x1(input.transpose(1, 2), layer.weight.squeeze(-1), layer.bias, 2)
        assert torch.equal(output, squeezed)

    def test_weight_and_bias_layouts(self) -> None:
        weight, bias = conv(20, 24, 2)
        input = randn(7, 24)
        expected = ops.grouped_conv1x1(input, weight, bias, 2)
        for name, view in layouts(weight):
            assert torch.equal(ops.grouped_conv1x1(input, view, bias, 2), expected), name
            assert torch.equal(ops.pack_grouped_conv1x1(view, 2), ops.pack_grouped_conv1x1(weight, 2)), name
        assert torch.equal(ops.grouped_conv1x1(input, weight, bias.repeat_interleave(2)[::2], 2), expected)

    def test_a_row_does_not_depend_on_its_neighbours(self) -> None:
        weight, bias = conv(48, 40, 4)
        packed = ops.pack_grouped_conv1x1(weight, 4)
        batch = randn(37, 40)
        together = ops.grouped_conv1x1(batch, packed, bias, 4)
        for start, end in ((0, 1), (5, 6), (3, 17), (36, 37)):
            assert torch.equal(ops.grouped_conv1x1(batch[start:end], packed, bias, 4), together[start:end])

    @pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
    def test_what_is_not_finite_stays_in_its_row_and_group(self, value: float) -> None:
        weight, bias = conv(20, 24, 2)
        input = randn(9, 24)
        clean = ops.grouped_conv1x1(input, weight, bias, 2)
        input[4, 13] = value
        output = ops.grouped_conv1x1(input, weight, bias, 2)
        expected = reference.grouped_conv1x1(input, weight, bias, 2)
        torch.testing.assert_close(output[4, 10:], expected[4, 10:], equal_nan=True)
        assert torch.equal(output[4, :10], clean[4, :10])
        assert torch.equal(output[:4], clean[:4])
        assert torch.equal(output[5:], clean[5:])

    def test_inductor(self) -> None:
        compiled = torch.compile(
            lambda x, w, b: ops.grouped_conv1x1(x * 2.0, w, b, 2).sin(), fullgraph=True, dynamic=True
        )
        weight, bias = conv(20, 24, 2)
        for tokens in (5, 9):
            input = randn(2, tokens, 24)
            expected = ops.grouped_conv1x1(input * 2.0, weight, bias, 2).sin()
            torch.testing.assert_close(compiled(input, weight, bias), expected)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"groups": 0}, "groups: expected a positive divisor of 24 input and 20 output channels, got 0"),
            ({"groups": 3}, "groups: expected a positive divisor of 24 input and 20 output channels, got 3"),
            ({"groups": 2**62}, "groups: expected a positive divisor of 24 input and 20 output channels"),
            (
                {"groups": 4},
                "weight: expected 6 input channels per group (24 channels, groups = 4), got a torch.float32 tensor of "
                "shape [20, 12]",
            ),
            ({"weight": torch.ones(20)}, "weight: expected [out_channels, in_channels / groups] or [out_channels, "),
            ({"weight": torch.ones(20, 12, 3)}, "got a torch.float32 tensor of shape [20, 12, 3]"),
            ({"weight": torch.ones(0, 12)}, "got a torch.float32 tensor of shape [0, 12]"),
            ({"bias": torch.ones(24)}, "bias: expected shape [20], got a torch.float32 tensor of shape [24]"),
            ({"bias": torch.ones(20, 1)}, "bias: expected shape [20], got a torch.float32 tensor of shape [20, 1]"),
            (
                {"input": torch.tensor(1.0)},
                "input: expected at least one dimension, the last one channels, got a scalar",
            ),
            ({"input": torch.ones(3, 0)}, "input: expected at least one channel"),
            (
                {"input": torch.ones(3, 22)},
                "weight: expected 11 input channels per group (22 channels, groups = 2), got a torch.float32 tensor of "
                "shape [20, 12]",
            ),
        ],
    )
    def test_refused(self, change: dict[str, Any], message: str) -> None:
        arguments = {**self.arguments(3), **change}
        with pytest.raises(ValueError, match=re.escape(message)) as error:
            self.call(arguments)
        assert str(error.value).startswith("squeezebert::grouped_conv1x1: ")

    def test_packed_for_another_layer_is_refused(self) -> None:
        weight, bias = conv(20, 24, 2)
        packed = ops.pack_grouped_conv1x1(weight, 2)
        with pytest.raises(ValueError, match="groups: expected the 2 groups that weight was packed with, got 4"):
            ops.grouped_conv1x1(randn(3, 24), packed, bias, 4)
        with pytest.raises(
            ValueError, match=r"weight: expected a packed weight for 48 input channels, got one of shape"
        ):
            ops.grouped_conv1x1(randn(3, 48), packed, bias, 2)
        kernel_of_three = ops.pack_grouped_conv1d(conv(20, 24, 2, kernel_size=3)[0], 2)
        with pytest.raises(ValueError, match="weight: expected a packed weight of kernel size 1"):
            ops.grouped_conv1x1(randn(3, 24), kernel_of_three, bias, 2)

    def test_damaged_pack_is_refused(self) -> None:
        packed = ops.pack_grouped_conv1x1(conv(20, 24, 2)[0], 2)
        for damaged in (torch.zeros_like(packed), packed[:, : packed.shape[1] // 2], packed[:10], packed.flatten()):
            with pytest.raises(ValueError, match=r"squeezebert::grouped_conv1x1: weight: expected .*pack"):
                ops.grouped_conv1x1(randn(3, 24), damaged, None, 2)

    def test_rows_more_than_two_to_the_31_elements_apart(self, tmp_path: Path) -> None:
        """A sparse file holds the rows, so that none of the space between them is needed."""
        stride = 2**31 + 7
        path = tmp_path / "rows"
        path.write_bytes(b"")
        os.truncate(path, 4 * (2 * stride + 24))
        mapped = torch.from_file(str(path), shared=True, size=2 * stride + 24, dtype=torch.float32)
        input = mapped.as_strided((3, 24), (stride, 1))
        input.copy_(randn(3, 24))
        weight, bias = conv(20, 24, 2)
        check(input, weight, bias, 2)
