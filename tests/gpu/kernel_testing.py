"""What the tests of the Triton kernels share: where they run, their inputs, and the comparison with float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

import squeezebert_kernels.ops  # noqa: F401  (registers torch.ops.squeezebert)
from python_ref import ops as reference
from reference_inputs import layer_params
from squeezebert_kernels.triton.registration import operator
from tolerances import low_precision_bound

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
DTYPES = [torch.float32, torch.float16, torch.bfloat16]


def call(name: str, arguments: dict[str, Any]) -> Tensor:
    """The operator on the GPU; its function, in Triton's interpreter, without one."""
    if DEVICE.type == "cuda":
        return getattr(torch.ops.squeezebert, name)(**arguments)
    return operator(name)(**arguments)


def map_tensors(function: Callable[[Tensor], Tensor], value: Any) -> Any:
    """`value` with function(tensor) for every tensor, also in lists and dictionaries."""
    if isinstance(value, Tensor):
        return function(value)
    if isinstance(value, list):
        return [map_tensors(function, item) for item in value]
    if isinstance(value, dict):
        return {key: map_tensors(function, item) for key, item in value.items()}
    return value


def as_given(arguments: dict[str, Any], dtype: torch.dtype) -> dict[str, Any]:
    """float64 arguments in `dtype`, on the device; cu_seqlens stays on the CPU."""
    given = map_tensors(lambda t: t.to(DEVICE, dtype if t.dtype == torch.float64 else t.dtype), arguments)
    if given.get("cu_seqlens") is not None:
        given["cu_seqlens"] = arguments["cu_seqlens"]
    return given


def exact(name: str, given: dict[str, Any]) -> Tensor:
    """What the reference makes of the same, rounded, arguments in float64."""
    wide = map_tensors(lambda t: t.double() if t.is_floating_point() else t, given)
    return getattr(reference, name)(**map_tensors(Tensor.cpu, wide))


def check(name: str, arguments: dict[str, Any], dtype: torch.dtype, *reductions: int, roundings: int = 1) -> Tensor:
    """The output in `dtype`, after comparing it with float64.

    reductions: the lengths of its chained reductions. roundings: how often values are rounded to `dtype` in a row.
    """
    given = as_given(arguments, dtype)
    output = call(name, given)
    expected = exact(name, given)
    assert output.dtype == dtype
    assert output.is_contiguous()
    assert output.shape == expected.shape
    if output.numel():
        size = max(1.0, expected.abs().max().item())
        error = (output.double().cpu() - expected).abs().max().item()
        assert error <= low_precision_bound(dtype, *reductions, size=size, roundings=roundings)
    return output


def normal(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def conv(out_channels: int, in_channels: int, groups: int) -> tuple[Tensor, Tensor]:
    """A weight that keeps the size of activations, and a bias."""
    depth = in_channels // groups
    return normal(out_channels, depth) * depth**-0.5, normal(out_channels) * 0.3


def norm(channels: int) -> dict[str, Any]:
    return {"ln_weight": 1 + normal(channels) * 0.3, "ln_bias": normal(channels) * 0.3, "eps": 1e-12}


def qkv(channels: int, groups: tuple[int, int, int], out_channels: int | None = None) -> dict[str, Any]:
    """Weights, biases and groups of grouped_qkv_attention."""
    arguments: dict[str, Any] = {"groups": list(groups)}
    for name, count in zip(("query", "key", "value"), groups, strict=True):
        arguments[f"{name}_weight"], arguments[f"{name}_bias"] = conv(out_channels or channels, channels, count)
    return arguments


def ffn(channels: int, inner: int, groups: tuple[int, int]) -> dict[str, Any]:
    """Weights, biases, groups and LayerNorm of grouped_ffn."""
    arguments: dict[str, Any] = {"groups": list(groups), **norm(channels)}
    arguments["intermediate_weight"], arguments["intermediate_bias"] = conv(inner, channels, groups[0])
    arguments["output_weight"], arguments["output_bias"] = conv(channels, inner, groups[1])
    return arguments


def encoder(channels: int, inner: int, heads: int, groups: list[int], layers: int) -> dict[str, Any]:
    """params, num_heads, groups and eps of encoder."""
    params = layer_params(channels, inner, groups, layers)
    return {"params": params, "num_heads": heads, "groups": groups, "eps": 1e-12}


def offsets(*lengths: int) -> Tensor:
    """cu_seqlens of sequences with these lengths."""
    return torch.tensor([0, *lengths]).cumsum(0).int()
