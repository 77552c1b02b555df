"""Reads a model into what the operators take, and checks that they compute the same as the model does."""

from __future__ import annotations

from operator import attrgetter
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .architectures import Family
from .packed import Linear, PackedLinears
from .padding import Declined
from .watch import StructureWatch, ValueWatch, reads_as_plain

_requires_grad = attrgetter("requires_grad")

# What transformers calls its own implementations of attention, which compute the same; other names are users' own.
_ATTENTIONS = (None, "eager", "sdpa", "flash_attention_2", "flash_attention_3", "flex_attention")


class Binding:
    """A model's weights and numbers in the operators' form. Raises Declined for a model of an unsupported kind.

    num_heads, groups, eps, params: as torch.ops.squeezebert.encoder takes them. embedding: the last six arguments of
    embedding_layer_norm. pooler: weight and bias for grouped_conv1x1, or None. packed: the weights behind them.
    parameters: every parameter that the fast path reads. dtype: of the weights behind `packed`.
    """

    device_type = "cpu"

    def __init__(self, base: nn.Module, family: Family, dtype: torch.dtype) -> None:
        self.dtype = dtype
        self._family = family
        self._structure = StructureWatch()
        self._dropouts = StructureWatch()
        self._eps: float | None = None
        self._heads: int | None = None
        self._linears: list[Linear] = []
        self.parameters: list[Tensor] = []

        self._check_config(base.config)
        self.embedding = self._bind_embeddings(self._structure.child(base, "embeddings"))
        encoder = self._structure.child(base, "encoder")
        self._exactly(encoder, family.encoder, "encoder")
        layers = self._module(encoder, "encoder.", family.layers)
        self._layers, self._layer_count = layers._modules, len(layers._modules)
        if not self._layer_count:
            raise Declined("an encoder without layers")
        params: list[Any] = []
        for index in self._layers:
            params += self._bind_layer(f"encoder.{family.layers}.{index}", self._structure.child(layers, index))
        groups = [linear.groups for linear in self._linears]
        if groups != groups[:6] * self._layer_count:
            raise Declined("layers with different group counts")
        pooler = self._structure.child(base, "pooler")
        pooled = None if pooler is None else self._bind_pooler(pooler)

        self.packed = self._pack(self._linears)
        weights = iter(self._packed_weights())
        self.params = [next(weights) if param is None else param for param in params]
        self.pooler = None if pooled is None else (next(weights), pooled.bias)
        self.groups = groups[:6]
        self.num_heads = self._heads
        self.eps = self._eps

    def _watch_values(self, tensors: list[Tensor]) -> Any:
        """Something whose `holds` says that the tensors still have the values that they have now."""
        return ValueWatch(tensors)

    def _takes(self, value: Any) -> bool:
        """The kernels can read this parameter."""
        return reads_as_plain(value)

    def _pack(self, linears: list[Linear]) -> Any:
        return PackedLinears(linears, self.dtype)

    def _packed_weights(self) -> list[Tensor]:
        """What the operators take as the weight of each linear."""
        return self.packed.packed

    def holds(self) -> bool:
        """The model still has what was bound, and the kernels still take its packed form."""
        return (
            self._structure.holds()
            and len(self._layers) == self._layer_count
            and self._default_ids.holds()
            and not self.packed.stale
        )

    def check_quiet(self) -> None:
        """Raises Declined when the bypassed modules do more than compute: dropout in training mode, hooks."""
        if not self._dropouts.holds():
            raise Declined("a dropout is in training mode")
        if self._structure.hooked():
            raise Declined("a hook listens to a bypassed module")

    def requires_grad(self) -> bool:
        return any(map(_requires_grad, self.parameters))

    def _check_config(self, config: Any) -> None:
        for name in ("is_decoder", "is_causal", "add_cross_attention"):
            self._structure.attribute(config, name)
            if getattr(config, name, None):
                raise Declined(f"config.{name}")
        positions = getattr(config, "position_embedding_type", None)
        if positions not in (None, "absolute"):
            raise Declined(f"config.position_embedding_type {positions!r}")
        implementation = self._structure.attribute(config, "_attn_implementation_internal")
        if implementation not in _ATTENTIONS:
            raise Declined(f"config._attn_implementation {implementation!r}")

    def _module(self, root: nn.Module, where: str, path: str) -> nn.Module:
        """The module at `path` below `root`, watched at every step."""
        module: Any = root
        for name in path.split("."):
            module = self._structure.child(module, name)
            if module is None:
                raise Declined(f"{where}{path} is missing")
        return module

    def _exactly(self, module: Any, names: str, where: str) -> None:
        """`module` is of the class `names` (or one of several, spaced), so its forward is known, and will not be
        called: watch what hangs on it."""
        if not any(type(module) is self._family.named(name) for name in names.split()):
            raise Declined(f"{where} is a {type(module).__name__}, not a {names}")
        if "forward" in module.__dict__:
            raise Declined(f"{where} has a forward of its own")
        self._structure.bypass(module)

    def _read(self, module: nn.Module, name: str, where: str) -> Tensor:
        value = self._structure.parameter(module, name)
        if value is None:
            raise Declined(f"{where}.{name} is missing")
        if not self._takes(value):
            raise Declined(f"{where}.{name}: {value.dtype} on {value.device}")
        self.parameters.append(value)
        return value

    def _bind_embeddings(self, embeddings: Any) -> tuple[Any, ...]:
        self._exactly(embeddings, self._family.embeddings, "embeddings")
        self._default_ids = self._watch_values(self._bind_default_ids(embeddings))
        tables = []
        for name in ("word_embeddings", "position_embeddings", "token_type_embeddings"):
            table = self._structure.child(embeddings, name)
            self._exactly(table, "Embedding", f"embeddings.{name}")
            if table.max_norm is not None:
                raise Declined(f"embeddings.{name}.max_norm")
            tables.append(self._read(table, "weight", f"embeddings.{name}"))
        self._bind_dropout(embeddings, "embeddings", "dropout")
        norm = self._structure.child(embeddings, "LayerNorm")
        self._exactly(norm, "LayerNorm", "embeddings.LayerNorm")
        eps = self._structure.attribute(norm, "eps")
        return (*tables, *self._scale_and_shift(norm, "embeddings.LayerNorm"), eps)

    def _bind_default_ids(self, embeddings: nn.Module) -> list[Tensor]:
        """The buffers that transformers reads where a call gives no ids; the kernels count from 0 and take type 0."""
        ids = []
        for name, step in (("position_ids", 1), ("token_type_ids", 0)):
            buffer = self._structure.buffer(embeddings, name)
            if buffer is None:
                continue
            if buffer.device.type != self.device_type:
                raise Declined(f"embeddings.{name}: a buffer on {buffer.device}")
            usual = torch.arange(buffer.shape[-1], device=buffer.device) * step
            if not torch.equal(buffer, usual.expand(buffer.shape)):
                raise Declined(f"embeddings.{name}: a buffer of other values than usual")
            ids.append(buffer)
        return ids

    def _bind_layer(self, where: str, layer: nn.Module) -> list[Tensor | None]:
        """The sixteen params of a layer; None stands for a packed weight."""
        family = self._family
        for path, name in family.blocks.items():
            block = self._module(layer, f"{where}.", path) if path else layer
            self._exactly(block, name, f"{where}.{path}" if path else where)
        for path in family.dropouts:
            parent, _, name = path.rpartition(".")
            self._bind_dropout(self._module(layer, f"{where}.", parent), f"{where}.{parent}", name)
        self._bind_activation(layer, where)
        attention = self._module(layer, f"{where}.", family.linears[0].rpartition(".")[0])
        heads = self._structure.attribute(attention, family.heads)
        if self._heads not in (None, heads):
            raise Declined("layers with different numbers of heads")
        self._heads = heads
        head_size = self._structure.attribute(attention, "attention_head_size")
        scaling = self._structure.attribute(attention, "scaling")
        if scaling is not None and scaling != head_size**-0.5:
            raise Declined(f"{where}: scores scaled by {scaling}")
        for name in ("is_causal", "is_decoder"):
            if self._structure.attribute(attention, name):
                raise Declined(f"{where}: {name}")

        params: list[Tensor | None] = []
        for position, path in enumerate(family.linears):
            linear = self._bind_linear(self._module(layer, f"{where}.", path), f"{where}.{path}")
            params += (None, linear.bias)
            if position in (3, 5):  # post_attention and output end in a LayerNorm
                params += self._bind_norm(layer, where, family.norms[position == 5])
        if head_size is not None and head_size * heads != self._linears[-6].weight.shape[0]:
            raise Declined(f"{where}: {heads} heads of {head_size} channels")
        return params

    def _bind_activation(self, layer: nn.Module, where: str) -> None:
        path, name = self._family.activation
        block = self._module(layer, f"{where}.", path)
        act = self._structure.child(block, name) or self._structure.attribute(block, name)
        if isinstance(act, nn.Module):
            self._structure.bypass(act)
        # transformers wraps the function in a module, GELUActivation, whose `act` it is.
        function = act.act if type(act).__name__ == "GELUActivation" else act
        if function is not F.gelu and not (type(act) is nn.GELU and act.approximate == "none"):
            raise Declined(f"{where}.{path}.{name}: expected the exact GELU, got {act}")

    def _bind_linear(self, module: nn.Module, where: str) -> Linear:
        self._exactly(module, self._family.linear_class, where)
        groups = 1
        if isinstance(module, nn.Conv1d):
            if (module.kernel_size, module.stride, module.dilation) != ((1,), (1,), (1,)) or module.padding != (0,):
                raise Declined(f"{where} is not a position-wise convolution")
            groups = self._structure.attribute(module, "groups")
        linear = Linear(where, self._read(module, "weight", where), self._read(module, "bias", where), groups)
        if len(self._linears) % 6 < 4 and linear.weight.shape[0] != linear.weight.shape[1] * groups:
            raise Declined(f"{where} does not keep the number of channels")  # heads were pruned
        self._linears.append(linear)
        return linear

    def _bind_norm(self, layer: nn.Module, where: str, path: str) -> tuple[Tensor, Tensor]:
        norm = self._module(layer, f"{where}.", path)
        self._exactly(norm, self._family.norm_class, f"{where}.{path}")
        eps = self._structure.attribute(norm, "eps")
        if self._eps not in (None, eps):
            raise Declined("LayerNorms with different epsilons")
        self._eps = eps
        return self._scale_and_shift(norm, f"{where}.{path}")

    def _scale_and_shift(self, norm: nn.Module, where: str) -> tuple[Tensor, Tensor]:
        return self._read(norm, "weight", where), self._read(norm, "bias", where)

    def _bind_dropout(self, parent: nn.Module, where: str, name: str) -> None:
        dropout = self._structure.child(parent, name)
        if dropout is None:
            raise Declined(f"{where}.{name} is missing")
        self._structure.bypass(dropout)
        self._dropouts.expect(dropout, "training", False)

    def _bind_pooler(self, pooler: nn.Module) -> Linear:
        self._exactly(pooler, self._family.pooler, "pooler")
        dense = self._module(pooler, "pooler.", "dense")
        self._exactly(dense, "Linear", "pooler.dense")
        activation = self._structure.child(pooler, "activation")
        if activation is not None:
            self._exactly(activation, "Tanh", "pooler.activation")
        linear = Linear("pooler.dense", self._read(dense, "weight", "pooler"), self._read(dense, "bias", "pooler"), 1)
        self._linears.append(linear)
        return linear
