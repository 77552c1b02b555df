"""Ids outside their table: noticed by the kernel, told by the host, and nobody waits."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import NoReturn

import torch

# The tables of embedding_layer_norm, in the order of its `problems`, by the arguments that index them.
ID_NAMES = ("input_ids", "position_ids", "token_type_ids")


class BadIds:
    """The ids outside their table that one model met, and the error that they become.

    A request is launched and returned before the GPU has seen its ids. So the kernel writes an offending id into
    `found`, which is host memory, and the first call that finds one there raises: the next one, or one soon after, as
    with the assertions in PyTorch's own CUDA kernels. Unlike after those, nothing else is lost: the sequence with that
    id has come out as NaN, and the model goes on. CUDA_LAUNCH_BLOCKING=1 makes the call itself wait and raise, as it
    does there.
    """

    def __init__(self, device: torch.device, rows: Sequence[int]) -> None:
        """rows: of each table, in the order of ID_NAMES."""
        self._device = device
        self._rows = list(rows)
        # int64 [3], as embedding_layer_norm.run takes `problems`. Pinned memory has the same address on the device.
        self.found = torch.zeros(len(ID_NAMES), dtype=torch.int64, device="cpu", pin_memory=device.type == "cuda")
        self._values = self.found.numpy()

    def any(self) -> bool:
        """Whether one has been found since the last error. Reads host memory and waits for nothing."""
        return bool(self._values.any())

    def fail(self, call: str) -> NoReturn:
        """Raises IndexError for one that was found in `call`. All that were found until now are forgotten."""
        self.wait()
        found = self._values.tolist()
        self._values[:] = 0
        name, rows, problem = next(row for row in zip(ID_NAMES, self._rows, found, strict=True) if row[2])
        raise IndexError(
            f"squeezebert::embedding_layer_norm: {name}: expected ids from 0 to {rows - 1}, got {decoded(problem)} in "
            f"{call}"
        )

    def wait(self) -> None:
        """Until the kernels that were launched have seen their ids."""
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)


def decoded(problem: int) -> int:
    """The id that embedding_layer_norm wrote into `problems`, where 0 stands for none."""
    return problem - 1 if problem > 0 else problem


def launches_block() -> bool:
    """CUDA_LAUNCH_BLOCKING=1: every call is to wait for what it launches, and raise what came of it."""
    return os.environ.get("CUDA_LAUNCH_BLOCKING") == "1"
