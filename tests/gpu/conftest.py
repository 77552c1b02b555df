"""Tests of the Triton kernels: on the GPU where there is one, else in Triton's interpreter (`make test` does that).

The interpreter has to be asked for before Triton is imported: TRITON_INTERPRET=1 pytest tests/gpu. Without it, and
without a GPU, nothing here is collected. Tests marked `gpu` need a GPU.
"""

from __future__ import annotations

import os

import pytest
import torch

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"

if not INTERPRETED and not torch.cuda.is_available():
    collect_ignore_glob = ["test_*.py"]


def pytest_report_header() -> str:
    if INTERPRETED:
        return "Triton kernels: in Triton's interpreter"
    if torch.cuda.is_available():
        return f"Triton kernels: on {torch.cuda.get_device_name()}"
    return "Triton kernels: not tested, PyTorch finds no GPU here; TRITON_INTERPRET=1 would interpret them"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if not INTERPRETED and torch.cuda.is_available():
        return
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason="needs a GPU"))


@pytest.fixture(autouse=True)
def _full_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch computes convolutions in tf32 on CUDA unless told not to; what we compare with is to be exact."""
    if torch.cuda.is_available():
        monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


@pytest.fixture
def optimize_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a GPU, `optimize` treats models on the CPU as if they were on CUDA, in Triton's interpreter."""
    if torch.cuda.is_available():
        return
    from squeezebert_kernels.integration import forward, optimize
    from squeezebert_kernels.triton.forward import CudaBinding

    class Interpreted(CudaBinding):
        device_type = "cpu"

    monkeypatch.setattr(optimize, "_is_on_cuda", lambda base: True)
    monkeypatch.setattr(forward, "_binding_on", lambda device: Interpreted)
