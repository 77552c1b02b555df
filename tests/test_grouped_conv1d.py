"""grouped_conv1d: odd kernels along each sequence, padded with zeros at its ends and nowhere else."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch

from exactness import assert_close, exact
from op_testing import PackedWeightsContract, conv, layouts, randn
from squeezebert_kernels import ops


def arguments(shape: tuple[int, ...], out_channels: int, groups: int, kernel_size: int) -> dict[str, Any]:
    weight, bias = conv(out_channels, shape[-1], groups, kernel_size)
    return {"input": randn(*shape), "weight": weight, "bias": bias, "groups": groups}


class TestGroupedConv1d(PackedWeightsContract):
    operator = ops.grouped_conv1d
    reductions = (36,)

    def arguments(self, tokens: int) -> dict[str, Any]:
        return arguments((2, tokens, 24), 20, 2, 3)

    def pack(self, arguments: dict[str, Any]) -> dict[str, Any]:
        return {**arguments, "weight": ops.pack_grouped_conv1d(arguments["weight"], arguments["groups"])}

    @pytest.mark.parametrize("kernel_size", [1, 3, 5, 7, 9])
    @pytest.mark.parametrize("tokens", [0, 1, 2, 3, 4, 6, 13, 14, 15, 29, 33])
    def test_kernels_against_lengths(self, kernel_size: int, tokens: int) -> None:
        given = arguments((2, tokens, 12), 8, 2, kernel_size)
        assert_close(self.call(given), exact(self.operator, given), 6 * kernel_size)

    @pytest.mark.parametrize(
        ("in_channels", "out_channels", "groups"), [(20, 20, 20), (31, 33, 1), (33, 33, 3), (48, 192, 4), (192, 48, 6)]
    )
    def test_channels_and_groups(self, in_channels: int, out_channels: int, groups: int) -> None:
        given = arguments((2, 9, in_channels), out_channels, groups, 3)
        for bias in (given["bias"], None):
            case = {**given, "bias": bias}
            assert_close(self.call(case), exact(self.operator, case), 3 * in_channels // groups)

    def test_is_torch_conv1d(self) -> None:
        layer = torch.nn.Conv1d(24, 20, 5, padding="same", groups=2).requires_grad_(False)
        input = randn(3, 24, 11)
        output = ops.grouped_conv1d(input.transpose(1, 2), layer.weight, layer.bias, 2)
        torch.testing.assert_close(output.transpose(1, 2), layer(input))

    def test_kernel_of_one_is_grouped_conv1x1(self) -> None:
        given = arguments((3, 7, 24), 20, 2, 1)
        assert torch.equal(self.call(given), ops.grouped_conv1x1(**given))
        weight = given["weight"].squeeze(-1).requires_grad_()
        output = self.call({**given, "weight": weight})
        assert torch.equal(output, ops.grouped_conv1x1(**given))
        output.sum().backward()
        assert weight.grad is not None
        assert weight.grad.shape == weight.shape

    def test_packed_tokens(self) -> None:
        """Sequences do not see each other, and one that is packed with others has the bits it has alone."""
        lengths = [3, 0, 1, 9, 2]
        offsets = torch.tensor([0, *lengths]).cumsum(0).to(torch.int32)
        given = arguments((sum(lengths), 24), 20, 2, 5)
        packed = self.call({**given, "cu_seqlens": offsets})
        assert_close(packed, exact(self.operator, {**given, "cu_seqlens": offsets}), 60)
        for start, end in zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True):
            alone = self.call({**given, "input": given["input"][start:end]})
            assert torch.equal(packed[start:end], alone)

    def test_opcheck_with_cu_seqlens(self) -> None:
        input = randn(5, 24).requires_grad_()
        weight, bias = conv(20, 24, 2, kernel_size=3)
        torch.library.opcheck(self.overload, (input, weight, bias, 2, torch.tensor([0, 2, 5], dtype=torch.int32)))

    def test_input_layouts(self) -> None:
        given = self.arguments(7)
        expected = self.call(given)
        for name, input in layouts(given["input"]):
            assert torch.equal(self.call({**given, "input": input}), expected), name

    def test_nan_reaches_as_far_as_the_kernel(self) -> None:
        given = arguments((2, 9, 4), 4, 1, 3)
        clean = self.call(given)
        given["input"][0, 4, 1] = float("nan")
        output = self.call(given)
        assert output[0, 3:6].isnan().all()
        output[0, 3:6] = clean[0, 3:6]
        assert torch.equal(output, clean)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (
                {"weight": torch.ones(20, 12, 4)},
                "weight: expected [out_channels, in_channels / groups, kernel_size] with an odd",
            ),
            ({"input": torch.ones(24)}, "input: expected [sequences, tokens, channels] or [tokens, channels], got"),
            (
                {"input": torch.ones(1, 1, 3, 24)},
                "input: expected [sequences, tokens, channels] or [tokens, channels], got",
            ),
            ({"groups": 3}, "groups: expected a positive divisor of 24 input and 20 output channels, got 3"),
            (
                {"input": torch.ones(1, 1).expand(2**31, 1), "weight": torch.ones(1, 1, 3), "bias": None, "groups": 1},
                "input: expected at most 2147483647 tokens (offsets are int32), got 2147483648 tokens",
            ),
        ],
    )
    def test_refused(self, change: dict[str, Any], message: str) -> None:
        with pytest.raises(ValueError, match=re.escape(message)) as error:
            self.call({**self.arguments(3), **change})
        assert str(error.value).startswith("squeezebert::grouped_conv1d: ")

    @pytest.mark.parametrize(
        ("offsets", "message"),
        [
            (torch.tensor([0, 2, 5]), "expected dtype torch.int32, got a torch.int64 tensor of shape [3]"),
            (
                torch.tensor([[0, 5]], dtype=torch.int32),
                "expected shape [sequences + 1], got a torch.int32 tensor of shape [1, 2]",
            ),
            (
                torch.tensor([], dtype=torch.int32),
                "expected shape [sequences + 1], got a torch.int32 tensor of shape [0]",
            ),
            (torch.tensor([1, 5], dtype=torch.int32), "expected the first offset to be 0, got 1"),
            (
                torch.tensor([0, 4, 3, 5], dtype=torch.int32),
                "expected offsets that never decrease, got 4 then 3 at index 2",
            ),
            (torch.tensor([0, 4], dtype=torch.int32), "expected the last offset to be the 5 tokens of input, got 4"),
            (torch.tensor([0, 6], dtype=torch.int32), "expected the last offset to be the 5 tokens of input, got 6"),
        ],
    )
    def test_offsets_refused(self, offsets: torch.Tensor, message: str) -> None:
        with pytest.raises(ValueError, match=re.escape(f"squeezebert::grouped_conv1d: cu_seqlens: {message}")):
            self.call({**arguments((5, 24), 20, 2, 3), "cu_seqlens": offsets})

    def test_packed_tokens_have_no_batch(self) -> None:
        with pytest.raises(ValueError, match=r"input: expected packed tokens \[tokens, channels\] beside cu_seqlens"):
            self.call({**self.arguments(5), "cu_seqlens": torch.tensor([0, 10], dtype=torch.int32)})
