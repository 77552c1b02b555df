"""encoder_layer_training: its output and its gradients beside the reference's, and what it promises about bits."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from torch import Tensor

from encoder_testing import GROUPS, SQUEEZEBERT, arguments, offsets_of
from exactness import assert_close, map_tensors
from op_testing import layer_params, layouts, randn, threads
from python_ref.training import dropout_factors, encoder_layer_training
from squeezebert_kernels import _native, ops

OPERATOR = torch.ops.squeezebert.encoder_layer_training.default
BACKWARD = torch.ops.squeezebert.encoder_layer_training_backward.default
PRODUCTS = [name for name in _native.products() if name.startswith("float32_")]
DROPOUT: dict[str, Any] = {"hidden_dropout": 0.1, "attention_dropout": 0.2, "seed": torch.tensor(-7)}


def packed(lengths: list[int], groups: list[int] = SQUEEZEBERT, channels: int = 24, inner: int = 48) -> dict[str, Any]:
    return {
        **arguments((sum(lengths), channels), inner, channels // 12, groups),
        "cu_seqlens": offsets_of(lengths),
        **DROPOUT,
    }


def gradients(given: dict[str, Any], grad_output: Tensor, operator: Any = ops.encoder_layer_training) -> list[Tensor]:
    """The output, and the gradients of input and params."""
    leaves = [t.detach().clone().requires_grad_() for t in (given["input"], *given["params"])]
    output = operator(**{**given, "input": leaves[0], "params": leaves[1:]})
    return [output.detach(), *torch.autograd.grad(output, leaves, grad_output)]


def exactly(given: dict[str, Any], grad_output: Tensor) -> list[Tensor]:
    wide = map_tensors(lambda t: t.double() if t.dtype == torch.float32 else t, given)
    return gradients(wide, grad_output.double(), encoder_layer_training)


def check(given: dict[str, Any]) -> None:
    channels, inner = given["input"].shape[-1], given["params"][10].shape[0]
    tokens = given["input"].numel() // channels
    # Forward and back through four convolutions, attention and two LayerNorms, and a sum over all tokens.
    reductions = (*(2 * [8 * channels, inner, 2 * tokens]), tokens)
    grad_output = torch.randn_like(given["input"])
    for got, want in zip(gradients(given, grad_output), exactly(given, grad_output), strict=True):
        assert_close(got, want, *reductions)


@pytest.mark.parametrize("groups", GROUPS)
def test_gradients_are_those_of_the_reference(groups: list[int]) -> None:
    check(packed([9, 0, 1, 14], groups))


# Around the edges of tiles, of the blocks of rows (128), of tokens (256) and of queries (128).
@pytest.mark.parametrize("tokens", [1, 2, 5, 6, 7, 8, 13, 14, 15, 31, 33, 127, 128, 129, 255, 256, 257])
def test_any_length(tokens: int) -> None:
    check(packed([tokens]))


@pytest.mark.parametrize(("channels", "inner"), [(36, 60), (60, 132), (132, 260)])
def test_widths_that_fit_no_tile(channels: int, inner: int) -> None:
    check(packed([3, 20], [2, 4, 1, 3, 4, 4], channels, inner))


def test_the_published_sizes() -> None:
    given = arguments((37, 768), 3072, 12, SQUEEZEBERT)
    check({**given, "cu_seqlens": offsets_of([30, 7]), **DROPOUT})


@pytest.mark.parametrize("shape", [(3, 1, 1, 11), (3, 2, 11, 11), (1, 1, 11, 11)])
def test_masks(shape: tuple[int, ...]) -> None:
    """Additive ones; one that hides a query's every key by -infinity leaves it a gradient of zero, not NaN."""
    mask = randn(*shape)
    mask[0, 0, 0, 3:] = -torch.inf
    check({**arguments((3, 11, 24), 48, 2, SQUEEZEBERT), "mask": mask, **DROPOUT})


def test_fully_masked_sequence() -> None:
    given = {**arguments((2, 5, 24), 48, 2, SQUEEZEBERT), **DROPOUT}
    mask = torch.zeros(2, 1, 1, 5)
    mask[1] = -torch.inf
    for value in gradients({**given, "mask": mask}, randn(2, 5, 24)):
        assert value.isfinite().all()


def test_nothing() -> None:
    given = packed([0, 0])
    for value in gradients(given, randn(0, 24)):
        assert (value == 0).all()


def test_output_has_the_bits_of_inference() -> None:
    for lengths in ([1], [129, 0, 17], [7] * 40):
        given = arguments((sum(lengths), 24), 48, 2, SQUEEZEBERT)
        given["cu_seqlens"] = offsets_of(lengths)
        assert torch.equal(ops.encoder_layer_training(**given), ops.encoder_layer(**given))


@pytest.mark.parametrize("product", PRODUCTS)
def test_same_bits_on_every_instruction_set(product: str) -> None:
    given, grad_output = packed([40, 3, 129], channels=132, inner=260), randn(172, 132)
    expected = gradients(given, grad_output)
    try:
        _native.force_isa(product.split("_")[1])
        _native.force_product(product)
        actual = gradients(given, grad_output)
    finally:
        _native.force_product(None)
        _native.force_isa(None)
    for got, want in zip(actual, expected, strict=True):
        assert torch.equal(got, want)


def test_thread_counts_give_the_same_bits() -> None:
    given, grad_output = packed([40, 3, 300], channels=48, inner=192), randn(343, 48)
    results = []
    for count in (1, 2, 4):
        with threads(count):
            results.append(gradients(given, grad_output))
    for other in results[1:]:
        assert all(map(torch.equal, results[0], other))


def test_recomputing_gives_the_same_bits() -> None:
    given, grad_output = packed([40, 3]), randn(43, 24)
    kept = gradients(given, grad_output)
    assert all(map(torch.equal, kept, gradients({**given, "recompute": True}, grad_output)))
    assert OPERATOR(*positional({**given, "recompute": True}))[1].numel() == 0


def test_dropped_alike_packed_and_padded() -> None:
    lengths, given = [5, 11, 2], packed([5, 11, 2])
    real = torch.arange(11) < torch.tensor(lengths).unsqueeze(1)
    padded = torch.zeros(3, 11, 24)
    padded[real] = given["input"]
    mask = torch.where(real, 0.0, -torch.inf)[:, None, None]
    alone = ops.encoder_layer_training(**given)
    rest = {name: value for name, value in given.items() if name not in ("input", "cu_seqlens")}
    assert torch.equal(ops.encoder_layer_training(padded, mask=mask, **rest)[real], alone)


def test_layouts() -> None:
    """Of the input, and of the gradient of the output."""
    given, grad_output = arguments((2, 7, 24), 48, 2, SQUEEZEBERT), randn(2, 7, 24)
    expected = gradients(given, grad_output)
    for _, input in layouts(given["input"]):
        output = ops.encoder_layer_training(**{**given, "input": input.requires_grad_()})
        for name, grad in layouts(grad_output):
            (got,) = torch.autograd.grad(output, input, grad, retain_graph=True)
            assert torch.equal(got, expected[1]), name


@pytest.mark.parametrize("trained", [[0], [1], [7], [9], [11, 12], [13], [15], [16], [0, 16], [3, 8]])
def test_frozen_parameters(trained: list[int]) -> None:
    """Only what is trained gets a gradient: the one it has when everything is. 0 is input, i the parameter i - 1."""
    given, grad_output = packed([9, 14]), randn(23, 24)
    expected = gradients(given, grad_output)[1:]
    leaves = [given["input"].clone(), *(t.clone() for t in given["params"])]
    for index in trained:
        leaves[index].requires_grad_()
    output = ops.encoder_layer_training(**{**given, "input": leaves[0], "params": leaves[1:]})
    output.backward(grad_output)
    for index, leaf in enumerate(leaves):
        if index in trained:
            assert leaf.grad is not None
            assert torch.equal(leaf.grad, expected[index])
        else:
            assert leaf.grad is None


def test_gradients_accumulate() -> None:
    given, grad_output = packed([9]), randn(9, 24)
    once = gradients(given, grad_output)[2]
    weight = given["params"][0].requires_grad_()
    for _ in range(2):
        ops.encoder_layer_training(**given).backward(grad_output)
    assert weight.grad is not None
    assert torch.equal(weight.grad, once + once)


# ---- dropout --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("p", [0.0, 0.1, 0.5, 0.9])
def test_so_many_are_dropped(p: float) -> None:
    """The share, over rows and over columns, within five standard deviations; the mean of the factors is 1."""
    factors = torch.stack([dropout_factors(3, 1, 0, row, 4096, p) for row in range(256)])
    dropped = (factors == 0).double()
    deviation = (p * (1 - p)) ** 0.5
    assert abs(dropped.mean() - p) <= 5 * deviation / factors.numel() ** 0.5
    assert ((dropped.mean(0) - p).abs() <= 5.5 * deviation / 16).all()
    assert ((dropped.mean(1) - p).abs() <= 5.5 * deviation / 64).all()


def test_rows_channels_and_seeds_are_independent() -> None:
    """Correlations of neighbours in every direction: zero but for chance (five standard deviations)."""

    def centred(seed: int, site: int, sequence: int) -> Tensor:
        rows = [dropout_factors(seed, site, sequence, row, 2048, 0.5) for row in range(128)]
        return torch.stack(rows) - 1.0

    one = centred(1, 0, 0)
    others = [centred(2, 0, 0), centred(1, 1, 0), centred(1, 0, 1), one.roll(1, 0), one.roll(1, 1), one.roll(128, 1)]
    for other in others:
        assert abs((one * other).mean()) <= 5 / one.numel() ** 0.5


def test_another_seed_drops_others() -> None:
    given = packed([9])
    outputs = [ops.encoder_layer_training(**{**given, "seed": torch.tensor(seed)}) for seed in (1, 1, 2)]
    assert torch.equal(outputs[0], outputs[1])
    assert not torch.equal(outputs[0], outputs[2])


# ---- as an operator -------------------------------------------------------------------------------------------------


def positional(given: dict[str, Any]) -> list[Any]:
    defaults = {"mask": None, "cu_seqlens": None, "recompute": False}
    return [{**defaults, **given}[argument.name] for argument in OPERATOR._schema.arguments]


def test_opcheck() -> None:
    given = packed([5, 8])
    for tensor in (given["input"], *given["params"]):
        tensor.requires_grad_()
    torch.library.opcheck(OPERATOR, tuple(positional(given)))


def test_opcheck_of_the_backward() -> None:
    given = packed([5, 8])
    _, saved = OPERATOR(*positional(given))
    *rest, _ = positional(given)
    torch.library.opcheck(BACKWARD, (randn(13, 24), saved, *rest, [1] * 17))


def test_compile() -> None:
    given = packed([5, 8])
    grad_output = randn(13, 24)
    torch._dynamo.reset()
    compiled = torch.compile(ops.encoder_layer_training, fullgraph=True, backend="aot_eager")
    for got, want in zip(gradients(given, grad_output, compiled), gradients(given, grad_output), strict=True):
        assert torch.equal(got, want)


def test_autocast_computes_in_float32() -> None:
    given = packed([5, 8])
    with torch.autocast("cpu"):
        output = ops.encoder_layer_training(**given)
    assert torch.equal(output, ops.encoder_layer_training(**given))


def test_second_derivative_is_an_error() -> None:
    given = packed([5])
    leaf = given["input"].requires_grad_()
    (gradient,) = torch.autograd.grad(ops.encoder_layer_training(**given).square().sum(), leaf, create_graph=True)
    with pytest.raises(RuntimeError, match="encoder_layer_training: expected to be differentiated once"):
        gradient.sum().backward()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_dropout": 1.0}, "hidden_dropout: expected a probability, 0 to below 1, got 1"),
        ({"attention_dropout": -0.1}, "attention_dropout: expected a probability, 0 to below 1, got -0.1"),
        ({"hidden_dropout": float("nan")}, "hidden_dropout: expected a probability"),
        ({"seed": None}, "seed: expected a seed beside dropout, got None"),
        ({"seed": torch.tensor([1, 2])}, r"seed: expected one element, got a torch.int64 tensor of shape \[2\]"),
        ({"seed": torch.tensor(1.0)}, "seed: expected .*torch.int64"),
        ({"num_heads": 5}, "num_heads: expected .*5"),
        ({"groups": [4] * 5}, "groups: expected six group counts"),
        ({"eps": -1.0}, "eps: expected"),
        ({"params": layer_params(24, 48, SQUEEZEBERT, 2)}, "params: expected the 16 tensors of one layer, got 32"),
        ({"cu_seqlens": offsets_of([4])}, "cu_seqlens: expected the last offset to be the 5 tokens"),
    ],
)
def test_errors(changes: dict[str, Any], message: str) -> None:
    given = {**packed([5]), **changes}
    with pytest.raises((ValueError, RuntimeError), match=f"encoder_layer_training: .*{message}"):
        ops.encoder_layer_training(**given)


@pytest.mark.parametrize("kind", ["packed", "float16", "bfloat16", "float64"])
def test_weights_are_plain_float32(kind: str) -> None:
    given = packed([5])
    weight = given["params"][0]
    given["params"][0] = ops.pack_grouped_conv1x1(weight, 4) if kind == "packed" else weight.to(getattr(torch, kind))
    with pytest.raises(ValueError, match=re.escape("query.weight): expected dtype torch.float32")):
        ops.encoder_layer_training(**given)


def test_mask_gets_no_gradient() -> None:
    given = {**arguments((1, 5, 24), 48, 2, SQUEEZEBERT), "mask": randn(5, 5).requires_grad_()}
    given["input"].requires_grad_()
    with pytest.raises(RuntimeError, match="mask: expected one that requires no gradient"):
        ops.encoder_layer_training(**given)
