"""What only a GPU shows: opcheck, gradients, autocast, streams, a second device, and graphs of the operators."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from kernel_testing import DEVICE, DTYPES, as_given, conv, encoder, exact, ffn, map_tensors, norm, normal, offsets, qkv
from python_ref import ops as reference
from squeezebert_kernels import ops
from tolerances import low_precision_bound

pytestmark = pytest.mark.gpu


def every_operator() -> dict[str, dict[str, Any]]:
    """Arguments, in float64, of every operator that is differentiated; in the order of its schema."""
    weight, bias = conv(20, 24, 2)
    convolution = {"input": normal(2, 5, 24), "weight": weight, "bias": bias, "groups": 2}
    tables = {"word_embeddings": normal(9, 8), "position_embeddings": normal(6, 8)}
    tables |= {"token_type_embeddings": normal(2, 8), **norm(8)}
    layer = encoder(16, 32, 2, [2, 2, 2, 1, 2, 2], 1)
    calls = {
        "grouped_conv1x1": convolution,
        "grouped_conv1x1_gelu": convolution,
        "grouped_conv1x1_add_layer_norm": {**convolution, "residual": normal(2, 5, 20), **norm(20)},
        "grouped_conv1d": {**convolution, "weight": normal(20, 12, 3)},
        "attention": {"query": normal(2, 5, 8), "key": normal(2, 4, 8), "value": normal(2, 4, 8), "num_heads": 2},
        "grouped_qkv_attention": {"input": normal(2, 5, 16), **qkv(16, (2, 2, 2)), "num_heads": 2},
        "grouped_ffn": {"input": normal(2, 5, 32), **ffn(32, 64, (2, 2))},
        "embedding_layer_norm": {
            "input_ids": torch.randint(0, 9, (2, 5)),
            "token_type_ids": None,
            "position_ids": None,
            **tables,
        },
        "encoder_layer": {"input": normal(2, 5, 16), **layer},
        "encoder": {"input": normal(2, 5, 16), **layer},
    }
    return {name: _in_order(name, arguments) for name, arguments in calls.items()}


def _in_order(name: str, arguments: dict[str, Any]) -> dict[str, Any]:
    schema = getattr(torch.ops.squeezebert, name).default._schema
    return {a.name: arguments[a.name] for a in schema.arguments if a.name in arguments}


def leaves(value: Any) -> list[Tensor]:
    found: list[Tensor] = []
    map_tensors(lambda t: found.append(t) or t, value)  # type: ignore[func-returns-value]
    return [tensor for tensor in found if tensor.requires_grad]


def differentiable(given: dict[str, Any]) -> dict[str, Any]:
    return map_tensors(lambda t: t.detach().requires_grad_() if t.is_floating_point() else t, given)


OPERATORS = list(every_operator())


@pytest.mark.parametrize("name", OPERATORS)
def test_opcheck(name: str) -> None:
    given = differentiable(as_given(every_operator()[name], torch.float32))
    torch.library.opcheck(getattr(torch.ops.squeezebert, name).default, tuple(given.values()))


@pytest.mark.parametrize("name", OPERATORS)
def test_gradients_are_those_of_the_reference(name: str) -> None:
    given = differentiable(as_given(every_operator()[name], torch.float32))
    output = getattr(ops, name)(**given)
    grad_output = torch.randn_like(output)
    gradients = torch.autograd.grad(output, leaves(given), grad_output)
    wide = differentiable(map_tensors(lambda t: t.detach().cpu().double() if t.is_floating_point() else t.cpu(), given))
    expected = torch.autograd.grad(getattr(reference, name)(**wide), leaves(wide), grad_output.cpu().double())
    for got, want in zip(gradients, expected, strict=True):
        size = max(1.0, want.abs().max().item())
        bound = low_precision_bound(torch.float32, 64, 64, 64, 64, size=size)
        assert (got.cpu().double() - want).abs().max() <= bound


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", OPERATORS)
def test_autocast(name: str, dtype: torch.dtype) -> None:
    given = as_given(every_operator()[name], torch.float32)
    with torch.autocast("cuda", dtype):
        output = getattr(ops, name)(**given)
    assert output.dtype == dtype
    assert torch.equal(output, getattr(ops, name)(**as_given(every_operator_like(given), dtype)))


def every_operator_like(given: dict[str, Any]) -> dict[str, Any]:
    """`given` in float64, which `as_given` casts."""
    return map_tensors(lambda t: t.double() if t.is_floating_point() else t, given)


def test_autocast_leaves_masks_alone() -> None:
    given = as_given(every_operator()["attention"], torch.float32)
    mask = torch.zeros(2, 1, 5, 4, device=DEVICE)
    mask[..., 2:] = torch.finfo(torch.float32).min
    mask[0] = torch.finfo(torch.float32).min
    with torch.autocast("cuda", torch.bfloat16):
        output = ops.attention(**given, mask=mask)
    assert output.isfinite().all()


def test_tf32_only_where_pytorch_allows_it() -> None:
    weight, bias = conv(768, 768, 1)
    given = as_given({"input": normal(64, 768), "weight": weight, "bias": bias, "groups": 1}, torch.float32)
    expected = exact("grouped_conv1x1", given)
    before = torch.backends.cuda.matmul.allow_tf32
    errors = {}
    try:
        for allowed in (False, True):
            torch.backends.cuda.matmul.allow_tf32 = allowed
            errors[allowed] = (ops.grouped_conv1x1(**given).cpu() - expected).abs().max().item()
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before
    bound = low_precision_bound(torch.float32, 768, size=expected.abs().max().item())
    assert errors[False] <= bound < errors[True]


@pytest.mark.parametrize("dtype", DTYPES)
def test_on_a_stream_of_its_own(dtype: torch.dtype) -> None:
    """The kernels wait for what the stream has before them: a long product, then a copy into their input."""
    given = as_given({"input": normal(512, 768), **ffn(768, 3072, (4, 4))}, dtype)
    expected = ops.grouped_ffn(**given)
    stream = torch.cuda.Stream()
    for _ in range(20):
        late = torch.empty_like(given["input"])
        big = torch.randn(4096, 4096, device=DEVICE)
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(5):
                big = big @ big
            late.copy_(given["input"])
            output = ops.grouped_ffn(**{**given, "input": late})
        stream.synchronize()
        assert torch.equal(output, expected)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="one GPU")
def test_a_device_that_is_not_the_current_one() -> None:
    given = as_given(every_operator()["encoder"], torch.bfloat16)
    elsewhere = map_tensors(lambda t: t.to("cuda:1"), given)
    output = ops.encoder(**elsewhere)
    assert output.device == torch.device("cuda:1")
    assert torch.equal(output.to(DEVICE), ops.encoder(**given))
    with pytest.raises(
        ValueError, match=r"params\[0\].*expected a tensor on cuda:1, where input is, got one on cuda:0"
    ):
        ops.encoder(**{**given, "input": elsewhere["input"]})


def test_tensors_on_the_cpu_are_refused_beside_cuda_ones() -> None:
    given = as_given(every_operator()["grouped_conv1x1"], torch.float32)
    with pytest.raises(ValueError, match="weight: expected a tensor on cuda:0, where input is, got one on cpu"):
        ops.grouped_conv1x1(**{**given, "weight": given["weight"].cpu()})


def test_an_encoder_in_a_cuda_graph() -> None:
    given = as_given(every_operator()["encoder"], torch.bfloat16)
    expected = ops.encoder(**given)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        output = ops.encoder(**given)
    for _ in range(3):
        output.zero_()
        graph.replay()
        assert torch.equal(output, expected)
    rows = given["input"].flatten(0, 1)
    refused = pytest.raises(RuntimeError, match="cu_seqlens: expected none while a CUDA graph is captured")
    with refused, torch.cuda.graph(torch.cuda.CUDAGraph()):
        ops.encoder(**{**given, "input": rows, "cu_seqlens": offsets(5, 5)})


def test_compile() -> None:
    given = as_given(every_operator()["encoder"], torch.bfloat16)
    compiled = torch.compile(lambda **arguments: ops.encoder(**arguments), fullgraph=True)
    assert torch.equal(compiled(**given), ops.encoder(**given))
