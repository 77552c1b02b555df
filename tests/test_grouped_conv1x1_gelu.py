"""grouped_conv1x1_gelu: the convolution's tests are in test_grouped_conv1x1.py; these are about what follows it."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch

from exactness import assert_close, exact
from op_testing import TOKEN_COUNTS, PackedWeightsContract, conv, layouts, randn
from squeezebert_kernels import ops
from tolerances import GELU


class TestGroupedConv1x1Gelu(PackedWeightsContract):
    operator = ops.grouped_conv1x1_gelu
    reductions = (12,)

    def arguments(self, tokens: int) -> dict[str, Any]:
        weight, bias = conv(20, 24, 2, kernel_size=1)
        return {"input": randn(2, tokens, 24), "weight": weight, "bias": bias, "groups": 2}

    def pack(self, arguments: dict[str, Any]) -> dict[str, Any]:
        return {**arguments, "weight": ops.pack_grouped_conv1x1(arguments["weight"], arguments["groups"])}

    @pytest.mark.parametrize("tokens", TOKEN_COUNTS)
    def test_token_counts(self, tokens: int) -> None:
        weight, bias = conv(48, 40, 4)
        arguments = {"input": randn(tokens, 40), "weight": weight, "bias": bias, "groups": 4}
        assert_close(self.call(arguments), exact(self.operator, arguments), 10)

    @pytest.mark.parametrize(
        ("in_channels", "out_channels", "groups"), [(20, 31, 1), (33, 33, 3), (48, 192, 6), (192, 768, 4), (768, 48, 1)]
    )
    def test_channels_and_groups(self, in_channels: int, out_channels: int, groups: int) -> None:
        weight, bias = conv(out_channels, in_channels, groups)
        for some_bias in (bias, None):
            arguments = {"input": randn(3, 5, in_channels), "weight": weight, "bias": some_bias, "groups": groups}
            assert_close(self.call(arguments), exact(self.operator, arguments), in_channels // groups)

    def test_gelu_over_its_whole_range(self) -> None:
        """An identity convolution: from where GELU is the identity, through zero, to where it vanishes."""
        values = torch.linspace(-20.0, 20.0, 6000).reshape(-1, 6)
        arguments = {"input": values, "weight": torch.eye(6), "bias": None, "groups": 1}
        output, expected = self.call(arguments), exact(self.operator, arguments)
        torch.testing.assert_close(output.double(), expected, **GELU)
        assert torch.equal(output[values > 10.0], values[values > 10.0])

    def test_what_is_not_finite(self) -> None:
        """NaN, for the infinities too, as PyTorch's vectorized float32 GELU: an overflow upstream stays in sight."""
        values = torch.tensor([[float("nan")], [float("inf")], [float("-inf")]])
        output = ops.grouped_conv1x1_gelu(values, torch.ones(1, 1), None, 1)
        assert output.isnan().all()

    def test_input_layouts(self) -> None:
        arguments = self.arguments(7)
        expected = self.call(arguments)
        for name, input in layouts(arguments["input"]):
            assert torch.equal(self.call({**arguments, "input": input}), expected), name

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"groups": 3}, "groups: expected a positive divisor of 24 input and 20 output channels, got 3"),
            ({"weight": torch.ones(20, 6)}, "weight: expected 12 input channels per group (24 channels, groups = 2)"),
            ({"bias": torch.ones(24)}, "bias: expected shape [20], got a torch.float32 tensor of shape [24]"),
        ],
    )
    def test_refused(self, change: dict[str, Any], message: str) -> None:
        with pytest.raises(ValueError, match=re.escape(message)) as error:
            self.call({**self.arguments(3), **change})
        assert str(error.value).startswith("squeezebert::grouped_conv1x1_gelu: ")
