"""Times on a GPU by CUDA events, and the two ceilings that they are held against."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import median

import torch


def time_us(calls: Sequence[Callable[[], object]], repeats: int = 50, warmup: int = 5) -> float:
    """Median microseconds of one call, by CUDA events around each; `calls` are taken in turn, so inputs rotate."""
    for index in range(max(warmup, len(calls))):
        calls[index % len(calls)]()
    torch.cuda.synchronize()
    events = [(torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)) for _ in range(repeats)]
    for index, (start, end) in enumerate(events):
        start.record()
        calls[index % len(calls)]()
        end.record()
    torch.cuda.synchronize()
    return median(start.elapsed_time(end) * 1e3 for start, end in events)


def matmul_rate(dtype: torch.dtype, size: int = 8192) -> float:
    """FLOP per second of a large matrix product of random numbers."""
    pairs = [(torch.randn(size, size, device="cuda").to(dtype), torch.randn(size, size, device="cuda").to(dtype))]
    pairs.append((pairs[0][1], pairs[0][0]))
    calls = [lambda a=a, b=b: a @ b for a, b in pairs]
    return 2 * size**3 / (time_us(calls, repeats=20) * 1e-6)


def copy_rate(gib: int = 2) -> float:
    """Bytes per second of a large copy on the device, those read and those written."""
    source = torch.randn(gib * 2**28, device="cuda")
    target = torch.empty_like(source)
    return 2 * source.nbytes / (time_us([lambda: target.copy_(source)], repeats=20) * 1e-6)
