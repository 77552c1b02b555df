"""The encoder as nn.Modules: Hugging Face's parameter names over the functions of `ops.formulas`, token-major."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from ...ops import formulas
from ..activations import ACTIVATIONS
from ..config import BLOCK_LAYER_NORM_EPS, SqueezeBertConfig

# What a layer is asked to return beside its output; None is nothing.
Attentions = Literal["scores", "probabilities"] | None


class GroupedConv1x1(nn.Conv1d):
    """`ops.grouped_conv1x1` with the parameters of Hugging Face's nn.Conv1d: [..., in] -> [..., out]."""

    def __init__(self, in_channels: int, out_channels: int, groups: int) -> None:
        super().__init__(in_channels, out_channels, kernel_size=1, groups=groups)

    def forward(self, input: Tensor) -> Tensor:
        return formulas.grouped_conv1x1(input, self.weight, self.bias, self.groups)


class SqueezeBertSelfAttention(nn.Module):
    """Q, K and V projections, each with its own groups, and attention with dropout on its probabilities."""

    def __init__(self, config: SqueezeBertConfig) -> None:
        super().__init__()
        channels = config.hidden_size
        self.num_heads = config.num_attention_heads
        self.query = GroupedConv1x1(channels, channels, config.q_groups)
        self.key = GroupedConv1x1(channels, channels, config.k_groups)
        self.value = GroupedConv1x1(channels, channels, config.v_groups)
        self.dropout = nn.Dropout(config.attention_probs_dropout_prob)

    def forward(
        self, hidden_states: Tensor, mask: Tensor | None, attentions: Attentions
    ) -> tuple[Tensor, Tensor | None]:
        """[N, S, C], mask as `ops.attention` takes it -> the context [N, S, C], and what `attentions` asks for."""
        query, key, value = self.query(hidden_states), self.key(hidden_states), self.value(hidden_states)
        scores = formulas.attention_scores(query, key, self.num_heads, mask)
        probabilities = formulas.attention_probabilities(scores)
        context = self.dropout(probabilities) @ formulas.split_heads(value, self.num_heads)
        wanted = {None: None, "scores": scores, "probabilities": probabilities}[attentions]
        return formulas.merge_heads(context), wanted


class ConvDropoutLayerNorm(nn.Module):
    """layernorm(dropout(conv1d(x)) + residual): FFN1 (`post_attention`) and FFN3 (`output`)."""

    def __init__(self, in_channels: int, out_channels: int, groups: int, dropout: float) -> None:
        super().__init__()
        self.conv1d = GroupedConv1x1(in_channels, out_channels, groups)
        self.layernorm = nn.LayerNorm(out_channels, eps=BLOCK_LAYER_NORM_EPS)
        self.dropout = nn.Dropout(dropout)

    def forward(self, hidden_states: Tensor, residual: Tensor) -> Tensor:
        return self.layernorm(self.dropout(self.conv1d(hidden_states)) + residual)


class ConvActivation(nn.Module):
    """act(conv1d(x)): FFN2 (`intermediate`)."""

    def __init__(self, in_channels: int, out_channels: int, groups: int, activation: str) -> None:
        super().__init__()
        self.conv1d = GroupedConv1x1(in_channels, out_channels, groups)
        self.act = ACTIVATIONS[activation]

    def forward(self, hidden_states: Tensor) -> Tensor:
        return self.act(self.conv1d(hidden_states))


class SqueezeBertLayer(nn.Module):
    """One layer: attention, FFN1 with residual and LayerNorm, FFN2, FFN3 with residual and LayerNorm."""

    def __init__(self, config: SqueezeBertConfig) -> None:
        super().__init__()
        channels, inner, dropout = config.hidden_size, config.intermediate_size, config.hidden_dropout_prob
        self.attention = SqueezeBertSelfAttention(config)
        self.post_attention = ConvDropoutLayerNorm(channels, channels, config.post_attention_groups, dropout)
        self.intermediate = ConvActivation(channels, inner, config.intermediate_groups, config.hidden_act)
        self.output = ConvDropoutLayerNorm(inner, channels, config.output_groups, dropout)

    def forward(
        self, hidden_states: Tensor, mask: Tensor | None, attentions: Attentions
    ) -> tuple[Tensor, Tensor | None]:
        """[N, S, C] -> [N, S, C], and the attentions that were asked for."""
        context, wanted = self.attention(hidden_states, mask, attentions)
        attended = self.post_attention(context, hidden_states)
        return self.output(self.intermediate(attended), attended), wanted


class SqueezeBertEncoder(nn.Module):
    """The layers in turn."""

    def __init__(self, config: SqueezeBertConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(SqueezeBertLayer(config) for _ in range(config.num_hidden_layers))

    def forward(
        self, hidden_states: Tensor, mask: Tensor | None = None, attentions: Attentions = None
    ) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """[N, S, C] -> the input and every layer's output, and every layer's attentions (empty unless asked for)."""
        all_hidden_states: list[Tensor] = [hidden_states]
        all_attentions: list[Tensor] = []
        for layer in self.layers:
            hidden_states, wanted = layer(hidden_states, mask, attentions)
            all_hidden_states.append(hidden_states)
            if wanted is not None:
                all_attentions.append(wanted)
        return tuple(all_hidden_states), tuple(all_attentions)
