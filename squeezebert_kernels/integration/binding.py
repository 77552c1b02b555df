"""Binding: a model's weights in the operators' form, and what they compute of a request."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..packed import Linear, Packed
from ..padding import RealTokens
from .reading import Reading, ReadLayer
from .request import Declined, tokens_of

_ops = torch.ops.squeezebert


class Binding:
    """A model on the CPU, as it was read. previous: its last binding.

    output_dtype: of the hidden states, set when the model was tested.
    """

    device_type = "cpu"

    def __init__(self, reading: Reading, dtype: torch.dtype, previous: Binding | None = None) -> None:
        self.reading, self.device = reading, reading.device
        self.output_dtype = reading.embedding[0].dtype
        pieces: list[list[Any]] = [[layer.whole] if layer.whole else _linears(layer) for layer in reading.layers]
        pieces.append([] if reading.pooler is None else [reading.pooler])
        try:
            self.packed: Any = Packed(
                [item for items in pieces for item in items], previous.packed if previous else None
            )
        except ValueError as error:  # its tensors cannot be packed
            raise Declined(str(error)) from error
        packed = iter(self.packed.packed)
        self._packed_layers = [[next(packed) for _ in items] for items in pieces[:-1]]
        self._pooler = next(packed, None)
        self._runs = list(self._make_runs({}))
        # The kernel reads float32 tables; others are looked up by their own modules.
        self._embeds = all(value.dtype == torch.float32 for value in reading.embedding[:-1])

    @contextmanager
    def on(self, twins: dict[int, nn.Module]) -> Iterator[None]:
        """Inside the block, modules of another kind are stood in for by their twins, by id."""
        runs, self._runs = self._runs, list(self._make_runs(twins))
        try:
            yield
        finally:
            self._runs = runs

    @staticmethod
    def check_time(device: torch.device) -> None:
        """Raises Declined where this is no time to let go of a binding and make another."""

    @property
    def has_pooler(self) -> bool:
        return self.reading.pooler is not None

    def holds(self) -> bool:
        """The model still has what was read, and the kernels still take its packed form."""
        return self.reading.holds() and not self.packed.stale

    def is_fresh(self) -> bool:
        """`refresh` would find nothing to do."""
        return self.packed.is_fresh()

    def refresh(self, everything: bool = False) -> bool:
        """Packs what has changed, or `everything`; True where there was some. Raises Declined."""
        try:
            return self.packed.refresh(everything)
        except ValueError as error:
            raise Declined(str(error)) from error

    def layers(self) -> dict[str, str]:
        """What runs each layer, by its name."""
        foreign = self.reading.foreign
        ways = {}
        for name in self.reading.names:
            own = [f"{where[len(name) + 1 :]} {why}" for where, why in foreign.items() if where.startswith(f"{name}.")]
            ways[name] = "the kernels" + (f", around modules of its own: {', '.join(own)}" if own else "")
        return ways

    def compute(
        self, module: Any, request: dict[str, Any], first_token: bool, all_positions: bool
    ) -> tuple[Tensor, Tensor | None]:
        """Last hidden state [N, S, C] ([N, 1, C] when only the first token is wanted) and pooled output [N, C].

        module: the model. all_positions: the values at padded positions are wanted too.
        """
        mask: Any = request.get("attention_mask")
        tokens = None
        if mask is not None:
            given = request["input_ids"] if request.get("inputs_embeds") is None else request["inputs_embeds"]
            tokens = tokens_of(mask, tuple(given.shape[:2]))
            mask = None
        # Modules of another kind are given batches, not packed tokens.
        all_positions = all_positions or bool(self.reading.foreign)
        if tokens is not None and (all_positions or (self.has_pooler and not tokens.first_is_real)):
            # Someone reads a padded position: compute them all, as the original does.
            tokens, mask = None, request["attention_mask"].bool()[:, None, None, :]
        with torch._C._AutoDispatchBelowAutograd():  # nobody wants a gradient, so autograd need not look
            rows = self.embed(module, request)
            if tokens is not None:
                rows = tokens.take(rows)
            cu_seqlens = None if tokens is None else tokens.cu_seqlens
            for run in self._runs[:-1]:
                rows = run.run(rows, mask, cu_seqlens, False)
            rows = self._runs[-1].run(rows, mask, cu_seqlens, first_token)
            return self._finish(rows, tokens, first_token)

    def embed(self, module: Any, request: dict[str, Any]) -> Tensor:
        """The embeddings' output [N, S, C]. Padding included: what is wrong with its ids is an error all the same."""
        ids = request.get("input_ids")
        types, positions = request.get("token_type_ids"), request.get("position_ids")
        if ids is not None and self._embeds:
            return _ops.embedding_layer_norm.default(ids, types, positions, *self.reading.embedding)
        embeds = request.get("inputs_embeds")
        hidden = module.embeddings(input_ids=ids, inputs_embeds=embeds, token_type_ids=types, position_ids=positions)
        return hidden.float()

    def _finish(self, rows: Tensor, tokens: RealTokens | None, first_token: bool) -> tuple[Tensor, Tensor | None]:
        if first_token:
            rows, tokens = rows.unsqueeze(1), None
        hidden = rows if tokens is None else tokens.put_back(rows)
        pooled = None
        if self.reading.pooler is not None:
            pooled = _as(self.output_dtype, _linear(hidden[:, 0], self.reading.pooler, self._pooler).tanh_())
        return _as(self.output_dtype, hidden), pooled

    def _make_runs(self, twins: dict[int, nn.Module]) -> Iterator[Any]:
        """The layers in as few pieces as can be. twins: of modules, by id, those to call in their place."""
        run: _WholeLayers | None = None
        for layer, packed in zip(self.reading.layers, self._packed_layers, strict=True):
            if layer.whole is None:
                run = None
                yield _MixedLayer(layer, packed, twins, self.output_dtype)
            elif run is None or run.heads != layer.heads:
                run = _WholeLayers(layer.heads, list(packed))
                yield run
            else:
                run.layers += packed


class _WholeLayers:
    """Packed layers that one call of the encoder computes."""

    def __init__(self, heads: int, layers: list[Tensor]) -> None:
        self.heads, self.layers = heads, layers

    def run(self, rows: Tensor, mask: Tensor | None, cu_seqlens: Tensor | None, first_token: bool) -> Tensor:
        return _ops.encoder.default(rows, self.layers, self.heads, [], 0.0, mask, cu_seqlens, first_token)


class _MixedLayer:
    """A layer with linears of a foreign kind (LoRA, quantized, ...): those run as their own modules, in `dtype`."""

    def __init__(self, layer: ReadLayer, packed: list[Tensor], twins: dict[int, nn.Module], dtype: torch.dtype) -> None:
        self._layer, self._dtype = layer, dtype
        forms = iter(packed)
        self._linears = [
            (linear, next(forms)) if isinstance(linear, Linear) else (twins.get(id(linear), linear), None)
            for linear in layer.linears
        ]

    def run(self, rows: Tensor, mask: Tensor | None, cu_seqlens: Tensor | None, first_token: bool) -> Tensor:
        """[N, S, C], without cu_seqlens."""
        query, key, value = (self._linear(index, rows) for index in range(3))
        context = _ops.attention.default(query, key, value, self._layer.heads, mask, None, self._layer.attention)
        if first_token:
            context, rows = context[:, 0], rows[:, 0]
        rows = self._norm(0, self._linear(3, context) + rows)
        return self._norm(2, self._linear(5, F.gelu(self._linear(4, rows))) + rows)

    def _norm(self, first: int, rows: Tensor) -> Tensor:
        weight, bias = (value.float() for value in self._layer.norms[first : first + 2])
        return F.layer_norm(rows, weight.shape, weight, bias, self._layer.eps)

    def _linear(self, index: int, rows: Tensor) -> Tensor:
        linear, packed = self._linears[index]
        if isinstance(linear, Linear):
            return _linear(rows, linear, packed)
        rows = rows.to(self._dtype)
        if self._layer.token_major:
            return linear(rows).float()
        wide = rows if rows.dim() == 3 else rows.unsqueeze(1)
        return linear(wide.transpose(1, 2)).transpose(1, 2).float().reshape(*rows.shape[:-1], -1)


def _linears(layer: ReadLayer) -> list[Linear]:
    return [linear for linear in layer.linears if isinstance(linear, Linear)]


def _linear(rows: Tensor, linear: Linear, packed: Tensor | None) -> Tensor:
    bias = None if linear.bias is None else _as(torch.float32, linear.bias)
    return _ops.grouped_conv1x1.default(rows, packed, bias, linear.groups)


def _as(dtype: torch.dtype, values: Tensor) -> Tensor:
    """`values.to(dtype)`, without a call into PyTorch where there is nothing to do."""
    return values if values.dtype is dtype else values.to(dtype)
