"""Where Triton is missing: importing works, and CUDA tensors meet an error that says what to install."""

from __future__ import annotations

import subprocess
import sys

import torch

from squeezebert_kernels.triton.registration import MODULES

PROGRAM = """
import sys
sys.modules["triton"] = None  # as if it were not installed
import torch
import squeezebert_kernels
from squeezebert_kernels.triton.registration import MODULES, operator
for name in MODULES:
    if name.startswith("pack"):
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
    program = "import sys, squeezebert_kernels; print('triton' in sys.modules)"
    without = "import sys, torch; print('triton' in sys.modules)"
    ours = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    theirs = subprocess.run([sys.executable, "-c", without], capture_output=True, text=True, check=True)
    assert ours.stdout == theirs.stdout


def test_every_operator_is_registered_for_cuda() -> None:
    for name in MODULES:
        assert torch._C._dispatch_has_kernel_for_dispatch_key(f"squeezebert::{name}", "CUDA")
    for name in ("grouped_conv1x1", "encoder"):
        assert torch._C._dispatch_has_kernel_for_dispatch_key(f"squeezebert::{name}", "AutocastCUDA")
