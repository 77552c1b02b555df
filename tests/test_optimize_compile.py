"""An optimized model under torch.compile and torch.export: whole graphs, the same results, weights still watched."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from paths import kernels
from small_models import padding_mask, small
from squeezebert_kernels import optimize, restore
from tolerances import GRADIENT_PARITY, REFERENCE_PARITY

NAMES = ["SqueezeBertModel", "BertModel", "SqueezeBertForSequenceClassification", "BertForTokenClassification"]


def inputs(tokens: int) -> dict[str, torch.Tensor]:
    return {"input_ids": torch.randint(1, 61, (2, tokens)), "attention_mask": padding_mask([tokens, 4], tokens)}


def compiled(model: Any) -> Any:
    torch.compiler.reset()
    return torch.compile(model, fullgraph=True, dynamic=True, backend="aot_eager")


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_one_graph_serves_every_length_and_new_weights(name: str) -> None:
    model = optimize(small(name))
    graph = compiled(model)
    for tokens in (7, 9, 12):
        request = inputs(tokens)
        expected = model(**request)
        with kernels():
            result = graph(**request)
        assert type(result) is type(expected)
        assert all(torch.equal(result[key], expected[key]) for key in expected)
    next(weight for key, weight in model.named_parameters() if key.endswith("query.weight")).mul_(2.0)
    with kernels():
        changed = graph(**request)
    assert not torch.equal(changed[0], result[0])
    assert torch.equal(changed[0], model(**request)[0])


@pytest.mark.parametrize("name", ["SqueezeBertForTokenClassification", "BertForTokenClassification"])
@torch.no_grad()
def test_losses_count_padded_positions(name: str) -> None:
    model = optimize(small(name))
    request = {**inputs(9), "labels": torch.randint(0, 2, (2, 9))}
    expected = restore(model)(**request).loss
    torch.testing.assert_close(compiled(optimize(model))(**request).loss, expected, **REFERENCE_PARITY[torch.float32])


@pytest.mark.parametrize("name", ["SqueezeBertForSequenceClassification", "BertModel"])
@torch.no_grad()
def test_what_the_kernels_decline_at_run_time(name: str) -> None:
    """A fully masked sequence is only seen when the graph runs."""
    model = optimize(small(name))
    graph = compiled(model)
    request = inputs(9)
    graph(**request)
    request["attention_mask"][1] = 0
    result, expected = graph(**request), restore(model)(**request)
    assert all(torch.equal(result[key], expected[key]) for key in expected)


@pytest.mark.parametrize("name", ["SqueezeBertModel", "BertModel"])
def test_training(name: str) -> None:
    model = optimize(small(name, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)).train()
    request = inputs(9)
    graph = compiled(model)
    graph(**request).last_hidden_state.sum().backward()
    gradient = model.embeddings.word_embeddings.weight.grad.clone()
    model.zero_grad()
    restore(model)(**request).last_hidden_state.sum().backward()
    torch.testing.assert_close(model.embeddings.word_embeddings.weight.grad, gradient, **GRADIENT_PARITY)


@pytest.mark.parametrize("name", ["SqueezeBertModel", "BertForTokenClassification"])
@torch.no_grad()
def test_export_takes_the_original_path(name: str) -> None:
    """An exported program is to run without this library, so it holds PyTorch's own operators."""
    model = optimize(small(name))
    request = inputs(9)
    program = torch.export.export(model, (), request)
    assert not [node for node in program.graph.nodes if "squeezebert" in str(node.target)]
    expected = restore(model)(**request)[0]
    torch.testing.assert_close(program.module()(**request)[0], expected, **REFERENCE_PARITY[torch.float32])


@pytest.mark.parametrize("name", ["SqueezeBertModel", "BertModel"])
@pytest.mark.parametrize("way", ["argument", "config"])
@torch.no_grad()
def test_tuples(name: str, way: str) -> None:
    model = optimize(small(name))
    asked: dict[str, Any] = {"return_dict": False} if way == "argument" else {}
    if way == "config":
        model.config.return_dict = False
    request = {**inputs(9), **asked}
    expected = model(**request)
    assert isinstance(expected, tuple)
    with kernels():
        result = compiled(model)(**request)
    assert all(torch.equal(a, b) for a, b in zip(result, expected, strict=True))


@pytest.mark.parametrize("name", ["SqueezeBertForSequenceClassification", "BertForTokenClassification"])
@torch.no_grad()
def test_half_precision_checkpoints(name: str) -> None:
    model = optimize(small(name).to(torch.bfloat16))
    request = inputs(9)
    expected = model(**request).logits
    with kernels():
        assert torch.equal(compiled(model)(**request).logits, expected)
