"""Autograd of the reference operators is the definition of every gradient, so finite differences check it here."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from python_ref import ops
from reference_inputs import float64, layer_params

leaf = partial(float64, requires_grad=True)
OFFSETS = torch.tensor([0, 2, 2, 3], dtype=torch.int32)


def _grouped_conv1x1() -> tuple[Callable[..., Tensor], list[Tensor]]:
    return partial(ops.grouped_conv1x1, groups=2), [leaf(3, 4), leaf(6, 2, 1), leaf(6)]


def _grouped_conv1x1_gelu() -> tuple[Callable[..., Tensor], list[Tensor]]:
    return partial(ops.grouped_conv1x1_gelu, groups=2), [leaf(3, 4), leaf(6, 2), leaf(6)]


def _grouped_conv1x1_add_layer_norm() -> tuple[Callable[..., Tensor], list[Tensor]]:
    def function(
        input: Tensor, weight: Tensor, bias: Tensor, residual: Tensor, ln_weight: Tensor, ln_bias: Tensor
    ) -> Tensor:
        return ops.grouped_conv1x1_add_layer_norm(input, weight, bias, 2, residual, ln_weight, ln_bias, 1e-3)

    return function, [leaf(3, 4), leaf(6, 2), leaf(6), leaf(3, 6), leaf(6), leaf(6)]


def _grouped_conv1d() -> tuple[Callable[..., Tensor], list[Tensor]]:
    return partial(ops.grouped_conv1d, groups=2), [leaf(2, 3, 4), leaf(6, 2, 3), leaf(6)]


def _grouped_conv1d_packed() -> tuple[Callable[..., Tensor], list[Tensor]]:
    return partial(ops.grouped_conv1d, groups=2, cu_seqlens=OFFSETS), [leaf(3, 4), leaf(6, 2, 3), leaf(6)]


def _attention() -> tuple[Callable[..., Tensor], list[Tensor]]:
    def function(query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
        return ops.attention(query, key, value, 2, mask, 0.7)

    return function, [leaf(2, 2, 4), leaf(2, 3, 4), leaf(2, 3, 4), leaf(2, 1, 1, 3)]


def _attention_boolean_mask() -> tuple[Callable[..., Tensor], list[Tensor]]:
    mask = torch.tensor([[True, False, True], [False, True, True]])
    return partial(ops.attention, num_heads=2, mask=mask), [leaf(2, 4), leaf(3, 4), leaf(3, 4)]


def _grouped_qkv_attention() -> tuple[Callable[..., Tensor], list[Tensor]]:
    function = partial(ops.grouped_qkv_attention, num_heads=2, groups=[2, 1, 2])
    return function, [leaf(2, 3, 4), leaf(4, 2), leaf(4), leaf(4, 4), leaf(4), leaf(4, 2), leaf(4)]


def _grouped_ffn() -> tuple[Callable[..., Tensor], list[Tensor]]:
    def function(input: Tensor, *params: Tensor) -> Tensor:
        return ops.grouped_ffn(input, *params[:4], [2, 2], *params[4:], 1e-3)

    return function, [leaf(3, 4), leaf(6, 2), leaf(6), leaf(4, 3), leaf(4), leaf(4), leaf(4)]


def _embedding_layer_norm() -> tuple[Callable[..., Tensor], list[Tensor]]:
    ids = torch.tensor([[1, 0, 1], [2, 2, 3]])
    function = partial(ops.embedding_layer_norm, ids, None, None, eps=1e-3)
    return function, [leaf(4, 4), leaf(3, 4), leaf(2, 4), leaf(4), leaf(4)]


def _encoder(cu_seqlens: Tensor | None, first_token_only: bool) -> tuple[Callable[..., Tensor], list[Tensor]]:
    groups = (2, 1, 2, 1, 2, 2)
    params = [tensor.requires_grad_() for tensor in layer_params(4, 8, groups)]

    def function(input: Tensor, *params: Tensor) -> Tensor:
        return ops.encoder(input, params, 2, groups, 1e-3, None, cu_seqlens, first_token_only)

    return function, [leaf(3, 4), *params]


def _encoder_packed() -> tuple[Callable[..., Tensor], list[Tensor]]:
    return _encoder(OFFSETS, first_token_only=False)


def _encoder_first_token() -> tuple[Callable[..., Tensor], list[Tensor]]:
    return _encoder(None, first_token_only=True)


CASES = [
    _grouped_conv1x1,
    _grouped_conv1x1_gelu,
    _grouped_conv1x1_add_layer_norm,
    _grouped_conv1d,
    _grouped_conv1d_packed,
    _attention,
    _attention_boolean_mask,
    _grouped_qkv_attention,
    _grouped_ffn,
    _embedding_layer_norm,
    _encoder_packed,
    _encoder_first_token,
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__.strip("_"))
def test_gradient(case: Callable[[], tuple[Callable[..., Tensor], list[Tensor]]]) -> None:
    function, inputs = case()
    assert gradcheck(function, inputs)


@pytest.mark.parametrize("case", CASES[:8], ids=lambda case: case.__name__.strip("_"))
def test_second_gradient(case: Callable[[], tuple[Callable[..., Tensor], list[Tensor]]]) -> None:
    function, inputs = case()
    assert gradgradcheck(function, inputs)
