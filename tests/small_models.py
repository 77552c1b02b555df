"""Small SqueezeBERT and BERT models of transformers, with weights that leave no parameter without effect."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

# Group counts of query, key, value, post_attention, intermediate, output, for a hidden size of 48: the published
# model's, BERT's, all different (blocks that do not line up), and one channel per group.
GROUP_CONFIGURATIONS = {
    "published": (4, 4, 4, 1, 4, 4),
    "dense": (1, 1, 1, 1, 1, 1),
    "different": (2, 4, 1, 3, 6, 12),
    "depthwise": (48, 48, 48, 48, 48, 48),
}

GROUP_FIELDS = (
    "q_groups",
    "k_groups",
    "v_groups",
    "post_attention_groups",
    "intermediate_groups",
    "output_groups",
)


def hf_config(groups: str = "published", **fields: Any) -> Any:
    """A transformers SqueezeBertConfig of hidden size 48, 2 layers, 4 heads; skips the test without transformers."""
    transformers = pytest.importorskip("transformers")
    return transformers.SqueezeBertConfig(**{**small_fields(groups), **fields})


def small_fields(groups: str = "published") -> dict[str, Any]:
    """The fields of a SqueezeBertConfig of hidden size 48, 2 layers, 4 heads."""
    return {
        "vocab_size": 61,
        "hidden_size": 48,
        "embedding_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 96,
        "max_position_embeddings": 24,
        **dict(zip(GROUP_FIELDS, GROUP_CONFIGURATIONS[groups], strict=True)),
    }


def bert_config(**fields: Any) -> Any:
    """A transformers BertConfig of the same size; skips the test without transformers."""
    transformers = pytest.importorskip("transformers")
    small = {
        "vocab_size": 61,
        "hidden_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 96,
        "max_position_embeddings": 24,
    }
    return transformers.BertConfig(**{**small, **fields})


def config_for(name: str, **fields: Any) -> Any:
    """The config that transformers' class `name` takes."""
    return bert_config(**fields) if name.startswith("Bert") else hf_config(**fields)


def hf_model(name: str, config: Any, dtype: torch.dtype = torch.float32) -> Any:
    """transformers' class `name` in eval mode, randomized."""
    transformers = pytest.importorskip("transformers")
    model = getattr(transformers, name)(config)
    randomize(model)
    return model.to(dtype).eval()


def small(name: str, **fields: Any) -> Any:
    """transformers' class `name`, small."""
    return hf_model(name, config_for(name, **fields))


def layers_of(model: Any) -> Any:
    return model.encoder.layers if hasattr(model.encoder, "layers") else model.encoder.layer


def query_of(layer: Any) -> Any:
    return layer.attention.query if hasattr(layer.attention, "query") else layer.attention.self.query


def set_query(layer: Any, module: nn.Module) -> None:
    owner = layer.attention if hasattr(layer.attention, "query") else layer.attention.self
    owner.query = module


@torch.no_grad()
def randomize(module: nn.Module) -> None:
    """Draws every parameter: matrices so that activations keep order 1, biases and LayerNorm weights off 0 and 1."""
    for name, parameter in sorted(module.named_parameters()):
        if parameter.dim() > 1 and "embeddings" not in name:
            parameter.normal_(std=parameter[0].numel() ** -0.5)
        else:
            parameter.normal_(std=0.3)
            if name.lower().endswith("layernorm.weight"):
                parameter.add_(1.0)


def padding_mask(lengths: list[int], tokens: int) -> torch.Tensor:
    """int64 [len(lengths), tokens]: 1 for each sequence's first tokens, 0 for the padding behind them."""
    return (torch.arange(tokens) < torch.tensor(lengths).unsqueeze(1)).long()
