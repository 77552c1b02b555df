"""Weights that change after optimize are noticed; released ones are given back; copies are models of their own."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from paths import kernels, restored
from small_models import layers_of, padding_mask, query_of, randomize, small
from squeezebert_kernels import _native, optimize, refresh, restore
from tolerances import REFERENCE_PARITY

CLOSE = REFERENCE_PARITY[torch.float32]
BASES = ["SqueezeBertModel", "BertModel"]
IDS = torch.arange(1, 19).view(2, 9)
MASK = padding_mask([9, 4], 9)


def query(model: Any) -> Any:
    return query_of(layers_of(model)[1])


def optimizer_step(model: Any) -> None:
    parameters = [parameter for key, parameter in model.named_parameters() if "query" in key]
    for parameter in parameters:
        parameter.grad = torch.ones_like(parameter)
    torch.optim.SGD(parameters, lr=0.1).step()


def load_state_dict(model: Any, assign: bool = False) -> None:
    state = {key: value * 1.1 if "query" in key else value.clone() for key, value in model.state_dict().items()}
    model.load_state_dict(state, assign=assign)


def assign_state_dict(model: Any) -> None:
    load_state_dict(model, assign=True)


def assign_data(model: Any) -> None:
    query(model).weight.data = query(model).weight.data * 2


def write_one_element(model: Any) -> None:
    query(model).weight[1, 5] += 1.0


def write_through_data(model: Any) -> None:
    query(model).weight.data.mul_(0.9)
    refresh(model)


def write_through_numpy(model: Any) -> None:
    query(model).weight.detach().numpy()[...] *= 0.9
    refresh(model)


def new_parameter(model: Any) -> None:
    query(model).weight = nn.Parameter(query(model).weight.detach() * 2)


def new_bias(model: Any) -> None:
    query(model).bias = nn.Parameter(query(model).bias.detach() * 2)


def new_module(model: Any) -> None:
    layer = layers_of(model)[1]
    owner = layer.attention if hasattr(layer.attention, "query") else layer.attention.self
    owner.query = copy.deepcopy(owner.query)
    owner.query.weight.data *= 2


def new_layer(model: Any) -> None:
    layers_of(model)[0] = copy.deepcopy(layers_of(model)[1])


def fewer_layers(model: Any) -> None:
    del layers_of(model)[0]


def more_layers(model: Any) -> None:
    layers_of(model).append(copy.deepcopy(layers_of(model)[0]))


def new_epsilon(model: Any) -> None:
    for module in model.modules():
        if isinstance(module, nn.LayerNorm):
            module.eps = 0.5


def new_word_embeddings(model: Any) -> None:
    model.set_input_embeddings(nn.Embedding(70, 48))


def pooler_weight(model: Any) -> None:
    model.pooler.dense.weight.mul_(2.0)


CHANGES = [
    optimizer_step,
    load_state_dict,
    assign_state_dict,
    randomize,
    assign_data,
    write_one_element,
    write_through_data,
    write_through_numpy,
    new_parameter,
    new_bias,
    new_module,
    new_layer,
    fewer_layers,
    more_layers,
    new_epsilon,
    new_word_embeddings,
    pooler_weight,
]


# Those that neither read a released weight nor write into it.
CHANGES_OF_RELEASED = [
    load_state_dict,
    assign_state_dict,
    new_bias,
    fewer_layers,
    new_epsilon,
    new_word_embeddings,
]
CASES = [(change, False) for change in CHANGES] + [(change, True) for change in CHANGES_OF_RELEASED]


@pytest.mark.parametrize(("change", "release"), CASES)
@pytest.mark.parametrize("name", BASES)
@torch.no_grad()
def test_changed_weights_are_noticed(name: str, release: bool, change: Callable[[Any], None]) -> None:
    model = small(name)
    optimize(model, release_weights=release)
    before = model(IDS, attention_mask=MASK)
    change(model)
    with kernels():
        after = model(IDS, attention_mask=MASK)
    assert not torch.equal(after.pooler_output, before.pooler_output)
    assert not query_of(layers_of(model)[-1]).weight.isnan().any()
    expected = restore(model)(IDS, attention_mask=MASK)
    torch.testing.assert_close(after.pooler_output, expected.pooler_output, **CLOSE)
    real = MASK.bool()
    torch.testing.assert_close(after.last_hidden_state[real], expected.last_hidden_state[real], **CLOSE)


@torch.no_grad()
def test_another_instruction_set() -> None:
    """Weights are packed for one; when another is forced, they are packed for that."""
    model = optimize(small("SqueezeBertModel"))
    expected = model(IDS).last_hidden_state
    before = _native.active_isa()
    try:
        _native.force_isa("scalar")
        with kernels():
            torch.testing.assert_close(model(IDS).last_hidden_state, expected, **CLOSE)
    finally:
        _native.force_isa(before)
    assert torch.equal(model(IDS).last_hidden_state, expected)


@torch.inference_mode()
def test_weights_made_in_inference_mode() -> None:
    """They count no writes: refresh notices."""
    model = small("SqueezeBertModel")
    model.load_state_dict({key: value.clone() for key, value in model.state_dict().items()}, assign=True)
    assert query(model).weight.is_inference()
    optimize(model)
    before = model(IDS).last_hidden_state
    query(model).weight.mul_(1.5)
    refresh(model)
    with kernels():
        after = model(IDS).last_hidden_state
    assert not torch.equal(before, after)
    torch.testing.assert_close(after, restore(model)(IDS).last_hidden_state, **CLOSE)


@pytest.mark.parametrize("name", BASES)
@torch.no_grad()
def test_unusual_weights(name: str) -> None:
    """Not contiguous, or one parameter in two places."""
    model = small(name)
    weight = query(model).weight
    weight.data = weight.data.transpose(0, 1).contiguous().transpose(0, 1)
    query_of(layers_of(model)[0]).weight = weight
    expected = model(IDS).last_hidden_state
    optimize(model)
    with kernels():
        torch.testing.assert_close(model(IDS).last_hidden_state, expected, **CLOSE)
    weight.mul_(2.0)
    with kernels():
        after = model(IDS).last_hidden_state
    torch.testing.assert_close(after, restore(model)(IDS).last_hidden_state, **CLOSE)


@pytest.mark.parametrize("name", BASES)
@torch.no_grad()
def test_functional_call_uses_the_weights_it_is_given(name: str) -> None:
    model = optimize(small(name))
    other = {key: value * 1.1 for key, value in model.named_parameters()}
    changed = torch.func.functional_call(model, other, (IDS,)).last_hidden_state
    same = model(IDS).last_hidden_state
    restore(model)
    torch.testing.assert_close(changed, torch.func.functional_call(model, other, (IDS,)).last_hidden_state, **CLOSE)
    torch.testing.assert_close(same, model(IDS).last_hidden_state, **CLOSE)


@pytest.mark.parametrize("name", ["SqueezeBertForSequenceClassification", "BertForMaskedLM"])
@pytest.mark.parametrize("way", ["deepcopy", "pickle", "torch.save"])
@torch.no_grad()
def test_copies_are_models_of_their_own(name: str, way: str) -> None:
    model = optimize(small(name))
    expected = model(IDS).logits
    if way == "deepcopy":
        twin = copy.deepcopy(model)
    elif way == "pickle":
        twin = pickle.loads(pickle.dumps(model))
    else:
        file = io.BytesIO()
        torch.save(model, file)
        file.seek(0)
        twin = torch.load(file, weights_only=False)
    with kernels():
        assert torch.equal(twin(IDS).logits, expected)
    randomize(twin)
    with kernels():
        assert not torch.equal(twin(IDS).logits, expected)
        assert torch.equal(model(IDS).logits, expected)
    restore(twin)
    with kernels():
        assert torch.equal(model(IDS).logits, expected)


@pytest.mark.parametrize("name", ["SqueezeBertForMaskedLM", "BertForSequenceClassification"])
@torch.no_grad()
def test_released_weights(name: str, tmp_path: Any) -> None:
    model = small(name)
    state = {key: value.clone() for key, value in model.state_dict().items()}
    expected = model(IDS, attention_mask=MASK).logits
    optimize(model, release_weights=True)

    weight = query(model.base_model).weight
    assert weight.untyped_storage().nbytes() == 4
    assert weight.isnan().all()
    assert weight.shape == state[next(key for key in state if key.endswith("query.weight"))].shape
    with kernels():
        logits = model(IDS, attention_mask=MASK).logits
    real = MASK.bool() if logits.dim() == 3 else slice(None)
    torch.testing.assert_close(logits[real], expected[real], **CLOSE)

    released = model.state_dict()
    assert list(released) == list(state)
    assert all(torch.equal(released[key], state[key]) for key in state)
    model.save_pretrained(tmp_path)
    reloaded = type(model).from_pretrained(tmp_path)
    assert all(torch.equal(value, state[key]) for key, value in reloaded.state_dict().items())

    with pytest.raises(RuntimeError, match=r"needs them \(output_hidden_states\): call restore\(model\) first"):
        model(IDS, output_hidden_states=True)
    assert weight.untyped_storage().nbytes() == 4

    restore(model)
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    assert torch.equal(model(IDS, attention_mask=MASK).logits, expected)


def test_released_weights_refuse_what_would_read_them() -> None:
    model = optimize(small("SqueezeBertModel"), release_weights=True)
    model.train()
    with pytest.raises(RuntimeError, match=r"\(training mode\): call restore\(model\) first"):
        model(IDS)
    model.eval()
    with pytest.raises(RuntimeError, match=r"\(gradients are wanted.*\): call restore\(model\) first"):
        model(IDS)
    model.encoder.double()
    with torch.no_grad(), pytest.raises(RuntimeError, match=r"was moved or converted; call restore\(model\) before"):
        model(IDS)


@torch.no_grad()
def test_weights_that_cannot_be_released() -> None:
    model = small("BertModel")
    query(model).weight[3, 5] = torch.nan
    with pytest.raises(ValueError, match=r"encoder.layer.1.attention.self.query cannot be released"):
        optimize(model, release_weights=True)
    with restored():
        assert model(IDS).last_hidden_state.isnan().any()
    query(model).weight[3, 5] = 0.0
    assert not optimize(model, release_weights=True)(IDS).last_hidden_state.isnan().any()
