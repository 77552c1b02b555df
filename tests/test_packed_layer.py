"""pack_encoder_layer, unpack_encoder_layer, unpack_grouped_conv1x1: what was packed computes the same and comes back;
what they, and an encoder of packed layers, refuse."""

from __future__ import annotations

import copy
import io
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from exactness import assert_close, exact
from op_testing import NARROW, conv, layer_params, pack_params, randn
from squeezebert_kernels import ops

GROUPS = [4, 4, 2, 1, 4, 12]
PARAMS = 16
WEIGHTS = (0, 2, 4, 6, 10, 12)


def params_of(channels: int = 24, inner: int = 48, groups: list[int] = GROUPS, layers: int = 1) -> list[Tensor]:
    return layer_params(channels, inner, groups, layers)


def packed(params: list[Tensor], groups: list[int] = GROUPS, eps: float = 1e-12) -> list[Tensor]:
    return [ops.pack_encoder_layer(params[i : i + PARAMS], groups, eps) for i in range(0, len(params), PARAMS)]


@pytest.mark.parametrize("first_token_only", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_an_encoder_of_packed_layers(dtype: torch.dtype, first_token_only: bool) -> None:
    input, params = randn(2, 9, 24), params_of(layers=3)
    params = [x.to(dtype) if i % PARAMS in WEIGHTS else x for i, x in enumerate(params)]
    expected = ops.encoder(input, params, 4, GROUPS, 1e-12, first_token_only=first_token_only)
    for given in (params, pack_params(params, GROUPS)):
        layers = packed(given)
        assert all(layer.dtype == torch.uint8 and layer.dim() == 1 and layer.numel() % 64 == 0 for layer in layers)
        assert torch.equal(ops.encoder(input, layers, 4, [], 1e-12, first_token_only=first_token_only), expected)
    mask, offsets = torch.rand(2, 1, 1, 9) < 0.7, torch.tensor([0, 4, 9], dtype=torch.int32)
    for more in ({"mask": mask}, {"cu_seqlens": offsets}):
        rows = input[0] if "cu_seqlens" in more else input
        layer = ops.encoder_layer(rows, layers[:1], 4, [], 0.0, **more)  # eps is the layer's own
        assert torch.equal(layer, ops.encoder_layer(rows, params[:PARAMS], 4, GROUPS, 1e-12, **more))


def test_layers_of_different_groups_and_eps() -> None:
    input, other = randn(2, 9, 24), [1, 2, 3, 4, 6, 8]
    first, second = params_of(), params_of(groups=other)
    hidden = ops.encoder_layer(input, first, 4, GROUPS, 1e-12)
    expected = ops.encoder_layer(hidden, second, 4, other, 0.5)
    layers = packed(first) + packed(second, other, 0.5)
    assert torch.equal(ops.encoder(input, layers, 4, [], 0.0), expected)
    given = {"input": hidden, "params": second, "num_heads": 4, "groups": other, "eps": 0.5}
    assert_close(expected, exact(ops.encoder_layer, given), 24, 6, 9, 24, 24, 24, 48, 24)


@pytest.mark.parametrize("dtype", [torch.float32, *NARROW])
def test_attention_of_another_precision_than_the_weights(dtype: torch.dtype) -> None:
    input, params = randn(2, 9, 24), params_of()
    layer = ops.pack_encoder_layer(pack_params(params, GROUPS), GROUPS, 1e-12, dtype)
    context = ops.grouped_qkv_attention(input, *params[:6], 6, GROUPS[:3], attention_dtype=dtype)
    hidden = ops.grouped_conv1x1_add_layer_norm(context, *params[6:8], GROUPS[3], input, *params[8:10], 1e-12)
    expected = ops.grouped_ffn(hidden, *params[10:14], GROUPS[4:], *params[14:], 1e-12)
    assert torch.equal(ops.encoder_layer(input, [layer], 6, [], 1e-12), expected)
    torch.library.opcheck(torch.ops.squeezebert.pack_encoder_layer.default, (params, GROUPS, 1e-12, dtype))


def test_a_packed_layer_survives_copies_and_files() -> None:
    input, (layer,) = randn(3, 24), packed(params_of())
    expected = ops.encoder_layer(input, [layer], 4, [], 1e-12)
    file = io.BytesIO()
    torch.save(layer, file)
    file.seek(0)
    unaligned = torch.cat([torch.zeros(1, dtype=torch.uint8), layer])[1:]
    strided = torch.stack([layer, layer], 1)[:, 0]
    for other in (layer.clone(), copy.deepcopy(layer), torch.load(file), unaligned, strided):
        assert torch.equal(ops.encoder_layer(input, [other], 4, [], 1e-12), expected)
        assert torch.equal(
            ops.pack_encoder_layer(ops.unpack_encoder_layer(other, 24, 48, GROUPS), GROUPS, 1e-12), layer
        )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_unpacked(dtype: torch.dtype) -> None:
    params = params_of()
    for index, value in enumerate(ops.unpack_encoder_layer(*packed(params), 24, 48, GROUPS)):
        assert torch.equal(value, params[index].view(value.shape))
    for shape, groups in (((20, 24), 2), ((33, 33), 33), ((48, 192), 4), ((1, 1), 1)):
        weight, _ = conv(*shape, groups)
        weight = weight.to(dtype)
        got = ops.unpack_grouped_conv1x1(ops.pack_grouped_conv1x1(weight, groups), shape[1], groups)
        assert got.dtype == torch.float32
        assert torch.equal(got, weight.float())


def test_non_finite_weights_come_back() -> None:
    weight, _ = conv(20, 24, 2)
    weight[3, 5], weight[4, 1] = torch.inf, -torch.inf
    assert torch.equal(ops.unpack_grouped_conv1x1(ops.pack_grouped_conv1x1(weight, 2), 24, 2), weight)


def test_opcheck() -> None:
    params = params_of()
    (layer,) = packed(params)
    halved = [x.half() if i in WEIGHTS else x for i, x in enumerate(params)]
    overloads = torch.ops.squeezebert
    for given in (params, halved, pack_params(params, GROUPS), pack_params(halved, GROUPS)):
        torch.library.opcheck(overloads.pack_encoder_layer.default, (given, GROUPS, 1e-12))
    torch.library.opcheck(overloads.unpack_encoder_layer.default, (layer, 24, 48, GROUPS))
    torch.library.opcheck(overloads.unpack_grouped_conv1x1.default, (ops.pack_grouped_conv1x1(params[0], 4), 24, 4))
    torch.library.opcheck(overloads.encoder_layer.default, (randn(2, 5, 24), [layer], 4, [], 1e-12))
    torch.library.opcheck(overloads.encoder.default, (randn(2, 5, 24), [layer, layer], 4, [], 1e-12))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_repacked(dtype: torch.dtype) -> None:
    """In place, wherever it lies, as what it was packed as."""
    params, others = params_of(), params_of()
    lower = [x.to(dtype) if i in WEIGHTS else x for i, x in enumerate(others)]
    (layer,) = packed([x.to(dtype) if i in WEIGHTS else x for i, x in enumerate(params)], eps=0.5)
    memory = torch.cat([torch.full((4,), 7, dtype=torch.uint8), layer, torch.full((5,), 7, dtype=torch.uint8)])
    ops.repack_encoder_layer(memory[4:-5], others)
    assert torch.equal(memory[4:-5], ops.pack_encoder_layer(lower, GROUPS, 0.5))
    assert memory[:4].eq(7).all()
    assert memory[-5:].eq(7).all()
    torch.library.opcheck(torch.ops.squeezebert.repack_encoder_layer.default, (layer, params))


def test_compiled() -> None:
    params, input = params_of(), randn(2, 5, 24)

    def compute(input: Tensor, params: list[Tensor]) -> Tensor:
        layer = ops.pack_encoder_layer([param * 0.5 for param in params], GROUPS, 1e-12)
        again = ops.unpack_encoder_layer(layer, 24, 48, GROUPS)
        return ops.encoder(input, [layer, layer], 4, [], 1e-12) + again[1].sum()

    compiled = torch.compile(compute, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(input, params), compute(input, params))


def test_packed_layers_are_not_differentiated() -> None:
    input = randn(2, 5, 24).requires_grad_()
    output = ops.encoder(input, packed(params_of()), 4, [], 1e-12)
    with pytest.raises(RuntimeError, match=r"squeezebert::encoder: params\[0\]: expected a plain weight"):
        output.sum().backward()


def _call(name: str, **change: Any) -> Callable[[], Any]:
    """The operator `name` with right arguments, but for `change`."""
    params = params_of()
    given: dict[str, Any] = {
        "encoder": {"input": randn(2, 5, 24), "params": packed(params) * 2, "num_heads": 4, "groups": [], "eps": 1e-12},
        "pack_encoder_layer": {"params": params, "groups": GROUPS, "eps": 1e-12},
        "repack_encoder_layer": {"packed": packed(params)[0], "params": params},
        "unpack_encoder_layer": {
            "layer": packed(params)[0],
            "channels": 24,
            "intermediate_channels": 48,
            "groups": GROUPS,
        },
        "unpack_grouped_conv1x1": {
            "weight": ops.pack_grouped_conv1x1(params[0], 4),
            "in_channels": 24,
            "groups": 4,
        },
    }[name]
    return lambda: getattr(ops, name)(**{**given, **change})


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("encoder", {"groups": GROUPS}, "groups: expected [] beside packed layers, which have their own, got [4, 4"),
        ("encoder", {"num_heads": 5}, "num_heads: expected a positive divisor of 24 channels, got 5"),
        ("encoder", {"eps": -1.0}, "eps: expected a number that is not negative, got -1"),
        (
            "encoder",
            {"input": torch.ones(3, 12)},
            "params[0]: expected a layer of 12 channels, as many as input has, got one of 24",
        ),
        (
            "encoder",
            {"params": [*packed(params_of()), torch.ones(3)]},
            "params[1]: expected a packed layer [bytes], got a torch.float32 tensor of shape [3]",
        ),
        (
            "encoder",
            {"params": [torch.zeros(999, dtype=torch.uint8)]},
            "params[0]: expected a layer packed by pack_encoder_layer for the ISA in use, got a torch.uint8 tensor of "
            "shape [999]: packed: expected a packed layer, got 999 bytes that are not one",
        ),
        (
            "encoder",
            {"params": []},
            "params: expected 16 tensors for each of one or more layers, or one packed layer each, got 0",
        ),
        ("pack_encoder_layer", {"params": params_of()[:15]}, "params: expected 16 tensors, got 15"),
        ("pack_encoder_layer", {"groups": [4, 4]}, "groups: expected six group counts"),
        (
            "pack_encoder_layer",
            {"attention_dtype": torch.float64},
            "attention_dtype: expected torch.float32, torch.float16",
        ),
        ("pack_encoder_layer", {"eps": torch.nan}, "eps: expected a number that is not negative, got nan"),
        (
            "pack_encoder_layer",
            {"params": [*params_of()[:3], torch.ones(23), *params_of()[4:]]},
            "params[3] (layer 0, key.bias): expected shape [24], got a torch.float32 tensor of shape [23]",
        ),
        ("repack_encoder_layer", {"params": params_of()[:15]}, "params: expected 16 tensors, got 15"),
        ("repack_encoder_layer", {"packed": torch.ones(3)}, "packed: expected a packed layer [bytes], got a torch.flo"),
        (
            "repack_encoder_layer",
            {"packed": torch.cat([packed(params_of())[0].view(-1, 1)] * 2, 1)[:, 0]},
            "packed: expected contiguous bytes, aligned as floats are, got others",
        ),
        (
            "repack_encoder_layer",
            {"params": params_of(inner=96)},
            "params[10] (layer 0, intermediate.weight): expected a plain weight of shape [48, 6], got a torch.float32",
        ),
        (
            "repack_encoder_layer",
            {"params": pack_params(params_of(), GROUPS)},
            "params[0] (layer 0, query.weight): expected a plain weight of shape [24, 6], got a torch.uint8 tensor",
        ),
        (
            "repack_encoder_layer",
            {"params": [*params_of()[:15], torch.ones(23)]},
            "params[15] (layer 0, output layernorm.bias): expected shape [24], got a torch.float32 tensor",
        ),
        ("unpack_encoder_layer", {"layer": torch.ones(3)}, "layer: expected a packed layer [bytes], got a torch.flo"),
        ("unpack_encoder_layer", {"layer": torch.zeros(3, dtype=torch.uint8)}, "layer: expected a layer packed by"),
        ("unpack_encoder_layer", {"groups": [4] * 5}, "groups: expected six group counts"),
        ("unpack_encoder_layer", {"groups": [0] * 6}, "groups: expected positive group counts, got [0, 0"),
        (
            "unpack_encoder_layer",
            {"channels": 12},
            "layer: expected one of shape [12, 3], groups = 4, got one of shape [24, 6], groups = 4",
        ),
        ("unpack_encoder_layer", {"groups": [4, 4, 2, 1, 2, 12]}, "layer: expected one of shape [48, 12], groups = 2"),
        (
            "unpack_grouped_conv1x1",
            {"weight": torch.ones(20, 6)},
            "weight: expected a packed weight, dtype torch.uint8",
        ),
        ("unpack_grouped_conv1x1", {"in_channels": 12}, "weight: expected a packed weight for 12 input channels, got"),
        ("unpack_grouped_conv1x1", {"groups": 2}, "groups: expected the 4 groups that weight was packed with, got 2"),
        (
            "unpack_grouped_conv1x1",
            {"weight": ops.pack_grouped_conv1d(conv(20, 24, 4, kernel_size=3)[0], 4)},
            "weight: expected a packed weight of kernel size 1, got",
        ),
    ],
)
def test_refused(name: str, change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        _call(name, **change)()
    assert str(error.value).startswith(f"squeezebert::{name}: ")


def test_one_layer_for_encoder_layer() -> None:
    with pytest.raises(ValueError, match=r"params: expected 16 tensors, or one packed layer, got 2"):
        ops.encoder_layer(randn(3, 24), packed(params_of()) * 2, 4, [], 1e-12)
