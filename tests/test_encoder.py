"""encoder: everything in encoder_testing.py, for two layers; and the first tokens only."""

from __future__ import annotations

import re

import pytest
import torch

from encoder_testing import GROUPS, SQUEEZEBERT, EncoderContract, arguments, offsets_of
from exactness import assert_close, exact
from squeezebert_kernels import ops


class TestEncoder(EncoderContract):
    operator = ops.encoder
    layers = 2

    def test_is_its_layers(self) -> None:
        given = self.arguments(9)
        first, second = given["params"][:16], given["params"][16:]
        hidden = ops.encoder_layer(**{**given, "params": first})
        assert torch.equal(self.call(given), ops.encoder_layer(**{**given, "params": second, "input": hidden}))

    def test_squeezebert_itself(self) -> None:
        """Two layers at the published sizes."""
        self.check(arguments((1, 17, 768), 3072, 12, SQUEEZEBERT, layers=2))

    @pytest.mark.parametrize("groups", GROUPS)
    @pytest.mark.parametrize("layers", [1, 2])
    def test_first_token_only(self, groups: list[int], layers: int) -> None:
        """The same bits as the first rows of the whole output, in every form of input."""
        given = self.pack(arguments((3, 17, 48), 96, 4, groups, layers))
        mask = torch.rand(3, 1, 1, 17) < 0.7
        for more in ({}, {"mask": mask}):
            whole = self.call({**given, **more})
            assert torch.equal(self.call({**given, **more, "first_token_only": True}), whole[:, 0])
        one = {**given, "input": given["input"][0]}
        assert torch.equal(self.call({**one, "first_token_only": True}), self.call(one)[:1])
        lengths = [5, 1, 11]
        packed = {**given, "input": given["input"][0], "cu_seqlens": offsets_of(lengths)}
        assert torch.equal(self.call({**packed, "first_token_only": True}), self.call(packed)[[0, 5, 6]])

    def test_first_token_only_gradients(self) -> None:
        given = {**arguments((2, 5, 24), 48, 2, SQUEEZEBERT), "first_token_only": True}
        given["input"].requires_grad_()
        self.call(given).sum().backward()
        wide = given["input"].detach().double().requires_grad_()
        exact(self.operator, {**given, "input": wide}).sum().backward()
        assert_close(given["input"].grad, wide.grad, *self.reductions)

    def test_first_token_only_fakes(self) -> None:
        given = self.pack(arguments((3, 5, 24), 48, 2, SQUEEZEBERT))
        for input, offsets in (
            (given["input"], None),
            (given["input"][0], None),
            (given["input"][0], offsets_of([2, 3])),
        ):
            case = {**given, "input": input, "mask": None, "cu_seqlens": offsets, "first_token_only": True}
            torch.library.opcheck(self.overload, tuple(case.values()))

    def test_first_token_only_wants_tokens(self) -> None:
        given = {**arguments((3, 24), 48, 2, SQUEEZEBERT), "first_token_only": True}
        expected = (
            "squeezebert::encoder: first_token_only: expected at least one token in every sequence, got sequence 1"
        )
        with pytest.raises(ValueError, match=re.escape(expected)):
            self.call({**given, "cu_seqlens": offsets_of([2, 0, 1])})
        with pytest.raises(ValueError, match=r"first_token_only: .* got sequence 0 without any"):
            self.call({**given, "input": torch.ones(2, 0, 24)})
        assert self.call({**given, "input": torch.ones(0, 5, 24)}).shape == (0, 24)

    def test_number_of_params(self) -> None:
        given = self.arguments(3)
        for count in (0, 15, 31):
            message = f"encoder: params: expected 16 tensors for each .* or one packed layer each, got {count}"
            with pytest.raises(ValueError, match=message):
                self.call({**given, "params": given["params"][:count]})
