"""What the reference refuses: every error names the argument, what was expected and what came."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch

from python_ref import ops
from reference_inputs import float64, layer_params
from squeezebert_kernels.nn.config import SqueezeBertConfig
from squeezebert_kernels.nn.plain.embeddings import SqueezeBertEmbeddings

GROUPS = (4, 4, 4, 1, 4, 4)
INPUT, WEIGHT, BIAS = float64(2, 5, 8), float64(12, 2), float64(12)
QUERY = float64(2, 3, 8)


def offsets(*values: int) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.int32)


def encode(**changes: Any) -> torch.Tensor:
    arguments = {"input": INPUT, "params": layer_params(8, 16, GROUPS), "num_heads": 2, "groups": GROUPS, "eps": 1e-12}
    return ops.encoder(**{**arguments, **changes})


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ops.grouped_conv1x1(INPUT, WEIGHT, BIAS, 3), "groups: expected a divisor of 8 input and 12 output"),
        (lambda: ops.grouped_conv1x1(INPUT, WEIGHT, BIAS, 0), "groups: expected at least 1, got 0"),
        (lambda: ops.grouped_conv1x1(INPUT, WEIGHT, BIAS, 2), "weight: expected 4 input channels per group"),
        (lambda: ops.grouped_conv1x1(INPUT, WEIGHT[:, 0], BIAS, 4), "weight: expected [out_channels, in_channels"),
        (lambda: ops.grouped_conv1x1(INPUT, WEIGHT, BIAS[1:], 4), "bias: expected shape [12], got [11]"),
        (lambda: ops.grouped_conv1d(INPUT, float64(12, 2, 2), BIAS, 4), "weight: expected kernel_size odd"),
        (lambda: ops.grouped_conv1d(INPUT[0, 0], float64(12, 2, 3), BIAS, 4), "input: expected [sequences, tokens"),
        (lambda: ops.attention(QUERY, INPUT, INPUT, 3), "num_heads: expected a divisor of 8 channels, got 3"),
        (lambda: ops.attention(QUERY, INPUT, INPUT, 0), "num_heads: expected a divisor of 8 channels, got 0"),
        (lambda: ops.attention(QUERY, INPUT[:1], INPUT[:1], 2), "key: expected shape [2, 'Sk', 8]"),
        (lambda: ops.attention(QUERY, INPUT, INPUT[:, 1:], 2), "value: expected the shape of key"),
        (lambda: ops.attention(QUERY, INPUT, INPUT, 2, float64(4)), "mask: expected a shape that broadcasts to"),
        (lambda: ops.attention(QUERY, INPUT, INPUT, 2, float64(3, 2, 3, 5)), "mask: expected a shape that broadcasts"),
        (lambda: ops.attention(QUERY, INPUT, INPUT, 2, torch.ones(5).int()), "mask: expected a floating or boolean"),
        (lambda: encode(groups=GROUPS[1:]), "groups: expected 6 group counts, got [4, 4, 1, 4, 4]"),
        (
            lambda: encode(params=layer_params(8, 16, GROUPS)[1:]),
            "params: expected 16 tensors for each of one or more layers, got 15",
        ),
        (lambda: encode(params=[]), "params: expected 16 tensors for each of one or more layers, got 0"),
        (lambda: encode(cu_seqlens=offsets(0, 5)), "input: expected packed tokens [tokens, channels]"),
        (lambda: encode(input=INPUT[0], cu_seqlens=offsets(0, 5), mask=float64(5)), "mask: expected None beside"),
        (lambda: encode(input=INPUT[0], cu_seqlens=offsets(0, 5).long()), "cu_seqlens: expected dtype torch.int32"),
        (lambda: encode(input=INPUT[0], cu_seqlens=offsets(1, 5)), "cu_seqlens: expected the first offset to be 0"),
        (lambda: encode(input=INPUT[0], cu_seqlens=offsets(0, 4, 3, 5)), "never decrease, got 4 then 3 at index 2"),
        (lambda: encode(input=INPUT[0], cu_seqlens=offsets(0, 4)), "last offset to be the 5 tokens of input, got 4"),
        (lambda: encode(input=INPUT[0], cu_seqlens=offsets()), "cu_seqlens: expected shape [sequences + 1], got [0]"),
        (lambda: encode(input=INPUT[:, :0], first_token_only=True), "expected a token in every sequence"),
        (
            lambda: encode(input=INPUT[0], cu_seqlens=offsets(0, 3, 3, 5), first_token_only=True),
            "cu_seqlens: expected a token in every sequence (first_token_only), got empty ones at [1]",
        ),
    ],
)
def test_refuses(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        call()


def test_refuses_a_residual_of_another_shape() -> None:
    with pytest.raises(ValueError, match=re.escape("residual: expected the shape of the output, [2, 5, 12]")):
        ops.grouped_conv1x1_add_layer_norm(INPUT, WEIGHT, BIAS, 4, INPUT, BIAS, BIAS, 1e-12)


@pytest.mark.parametrize("wrong", [11, -1])
@pytest.mark.parametrize("name", ["input_ids", "token_type_ids", "position_ids"])
def test_refuses_ids_outside_their_table(name: str, wrong: int) -> None:
    ids = {name: torch.zeros(2, 3, dtype=torch.long) for name in ("input_ids", "token_type_ids", "position_ids")}
    ids[name][1, 2] = wrong
    tables = [float64(rows, 8) for rows in (11, 6, 2)]
    with pytest.raises(IndexError, match=f"{name}: expected ids from 0 to .*, got ids from .*{wrong}"):
        ops.embedding_layer_norm(**ids, **dict(zip(TABLES, tables, strict=True)), **LAYER_NORM)
    embeddings = SqueezeBertEmbeddings(
        SqueezeBertConfig(vocab_size=11, hidden_size=12, embedding_size=12, max_position_embeddings=6)
    )
    with pytest.raises(IndexError, match=f"{name}: expected ids from 0 to .*, got ids from .*{wrong}"):
        embeddings(**ids)


def test_refuses_ids_that_do_not_broadcast() -> None:
    ids = torch.zeros(2, 3, dtype=torch.long)
    with pytest.raises(ValueError, match=re.escape("token_type_ids: expected a shape that broadcasts to [2, 3]")):
        ops.embedding_layer_norm(ids, ids[:, 1:], None, *(float64(9, 8) for _ in TABLES), **LAYER_NORM)


TABLES = ("word_embeddings", "position_embeddings", "token_type_embeddings")
LAYER_NORM = {"ln_weight": float64(8), "ln_bias": float64(8), "eps": 1e-12}
