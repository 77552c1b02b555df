"""embedding_layer_norm: three look-ups and a LayerNorm; ids of every form, and those that are out of range."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from torch import Tensor

from exactness import assert_close, exact
from op_testing import TOKEN_COUNTS, OperatorContract, layer_norm, layouts, randn
from squeezebert_kernels import ops

VOCABULARY, POSITIONS, TYPES = 50, 130, 2


def arguments(shape: tuple[int, ...], channels: int) -> dict[str, Any]:
    ln_weight, ln_bias = layer_norm(channels)
    return {
        "input_ids": torch.randint(VOCABULARY, shape),
        "token_type_ids": torch.randint(TYPES, shape),
        "position_ids": torch.randint(POSITIONS, shape),
        "word_embeddings": randn(VOCABULARY, channels),
        "position_embeddings": randn(POSITIONS, channels),
        "token_type_embeddings": randn(TYPES, channels),
        "ln_weight": ln_weight,
        "ln_bias": ln_bias,
        "eps": 1e-12,
    }


class TestEmbeddingLayerNorm(OperatorContract):
    operator = ops.embedding_layer_norm
    reductions = (24,)

    def arguments(self, tokens: int) -> dict[str, Any]:
        return arguments((2, tokens), 24)

    def check(self, given: dict[str, Any]) -> Tensor:
        output = self.call(given)
        assert_close(output, exact(self.operator, given), given["word_embeddings"].shape[1])
        return output

    @pytest.mark.parametrize("tokens", TOKEN_COUNTS)
    def test_token_counts(self, tokens: int) -> None:
        given = arguments((2, tokens), 40)
        self.check(given)
        self.check({**given, "position_ids": None, "token_type_ids": None})

    @pytest.mark.parametrize("channels", [1, 5, 20, 31, 33, 48, 192, 768])
    def test_channels(self, channels: int) -> None:
        self.check(arguments((2, 7), channels))

    @pytest.mark.parametrize("shape", [(7,), (2, 3, 7), (0, 7), (2, 0)])
    def test_leading_dimensions(self, shape: tuple[int, ...]) -> None:
        given = {**arguments(shape, 24), "position_ids": None}
        assert self.check(given).shape == (*shape, 24)

    def test_missing_ids(self) -> None:
        given = self.arguments(7)
        counted = self.call(
            {**given, "position_ids": torch.arange(7), "token_type_ids": torch.zeros(7, dtype=torch.int64)}
        )
        assert torch.equal(self.call({**given, "position_ids": None, "token_type_ids": None}), counted)

    def test_ids_that_broadcast(self) -> None:
        given = self.arguments(7)
        for name in ("position_ids", "token_type_ids"):
            for ids in (given[name][:1], given[name][0], given[name][:, :1], given[name][0, 0]):
                broadcast = ids.expand(2, 7)
                expected = self.check({**given, name: broadcast.contiguous()})
                assert torch.equal(self.call({**given, name: ids}), expected)
                assert torch.equal(self.call({**given, name: broadcast}), expected)

    def test_ids_of_any_stride_and_integer_width(self) -> None:
        given = self.arguments(7)
        expected = self.call(given)
        for name in ("input_ids", "position_ids", "token_type_ids"):
            for ids in (given[name].int(), given[name].t().contiguous().t(), given[name].repeat(1, 2)[:, :7]):
                assert torch.equal(self.call({**given, name: ids}), expected), name

    def test_tables_of_any_stride(self) -> None:
        given = self.arguments(7)
        expected = self.call(given)
        for name in ("word_embeddings", "position_embeddings", "token_type_embeddings"):
            for layout, table in layouts(given[name]):
                assert torch.equal(self.call({**given, name: table}), expected), f"{name}: {layout}"

    def test_nan_in_a_row_that_is_not_read_does_not_matter(self) -> None:
        given = self.arguments(7)
        given["input_ids"] %= 10
        clean = self.call(given)
        given["word_embeddings"][10:] = float("nan")
        assert torch.equal(self.call(given), clean)
        given["input_ids"][1, 3] = 10
        output = self.call(given)
        assert output[1, 3].isnan().all()
        output[1, 3] = clean[1, 3]
        assert torch.equal(output, clean)

    def test_opcheck_without_optional_ids(self) -> None:
        given = {**self.arguments(5), "position_ids": None, "token_type_ids": None}
        given["word_embeddings"].requires_grad_()
        torch.library.opcheck(self.overload, tuple(given.values()))

    @pytest.mark.parametrize(
        ("name", "rows"), [("input_ids", VOCABULARY), ("position_ids", POSITIONS), ("token_type_ids", TYPES)]
    )
    @pytest.mark.parametrize("past", [False, True])
    def test_ids_out_of_range(self, name: str, rows: int, past: bool) -> None:
        given = self.arguments(7)
        wrong = rows if past else -1
        given[name][1, 3] = wrong
        with pytest.raises(IndexError, match=rf"squeezebert::embedding_layer_norm: .*{name}.*{rows - 1}.*{wrong}"):
            self.call(given)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (
                {"input_ids": torch.tensor(1)},
                "input_ids: expected at least one dimension, the last one tokens, got",
            ),
            (
                {"input_ids": torch.ones(2, 3)},
                "input_ids: expected a torch.int64 or torch.int32 CPU tensor, got",
            ),
            (
                {"token_type_ids": torch.zeros(3, 3, dtype=torch.int64)},
                "token_type_ids: expected a shape that broadcasts to that of input_ids, [2, 3], got a torch.int64 "
                "tensor of shape [3, 3]",
            ),
            (
                {"position_ids": torch.zeros(1, 2, 3, dtype=torch.int64)},
                "position_ids: expected a shape that broadcasts to that of input_ids, [2, 3], got a torch.int64",
            ),
            (
                {"position_ids": torch.zeros(3, dtype=torch.bool)},
                "position_ids: expected a torch.int64 or torch.int32 CPU",
            ),
            (
                {"position_ids": None, "position_embeddings": torch.ones(2, 24)},
                "input_ids: expected at most 2 tokens (the rows of position_embeddings), got a torch.int64 tensor "
                "of shape [2, 3]",
            ),
            (
                {"word_embeddings": torch.ones(24)},
                "word_embeddings: expected [vocabulary, channels], got a torch.float32",
            ),
            (
                {"position_embeddings": torch.ones(130, 20)},
                "position_embeddings: expected [rows, 24], got a torch.float32 tensor of shape [130, 20]",
            ),
            (
                {"token_type_embeddings": torch.ones(24)},
                "token_type_embeddings: expected [rows, 24], got a torch.float32",
            ),
            (
                {"word_embeddings": torch.ones(0, 24)},
                "word_embeddings: expected at least one row, got a torch.float32 tensor of shape [0, 24]",
            ),
            ({"ln_weight": torch.ones(20)}, "ln_weight: expected shape [24], got a torch.float32 tensor of shape [20]"),
            ({"eps": float("nan")}, "eps: expected a number that is not negative, got nan"),
        ],
    )
    def test_refused(self, change: dict[str, Any], message: str) -> None:
        with pytest.raises(ValueError, match=re.escape(message)) as error:
            self.call({**self.arguments(3), **change})
        assert str(error.value).startswith("squeezebert::embedding_layer_norm: ")
