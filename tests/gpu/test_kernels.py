"""Every Triton kernel against float64: dtypes, odd sizes and tails, groups that line up and groups that do not."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from kernel_testing import DTYPES, as_given, call, check, conv, encoder, exact, ffn, norm, normal, offsets, qkv
from python_ref import ops as reference
from squeezebert_kernels.triton.registration import operator
from tolerances import LOW_PRECISION_RATIO, float32_bound

# NumPy's, of a masked score in the interpreter.
pytestmark = pytest.mark.filterwarnings("ignore:overflow encountered")
dtypes = pytest.mark.parametrize("dtype", DTYPES)

# in_channels, out_channels, groups: one channel, odd counts, SqueezeBERT's own group.
CHANNELS = [(1, 5, 1), (33, 31, 1), (24, 40, 4), (192, 192, 1)]


@dtypes
@pytest.mark.parametrize(("in_channels", "out_channels", "groups"), CHANNELS)
def test_grouped_conv1x1(dtype: torch.dtype, in_channels: int, out_channels: int, groups: int) -> None:
    weight, bias = conv(out_channels, in_channels, groups)
    input = normal(3, 7, in_channels)
    for given_bias in (bias, None):
        arguments = {"input": input, "weight": weight, "bias": given_bias, "groups": groups}
        check("grouped_conv1x1", arguments, dtype, in_channels // groups)


@pytest.mark.parametrize("tokens", [0, 1, 15, 16, 17, 300, 2100])
def test_token_counts_of_every_size_class(tokens: int) -> None:
    weight, bias = conv(24, 16, 2)
    for dtype in (torch.float32, torch.bfloat16):
        arguments = {"input": normal(tokens, 16), "weight": weight.unsqueeze(-1), "bias": bias, "groups": 2}
        check("grouped_conv1x1", arguments, dtype, 8)


@dtypes
def test_grouped_conv1x1_gelu(dtype: torch.dtype) -> None:
    """Over the whole range on which GELU is neither 0 nor the identity."""
    input = torch.linspace(-9, 9, 30 * 16, dtype=torch.float64).view(30, 16)
    weight = torch.eye(16, dtype=torch.float64)
    check("grouped_conv1x1_gelu", {"input": input, "weight": weight, "bias": None, "groups": 1}, dtype, 1)


@dtypes
@pytest.mark.parametrize(("channels", "groups"), [(20, 2), (193, 1)])
def test_grouped_conv1x1_add_layer_norm(dtype: torch.dtype, channels: int, groups: int) -> None:
    weight, bias = conv(channels, channels, groups)
    arguments = {"input": normal(2, 19, channels), "residual": normal(2, 19, channels), "weight": weight, "bias": bias}
    arguments |= {"groups": groups, **norm(channels)}
    check("grouped_conv1x1_add_layer_norm", arguments, dtype, channels, channels, roundings=3)


@dtypes
@pytest.mark.parametrize("kernel_size", [1, 3, 5])
def test_grouped_conv1d(dtype: torch.dtype, kernel_size: int) -> None:
    weight = normal(20, 12, kernel_size) * (12 * kernel_size) ** -0.5
    arguments = {"weight": weight, "bias": normal(20), "groups": 2}
    check("grouped_conv1d", {"input": normal(2, 9, 24), **arguments}, dtype, 12 * kernel_size)
    packed = {"input": normal(10, 24), "cu_seqlens": offsets(1, 0, 7, 2)}
    check("grouped_conv1d", {**packed, **arguments}, dtype, 12 * kernel_size)


@dtypes
@pytest.mark.parametrize(
    ("queries", "keys", "channels", "heads"), [(5, 3, 12, 4), (33, 70, 48, 1), (1, 65, 100, 1), (3, 5, 330, 2)]
)
def test_attention(dtype: torch.dtype, queries: int, keys: int, channels: int, heads: int) -> None:
    arguments = {"query": normal(2, queries, channels), "key": normal(2, keys, channels), "num_heads": heads}
    arguments["value"] = normal(2, keys, channels)
    check("attention", arguments, dtype, channels // heads, keys, roundings=2)


def test_attention_without_keys_gives_zeros() -> None:
    arguments = {"query": normal(3, 8), "key": normal(0, 8), "value": normal(0, 8), "num_heads": 2}
    assert not call("attention", as_given(arguments, torch.float32)).any()


MASKS = {
    "keys": lambda: torch.rand(2, 1, 1, 70) > 0.4,
    "all": lambda: torch.rand(2, 3, 5, 70) > 0.4,
    "queries and keys": lambda: torch.rand(5, 70) > 0.4,
    "a row of False attends uniformly": lambda: torch.zeros(1, 1, 5, 1, dtype=torch.bool),
    "additive": lambda: normal(2, 1, 5, 70),
    "a row of -infinity gives zeros": lambda: torch.full((5, 70), -torch.inf, dtype=torch.float64),
    "the first keys are masked": lambda: (torch.arange(70) > 66).view(1, 70),
}


@dtypes
@pytest.mark.parametrize("mask", MASKS)
def test_masks(dtype: torch.dtype, mask: str) -> None:
    arguments = {"query": normal(2, 5, 12), "key": normal(2, 70, 12), "value": normal(2, 70, 12), "num_heads": 3}
    check("attention", {**arguments, "mask": MASKS[mask]()}, dtype, 4, 70, roundings=3)


# channels, out_channels, heads, groups: lined up, heads of 12 that are no power of two, groups of their own for each
# projection, heads that straddle groups, and wide
# heads (the general path).
PROJECTIONS = [
    (48, 48, 4, (4, 4, 4)),
    (48, 24, 2, (2, 2, 2)),
    (48, 48, 12, (1, 3, 4)),
    (48, 48, 2, (4, 4, 4)),
    (144, 144, 1, (1, 1, 1)),
]


@dtypes
@pytest.mark.parametrize(("channels", "out_channels", "heads", "groups"), PROJECTIONS)
def test_grouped_qkv_attention(
    dtype: torch.dtype, channels: int, out_channels: int, heads: int, groups: tuple[int, int, int]
) -> None:
    arguments = {"num_heads": heads, **qkv(channels, groups, out_channels)}
    reductions = (channels // min(groups), out_channels // heads, 70)
    check("grouped_qkv_attention", {"input": normal(2, 9, channels), **arguments}, dtype, *reductions, roundings=6)
    packed = {"input": normal(78, channels), "cu_seqlens": offsets(7, 0, 70, 1)}
    check("grouped_qkv_attention", {**packed, **arguments}, dtype, *reductions, roundings=6)


def test_grouped_qkv_attention_with_a_mask_and_a_scale() -> None:
    arguments: dict[str, Any] = {
        "num_heads": 4,
        **qkv(16, (2, 2, 2)),
        "scale": 0.7,
        "mask": torch.rand(2, 4, 6, 6) > 0.3,
    }
    check("grouped_qkv_attention", {"input": normal(2, 6, 16), **arguments}, torch.float32, 8, 4, 6)


# channels, inner, groups: fused, with a rest of intermediate channels; as SqueezeBERT's; apart.
FFNS = [(64, 72, (2, 2)), (192, 128, (1, 1)), (24, 36, (2, 3)), (20, 40, (4, 4))]


@dtypes
@pytest.mark.parametrize(("channels", "inner", "groups"), FFNS)
def test_grouped_ffn(dtype: torch.dtype, channels: int, inner: int, groups: tuple[int, int]) -> None:
    arguments = {"input": normal(2, 10, channels), **ffn(channels, inner, groups)}
    check("grouped_ffn", arguments, dtype, channels, inner, channels, roundings=4)


@pytest.mark.parametrize("tokens", [1, 300, 2100])
def test_grouped_ffn_of_every_size_class(tokens: int) -> None:
    arguments = {"input": normal(tokens, 32), **ffn(32, 64, (2, 2))}
    check("grouped_ffn", arguments, torch.float16, 16, 32, 32, roundings=4)


@pytest.mark.parametrize(("channels", "shared_by"), [(192, 3), (128, 1)])
def test_programs_of_grouped_ffn_share_output_channels(
    channels: int, shared_by: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """192 channels are three parts of 64 for three programs; two parts are not. The bits are the same."""
    from squeezebert_kernels.triton import grouped_ffn, launch, tuning

    programs = []

    def counting(kernel: Any, count: int, *args: Any, **constants: Any) -> None:
        programs.append(count)
        launch.launch(kernel, count, *args, **constants)

    monkeypatch.setattr(grouped_ffn, "launch", counting)
    arguments, outputs = {"input": normal(20, channels), **ffn(channels, 72, (1, 1))}, []
    for split in (1, 3):
        tile = tuning.Tile(16, 64, 64, 4, 1, False, "", split)
        monkeypatch.setattr(grouped_ffn, "tile_for", lambda *_, tile=tile: tile)
        outputs.append(check("grouped_ffn", arguments, torch.float32, channels, 72, channels))
    assert torch.equal(*outputs)
    assert programs == [2, 2 * shared_by]


@dtypes
def test_embedding_layer_norm(dtype: torch.dtype) -> None:
    tables = {"word_embeddings": normal(11, 20), "position_embeddings": normal(9, 20)}
    tables |= {"token_type_embeddings": normal(2, 20), **norm(20)}
    ids = {"input_ids": torch.randint(0, 11, (3, 7)), "token_type_ids": None, "position_ids": None}
    check("embedding_layer_norm", {**ids, **tables}, dtype, 20, roundings=3)
    ids["token_type_ids"] = torch.randint(0, 2, (3, 1)).int()
    ids["position_ids"] = torch.randint(0, 9, (7,))
    check("embedding_layer_norm", {**ids, **tables}, dtype, 20, roundings=3)


GROUPS = [[4, 4, 4, 1, 4, 4], [1, 1, 1, 1, 1, 1], [2, 4, 1, 3, 6, 12]]


@dtypes
@pytest.mark.parametrize("groups", GROUPS)
def test_encoder_errs_no_more_than_twice_what_pytorch_does(dtype: torch.dtype, groups: list[int]) -> None:
    arguments = {**encoder(48, 96, 4, groups, layers=2), "cu_seqlens": offsets(9, 2)}
    for first_token_only in (False, True):
        given = as_given({"input": normal(11, 48), **arguments, "first_token_only": first_token_only}, dtype)
        expected = exact("encoder", given)
        error = (call("encoder", given).double().cpu() - expected).abs().max()
        theirs = (reference.encoder(**given).double().cpu() - expected).abs().max()
        bound = float32_bound(*[48, 12, 9, 48, 48, 96, 48] * 2, size=expected.abs().max().item())
        assert error <= bound + LOW_PRECISION_RATIO * theirs * (dtype != torch.float32)


def test_encoder_layer_and_encoder_of_one_layer_agree() -> None:
    given = as_given({"input": normal(2, 5, 16), **encoder(16, 32, 2, [2, 2, 2, 1, 2, 2], 1)}, torch.float32)
    mask = (torch.rand(2, 1, 1, 5) > 0.3).to(given["input"].device)
    layer = call("encoder_layer", {**given, "mask": mask})
    assert torch.equal(layer, call("encoder", {**given, "mask": mask}))
    first = call("encoder", {**given, "mask": mask, "first_token_only": True})
    assert torch.equal(first, layer[:, 0])


def test_a_layer_takes_three_launches(monkeypatch: pytest.MonkeyPatch) -> None:
    from squeezebert_kernels.triton import attention, grouped_conv1x1, grouped_ffn, grouped_qkv_attention, launch

    operator("encoder")
    kernels: list[Any] = []

    def counting(kernel: Any, *args: Any, **constants: Any) -> None:
        kernels.append(kernel)
        launch.launch(kernel, *args, **constants)

    for module in (attention, grouped_conv1x1, grouped_ffn, grouped_qkv_attention):
        monkeypatch.setattr(module, "launch", counting)
    call("encoder", as_given({"input": normal(3, 64), **encoder(64, 128, 4, [2, 2, 2, 1, 2, 2], 2)}, torch.float32))
    layer = [
        grouped_qkv_attention.grouped_qkv_attention_kernel,
        grouped_conv1x1.grouped_conv1x1_kernel,
        grouped_ffn.grouped_ffn_kernel,
    ]
    assert kernels == layer * 2
