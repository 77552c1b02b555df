"""A model that was changed in more than its weights, so that it computes something else, takes the original path."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from paths import original
from small_models import config_for, hf_model
from squeezebert_kernels import optimize, restore

IDS = torch.arange(1, 19).view(2, 9)


def other_positions(model: Any) -> None:
    model.embeddings.position_ids += 2


def other_types(model: Any) -> None:
    model.embeddings.token_type_ids.fill_(1)


def other_tanh(model: Any) -> None:
    model.pooler.activation = torch.nn.Identity()


def other_softmax(model: Any) -> None:
    model.encoder.layers[1].attention.softmax = torch.nn.Softsign()


def other_scaling(model: Any) -> None:
    model.encoder.layer[1].attention.self.scaling = 0.01


def other_heads(model: Any) -> None:
    """transformers' BERT reads the size of a head, and never the number of heads."""
    for layer in model.encoder.layer:
        layer.attention.self.num_attention_heads = 2


def causal(model: Any) -> None:
    model.encoder.layer[0].attention.self.is_causal = True


def other_attention(model: Any) -> None:
    from transformers import AttentionInterface

    def attend(module: Any, query: torch.Tensor, *args: Any, **kwargs: Any) -> tuple[torch.Tensor, None]:
        return query.transpose(1, 2), None

    AttentionInterface.register("queries", attend)
    model.set_attn_implementation("queries")


@pytest.mark.parametrize(
    ("name", "change", "reason"),
    [
        ("SqueezeBertModel", other_positions, "embeddings.position_ids"),
        ("BertModel", other_positions, "embeddings.position_ids"),
        ("BertModel", other_types, "embeddings.token_type_ids"),
        ("SqueezeBertModel", other_tanh, "pooler.activation is a Identity"),
        ("BertModel", other_tanh, "pooler.activation is a Identity"),
        ("SqueezeBertModel", other_softmax, "attention.softmax is a Softsign"),
        ("BertModel", other_scaling, "scores scaled by 0.01"),
        ("BertModel", other_heads, "2 heads of 12 channels"),
        ("BertModel", causal, "is_causal"),
        ("BertModel", other_attention, "_attn_implementation 'queries'"),
    ],
)
@pytest.mark.parametrize("early", [True, False])
@torch.no_grad()
def test_what_computes_something_else_is_noticed(
    name: str, change: Callable[[Any], None], reason: str, early: bool
) -> None:
    """Whether it changes before optimize or after."""
    model = hf_model(name, config_for(name))
    before = model(IDS).pooler_output
    if early:
        change(model)
        with pytest.warns(UserWarning, match=reason):
            optimize(model)
    else:
        optimize(model)(IDS)
        change(model)
    with original(reason):
        output = model(IDS)
    expected = restore(model)(IDS)
    assert torch.equal(output.last_hidden_state, expected.last_hidden_state)
    assert torch.equal(output.pooler_output, expected.pooler_output)
    if change is not other_heads:
        assert not torch.equal(expected.pooler_output, before)
