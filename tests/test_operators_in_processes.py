"""The operators beside threads, forks and instruction sets: what a host process does around them."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from op_testing import conv, layer_params, pack_params, randn, threads
from squeezebert_kernels import _native, ops

GROUPS = [4, 4, 4, 1, 4, 4]


@pytest.fixture
def restore_isa() -> Iterator[None]:
    yield
    _native.force_isa(None)


def test_python_threads_compute_at_the_same_time() -> None:
    """Each with its own context: the same bits as one after the other."""
    params = pack_params(layer_params(48, 96, GROUPS), GROUPS)
    inputs = [randn(1 + 7 * i, 48) for i in range(4)]
    expected = [ops.encoder(input, params, 4, GROUPS, 1e-12) for input in inputs]
    failures: list[int] = []

    def work(index: int) -> None:
        torch.set_num_threads(2)
        for _ in range(30):
            if not torch.equal(ops.encoder(inputs[index], params, 4, GROUPS, 1e-12), expected[index]):
                failures.append(index)

    workers = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert failures == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_forked_child_computes(count: int) -> None:
    """OpenMP's threads do not survive a fork, and nobody may wait for them. The child is given twenty seconds."""
    params = pack_params(layer_params(48, 96, GROUPS), GROUPS)
    input = randn(64, 48)
    with threads(count):
        expected = ops.encoder(input, params, 4, GROUPS, 1e-12)
        child = os.fork()
        if child == 0:
            same = torch.equal(ops.encoder(input, params, 4, GROUPS, 1e-12), expected)
            os._exit(0 if same else 1)
        deadline = time.monotonic() + 20.0
        finished, status = os.waitpid(child, os.WNOHANG)
        while not finished and time.monotonic() < deadline:
            time.sleep(0.01)
            finished, status = os.waitpid(child, os.WNOHANG)
        if not finished:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        assert finished, "the child hangs"
        assert os.waitstatus_to_exitcode(status) == 0
        assert torch.equal(ops.encoder(input, params, 4, GROUPS, 1e-12), expected)  # and the parent goes on


def test_every_isa_computes(restore_isa: None) -> None:
    params = layer_params(48, 96, GROUPS)
    input = randn(2, 9, 48)
    outputs = []
    for isa in _native.isas():
        _native.force_isa(isa)
        outputs.append(ops.encoder(input, params, 4, GROUPS, 1e-12))
    for output in outputs[1:]:
        torch.testing.assert_close(output, outputs[0])


def test_weights_packed_for_another_isa_are_refused(restore_isa: None) -> None:
    if len(_native.isas()) < 2:
        pytest.skip("one instruction set here")
    best, other = _native.isas()[0], _native.isas()[-1]
    weight, bias = conv(20, 24, 2)
    input = randn(3, 24)
    _native.force_isa(best)
    packed = ops.pack_grouped_conv1x1(weight, 2)
    expected = ops.grouped_conv1x1(input, packed, bias, 2)
    _native.force_isa(other)
    message = "squeezebert::grouped_conv1x1: weight: expected a weight packed by pack_grouped_conv1x1 or "
    with pytest.raises(ValueError, match=rf"{re.escape(message)}.*{other}"):
        ops.grouped_conv1x1(input, packed, bias, 2)
    _native.force_isa(best)
    assert torch.equal(ops.grouped_conv1x1(input, packed, bias, 2), expected)


def test_an_isa_that_does_not_exist_is_an_error_and_no_crash() -> None:
    program = (
        "import torch; from squeezebert_kernels import ops\n"
        "try: ops.grouped_conv1x1(torch.ones(3, 8), torch.ones(8, 8), None, 1)\n"
        "except RuntimeError as error: print(error)"
    )
    environment = {**os.environ, "SQUEEZEBERT_FORCE_ISA": "sse9", "PYTHONPATH": os.pathsep.join(sys.path)}
    result = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("squeezebert::grouped_conv1x1: ")
    assert "sse9" in result.stdout
    assert _native.isas()[-1] in result.stdout


def test_a_users_own_python_ref_shadows_nothing(tmp_path: Path) -> None:
    """Inference, gradients and a model's original path need no module of that name."""
    (tmp_path / "python_ref.py").write_text("raise RuntimeError('a module of the user')\n")
    program = (
        "import sys, torch, squeezebert_kernels as s\n"
        "weight = torch.ones(8, 8, requires_grad=True)\n"
        "s.ops.grouped_conv1x1(torch.ones(3, 8), weight, None, 1).sum().backward()\n"
        "config = s.SqueezeBertConfig(vocab_size=9, hidden_size=8, embedding_size=8, num_attention_heads=2,\n"
        "    num_hidden_layers=1, intermediate_size=16, max_position_embeddings=8)\n"
        "model, ids = s.SqueezeBertModel(config), torch.ones(1, 3, dtype=torch.long)\n"
        "model(ids).pooler_output.sum().backward()\n"
        "with torch.no_grad(): model.eval()(ids)\n"
        "print(weight.grad.sum().item(), 'python_ref' in sys.modules)"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    result = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert result.stdout.split() == ["192.0", "False"], result.stderr
