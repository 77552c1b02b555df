"""The operators and optimized models in a host program: data loaders, process pools, thread counts, sizes past 2^31."""

from __future__ import annotations

import multiprocessing
import os
import re
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from op_testing import conv, layer_norm, layer_params, pack_params, randn, threads
from small_models import hf_config, hf_model
from squeezebert_kernels import ops, optimize

GROUPS = [4, 4, 4, 1, 4, 4]
PAST_INT32 = 2**31


def encode(input: Tensor, params: list[Tensor]) -> Tensor:
    return ops.encoder(input, params, 4, GROUPS, 1e-12)


# ---- processes ----


class Sentences(Dataset[Tensor]):
    """A data set whose workers run the encoder themselves."""

    def __init__(self, inputs: list[Tensor], params: list[Tensor]) -> None:
        self.inputs, self.params = inputs, params

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, index: int) -> Tensor:
        return encode(self.inputs[index], self.params)


class Outputs(Dataset[Tensor]):
    """A data set whose workers run a model."""

    def __init__(self, model: Any, ids: list[Tensor]) -> None:
        self.model, self.ids = model, ids

    def __len__(self) -> int:
        return len(self.ids)

    @torch.no_grad()
    def __getitem__(self, index: int) -> Tensor:
        return self.model(self.ids[index]).last_hidden_state


def encode_in_child(arguments: tuple[Tensor, list[Tensor]]) -> list[float]:
    return encode(*arguments).flatten().tolist()


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
class TestForkedWorkers:
    """After the parent has computed on several threads, which do not survive the fork."""

    params: list[Tensor]
    inputs: list[Tensor]
    expected: list[Tensor]

    @pytest.fixture(autouse=True)
    def _compute_in_the_parent(self) -> None:
        self.params = pack_params(layer_params(48, 96, GROUPS), GROUPS)
        self.inputs = [randn(1 + 9 * i, 48) for i in range(4)]
        with threads(2):
            self.expected = [encode(input, self.params) for input in self.inputs]

    def test_data_loader(self) -> None:
        loader = DataLoader(
            Sentences(self.inputs, self.params),
            batch_size=None,
            num_workers=2,
            multiprocessing_context="fork",
            timeout=60,
        )
        for got, expected in zip(loader, self.expected, strict=True):
            assert torch.equal(got, expected)

    def test_an_optimized_model(self) -> None:
        model = optimize(hf_model("SqueezeBertModel", hf_config()))
        ids = [torch.randint(61, (1, 5 + i)) for i in range(4)]
        with torch.no_grad(), threads(2):
            expected = [model(i).last_hidden_state for i in ids]
        loader = DataLoader(
            Outputs(model, ids), batch_size=None, num_workers=2, multiprocessing_context="fork", timeout=60
        )
        for got, wanted in zip(loader, expected, strict=True):
            assert torch.equal(got, wanted)

    def test_process_pool(self) -> None:
        with threads(2), multiprocessing.get_context("fork").Pool(2) as pool:
            work = pool.map_async(encode_in_child, [(input, self.params) for input in self.inputs])
            results = work.get(timeout=60)
        assert results == [expected.flatten().tolist() for expected in self.expected]


# Threads of the process before and after encoders on 1, 2 and 1 threads, with nothing else that could start one.
COUNT_THREADS = """
import os, torch
from op_testing import layer_params, pack_params, randn
from small_models import hf_config, hf_model
from squeezebert_kernels import ops, optimize

GROUPS = [4, 4, 4, 1, 4, 4]
def count(): return len(os.listdir("/proc/self/task"))
torch.set_num_threads(1)
params, input = pack_params(layer_params(48, 96, GROUPS), GROUPS), randn(300, 48)
counts = [count()]
for threads in (1, 2, 1):
    torch.set_num_threads(threads)
    ops.encoder(input, params, 4, GROUPS, 1e-12)
    counts.append(count() - counts[0])
print(counts[1:])
"""


@pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="threads are counted in /proc")
def test_set_num_threads_is_honoured() -> None:
    """One thread starts none; two start one, PyTorch's own."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    result = subprocess.run(
        [sys.executable, "-c", COUNT_THREADS], env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == "[0, 1, 1]"


# ---- sizes ----


def far(*shape: int) -> Tensor:
    """Any number of elements in the memory of one."""
    return torch.ones(1).expand(*shape)


def conv_arguments() -> dict[str, Any]:
    weight, bias = conv(4, 4, 1)
    return {"weight": weight, "bias": bias, "groups": 1}


def norm_arguments() -> dict[str, Any]:
    weight, bias = layer_norm(4)
    return {"ln_weight": weight, "ln_bias": bias, "eps": 1e-12}


def qkv_arguments() -> dict[str, Any]:
    arguments: dict[str, Any] = {"num_heads": 1, "groups": [1, 1, 1]}
    for name in ("query", "key", "value"):
        arguments[f"{name}_weight"], arguments[f"{name}_bias"] = conv(4, 4, 1)
    return arguments


def ffn_arguments() -> dict[str, Any]:
    arguments: dict[str, Any] = {"groups": [1, 1], **norm_arguments()}
    for name in ("intermediate", "output"):
        arguments[f"{name}_weight"], arguments[f"{name}_bias"] = conv(4, 4, 1)
    return arguments


def embedding_arguments() -> dict[str, Any]:
    tables = {f"{name}_embeddings": randn(3, 4) for name in ("word", "position", "token_type")}
    return {"token_type_ids": None, "position_ids": None, **tables, **norm_arguments()}


def encoder_arguments() -> dict[str, Any]:
    groups = [1] * 6
    return {"params": layer_params(4, 8, groups), "num_heads": 1, "groups": groups, "eps": 1e-12}


TOO_MANY = "expected at most 2147483647 tokens"


@pytest.mark.parametrize(
    ("operator", "arguments", "argument"),
    [
        (ops.grouped_conv1x1, lambda: {"input": far(PAST_INT32, 4), **conv_arguments()}, "input"),
        (ops.grouped_conv1x1, lambda: {"input": far(2**20, 2**11, 4), **conv_arguments()}, "input"),
        (ops.grouped_conv1x1_gelu, lambda: {"input": far(PAST_INT32, 4), **conv_arguments()}, "input"),
        (
            ops.grouped_conv1x1_add_layer_norm,
            lambda: {
                "input": far(PAST_INT32, 4),
                "residual": far(PAST_INT32, 4),
                **conv_arguments(),
                **norm_arguments(),
            },
            "input",
        ),
        (ops.grouped_conv1d, lambda: {"input": far(2**20, 2**11, 4), **conv_arguments()}, "input"),
        (
            ops.attention,
            lambda: {"query": far(PAST_INT32, 4), "key": randn(3, 4), "value": randn(3, 4), "num_heads": 1},
            "query",
        ),
        (
            ops.attention,
            lambda: {"query": randn(3, 4), "key": far(PAST_INT32, 4), "value": far(PAST_INT32, 4), "num_heads": 1},
            "key",
        ),
        (ops.grouped_qkv_attention, lambda: {"input": far(PAST_INT32, 4), **qkv_arguments()}, "input"),
        (ops.grouped_ffn, lambda: {"input": far(2**16, 2**15, 4), **ffn_arguments()}, "input"),
        (
            ops.embedding_layer_norm,
            lambda: {
                "input_ids": torch.zeros(1, dtype=torch.int64).expand(2**29, 4),
                **embedding_arguments(),
            },
            "input_ids",
        ),
        (ops.encoder_layer, lambda: {"input": far(2**21, 2**10, 4), **encoder_arguments()}, "input"),
        (ops.encoder, lambda: {"input": far(2**21, 2**10, 4), **encoder_arguments()}, "input"),
    ],
)
def test_more_tokens_than_int32_counts_are_refused(
    operator: Callable[..., Tensor], arguments: Callable[[], dict[str, Any]], argument: str
) -> None:
    """At once: before memory for them is asked for."""
    with pytest.raises(ValueError, match=re.escape(f"squeezebert::{operator.__name__}: {argument}: {TOO_MANY}")):
        operator(**arguments())


@pytest.mark.parametrize("dtype", [torch.bool, torch.float32])
def test_an_expanded_mask(dtype: torch.dtype) -> None:
    query, key = randn(2, 3, 4), randn(2, 5, 4)
    mask = torch.tensor([1, 1, 0, 1, 1]).to(dtype).expand(2, 2, 3, 5)
    expected = ops.attention(query, key, key, 2, mask=mask.contiguous())
    assert torch.equal(ops.attention(query, key, key, 2, mask=mask), expected)
    one_each = torch.randn(2, 1, 1, 1).gt(0).to(dtype).expand(2, 2, 3, 5)
    expected = ops.attention(query, key, key, 2, mask=one_each.contiguous())
    assert torch.equal(ops.attention(query, key, key, 2, mask=one_each), expected)


def test_fakes_take_any_size() -> None:
    """Shapes alone, without memory: what torch.export and torch.compile see."""
    input = torch.empty(2**20, 2**12, 768, device="meta")
    weight = torch.empty(3072, 192, device="meta")
    assert ops.grouped_conv1x1(input, weight, None, 4).shape == (2**20, 2**12, 3072)
