"""What encoder_layer and encoder are both tested for: the reference; the same bits alone, batched, padded, packed."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from torch import Tensor

from exactness import assert_close, exact
from op_testing import PackedWeightsContract, layer_params, layouts, pack_params, randn

SQUEEZEBERT = [4, 4, 4, 1, 4, 4]
GROUPS = [SQUEEZEBERT, [1] * 6, [2] * 6, [4, 2, 1, 3, 6, 12], [3, 3, 3, 3, 2, 4], [24] * 6]


def arguments(shape: tuple[int, ...], inner: int, num_heads: int, groups: list[int], layers: int = 1) -> dict[str, Any]:
    return {
        "input": randn(*shape),
        "params": layer_params(shape[-1], inner, groups, layers),
        "num_heads": num_heads,
        "groups": groups,
        "eps": 1e-12,
    }


def offsets_of(lengths: list[int]) -> Tensor:
    return torch.tensor([0, *lengths]).cumsum(0).to(torch.int32)


class EncoderContract(PackedWeightsContract):
    """What encoder_layer and encoder share."""

    layers: int

    @property
    def reductions(self) -> tuple[int, ...]:  # type: ignore[override]
        return (24, 12, 9, 24, 24, 24, 48, 24) * self.layers

    @property
    def attentions(self) -> int:  # type: ignore[override]
        return self.layers

    def arguments(self, tokens: int) -> dict[str, Any]:
        given = arguments((2, tokens, 24), 48, 2, SQUEEZEBERT, self.layers)
        return {**given, "mask": randn(2, 1, 1, tokens)}

    def pack(self, arguments: dict[str, Any]) -> dict[str, Any]:
        return {**arguments, "params": pack_params(arguments["params"], arguments["groups"])}

    def check(self, given: dict[str, Any]) -> Tensor:
        output = self.call(given)
        channels, inner, tokens = given["input"].shape[-1], given["params"][10].shape[0], given["input"].shape[-2]
        reductions = (channels, channels // given["num_heads"], tokens, channels, channels, channels, inner, channels)
        assert_close(output, exact(self.operator, given), *(reductions * (len(given["params"]) // 16)))
        return output

    @pytest.mark.parametrize("tokens", [0, 1, 2, 5, 7, 8, 13, 14, 15, 17, 29, 31, 33, 127, 129])
    def test_token_counts(self, tokens: int) -> None:
        self.check(arguments((2, tokens, 48), 96, 4, SQUEEZEBERT, self.layers))

    @pytest.mark.parametrize("groups", GROUPS)
    @pytest.mark.parametrize("num_heads", [1, 4, 24])
    def test_groups_and_heads(self, groups: list[int], num_heads: int) -> None:
        self.check(arguments((2, 9, 24), 48, num_heads, groups, self.layers))

    @pytest.mark.parametrize(("channels", "inner"), [(20, 31), (31, 20), (33, 33), (1, 1), (192, 768)])
    def test_channels(self, channels: int, inner: int) -> None:
        self.check(arguments((2, 9, channels), inner, 1, [1] * 6, self.layers))

    def test_masks(self) -> None:
        given = arguments((2, 9, 48), 96, 4, SQUEEZEBERT, self.layers)
        for mask in (randn(9), randn(2, 1, 1, 9), randn(2, 4, 9, 9), torch.rand(2, 1, 9, 9) < 0.7):
            self.check({**given, "mask": mask})
        nothing = torch.zeros(2, 1, 1, 9, dtype=torch.bool)
        assert self.check({**given, "mask": nothing}).isfinite().all()

    def test_input_layouts(self) -> None:
        given = self.arguments(7)
        expected = self.call(given)
        for name, input in layouts(given["input"]):
            assert torch.equal(self.call({**given, "input": input}), expected), name

    def test_alone_batched_padded_and_packed_are_the_same_bits(self) -> None:
        lengths = [9, 1, 33, 14, 0, 2]
        given = self.pack(arguments((sum(lengths), 48), 96, 4, SQUEEZEBERT, self.layers))
        offsets = offsets_of(lengths)
        with_offsets = self.call({**given, "cu_seqlens": offsets})

        padded, mask = torch.zeros(6, 33, 48), torch.zeros(6, 1, 1, 33, dtype=torch.bool)
        for n, length in enumerate(lengths):
            padded[n, :length] = given["input"][offsets[n] : offsets[n + 1]]
            mask[n, ..., :length] = True
        with_padding = self.call({**given, "input": padded, "mask": mask})

        for n, length in enumerate(lengths):
            rows = slice(offsets[n], offsets[n + 1])
            alone = self.call({**given, "input": given["input"][rows]})
            assert torch.equal(with_offsets[rows], alone), f"packed, {length} tokens"
            assert torch.equal(with_padding[n, :length], alone), f"padded, {length} tokens"

    def test_nan_stays_in_its_sequence(self) -> None:
        given = self.arguments(9)
        clean = self.call(given)
        given["input"][1, 5, 3] = float("nan")
        output = self.call(given)
        assert output[1].isnan().all()
        assert torch.equal(output[0], clean[0])

    def test_opcheck_with_cu_seqlens(self) -> None:
        given = arguments((5, 24), 48, 2, SQUEEZEBERT, self.layers)
        given["input"].requires_grad_()
        torch.library.opcheck(self.overload, (*given.values(), None, offsets_of([2, 3])))

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (
                {"groups": [1, 2, 3]},
                "groups: expected six group counts, [query, key, value, post_attention, intermediate, ",
            ),
            (
                {"groups": [4, 4, 5, 1, 4, 4]},
                "groups[2]: expected a positive divisor of 24 input and 24",
            ),
            ({"num_heads": 7}, "num_heads: expected a positive divisor of 24 channels, got 7"),
            ({"eps": -1.0}, "eps: expected a number that is not negative, got -1"),
            ({"input": torch.ones(24)}, "input: expected [sequences, tokens, channels] or [tokens, channels], got"),
            ({"mask": torch.ones(2, 3)}, "mask: expected a shape that broadcasts to [2, 2, 3, 3], got"),
            (
                {"input": torch.ones(3, 24), "cu_seqlens": offsets_of([3])},
                "mask: expected none beside cu_seqlens, which already separates the sequences, got a torch.float32",
            ),
            (
                {"input": torch.ones(3, 24), "mask": None, "cu_seqlens": offsets_of([2])},
                "cu_seqlens: expected the last offset to be the 3 tokens of input, got 2",
            ),
        ],
    )
    def test_refused(self, change: dict[str, Any], message: str) -> None:
        with pytest.raises(ValueError, match=re.escape(message)) as error:
            self.call({**self.arguments(3), **change})
        assert str(error.value).startswith(f"squeezebert::{self.operator.__name__}: ")

    @pytest.mark.parametrize(
        ("slot", "param", "message"),
        [
            (1, torch.ones(20), "query.bias): expected shape [24], got a torch.float32 tensor of shape [20]"),
            (4, torch.ones(24, 5), "value.weight): expected 6 input channels per group (24 channels, groups = 4), got"),
            (
                6,
                torch.ones(20, 24),
                "post_attention.weight): expected 24 output channels, as many as input has, got 20",
            ),
            (
                9,
                torch.ones(24).double(),
                "post_attention layernorm.bias): expected dtype torch.float32, got a torch.float64",
            ),
            (
                12,
                torch.ones(24, 6),
                "output.weight): expected 12 input channels per group (48 channels, groups = 4), got",
            ),
            (
                10,
                torch.zeros(48, 24, dtype=torch.uint8),
                "intermediate.weight): expected a weight packed by pack_grouped",
            ),
        ],
    )
    def test_params_refused(self, slot: int, param: Tensor, message: str) -> None:
        given = self.arguments(3)
        index = (self.layers - 1) * 16 + slot
        given["params"][index] = param
        if slot == 6:
            given["params"][index + 1] = torch.ones(20)
        place = f"params[{index}] (layer {self.layers - 1}, "
        with pytest.raises(ValueError, match=re.escape(f"squeezebert::{self.operator.__name__}: {place}{message}")):
            self.call(given)
