"""What a comparison found, and its JSON form."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

SCHEMA = 2


@dataclass(frozen=True)
class Row:
    """One peer in one format on one workload.

    gflops: operations the model asks for (encoder matrix products over real tokens) per median second, in 1e9.
    peak_gflops: multiply-add peak, in the row's format, of all threads together, measured in every round of the
    workload: the median. In the instructions that this library multiplies with in that format.
    share_of_peak: of that peak, 0 to 1.
    intensity: those operations per byte that one pass cannot avoid moving: weights in the format, the encoder's input
    and output in float32.
    max_difference: largest absolute difference of the last hidden state to Hugging Face over real tokens; None for a
    peer that runs another network.
    """

    workload: str
    tokens: int
    peer: str
    dtype: str
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
    dtypes: tuple[str, ...]
    threads: int
    command: str
    date: str
    bandwidth_gbytes: float
    lengths: dict[str, tuple[int, ...]]
    skipped: dict[str, str]
    rows: tuple[Row, ...]

    def peak_gflops(self, dtype: str) -> float:
        """The highest of the workloads' peaks in a format; 0 where nothing ran in it."""
        return max((row.peak_gflops for row in self.rows if row.dtype == dtype), default=0.0)

    def ran(self) -> list[str]:
        """The formats that something ran in: float32 first, and then those asked for."""
        return list(dict.fromkeys(["float32", *self.dtypes]))

    def workloads(self) -> list[str]:
        """Names of the workloads, in the order they ran."""
        return list(self.lengths)

    def of(self, workload: str) -> list[Row]:
        """The rows of one workload: a format after the other, in the order of the peers."""
        return [row for row in self.rows if row.workload == workload]

    def find(self, workload: str, peer: str, dtype: str) -> Row | None:
        """The row of one peer in one format; None when it did not run."""
        return next((row for row in self.of(workload) if (row.peer, row.dtype) == (peer, dtype)), None)

    def speedup(self, row: Row, peer: str) -> float | None:
        """How many times faster `peer` was than `row`'s peer, same workload and format; None when it did not run."""
        own = self.find(row.workload, peer, row.dtype)
        return row.milliseconds / own.milliseconds if own else None

    def to_json(self) -> dict[str, Any]:
        return {"schema": SCHEMA, **asdict(self)}
