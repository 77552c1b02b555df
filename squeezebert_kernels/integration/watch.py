"""Notices that a model is no longer what it was: a module, an attribute, a function or a weight's values changed.

The fast path bypasses modules and reads packed copies of their weights, so before each call it has to know that both
are still true to the model. Each check is a pass over flat tuples whose loop runs in C.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from operator import attrgetter, is_
from types import FunctionType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import _global_forward_hooks, _global_forward_pre_hooks
from torch.utils.hooks import RemovableHandle

_nothing = (lambda: None).__code__
_version = attrgetter("_version")
_get: Callable[[Mapping[str, Any], str], Any] = dict.get  # type: ignore[assignment]

# Hooks that transformers leaves on blocks after it was once asked for hidden states; they do nothing unless asked.
_IDLE_HOOKS = "transformers.utils.output_capturing"


class Places:
    """Remembers which object sits at which key of which dictionary."""

    def __init__(self) -> None:
        self._owners: list[Mapping[str, Any]] = []
        self._keys: list[str] = []
        self._values: list[Any] = []
        self._known: set[tuple[int, str]] = set()

    def at(self, owner: Mapping[str, Any], key: str) -> Any:
        """What sits there, None where nothing does; watched from now on."""
        value = owner.get(key)
        self.expect(owner, key, value)
        return value

    def expect(self, owner: Mapping[str, Any], key: str, value: Any) -> None:
        """`value` is to sit there, whatever does so now."""
        if (id(owner), key) not in self._known:
            self._known.add((id(owner), key))
            self._owners.append(owner)
            self._keys.append(key)
            self._values.append(value)

    def holds(self) -> bool:
        """Every object is where it was."""
        return all(map(is_, map(_get, self._owners, self._keys), self._values))


class Watch(Places):
    """What a reading rests on: places, the modules that are not called, the functions of their classes, and hooks."""

    def __init__(self) -> None:
        super().__init__()
        self._modules: list[nn.Module] = []
        # Hooks on every module there is come first: register_module_forward_hook of torch.nn.modules.module.
        self._hooks: list[Mapping[int, Any]] = [_global_forward_hooks, _global_forward_pre_hooks]
        self._unhooked_at = -1

    def bypass(self, module: nn.Module) -> None:
        """`module` will not be called: watch its class, a forward that it is given, and its hooks."""
        self._modules.append(module)
        self.listen(module)

    def listen(self, module: nn.Module) -> None:
        """Hooks on `module` count."""
        self._hooks += (module._forward_hooks, module._forward_pre_hooks)

    def seal(self, called: type[nn.Module]) -> None:
        """All is said. Watches the functions behind the forward of the bypassed modules' classes and of `called`."""
        self._dictionaries = tuple(map(vars, self._modules))
        self._looked = self._look()
        self._kinds: list[type] = []
        self._names: list[str] = []
        for kind in {called, *self._looked[0]}:
            self._read_functions(kind)
        self._found = tuple(map(getattr, self._kinds, self._names))

    def holds(self) -> bool:
        return (
            super().holds()
            and self._look() == self._looked
            and all(map(is_, map(getattr, self._kinds, self._names), self._found))
        )

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

    def _look(self) -> tuple[tuple[type, ...], tuple[int, ...]]:
        """Classes, and how many attributes: a forward that an instance is given is one more."""
        return tuple(map(type, self._modules)), tuple(map(len, self._dictionaries))

    def _read_functions(self, kind: type[nn.Module]) -> None:
        """Watches the functions of `kind` and of its module that its forward uses."""
        names, seen = ["forward"], {"forward"}
        while names:
            name = names.pop()
            self._kinds.append(kind)
            self._names.append(name)
            function = inspect.unwrap(getattr(kind, name))
            for used in getattr(function, "__code__", _nothing).co_names:
                if used not in seen and isinstance(inspect.getattr_static(kind, used, None), FunctionType):
                    seen.add(used)
                    names.append(used)
                elif isinstance(function.__globals__.get(used), FunctionType):
                    self.at(function.__globals__, used)


class Writes:
    """Notices new values in `tensors` where PyTorch counts them: another storage, or an in-place write.

    Writes through `.data` or NumPy, and those into inference tensors, are not counted.
    """

    def __init__(self, tensors: list[Tensor]) -> None:
        self._tensors = tensors
        self._counted = [tensor for tensor in tensors if not tensor.is_inference()]
        self.accept(self.look())

    def look(self) -> tuple[list[int], list[int]]:
        """What to compare, and to `accept`: addresses, and versions of those that count."""
        return list(map(Tensor.data_ptr, self._tensors)), list(map(_version, self._counted))

    def accept(self, seen: tuple[list[int], list[int]]) -> None:
        """The values as of `seen`, which was looked at before they were read, are known."""
        self._seen = seen
        # While these live, no other storage comes to lie at their addresses.
        self._alive = [tensor.detach() for tensor in self._tensors]

    def holds(self) -> bool:
        return self.look() == self._seen

    def changed(self, now: tuple[list[int], list[int]]) -> list[int]:
        """The indices of the tensors that `now` differs in from what was accepted."""
        moved = {i for i, (a, b) in enumerate(zip(now[0], self._seen[0], strict=True)) if a != b}
        written = {id(tensor) for tensor, a, b in zip(self._counted, now[1], self._seen[1], strict=True) if a != b}
        return [i for i, tensor in enumerate(self._tensors) if i in moved or id(tensor) in written]


def reads_as_plain(value: Any, device: torch.device) -> bool:
    """`value` is an ordinary dense tensor on `device`: no subclass, fake or functorch wrapper."""
    return (
        type(value) in (nn.Parameter, Tensor)
        and value.device == device
        and value.layout == torch.strided
        and not torch._C._functorch.is_functorch_wrapped_tensor(value)
    )
