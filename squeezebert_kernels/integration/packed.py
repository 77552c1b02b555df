"""PackedLinears: the weights of many position-wise layers, packed into one buffer and kept up to date."""

from __future__ import annotations

import ctypes
import mmap
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import torch
from torch import Tensor

from .. import ops  # noqa: F401  (registers torch.ops.squeezebert)
from .._native import active_isa
from .padding import Declined
from .watch import ValueWatch, reads_as_plain

_ALIGNMENT = 64  # bytes: a cache line, and what the widest vector load likes


@dataclass(frozen=True)
class Linear:
    """A grouped position-wise layer: weight [out, in / groups] or [out, in / groups, 1], bias [out] or None."""

    name: str
    weight: Tensor
    bias: Tensor | None
    groups: int


class PackedLinears:
    """Packs `linears` in the order given, so that a short input streams them through the cache front to back.

    dtype: what they are packed as, torch.float32 or torch.float16.

    `packed[i]` is what the operators take as the weight of `linears[i]`: views of `buffer`, the same objects for good.
    `refresh` packs anew, in place, whatever changed. `release` frees the original weights, whose only copy is then the
    packed one.
    """

    def __init__(self, linears: list[Linear], dtype: torch.dtype = torch.float32) -> None:
        self.linears = linears
        self._dtype = dtype
        self._isa = active_isa()
        known: dict[tuple[torch.Size, int], int] = {}
        sizes = [self._packed_bytes(linear, known) for linear in linears]
        starts = [0]
        for size in sizes:
            starts.append(starts[-1] + -(-size // _ALIGNMENT) * _ALIGNMENT)
        self.buffer = _allocate(starts[-1])
        self.packed = [
            self.buffer[start : start + size].view(linear.weight.shape[0], -1)
            for linear, start, size in zip(linears, starts, sizes, strict=False)
        ]
        self._lock = threading.RLock()
        self._released: set[int] = set()
        self._pack(range(len(linears)))
        self._watch_all()

    @property
    def stale(self) -> bool:
        """Packed for another instruction set than the one now in use (`_native.force_isa`): to be made anew."""
        return self._isa != active_isa()

    def refresh(self) -> None:
        """Packs the weights that have changed. Raises Declined for one of another dtype or device."""
        if self._watch.holds():
            return
        with self._lock:
            stale = [i for i, watch in enumerate(self._watches) if not watch.holds()]
            if stale:
                again = self._released.intersection(stale)
                self._pack(stale)
                self._free(again)
            self._watch_all()

    def unpack(self, index: int) -> Tensor:
        """The weight of `linears[index]`, read exactly out of its packed form: what the layer makes of an identity."""
        linear = self.linears[index]
        width = linear.weight.shape[1]
        identity = torch.eye(width, dtype=torch.float32, device="cpu").repeat(1, linear.groups)
        columns = torch.ops.squeezebert.grouped_conv1x1(identity, self.packed[index], None, linear.groups)
        return columns.t().contiguous().view(linear.weight.shape)

    @property
    def released(self) -> bool:
        return bool(self._released)

    def release(self) -> None:
        """Frees the original weights. They keep shape and dtype, read as NaN and take no memory.

        Raises ValueError, naming the weight, for one that does not come back exactly (it holds an infinity or a NaN).
        """
        with self._lock:
            if self._released:
                return
            for index, linear in enumerate(self.linears):
                if not torch.equal(self.unpack(index), linear.weight.detach()):
                    raise ValueError(
                        f"release_weights: {linear.name} cannot be released, it holds values that are not finite"
                    )
            self._free(range(len(self.linears)))
            self._watch_all()
        _return_memory()

    def reclaim(self) -> None:
        """Gives the released weights their values back."""
        with self._lock:
            for index in self._released:
                self.linears[index].weight.data = self.unpack(index)
            self._released = set()
            self._watch_all()

    @contextmanager
    def reclaimed(self) -> Iterator[None]:
        """The released weights have their values inside the block, at the cost of their memory."""
        with self._lock:
            again = set(self._released)
            self.reclaim()
            try:
                yield
            finally:
                self._free(again)
                self._watch_all()

    def _pack(self, indices: Iterable[int]) -> None:
        for index in indices:
            linear = self.linears[index]
            weight = linear.weight.detach()
            if index in self._released and bool(weight.isnan().all()):
                raise RuntimeError(
                    f"{linear.name}: expected the model as optimize left it, but its released weight was moved or "
                    "converted; call restore(model) before .to(), and optimize again after"
                )
            if not reads_as_plain(linear.weight):
                raise Declined(f"{linear.name}: {weight.dtype} on {weight.device}")
            packed = torch.ops.squeezebert.pack_grouped_conv1x1(weight.to(self._dtype), linear.groups)
            self.packed[index].copy_(packed)
            self._released.discard(index)

    def _packed_bytes(self, linear: Linear, known: dict[tuple[torch.Size, int], int]) -> int:
        """Bytes of `linear`'s packed form; `known` remembers them by shape and groups."""
        kind = (linear.weight.shape, linear.groups)
        if kind not in known:
            weight = linear.weight.detach().to(self._dtype)
            known[kind] = torch.ops.squeezebert.pack_grouped_conv1x1(weight, linear.groups).numel()
        return known[kind]

    def _free(self, indices: Iterable[int]) -> None:
        for index in indices:
            weight = self.linears[index].weight
            # One NaN, seen as the whole weight: whoever reads it gets NaN rather than a plausible number.
            weight.data = torch.full((1,), torch.nan, dtype=torch.float32, device="cpu").expand(weight.shape)
            self._released.add(index)

    def _watch_all(self) -> None:
        self._watches = [ValueWatch([linear.weight]) for linear in self.linears]
        self._watch = ValueWatch([linear.weight for linear in self.linears])


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
