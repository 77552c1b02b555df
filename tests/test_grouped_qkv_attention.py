"""grouped_qkv_attention: the projections and the sequences; attention's own tests are in test_attention.py."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch

from exactness import assert_close, exact
from op_testing import NARROW, TOKEN_COUNTS, PackedWeightsContract, conv, layouts, randn
from squeezebert_kernels import ops


def arguments(shape: tuple[int, ...], channels: int, num_heads: int, groups: list[int], **more: Any) -> dict[str, Any]:
    given: dict[str, Any] = {"input": randn(*shape)}
    for name, count in zip(("query", "key", "value"), groups, strict=True):
        given[f"{name}_weight"], given[f"{name}_bias"] = conv(channels, shape[-1], count, kernel_size=1)
    return {**given, "num_heads": num_heads, "groups": groups, **more}


class TestGroupedQkvAttention(PackedWeightsContract):
    operator = ops.grouped_qkv_attention
    reductions = (24, 12, 9)
    attentions = 1

    def arguments(self, tokens: int) -> dict[str, Any]:
        return arguments((2, tokens, 24), 24, 2, [2, 1, 4], mask=randn(2, 1, 1, tokens))

    def pack(self, arguments: dict[str, Any]) -> dict[str, Any]:
        packed = {
            f"{name}_weight": ops.pack_grouped_conv1x1(arguments[f"{name}_weight"], groups)
            for name, groups in zip(("query", "key", "value"), arguments["groups"], strict=True)
        }
        return {**arguments, **packed}

    def check(self, given: dict[str, Any]) -> None:
        channels, tokens = given["query_weight"].shape[0], given["input"].shape[-2]
        reductions = (given["input"].shape[-1], channels // given["num_heads"], tokens)
        assert_close(self.call(given), exact(self.operator, given), *reductions)

    @pytest.mark.parametrize("tokens", TOKEN_COUNTS)
    def test_token_counts(self, tokens: int) -> None:
        self.check(arguments((2, tokens, 48), 48, 3, [3, 3, 3]))

    @pytest.mark.parametrize(
        ("in_channels", "channels", "num_heads", "groups"),
        [
            (192, 192, 3, [1, 1, 1]),
            (768, 768, 12, [4, 4, 4]),  # SqueezeBERT's
            (48, 48, 4, [4, 4, 4]),  # a group to a head
            (48, 48, 2, [4, 4, 4]),  # two groups to a head
            (48, 48, 4, [2, 2, 2]),  # two heads to a group
            (48, 48, 4, [3, 3, 3]),  # groups and heads that do not line up
            (48, 48, 2, [1, 2, 4]),
            (48, 48, 2, [48, 16, 1]),
            (33, 31, 1, [1, 1, 1]),
            (20, 40, 5, [4, 5, 10]),
        ],
    )
    def test_channels_heads_and_groups(
        self, in_channels: int, channels: int, num_heads: int, groups: list[int]
    ) -> None:
        given = arguments((2, 9, in_channels), channels, num_heads, groups)
        self.check(given)
        self.check({**given, "query_bias": None, "value_bias": None})
        self.check({**given, "mask": torch.rand(2, num_heads, 9, 9) < 0.7, "scale": 0.2})

    def test_is_its_parts(self) -> None:
        given = self.arguments(9)
        query, key, value = (
            ops.grouped_conv1x1(given["input"], given[f"{n}_weight"], given[f"{n}_bias"], g)
            for n, g in zip(("query", "key", "value"), given["groups"], strict=True)
        )
        torch.testing.assert_close(self.call(given), ops.attention(query, key, value, 2, given["mask"]))

    @pytest.mark.parametrize("dtype", [torch.float32, *NARROW])
    def test_attention_of_another_precision_than_the_weights(self, dtype: torch.dtype) -> None:
        for given in (self.arguments(9), self.pack(self.narrow(self.arguments(9), NARROW[0]))):
            projections = [
                ops.grouped_conv1x1(given["input"], given[f"{name}_weight"], given[f"{name}_bias"], groups)
                for name, groups in zip(("query", "key", "value"), given["groups"], strict=True)
            ]
            expected = ops.attention(*projections, 2, given["mask"], dtype=dtype)
            assert torch.equal(self.call({**given, "attention_dtype": dtype}), expected)
            torch.library.opcheck(self.overload, (*given.values(), None, None, dtype))

    def test_packed_tokens(self) -> None:
        lengths = [3, 0, 1, 17, 2]
        offsets = torch.tensor([0, *lengths]).cumsum(0).to(torch.int32)
        given = self.pack(arguments((sum(lengths), 48), 48, 3, [3, 3, 3], cu_seqlens=offsets))
        packed = self.call(given)
        for start, end in zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True):
            alone = self.call({**given, "input": given["input"][start:end], "cu_seqlens": None})
            assert torch.equal(packed[start:end], alone)

    def test_no_packed_tokens(self) -> None:
        given = arguments((0, 24), 24, 2, [2, 1, 4])
        for offsets in ([0], [0, 0, 0]):
            output = self.call({**given, "cu_seqlens": torch.tensor(offsets, dtype=torch.int32)})
            assert output.shape == (0, 24)

    def test_padding_changes_no_bits(self) -> None:
        given = self.pack(arguments((1, 9, 48), 48, 3, [3, 3, 3]))
        expected = self.call(given)
        padded = torch.cat([given["input"], randn(1, 24, 48)], dim=1)
        output = self.call({**given, "input": padded, "mask": torch.arange(33) < 9})
        assert torch.equal(output[:, :9], expected)

    def test_input_layouts(self) -> None:
        given = self.arguments(7)
        expected = self.call(given)
        for name, input in layouts(given["input"]):
            assert torch.equal(self.call({**given, "input": input}), expected), name

    def test_nan_stays_in_its_sequence_and_group(self) -> None:
        given = arguments((2, 9, 48), 48, 4, [4, 4, 4])
        clean = self.call(given)
        given["input"][1, 5, 13] = float("nan")
        output = self.call(given)
        assert output[1, :, 12:24].isnan().all()
        output[1, :, 12:24] = clean[1, :, 12:24]
        assert torch.equal(output, clean)

    def test_opcheck_with_cu_seqlens(self) -> None:
        given = arguments((5, 24), 24, 2, [2, 1, 4], mask=None, cu_seqlens=torch.tensor([0, 2, 5], dtype=torch.int32))
        given["input"].requires_grad_()
        torch.library.opcheck(self.overload, tuple(given.values()))

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"groups": [2, 2]}, "groups: expected three group counts, [query, key, value], got [2, 2]"),
            ({"groups": [2, 5, 4]}, "groups[1]: expected a positive divisor of 24 input and 24 output channels, got 5"),
            ({"num_heads": 5}, "num_heads: expected a positive divisor of 24 channels, got 5"),
            (
                {"key_weight": torch.ones(20, 24)},
                "key_weight: expected 24 output channels, as many as query_weight has, got 20",
            ),
            ({"key_bias": torch.ones(20)}, "key_bias: expected shape [24], got a torch.float32 tensor of shape [20]"),
            (
                {"value_weight": torch.ones(24, 5)},
                "value_weight: expected 6 input channels per group (24 channels, groups = 4)",
            ),
            (
                {"mask": torch.ones(4)},
                "mask: expected a shape that broadcasts to [2, 2, 3, 3], got a torch.float32 tensor",
            ),
            (
                {"input": torch.ones(3, 24), "cu_seqlens": torch.tensor([0, 3], dtype=torch.int32)},
                "mask: expected none beside cu_seqlens, which already separates the sequences, got a torch.float32",
            ),
            (
                {"input": torch.ones(3, 24), "mask": None, "cu_seqlens": torch.tensor([0, 2], dtype=torch.int32)},
                "cu_seqlens: expected the last offset to be the 3 tokens of input, got 2",
            ),
        ],
    )
    def test_refused(self, change: dict[str, Any], message: str) -> None:
        given = {**self.arguments(3), **change}
        if "key_weight" in change:
            given = {**given, "key_bias": None}
        with pytest.raises(ValueError, match=re.escape(message)) as error:
            self.call(given)
        assert str(error.value).startswith("squeezebert::grouped_qkv_attention: ")
