"""A pytest plugin for test_native.py where torch cannot be imported: PyTorch's wheel does not run on Armv8.0, say. The
NumPy functions need none of it.

    python -m pytest --noconftest -p without_torch tests/test_native.py

Tests that start a Python of their own are skipped: it would import torch.
"""

from __future__ import annotations

import importlib.util
import inspect
import sys
import types

import pytest

# The names that tolerances.py takes from torch; nothing computes with them.
_torch = types.ModuleType("torch")
_torch.Tensor, _torch.float32, _torch.float64 = object, "float32", "float64"  # type: ignore[attr-defined]
sys.modules["torch"] = _torch

# The package without its __init__.py, which registers the operators.
_package = importlib.util.module_from_spec(importlib.util.find_spec("squeezebert_kernels"))
sys.modules["squeezebert_kernels"] = _package
from squeezebert_kernels import numpy as kernels  # noqa: E402

_package.__version__ = kernels.version()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "fresh_process" in inspect.getsource(item.function):
            item.add_marker(pytest.mark.skip(reason="a fresh process would import torch"))
