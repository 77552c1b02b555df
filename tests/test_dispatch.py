"""SQUEEZEBERT_FORCE_ISA, in a process of its own for each instruction set: which kernels run; all of them are right."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence

import pytest

from squeezebert_kernels import _native

ISAS = _native.isas()

# Every operator once, on packed weights, against the reference in float64; prints the ISA that ran.
EVERY_OPERATOR = """
import torch
from exactness import assert_close, exact
from op_testing import conv, layer_norm, layer_params, pack_params, randn
from squeezebert_kernels import _native, ops

torch.manual_seed(0)
torch.set_num_threads(1)
GROUPS = [4, 4, 4, 1, 4, 4]
x, residual = randn(2, 19, 48), randn(2, 19, 60)
weight, bias = conv(60, 48, 4)
taps, taps_bias = conv(60, 48, 4, kernel_size=3)
down, down_bias = conv(48, 60, 4)
query, key, value = (conv(48, 48, 4) for _ in range(3))
attention_mask = randn(2, 1, 1, 19)
norm, wide_norm = layer_norm(48), layer_norm(60)
params = layer_params(48, 96, GROUPS, layers=2)

def check(operator, packed, plain, *reductions):
    assert_close(operator(**packed), exact(operator, plain), *reductions)

def packed(plain, **weights):
    return {**plain, **weights}

plain = {"input": x, "weight": weight, "bias": bias, "groups": 4}
with_pack = packed(plain, weight=ops.pack_grouped_conv1x1(weight, 4))
check(ops.grouped_conv1x1, with_pack, plain, 12)
check(ops.grouped_conv1x1_gelu, with_pack, plain, 12)
norm_args = {"residual": residual, "ln_weight": wide_norm[0], "ln_bias": wide_norm[1], "eps": 1e-12}
check(ops.grouped_conv1x1_add_layer_norm, {**with_pack, **norm_args}, {**plain, **norm_args}, 12, 60)
plain = {"input": x, "weight": taps, "bias": taps_bias, "groups": 4}
check(ops.grouped_conv1d, packed(plain, weight=ops.pack_grouped_conv1d(taps, 4)), plain, 36)
plain = {"query": x, "key": x.flip(1), "value": x + 1.0, "num_heads": 4, "mask": attention_mask}
check(ops.attention, plain, plain, 12, 19)
plain = {"input": x, "num_heads": 4, "groups": [4, 4, 4], "mask": attention_mask}
for name, layer in (("query", query), ("key", key), ("value", value)):
    plain |= {f"{name}_weight": layer[0], f"{name}_bias": layer[1]}
weights = {f"{n}_weight": ops.pack_grouped_conv1x1(plain[f"{n}_weight"], 4) for n in ("query", "key", "value")}
check(ops.grouped_qkv_attention, packed(plain, **weights), plain, 12, 12, 19)
plain = {"input": x, "intermediate_weight": weight, "intermediate_bias": bias, "output_weight": down}
plain |= {"output_bias": down_bias, "groups": [4, 4], "ln_weight": norm[0], "ln_bias": norm[1], "eps": 1e-12}
weights = {"intermediate_weight": ops.pack_grouped_conv1x1(weight, 4)}
check(ops.grouped_ffn, packed(plain, output_weight=ops.pack_grouped_conv1x1(down, 4), **weights), plain, 12, 15, 48)
plain = {"input_ids": torch.randint(11, (2, 19)), "token_type_ids": None, "position_ids": None}
plain |= {"word_embeddings": randn(11, 48), "position_embeddings": randn(20, 48), "token_type_embeddings": randn(2, 48)}
plain |= {"ln_weight": norm[0], "ln_bias": norm[1], "eps": 1e-12}
check(ops.embedding_layer_norm, plain, plain, 48)
reductions = (12, 12, 19, 48, 48, 12, 24, 48)
plain = {"input": x, "params": params[:16], "num_heads": 4, "groups": GROUPS, "eps": 1e-12, "mask": attention_mask}
check(ops.encoder_layer, packed(plain, params=pack_params(params[:16], GROUPS)), plain, *reductions)
plain |= {"params": params}
for first_token_only in (False, True):
    plain |= {"first_token_only": first_token_only}
    check(ops.encoder, packed(plain, params=pack_params(params, GROUPS)), plain, *reductions, *reductions)
print(_native.active_isa())
"""

CHOICE = """
from squeezebert_kernels import _native
print(_native.active_isa())
_native.force_isa("scalar")
print(_native.active_isa())
_native.force_isa(None)
print(_native.active_isa())
"""


def run(program: str | Sequence[str], forced: str | None) -> subprocess.CompletedProcess[str]:
    """Runs Python code (or arguments for Python) with SQUEEZEBERT_FORCE_ISA set to `forced`, or not set."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    environment.pop("SQUEEZEBERT_FORCE_ISA", None)
    if forced is not None:
        environment["SQUEEZEBERT_FORCE_ISA"] = forced
    arguments = ["-c", program] if isinstance(program, str) else list(program)
    return subprocess.run(
        [sys.executable, *arguments], env=environment, capture_output=True, text=True, timeout=300, check=False
    )


@pytest.mark.parametrize("isa", ISAS)
def test_every_operator(isa: str) -> None:
    result = run(EVERY_OPERATOR, isa)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == isa


@pytest.mark.parametrize("variable", [None, "", *ISAS])
def test_the_choice(variable: str | None) -> None:
    """The variable's, else the best; forced and let go again, the same."""
    result = run(CHOICE, variable)
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == [variable or ISAS[0], "scalar", variable or ISAS[0]]


# A real one that this CPU lacks, a name that nobody has, and a slip of the shift key.
@pytest.mark.parametrize("isa", ["neon" if "neon" not in ISAS else "avx2", "sse9", "AVX2"])
def test_what_the_cpu_lacks_is_an_error_that_says_what_it_has(isa: str) -> None:
    message = f'SQUEEZEBERT_FORCE_ISA: expected an ISA that this CPU has ({", ".join(ISAS)}), got "{isa}"'
    result = run("from squeezebert_kernels import _native; _native.active_isa()", isa)
    assert result.returncode == 1
    assert message in result.stderr
    packing = "import torch; from squeezebert_kernels import ops; ops.pack_grouped_conv1x1(torch.ones(8, 8), 1)"
    result = run(packing, isa)
    assert result.returncode == 1
    assert message in result.stderr


def test_force_isa_names_what_the_cpu_has() -> None:
    active = _native.active_isa()
    with pytest.raises(RuntimeError, match=f'isa: expected an ISA that this CPU has .{", ".join(ISAS)}., got "sse9"'):
        _native.force_isa("sse9")
    assert _native.active_isa() == active
