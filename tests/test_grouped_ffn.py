"""grouped_ffn: two convolutions with GELU between them, residual and LayerNorm; blocks that line up or do not."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch

from exactness import assert_close, exact
from op_testing import TOKEN_COUNTS, PackedWeightsContract, conv, layer_norm, layouts, randn
from squeezebert_kernels import ops


def arguments(shape: tuple[int, ...], inner: int, groups: list[int]) -> dict[str, Any]:
    channels = shape[-1]
    intermediate_weight, intermediate_bias = conv(inner, channels, groups[0], kernel_size=1)
    output_weight, output_bias = conv(channels, inner, groups[1], kernel_size=1)
    ln_weight, ln_bias = layer_norm(channels)
    return {
        "input": randn(*shape),
        "intermediate_weight": intermediate_weight,
        "intermediate_bias": intermediate_bias,
        "output_weight": output_weight,
        "output_bias": output_bias,
        "groups": groups,
        "ln_weight": ln_weight,
        "ln_bias": ln_bias,
        "eps": 1e-12,
    }


class TestGroupedFfn(PackedWeightsContract):
    operator = ops.grouped_ffn
    reductions = (12, 24, 24)

    def arguments(self, tokens: int) -> dict[str, Any]:
        return arguments((2, tokens, 24), 48, [2, 2])

    def pack(self, arguments: dict[str, Any]) -> dict[str, Any]:
        packed = {
            name: ops.pack_grouped_conv1x1(arguments[name], groups)
            for name, groups in zip(("intermediate_weight", "output_weight"), arguments["groups"], strict=True)
        }
        return {**arguments, **packed}

    def check(self, given: dict[str, Any]) -> None:
        channels, inner = given["input"].shape[-1], given["intermediate_weight"].shape[0]
        reductions = (channels // given["groups"][0], inner // given["groups"][1], channels)
        assert_close(self.call(given), exact(self.operator, given), *reductions)

    @pytest.mark.parametrize("tokens", TOKEN_COUNTS)
    def test_token_counts(self, tokens: int) -> None:
        self.check(arguments((tokens, 48), 192, [4, 4]))

    @pytest.mark.parametrize(
        ("channels", "inner", "groups"),
        [
            (768, 3072, [4, 4]),  # SqueezeBERT's
            (192, 768, [1, 1]),  # BERT's
            (48, 192, [4, 1]),
            (48, 192, [1, 4]),
            (48, 192, [3, 4]),  # blocks that do not line up
            (48, 192, [48, 16]),
            (48, 96, [2, 6]),
            (33, 31, [1, 1]),
            (31, 33, [1, 1]),
            (20, 20, [20, 20]),
            (33, 99, [11, 3]),
            (5, 1, [1, 1]),
        ],
    )
    def test_channels_and_groups(self, channels: int, inner: int, groups: list[int]) -> None:
        given = arguments((3, 5, channels), inner, groups)
        self.check(given)
        self.check({**given, "intermediate_bias": None, "output_bias": None})

    def test_is_its_parts(self) -> None:
        given = self.arguments(9)
        inner = ops.grouped_conv1x1_gelu(given["input"], given["intermediate_weight"], given["intermediate_bias"], 2)
        parts = ops.grouped_conv1x1_add_layer_norm(
            inner,
            given["output_weight"],
            given["output_bias"],
            2,
            given["input"],
            given["ln_weight"],
            given["ln_bias"],
            given["eps"],
        )
        torch.testing.assert_close(self.call(given), parts)

    def test_a_row_does_not_depend_on_its_neighbours(self) -> None:
        given = self.pack(arguments((37, 48), 192, [4, 4]))
        together = self.call(given)
        for start, end in ((0, 1), (5, 6), (3, 17), (36, 37)):
            alone = self.call({**given, "input": given["input"][start:end]})
            assert torch.equal(alone, together[start:end])

    @pytest.mark.parametrize("leading", [(), (1,), (2, 1, 3), (0,), (2, 0)])
    def test_leading_dimensions(self, leading: tuple[int, ...]) -> None:
        self.check(arguments((*leading, 24), 48, [2, 2]))

    def test_input_layouts(self) -> None:
        given = self.arguments(7)
        expected = self.call(given)
        for name, input in layouts(given["input"]):
            assert torch.equal(self.call({**given, "input": input}), expected), name

    @pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
    def test_what_is_not_finite_stays_in_its_row(self, value: float) -> None:
        given = self.arguments(7)
        clean = self.call(given)
        given["input"][1, 3, 5] = value
        output = self.call(given)
        assert output[1, 3].isnan().all()
        output[1, 3] = clean[1, 3]
        assert torch.equal(output, clean)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"groups": [2]}, "groups: expected two group counts, [intermediate, output], got [2]"),
            ({"groups": [5, 2]}, "groups[0]: expected a positive divisor of 24 input and 48 output channels, got 5"),
            ({"groups": [2, 0]}, "groups[1]: expected a positive divisor of 48 input and 24 output channels, got 0"),
            ({"intermediate_weight": torch.ones(48, 24)}, "intermediate_weight: expected 12 input channels per group"),
            (
                {"intermediate_bias": torch.ones(24)},
                "intermediate_bias: expected shape [48], got a torch.float32 tensor",
            ),
            (
                {"output_weight": torch.ones(24, 12)},
                "output_weight: expected 24 input channels per group (48 channels, ",
            ),
            (
                {"output_weight": torch.ones(20, 24), "output_bias": None},
                "output_weight: expected 24 output channels, as many as input has, got 20",
            ),
            ({"ln_weight": torch.ones(48)}, "ln_weight: expected shape [24], got a torch.float32 tensor of shape [48]"),
            ({"eps": -1e-12}, "eps: expected a number that is not negative, got -"),
        ],
    )
    def test_refused(self, change: dict[str, Any], message: str) -> None:
        with pytest.raises(ValueError, match=re.escape(message)) as error:
            self.call({**self.arguments(3), **change})
        assert str(error.value).startswith("squeezebert::grouped_ffn: ")
