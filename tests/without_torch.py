"""A pytest plugin for test_native.py where torch cannot be imported: it is not installed, or its wheel does not run on
this CPU (Armv8.0, say). The NumPy functions need none of it.

    python -m pytest --noconftest -p without_torch tests/test_native.py
"""

from __future__ import annotations

import os
import sys
import types

# Before anything else: this is what fails if the package wants torch. Fresh processes of the tests ask the same.
sys.modules["torch"] = None  # type: ignore[assignment]
os.environ["SQUEEZEBERT_TESTS_WITHOUT_TORCH"] = "1"
from squeezebert_kernels import numpy  # noqa: E402, F401

# The names that tolerances.py takes from torch; nothing computes with them.
_torch = types.ModuleType("torch")
_torch.Tensor, _torch.float32, _torch.float64 = object, "float32", "float64"  # type: ignore[attr-defined]
sys.modules["torch"] = _torch
