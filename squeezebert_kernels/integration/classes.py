"""The classes of optimized modules: subclasses of their own, of the same name, with our forward.

Class, and not instance: accelerate's wrappers, DataParallel's replicas, copies, signatures and hooks then work as ever.
"""

from __future__ import annotations

import functools
import inspect
from typing import Any

import torch
from torch import Tensor, nn

from .forward import ORIGINAL, STATE, BaseState, original_class


class _OptimizedClass(type):
    """Instances are made of the original class: type(model).from_pretrained, type(model)(config)."""

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        return getattr(cls, ORIGINAL)(*args, **kwargs)


class _Optimized:
    """What all of them share: they are copied and pickled as their original class, and the copy is optimized again."""

    def __reduce_ex__(self: Any, protocol: Any) -> Any:
        reduced: Any = super().__reduce_ex__(protocol)
        _, _, state, *rest = reduced
        kept = {name: value for name, value in state.items() if name != STATE}
        ours = vars(self)[STATE]
        return (_revive, (original_class(self), type(ours), ours.options), kept, *rest)


class _OptimizedBase(_Optimized):
    """A base model, whose weights may be released, and which torch.compile is to see as one operator."""

    def _opaque_call(self, *arguments: Any) -> list[Tensor]:
        return vars(self)[STATE].opaque_call(self, *arguments)

    def _opaque_like(self, *arguments: Any) -> list[Tensor]:
        return vars(self)[STATE].opaque_like(self, *arguments)

    def __reduce_ex__(self, protocol: Any) -> Any:
        make, arguments, state, *rest = super().__reduce_ex__(protocol)
        return (make, arguments, {**state, _WEIGHTS: _released(self)}, *rest)

    def __setstate__(self, state: dict[str, Any]) -> None:
        weights = state.pop(_WEIGHTS, {})
        super().__setstate__(state)  # type: ignore[misc]
        for name, value in weights.items():
            self.get_parameter(name).data = value  # type: ignore[attr-defined]

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        state = super().state_dict(*args, **kwargs)  # type: ignore[misc]
        prefix = kwargs.get("prefix", args[1] if len(args) > 1 else "")
        for name, value in _released(self).items():
            state[prefix + name] = value
        return state

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        vars(self)[STATE].give_back()
        super()._load_from_state_dict(*args, **kwargs)  # type: ignore[misc]

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        state = vars(self)[STATE]
        before = _places(self)
        with torch.no_grad():
            probe = min(self.parameters(), key=Tensor.numel)  # type: ignore[attr-defined]
            if state.released and fn(probe).data_ptr() != probe.data_ptr():
                state.give_back()
        result = super()._apply(fn, recurse)  # type: ignore[misc]
        if _places(self) != before:
            state.forget()
        return result


_WEIGHTS = "_squeezebert_released"


def attach(module: nn.Module, state: Any) -> None:
    """Makes `module` an optimized one. state: a BaseState or HeadState."""
    kind: Any = original_class(module)
    vars(module)[STATE] = state
    object.__setattr__(module, "__class__", _optimized_class(kind, isinstance(state, BaseState)))
    state.adopt(module)


def detach(module: nn.Module) -> None:
    """Makes `module` what it was. Leaves others alone."""
    state = state_of(module)
    if state is not None:
        if isinstance(state, BaseState):
            state.give_back()
        object.__setattr__(module, "__class__", original_class(module))
        del vars(module)[STATE]


def state_of(module: nn.Module) -> Any:
    """Its BaseState or HeadState, None of a module that is not optimized."""
    return vars(module).get(STATE)


@functools.cache
def _optimized_class(original: Any, is_base: bool) -> Any:
    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        state = getattr(self, STATE, None)
        if state is None:  # someone made an instance of this class, or kept this function of a restored one
            return original.forward(self, *args, **kwargs)
        return state(self, original, args, kwargs)

    ours: Any = functools.update_wrapper(forward, original.forward)
    del ours.__wrapped__  # accelerate unwraps forwards, past this one
    ours.__signature__ = inspect.signature(original.forward)
    mixin = _OptimizedBase if is_base else _Optimized
    same = {name: getattr(original, name) for name in ("__module__", "__qualname__", "__doc__")}
    kind = type("OptimizedClass", (_OptimizedClass, type(original)), {})
    return kind(original.__name__, (mixin, original), {"forward": forward, ORIGINAL: original, **same})


def _revive(original: type[nn.Module], state: type, options: tuple[Any, ...]) -> nn.Module:
    module = original.__new__(original)
    attach(module, state(*options))
    return module


def _places(module: Any) -> list[tuple[int, torch.dtype, torch.device]]:
    return [(parameter.data_ptr(), parameter.dtype, parameter.device) for parameter in module.parameters()]


def _released(module: Any) -> dict[str, Tensor]:
    """The values of the released weights of a base model, by name."""
    values = vars(module)[STATE].released_weights()
    named = module.named_parameters(remove_duplicate=False)
    return {name: values[id(parameter)] for name, parameter in named if id(parameter) in values} if values else {}
