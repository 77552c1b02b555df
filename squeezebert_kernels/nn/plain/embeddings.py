"""The embeddings and the pooler: what stands before and behind the encoder."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ...checks import check, check_broadcasts, check_tensor, naming_ids
from ..config import SqueezeBertConfig


class SqueezeBertEmbeddings(nn.Module):
    """Word, position and token type embeddings, summed, then LayerNorm (`layer_norm_eps`) and dropout."""

    def __init__(self, config: SqueezeBertConfig) -> None:
        super().__init__()
        size = config.embedding_size
        self.word_embeddings = nn.Embedding(config.vocab_size, size, padding_idx=config.pad_token_id)
        self.position_embeddings = nn.Embedding(config.max_position_embeddings, size)
        self.token_type_embeddings = nn.Embedding(config.type_vocab_size, size)
        self.LayerNorm = nn.LayerNorm(size, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(
        self,
        input_ids: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
    ) -> Tensor:
        """input_ids: [N, S], or in their place inputs_embeds: [N, S, C]. The other ids broadcast to [N, S].

        Ids are int64 or int32. token_type_ids None: 0. position_ids None: 0 to S - 1. Returns [N, S, C].
        """
        if (input_ids is None) == (inputs_embeds is None):
            got = "neither" if input_ids is None else "both"
            raise ValueError(f"input_ids, inputs_embeds: expected exactly one of them, got {got}")
        if inputs_embeds is None:
            assert input_ids is not None
            check_tensor("input_ids", input_ids)
            check(input_ids.dim() == 2, f"input_ids: expected shape [N, S], got {list(input_ids.shape)}")
            inputs_embeds = _look_up("input_ids", input_ids, self.word_embeddings)
        check_tensor("inputs_embeds", inputs_embeds)
        shape, channels = list(inputs_embeds.shape), self.word_embeddings.embedding_dim
        check(
            inputs_embeds.dim() == 3 and shape[2] == channels,
            f"inputs_embeds: expected shape [N, S, {channels}], got {shape}",
        )
        dtype = self.position_embeddings.weight.dtype
        check(
            inputs_embeds.dtype == dtype or torch.is_autocast_enabled(inputs_embeds.device.type),
            f"inputs_embeds: expected dtype {dtype}, got {inputs_embeds.dtype}",
        )
        length, positions = shape[1], self.position_embeddings.num_embeddings
        check(length >= 1, f"input_ids: expected at least one token in a sequence, got shape {shape[:2]}")
        if position_ids is None:
            check(length <= positions, f"input_ids: expected at most {positions} tokens in a sequence, got {length}")
            position_ids = torch.arange(length, device=inputs_embeds.device).unsqueeze(0)
        if token_type_ids is None:
            token_type_ids = torch.zeros(shape[:2], dtype=torch.long, device=inputs_embeds.device)
        for name, ids in (("position_ids", position_ids), ("token_type_ids", token_type_ids)):
            check_tensor(name, ids)
            check_broadcasts(name, ids, shape[:2])
        position_embeds = _look_up("position_ids", position_ids, self.position_embeddings)
        token_type_embeds = _look_up("token_type_ids", token_type_ids, self.token_type_embeddings)
        return self.dropout(self.LayerNorm(inputs_embeds + position_embeds + token_type_embeds))


class SqueezeBertPooler(nn.Module):
    """tanh(dense(first token)): [N, S, C] -> [N, C]."""

    def __init__(self, config: SqueezeBertConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, hidden_states: Tensor) -> Tensor:
        return torch.tanh(self.dense(hidden_states[:, 0]))


def _look_up(name: str, ids: Tensor, table: nn.Embedding) -> Tensor:
    """Rows `ids` of `table`. Raises IndexError, naming the argument, for an id outside it, ValueError for a dtype."""
    check(ids.dtype in (torch.int64, torch.int32), f"{name}: expected dtype int64 or int32, got {ids.dtype}")
    with naming_ids(name, ids, table.num_embeddings):
        return table(ids)
