"""Ids outside their table in an optimized model: NaN at once, and an IndexError soon, without the call waiting."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from kernel_testing import DEVICE
from model_testing import MASKS, NUMPY_WARNINGS, inputs, small
from squeezebert_kernels import optimize
from squeezebert_kernels.triton import forward

pytestmark = [NUMPY_WARNINGS, pytest.mark.usefixtures("optimize_here")]
LATER = r".* in an earlier call, whose output is NaN there \(CUDA_LAUNCH_BLOCKING=1 tells at once\)"


def wait() -> None:
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()


def bad(name: str, value: int, mask: str = "none") -> dict[str, Tensor]:
    """A request with one id outside its table, in its second sequence."""
    given = inputs(MASKS[mask])
    given.setdefault(name, torch.arange(9, device=DEVICE).expand(3, 9).clone())
    given[name][1, 3] = value
    return given


@pytest.mark.parametrize(
    ("name", "value", "rows"), [("input_ids", 61, 61), ("input_ids", -1, 61), ("position_ids", 24, 24)]
)
@pytest.mark.parametrize("mask", ["none", "right", "left"])
@torch.no_grad()
def test_the_next_call_says_it_and_the_one_after_is_well(name: str, value: int, rows: int, mask: str) -> None:
    model, good = optimize(small("SqueezeBertModel")), inputs(MASKS[mask])
    expected = model(**good).last_hidden_state
    hidden = model(**bad(name, value, mask)).last_hidden_state
    wait()
    assert hidden[1].isnan().any()
    assert not hidden[[0, 2]].isnan().any()
    with pytest.raises(IndexError, match=f"{name}: expected ids from 0 to {rows - 1}, got {value}{LATER}"):
        model(**good)
    for _ in range(2):
        assert torch.equal(model(**good).last_hidden_state, expected)


@torch.no_grad()
def test_types_too() -> None:
    model = optimize(small("SqueezeBertModel"))
    model(**bad("token_type_ids", 2**40))
    wait()
    with pytest.raises(IndexError, match=f"token_type_ids: expected ids from 0 to 1, got {2**40}{LATER}"):
        model(**inputs(None))


@torch.no_grad()
def test_a_smaller_request_does_not_answer_for_what_a_larger_one_left_behind() -> None:
    """In the same bucket, the rows beyond the smaller request's own still hold the bad id."""
    model = optimize(small("SqueezeBertModel"))
    small_request = {name: value[:1, :8] for name, value in inputs(None).items()}
    bad_request = {name: value[:1] for name, value in inputs(None).items()}
    bad_request["input_ids"][0, 8] = 61
    model(**bad_request)
    wait()
    with pytest.raises(IndexError):
        model(**small_request)
    for _ in range(3):
        assert model(**small_request).last_hidden_state.isfinite().all()
        wait()


@torch.no_grad()
def test_launch_blocking_raises_in_the_call_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    model, good = optimize(small("SqueezeBertModel")), inputs(None)
    monkeypatch.setenv("CUDA_LAUNCH_BLOCKING", "1")
    with pytest.raises(IndexError, match=r"input_ids: expected ids from 0 to 60, got 99 in this call$"):
        model(**bad("input_ids", 99))
    assert model(**good).last_hidden_state.isfinite().all()


@pytest.mark.skipif(DEVICE.type == "cuda", reason="of a capture that only pretends")
@torch.no_grad()
def test_in_somebody_elses_capture_there_is_nan_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    model, good = optimize(small("SqueezeBertModel")), inputs(None)
    with monkeypatch.context() as capture:
        capture.setattr(forward, "_is_capturing", lambda device: True)
        assert model(**bad("input_ids", 61)).last_hidden_state[1].isnan().all()
    assert model(**good).last_hidden_state.isfinite().all()
