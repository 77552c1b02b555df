"""encoder: layer after layer, three launches each."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from . import encoder_layer
from .arguments import TENSORS_PER_LAYER, Arguments, Layer, Mask, Rows, Sequences
from .encoder_layer import NORMS_PER_LAYER, check_layers
from .grouped_conv1x1 import new_arrivals


def run(
    rows: Rows,
    sequences: Sequences,
    layers: Sequence[Layer],
    num_heads: int,
    mask: Mask,
    output: Tensor,
    first_only: bool = False,
) -> None:
    """Launches all layers. output: contiguous [rows, C], or [sequences, C] where first_only."""
    arrivals = new_arrivals(rows.count, output.device, NORMS_PER_LAYER * len(layers))
    # Two buffers in turn: a layer reads the one that the layer before it wrote.
    between = [output.new_empty(rows.count, rows.channels) for _ in range(min(2, len(layers) - 1))]
    for index, layer in enumerate(layers):
        last = index == len(layers) - 1
        target = output if last else between[index % 2]
        counters = arrivals[NORMS_PER_LAYER * index :]
        encoder_layer.run(rows, sequences, layer, num_heads, mask, counters, target, first_only and last)
        rows = Rows(target, rows.count, rows.channels, rows.channels)


def encoder(
    input: Tensor,
    params: Sequence[Tensor],
    num_heads: int,
    groups: Sequence[int],
    eps: float,
    mask: Tensor | None = None,
    cu_seqlens: Tensor | None = None,
    first_token_only: bool = False,
) -> Tensor:
    arguments = Arguments("encoder", "input", input)
    if not params or len(params) % TENSORS_PER_LAYER:
        arguments.fail("params", f"{TENSORS_PER_LAYER} tensors for each of one or more layers", str(len(params)))
    rows, sequences = arguments.sequences("input", input, cu_seqlens)
    layers = check_layers(arguments, params, num_heads, groups, eps, rows.channels)
    checked = arguments.self_mask(mask, cu_seqlens, sequences, num_heads)
    if first_token_only:
        _check_first_tokens(arguments, sequences, cu_seqlens)
    count = sequences.count if first_token_only else rows.count
    output = torch.empty(count, rows.channels, dtype=input.dtype, device=input.device)
    run(rows, sequences, layers, num_heads, checked, output, first_token_only)
    return output if first_token_only else output.view(input.shape)


def _check_first_tokens(arguments: Arguments, sequences: Sequences, cu_seqlens: Tensor | None) -> None:
    lengths = [sequences.longest] * sequences.count if cu_seqlens is None else cu_seqlens.diff().tolist()
    for index, length in enumerate(lengths):
        if length == 0:
            arguments.fail("first_token_only", "at least one token in every sequence", f"sequence {index} without any")
