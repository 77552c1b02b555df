"""Clocks: the machine's own limits, and peers that take turns."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor

import torch

Pass = Callable[[], object]


def measure_peak(threads: int, dtype: str = "float32", seconds: float = 0.2) -> float:
    """Multiply-add peak in a format of `threads` cores busy at the same time, in GFLOP/s (int8: 1e9 operations)."""
    from squeezebert_kernels import _native

    if threads == 1:
        return float(_native.measure_peak(seconds, dtype))
    with ThreadPoolExecutor(threads) as pool:
        return float(sum(pool.map(_native.measure_peak, [seconds] * threads, [dtype] * threads)))


def measure_bandwidth(threads: int, megabytes: int = 256, runs: int = 5) -> float:
    """Memory read bandwidth in GB/s: the best of a few dot products of two vectors that no cache holds."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        left, right = torch.ones(2, megabytes * 125_000)
        best = min(_seconds(lambda: torch.dot(left, right)) for _ in range(runs))
    finally:
        torch.set_num_threads(before)
    return 2 * left.nbytes / best / 1e9


def race(
    passes: Mapping[str, Pass],
    seconds: float,
    fewest: int = 2,
    most: int = 30,
    after_turn: Callable[[str], None] = lambda name: None,
    after_round: Callable[[], None] = lambda: None,
) -> dict[str, list[float]]:
    """Seconds of every timed pass of every peer, in `fewest` to `most` rounds, as many as fit into `seconds`.

    Peers take turns, round by round, so that a change of the machine's clock or load meets all of them. A turn of a
    quick peer holds several passes and the first is not counted: it pays for the caches its neighbour left behind.
    """
    times: dict[str, list[float]] = {name: [] for name in passes}
    names = list(passes)
    started = time.perf_counter()
    for index in range(most):
        spent = time.perf_counter() - started
        if index >= fewest and spent * (index + 1) / index > seconds:
            break
        # A different peer opens every round, so nobody always runs after the same neighbour.
        first = index % len(names)
        for name in names[first:] + names[:first]:
            times[name] += _turn(passes[name], times[name])
            after_turn(name)
        after_round()
    return times


def _turn(run: Pass, earlier: list[float], turn_seconds: float = 0.1, most: int = 5) -> list[float]:
    count = min(most, int(turn_seconds / earlier[-1])) if earlier else 1
    if count > 1:
        run()
        count -= 1
    return [_seconds(run) for _ in range(max(count, 1))]


def _seconds(run: Pass) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start
