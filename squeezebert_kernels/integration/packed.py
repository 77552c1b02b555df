"""PackedLinears: the weights of many position-wise layers, packed into one buffer and kept up to date."""

from __future__ import annotations

import ctypes
import mmap
import os
import threading
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass

import torch
from torch import Tensor

from .. import ops  # noqa: F401  (registers torch.ops.squeezebert)
from .._native import active_isa
from .padding import Declined
from .watch import Writes, reads_as_plain

_ALIGNMENT = 64  # bytes: a cache line, and what the widest vector load likes

CPU = torch.device("cpu")
# What weights may be: the kernels compute in float32, which holds the others exactly.
FLOATS = (torch.float32, torch.float16, torch.bfloat16)
# Set to 1 when a model is optimized, every call compares every byte of the packed weights with the model's own.
CHECK_VARIABLE = "SQUEEZEBERT_CHECK_WEIGHTS"


@dataclass(frozen=True)
class Linear:
    """A grouped position-wise layer: weight [out, in / groups] or [out, in / groups, 1], bias [out] or None."""

    name: str
    weight: Tensor
    bias: Tensor | None
    groups: int


class PackedLinears:
    """Packs `linears` in the order given, so that a short input streams them through the cache front to back.

    dtype: what they are packed as, torch.float32 or torch.float16. floats: other parameters, which the kernels take as
    float32. reuse: packed before, to be given up: its buffer is kept where it fits, with what has not changed in it.

    `packed[i]` is what the operators take as the weight of `linears[i]`: views of `buffer`. `floats[i]` is the
    parameter itself where it is float32, else a copy. `refresh` packs and copies anew, in place, whatever changed.
    `release` frees the original weights, whose only copy is then the packed one.
    """

    def __init__(
        self,
        linears: list[Linear],
        dtype: torch.dtype = torch.float32,
        floats: Sequence[Tensor] = (),
        reuse: PackedLinears | None = None,
    ) -> None:
        self.linears = linears
        self.buffer: Tensor
        self.packed: list[Tensor]
        self._dtype = dtype
        self._isa = active_isa()
        self._lock = threading.RLock()
        self._released: set[int] = set()
        self._checks_bytes = os.environ.get(CHECK_VARIABLE) == "1"
        copied = [value for value in floats if value.dtype != torch.float32]
        self._sources = [linear.weight for linear in linears] + copied
        self._writes = Writes(self._sources)
        with torch.inference_mode(False):  # or they could not be written again outside of it
            self._copies = [torch.empty(value.shape, dtype=torch.float32, device="cpu") for value in copied]
            kept: set[int] = set()
            if reuse is not None and reuse._fits(linears, dtype):
                self.buffer, self.packed = reuse.buffer, reuse.packed
                kept = reuse._still_packed(linears)
            else:
                self.buffer, self.packed = self._allocate()
        copies = iter(self._copies)
        self.floats = [value if value.dtype == torch.float32 else next(copies) for value in floats]
        self._pack(index for index in range(len(self._sources)) if index not in kept)

    @property
    def stale(self) -> bool:
        """Packed for another instruction set than the one now in use (`_native.force_isa`): to be made anew."""
        return self._isa != active_isa()

    def refresh(self, everything: bool = False) -> bool:
        """Packs the weights that have changed, or `everything`; True where there were some.

        Raises Declined for one of another dtype or device.
        """
        if not everything:
            if self._checks_bytes:
                self._check_bytes()
            if self._writes.holds():
                return False
        with self._lock:
            now = self._writes.look()  # before the weights are read: what is written meanwhile is seen next time
            every = set(range(len(self._sources))) if everything else set(self._writes.changed(now))
            self._pack(sorted(every.difference(self._gone()) if everything else every))
            self._writes.accept(now)
        return True

    def unpack(self, index: int) -> Tensor:
        """The weight of `linears[index]`, read exactly out of its packed form: what the layer makes of an identity."""
        linear = self.linears[index]
        width = linear.weight.shape[1]
        with torch.inference_mode(False), torch.no_grad():
            identity = torch.eye(width, dtype=torch.float32, device="cpu").repeat(1, linear.groups)
            columns = torch.ops.squeezebert.grouped_conv1x1(identity, self.packed[index], None, linear.groups)
            return columns.t().contiguous().view(linear.weight.shape).to(linear.weight.dtype)

    @property
    def released(self) -> bool:
        return bool(self._released)

    def check_releasable(self) -> None:
        """Raises ValueError, naming the weight, for one that does not come back exactly (infinity, NaN, rounding)."""
        for index, linear in enumerate(self.linears):
            if not torch.equal(self.unpack(index), linear.weight.detach()):
                raise ValueError(
                    f"release_weights: {linear.name} cannot be released, it holds values that are not finite"
                )

    def release(self) -> None:
        """Frees the original weights. They keep shape and dtype, read as NaN and take no memory."""
        with self._lock, torch.inference_mode(False):
            for index, linear in enumerate(self.linears):
                # One NaN, seen as the whole weight: whoever reads it gets NaN rather than a plausible number.
                nan = torch.full((1,), torch.nan, dtype=linear.weight.dtype, device="cpu")
                linear.weight.data = nan.expand(linear.weight.shape)
                self._released.add(index)
            self._writes.accept(self._writes.look())
        _return_memory()

    def released_weights(self) -> dict[int, Tensor]:
        """The values of the released weights, by the id of their parameter."""
        with self._lock:
            return {id(self.linears[index].weight): self.unpack(index) for index in self._gone()}

    def give_back(self) -> None:
        """Gives the released weights their values back, for good."""
        with self._lock:
            for index in self._gone():
                self.linears[index].weight.data = self.unpack(index)
            self._released = set()  # the next call finds other addresses, and packs again

    def _gone(self) -> list[int]:
        """The released weights, less those that were given new values since."""
        changed = self._released.intersection(self._writes.changed(self._writes.look()))
        self._check_moved(changed)
        return sorted(self._released - changed)

    def _fits(self, linears: list[Linear], dtype: torch.dtype) -> bool:
        kinds = [(linear.weight.shape, linear.groups) for linear in self.linears]
        return not self.stale and dtype == self._dtype and kinds == [(x.weight.shape, x.groups) for x in linears]

    def _still_packed(self, linears: list[Linear]) -> set[int]:
        """Of `linears`, which fit, those whose very weight is packed as it is now."""
        changed = set(self._writes.changed(self._writes.look()))
        pairs = enumerate(zip(linears, self.linears, strict=True))
        return {index for index, (new, old) in pairs if new.weight is old.weight and index not in changed}

    def _allocate(self) -> tuple[Tensor, list[Tensor]]:
        known: dict[tuple[torch.Size, int], int] = {}
        starts, sizes = [0], []
        for linear in self.linears:
            kind = (linear.weight.shape, linear.groups)
            if kind not in known:
                known[kind] = self._packed_form(linear).numel()
            sizes.append(known[kind])
            starts.append(starts[-1] + -(-known[kind] // _ALIGNMENT) * _ALIGNMENT)
        buffer = _allocate(starts[-1])
        return buffer, [
            buffer[start : start + size].view(linear.weight.shape[0], -1)
            for linear, start, size in zip(self.linears, starts, sizes, strict=False)
        ]

    def _pack(self, indices: Iterable[int]) -> None:
        with torch.inference_mode(False), torch.no_grad():
            for index in indices:
                source = self._sources[index]
                self._check_moved({index} & self._released)
                if not reads_as_plain(source, CPU) or source.dtype not in FLOATS:
                    raise Declined(f"weights of {source.dtype} on {source.device}")
                if index >= len(self.linears):
                    self._copies[index - len(self.linears)].copy_(source)
                    continue
                self.packed[index].copy_(self._packed_form(self.linears[index]))
                self._released.discard(index)

    def _packed_form(self, linear: Linear) -> Tensor:
        with torch.no_grad():
            return torch.ops.squeezebert.pack_grouped_conv1x1(linear.weight.detach().to(self._dtype), linear.groups)

    def _check_moved(self, indices: set[int]) -> None:
        for index in indices:
            linear = self.linears[index]
            if bool(linear.weight.detach().isnan().all()):
                raise RuntimeError(
                    f"{linear.name}: expected the model as optimize left it, but its released weight was moved or "
                    "converted; call restore(model) before that, and optimize again after"
                )

    def _check_bytes(self) -> None:
        changed = set(self._writes.changed(self._writes.look())) | self._released
        for index, linear in enumerate(self.linears):
            if index not in changed and not torch.equal(self._packed_form(linear), self.packed[index]):
                raise RuntimeError(
                    f"{linear.name}: the weight was changed by a write that PyTorch does not count (through .data or "
                    "NumPy); call squeezebert_kernels.refresh(model) after such writes"
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
