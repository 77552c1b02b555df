"""Weights that are written after optimize in unusual ways: noticed, or said to be unseen; packed in place."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from paths import binding_of, kernels, original
from small_models import layers_of, query_of, set_query, small
from squeezebert_kernels import optimize, refresh, restore
from squeezebert_kernels.packed import CHECK_VARIABLE
from tolerances import REFERENCE_PARITY

CLOSE = REFERENCE_PARITY[torch.float32]
BASES = ["SqueezeBertModel", "BertModel"]
IDS = torch.arange(1, 19).view(2, 9)


@pytest.mark.parametrize("name", BASES)
@torch.no_grad()
def test_writes_that_pytorch_does_not_count(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Heads zeroed through `.data`: refresh notices, and the check of every byte says who forgot to."""
    monkeypatch.setenv(CHECK_VARIABLE, "1")
    model = optimize(small(name))
    before = model(IDS).last_hidden_state
    query_of(layers_of(model)[1]).weight.data[:36] = 0
    with pytest.raises(
        RuntimeError, match=r"query: the weight was changed .*call squeezebert_kernels.refresh\(model\)"
    ):
        model(IDS)
    refresh(model)
    with kernels():
        after = model(IDS).last_hidden_state
    assert not torch.equal(after, before)
    torch.testing.assert_close(after, restore(model)(IDS).last_hidden_state, **CLOSE)


@pytest.mark.parametrize("name", BASES)
@torch.no_grad()
def test_an_address_that_comes_back(name: str) -> None:
    """A storage freed and its address used again for other values, between two calls."""
    model = optimize(small(name))
    weight = query_of(layers_of(model)[1]).weight
    before = model(IDS).last_hidden_state
    first = weight.data_ptr()
    for _ in range(8):
        weight.data = weight.data * 1.5
    assert weight.data_ptr() != first
    with kernels():
        assert not torch.equal(model(IDS).last_hidden_state, before)


@pytest.mark.parametrize("name", BASES)
@torch.no_grad()
def test_a_write_while_packing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another thread writes a weight just after it was packed: the next call packs it again."""
    model = optimize(small(name))
    weight = query_of(layers_of(model)[1]).weight
    packed = binding_of(model).packed
    pack = type(packed)._pack

    def interrupted(self: Any, indices: Any) -> None:
        pack(self, indices)
        weight.mul_(2.0)

    weight.mul_(1.5)
    with monkeypatch.context() as patch:
        patch.setattr(type(packed), "_pack", interrupted)
        model(IDS)
    with kernels():
        ours = model(IDS).last_hidden_state
    torch.testing.assert_close(ours, restore(model)(IDS).last_hidden_state, **CLOSE)


@pytest.mark.parametrize("name", BASES)
def test_trained_between_evaluations_in_inference_mode(name: str) -> None:
    """Packs first made in inference mode are written again outside of it."""
    model = small(name)
    with torch.inference_mode():
        first = optimize(model)(IDS).last_hidden_state
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model.train()(IDS).last_hidden_state.pow(2).mean().backward()
    optimizer.step()
    model.eval()
    with torch.no_grad(), kernels():
        second = model(IDS).last_hidden_state
    assert not torch.equal(first, second)
    with torch.no_grad():
        torch.testing.assert_close(second, restore(model)(IDS).last_hidden_state, **CLOSE)


@pytest.mark.parametrize("name", BASES)
@torch.no_grad()
def test_only_what_changed_is_packed_and_in_place(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = optimize(small(name))
    packed = binding_of(model).packed
    seen: list[int] = []
    values = type(packed)._values

    def counted(self: Any, index: int) -> Any:
        seen.append(index)
        return values(self, index)

    monkeypatch.setattr(type(packed), "_values", counted)
    query_of(layers_of(model)[1]).weight.mul_(2.0)
    model(IDS)
    assert len(seen) == 1
    seen.clear()
    set_query(layers_of(model)[0], copy.deepcopy(query_of(layers_of(model)[0])))
    with kernels():
        model(IDS)
    assert len(seen) == 1
    assert binding_of(model).packed.buffer is packed.buffer


@pytest.mark.parametrize("name", BASES)
@torch.no_grad()
def test_max_norm_set_afterwards(name: str) -> None:
    model = optimize(small(name))
    model(IDS)
    model.embeddings.word_embeddings.max_norm = 0.1
    with original("max_norm"):
        ours = model(IDS).last_hidden_state
    torch.testing.assert_close(ours, restore(model)(IDS).last_hidden_state, **CLOSE)
