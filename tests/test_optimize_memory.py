"""The memory that optimize takes and gives back, each in a process of its own: what others left is not ours."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from paths import binding_of
from small_models import small
from squeezebert_kernels import optimize
from squeezebert_kernels.packed import _return_memory

IDS = torch.arange(1, 19).view(2, 9)
BASE = {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12}

pytestmark = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads Linux's /proc")


def status(field: str) -> int:
    """VmRSS, VmHWM: bytes that this process has, or had at most, in memory."""
    return int(re.search(rf"{field}:\s+(\d+)", Path("/proc/self/status").read_text()).group(1)) * 1024


def optimized(release: bool) -> None:
    """Prints how much the peak grows, and the bytes of the packed weights."""
    model = small("BertModel", **BASE, num_hidden_layers=12)
    with torch.no_grad():
        model(IDS)
    before = status("VmHWM")
    optimize(model, release_weights=release)
    print(status("VmHWM") - before, binding_of(model).packed.buffer.nbytes)


def released() -> None:
    """Prints what release frees, what is missing once the weights are back, and the bytes of the packed ones."""
    model = small("SqueezeBertModel", **BASE, embedding_size=768, num_hidden_layers=6)
    optimize(model)
    packed = binding_of(model).packed
    _return_memory()  # of making the model
    before = status("VmRSS")
    packed.release()
    freed = before - status("VmRSS")
    packed.give_back()
    print(freed, before - status("VmRSS"), packed.buffer.nbytes)


def printed(call: str) -> list[int]:
    """The numbers that a call of one of these prints in a new process."""
    command = [sys.executable, "-c", f"import {Path(__file__).stem} as here; here.{call}"]
    run = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, timeout=120, check=False)
    assert run.returncode == 0, run.stderr
    return list(map(int, run.stdout.split()))


@pytest.mark.parametrize("release", [False, True])
def test_memory_of_optimize(release: bool) -> None:
    """At its peak hardly more than the packed weights, beside the model."""
    grown, packed = printed(f"optimized({release})")
    assert grown < 1.1 * packed


def test_released_weights_take_no_memory() -> None:
    freed, missing, packed = printed("released()")
    assert freed > 0.8 * packed
    assert missing < 0.2 * packed
