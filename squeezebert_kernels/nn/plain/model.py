"""SqueezeBertModel: embeddings, encoder and pooler, with Hugging Face's parameter names and forward arguments."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ...checks import check, check_tensor
from ..config import SqueezeBertConfig
from ..outputs import BaseModelOutput
from .embeddings import SqueezeBertEmbeddings, SqueezeBertPooler
from .encoder import Attentions, SqueezeBertEncoder


class SqueezeBertModel(nn.Module):
    """The bare model. Loads the state_dict of transformers' SqueezeBertModel as it is (strict=True)."""

    def __init__(self, config: SqueezeBertConfig) -> None:
        super().__init__()
        self.config = config
        self.embeddings = SqueezeBertEmbeddings(config)
        self.encoder = SqueezeBertEncoder(config)
        self.pooler = SqueezeBertPooler(config)
        initialize_weights(self, config)

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        output_attentions: bool | str | None = None,
        output_hidden_states: bool | None = None,
    ) -> BaseModelOutput:
        """Runs N sequences of S tokens.

        input_ids: integer [N, S], or in their place inputs_embeds: [N, S, C].
        attention_mask: [N, S], 0 where a token is padding (None: there is none), or a mask as `ops.attention` takes it:
        4-D, broadcastable to [N, heads, S, S].
        token_type_ids, position_ids: integer [N, S]; None means 0, and 0 to S - 1.
        output_attentions: True or "scores" for the masked scores before the softmax (what Hugging Face's SqueezeBERT
        calls attentions), or "probabilities". output_attentions and output_hidden_states: None takes the config's.
        """
        if output_attentions is None:
            output_attentions = self.config.output_attentions
        if output_hidden_states is None:
            output_hidden_states = self.config.output_hidden_states
        wanted = _wanted_attentions(output_attentions)
        embedded = self.embeddings(input_ids, token_type_ids, position_ids, inputs_embeds)
        mask = _encoder_mask(attention_mask, embedded)
        hidden_states, attentions = self.encoder(embedded, mask, wanted)
        return BaseModelOutput(
            last_hidden_state=hidden_states[-1],
            pooler_output=self.pooler(hidden_states[-1]),
            hidden_states=hidden_states if output_hidden_states else None,
            attentions=attentions if wanted is not None else None,
        )


def initialize_weights(module: nn.Module, config: SqueezeBertConfig) -> None:
    """BERT's initialization: weights normal with deviation `initializer_range`; biases and the padding row 0."""
    for child in module.modules():
        if isinstance(child, nn.Linear | nn.Conv1d | nn.Embedding):
            nn.init.normal_(child.weight, std=config.initializer_range)
        if isinstance(child, nn.Linear | nn.Conv1d) and child.bias is not None:
            nn.init.zeros_(child.bias)
        if isinstance(child, nn.Embedding) and child.padding_idx is not None:
            with torch.no_grad():
                child.weight[child.padding_idx] = 0.0


def _wanted_attentions(output_attentions: bool | str) -> Attentions:
    """What the argument output_attentions asks of the encoder."""
    if not output_attentions:
        return None
    if output_attentions is True or output_attentions == "scores":
        return "scores"
    if output_attentions == "probabilities":
        return "probabilities"
    raise ValueError(f"output_attentions: expected True, False, 'scores' or 'probabilities', got {output_attentions!r}")


def _encoder_mask(attention_mask: Tensor | None, embedded: Tensor) -> Tensor | None:
    """The mask for `ops.attention`: a padding mask [N, S] becomes boolean [N, 1, 1, S]; a 4-D one is taken as it is."""
    if attention_mask is None:
        return None
    check_tensor("attention_mask", attention_mask, " or None")
    if attention_mask.dim() == 4:
        check(
            attention_mask.dtype == torch.bool or attention_mask.is_floating_point(),
            f"attention_mask: expected a 4-D mask that is boolean or added to the scores, got {attention_mask.dtype}",
        )
        return attention_mask
    expected = list(embedded.shape[:2])
    check(
        list(attention_mask.shape) == expected,
        f"attention_mask: expected shape {expected} or a 4-D mask, got {list(attention_mask.shape)}",
    )
    return attention_mask.bool()[:, None, None, :]
