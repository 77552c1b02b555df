"""quantization_report(model, inputs): what a lower precision costs, layer by layer, on one's own inputs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from . import ops
from .integration.classes import state_of
from .integration.forward import BaseState
from .integration.optimize import bases_of
from .integration.request import Declined, tokens_of
from .packed import Layer
from .precision import LINEARS, PARTS, Dtype, Precision


@dataclass(frozen=True)
class LayerErrors:
    """Root mean square errors of a layer's output beside float32's, relative to that: of the layer by itself, with
    those of the layers before it, and of each of its parts by itself."""

    name: str
    alone: float
    accumulated: float
    parts: dict[str, float]


@dataclass(frozen=True)
class QuantizationReport:
    """What `quantization_report` found; to be printed."""

    title: str
    layers: list[LayerErrors]

    def __str__(self) -> str:
        head = ["", "accumulated", "the layer", *PARTS]
        rows = [
            [layer.name, *(f"{100.0 * error:.2f}" for error in (layer.accumulated, layer.alone, *layer.parts.values()))]
            for layer in self.layers
        ]
        widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
        lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in (head, *rows)]
        return "\n".join(
            [f"{self.title}: error of each layer's output beside float32, in percent (root mean square)", *lines]
        )


def quantization_report(
    model: nn.Module,
    inputs: Any,
    dtype: Dtype | None = None,
    keep: Mapping[str, Dtype] | None = None,
    tokenizer: Any = None,
) -> QuantizationReport:
    """What `model` loses in a lower precision than float32 on `inputs`, layer by layer and part by part: `print` it.

    It tells which layers to name in `keep`. The model is not changed, and computes as it did.

    model: as `optimize` takes it, with one base model, optimized or not, on the CPU.
    inputs: one batch (a mapping of input_ids, and attention_mask and others if there are), or several; or, with a
    `tokenizer` of transformers, a text or several.
    dtype, keep: as `optimize` takes them; without them, what the model was optimized with, or torch.int8.

    Raises TypeError for a model or inputs of another kind, ValueError for a model that the kernels do not serve.
    """
    found = list(bases_of(model))
    if len(found) != 1:
        raise TypeError(f"model: expected a module that holds one SqueezeBERT or BERT model, got one with {len(found)}")
    base, family = found[0]
    state = state_of(base)
    if dtype is None and keep is None and isinstance(state, BaseState) and state.precision.dtypes != {torch.float32}:
        precision = state.precision
    else:
        precision = Precision.of(torch.int8 if dtype is None else dtype, keep)
    try:
        binding = BaseState(family, Precision(), False).bind(base)
    except Declined as declined:
        raise ValueError(f"model: expected one that the kernels serve, got one they do not: {declined}") from declined
    layers: list[Any] = [layer.whole for layer in binding.reading.layers]
    if None in layers:
        raise ValueError(f"model: expected packable layers, got some that are modules: {binding.reading.foreign}")
    precision.check(len(layers), binding.has_pooler)
    heads = [layer.heads for layer in binding.reading.layers]
    with torch.no_grad():
        forms = [_forms(index, layer, precision) for index, layer in enumerate(layers)]
        sums = [_Sums() for _ in layers]
        for batch in _batches(inputs, tokenizer):
            rows, cu_seqlens = _rows(binding, base, batch)
            exact = lower = rows
            for layer_forms, layer_heads, layer_sums in zip(forms, heads, sums, strict=True):
                outputs = {
                    name: ops.encoder_layer(exact, [form], layer_heads, [], 0.0, cu_seqlens=cu_seqlens)
                    for name, form in layer_forms.items()
                }
                lower = ops.encoder_layer(lower, [layer_forms[_ALONE]], layer_heads, [], 0.0, cu_seqlens=cu_seqlens)
                exact = outputs.pop(_EXACT)
                layer_sums.add(exact, {**outputs, _ACCUMULATED: lower})
    errors = [each.errors(f"layer.{index}") for index, each in enumerate(sums)]
    kept = "".join(f", {pattern} in {_short(dtype)}" for pattern, dtype in precision.keep)
    return QuantizationReport(f"{type(base).__name__} in {_short(precision.dtype)}{kept}", errors)


_EXACT, _ALONE, _ACCUMULATED = "float32", "alone", "accumulated"


class _Sums:
    """Sums of squares over batches: of a layer's outputs, and of the differences from them."""

    def __init__(self) -> None:
        self._squares, self._differences = 0.0, dict.fromkeys((_ALONE, _ACCUMULATED, *PARTS), 0.0)

    def add(self, exact: Tensor, outputs: Mapping[str, Tensor]) -> None:
        self._squares += float(exact.double().square().sum())
        for name, output in outputs.items():
            self._differences[name] += float((output.double() - exact.double()).square().sum())

    def errors(self, name: str) -> LayerErrors:
        relative = {key: (value / max(self._squares, 1e-300)) ** 0.5 for key, value in self._differences.items()}
        return LayerErrors(name, relative[_ALONE], relative[_ACCUMULATED], {part: relative[part] for part in PARTS})


def _forms(index: int, layer: Layer, precision: Precision) -> dict[str, Tensor]:
    """The layer packed in float32, in `precision`, and with one part at a time in that."""
    params = [tensor.float() for tensor in layer.tensors]
    slots = dict(zip(LINEARS, (0, 2, 4, 6, 10, 12), strict=True))
    dtypes = {part: precision.dtype_of(f"layer.{index}.{part}") for part in PARTS}

    weights: dict[tuple[str, torch.dtype], Tensor] = {}

    def packed(parts: Sequence[str]) -> Tensor:
        """Those in `precision`, the others in float32."""
        chosen = {part: dtypes[part] if part in parts else torch.float32 for part in PARTS}
        tensors = list(params)
        for linear, (part, slot) in zip(layer.linears, slots.items(), strict=True):
            key = (part, chosen[part])
            if key not in weights:
                weights[key] = ops.pack_grouped_conv1x1(params[slot], linear.groups, chosen[part])
            tensors[slot] = weights[key]
        return ops.pack_encoder_layer(tensors, layer.groups, layer.eps, chosen["attention"])

    return {_EXACT: packed(()), _ALONE: packed(PARTS), **{part: packed((part,)) for part in PARTS}}


def _rows(binding: Any, base: nn.Module, batch: Mapping[str, Any]) -> tuple[Tensor, Tensor | None]:
    """The first layer's input: tokens that are no padding, and where the sequences begin."""
    known = ("input_ids", "token_type_ids", "position_ids", "inputs_embeds")
    request = {name: batch[name] for name in known if batch.get(name) is not None}
    rows = binding.embed(base, request)
    mask = batch.get("attention_mask")
    tokens = None if mask is None else tokens_of(mask, tuple(rows.shape[:2]))
    return (rows, None) if tokens is None else (tokens.take(rows), tokens.cu_seqlens)


def _batches(inputs: Any, tokenizer: Any) -> Iterator[Mapping[str, Any]]:
    if isinstance(inputs, Mapping):
        yield inputs
        return
    if isinstance(inputs, str) or not isinstance(inputs, Iterable):
        inputs = [inputs]
    for batch in inputs:
        if isinstance(batch, str):
            if tokenizer is None:
                raise TypeError("tokenizer: expected one of transformers beside texts, got None")
            batch = tokenizer(batch, truncation=True, return_tensors="pt")
        if not isinstance(batch, Mapping):
            raise TypeError(f"inputs: expected batches (mappings of tensors) or texts, got {type(batch).__name__}")
        yield batch


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
