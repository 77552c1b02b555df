"""What holds for every row: its bits do not depend on the batch, any layout is taken, offsets go beyond 2^31."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from kernel_testing import DEVICE, DTYPES, as_given, call, conv, encoder, ffn, norm, normal, offsets, qkv
from tolerances import low_precision_bound


def layouts(tensor: Tensor) -> dict[str, Tensor]:
    """The same values [N, S, C] behind other strides."""
    wide = torch.zeros(*tensor.shape[:-1], tensor.shape[-1] + 5, dtype=tensor.dtype, device=tensor.device)
    wide[..., 2:-3] = tensor
    return {
        "rows far apart": wide[..., 2:-3],
        "channels first": tensor.transpose(-1, -2).contiguous().transpose(-1, -2),
        "every second channel": tensor.repeat_interleave(2, dim=-1)[..., ::2],
        "tokens first": tensor.transpose(0, 1).contiguous().transpose(0, 1),
        "expanded": tensor,
    }


@pytest.mark.parametrize("dtype", DTYPES)
def test_strides_do_not_change_the_bits(dtype: torch.dtype) -> None:
    weight, bias = conv(20, 24, 2)
    arguments: dict[str, Any] = {"weight": weight, "bias": bias, "groups": 2, **norm(20)}
    arguments |= {"input": normal(2, 7, 24), "residual": normal(2, 7, 20)}
    given = as_given(arguments, dtype)
    expected = call("grouped_conv1x1_add_layer_norm", given)
    for name, input in layouts(given["input"]).items():
        residual = layouts(given["residual"])[name]
        output = call("grouped_conv1x1_add_layer_norm", {**given, "input": input, "residual": residual})
        assert torch.equal(output, expected), name
    transposed = given["weight"].t().contiguous().t()
    assert torch.equal(call("grouped_conv1x1_add_layer_norm", {**given, "weight": transposed}), expected)


def test_an_input_whose_rows_are_one_row() -> None:
    weight, bias = conv(8, 8, 1)
    given = as_given({"input": normal(8), "weight": weight, "bias": bias, "groups": 1}, torch.float32)
    one = call("grouped_conv1x1", given)
    many = call("grouped_conv1x1", {**given, "input": given["input"].expand(5, 8)})
    assert torch.equal(many, one.expand(5, 8))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_sequence_has_the_same_bits_alone_and_packed_with_others(dtype: torch.dtype) -> None:
    given = as_given({"input": normal(90, 64), **encoder(64, 128, 4, [2, 2, 2, 1, 2, 2], 1)}, dtype)
    packed = call("encoder", {**given, "cu_seqlens": offsets(17, 70, 0, 3)})
    alone = call("encoder", {**given, "input": given["input"][17:87]})
    if DEVICE.type == "cuda":
        assert torch.equal(packed[17:87], alone)
    else:  # the interpreter multiplies with NumPy, whose order of summation depends on a row's place
        assert (packed[17:87] - alone).abs().max() <= low_precision_bound(dtype, 32, 32, 64, 32, 64, 64, size=4.0)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("groups", [[4, 4, 4, 1, 4, 4], [1, 1, 1, 1, 1, 1]])
def test_every_size_of_batch_gives_the_same_bits(dtype: torch.dtype, groups: list[int]) -> None:
    """SqueezeBERT's and BERT's layer, through all rows of the table."""
    given = as_given({"input": normal(64, 100, 768), **encoder(768, 3072, 12, groups, 2)}, dtype)
    full = call("encoder", given)
    for count in (1, 2, 10, 30):
        assert torch.equal(call("encoder", {**given, "input": given["input"][:count]}), full[:count])
    lengths = torch.randint(1, 101, (64,)).tolist()
    rows = torch.cat([given["input"][i, :length] for i, length in enumerate(lengths)])
    packed = call("encoder", {**given, "input": rows, "cu_seqlens": offsets(*lengths)})
    start = 0
    for i, length in enumerate(lengths[:8]):
        alone = call("encoder", {**given, "input": given["input"][i, :length]})
        assert torch.equal(packed[start : start + length], alone)
        start += length


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_thousand_runs_give_the_same_bits(dtype: torch.dtype) -> None:
    """A program that normalises rows too early, or from stale memory, would show here."""
    given = as_given({"input": normal(777, 768), **ffn(768, 3072, (4, 4))}, dtype)
    expected = call("grouped_ffn", given)
    for _ in range(1000):
        assert torch.equal(call("grouped_ffn", given), expected)


@pytest.mark.gpu
def test_offsets_beyond_two_to_the_31() -> None:
    rows = 2**31 // 768 + 100
    input = torch.zeros(rows, 768, dtype=torch.bfloat16, device=DEVICE)
    input[-50:] = torch.randn(50, 768, device=DEVICE)
    weight, bias = conv(768, 768, 4)
    arguments = as_given({"weight": weight, "bias": bias, "groups": 4}, torch.bfloat16)
    output = call("grouped_conv1x1", {"input": input, **arguments})
    assert torch.equal(output[-50:], call("grouped_conv1x1", {"input": input[-50:], **arguments}))
    del output
    given = as_given(ffn(768, 3072, (4, 4)), torch.bfloat16)
    output = call("grouped_ffn", {"input": input, **given})
    assert torch.equal(output[-50:], call("grouped_ffn", {"input": input[-50:], **given}))
    del output
    sequences = input[rows % 50 :].view(-1, 50, 768)
    given = as_given({"num_heads": 12, **qkv(768, (4, 4, 4))}, torch.bfloat16)
    output = call("grouped_qkv_attention", {"input": sequences, **given})
    assert torch.equal(output[-1:], call("grouped_qkv_attention", {"input": sequences[-1:], **given}))
    del output
    output = call("attention", {**dict.fromkeys(("query", "key", "value"), sequences), "num_heads": 12})
    assert torch.equal(
        output[-1:], call("attention", {**dict.fromkeys(("query", "key", "value"), sequences[-1:]), "num_heads": 12})
    )
