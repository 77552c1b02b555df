"""Binding: a model's weights in the operators' form, and what they compute of a request."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from .layers import runs
from .packed import Linear, PackedLinears
from .padding import RealTokens, real_tokens
from .reading import Reading

_ops = torch.ops.squeezebert


class Binding:
    """A model on the CPU, as it was read. dtype: of the packed weights. previous: the model's last binding.

    output_dtype: of the hidden states, set when the model was tested.
    """

    device_type = "cpu"

    def __init__(self, reading: Reading, dtype: torch.dtype, previous: Binding | None = None) -> None:
        self.reading = reading
        self.device = reading.parameters[0].device
        layers, pooler = reading.layers, reading.pooler
        linears = [x for layer in layers for x in layer.linears if isinstance(x, Linear)]
        linears += [] if pooler is None else [pooler]
        floats = [x.bias for x in linears if x.bias is not None] + [norm for layer in layers for norm in layer.norms]
        self.packed: Any = PackedLinears(linears, dtype, floats, None if previous is None else previous.packed)
        forms = dict(zip(map(id, floats), self.packed.floats, strict=True))
        forms.update(zip(map(id, linears), self.packed.packed, strict=True))

        def form(value: Any) -> Tensor:
            return forms[id(value)]

        self.output_dtype = reading.embedding[0].dtype
        self._form = form
        self._runs = runs(layers, form, self.output_dtype)
        self._pooler = None if pooler is None else (form(pooler), form(pooler.bias), 1)
        self._takes_padding = bool(reading.foreign)  # modules of another kind are given batches, not packed tokens
        # The kernel reads float32 tables; others are looked up by their own modules.
        self._embeds = all(value.dtype == torch.float32 for value in reading.embedding[:-1])

    @contextmanager
    def on(self, twins: dict[int, nn.Module]) -> Iterator[None]:
        """Inside the block, modules of another kind are stood in for by their twins, by id."""
        whole, self._runs = self._runs, runs([x.on(twins) for x in self.reading.layers], self._form, self.output_dtype)
        try:
            yield
        finally:
            self._runs = whole

    @staticmethod
    def check_time(device: torch.device) -> None:
        """Raises Declined where this is no time to let go of a binding and make another."""

    @property
    def has_pooler(self) -> bool:
        return self._pooler is not None

    def holds(self) -> bool:
        """The model still has what was read, and the kernels still take its packed form."""
        return self.reading.holds() and not self.packed.stale

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
        all_positions = all_positions or self._takes_padding
        mask: Any = request.get("attention_mask")
        tokens = None
        if mask is not None:
            given = request["input_ids"] if request.get("inputs_embeds") is None else request["inputs_embeds"]
            tokens = real_tokens(mask, tuple(given.shape[:2]))
            mask = None
        if tokens is not None and (all_positions or (self.has_pooler and not tokens.first_is_real)):
            # Someone reads a padded position: compute them all, as the original does.
            tokens, mask = None, request["attention_mask"].bool()[:, None, None, :]
        rows = self._embed(module, request)
        if tokens is not None:
            rows = tokens.take(rows)
        cu_seqlens = None if tokens is None else tokens.cu_seqlens
        for run in self._runs[:-1]:
            rows = run.run(rows, mask, cu_seqlens, False)
        rows = self._runs[-1].run(rows, mask, cu_seqlens, first_token)
        return self._finish(rows, tokens, first_token)

    def _embed(self, module: Any, request: dict[str, Any]) -> Tensor:
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
        if self._pooler is None:
            return hidden.to(self.output_dtype), None
        pooled = _ops.grouped_conv1x1.default(hidden[:, 0], *self._pooler).tanh_()
        return hidden.to(self.output_dtype), pooled.to(self.output_dtype)
