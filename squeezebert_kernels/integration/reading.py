"""Reads a model of transformers into layers of weights and numbers, and watches where each was found."""

from __future__ import annotations

import sys
from operator import attrgetter
from types import MethodType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .architectures import Family
from .layers import Layer
from .packed import FLOATS, Linear
from .padding import Declined
from .watch import Places, Watch, Writes, reads_as_plain

_requires_grad = attrgetter("requires_grad")
_dtype = attrgetter("dtype")

# What transformers calls its own implementations of attention, which compute the same; other names are users' own.
_ATTENTIONS = (None, "eager", "sdpa", "flash_attention_2", "flash_attention_3", "flex_attention")


class Reading:
    """A model of `family`, read. Raises Declined for one of another kind; `watch` then still knows what was read.

    embedding: the three tables, weight and bias of the LayerNorm, and eps. layers, names: of each. pooler: or None.
    foreign: which linears run as their own modules, and why. parameters: all that the fast path reads.
    watch: that modules, numbers and functions are still what they were; values: and parameters. modes: that no dropout
    was put in training mode.
    """

    def __init__(self, family: Family, device: torch.device) -> None:
        self.watch, self.values, self.modes = Watch(), Places(), Places()
        self.parameters: list[Tensor] = []
        self.foreign: dict[str, str] = {}
        self._foreign_modules: list[nn.Module] = []
        self._default_ids: list[Tensor] = []
        self._family, self._device = family, device

    def read(self, base: nn.Module, called: type[nn.Module]) -> Reading:
        """called: the class of `base` whose forward is the original."""
        try:
            self._read(base)
        finally:
            self._ids = Writes(self._default_ids)
            self.watch.seal(called)
            self._dtypes = list(map(_dtype, self.parameters))
        return self

    def holds(self) -> bool:
        return self.watch.holds() and self.values.holds() and self._ids.holds()

    def refuse(self) -> None:
        """The model is declined as it is now."""
        self._weights = Writes(self.parameters)

    def refused_still(self) -> bool:
        """Nothing has changed of a model that was declined, its weights included."""
        return self.holds() and self._weights.holds()

    def keeps_dtypes(self) -> bool:
        return self._dtypes == list(map(_dtype, self.parameters))

    def requires_grad(self) -> bool:
        foreign = (parameter for module in self._foreign_modules for parameter in module.parameters())
        return any(map(_requires_grad, self.parameters)) or any(map(_requires_grad, foreign))

    def _read(self, base: nn.Module) -> None:
        self._check_config(base.config)
        self.embedding = self._read_embeddings(self._child(base, "embeddings"))
        encoder = self._child(base, "encoder")
        self._exactly(encoder, self._family.encoder, "encoder")
        layers = self._module(encoder, "encoder.", self._family.layers)
        indices = list(layers._modules)
        if not indices:
            raise Declined("an encoder without layers")
        self.watch.at(layers._modules, str(len(indices)))  # one more, later
        self.names = [f"encoder.{self._family.layers}.{index}" for index in indices]
        self.layers = [
            self._read_layer(name, self._child(layers, index)) for name, index in zip(self.names, indices, strict=True)
        ]
        if not any(isinstance(linear, Linear) for layer in self.layers for linear in layer.linears):
            where, reason = next(iter(self.foreign.items()))
            raise Declined(f"{where} {reason}, and so are all others")
        pooler = self._child(base, "pooler")
        self.pooler = None if pooler is None else self._read_pooler(pooler)

    def _check_config(self, config: Any) -> None:
        for name in ("is_decoder", "is_causal", "add_cross_attention"):
            if self.watch.at(vars(config), name):
                raise Declined(f"config.{name}")
        positions = getattr(config, "position_embedding_type", None)
        if positions not in (None, "absolute"):
            raise Declined(f"config.position_embedding_type {positions!r}")
        implementation = self.watch.at(vars(config), "_attn_implementation_internal")
        if implementation not in _ATTENTIONS:
            raise Declined(f"config._attn_implementation {implementation!r}")
        interface = getattr(sys.modules.get(self._family.modules[0]), "ALL_ATTENTION_FUNCTIONS", None)
        for name in ("_global_mapping", "_local_mapping"):
            if isinstance(getattr(interface, name, None), dict):
                self.watch.at(getattr(interface, name), implementation or "eager")

    def _child(self, module: nn.Module, name: str) -> Any:
        return self.watch.at(module._modules, name)

    def _module(self, root: nn.Module, where: str, path: str) -> nn.Module:
        """The module at `path` below `root`, watched at every step."""
        module: Any = root
        for name in path.split("."):
            module = self._child(module, name)
            if module is None:
                raise Declined(f"{where}{path} is missing")
        return module

    def _exactly(self, module: Any, names: str, where: str) -> None:
        """`module` is of the class `names` (or one of several, spaced), so its forward is known, and will not be
        called: watch what hangs on it."""
        if not any(type(module) is self._family.named(name) for name in names.split()):
            raise Declined(f"{where} is a {_name(type(module), names)}, not a {names}")
        own = vars(module).get("forward")
        # transformers 4 leaves a block's own forward on it when it was once asked for hidden states.
        if own is not None and not (
            isinstance(own, MethodType)
            and own.__self__ is module
            and own.__func__ is getattr(type(module), "forward", None)
        ):
            raise Declined(f"{where} has a forward of its own")
        if own is not None:  # that there is none, `bypass` watches
            self.watch.at(vars(module), "forward")
        self.watch.bypass(module)

    def _value(self, module: nn.Module, name: str, where: str) -> Tensor:
        value = self.values.at(module._parameters, name)
        if value is None:
            raise Declined(f"{where}.{name} is missing")
        if reads_as_plain(value, value.device):
            self.parameters.append(value)
        if not reads_as_plain(value, self._device) or value.dtype not in FLOATS:
            raise Declined(f"{where}.{name}: {value.dtype} on {value.device}")
        return value

    def _read_embeddings(self, embeddings: Any) -> tuple[Any, ...]:
        self._exactly(embeddings, self._family.embeddings, "embeddings")
        self._read_default_ids(embeddings)
        tables = []
        for name in ("word_embeddings", "position_embeddings", "token_type_embeddings"):
            table = self._child(embeddings, name)
            self._exactly(table, "Embedding", f"embeddings.{name}")
            if self.watch.at(vars(table), "max_norm") is not None:
                raise Declined(f"embeddings.{name}.max_norm")
            tables.append(self._value(table, "weight", f"embeddings.{name}"))
        self._read_dropout(embeddings, "embeddings", "dropout")
        return (*tables, *self._read_norm(embeddings, "embeddings.", "LayerNorm", "LayerNorm"))

    def _read_default_ids(self, embeddings: nn.Module) -> None:
        """The buffers that transformers reads where a call gives no ids; the kernels count from 0 and take type 0."""
        for name, step in (("position_ids", 1), ("token_type_ids", 0)):
            buffer = self.watch.at(embeddings._buffers, name)
            if buffer is None:
                continue
            if not reads_as_plain(buffer, self._device):
                raise Declined(f"embeddings.{name}: a buffer on {buffer.device}")
            self._default_ids.append(buffer)
            usual = torch.arange(buffer.shape[-1], device=buffer.device) * step
            if not torch.equal(buffer, usual.expand(buffer.shape)):
                raise Declined(f"embeddings.{name}: a buffer of other values than usual")

    def _read_layer(self, where: str, layer: nn.Module) -> Layer:
        family = self._family
        for path, name in family.blocks.items():
            block = self._module(layer, f"{where}.", path) if path else layer
            self._exactly(block, name, f"{where}.{path}" if path else where)
        for path in family.dropouts:
            parent, _, name = path.rpartition(".")
            self._read_dropout(self._module(layer, f"{where}.", parent), f"{where}.{parent}", name)
        self._check_activation(layer, where)
        linears = [self._read_linear(layer, where, index, path) for index, path in enumerate(family.linears)]
        norms, eps = [], set()
        for path in family.norms:
            *values, epsilon = self._read_norm(layer, f"{where}.", path, family.norm_class)
            norms += values
            eps.add(epsilon)
        if len(eps) > 1:
            raise Declined(f"{where}: LayerNorms with different epsilons")
        heads = self._read_heads(layer, where, norms[0].shape[0])
        return Layer(linears, norms, heads, eps.pop(), family.linear_class != "Conv1d")

    def _read_heads(self, layer: nn.Module, where: str, channels: int) -> int:
        path = self._family.linears[0].rpartition(".")[0]
        attention = vars(self._module(layer, f"{where}.", path))
        heads = self.watch.at(attention, self._family.heads)
        size = self.watch.at(attention, "attention_head_size")
        if size is not None and size * heads != channels:
            raise Declined(f"{where}: {heads} heads of {size} channels")
        scaling = self.watch.at(attention, "scaling")
        if scaling is not None and scaling != size**-0.5:
            raise Declined(f"{where}: scores scaled by {scaling}")
        for name in ("is_causal", "is_decoder"):
            if self.watch.at(attention, name):
                raise Declined(f"{where}: {name}")
        return heads

    def _check_activation(self, layer: nn.Module, where: str) -> None:
        path, name = self._family.activation
        block = self._module(layer, f"{where}.", path)
        act = self._child(block, name) or self.watch.at(vars(block), name)
        if isinstance(act, nn.Module):
            self.watch.bypass(act)
        # transformers wraps the function in a module, GELUActivation, whose `act` it is.
        function = self.watch.at(vars(act), "act") if type(act).__name__ == "GELUActivation" else act
        if function is not F.gelu and not (type(act) is nn.GELU and act.approximate == "none"):
            raise Declined(f"{where}.{path}.{name}: expected the exact GELU, got {act}")

    def _read_linear(self, layer: nn.Module, where: str, index: int, path: str) -> Linear | nn.Module:
        module = self._module(layer, f"{where}.", path)
        where = f"{where}.{path}"
        kind = self._family.linear_class
        if type(module) is not self._family.named(kind) or module.bias is None:
            self.foreign[where] = f"is a {_name(type(module), kind)}"
            self._foreign_modules.append(module)
            self.watch.listen(module)
            return module
        linear = self._linear(module, kind, where)
        if index < 4 and linear.weight.shape[0] != linear.weight.shape[1] * linear.groups:
            raise Declined(f"{where} does not keep the number of channels")  # heads were pruned
        return linear

    def _linear(self, module: nn.Module, kind: str, where: str) -> Linear:
        self._exactly(module, kind, where)
        groups = 1
        if isinstance(module, nn.Conv1d):
            if (module.kernel_size, module.stride, module.dilation) != ((1,), (1,), (1,)) or module.padding != (0,):
                raise Declined(f"{where} is not a position-wise convolution")
            groups = self.watch.at(vars(module), "groups")
        return Linear(where, self._value(module, "weight", where), self._value(module, "bias", where), groups)

    def _read_norm(self, root: nn.Module, where: str, path: str, kind: str) -> tuple[Tensor, Tensor, float]:
        norm = self._module(root, where, path)
        where = f"{where}{path}"
        self._exactly(norm, kind, where)
        return self._value(norm, "weight", where), self._value(norm, "bias", where), self.watch.at(vars(norm), "eps")

    def _read_dropout(self, parent: nn.Module, where: str, name: str) -> None:
        dropout = self._child(parent, name)
        if dropout is None:
            raise Declined(f"{where}.{name} is missing")
        self.watch.bypass(dropout)
        self.modes.expect(vars(dropout), "training", False)

    def _read_pooler(self, pooler: nn.Module) -> Linear:
        self._exactly(pooler, self._family.pooler, "pooler")
        activation = self._child(pooler, "activation")
        if activation is not None:
            self._exactly(activation, "Tanh", "pooler.activation")
        return self._linear(self._module(pooler, "pooler.", "dense"), "Linear", "pooler.dense")


def _name(kind: type, expected: str) -> str:
    """The name of a class, with its module where the name alone says nothing."""
    return f"{kind.__module__}.{kind.__qualname__}" if kind.__name__ in expected.split() else kind.__name__
