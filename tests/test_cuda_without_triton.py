"""Where Triton is missing: importing works, and CUDA tensors meet an error that says what to install."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

import squeezebert_kernels.ops  # noqa: F401  (registers torch.ops.squeezebert)
from squeezebert_kernels.triton import packed_format, registration
from squeezebert_kernels.triton.registration import MODULES

PROGRAM = """
import sys
sys.modules["triton"] = None  # as if it were not installed
import torch
import squeezebert_kernels.ops
from squeezebert_kernels.triton.registration import MODULES, operator
for name in MODULES:
    if MODULES[name] == "pack":
        operator(name)  # needs none
        continue
    try:
        operator(name)
    except RuntimeError as error:
        assert f"squeezebert::{name}: expected Triton" in str(error), error
        assert "pip install 'squeezebert_kernels[gpu]'" in str(error), error
    else:
        raise AssertionError(name)
print("ok")
"""


def test_without_triton() -> None:
    result = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True)
    assert result.stdout == "ok\n", result.stderr


def test_importing_the_package_does_not_import_triton() -> None:
    program = "import sys, squeezebert_kernels.ops; print('triton' in sys.modules)"
    without = "import sys, torch; print('triton' in sys.modules)"
    ours = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    theirs = subprocess.run([sys.executable, "-c", without], capture_output=True, text=True, check=True)
    assert ours.stdout == theirs.stdout


def test_every_operator_is_registered_for_cuda() -> None:
    for name in MODULES:
        assert torch._C._dispatch_has_kernel_for_dispatch_key(f"squeezebert::{name}", "CUDA")
    for name in ("grouped_conv1x1", "encoder"):
        assert torch._C._dispatch_has_kernel_for_dispatch_key(f"squeezebert::{name}", "AutocastCUDA")


def test_cuda_autocast_leaves_tensors_of_other_devices_alone() -> None:
    """The cast itself needs a GPU; that the call goes on to the kernels behind it does not."""
    input, weight = torch.randn(3, 8), torch.randn(8, 4)
    output = registration._autocast("grouped_conv1x1")(input, weight, None, 2)
    assert torch.equal(output, torch.ops.squeezebert.grouped_conv1x1(input, weight, None, 2))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_shapes_of_packed_weights_for_compilers(dtype: torch.dtype) -> None:
    with FakeTensorMode(allow_non_fake_inputs=True):
        taps, flat = (torch.empty(shape, dtype=dtype, device="cuda") for shape in ((8, 6, 3), (8, 6)))
        taps = torch.ops.squeezebert.pack_grouped_conv1d(taps, 2)
        as_dtype = torch.ops.squeezebert.pack_grouped_conv1x1(flat.float(), 2, dtype)
        flat = torch.ops.squeezebert.pack_grouped_conv1x1(flat, 2)
    row = packed_format.bytes_of(6, dtype)
    assert taps.shape == (8, 3, row)
    assert flat.shape == as_dtype.shape == (8, row)
    assert row % 64 == 0
    assert row >= 6 * dtype.itemsize
    assert len({packed_format.bytes_of(6, other) for other in (torch.float32, torch.float16, torch.bfloat16)}) == 3
