"""Padding, out and in again: which tokens of a padded batch are real, and where their rows go back to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class RealTokens:
    """The real tokens of a padded batch [N, S], in order.

    index: int64 [T], their rows in the flattened batch [N * S]. cu_seqlens: int32 [N + 1], the offset of each sequence
    among them. positions: int64 [T], their columns: a token keeps the position it has in the padded batch.
    first_is_real: every sequence's column 0 is a real token.
    """

    index: Tensor
    cu_seqlens: Tensor
    first_is_real: bool
    shape: tuple[int, int]

    @property
    def positions(self) -> Tensor:
        return self.index % self.shape[1]

    def take(self, values: Tensor) -> Tensor:
        """The real tokens' rows of `values` [N, S, ...]: [T, ...]."""
        return values.reshape(-1, *values.shape[2:]).index_select(0, self.index)

    def put_back(self, rows: Tensor) -> Tensor:
        """`rows` [T, C] at their places in [N, S, C]; zeros at the padding."""
        count, length = self.shape
        padded = rows.new_zeros(count * length, rows.shape[1])
        return padded.index_copy_(0, self.index, rows).view(count, length, rows.shape[1])


def real_tokens(attention_mask: Any, shape: tuple[int, ...]) -> RealTokens | None:
    """Reads a 0/1 `attention_mask` [N, S] of any dtype with zeros in any pattern; None when it masks nothing.

    Raises ValueError for what is no such tensor, for another shape or device, with other values than 0 and 1, or with a
    sequence that has no real token at all (what comes out of that one depends on the attention implementation).
    """
    if type(attention_mask) is not Tensor:
        raise ValueError(f"attention_mask: a {type(attention_mask).__name__}")
    if attention_mask.device.type != "cpu" or attention_mask.requires_grad or attention_mask.is_complex():
        raise ValueError(f"attention_mask: {attention_mask.dtype} on {attention_mask.device}")
    if attention_mask.shape != shape:
        raise ValueError(f"attention_mask: shape {tuple(attention_mask.shape)}, not {shape}")
    if attention_mask.dtype == torch.bfloat16:  # which NumPy has not
        attention_mask = attention_mask.float()
    mask = attention_mask.numpy()
    real = np.count_nonzero(mask)
    if mask.dtype != np.bool_ and np.count_nonzero(mask == 1) != real:
        raise ValueError("attention_mask: values other than 0 and 1")
    if real == mask.size:
        return None
    lengths = np.count_nonzero(mask, axis=1)
    if not lengths.all():
        raise ValueError("attention_mask: a fully masked sequence")
    cu_seqlens = np.zeros(shape[0] + 1, dtype=np.int32)
    np.cumsum(lengths, out=cu_seqlens[1:])
    return RealTokens(
        index=torch.from_numpy(np.flatnonzero(mask)),
        cu_seqlens=torch.from_numpy(cu_seqlens),
        first_is_real=bool(mask[:, 0].all()),
        shape=(shape[0], shape[1]),
    )
