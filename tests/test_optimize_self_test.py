"""An optimized model is compared with its original before it serves; what is patched then, or later, is noticed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from paths import kernels, original
from small_models import layers_of, query_of, set_query, small
from squeezebert_kernels import optimize, restore

BASES = ["SqueezeBertModel", "BertModel"]
IDS = torch.arange(1, 19).view(2, 9)


def _twice(self: Any, hidden_states: Tensor, input_tensor: Tensor) -> Tensor:
    return type(self)._once(self, hidden_states, input_tensor) * 2.0


@contextmanager
def patched_block(monkeypatch: pytest.MonkeyPatch, model: Any) -> Iterator[None]:
    """The class of a block computes something else, as after `modeling_bert.BertSelfOutput.forward = mine`."""
    layer = layers_of(model)[0]
    kind = type(layer.output)
    with monkeypatch.context() as patch:
        patch.setattr(kind, "_once", kind.forward, raising=False)
        patch.setattr(kind, "forward", _twice)
        yield


@pytest.mark.parametrize("name", BASES)
@torch.no_grad()
def test_a_class_patched_before(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = small(name)
    with patched_block(monkeypatch, model):
        expected = model(IDS).last_hidden_state
        with pytest.warns(UserWarning, match=r"self-test: the kernels differ from the model by \d.*allowed"):
            optimize(model)
        with original("self-test"):
            assert torch.equal(model(IDS).last_hidden_state, expected)
    with kernels():
        model(IDS)


@pytest.mark.parametrize("name", BASES)
@torch.no_grad()
def test_a_class_patched_after(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = optimize(small(name))
    with patched_block(monkeypatch, model):
        with original("self-test"):
            patched = model(IDS).last_hidden_state
        assert torch.equal(patched, restore(model)(IDS).last_hidden_state)


@torch.no_grad()
def test_a_function_of_the_module_patched_after(monkeypatch: pytest.MonkeyPatch) -> None:
    model = optimize(small("BertModel"))
    modeling = pytest.importorskip("transformers.models.bert.modeling_bert")

    def chunked(function: Any, size: int, dim: int, hidden_states: Tensor) -> Tensor:
        return function(hidden_states) + 1.0

    monkeypatch.setattr(modeling, "apply_chunking_to_forward", chunked)
    with original("self-test"):
        assert torch.equal(model(IDS).last_hidden_state, restore(model)(IDS).last_hidden_state)


@pytest.mark.parametrize("name", BASES)
@torch.no_grad()
def test_a_block_of_another_class_after(name: str) -> None:
    model = optimize(small(name))
    block = layers_of(model)[1].output

    class Other(type(block)):  # type: ignore[misc]
        def forward(self, hidden_states: Tensor, input_tensor: Tensor) -> Tensor:
            return super().forward(hidden_states, input_tensor) + 1.0

    block.__class__ = Other
    with original("is a Other"):
        assert torch.equal(model(IDS).last_hidden_state, restore(model)(IDS).last_hidden_state)


@pytest.mark.parametrize("name", BASES)
def test_the_self_test_leaves_no_trace(name: str) -> None:
    """It calls no hook, draws no random number, and neither training mode nor gradients change."""
    model = small(name).train()
    called: list[Any] = []
    for module in model.modules():
        module.register_forward_hook(lambda *args: called.append(args))
        module.register_forward_pre_hook(lambda *args: called.append(args))
    handle = nn.modules.module.register_module_forward_hook(lambda *args: called.append(args))
    state = torch.get_rng_state()
    optimize(model)
    handle.remove()
    assert not called
    assert torch.equal(torch.get_rng_state(), state)
    assert all(module.training for module in model.modules())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in model.parameters())


@torch.no_grad()
def test_a_declined_model_is_not_tested_at_every_call(monkeypatch: pytest.MonkeyPatch) -> None:
    model = small("BertModel", hidden_act="relu")
    with pytest.warns(UserWarning, match="exact GELU"):
        optimize(model)
    monkeypatch.setattr("squeezebert_kernels.integration.reading.Reading.read", None)
    with original("exact GELU"):
        model(IDS)


@pytest.mark.parametrize("name", BASES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_optimized_in_training_mode(name: str, dtype: torch.dtype) -> None:
    """With a linear that drops out and has hooks: the self-test compares both paths without."""
    model = small(name)
    set_query(layers_of(model)[1], nn.Sequential(query_of(layers_of(model)[1]), nn.Dropout(0.5)))
    model.to(dtype).train()
    called: list[Any] = []
    query_of(layers_of(model)[1])[0].register_forward_hook(lambda *args: called.append(args))
    optimize(model)
    assert not called
    model.eval()
    with torch.no_grad(), kernels():
        model(IDS)
    assert called


@torch.no_grad()
def test_a_model_that_failed_the_self_test_is_tested_again_when_its_weights_change() -> None:
    model = small("BertModel")
    weight = query_of(layers_of(model)[1]).weight
    weight[3, 5] = torch.inf
    with pytest.warns(UserWarning, match="self-test"):
        optimize(model)
    weight[3, 5] = 0.1
    with kernels():
        model(IDS)
