"""attention: against the reference for every kind of mask, at the edges of its tiles, with what is not finite."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from torch import Tensor

from exactness import assert_close, exact
from op_testing import NARROW, TOKEN_COUNTS, OperatorContract, layouts, randn
from python_ref import ops as reference
from squeezebert_kernels import _native, ops
from tolerances import narrow_weights_bound

LOWEST = torch.finfo(torch.float32).min
INFINITY = float("inf")


def qkv(sequences: int, queries: int, keys: int, channels: int, num_heads: int) -> dict[str, Any]:
    return {
        "query": randn(sequences, queries, channels),
        "key": randn(sequences, keys, channels),
        "value": randn(sequences, keys, channels),
        "num_heads": num_heads,
    }


class TestAttention(OperatorContract):
    operator = ops.attention
    reductions = (12, 7)

    def arguments(self, tokens: int) -> dict[str, Any]:
        return {**qkv(2, tokens, 7, 24, 2), "mask": randn(2, 1, tokens, 7)}

    def check(self, given: dict[str, Any]) -> Tensor:
        output = self.call(given)
        head_size = given["query"].shape[-1] // given["num_heads"]
        assert_close(output, exact(self.operator, given), head_size, given["key"].shape[-2])
        return output

    @pytest.mark.parametrize("tokens", TOKEN_COUNTS)
    def test_self_attention(self, tokens: int) -> None:
        self.check(qkv(2, tokens, tokens, 128, 2))

    @pytest.mark.parametrize("keys", TOKEN_COUNTS)
    def test_other_keys_than_queries(self, keys: int) -> None:
        self.check(qkv(2, 9, keys, 32, 2))

    def test_as_long_as_the_model_goes(self) -> None:
        self.check(qkv(1, 512, 512, 64, 1))
        self.check(qkv(1, 3, 700, 64, 1))

    @pytest.mark.parametrize(
        ("channels", "num_heads"),
        [(1, 1), (20, 20), (20, 4), (20, 1), (31, 1), (33, 3), (48, 3), (48, 1), (192, 3), (192, 1), (768, 12)],
    )
    def test_heads(self, channels: int, num_heads: int) -> None:
        self.check(qkv(2, 9, 17, channels, num_heads))

    def test_without_a_batch(self) -> None:
        given = qkv(1, 5, 7, 24, 2)
        expected = self.check(given)
        assert torch.equal(self.check({k: v[0] if isinstance(v, Tensor) else v for k, v in given.items()}), expected[0])

    def test_without_keys_there_is_nothing(self) -> None:
        assert torch.equal(self.call(qkv(2, 3, 0, 24, 2)), torch.zeros(2, 3, 24))
        assert self.call(qkv(0, 3, 3, 24, 2)).shape == (0, 3, 24)

    @pytest.mark.parametrize("scale", [0.0, 0.01, 1.0, -2.0])
    def test_scale(self, scale: float) -> None:
        self.check({**qkv(2, 5, 7, 24, 2), "scale": scale})

    @pytest.mark.parametrize(
        "shape",
        [(), (7,), (1,), (5, 7), (5, 1), (3, 5, 7), (2, 1, 1, 7), (2, 1, 5, 7), (2, 3, 5, 7), (2, 3, 1, 1)],
    )  # fmt: skip
    def test_mask_shapes(self, shape: tuple[int, ...]) -> None:
        given = qkv(2, 5, 7, 24, 3)
        self.check({**given, "mask": randn(*shape)})
        self.check({**given, "mask": torch.rand(shape) < 0.7})

    def test_mask_layouts(self) -> None:
        given = qkv(2, 5, 7, 24, 3)
        values = randn(2, 3, 5, 7)
        for mask in (values, values > 0.0):
            expected = self.check({**given, "mask": mask})
            transposed = mask.permute(3, 1, 2, 0).contiguous().permute(3, 1, 2, 0)
            spread = mask.repeat_interleave(2, dim=-1)[..., ::2]
            for view in (transposed, spread):
                assert torch.equal(self.call({**given, "mask": view}), expected)
            row = mask[:1, :1, :1]
            assert torch.equal(
                self.call({**given, "mask": row.expand(2, 3, 5, 7)}), self.call({**given, "mask": row.contiguous()})
            )

    def test_a_boolean_mask_adds_the_lowest_number(self) -> None:
        given = qkv(2, 5, 7, 24, 3)
        attend = torch.rand(2, 1, 5, 7) < 0.7
        additive = torch.zeros(2, 1, 5, 7).masked_fill(~attend, LOWEST)
        assert torch.equal(self.call({**given, "mask": attend}), self.call({**given, "mask": additive}))

    def test_fully_masked_rows(self) -> None:
        """Uniform under the lowest number, as Hugging Face has it; zero under -infinity; never NaN."""
        given = qkv(2, 5, 7, 24, 3)
        mean = given["value"].mean(-2, keepdim=True).expand(2, 5, 24)
        for mask in (torch.zeros(2, 1, 1, 7, dtype=torch.bool), torch.full((1, 7), LOWEST)):
            torch.testing.assert_close(self.call({**given, "mask": mask}), mean)
        mask = torch.zeros(5, 7)
        mask[3] = -INFINITY
        output = self.check({**given, "mask": mask})
        assert torch.equal(output[:, 3], torch.zeros(2, 24))

    def test_padding_changes_no_bits(self) -> None:
        """Masked keys after the real ones leave every bit as it is without them."""
        given = qkv(1, 9, 9, 64, 1)
        expected = self.call(given)
        padded = {name: torch.cat([given[name], randn(1, 24, 64)], dim=1) for name in ("query", "key", "value")}
        mask = torch.arange(33) < 9
        output = self.call({**padded, "num_heads": 1, "mask": mask})
        assert torch.equal(output[:, :9], expected)

    def test_batch_composition_changes_no_bits(self) -> None:
        given = qkv(5, 9, 17, 48, 3)
        together = self.call(given)
        for n in range(5):
            alone = {k: v[n] if isinstance(v, Tensor) else v for k, v in given.items()}
            assert torch.equal(self.call(alone), together[n])

    def test_layouts(self) -> None:
        given = self.arguments(5)
        expected = self.call(given)
        for argument in ("query", "key", "value"):
            for name, view in layouts(given[argument]):
                assert torch.equal(self.call({**given, argument: view}), expected), f"{argument}: {name}"

    def test_views_of_one_projection(self) -> None:
        """query, key and value as slices of a joint projection: rows far apart, no copy needed."""
        joint = randn(2, 9, 72)
        query, key, value = joint.split(24, dim=-1)
        given = {"query": query.contiguous(), "key": key.contiguous(), "value": value.contiguous(), "num_heads": 2}
        assert torch.equal(ops.attention(query, key, value, 2), self.call(given))

    @pytest.mark.parametrize("argument", ["query", "key", "value"])
    @pytest.mark.parametrize("value", [float("nan"), INFINITY, -INFINITY])
    def test_what_is_not_finite(self, argument: str, value: float) -> None:
        given = qkv(2, 5, 7, 24, 2)
        clean = self.call(given)
        given[argument][0, 3, 2] = value
        output = self.call(given)
        torch.testing.assert_close(output, reference.attention(**given), equal_nan=True)
        assert torch.equal(output[1], clean[1])
        assert torch.equal(output[0, :, 12:], clean[0, :, 12:])  # the other head

    @pytest.mark.parametrize("value", [float("nan"), INFINITY, -INFINITY])
    def test_a_mask_that_is_not_finite(self, value: float) -> None:
        given = {**qkv(2, 5, 7, 24, 2), "mask": torch.zeros(5, 7)}
        given["mask"][2, 4] = value
        torch.testing.assert_close(self.call(given), reference.attention(**given), equal_nan=True)

    def test_large_scores_do_not_overflow(self) -> None:
        given = qkv(2, 5, 7, 24, 2)
        given["query"] = given["query"] * 1000.0
        given["key"] = given["key"] * 1000.0
        output = self.call(given)
        assert output.isfinite().all()
        assert output.abs().max() <= given["value"].abs().max()

    @pytest.mark.parametrize("dtype", NARROW)
    def test_keys_and_values_of_lower_precision(self, dtype: torch.dtype) -> None:
        """Rounded to it as a weight is, and multiplied by the product of its format."""
        given = {**self.arguments(9), "dtype": dtype}
        output = self.call(given)
        product = _native.active_product(str(dtype).removeprefix("torch."))
        torch.testing.assert_close(
            output, reference.attention(**given), rtol=0.0, atol=narrow_weights_bound(product, *self.reductions)
        )
        assert not torch.equal(output, self.call({**given, "dtype": None}))
        assert torch.equal(self.call({**given, "dtype": torch.float32}), self.call({**given, "dtype": None}))

    @pytest.mark.parametrize("dtype", NARROW)
    def test_precision_in_graphs_and_gradients(self, dtype: torch.dtype) -> None:
        """No derivative sees what keys and values are rounded to."""
        given = self.differentiable(5)
        torch.library.opcheck(self.overload, (*given.values(), None, dtype))
        compiled = torch.compile(ops.attention, fullgraph=True, backend="aot_eager")
        output = compiled(**given, dtype=dtype)
        assert torch.equal(output, self.call({**given, "dtype": dtype}))
        leaves = [given["query"], given["key"], given["value"]]
        for got, want in zip(
            torch.autograd.grad(output.sum(), leaves),
            torch.autograd.grad(self.call(given).sum(), leaves),
            strict=True,
        ):
            assert torch.equal(got, want)

    def test_opcheck_with_a_boolean_mask(self) -> None:
        given = qkv(2, 5, 7, 24, 2)
        leaves = [given[name].requires_grad_() for name in ("query", "key", "value")]
        torch.library.opcheck(self.overload, (*leaves, 2, torch.rand(2, 1, 1, 7) < 0.7, 0.5))

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"num_heads": 0}, "num_heads: expected a positive divisor of 24 channels, got 0"),
            ({"num_heads": 5}, "num_heads: expected a positive divisor of 24 channels, got 5"),
            ({"query": torch.ones(24)}, "query: expected [sequences, tokens, channels] or [tokens, channels], got a"),
            (
                {"key": torch.ones(2, 7, 20)},
                "key: expected the shape of query, [2, 3, 24], but for the number of tokens",
            ),
            (
                {"key": torch.ones(3, 7, 24)},
                "key: expected the shape of query, [2, 3, 24], but for the number of tokens",
            ),
            (
                {"key": torch.ones(7, 24)},
                "key: expected the shape of query, [2, 3, 24], but for the number of tokens",
            ),
            (
                {"value": torch.ones(2, 6, 24)},
                "value: expected the shape of key, [2, 7, 24], got a torch.float32 tensor of shape [2, 6, 24]",
            ),
            (
                {"mask": torch.ones(2, 3, 3, 7)},
                "mask: expected a shape that broadcasts to [2, 2, 3, 7], got a torch.float32 tensor of shape "
                "[2, 3, 3, 7]",
            ),
            ({"mask": torch.ones(8)}, "mask: expected a shape that broadcasts to [2, 2, 3, 7], got"),
            ({"mask": torch.ones(1, 1, 1, 1, 7)}, "mask: expected a shape that broadcasts to [2, 2, 3, 7], got"),
            (
                {"mask": torch.ones(7, dtype=torch.int64)},
                "mask: expected a boolean or torch.float32 CPU tensor, got a torch.int64 tensor of shape [7]",
            ),
            ({"dtype": torch.float64}, "dtype: expected torch.float32, "),
        ],
    )
    def test_refused(self, change: dict[str, Any], message: str) -> None:
        with pytest.raises(ValueError, match=re.escape(message)) as error:
            self.call({**self.arguments(3), **change})
        assert str(error.value).startswith("squeezebert::attention: ")
