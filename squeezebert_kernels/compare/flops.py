"""Floating-point operations and memory traffic of one encoder pass.

Only matrix products count, two operations per multiply-add: what the architecture asks for, whatever an implementation
adds to it. Padding is not work: a batch costs what its real tokens cost.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class EncoderShape:
    """Widths and group counts of an encoder, in the words of the model's config.

    `groups` is (query, key, value, post_attention, intermediate, output).
    """

    layers: int
    hidden: int
    intermediate: int
    groups: tuple[int, int, int, int, int, int]

    @classmethod
    def of(cls, config: Any) -> EncoderShape:
        """Reads a Hugging Face SqueezeBERT or BERT config; BERT names no groups: it has one everywhere."""
        names = ("q_groups", "k_groups", "v_groups", "post_attention_groups", "intermediate_groups", "output_groups")
        query, key, value, post_attention, intermediate, output = (int(getattr(config, name, 1)) for name in names)
        return cls(
            layers=config.num_hidden_layers,
            hidden=config.hidden_size,
            intermediate=config.intermediate_size,
            groups=(query, key, value, post_attention, intermediate, output),
        )

    def dense(self) -> EncoderShape:
        """The same widths without groups: BERT."""
        return EncoderShape(self.layers, self.hidden, self.intermediate, (1, 1, 1, 1, 1, 1))

    def weights(self) -> int:
        """Multiply-adds per token and layer of the position-wise layers, which is also their number of weights."""
        query, key, value, post_attention, intermediate, output = self.groups
        square = self.hidden * self.hidden
        wide = self.hidden * self.intermediate
        return (
            square // query
            + square // key
            + square // value
            + square // post_attention
            + wide // intermediate
            + wide // output
        )


def encoder_flops(shape: EncoderShape, lengths: Iterable[int]) -> int:
    """Operations of one pass over sequences of these lengths: the position-wise layers, Q K^T and P V."""
    lengths = tuple(lengths)
    position_wise = shape.weights() * sum(lengths)
    attention = 2 * shape.hidden * sum(length * length for length in lengths)
    return 2 * shape.layers * (position_wise + attention)


def encoder_bytes(shape: EncoderShape, lengths: Iterable[int], weight_size: int = 4) -> int:
    """Bytes one pass cannot avoid moving: every weight once, of `weight_size` bytes each, and the encoder's input and
    output once, in float32."""
    activations = 2 * sum(lengths) * shape.hidden
    return weight_size * shape.layers * shape.weights() + 4 * activations
