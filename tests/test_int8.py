"""int8 weights: the very bits of the reference on every product, what follows them, what they refuse.

Convolutions and quantization are compared to the last bit. Where a softmax, a GELU or a LayerNorm stands between two
products, whose last bits are the kernels' own, a value now and then is quantized to the neighbour: see tolerances.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from exactness import assert_close, map_tensors
from op_testing import TOKEN_COUNTS, conv, layer_norm, layer_params, randn, threads
from python_ref import formats
from python_ref import ops as reference
from squeezebert_kernels import _native, ops
from tolerances import GELU, INT8_FLIPS

PRODUCTS = [name for name in _native.products() if name.startswith("int8_")]
WEIGHTS = (0, 2, 4, 6, 10, 12)
GROUPS = [4, 4, 4, 1, 4, 4]


@pytest.fixture(params=PRODUCTS)
def product(request: pytest.FixtureRequest) -> Iterator[str]:
    _native.force_product(request.param)
    yield request.param
    _native.force_product(None)


def pack(weight: Tensor, groups: int) -> Tensor:
    function = ops.pack_grouped_conv1d if weight.dim() == 3 and weight.shape[2] > 1 else ops.pack_grouped_conv1x1
    return function(weight, groups, torch.int8)


def in_both_forms(params: list[Tensor], groups: list[int]) -> tuple[list[Tensor], list[Any]]:
    """A layer's tensors with int8 weights, packed and as the reference takes them."""
    packed, quantized = list(params), list[Any](params)
    for place, count in zip(WEIGHTS, groups, strict=True):
        packed[place] = pack(params[place], count)
        quantized[place] = formats.quantize_weight(params[place])
    return packed, quantized


def assert_only_flips(actual: Tensor, expected: Tensor, exact: Tensor) -> None:
    """`actual` is nearer to the reference than that is to what is not quantized at all."""
    difference, quantization = (actual - expected).square().mean().sqrt(), (expected - exact).square().mean().sqrt()
    assert quantization > 0.0
    assert difference <= INT8_FLIPS * quantization, (difference, quantization)


EDGES = torch.tensor(
    [
        [1.0, -0.5, 0.25],
        [0.0, 0.0, -0.0],
        [torch.nan, 1.0, 2.0],
        [torch.inf, 1.0, torch.nan],
        [2.0**-100, 2.0**-101, -(2.0**-107)],
        [2.0**-101, 1e-45, 0.0],
        [torch.finfo(torch.float32).max, 1.0, -torch.finfo(torch.float32).max],
        [127.0, 0.5, 1.5],
        [127.0, -2.5, -0.5],
    ]
)


@pytest.mark.parametrize(
    "weight",
    [EDGES, EDGES[:, :, None], randn(33, 70), randn(20, 12, 3), randn(5, 1), randn(7, 64).t(), randn(3, 129).half()],
    ids=str,
)
def test_quantize_weight(weight: Tensor, product: str) -> None:
    values, scale = ops.quantize_weight(weight)
    expected = formats.quantize_weight(weight.float())
    assert values.dtype == torch.int8
    assert values.shape == weight.shape
    assert scale.shape == (weight.shape[0], 1, *weight.shape[2:])
    assert torch.equal(values.view(expected.values.shape), expected.values)
    torch.testing.assert_close(scale.view(expected.scale.shape), expected.scale, rtol=0.0, atol=0.0, equal_nan=True)


@pytest.mark.parametrize(("out", "depth", "groups", "kernel_size"), [(20, 12, 2, 1), (33, 31, 1, 3), (48, 48, 4, 5)])
def test_a_quantized_weight_is_packed_and_comes_back(
    out: int, depth: int, groups: int, kernel_size: int, product: str
) -> None:
    weight, _ = conv(out, depth * groups, groups, kernel_size)
    values, scale = ops.quantize_weight(weight)
    packed = ops.pack_quantized(values, scale, groups)
    assert torch.equal(packed, pack(weight, groups))
    # Also what quantize_weight does not give.
    values, scale = torch.randint(-128, 128, weight.shape, dtype=torch.int8), randn(out, 1, kernel_size)
    again = ops.unpack_quantized(ops.pack_quantized(values, scale, groups), depth * groups, groups, kernel_size)
    assert torch.equal(again[0], values)
    assert torch.equal(again[1], scale)
    if kernel_size == 1:
        assert torch.equal(
            ops.pack_quantized(values[..., 0], scale[..., 0], groups), ops.pack_quantized(values, scale, groups)
        )
        floats = ops.unpack_grouped_conv1x1(ops.pack_quantized(values, scale, groups), depth * groups, groups)
        assert torch.equal(floats, (values * scale)[..., 0])


def test_a_weight_packed_on_another_product_by_its_portable_form() -> None:
    input, (weight, bias) = randn(9, 24), conv(20, 24, 2)
    outputs = []
    for name in PRODUCTS:
        _native.force_product(name)
        packed = ops.pack_quantized(*ops.quantize_weight(weight), 2)
        outputs.append(ops.grouped_conv1x1(input, packed, bias, 2))
    _native.force_product(None)
    assert all(torch.equal(output, outputs[0]) for output in outputs)


def test_a_quarter_of_the_memory() -> None:
    """At SqueezeBERT's own shapes: scales and what a product keeps beside them included."""
    for out_channels, in_channels, groups in ((768, 768, 4), (768, 768, 1), (3072, 768, 4), (768, 3072, 4)):
        weight, _ = conv(out_channels, in_channels, groups)
        assert pack(weight, groups).nbytes <= 1.06 * weight.nbytes / 4


@pytest.mark.parametrize("tokens", TOKEN_COUNTS)
def test_grouped_conv1x1_of_every_token_count(tokens: int, product: str) -> None:
    input, (weight, bias) = randn(tokens, 40), conv(48, 40, 4)
    output = ops.grouped_conv1x1(input, pack(weight, 4), bias, 4)
    assert torch.equal(output, reference.grouped_conv1x1(input, formats.quantize_weight(weight), bias, 4))


@pytest.mark.parametrize(
    ("in_channels", "out_channels", "groups"),
    [
        (1, 1, 1), (1, 5, 1), (5, 1, 1), (20, 20, 5), (31, 33, 1), (33, 31, 1), (33, 33, 33), (48, 192, 3), (66, 34, 2),
        (192, 48, 4), (192, 768, 4), (768, 192, 4), (768, 768, 1), (3072, 768, 4), (3072, 16, 1),
    ],
)  # fmt: skip
def test_grouped_conv1x1_of_every_shape(in_channels: int, out_channels: int, groups: int, product: str) -> None:
    input, (weight, bias) = randn(15, in_channels), conv(out_channels, in_channels, groups)
    quantized, packed = formats.quantize_weight(weight), pack(weight, groups)
    for start in (bias, None):
        output = ops.grouped_conv1x1(input, packed, start, groups)
        assert torch.equal(output, reference.grouped_conv1x1(input, quantized, start, groups))


@pytest.mark.parametrize("size", [1e-30, 1e-3, 1e30])
def test_values_of_any_size(size: float, product: str) -> None:
    input, (weight, bias) = randn(9, 66) * torch.logspace(-3, 3, 66), conv(34, 66, 1)
    input[3] = 0.0
    input[4] = 2.0**-101
    weight[5] = 0.0
    given = (input * size, weight / size, bias)
    output = ops.grouped_conv1x1(given[0], pack(given[1], 1), bias, 1)
    assert torch.equal(output, reference.grouped_conv1x1(given[0], formats.quantize_weight(given[1]), bias, 1))
    assert torch.equal(output[3:5], bias.expand(2, 34))
    assert torch.equal(output[:, 5], bias[5].expand(9))


def test_the_largest_sums(product: str) -> None:
    """All values at their limits: what saturates on the way, or does not fit, is seen."""
    depth = 2**16
    for sign in (1.0, -1.0):
        input, weight = torch.ones(2, depth), torch.full((2, depth), sign)
        output = ops.grouped_conv1x1(input, pack(weight, 1), None, 1)
        expected = reference.grouped_conv1x1(input, formats.quantize_weight(weight), None, 1)
        assert torch.equal(output, expected)
    with pytest.raises(ValueError, match=r"squeezebert::pack_grouped_conv1x1: .*65536.*65537"):
        pack(torch.ones(2, depth + 1), 1)


def test_rows_do_not_depend_on_their_neighbours_nor_on_threads(product: str) -> None:
    input, (weight, bias) = randn(37, 40), conv(48, 40, 4)
    packed = pack(weight, 4)
    together = ops.grouped_conv1x1(input, packed, bias, 4)
    for start, end in ((0, 1), (5, 6), (3, 17), (36, 37)):
        assert torch.equal(ops.grouped_conv1x1(input[start:end], packed, bias, 4), together[start:end])
    with threads(2):
        assert torch.equal(ops.grouped_conv1x1(input, packed, bias, 4), together)


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_what_is_not_finite_makes_its_row_and_group_nan(value: float, product: str) -> None:
    input, (weight, bias) = randn(9, 24), conv(20, 24, 2)
    packed = pack(weight, 2)
    clean = ops.grouped_conv1x1(input, packed, bias, 2)
    input[4, 13] = value
    output = ops.grouped_conv1x1(input, packed, bias, 2)
    assert output[4, 10:].isnan().all()
    output[4, 10:] = clean[4, 10:]
    assert torch.equal(output, clean)
    weight[3, 5] = value
    output = ops.grouped_conv1x1(randn(9, 24), pack(weight, 2), bias, 2)
    assert output[:, 3].isnan().all()
    assert output.isnan().sum() == 9


@pytest.mark.parametrize("kernel_size", [3, 5])
@pytest.mark.parametrize("tokens", [0, 1, 2, 3, 7, 33])
def test_grouped_conv1d(tokens: int, kernel_size: int, product: str) -> None:
    input, (weight, bias) = randn(2, tokens, 24), conv(20, 24, 2, kernel_size)
    output = ops.grouped_conv1d(input, pack(weight, 2), bias, 2)
    assert torch.equal(output, reference.grouped_conv1d(input, formats.quantize_weight(weight), bias, 2))


def test_gelu_and_layer_norm(product: str) -> None:
    """What follows a product is float32, as ever."""
    input, (weight, bias), residual = randn(9, 24), conv(20, 24, 2), randn(9, 20)
    quantized, packed = formats.quantize_weight(weight), pack(weight, 2)
    linear = reference.grouped_conv1x1(input, quantized, bias, 2)
    activated = ops.grouped_conv1x1_gelu(input, packed, bias, 2)
    torch.testing.assert_close(activated.double(), torch.nn.functional.gelu(linear.double()), **GELU)
    norm = layer_norm(20)
    output = ops.grouped_conv1x1_add_layer_norm(input, packed, bias, 2, residual, *norm, 1e-12)
    exact = torch.nn.functional.layer_norm((linear + residual).double(), (20,), *(x.double() for x in norm), 1e-12)
    assert_close(output, exact, 20)


@pytest.mark.parametrize(
    ("queries", "keys", "channels", "heads"),
    [(9, 9, 64, 1), (33, 70, 96, 3), (1, 5, 24, 4), (5, 1, 20, 4), (17, 129, 128, 2)],
)
def test_attention(queries: int, keys: int, channels: int, heads: int, product: str) -> None:
    query, key, value = randn(2, queries, channels), randn(2, keys, channels), randn(2, keys, channels)
    mask = randn(2, 1, queries, keys)
    given = (query, key, value, heads, mask)
    output = ops.attention(*given, dtype=torch.int8)
    assert_only_flips(output, reference.attention(*given, dtype=torch.int8), reference.attention(*given))
    for n in range(2):
        alone = ops.attention(query[n], key[n], value[n], heads, mask[n : n + 1], dtype=torch.int8)
        assert torch.equal(alone, output[n])


def test_attention_edges(product: str) -> None:
    query, key, value = randn(2, 5, 24), randn(2, 7, 24), randn(2, 7, 24)
    mask = torch.ones(2, 1, 1, 7, dtype=torch.bool)
    mask[..., 5:] = False
    short = ops.attention(query, key[:, :5], value[:, :5], 2, dtype=torch.int8)
    value[:, 5:] *= 100.0
    assert torch.equal(ops.attention(query, key, value, 2, mask, dtype=torch.int8), short)
    nothing = torch.full((7,), -torch.inf)
    assert torch.equal(ops.attention(query, key, value, 2, nothing, dtype=torch.int8), torch.zeros(2, 5, 24))
    assert torch.equal(ops.attention(query, key[:, :0], value[:, :0], 2, dtype=torch.int8), torch.zeros(2, 5, 24))
    value[1, 3, 20] = torch.nan
    output = ops.attention(query, key, value, 2, mask, dtype=torch.int8)
    assert torch.equal(output[0], short[0])
    assert torch.equal(output[1, :, :12], short[1, :, :12])
    assert output[1, :, 12:].isnan().all()


@pytest.mark.parametrize("attention_dtype", [None, torch.float32, torch.bfloat16])
def test_grouped_qkv_attention(attention_dtype: torch.dtype | None, product: str) -> None:
    input, params = randn(2, 9, 24), layer_params(24, 48, GROUPS)
    packed, quantized = in_both_forms(params, GROUPS)
    rest = {"num_heads": 4, "groups": GROUPS[:3], "attention_dtype": attention_dtype}
    output = ops.grouped_qkv_attention(input, *packed[:6], **rest)
    exact = reference.grouped_qkv_attention(input, *params[:6], **{**rest, "attention_dtype": None})
    assert_only_flips(output, reference.grouped_qkv_attention(input, *quantized[:6], **rest), exact)


@pytest.mark.parametrize("groups", [GROUPS, [1] * 6, [2, 3, 1, 4, 6, 2]])
def test_encoder(groups: list[int], product: str) -> None:
    input, given = randn(2, 13, 48), (4, groups, 1e-12)
    layers = [layer_params(48, 96, groups) for _ in range(2)]
    forms = [in_both_forms(layer, groups) for layer in layers]
    packed, quantized = ([x for form in forms for x in form[i]] for i in range(2))
    exact = reference.encoder(input, [x for layer in layers for x in layer], *given)
    output = ops.encoder(input, packed, *given)
    assert_only_flips(output, reference.encoder(input, quantized, *given), exact)
    assert_only_flips(
        ops.encoder_layer(input, packed[:16], *given),
        reference.encoder_layer(input, quantized[:16], *given),
        reference.encoder_layer(input, layers[0], *given),
    )
    first = ops.encoder(input, packed, *given, first_token_only=True)
    assert torch.equal(first, output[:, 0])
    as_layers = [ops.pack_encoder_layer(packed[i : i + 16], groups, 1e-12) for i in (0, 16)]
    assert torch.equal(ops.encoder(input, as_layers, 4, [], 1e-12), output)
    float_attention = [ops.pack_encoder_layer(packed[i : i + 16], groups, 1e-12, torch.float32) for i in (0, 16)]
    expected = reference.encoder(input, quantized, *given, attention_dtype=torch.float32)
    assert_only_flips(ops.encoder(input, float_attention, 4, [], 1e-12), expected, exact)


def test_alone_batched_padded_and_packed_are_the_same_bits(product: str) -> None:
    lengths = [9, 1, 33, 14, 2]
    offsets = torch.tensor([0, *lengths]).cumsum(0).to(torch.int32)
    packed, _ = in_both_forms(layer_params(48, 96, GROUPS), GROUPS)
    input, given = randn(sum(lengths), 48), (packed * 2, 4, GROUPS, 1e-12)
    together = ops.encoder(input, *given, cu_seqlens=offsets)
    padded, mask = randn(5, 33, 48) * 10.0, torch.zeros(5, 1, 1, 33, dtype=torch.bool)
    for n, length in enumerate(lengths):
        padded[n, :length] = input[offsets[n] : offsets[n + 1]]
        mask[n, ..., :length] = True
    with_padding = ops.encoder(padded, *given, mask=mask)
    with threads(2):
        assert torch.equal(ops.encoder(input, *given, cu_seqlens=offsets), together)
    for n, length in enumerate(lengths):
        alone = ops.encoder(input[offsets[n] : offsets[n + 1]], *given)
        assert torch.equal(together[offsets[n] : offsets[n + 1]], alone)
        assert torch.equal(with_padding[n, :length], alone)


def test_every_product_gives_the_same_bits() -> None:
    assert len(PRODUCTS) > 1
    input, params = randn(2, 21, 48), layer_params(48, 96, GROUPS, layers=2)
    outputs = []
    for name in PRODUCTS:
        _native.force_isa(name.split("_")[1])
        _native.force_product(name)
        packed = [x for i in (0, 16) for x in in_both_forms(params[i : i + 16], GROUPS)[0]]
        outputs.append(ops.encoder(input, packed, 4, GROUPS, 1e-12))
    _native.force_product(None)
    _native.force_isa(None)
    for name, output in zip(PRODUCTS, outputs, strict=True):
        assert torch.equal(output, outputs[0]), name


def test_grouped_ffn_with_one_int8_weight(product: str) -> None:
    """Layers may be mixed."""
    params, input = layer_params(24, 48, GROUPS), randn(9, 24)
    packed, quantized = in_both_forms(params, GROUPS)
    for place in (10, 12):
        mixed, expected = list(params), list[Any](params)
        mixed[place], expected[place] = packed[place], quantized[place]
        output = ops.grouped_ffn(input, *mixed[10:14], GROUPS[4:], *mixed[14:], 1e-12)
        exact = reference.grouped_ffn(input, *params[10:14], GROUPS[4:], *params[14:], 1e-12)
        assert_only_flips(
            output, reference.grouped_ffn(input, *expected[10:14], GROUPS[4:], *expected[14:], 1e-12), exact
        )


def test_opcheck() -> None:
    weight, bias = conv(20, 24, 2)
    overloads, taps = torch.ops.squeezebert, conv(20, 24, 2, 3)[0]
    for given in (weight, taps, weight.half(), weight.bfloat16()):
        torch.library.opcheck(overloads.quantize_weight.default, (given,))
        values, scale = ops.quantize_weight(given)
        torch.library.opcheck(overloads.pack_quantized.default, (values, scale, 2))
        packed = ops.pack_quantized(values, scale, 2)
        size = given.shape[2] if given.dim() == 3 else 1
        torch.library.opcheck(overloads.unpack_quantized.default, (packed, 24, 2, size))
        torch.library.opcheck(overloads.pack_grouped_conv1d.default, (given, 2, torch.int8))
    packed = pack(weight, 2)
    torch.library.opcheck(overloads.grouped_conv1x1.default, (randn(3, 24), packed, bias, 2))
    query = randn(3, 24)
    torch.library.opcheck(overloads.attention.default, (query, query, query, 2, None, None, torch.int8))
    params, _ = in_both_forms(layer_params(24, 48, GROUPS), GROUPS)
    torch.library.opcheck(overloads.encoder.default, (randn(3, 24), params, 4, GROUPS, 1e-12))
    torch.library.opcheck(overloads.pack_encoder_layer.default, (params, GROUPS, 1e-12))


def test_compiled_vmapped_and_under_autocast() -> None:
    weight, bias = conv(20, 24, 2)
    input = randn(5, 24)

    def compute(input: Tensor, weight: Tensor) -> Tensor:
        values, scale = ops.quantize_weight(weight * 2.0)
        packed = ops.pack_quantized(values, scale, 2)
        return ops.grouped_conv1x1(input, packed, bias, 2) + ops.unpack_quantized(packed, 24, 2)[1].sum()

    assert torch.equal(
        torch.compile(compute, fullgraph=True, backend="aot_eager")(input, weight), compute(input, weight)
    )
    weights = torch.stack([weight, weight * 3.0])
    values, scale = torch.vmap(ops.quantize_weight)(weights)
    for index, each in enumerate(weights):
        assert torch.equal(values[index], ops.quantize_weight(each)[0])
        assert torch.equal(scale[index], ops.quantize_weight(each)[1])
    with torch.autocast("cpu"):
        values, scale = ops.quantize_weight(weight.bfloat16())
    assert torch.equal(values, ops.quantize_weight(weight.bfloat16().float())[0])
    assert scale.dtype == torch.float32


def test_packed_weights_are_not_differentiated() -> None:
    input, packed = randn(3, 24).requires_grad_(), pack(conv(20, 24, 2)[0], 2)
    output = ops.grouped_conv1x1(input, packed, None, 2)
    with pytest.raises(RuntimeError, match=r"squeezebert::grouped_conv1x1: weight: expected a plain weight in a call"):
        output.sum().backward()
    query = randn(3, 24).requires_grad_()
    gradients = [
        torch.autograd.grad(ops.attention(query, query, query, 2, dtype=dtype).sum(), query)[0]
        for dtype in (None, torch.int8)
    ]
    assert torch.equal(*gradients)


VALUES, SCALE = torch.ones(20, 12, dtype=torch.int8), torch.ones(20, 1)


@pytest.mark.parametrize(
    ("op", "arguments", "message"),
    [
        ("quantize_weight", (torch.ones(20),), "weight: expected [out_channels, in_channels / groups, kernel_size"),
        ("quantize_weight", (torch.ones(20, 3, 2),), "weight: expected [out_channels, in_channels / groups, kernel_"),
        ("quantize_weight", (torch.ones(20, 3).double(),), "weight: expected dtype torch.float32, torch.float16 or"),
        ("quantize_weight", (VALUES,), "weight: expected dtype torch.float32, torch.float16 or"),
        ("pack_quantized", (VALUES.int(), SCALE, 2), "values: expected dtype torch.int8, got a torch.int32 tensor"),
        ("pack_quantized", (VALUES, SCALE.double(), 2), "scale: expected dtype torch.float32, got a torch.float64"),
        ("pack_quantized", (VALUES, SCALE[:, 0], 2), "scale: expected a scale for each output channel"),
        ("pack_quantized", (VALUES, SCALE, 3), "groups: expected a positive divisor of 20 output channels, got 3"),
        ("unpack_quantized", (VALUES, 24, 2), "weight: expected dtype torch.uint8, got a torch.int8 tensor"),
        ("unpack_quantized", (torch.ones(20, 9, dtype=torch.uint8), 24, 2), "weight: expected a weight packed by"),
        (
            "unpack_quantized",
            (ops.pack_grouped_conv1x1(torch.ones(20, 12), 2), 24, 2),
            "weight: expected a weight packed as torch.int8, got one packed as torch.float32",
        ),
        ("unpack_quantized", (ops.pack_quantized(VALUES, SCALE, 2), 24, 4), "groups: expected the 2 groups"),
        ("unpack_quantized", (ops.pack_quantized(VALUES, SCALE, 2), 48, 2), "weight: expected a packed weight for 48"),
        ("unpack_quantized", (ops.pack_quantized(VALUES, SCALE, 2), 24, 2, 3), "kernel_size: expected the 1 that"),
    ],
)  # fmt: skip
def test_refused(op: str, arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        getattr(ops, op)(*arguments)
    assert str(error.value).startswith(f"squeezebert::{op}: ")


def test_plain_int8_is_no_weight() -> None:
    with pytest.raises(ValueError, match=r"weight: expected dtype torch.float32, torch.float16 or torch.bfloat16, got"):
        ops.grouped_conv1x1(randn(3, 24), VALUES, None, 2)


def test_meta_tensors_give_the_shape() -> None:
    weight = conv(20, 24, 2, 3)[0]
    on_meta = map_tensors(lambda t: t.to("meta"), [weight])[0]
    for got, want in zip(ops.quantize_weight(on_meta), ops.quantize_weight(weight), strict=True):
        assert got.shape == want.shape
        assert got.dtype == want.dtype
