"""Reads a model of transformers into layers of weights and numbers, and watches that it stays what was read."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from operator import attrgetter
from types import FunctionType, MethodType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.module import _global_forward_hooks, _global_forward_pre_hooks
from torch.utils.hooks import RemovableHandle

from .._native import unchanged
from ..packed import FLOATS, Layer, Linear, Writes, reads_as_plain
from ..precision import LINEARS, POOLER, Precision
from .architectures import Family
from .request import Declined

_requires_grad = attrgetter("requires_grad")
_dtype = attrgetter("dtype")
_nothing = (lambda: None).__code__

# What transformers calls its own implementations of attention, which compute the same; other names are users' own.
_ATTENTIONS = (None, "eager", "sdpa", "flash_attention_2", "flash_attention_3", "flex_attention")
# Hooks that transformers leaves on blocks after it was once asked for hidden states; they do nothing unless asked.
_IDLE_HOOKS = "transformers.utils.output_capturing"
# What modules read of themselves when they are called, beside modules, parameters and `training`.
_HEADS = ("num_attention_heads", "num_heads", "attention_head_size", "scaling", "is_causal", "is_decoder")
_ATTRIBUTES = (*_HEADS, "act", "eps", "forward", "groups", "intermediate_act_fn", "max_norm")
_CONFIG = ("is_decoder", "is_causal", "add_cross_attention", "position_embedding_type", "_attn_implementation_internal")
_POSITION_WISE = {"kernel_size": (1,), "stride": (1,), "dilation": (1,), "padding": (0,)}


@dataclass(frozen=True)
class ReadLayer:
    """A layer: six linears in the operators' order, where one that cannot be packed is the module itself; weight and
    bias of both LayerNorms; the number of heads; eps; what attention is computed in. token_major: modules take
    [..., C], not [N, C, S]."""

    linears: list[Linear | nn.Module]
    norms: list[Tensor]
    heads: int
    eps: float
    attention: torch.dtype
    token_major: bool

    @property
    def whole(self) -> Layer | None:
        """None where a linear is a module."""
        linears = [linear for linear in self.linears if isinstance(linear, Linear)]
        return Layer(linears, self.norms, self.eps, self.attention) if len(linears) == len(self.linears) else None


class Reading:
    """A base model of `family` with the original forward of class `called`. precision: what its weights
    are packed as.

    `read` finds: embedding, the three tables, weight and bias of the LayerNorm, and eps. layers. pooler, or None.
    foreign: which linears run as their own modules, and why. parameters: all that the fast path reads. It raises
    Declined for a model of another kind; whether something has changed, a Reading can tell all the same.
    """

    embedding: tuple[Any, ...]
    layers: list[ReadLayer]
    names: list[str]
    pooler: Linear | None
    _unhooked_at = -1

    def __init__(self, base: nn.Module, called: type[nn.Module], family: Family, precision: Precision) -> None:
        self._family, self._precision = family, precision
        self.device = next(base.parameters()).device
        self.parameters: list[Tensor] = []
        self.foreign: dict[str, str] = {}
        self._config = vars(base.config)
        self._modules: dict[str, nn.Module] = {}
        self._foreign: list[nn.Module] = []
        within = "."
        for path, module in base.named_modules(remove_duplicate=False):
            if path and not path.startswith(within):
                self._modules[path] = module
                if self._is_foreign(path, module):
                    within = f"{path}."
        self._watch(base, called)

    def read(self) -> Reading:
        try:
            self._read()
        finally:
            self._dtypes = list(map(_dtype, self.parameters))
        return self

    def holds(self) -> bool:
        """The model still is what was read, but for the values of its parameters."""
        return self.same_modules() and unchanged(self._values, ()) and self._ids.holds()

    def same_modules(self) -> bool:
        """It computes the same of its parameters."""
        return unchanged(self._places, self._objects)

    def in_training(self) -> bool:
        """A dropout would drop something."""
        return not unchanged(self._modes, ())

    def refuse(self) -> None:
        """The model is declined as it is now."""
        self._weights = Writes(self.parameters)

    def refused_still(self) -> bool:
        """Nothing has changed of a model that was declined, its weights included."""
        return self.holds() and self._weights.holds()

    def keeps_dtypes(self) -> bool:
        return self._dtypes == list(map(_dtype, self.parameters))

    def requires_grad(self) -> bool:
        foreign = (parameter for module in self._foreign for parameter in module.parameters())
        return any(map(_requires_grad, self.parameters)) or any(map(_requires_grad, foreign))

    def hooked(self) -> bool:
        """Someone listens to a module that is not called."""
        # Every hook that is registered gets a number: while none was given out, there is none where there was none.
        last = RemovableHandle.next_id
        if last == self._unhooked_at:
            return False
        listens = any(self._hooks) and any(
            getattr(hook, "__module__", None) != _IDLE_HOOKS for hooks in self._hooks for hook in hooks.values()
        )
        if not listens:
            self._unhooked_at = last
        return listens

    # ---- watching ----------------------------------------------------------------------------------------------------

    def _watch(self, base: Any, called: type[nn.Module]) -> None:
        """Notes where everything is that the original forward would read or call, as `unchanged` takes it."""
        places: list[Any] = []
        values: list[Any] = []
        objects: list[Any] = []
        modes: list[Any] = []
        # Hooks on every module there is come first: register_module_forward_hook of torch.nn.modules.module.
        self._hooks: list[Any] = [_global_forward_hooks, _global_forward_pre_hooks]
        for path, module in {"": base, **self._modules}.items():
            if path:
                self._hooks += (module._forward_hooks, module._forward_pre_hooks)
            if module in self._foreign:
                continue
            own = vars(module)
            places += _items(module._modules, module._modules)
            if not path:
                continue  # its other attributes hold us
            objects += (
                module,
                type(module),
                module._modules,
                len(module._modules),
                module,
                type(module),
                own,
                len(own),
            )
            places += _items(module._buffers, module._buffers)
            places += _items(own, own.keys() & _ATTRIBUTES)
            values += _items(module._parameters, module._parameters)
            if path.endswith("dropout"):
                modes += (own, "training", False)
        places += _items(self._config, _CONFIG)
        interface = getattr(sys.modules.get(self._family.modules[0]), "ALL_ATTENTION_FUNCTIONS", None)
        for mapping in (getattr(interface, "_global_mapping", None), getattr(interface, "_local_mapping", None)):
            if isinstance(mapping, dict):
                places += _items(mapping, [self._config.get("_attn_implementation_internal") or "eager"])
        for kind in {called, *objects[1::4]}:
            places += _functions(kind)
        self._places, self._values, self._objects = tuple(places), tuple(values), tuple(objects)
        self._modes = tuple(modes)
        buffers = self._buffers()
        self._ids = Writes([x for x in buffers.values() if reads_as_plain(x, self.device)])

    def _buffers(self) -> dict[str, Any]:
        embeddings = self._modules.get("embeddings")
        return {} if embeddings is None else {k: v for k, v in embeddings._buffers.items() if v is not None}

    # ---- reading -----------------------------------------------------------------------------------------------------

    def _is_foreign(self, path: str, module: Any) -> bool:
        """A linear layer of another kind than the kernels', that runs as it is."""
        in_layer = re.fullmatch(rf"{re.escape(self._family.layers)}\.\d+\.(.+)", path)
        if not in_layer or in_layer[1] not in self._family.linears:
            return False
        if type(module) is self._family.named(self._family.linear) and module.bias is not None:
            return False
        self.foreign[path] = f"is a {_name(type(module), self._family.linear)}"
        self._foreign.append(module)
        return True

    def _read(self) -> None:
        self._check_config()
        for path, module in self._modules.items():
            if path not in self.foreign and not path.endswith(("dropout", self._family.activation)):
                self._check_class(path, module)
        self._check_default_ids()
        tables = [self._value(f"embeddings.{kind}_embeddings", "weight") for kind in ("word", "position", "token_type")]
        for path, module in self._modules.items():
            if getattr(module, "max_norm", None) is not None:
                raise Declined(f"{path}.max_norm")
        self.embedding = (*tables, *self._norm("embeddings.LayerNorm"))
        count = len(self._module(self._family.layers)._modules)
        if not count:
            raise Declined("an encoder without layers")
        self.names = [f"{self._family.layers}.{index}" for index in range(count)]
        self.layers = [self._layer(index, name) for index, name in enumerate(self.names)]
        if not any(isinstance(linear, Linear) for layer in self.layers for linear in layer.linears):
            path, reason = next(iter(self.foreign.items()))
            raise Declined(f"{path} {reason}, and so are all others")
        self.pooler = self._linear("pooler.dense", POOLER) if "pooler" in self._modules else None

    def _check_config(self) -> None:
        for name in ("is_decoder", "is_causal", "add_cross_attention"):
            if self._config.get(name):
                raise Declined(f"config.{name}")
        positions = self._config.get("position_embedding_type")
        if positions not in (None, "absolute"):
            raise Declined(f"config.position_embedding_type {positions!r}")
        implementation = self._config.get("_attn_implementation_internal")
        if implementation not in _ATTENTIONS:
            raise Declined(f"config._attn_implementation {implementation!r}")

    def _check_class(self, path: str, module: nn.Module) -> None:
        if not self._family.knows(type(module)):
            raise Declined(f"{path} is a {_name(type(module), self._family.classes)}")
        own = vars(module).get("forward")
        # transformers 4 leaves a block's own forward on it when it was once asked for hidden states.
        theirs = isinstance(own, MethodType) and own.__self__ is module and own.__func__ is type(module).forward
        if own is not None and not theirs:
            raise Declined(f"{path} has a forward of its own")

    def _check_default_ids(self) -> None:
        """The buffers that transformers reads where a call gives no ids; the kernels count from 0 and take type 0."""
        for name, buffer in self._buffers().items():
            usual = torch.arange(buffer.shape[-1], device=buffer.device) * (name == "position_ids")
            if not reads_as_plain(buffer, self.device):
                raise Declined(f"embeddings.{name}: a buffer on {buffer.device}")
            if not torch.equal(buffer, usual.expand(buffer.shape)):
                raise Declined(f"embeddings.{name}: a buffer of other values than usual")

    def _module(self, path: str) -> Any:
        module = self._modules.get(path)
        if module is None:
            raise Declined(f"{path} is missing")
        return module

    def _value(self, path: str, name: str) -> Tensor:
        value = self._module(path)._parameters.get(name)
        if value is None:
            raise Declined(f"{path}.{name} is missing")
        if reads_as_plain(value, value.device):
            self.parameters.append(value)
        if not reads_as_plain(value, self.device) or value.dtype not in FLOATS:
            raise Declined(f"{path}.{name}: {value.dtype} on {value.device}")
        return value

    def _layer(self, index: int, name: str) -> ReadLayer:
        self._check_activation(name)
        linears = [
            self._linear_or_module(f"{name}.{path}", f"layer.{index}.{part}")
            for part, path in zip(LINEARS, self._family.linears, strict=True)
        ]
        for linear in linears[:4]:
            if isinstance(linear, Linear) and linear.weight.shape[0] != linear.weight.shape[1] * linear.groups:
                raise Declined(f"{linear.name} does not keep the number of channels")  # heads were pruned
        norms = [self._norm(f"{name}.{path}") for path in self._family.norms]
        if norms[0][2] != norms[1][2]:
            raise Declined(f"{name}: LayerNorms with different epsilons")
        heads = self._heads(f"{name}.{self._family.linears[0].rpartition('.')[0]}", norms[0][0].shape[0])
        token_major = self._family.linear != "Conv1d"
        attention = self._precision.dtype_of(f"layer.{index}.attention")
        return ReadLayer(linears, [*norms[0][:2], *norms[1][:2]], heads, norms[0][2], attention, token_major)

    def _heads(self, path: str, channels: int) -> int:
        attention = vars(self._module(path))
        heads, size, scaling = (attention.get(x) for x in (self._family.heads, "attention_head_size", "scaling"))
        if size is not None and size * heads != channels:
            raise Declined(f"{path}: {heads} heads of {size} channels")
        if scaling is not None and scaling != size**-0.5:
            raise Declined(f"{path}: scores scaled by {scaling}")
        for name in ("is_causal", "is_decoder"):
            if attention.get(name):
                raise Declined(f"{path}: {name}")
        return heads

    def _check_activation(self, name: str) -> None:
        path = f"{name}.{self._family.activation}"
        block, _, attribute = path.rpartition(".")
        act = getattr(self._module(block), attribute, None)
        # transformers wraps the function in a module, GELUActivation, whose `act` it is.
        function = vars(act).get("act") if type(act).__name__ == "GELUActivation" else act
        if function is not F.gelu and not (type(act) is nn.GELU and act.approximate == "none"):
            raise Declined(f"{path}: expected the exact GELU, got {act}")

    def _linear_or_module(self, path: str, part: str) -> Linear | nn.Module:
        return self._module(path) if path in self.foreign else self._linear(path, part)

    def _linear(self, path: str, part: str) -> Linear:
        """part: what `Precision` calls it."""
        module = self._module(path)
        numbers = [getattr(module, name, own) for name, own in _POSITION_WISE.items()]
        if isinstance(module, nn.Conv1d) and numbers != list(_POSITION_WISE.values()):
            raise Declined(f"{path} is not a position-wise convolution")
        groups = vars(module).get("groups", 1)
        dtype = self._precision.dtype_of(part)
        return Linear(path, self._value(path, "weight"), self._value(path, "bias"), groups, dtype)

    def _norm(self, path: str) -> tuple[Tensor, Tensor, float]:
        return self._value(path, "weight"), self._value(path, "bias"), vars(self._module(path))["eps"]


def _items(owner: Any, keys: Iterable[str]) -> Iterator[Any]:
    """Owner, key and value of the items at `keys`, one after the other."""
    for key in keys:
        yield from (owner, key, owner.get(key))


def _functions(kind: type[nn.Module]) -> Iterator[Any]:
    """Owner, name and value of the functions of `kind` and of its module that its forward uses, one after the other."""
    names, seen = ["forward"], {"forward"}
    while names:
        name = names.pop()
        yield from (kind, name, getattr(kind, name))
        function = inspect.unwrap(getattr(kind, name))
        for used in getattr(function, "__code__", _nothing).co_names:
            if used not in seen and isinstance(inspect.getattr_static(kind, used, None), FunctionType):
                seen.add(used)
                names.append(used)
            elif isinstance(function.__globals__.get(used), FunctionType):
                yield from _items(function.__globals__, [used])


def _name(kind: type, expected: str) -> str:
    """The name of a class, with its module where the name alone says nothing."""
    return f"{kind.__module__}.{kind.__qualname__}" if kind.__name__ in expected.split() else kind.__name__
