"""grouped_conv1x1_add_layer_norm: the convolution's tests are in test_grouped_conv1x1.py; these add the LayerNorm."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch

from exactness import assert_close, exact
from op_testing import TOKEN_COUNTS, PackedWeightsContract, conv, layer_norm, layouts, randn
from squeezebert_kernels import ops


def arguments(shape: tuple[int, ...], out_channels: int, groups: int, eps: float = 1e-12) -> dict[str, Any]:
    weight, bias = conv(out_channels, shape[-1], groups)
    ln_weight, ln_bias = layer_norm(out_channels)
    residual = randn(*shape[:-1], out_channels)
    return {
        "input": randn(*shape),
        "weight": weight,
        "bias": bias,
        "groups": groups,
        "residual": residual,
        "ln_weight": ln_weight,
        "ln_bias": ln_bias,
        "eps": eps,
    }


class TestGroupedConv1x1AddLayerNorm(PackedWeightsContract):
    operator = ops.grouped_conv1x1_add_layer_norm
    reductions = (12, 20)

    def arguments(self, tokens: int) -> dict[str, Any]:
        return arguments((2, tokens, 24), 20, 2)

    def pack(self, arguments: dict[str, Any]) -> dict[str, Any]:
        return {**arguments, "weight": ops.pack_grouped_conv1x1(arguments["weight"], arguments["groups"])}

    @pytest.mark.parametrize("tokens", TOKEN_COUNTS)
    def test_token_counts(self, tokens: int) -> None:
        given = arguments((tokens, 40), 48, 4)
        assert_close(self.call(given), exact(self.operator, given), 10, 48)

    @pytest.mark.parametrize(
        ("in_channels", "out_channels", "groups"),
        [
            (20, 20, 5),
            (31, 33, 1),
            (33, 31, 1),
            (48, 192, 6),
            (192, 192, 192),
            (768, 192, 4),
            (768, 768, 1),
            (3072, 768, 4),
        ],
    )
    def test_channels_and_groups(self, in_channels: int, out_channels: int, groups: int) -> None:
        given = arguments((3, 5, in_channels), out_channels, groups)
        for bias in (given["bias"], None):
            case = {**given, "bias": bias}
            assert_close(self.call(case), exact(self.operator, case), in_channels // groups, out_channels)

    def test_layouts_of_input_and_residual(self) -> None:
        given = self.arguments(7)
        expected = self.call(given)
        for argument in ("input", "residual"):
            for name, view in layouts(given[argument]):
                assert torch.equal(self.call({**given, argument: view}), expected), f"{argument}: {name}"

    def test_layer_norm_parameters_of_any_stride(self) -> None:
        given = self.arguments(3)
        expected = self.call(given)
        for name in ("ln_weight", "ln_bias", "bias"):
            spread = given[name].repeat_interleave(3)[::3]
            assert torch.equal(self.call({**given, name: spread}), expected), name

    def test_eps_is_added_to_the_variance(self) -> None:
        """A residual of constant rows leaves no variance: the output is the LayerNorm's bias, and no NaN."""
        given = {**arguments((4, 8), 8, 1, eps=1e-12), "weight": torch.zeros(8, 8), "bias": None}
        given["residual"] = torch.full((4, 8), 3.0)
        assert torch.equal(self.call(given), given["ln_bias"].expand(4, 8))
        given = arguments((4, 8), 8, 1, eps=2.0)
        assert_close(self.call(given), exact(self.operator, given), 8, 8)

    def test_a_large_mean_does_not_swallow_the_variance(self) -> None:
        given = arguments((4, 64), 64, 1)
        given["residual"] = given["residual"] + 1000.0
        error = (self.call(given).double() - exact(self.operator, given)).abs().max()
        assert error < 1000.0 * 2.0**-24 * 16

    @pytest.mark.parametrize("value", [float("nan"), float("inf")])
    def test_what_is_not_finite_stays_in_its_row(self, value: float) -> None:
        given = self.arguments(7)
        clean = self.call(given)
        given["residual"][1, 3, 2] = value
        output = self.call(given)
        assert output[1, 3].isnan().all()
        assert torch.equal(output[0], clean[0])
        assert torch.equal(output[1, 4:], clean[1, 4:])

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (
                {"residual": torch.ones(2, 3, 24)},
                "residual: expected the shape of the output, [2, 3, 20], got a torch.float32 tensor of shape "
                "[2, 3, 24]",
            ),
            ({"residual": torch.ones(3, 20)}, "residual: expected the shape of the output, [2, 3, 20]"),
            ({"ln_weight": torch.ones(24)}, "ln_weight: expected shape [20], got a torch.float32 tensor of shape [24]"),
            ({"ln_bias": torch.ones(1)}, "ln_bias: expected shape [20], got a torch.float32 tensor of shape [1]"),
            ({"eps": -1.0}, "eps: expected a number that is not negative, got -1"),
            ({"eps": float("nan")}, "eps: expected a number that is not negative, got nan"),
            ({"groups": 3}, "groups: expected a positive divisor of 24 input and 20 output channels, got 3"),
        ],
    )
    def test_refused(self, change: dict[str, Any], message: str) -> None:
        with pytest.raises(ValueError, match=re.escape(message)) as error:
            self.call({**self.arguments(3), **change})
        assert str(error.value).startswith("squeezebert::grouped_conv1x1_add_layer_norm: ")
