"""How an optimized model looks to torch.compile: one opaque operator.

The graph stays whole, and since the operator calls the very forward that an uncompiled model has, changed weights are
noticed, padding is left out, and whatever the kernels cannot serve still takes the original path, all at run time.
"""

from __future__ import annotations

import itertools
from weakref import WeakValueDictionary

import torch
from torch import Tensor, nn

from .wanted import hidden_and_pooled, wanting

_models: WeakValueDictionary[int, nn.Module] = WeakValueDictionary()
_handles = itertools.count()


def register(model: nn.Module) -> int:
    """A number that stands for the base model `model` in a graph, as long as it lives."""
    handle = next(_handles)
    _models[handle] = model
    return handle


@torch.library.custom_op(
    "squeezebert_kernels::base_model",
    mutates_args=(),
    schema="(int handle, Tensor input_ids, Tensor? attention_mask, Tensor? token_type_ids, Tensor? position_ids, "
    "SymInt channels, ScalarType dtype, bool has_pooler, bool first_token, bool all_positions) -> (Tensor, Tensor)",
)
def base_model(
    handle: int,
    input_ids: Tensor,
    attention_mask: Tensor | None,
    token_type_ids: Tensor | None,
    position_ids: Tensor | None,
    channels: int,
    dtype: torch.dtype,
    has_pooler: bool,
    first_token: bool,
    all_positions: bool,
) -> tuple[Tensor, Tensor]:
    """The last hidden state [N, S, channels] ([N, 1, channels] when first_token) and the pooled output [N, channels].

    Without a pooler the second is empty. dtype: of both. first_token, all_positions: as in `wanting`.
    """
    with wanting(handle, first_token, all_positions):
        outputs = _models[handle].forward(
            input_ids=input_ids,
            attention_mask=attention_mask,
            token_type_ids=token_type_ids,
            position_ids=position_ids,
        )
    hidden, pooled = hidden_and_pooled(outputs)
    if first_token:
        hidden = hidden[:, :1]  # the original path computes the others too
    # An operator's results must not share memory; an original forward's pooled output and hidden state never do.
    return hidden, pooled if has_pooler else hidden.new_empty(0)


@base_model.register_fake
def _(
    handle: int,
    input_ids: Tensor,
    attention_mask: Tensor | None,
    token_type_ids: Tensor | None,
    position_ids: Tensor | None,
    channels: int,
    dtype: torch.dtype,
    has_pooler: bool,
    first_token: bool,
    all_positions: bool,
) -> tuple[Tensor, Tensor]:
    count, length = input_ids.shape
    hidden = input_ids.new_empty(count, 1 if first_token else length, channels, dtype=dtype)
    return hidden, hidden.new_empty((count, channels) if has_pooler else (0,))
