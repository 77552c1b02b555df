"""Notices that a model is no longer what it was: a module, a parameter, a hook or a weight's values changed.

The fast path bypasses modules and reads packed copies of their weights, so before each call it has to know that both
are still true to the model. The checks are a few passes over flat lists, a few tens of microseconds for twelve layers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from operator import attrgetter, is_
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.module import _global_forward_hooks, _global_forward_pre_hooks

_version = attrgetter("_version")
_get: Callable[[Mapping[str, Any], str], Any] = dict.get  # type: ignore[assignment]

# Hooks that transformers leaves on blocks after it was once asked for hidden states; they do nothing unless asked.
_IDLE_HOOKS = "transformers.utils.output_capturing"


class StructureWatch:
    """Remembers which objects sit where (dictionary, key -> object), and the hooks of the modules passed by."""

    def __init__(self) -> None:
        self._owners: list[Mapping[str, Any]] = []
        self._keys: list[str] = []
        self._values: list[Any] = []
        # Hooks on every module there is come first: register_module_forward_hook of torch.nn.modules.module.
        self._hooks: list[Mapping[int, Any]] = [_global_forward_hooks, _global_forward_pre_hooks]

    def child(self, module: nn.Module, name: str) -> Any:
        """The submodule `name` of `module`, None where there is none; watched from now on."""
        return self._watch(module._modules, name)

    def parameter(self, module: nn.Module, name: str) -> Any:
        """The parameter `name` of `module`, None where there is none (or a parametrization makes it)."""
        return self._watch(module._parameters, name)

    def buffer(self, module: nn.Module, name: str) -> Any:
        """The buffer `name` of `module`, None where there is none; watched from now on."""
        return self._watch(module._buffers, name)

    def attribute(self, module: Any, name: str) -> Any:
        """A plain attribute (eps, groups) of `module` or config, None where the instance has none."""
        return self._watch(vars(module), name)

    def expect(self, module: nn.Module, name: str, value: bool | None) -> None:
        """The attribute `name` is to be `value`, whatever it is now."""
        self._watch(vars(module), name)
        self._values[-1] = value

    def bypass(self, module: nn.Module) -> None:
        """`module` will not be called: watch for hooks and for a replaced forward."""
        self._watch(module.__dict__, "forward")
        self._hooks += (module._forward_hooks, module._forward_pre_hooks)

    def _watch(self, owner: Mapping[str, Any], key: str) -> Any:
        value = owner.get(key)
        self._owners.append(owner)
        self._keys.append(key)
        self._values.append(value)
        return value

    def holds(self) -> bool:
        """Every object is where it was."""
        return all(map(is_, map(_get, self._owners, self._keys), self._values))

    def hooked(self) -> bool:
        """Someone listens to a module that the fast path does not call."""
        if not any(self._hooks):
            return False
        return any(getattr(hook, "__module__", None) != _IDLE_HOOKS for hooks in self._hooks for hook in hooks.values())


class ValueWatch:
    """Notices new values in `weights`: another storage, a counted in-place write, or other bytes at sampled places.

    PyTorch counts in-place writes (optimizers, `load_state_dict`, `nn.init`) in a tensor's version. It does not count
    those through `.data` or NumPy, nor any on inference tensors; hence the samples, 4 x 16 elements of each weight:
    they notice whatever rewrites a whole tensor, as averaging and copying loops do, but not a write that leaves all of
    them as they were.
    """

    def __init__(self, weights: list[Tensor]) -> None:
        self._weights = weights
        self._counted = [weight for weight in weights if not weight.is_inference()]
        self._samples = [sample for weight in weights for sample in _samples(weight)]
        self._seen = self._look()

    def holds(self) -> bool:
        return self._look() == self._seen

    def _look(self) -> tuple[list[int], list[int], bytes]:
        return (
            list(map(Tensor.data_ptr, self._weights)),
            list(map(_version, self._counted)),
            b"".join(self._samples),
        )


def _samples(weight: Tensor) -> list[memoryview]:
    """Short runs of `weight`'s memory, spread over its rows. They keep the storage, so its address is not reused."""
    values = weight.detach().numpy()
    values = values[..., 0] if values.ndim == 3 else values
    rows, columns = values.shape
    contiguous = values.strides[1] == values.itemsize
    samples = []
    for part, row in enumerate(np.linspace(0, rows - 1, 4, dtype=int)):
        column = part * (columns - 1) // 3
        samples.append(values[row, column : column + (16 if contiguous else 1)].data)
    return samples


def reads_as_plain(weight: Any) -> bool:
    """`weight` is an ordinary float32 CPU tensor whose memory can be read: no subclass, fake or functorch wrapper."""
    if type(weight) not in (nn.Parameter, Tensor) or weight.device.type != "cpu" or weight.dtype != torch.float32:
        return False
    try:
        weight.detach().numpy()
    except (RuntimeError, TypeError):
        return False
    return True
