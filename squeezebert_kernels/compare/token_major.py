"""The same model written the way graph runtimes like it best: batched matrix products on [tokens, channels].

A grouped 1x1 convolution becomes one batched product over its groups, [groups, tokens, in / groups] times
[groups, in / groups, out / groups], and nothing is ever turned into [sequences, channels, tokens] and back. This is
what somebody who knows OpenVINO would write before exporting, hence the strongest form in which to meet it (forms with
one product per group, and with Q, K, V in one product, were tried: OpenVINO runs none of them faster).
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Names of the same parts in Hugging Face's SqueezeBERT and BERT.
PARTS = {
    "squeezebert": {
        "query": "attention.query",
        "key": "attention.key",
        "value": "attention.value",
        "post_attention": "post_attention.conv1d",
        "post_attention_layer_norm": "post_attention.layernorm",
        "intermediate": "intermediate.conv1d",
        "output": "output.conv1d",
        "output_layer_norm": "output.layernorm",
    },
    "bert": {
        "query": "attention.self.query",
        "key": "attention.self.key",
        "value": "attention.self.value",
        "post_attention": "attention.output.dense",
        "post_attention_layer_norm": "attention.output.LayerNorm",
        "intermediate": "intermediate.dense",
        "output": "output.dense",
        "output_layer_norm": "output.LayerNorm",
    },
}


class GroupedMatMul(nn.Module):
    """A Conv1d [out, in / groups, 1] or Linear [out, in] with its weight as [groups, in / groups, out / groups]."""

    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.groups = getattr(layer, "groups", 1)
        blocks = layer.weight.detach().flatten(1).unflatten(0, (self.groups, -1)).transpose(1, 2)
        self.weight = nn.Parameter(blocks.contiguous())
        self.bias = nn.Parameter(layer.bias.detach().clone())

    def forward(self, tokens: Tensor) -> Tensor:
        if self.groups == 1:
            return tokens @ self.weight[0] + self.bias
        sequences, length, channels = tokens.shape
        blocks = tokens.reshape(sequences * length, self.groups, channels // self.groups).transpose(0, 1)
        return (blocks @ self.weight).transpose(0, 1).reshape(sequences, length, -1) + self.bias


class Layer(nn.Module):
    """One encoder layer on [N, S, C]; `mask` is additive, [N, 1, 1, S]."""

    def __init__(self, source: nn.Module, model_type: str, heads: int) -> None:
        super().__init__()
        part = {name: source.get_submodule(path) for name, path in PARTS[model_type].items()}
        self.heads = heads
        self.query = GroupedMatMul(part["query"])
        self.key = GroupedMatMul(part["key"])
        self.value = GroupedMatMul(part["value"])
        self.post_attention = GroupedMatMul(part["post_attention"])
        self.post_attention_layer_norm = _plain_layer_norm(part["post_attention_layer_norm"])
        self.intermediate = GroupedMatMul(part["intermediate"])
        self.output = GroupedMatMul(part["output"])
        self.output_layer_norm = _plain_layer_norm(part["output_layer_norm"])

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        query, key, value = (self._heads(layer(tokens)) for layer in (self.query, self.key, self.value))
        scores = query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1]) + mask
        context = (scores.softmax(-1) @ value).transpose(1, 2).flatten(2)
        tokens = self.post_attention_layer_norm(self.post_attention(context) + tokens)
        return self.output_layer_norm(self.output(F.gelu(self.intermediate(tokens))) + tokens)

    def _heads(self, tokens: Tensor) -> Tensor:
        return tokens.unflatten(-1, (self.heads, -1)).transpose(1, 2)


class TokenMajorModel(nn.Module):
    """Embeddings, encoder and pooler with copies of a Hugging Face model's weights; same two outputs."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        model_type = model.config.model_type
        layers = model.encoder.layers if model_type == "squeezebert" else model.encoder.layer
        self.embeddings = model.embeddings
        self.layers = nn.ModuleList([Layer(layer, model_type, model.config.num_attention_heads) for layer in layers])
        self.pooler = model.pooler

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
        tokens = self.embeddings(input_ids=input_ids, token_type_ids=torch.zeros_like(input_ids))
        mask = (1 - attention_mask[:, None, None, :].to(tokens.dtype)) * torch.finfo(tokens.dtype).min
        for layer in self.layers:
            tokens = layer(tokens, mask)
        return tokens, self.pooler(tokens)


def _plain_layer_norm(source: Any) -> nn.LayerNorm:
    """Hugging Face's SqueezeBertLayerNorm normalizes [N, C, S]; the same parameters on [N, S, C]."""
    layer_norm = nn.LayerNorm(source.normalized_shape, eps=source.eps)
    layer_norm.load_state_dict(source.state_dict())
    return layer_norm
