"""Lets the competitors check and time themselves on every workload."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from rich.progress import Progress

from .contest import Contest, Peer, RunOnce
from .flops import encoder_bytes, encoder_flops
from .peers import REFERENCE
from .precisions import WEIGHT_SIZES
from .results import Row
from .timing import measure_peak, race
from .workload import Workload

FEWEST_ROUNDS, MOST_ROUNDS = 2, 30
PEAK_SECONDS = 0.03


@dataclass(frozen=True)
class Measurement:
    """One peer on one workload: its difference from Hugging Face (see `check`), and every timed pass."""

    peer: Peer
    workload: Workload
    difference: float | None
    seconds: list[float]
    peak: float  # GFLOP/s of all threads in the peer's format, measured in every round of this workload: the median

    def row(self, contest: Contest) -> Row:
        """The figures that are reported."""
        shape = self.peer.shape(contest)
        flops = encoder_flops(shape, self.workload.lengths)
        typical = statistics.median(self.seconds)
        return Row(
            workload=self.workload.name,
            tokens=sum(self.workload.lengths),
            peer=self.peer.name,
            dtype=self.peer.dtype,
            title=self.peer.title,
            milliseconds=1e3 * typical,
            passes=len(self.seconds),
            gflops=flops / typical / 1e9,
            peak_gflops=self.peak,
            share_of_peak=flops / typical / 1e9 / self.peak,
            intensity=flops / encoder_bytes(shape, self.workload.lengths, WEIGHT_SIZES[self.peer.dtype]),
            max_difference=self.difference,
        )


def measure(
    contest: Contest, peers: list[Peer], workloads: list[Workload], deadline: float, progress: Progress
) -> list[Row]:
    """Rows for every peer on every workload.

    deadline: on the clock of time.perf_counter; a workload still gets FEWEST_ROUNDS when it has passed.
    """
    measurements: list[Measurement] = []
    task = progress.add_task("measuring", total=len(workloads))
    # Longer workloads get more of the time, but less than in proportion, so that short ones get more rounds.
    weights = [math.sqrt(sum(workload.lengths)) for workload in workloads]
    for index, workload in enumerate(workloads):
        share = weights[index] / sum(weights[index:])

        def show(peer: Peer, workload: Workload = workload) -> None:
            # Drawn between turns only: a thread that redraws the bar would take its time from whoever is running.
            progress.update(task, description=f"{workload.name}: {peer.title}, {peer.dtype}", refresh=True)

        with torch.inference_mode():
            measurements += _measure_workload(contest, peers, workload, deadline, share, show)
        progress.advance(task)
    progress.update(task, description="measured")
    return [measurement.row(contest) for measurement in measurements]


def _measure_workload(
    contest: Contest,
    peers: list[Peer],
    workload: Workload,
    deadline: float,
    share: float,
    show: Callable[[Peer], None],
) -> list[Measurement]:
    by_key = {peer.key: peer for peer in peers}
    passes = {key: peer.bind(workload) for key, peer in by_key.items()}
    expected = next(passes[key] for key, peer in by_key.items() if is_reference(peer))()
    differences = {}
    for key, peer in by_key.items():
        differences[key] = check(peer, passes[key], expected, workload)
        show(peer)
    # Only now: the first batch of its kind makes torch.compile compile, and that time is gone.
    seconds = (deadline - time.perf_counter()) * share
    peaks: dict[str, list[float]] = {peer.dtype: [] for peer in peers}

    def measure_peaks() -> None:
        for dtype, measured in peaks.items():
            measured.append(measure_peak(contest.threads, dtype, PEAK_SECONDS))

    times = race(
        passes,
        seconds,
        FEWEST_ROUNDS,
        MOST_ROUNDS,
        after_turn=lambda key: show(by_key[key]),
        # The peaks take their turn as well: a core's clock moves by several percent within a run.
        after_round=measure_peaks,
    )
    return [
        Measurement(peer, workload, differences[key], times[key], statistics.median(peaks[peer.dtype]))
        for key, peer in by_key.items()
    ]


def is_reference(peer: Peer) -> bool:
    """The one whose outputs the others' are compared with."""
    return type(peer) is REFERENCE and peer.dtype == "float32"


def check(peer: Peer, run: RunOnce, expected: torch.Tensor, workload: Workload) -> float | None:
    """One pass, which also warms the peer up: its largest absolute difference from `expected` over real tokens.

    None for a peer that runs another network. Raises RuntimeError when the output has another shape or is not finite.
    """
    output = run()
    if output.shape != expected.shape or not bool(output[workload.attention_mask.bool()].isfinite().all()):
        raise RuntimeError(
            f"{peer.title}, {peer.dtype}, on {workload.name}: expected finite values of shape {list(expected.shape)}, "
            f"got shape {list(output.shape)}, or values that are not finite"
        )
    if peer.is_bert:
        return None
    real = workload.attention_mask.bool()
    return float((output[real].float() - expected[real]).abs().max())
