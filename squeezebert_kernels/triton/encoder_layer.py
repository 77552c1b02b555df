"""encoder_layer: three launches, and the clearing of two counters."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from . import attention, grouped_conv1x1, grouped_ffn, grouped_qkv_attention
from .arguments import TENSORS_PER_LAYER, Arguments, Layer, Mask, Norm, Rows, Sequences
from .grouped_conv1x1 import new_arrivals

# The 16 tensors of a layer, in Hugging Face's order.
PARAM_NAMES = tuple(
    f"{block}.{kind}"
    for block in (
        "query",
        "key",
        "value",
        "post_attention",
        "post_attention layernorm",
        "intermediate",
        "output",
        "output layernorm",
    )
    for kind in ("weight", "bias")
)
GROUP_NAMES = ("query", "key", "value", "post_attention", "intermediate", "output")
NORMS_PER_LAYER = 2


def check_layers(
    arguments: Arguments, params: Sequence[Tensor], num_heads: int, groups: Sequence[int], eps: float, channels: int
) -> list[Layer]:
    """The layers that `params` make, 16 tensors each."""
    counts = arguments.group_counts(groups, GROUP_NAMES)
    arguments.heads(num_heads, channels)
    return [
        _check_layer(arguments, params, first, counts, eps, channels)
        for first in range(0, len(params), TENSORS_PER_LAYER)
    ]


def _check_layer(
    arguments: Arguments, params: Sequence[Tensor], first: int, counts: list[int], eps: float, channels: int
) -> Layer:
    def name(slot: int) -> str:
        return f"params[{first + slot}] (layer {first // TENSORS_PER_LAYER}, {PARAM_NAMES[slot]})"

    def linear(slot: int, group: int, in_channels: int, out_channels: int | None) -> grouped_conv1x1.Linear:
        names = (name(slot), name(slot + 1), f"groups[{group}]")
        weight, bias = params[first + slot], params[first + slot + 1]
        found = arguments.linear(names, weight, bias, counts[group], in_channels)
        if out_channels is not None and found.out_channels != out_channels:
            expected = f"{out_channels} output channels, as many as input has"
            arguments.fail(names[0], expected, str(found.out_channels))
        return found

    def norm(slot: int) -> Norm:
        values = (params[first + slot], params[first + slot + 1])
        return arguments.norm(name(slot), name(slot + 1), values, eps, channels)

    intermediate = linear(10, 4, channels, None)
    return Layer(
        query=linear(0, 0, channels, channels),
        key=linear(2, 1, channels, channels),
        value=linear(4, 2, channels, channels),
        post_attention=linear(6, 3, channels, channels),
        post_attention_norm=norm(8),
        intermediate=intermediate,
        output=linear(12, 5, intermediate.out_channels, channels),
        output_norm=norm(14),
    )


def run(
    rows: Rows,
    sequences: Sequences,
    layer: Layer,
    num_heads: int,
    mask: Mask,
    arrivals: Tensor,
    output: Tensor,
    first_only: bool = False,
) -> None:
    """Launches one layer. arrivals: int32 zeros [2, ...]. output: contiguous [rows, C]; or, where first_only,
    [sequences, C]: what becomes of each sequence's first token."""
    scale = attention.scale_or_default(None, rows.channels // num_heads)
    context = torch.empty_like(output)
    projections = (layer.query, layer.key, layer.value)
    grouped_qkv_attention.run(rows, sequences, *projections, num_heads, mask, scale, context, first_only)
    residual = _first_tokens(rows, sequences) if first_only else rows
    count = output.shape[0]
    hidden = torch.empty_like(output)
    grouped_conv1x1.run(
        Rows(context, count, rows.channels, rows.channels),
        layer.post_attention,
        hidden,
        residual=residual,
        norm=layer.post_attention_norm,
        arrivals=arrivals[0],
    )
    hidden_rows = Rows(hidden, count, rows.channels, rows.channels)
    grouped_ffn.run(hidden_rows, layer.intermediate, layer.output, layer.output_norm, output, arrivals[1])


def _first_tokens(rows: Rows, sequences: Sequences) -> Rows:
    if sequences.offsets is None:
        return Rows(rows.data, sequences.count, rows.channels, rows.stride * sequences.longest)
    view = rows.data.as_strided((rows.count, rows.channels), (rows.stride, 1))
    index = grouped_qkv_attention.first_rows(sequences, rows.data.device)
    first = view.index_select(0, index.clamp(max=rows.count - 1))  # an empty sequence may begin behind the last row
    return Rows(first, sequences.count, rows.channels, rows.channels)


def encoder_layer(
    input: Tensor,
    params: Sequence[Tensor],
    num_heads: int,
    groups: Sequence[int],
    eps: float,
    mask: Tensor | None = None,
    cu_seqlens: Tensor | None = None,
) -> Tensor:
    arguments = Arguments("encoder_layer", "input", input)
    if len(params) != TENSORS_PER_LAYER:
        arguments.fail("params", f"{TENSORS_PER_LAYER} tensors", str(len(params)))
    rows, sequences = arguments.sequences("input", input, cu_seqlens)
    (layer,) = check_layers(arguments, params, num_heads, groups, eps, rows.channels)
    checked = arguments.self_mask(mask, cu_seqlens, sequences, num_heads)
    output = torch.empty(rows.count, rows.channels, dtype=input.dtype, device=input.device)
    arrivals = new_arrivals(rows.count, input.device, NORMS_PER_LAYER)
    run(rows, sequences, layer, num_heads, checked, arrivals, output)
    return output.view(input.shape)
