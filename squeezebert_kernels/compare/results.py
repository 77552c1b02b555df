"""What a comparison found, and its JSON form."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

SCHEMA = 1


@dataclass(frozen=True)
class Row:
    """One peer on one workload.

    gflops: operations the model asks for (encoder matrix products over real tokens) per median second, in 1e9.
    peak_gflops: float32 FMA peak of all threads together, measured in every round of the workload: the median.
    share_of_peak: of that peak, 0 to 1.
    intensity: those operations per byte of weights and activations that one pass cannot avoid moving.
    max_difference: largest absolute difference of the last hidden state to Hugging Face over real tokens; None for a
    peer that runs another network.
    """

    workload: str
    tokens: int
    peer: str
    title: str
    milliseconds: float
    passes: int
    gflops: float
    peak_gflops: float
    share_of_peak: float
    intensity: float
    max_difference: float | None


@dataclass(frozen=True)
class Results:
    """All rows, and what they were measured on. Peaks are measured in the same run, for all threads together."""

    machine: dict[str, str]
    model: str
    dtype: str
    threads: int
    command: str
    date: str
    bandwidth_gbytes: float
    lengths: dict[str, tuple[int, ...]]
    skipped: dict[str, str]
    rows: tuple[Row, ...]

    @property
    def peak_gflops(self) -> float:
        """The highest of the workloads' FMA peaks."""
        return max((row.peak_gflops for row in self.rows), default=0.0)

    def workloads(self) -> list[str]:
        """Names of the workloads, in the order they ran."""
        return list(self.lengths)

    def of(self, workload: str) -> list[Row]:
        """The rows of one workload, in the order of the peers."""
        return [row for row in self.rows if row.workload == workload]

    def speedup(self, row: Row, peer: str) -> float | None:
        """How many times faster `peer` was than `row`'s peer on the same workload; None when it did not run."""
        own = [other for other in self.of(row.workload) if other.peer == peer]
        return row.milliseconds / own[0].milliseconds if own else None

    def to_json(self) -> dict[str, Any]:
        return {"schema": SCHEMA, **asdict(self)}
