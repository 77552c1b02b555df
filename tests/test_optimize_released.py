"""Released weights: given back for good where something needs them, never wrong without a word."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch

from paths import kernels, restored
from small_models import layers_of, query_of, randomize, small
from squeezebert_kernels import optimize, refresh, restore
from squeezebert_kernels.integration.classes import state_of
from squeezebert_kernels.integration.forward import original_class
from tolerances import REFERENCE_PARITY

CLOSE = REFERENCE_PARITY[torch.float32]
BASES = ["SqueezeBertModel", "BertModel"]
IDS = torch.arange(1, 19).view(2, 9)


@pytest.mark.parametrize("name", BASES)
@torch.no_grad()
def test_released_and_loaded(name: str) -> None:
    """What was loaded is what state_dict gives, before and after the next call."""
    model, other = optimize(small(name), release_weights=True), small(name)
    randomize(other)
    model.load_state_dict(other.state_dict())
    for _ in range(2):
        assert all(torch.equal(value, other.state_dict()[key]) for key, value in model.state_dict().items())
        with kernels():
            torch.testing.assert_close(model(IDS)[0], other(IDS)[0], **CLOSE)


@pytest.mark.parametrize("move", [lambda m: m.double(), lambda m: m.to(torch.bfloat16), lambda m: m.float()])
@torch.no_grad()
def test_released_and_moved(move: Callable[[Any], Any]) -> None:
    """The weights are back for good; a move that moves nothing leaves them released."""
    model, plain = optimize(small("BertModel"), release_weights=True), small("BertModel")
    plain.load_state_dict(model.state_dict())
    move(model)
    move(plain)
    weight = query_of(layers_of(model)[0]).weight
    assert weight.isnan().all() == (weight.dtype == torch.float32)
    assert all(torch.equal(value, plain.state_dict()[key]) for key, value in model.state_dict().items())
    model(IDS)


@pytest.mark.parametrize("third", [restore, optimize, lambda model: optimize(model, release_weights=True)])
def test_released_while_threads_call(third: Callable[[Any], Any]) -> None:
    model = optimize(small("BertModel"), release_weights=True)
    state = {key: value.clone() for key, value in model.state_dict().items()}
    done = threading.Event()
    wrong: list[Any] = []
    with torch.no_grad():
        expected = model(IDS).last_hidden_state

    @torch.no_grad()
    def call() -> None:
        while not done.is_set():
            if not torch.allclose(model(IDS).last_hidden_state, expected, **CLOSE):
                wrong.append(True)

    threads = [threading.Thread(target=call) for _ in range(2)]
    for thread in threads:
        thread.start()
    for _ in range(10):
        third(model)
    done.set()
    for thread in threads:
        thread.join()
    assert not wrong
    assert all(torch.equal(value, state[key]) for key, value in restore(model).state_dict().items())


@torch.no_grad()
def test_layers_shared_with_another_model_are_not_released() -> None:
    model, other = small("BertModel"), small("BertModel")
    other.encoder.layer[0] = model.encoder.layer[0]
    with pytest.raises(ValueError, match=r"release_weights: expected a BertModel whose modules are its own, got one"):
        optimize(model, release_weights=True)
    with restored():
        assert not model(IDS).last_hidden_state.isnan().any()
        assert not other(IDS).last_hidden_state.isnan().any()


@pytest.mark.parametrize("name", ["SqueezeBertForSequenceClassification", "BertForMaskedLM"])
@torch.no_grad()
def test_copies_of_released_models_have_their_weights(name: str) -> None:
    model = optimize(small(name), release_weights=True)
    twin = copy.deepcopy(model)
    assert not any(parameter.isnan().any() for parameter in twin.parameters())
    with kernels():
        assert torch.equal(twin(IDS).logits, model(IDS).logits)
    restore(twin)
    assert all(torch.equal(value, twin.state_dict()[key]) for key, value in model.state_dict().items())


def test_restored_in_inference_mode() -> None:
    model = optimize(small("BertModel"), release_weights=True)
    with torch.inference_mode():
        restore(model)
    model.train()(IDS).last_hidden_state.sum().backward()
    assert all(query_of(layer).weight.grad is not None for layer in layers_of(model))


@torch.no_grad()
def test_a_failed_optimize_changes_nothing() -> None:
    model = small("BertModel")
    weight = query_of(layers_of(model)[1]).weight
    value = weight[0, 0].clone()
    weight[0, 0] = torch.nan
    with pytest.raises(ValueError, match="cannot be released"):
        optimize(model, release_weights=True)
    weight[0, 0] = value
    with restored():
        model(IDS)
    optimize(model)
    with pytest.raises(ValueError, match="dtype"):
        optimize(model, dtype=torch.float64)
    with kernels():
        model(IDS)


@torch.no_grad()
def test_refreshed_while_released() -> None:
    model = optimize(small("BertModel"), release_weights=True)
    expected = model(IDS).last_hidden_state
    with kernels():
        assert torch.equal(refresh(model)(IDS).last_hidden_state, expected)


@torch.no_grad()
def test_a_call_on_its_way_when_the_model_was_optimized_again() -> None:
    """It was handed to the state that has been replaced, and finds the released weights gone."""
    model = optimize(small("BertModel"))
    expected, before = model(IDS).last_hidden_state, state_of(model)
    optimize(model, release_weights=True)
    assert torch.equal(before(model, original_class(model), (IDS,), {}).last_hidden_state, expected)
    with pytest.raises(RuntimeError, match=r"call restore\(model\) first"):
        before(model, original_class(model), (IDS,), {"output_hidden_states": True})
