"""Bad arguments: the Triton operators say the same as the CPU operators, word for word, but for dtypes and devices."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch

from kernel_testing import DEVICE, as_given, call, conv, encoder, ffn, norm, normal, offsets, qkv
from squeezebert_kernels.triton import launch, tuning

CONV = {"input": normal(3, 12), "weight": conv(8, 12, 2)[0], "bias": normal(8), "groups": 2}
ADD_NORM = {**CONV, "residual": normal(3, 8), **norm(8)}
CONV1D = {"input": normal(3, 12), "weight": normal(8, 6, 3), "bias": None, "groups": 2}
ATTENTION = {"query": normal(2, 3, 8), "key": normal(2, 4, 8), "value": normal(2, 4, 8), "num_heads": 2}
QKV = {"input": normal(3, 8), "num_heads": 2, **qkv(8, (2, 2, 2))}
FFN = {"input": normal(3, 8), **ffn(8, 16, (2, 2))}
EMBEDDING = {
    "input_ids": torch.tensor([[1, 2, 3]]),
    "token_type_ids": None,
    "position_ids": None,
    "word_embeddings": normal(5, 8),
    "position_embeddings": normal(4, 8),
    "token_type_embeddings": normal(2, 8),
    **norm(8),
}
ENCODER = {"input": normal(2, 3, 8), **encoder(8, 16, 2, [2, 2, 2, 1, 2, 2], 1)}

BAD: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("grouped_conv1x1", CONV, {"groups": 0}),
    ("grouped_conv1x1", CONV, {"groups": 5}),
    ("grouped_conv1x1", CONV, {"groups": 4}),
    ("grouped_conv1x1", CONV, {"weight": normal(8)}),
    ("grouped_conv1x1", CONV, {"weight": normal(8, 6, 3)}),
    ("grouped_conv1x1", CONV, {"bias": normal(7)}),
    ("grouped_conv1x1", CONV, {"input": normal(3, 0)}),
    ("grouped_conv1x1", CONV, {"input": torch.tensor(1.0, dtype=torch.float64)}),
    ("grouped_conv1x1_gelu", CONV, {"bias": normal(2, 4)}),
    ("grouped_conv1x1_add_layer_norm", ADD_NORM, {"residual": normal(4, 8)}),
    ("grouped_conv1x1_add_layer_norm", ADD_NORM, {"ln_weight": normal(7)}),
    ("grouped_conv1x1_add_layer_norm", ADD_NORM, {"ln_bias": normal(1, 8)}),
    ("grouped_conv1d", CONV1D, {"weight": normal(8, 6, 2)}),
    ("grouped_conv1d", CONV1D, {"input": normal(2, 2, 3, 12)}),
    ("grouped_conv1d", CONV1D, {"cu_seqlens": offsets(1, 1)}),
    ("grouped_conv1d", CONV1D, {"cu_seqlens": torch.tensor([1, 3], dtype=torch.int32)}),
    ("grouped_conv1d", CONV1D, {"cu_seqlens": torch.tensor([0, 2, 1, 3], dtype=torch.int32)}),
    ("grouped_conv1d", CONV1D, {"cu_seqlens": torch.tensor([0, 3])}),
    ("grouped_conv1d", CONV1D, {"cu_seqlens": torch.tensor([[0, 3]], dtype=torch.int32)}),
    ("grouped_conv1d", CONV1D, {"input": normal(1, 3, 12), "cu_seqlens": offsets(3)}),
    ("attention", ATTENTION, {"num_heads": 3}),
    ("attention", ATTENTION, {"num_heads": 0}),
    ("attention", ATTENTION, {"key": normal(4, 8)}),
    ("attention", ATTENTION, {"value": normal(2, 3, 8)}),
    ("attention", ATTENTION, {"mask": torch.ones(2, 2, 3, 5, dtype=torch.bool)}),
    ("attention", ATTENTION, {"mask": torch.ones(1, 2, 2, 3, 4, dtype=torch.bool)}),
    ("grouped_qkv_attention", QKV, {"groups": [2, 2]}),
    ("grouped_qkv_attention", QKV, {"key_weight": normal(6, 4), "key_bias": None}),
    ("grouped_qkv_attention", QKV, {"cu_seqlens": offsets(3), "mask": torch.ones(3, 3, dtype=torch.bool)}),
    ("grouped_ffn", FFN, {"groups": [2]}),
    ("grouped_ffn", FFN, {"output_weight": normal(6, 8), "output_bias": None}),
    ("embedding_layer_norm", EMBEDDING, {"input_ids": torch.tensor(3)}),
    ("embedding_layer_norm", EMBEDDING, {"input_ids": torch.tensor([[1, 2, 3, 1, 2]])}),
    ("embedding_layer_norm", EMBEDDING, {"token_type_ids": torch.tensor([[1, 1]])}),
    ("embedding_layer_norm", EMBEDDING, {"position_embeddings": normal(4, 7)}),
    ("embedding_layer_norm", EMBEDDING, {"word_embeddings": normal(5)}),
    ("encoder_layer", ENCODER, {"params": ENCODER["params"][:15]}),
    ("encoder", ENCODER, {"params": []}),
    ("encoder", ENCODER, {"params": [*ENCODER["params"][:10], normal(15, 4), *ENCODER["params"][11:]]}),
    ("encoder", ENCODER, {"params": [normal(6, 4), *ENCODER["params"][1:]]}),
    ("encoder", ENCODER, {"groups": [2, 2, 2]}),
    ("encoder", ENCODER, {"num_heads": 5}),
    ("encoder", ENCODER, {"input": normal(2, 0, 8), "first_token_only": True}),
]


@pytest.mark.parametrize(("name", "arguments", "changes"), BAD, ids=[f"{n}-{'-'.join(c)}" for n, _, c in BAD])
def test_messages_are_those_of_the_cpu(name: str, arguments: dict[str, Any], changes: dict[str, Any]) -> None:
    given = as_given({**arguments, **changes}, torch.float32)
    on_cpu = {key: _to_cpu(value) for key, value in given.items()}
    with pytest.raises(ValueError, match="expected") as expected:
        getattr(torch.ops.squeezebert, name)(**on_cpu)
    message = re.sub(", or one packed layer( each)?", "", str(expected.value))  # which only the CPU takes
    with pytest.raises(ValueError, match=re.escape(message)):
        call(name, given)


def _to_cpu(value: Any) -> Any:
    if isinstance(value, list):
        return [_to_cpu(item) for item in value]
    return value.cpu() if isinstance(value, torch.Tensor) else value


@pytest.mark.parametrize("name", ["input_ids", "position_ids", "token_type_ids"])
def test_ids_outside_their_table(name: str) -> None:
    given = as_given(EMBEDDING, torch.float32)
    for bad in (-1, 7):
        ids = torch.tensor([[1, 0, bad]], device=DEVICE)
        low, high = min(bad, 0), max(bad, 1)
        with pytest.raises(IndexError, match=f"{name}: expected ids from 0 to .*, got ids from {low} to {high}"):
            call("embedding_layer_norm", {**given, name: ids})


def test_eps_that_is_negative() -> None:
    with pytest.raises(ValueError, match="eps: expected a number that is not negative, got -1"):
        call("grouped_ffn", as_given({**FFN, "eps": -1.0}, torch.float32))


@pytest.mark.parametrize("dtype", [torch.float64, torch.int32])
def test_other_dtypes_are_refused(dtype: torch.dtype) -> None:
    given = as_given(CONV, torch.float32)
    with pytest.raises(ValueError, match=rf"input: expected dtype .*torch\.bfloat16, got a {dtype} tensor"):
        call("grouped_conv1x1", {**given, "input": given["input"].to(dtype)})


def test_dtypes_are_not_mixed() -> None:
    given = as_given(CONV, torch.bfloat16)
    for name in ("weight", "bias"):
        with pytest.raises(ValueError, match=rf"{name}: expected dtype torch\.bfloat16, got a torch\.float32 tensor"):
            call("grouped_conv1x1", {**given, name: given[name].float()})


def test_devices_are_not_mixed() -> None:
    given = as_given(CONV, torch.float32)
    for name in ("weight", "bias"):
        with pytest.raises(ValueError, match=rf"{name}: expected a tensor on {DEVICE}.*, got one on meta"):
            call("grouped_conv1x1", {**given, name: given[name].to("meta")})


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_packed_weights(dtype: torch.dtype) -> None:
    given = as_given(CONV, dtype)
    packed = call("pack_grouped_conv1x1", {"weight": given["weight"], "groups": 2})
    assert packed.shape[0] == 8
    assert torch.equal(call("grouped_conv1x1", {**given, "weight": packed}), call("grouped_conv1x1", given))
    others = [other for other in (torch.float32, torch.float16, torch.bfloat16) if other != dtype]
    for other in others:
        with pytest.raises(ValueError, match=rf"weight: expected a weight packed by .* in {other}"):
            call("grouped_conv1x1", {**as_given(CONV, other), "weight": packed})
    taps = as_given(CONV1D, dtype)
    packed = call("pack_grouped_conv1d", {"weight": taps["weight"], "groups": 2})
    assert torch.equal(call("grouped_conv1d", {**taps, "weight": packed}), call("grouped_conv1d", taps))
    with pytest.raises(ValueError, match="weight: expected a packed weight of kernel size 1"):
        call("grouped_conv1x1", {**given, "weight": packed})


def test_unsupported_architectures_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RuntimeError, match=r"expected compute capability 8\.0 or higher \(Ampere\), got 7\.5"):
        tuning.architecture((7, 5))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Tesla T4")
    with pytest.raises(RuntimeError, match=r"expected compute capability 8\.0 .*, got 7\.5 on Tesla T4"):
        launch.architecture_of.__wrapped__(torch.device("cuda:0"))
    assert tuning.architecture((8, 9)) == "sm_80"
    assert tuning.architecture((9, 0)) == "sm_90"
    assert tuning.architecture((10, 3)) == "sm_100"
    assert tuning.architecture((12, 0)) == "sm_80"


def test_int8_is_for_cpus() -> None:
    given = as_given(ATTENTION, torch.float16)
    assert torch.equal(call("attention", {**given, "dtype": torch.float16}), call("attention", given))
    with pytest.raises(
        ValueError, match=r"dtype: expected None, or torch\.float16 as query is, on CUDA, got torch\.int8"
    ):
        call("attention", {**given, "dtype": torch.int8})
    with pytest.raises(ValueError, match=r"attention_dtype: expected None, or torch\.float32 as input is, on CUDA"):
        call("grouped_qkv_attention", {**as_given(QKV, torch.float32), "attention_dtype": torch.bfloat16})
    weight = CONV["weight"].to(DEVICE, torch.float32)
    for name in ("pack_grouped_conv1x1", "pack_grouped_conv1d"):
        assert torch.equal(
            call(name, {"weight": weight, "groups": 2, "dtype": torch.float16}),
            call(name, {"weight": weight.half(), "groups": 2}),
        )
        with pytest.raises(ValueError, match=rf"squeezebert::{name}: dtype: expected .* on CUDA, got torch\.int8"):
            call(name, {"weight": weight, "groups": 2, "dtype": torch.int8})
    for name, arguments in (
        ("quantize_weight", {"weight": weight}),
        ("pack_quantized", {"values": weight.char(), "scale": weight[:, :1], "groups": 2}),
        ("unpack_quantized", {"weight": weight.byte(), "in_channels": 12, "groups": 2}),
    ):
        with pytest.raises(ValueError, match=rf"squeezebert::{name}: .*: expected a CPU tensor, for int8 is for CPUs"):
            call(name, arguments)
