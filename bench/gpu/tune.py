"""Measures block sizes on the GPU at hand and rewrites its rows of squeezebert_kernels/triton/tuning.py.

    python -m bench.gpu.tune [--dry-run] [--only OPERATOR]

Most of the time is compilation, which runs on all cores; each row is written as soon as it is found. Candidates keep
what decides a row's bits (see the table), so the answers do not change, nor do they for other rows of the same
operator. Those that `make gpu-compile` would refuse are passed over.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import os
import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import torch
from triton.compiler.errors import CompilationError
from triton.runtime.errors import OutOfResources, PTXASError

from squeezebert_kernels.triton import tuning
from squeezebert_kernels.triton.tuning import TABLE, Key, Tile

from .compile import compile_row, problems
from .recording import prepare, using
from .timing import time_us

DTYPE = torch.bfloat16
# The batch that a size class is tuned for: tokens, and tokens of a sequence.
TOKENS = {"few": (128, 128), "some": (1024, 128), "many": (16384, 128), "any": (4096, 128)}
LAUNCHES = 20  # in a graph, each with weights of its own, as layers have: most come from memory, not from the cache
# A candidate replaces a row only if it is faster by more than measurements spread.
MARGIN = 0.03
MOST_PROCESSES = 12  # that compile
PROCESS_BYTES = 4 * 2**30  # of the GPU's memory, more than a process with a CUDA context takes


def candidates(key: Key, now: Tile) -> Iterator[Tile]:
    """Other block sizes for a row, with the same matrix instruction and the same order of sums."""
    architecture, operator, _, size = key
    if operator == "embedding_layer_norm":
        for rows, warps in itertools.product((1, 2, 4, 8), (4, 8)):
            yield Tile(rows, 0, 0, warps, 1, False, now.reason)
        return
    long_side = 16 if architecture == "sm_80" else 64
    attention = "attention" in operator
    by_sequence = attention or operator == "grouped_conv1d"
    rows = (64, 128) if by_sequence or size == "many" else (16, 32, 64)
    columns = (now.block_columns,) if attention else (64, 128)
    depths = {"attention": (now.block_depth,), "grouped_conv1x1": (64, 128)}.get(operator, (32, 64))
    swaps = (False,) if by_sequence else (False, True)
    splits = (1, 3) if operator == "grouped_ffn" and size != "many" else (1,)
    choices = itertools.product(rows, columns, depths, (4, 8), (1, 2, 3, 4), swaps, splits)
    for row, column, depth, warps, stages, swap, split in choices:
        if attention and row < 16 * warps:
            continue
        # In grouped_ffn, a product's columns are once the intermediate channels and once a part of the group's.
        narrow = min(column, depth) if operator == "grouped_ffn" else column
        if (narrow if swap else row) < long_side or row * column > 128 * 256:
            continue
        yield Tile(row, column, depth, warps, stages, swap, now.reason, split)


def fits(key: Key, tile: Tile) -> bool:
    """Whether `make gpu-compile` would take the row, and it can be launched. Leaves it in Triton's cache on disk."""
    count, length = TOKENS[key[3]]
    try:
        if problems(key, compile_row(key, tile)):
            return False
        with using(tile):
            prepare(key[1], DTYPE, "cuda", count, length)()
        torch.cuda.synchronize()
    except (OutOfResources, CompilationError, PTXASError):
        return False
    except RuntimeError as error:  # a pass of the compiler that gives up has no class of its own
        if "PassManager" not in str(error):
            raise
        return False
    return True


def measure(launches: Sequence[Callable[[], None]], tile: Tile) -> float:
    """Microseconds of one launch in a CUDA graph of them, which does not wait for Python."""
    with using(tile):
        launches[0]()
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            for launch in launches:
                launch()
    return time_us([graph.replay], repeats=30) / len(launches)


def best(key: Key, now: Tile, pool: Executor) -> Tile:
    """The fastest block sizes for a row, which are `now` unless others are clearly faster."""
    others = [tile for tile in candidates(key, now) if tile != now]
    usable = [tile for tile, fit in zip(others, pool.map(partial(fits, key), others), strict=True) if fit]
    count, length = TOKENS[key[3]]
    launches = [prepare(key[1], DTYPE, "cuda", count, length) for _ in range(LAUNCHES)]
    baseline = measure(launches, now)
    times = {tile: measure(launches, tile) for tile in usable}
    winner = min(times, key=times.__getitem__, default=now)
    device = torch.cuda.get_device_name()
    tried = f"{len(usable)} of {len(others)} others could be tried"
    if times.get(winner, baseline) > baseline * (1 - MARGIN):
        print(f"{' '.join(key)}: stays, {baseline:.1f} us; {tried}", flush=True)
        return dataclasses.replace(now, reason=f"{baseline:.1f} us on {device}, and nothing tried was faster")
    print(f"{' '.join(key)}: {baseline:.1f} -> {times[winner]:.1f} us, {winner}; {tried}", flush=True)
    was = f"{now.block_rows} x {now.block_columns} x {now.block_depth}"
    return dataclasses.replace(winner, reason=f"{times[winner]:.1f} us on {device}; {was} took {baseline:.1f}")


def rewrite(source: str, rows: dict[Key, Tile]) -> str:
    """The text of the table's file with these rows in the place of their old ones."""
    for key, tile in rows.items():
        name = ", ".join(f'"{part}"' for part in key)
        values = [tile.block_rows, tile.block_columns, tile.block_depth, tile.warps, tile.stages, tile.swap]
        split = f", split={tile.split}" if tile.split != 1 else ""
        row = f'({name}): Tile(\n        {", ".join(map(str, values))}, "{tile.reason}"{split}\n    ),'
        source, count = re.subn(
            rf"\({re.escape(name)}\): Tile\(.*?\n?\s*\),(?=\n)", row, source, count=1, flags=re.DOTALL
        )
        if count != 1:
            raise ValueError(f"table: expected a row for {key}, found none")
    return source


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dry-run", action="store_true", help="measure and print, but leave the table as it is")
    parser.add_argument("--only", metavar="OPERATOR", help="tune the rows of one operator")
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        raise SystemExit("gpu-tune needs an NVIDIA GPU, and torch built for CUDA; see the output of nvidia-smi")
    architecture = tuning.architecture(torch.cuda.get_device_capability())
    mine = {key: tile for key, tile in TABLE.items() if key[0] == architecture and key[2] == "16bit"}
    path = Path(tuning.__file__)
    memory = torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory
    workers = max(1, min(MOST_PROCESSES, os.cpu_count() or 1, memory // PROCESS_BYTES - 1))
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:  # CUDA does not outlive a fork
        for key, tile in mine.items():
            if arguments.only in (None, key[1]):
                row = best(key, tile, pool)
                if not arguments.dry_run:
                    path.write_text(rewrite(path.read_text(), {key: row}))
    if not arguments.dry_run:
        print(f"{path}: written; make gpu-compile checks it, and make gpu-test what it computes")


if __name__ == "__main__":
    main()
