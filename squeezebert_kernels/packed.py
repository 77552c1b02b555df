"""Weights in the kernels' packed form, kept up to date with the tensors that they were packed from."""

from __future__ import annotations

import ctypes
import mmap
import os
import threading
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import accumulate
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor, nn

from . import ops
from ._native import active_isa

# What weights may be: the kernels compute in float32, which holds the others exactly.
FLOATS = (torch.float32, torch.float16, torch.bfloat16)
# Set to 1 when a model is optimized, every call compares every byte of the packed weights with the model's own.
CHECK_VARIABLE = "SQUEEZEBERT_CHECK_WEIGHTS"

_version = attrgetter("_version")


@dataclass(frozen=True)
class Linear:
    """A grouped position-wise layer: weight [out, in / groups] or [out, in / groups, 1], bias [out] or None.

    dtype: what the weight is packed as.
    """

    name: str
    weight: Tensor
    bias: Tensor | None
    groups: int
    dtype: torch.dtype = torch.float32

    @property
    def tensors(self) -> list[Tensor]:
        return [self.weight]

    @property
    def names(self) -> list[str]:
        return [self.name]

    @property
    def kind(self) -> tuple[object, ...]:
        return (tuple(self.weight.shape), self.groups, self.dtype)

    def pack(self, tensors: Sequence[Tensor]) -> Tensor:
        return ops.pack_grouped_conv1x1(tensors[0], self.groups, self.dtype)

    def repack(self, packed: Tensor, tensors: Sequence[Tensor]) -> None:
        packed.copy_(self.pack(tensors))

    def unpack(self, packed: Tensor) -> list[Tensor]:
        return [ops.unpack_grouped_conv1x1(packed, self.weight.shape[1] * self.groups, self.groups)]


@dataclass(frozen=True)
class Layer:
    """An encoder layer: six linears in the operators' order, weight and bias of both LayerNorms, eps.

    attention: the dtype of the products between them.
    """

    linears: list[Linear]
    norms: list[Tensor]
    eps: float
    attention: torch.dtype = torch.float32

    @property
    def tensors(self) -> list[Tensor]:
        """As `ops.encoder_layer` takes them."""
        tensors: list[Tensor] = []
        for index, linear in enumerate(self.linears):
            assert linear.bias is not None
            tensors += (linear.weight, linear.bias)
            if index in (3, 5):  # post_attention and output end in a LayerNorm
                tensors += self.norms[index - 3 :][:2]
        return tensors

    @property
    def names(self) -> list[str]:
        query, key, value, first, inner, outer = (linear.name for linear in self.linears)
        return [query, query, key, key, value, value, *[first] * 4, inner, inner, *[outer] * 4]

    @property
    def groups(self) -> list[int]:
        return [linear.groups for linear in self.linears]

    @property
    def kind(self) -> tuple[object, ...]:
        return (self.eps, self.attention, *(linear.kind for linear in self.linears))

    def pack(self, tensors: Sequence[Tensor]) -> Tensor:
        params = [tensor.float() for tensor in tensors]
        for slot, linear in zip((0, 2, 4, 6, 10, 12), self.linears, strict=True):
            params[slot] = linear.pack([tensors[slot]])
        return ops.pack_encoder_layer(params, self.groups, self.eps, self.attention)

    def repack(self, packed: Tensor, tensors: Sequence[Tensor]) -> None:
        ops.repack_encoder_layer(packed, [tensor.float() for tensor in tensors])

    def unpack(self, packed: Tensor) -> list[Tensor]:
        channels, inner = self.norms[0].shape[0], self.linears[4].weight.shape[0]
        return ops.unpack_encoder_layer(packed, channels, inner, self.groups)


class Packed:
    """Packs `items`, each into one tensor, in the order given, so that a short input streams them through the cache.

    reuse: packed before, to be given up: its buffer is kept where it fits, with what has not changed in it.

    `packed[i]` is what the operators take for `items[i]`: views of `buffer`. `refresh` packs anew, in place, what
    changed. `release` frees the original weights, whose only copy is then the packed one.
    """

    def __init__(self, items: Sequence[Linear | Layer], reuse: Packed | None = None) -> None:
        self.items = items
        self.buffer: Tensor
        self.packed: list[Tensor]
        self._isa = active_isa()
        self._lock = threading.RLock()
        self._checks_bytes = os.environ.get(CHECK_VARIABLE) == "1"
        self._tensors = [tensor for item in items for tensor in item.tensors]
        self._names = [name for item in items for name in item.names]
        self._owners = [index for index, item in enumerate(items) for _ in item.tensors]
        self._firsts = [0, *accumulate(len(item.tensors) for item in items)]
        self._released: set[int] = set()  # of the tensors
        self._writes = Writes(self._tensors)
        kept: set[int] = set()
        if reuse is not None and not reuse.stale and [x.kind for x in reuse.items] == [x.kind for x in items]:
            self.buffer, self.packed = reuse.buffer, reuse.packed
            kept = reuse._still_packed(items)
        else:
            with torch.inference_mode(False), torch.no_grad():  # or they could not be written again outside of it
                self.buffer, self.packed = self._allocate()
        self._pack(index for index in range(len(items)) if index not in kept)

    @property
    def stale(self) -> bool:
        """Packed for another instruction set than the one now in use (`_native.force_isa`): to be made anew."""
        return self._isa != active_isa()

    def is_fresh(self) -> bool:
        """`refresh` would find nothing to do."""
        return not self._checks_bytes and self._writes.holds()

    def refresh(self, everything: bool = False) -> bool:
        """Packs what has changed, or `everything`; True where there was some.

        Raises ValueError for a tensor of another dtype or device.
        """
        if not everything:
            if self._checks_bytes:
                self._check_bytes()
            if self._writes.holds():
                return False
        with self._lock:
            now = self._writes.look()  # before the weights are read: what is written meanwhile is seen next time
            changed = self._writes.changed(now)
            self._forget_released(changed)
            self._pack(range(len(self.items)) if everything else sorted({self._owners[i] for i in changed}))
            self._writes.accept(now)
        return True

    @property
    def released(self) -> bool:
        return bool(self._released)

    def check_releasable(self) -> None:
        """Raises ValueError, naming the weight, for one that holds NaN, as released ones do. (All else comes back
        exactly out of float32, and nothing is released that is packed as another dtype.)"""
        for i in filter(self._is_weight, range(len(self._tensors))):
            if self._tensors[i].isnan().any():
                raise ValueError(f"release_weights: {self._names[i]} cannot be released, it holds NaN")

    def release(self) -> None:
        """Frees the original weights. They keep shape and dtype, read as NaN and take no memory."""
        with self._lock, torch.inference_mode(False):
            self._released = set(filter(self._is_weight, range(len(self._tensors))))
            for i in self._released:
                # One NaN, seen as the whole weight: whoever reads it gets NaN rather than a plausible number.
                nan = torch.full((1,), torch.nan, dtype=self._tensors[i].dtype, device="cpu")
                self._tensors[i].data = nan.expand(self._tensors[i].shape)
            self._writes.accept(self._writes.look())
        _return_memory()

    def released_weights(self) -> dict[int, Tensor]:
        """The values of the released weights, by the id of their parameter."""
        with self._lock:
            self._forget_released(self._writes.changed(self._writes.look()))
            indices = sorted({self._owners[i] for i in self._released})
            values = [pair for index in indices for pair in self._unpacked(index)]
            return {id(self._tensors[i]): value for i, value in values if i in self._released}

    def give_back(self) -> None:
        """Gives the released weights their values back, for good."""
        with self._lock:
            values = self.released_weights()
            for i in self._released:
                self._tensors[i].data = values[id(self._tensors[i])]
            self._released = set()  # the next call finds other addresses, and packs again

    def _forget_released(self, changed: Iterable[int]) -> None:
        """Released weights among the `changed` tensors were given new values, which are theirs from now on."""
        for i in self._released.intersection(changed):
            if bool(self._tensors[i].detach().isnan().all()):
                raise RuntimeError(
                    f"{self._names[i]}: expected the model as optimize left it, but its released weight was moved or "
                    "converted; call restore(model) before that, and optimize again after"
                )
            self._released.discard(i)

    def _is_weight(self, i: int) -> bool:
        return self._tensors[i].dim() > 1

    def _still_packed(self, items: Sequence[Linear | Layer]) -> set[int]:
        """Of `items`, of the same kinds, those whose very tensors are packed as they are now."""
        changed = {self._owners[i] for i in self._writes.changed(self._writes.look())}
        pairs = enumerate(zip(items, self.items, strict=True))
        same = {i for i, (new, old) in pairs if all(a is b for a, b in zip(new.tensors, old.tensors, strict=True))}
        return same - changed

    def _allocate(self) -> tuple[Tensor, list[Tensor]]:
        shapes = [self._shape(item) for item in self.items]
        sizes = [shape.numel() + -shape.numel() % 64 for shape in shapes]  # whole cache lines
        starts = [0, *accumulate(sizes)]
        buffer = _allocate(starts[-1])
        places = zip(starts, shapes, strict=False)
        packed = [buffer[start : start + shape.numel()].view(shape) for start, shape in places]
        first_of: dict[Any, Tensor] = {}
        for item, place in zip(self.items, packed, strict=True):
            # Later ones are copies of the first of their kind, until they are packed in place: there is never more than
            # one packed form beside the buffer, and that one while most of the buffer is not there yet.
            place.copy_(first_of[item.kind] if item.kind in first_of else item.pack(self._plain(item)))
            first_of.setdefault(item.kind, place)
        return buffer, packed

    def _shape(self, item: Linear | Layer) -> torch.Size:
        """Of its packed form, without packing it."""
        with torch.no_grad():
            return item.pack([torch.empty_like(tensor, device="meta") for tensor in item.tensors]).shape

    def _pack(self, indices: Iterable[int]) -> None:
        with torch.inference_mode(False), torch.no_grad():
            for index in indices:
                self.items[index].repack(self.packed[index], self._values(index))

    def _values(self, index: int) -> list[Tensor]:
        """The tensors of an item; of released ones, what is packed of them."""
        tensors = self._plain(self.items[index])
        if self._released:
            first = self._firsts[index]
            for i, value in self._unpacked(index):
                if i in self._released:
                    tensors[i - first] = value
        return tensors

    def _plain(self, item: Linear | Layer) -> list[Tensor]:
        """Its tensors as they are. Raises ValueError for those that the kernels do not take."""
        for tensor in item.tensors:
            if not reads_as_plain(tensor, torch.device("cpu")) or tensor.dtype not in FLOATS:
                raise ValueError(f"weights of {tensor.dtype} on {tensor.device}")
        return [tensor.detach() for tensor in item.tensors]

    def _unpacked(self, index: int) -> list[tuple[int, Tensor]]:
        """Of the tensors of an item, which they are and what is packed of them, in their own shapes and dtypes."""
        first, tensors = self._firsts[index], self.items[index].tensors
        with torch.inference_mode(False), torch.no_grad():
            values = self.items[index].unpack(self.packed[index])
            return [
                (first + i, v.view(t.shape).to(t.dtype)) for i, (v, t) in enumerate(zip(values, tensors, strict=True))
            ]

    def _check_bytes(self) -> None:
        changed = {self._owners[i] for i in self._writes.changed(self._writes.look())}
        for index, item in enumerate(self.items):
            form = self.packed[index] if index in changed else item.pack(self._values(index))
            if not torch.equal(form, self.packed[index]):
                pairs = zip(item.unpack(form), item.unpack(self.packed[index]), strict=True)
                name = next(name for name, (a, b) in zip(item.names, pairs, strict=True) if not torch.equal(a, b))
                raise RuntimeError(
                    f"{name}: the weight was changed by a write that PyTorch does not count (through .data or NumPy); "
                    "call squeezebert_kernels.refresh(model) after such writes"
                )


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


def reads_as_plain(value: object, device: torch.device) -> bool:
    """`value` is an ordinary dense tensor on `device`: no subclass, fake or functorch wrapper."""
    return (
        type(value) in (nn.Parameter, Tensor)
        and value.device == device  # type: ignore[attr-defined]
        and value.layout == torch.strided  # type: ignore[attr-defined]
        and not torch._C._functorch.is_functorch_wrapped_tensor(value)  # type: ignore[arg-type]
    )


def _allocate(size: int) -> Tensor:
    """`size` bytes, aligned to a page, in huge pages where Linux gives them: at few tokens the weights are streamed
    from memory, and with small pages address translation alone takes some 5 % of that.
    """
    if not size or not hasattr(mmap, "MADV_HUGEPAGE"):
        return torch.empty(size, dtype=torch.uint8, device="cpu")
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with suppress(OSError):  # a kernel built without huge pages
        memory.madvise(mmap.MADV_HUGEPAGE)
    return torch.frombuffer(memory, dtype=torch.uint8)


def _return_memory() -> None:
    """Gives freed memory back to the system: glibc would keep most of it for later allocations."""
    with suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)
