"""An optimized model is of a subclass of its class: wrappers, copies and the garbage collector know no difference."""

from __future__ import annotations

import copy
import functools
import gc
import inspect
import pickle
import types
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from paths import kernels, original, restored
from small_models import config_for, padding_mask, small
from squeezebert_kernels import explain, optimize, restore
from tolerances import REFERENCE_PARITY

CLOSE = REFERENCE_PARITY[torch.float32]
BASES = ["SqueezeBertModel", "BertModel"]
HEADS = ["SqueezeBertForSequenceClassification", "BertForSequenceClassification"]
IDS = torch.arange(1, 19).view(2, 9)
MASK = padding_mask([9, 4], 9)


@pytest.mark.parametrize("name", BASES + HEADS)
@torch.no_grad()
def test_freed_without_the_garbage_collector(name: str) -> None:
    """Called, restored or neither: no cycle keeps a model, nor its packed weights."""
    plain = small(name)
    if _outlives(plain):
        pytest.skip("transformers' own model is in a cycle")
    del plain
    for undo in (lambda model: None, restore):
        model = optimize(small(name))
        model(IDS, attention_mask=MASK)
        undo(model)
        gc.collect()
        gc.disable()
        try:
            alive = weakref.ref(model)
            del model
            assert alive() is None
        finally:
            gc.enable()


def _outlives(model: Any) -> bool:
    model(IDS)
    return any(model is thing for thing in gc.get_referrers(model) if not inspect.isframe(thing))


@pytest.mark.parametrize("name", BASES + HEADS)
@torch.no_grad()
def test_wrapped_as_accelerate_wraps(name: str) -> None:
    """accelerate.Accelerator.prepare_model and unwrap_model bind functions to the instance, and take them off."""
    model = optimize(small(name))
    expected = model(IDS)[0]
    model._original_forward = model.forward
    wrapped = _passing_on(model.forward.__func__)
    model.forward = types.MethodType(wrapped, model)
    with kernels():
        assert torch.equal(model(IDS)[0], expected)
    forward, first = model.forward, model.__dict__.pop("_original_forward")
    while hasattr(forward, "__wrapped__"):
        forward = forward.__wrapped__
        if forward == first:
            break
    model.forward = types.MethodType(forward, model)
    with kernels():
        assert torch.equal(model(IDS)[0], expected)
    restore(model)
    with restored():
        torch.testing.assert_close(model(IDS)[0], expected, **CLOSE)


def _passing_on(function: Callable[..., Any]) -> Callable[..., Any]:
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    wrapper.__wrapped__ = function  # type: ignore[attr-defined]
    return wrapper


@pytest.mark.parametrize("name", BASES + HEADS)
@torch.no_grad()
def test_hooked_as_accelerate_dispatches(name: str) -> None:
    """accelerate.add_hook_to_module, which binds a partial to the instance; deepcopy and restore afterwards."""
    model = optimize(small(name))
    expected = model(IDS)[0]
    model._old_forward = model.forward
    model.forward = functools.update_wrapper(functools.partial(_hooked_forward, model), model.forward)
    with kernels():
        assert torch.equal(model(IDS)[0], expected)
    with kernels():
        assert torch.equal(copy.deepcopy(model)(IDS)[0], expected)
    restore(model)
    with restored():
        torch.testing.assert_close(model(IDS)[0], expected, **CLOSE)


def _hooked_forward(module: Any, *args: Any, **kwargs: Any) -> Any:
    return module._old_forward(*args, **kwargs)


@pytest.mark.parametrize("name", BASES + HEADS)
@torch.no_grad()
def test_replicas_and_their_own_modules(name: str) -> None:
    """nn.DataParallel makes replicas so; on one device they share their parameters."""
    model = optimize(small(name))
    expected = model(IDS, attention_mask=MASK)[0]
    (replica,) = nn.parallel.replicate(model, ["cpu"], detach=True) if torch.cuda.is_available() else (_replica(model),)
    assert torch.equal(replica(IDS, attention_mask=MASK)[0], expected)


def _replica(module: Any) -> Any:
    replica = module._replicate_for_data_parallel()
    for name, child in module._modules.items():
        replica._modules[name] = None if child is None else _replica(child)
    for name, value in [*module._parameters.items(), *module._buffers.items()]:
        setattr(replica, name, None if value is None else value.detach())
    return replica


@pytest.mark.parametrize("name", BASES + HEADS)
def test_classes_are_what_they_were(name: str) -> None:
    model = small(name)
    kind, signature = type(model), inspect.signature(model.forward)
    optimize(model)
    assert isinstance(model, kind)
    assert type(model).__name__ == kind.__name__
    assert type(model).__module__ == kind.__module__
    assert inspect.signature(model.forward) == signature
    assert type(optimize(small(name))) is type(model)
    assert type(pickle.loads(pickle.dumps(model))) is type(model)
    assert type(copy.copy(model)) is type(model)
    assert type(restore(copy.deepcopy(model))) is kind


@torch.no_grad()
def test_user_classes() -> None:
    """A subclass of a model keeps its own methods; one that has another forward is left alone."""
    transformers = pytest.importorskip("transformers")

    class Mine(transformers.BertForSequenceClassification):
        def first(self) -> Any:
            return super().forward(IDS).logits

    class Other(transformers.BertForSequenceClassification):
        def forward(self, *args: Any, **kwargs: Any) -> Any:
            return self.bert(*args, **kwargs).last_hidden_state

    mine, other = optimize(Mine(config_for("BertModel")).eval()), optimize(Other(config_for("BertModel")).eval())
    with kernels():
        assert torch.equal(mine.first(), mine(IDS).logits)
        assert other(IDS).shape == (2, 9, 48)


def test_typed() -> None:
    model: Any = small("BertModel")
    assert optimize(model) is model
    assert restore(model) is model


@torch.no_grad()
def test_explained() -> None:
    model = small("BertForSequenceClassification")
    assert str(explain(model)) == "BertModel: the original path: it is not optimized"
    optimize(model)
    assert explain(model).served
    assert str(explain(model)).splitlines() == [
        "BertModel: the kernels",
        "  encoder.layer.0: the kernels",
        "  encoder.layer.1: the kernels",
    ]
    assert explain(model, input_ids=IDS, attention_mask=MASK).served
    asked = explain(model, input_ids=IDS, output_hidden_states=True)
    assert not asked.served
    assert str(asked).startswith("BertModel: the original path: output_hidden_states")


@torch.no_grad()
def test_the_first_declined_call_warns(recwarn: pytest.WarningsRecorder) -> None:
    model = optimize(small("BertForSequenceClassification"))
    model.train()
    model(IDS)
    assert not recwarn.list  # that is what training mode is for
    model.eval()
    with pytest.warns(
        UserWarning, match=r"an optimized BertModel took its original, slower path: output_hidden_states"
    ):
        model(IDS, output_hidden_states=True)
    recwarn.clear()
    with original("output_hidden_states"):
        model(IDS, output_hidden_states=True)
    assert not recwarn.list
