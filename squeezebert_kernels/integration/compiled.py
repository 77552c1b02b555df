"""How an optimized model looks to torch.compile: one opaque operator.

The graph stays whole, and since the operator calls the very forward that an uncompiled model has, changed weights are
noticed, padding is left out, and whatever the kernels cannot serve still takes the original path, all at run time.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any
from weakref import WeakValueDictionary

import torch
from torch import Tensor

_forwards: WeakValueDictionary[int, Any] = WeakValueDictionary()
_handles = itertools.count()


def register(forward: Callable[..., Any]) -> int:
    """A number that stands for `forward` in a graph, as long as it lives."""
    handle = next(_handles)
    _forwards[handle] = forward
    return handle


@torch.library.custom_op(
    "squeezebert_kernels::base_model",
    mutates_args=(),
    schema="(int handle, Tensor input_ids, Tensor? attention_mask, Tensor? token_type_ids, Tensor? position_ids, "
    "SymInt channels, bool has_pooler, bool first_token, bool all_positions) -> (Tensor, Tensor)",
)
def base_model(
    handle: int,
    input_ids: Tensor,
    attention_mask: Tensor | None,
    token_type_ids: Tensor | None,
    position_ids: Tensor | None,
    channels: int,
    has_pooler: bool,
    first_token: bool,
    all_positions: bool,
) -> tuple[Tensor, Tensor]:
    """The last hidden state [N, S, channels] ([N, 1, channels] when first_token) and the pooled output [N, channels].

    Without a pooler the second is empty. first_token, all_positions: as in BaseForward.wanting.
    """
    forward = _forwards[handle]
    with forward.wanting(first_token, all_positions):
        outputs = forward(
            input_ids=input_ids,
            attention_mask=attention_mask,
            token_type_ids=token_type_ids,
            position_ids=position_ids,
        )
    hidden = outputs.last_hidden_state
    if first_token:
        hidden = hidden[:, :1]  # the original path computes the others too
    # An operator's results must not share memory; an original forward's pooled output and hidden state never do.
    return hidden, outputs.pooler_output if has_pooler else hidden.new_empty(0)


@base_model.register_fake
def _(
    handle: int,
    input_ids: Tensor,
    attention_mask: Tensor | None,
    token_type_ids: Tensor | None,
    position_ids: Tensor | None,
    channels: int,
    has_pooler: bool,
    first_token: bool,
    all_positions: bool,
) -> tuple[Tensor, Tensor]:
    count, length = input_ids.shape
    hidden = input_ids.new_empty(count, 1 if first_token else length, channels, dtype=torch.float32)
    return hidden, hidden.new_empty((count, channels) if has_pooler else (0,))
