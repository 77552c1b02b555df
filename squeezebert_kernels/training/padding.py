"""Which tokens of a batch are real, out of the masks that transformers makes for its encoders."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Packing:
    """index: int64 [T], the real tokens' rows in the flattened batch [N * S]. cu_seqlens: int32 [N + 1]."""

    index: Tensor
    cu_seqlens: Tensor

    def take(self, batch: Tensor) -> Tensor:
        """[N, S, C] -> [T, C]."""
        return batch.flatten(0, 1).index_select(0, self.index)

    def put_back(self, rows: Tensor, batch: Tensor) -> Tensor:
        """`rows` [T, C] where they were in `batch` [N, S, C]; zeros at the padding."""
        empty = rows.new_zeros(batch.shape[0] * batch.shape[1], rows.shape[1])
        return empty.index_copy(0, self.index, rows).view(batch.shape)


def packing_of(mask: Tensor) -> Packing | None:
    """How to leave padding out, of a mask [N, S] (1 or True: real), or [N, 1, 1 or S, S], additive or boolean.

    None where that cannot be done: the mask is not one of keys alone; it masks nothing; a sequence has no real token,
    or its first token, which poolers read, is none.
    """
    if mask.dim() == 4:
        if not bool((mask == mask[:, :1, :1]).all()):
            return None
        mask = mask[:, 0, 0]
        real = mask if mask.dtype == torch.bool else mask == 0
        if mask.dtype != torch.bool and bool((mask[~real] > torch.finfo(mask.dtype).min / 2).any()):
            return None  # a bias, not a mask
    else:
        real = mask.bool()
    if bool(real.all()) or not bool(real[:, 0].all()):
        return None
    cu_seqlens = torch.zeros(real.shape[0] + 1, dtype=torch.int32)
    cu_seqlens[1:] = real.sum(1).cumsum(0)
    return Packing(real.flatten().nonzero().squeeze(1), cu_seqlens)
