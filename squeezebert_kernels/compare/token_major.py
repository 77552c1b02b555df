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

from squeezebert_kernels.integration.architectures import FAMILIES, Family

# A config's model_type: where such a model of Hugging Face keeps its parts.
FAMILY_OF = {"squeezebert": FAMILIES[0], "bert": FAMILIES[1]}


class GroupedMatMul(nn.Module):
    """A Conv1d [out, in / groups, 1] or Linear [out, in] with its weight as [groups, in / groups, out / groups].

    One group's is [in, out]: quantizers look for a constant, not for a slice of one.
    """

    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.groups = getattr(layer, "groups", 1)
        blocks = layer.weight.detach().flatten(1).unflatten(0, (self.groups, -1)).transpose(1, 2)
        self.weight = nn.Parameter((blocks[0] if self.groups == 1 else blocks).contiguous())
        self.bias = nn.Parameter(layer.bias.detach().clone())

    def forward(self, tokens: Tensor) -> Tensor:
        if self.groups == 1:
            return tokens @ self.weight + self.bias
        sequences, length, channels = tokens.shape
        blocks = tokens.reshape(sequences * length, self.groups, channels // self.groups).transpose(0, 1)
        return (blocks @ self.weight).transpose(0, 1).reshape(sequences, length, -1) + self.bias


class Layer(nn.Module):
    """One encoder layer on [N, S, C]; `mask` is additive, [N, 1, 1, S]."""

    def __init__(self, source: nn.Module, family: Family, heads: int) -> None:
        super().__init__()
        linears = [GroupedMatMul(source.get_submodule(path)) for path in family.linears]
        norms = [_plain_layer_norm(source.get_submodule(path)) for path in family.norms]
        self.heads = heads
        self.query, self.key, self.value, self.post_attention, self.intermediate, self.output = linears
        self.post_attention_layer_norm, self.output_layer_norm = norms

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
        family = FAMILY_OF[model.config.model_type]
        heads = model.config.num_attention_heads
        layers = model.get_submodule(family.layers)
        self.embeddings = model.embeddings
        self.layers = nn.ModuleList([Layer(layer, family, heads) for layer in layers.children()])
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
