"""`make arm-analysis`: the hot loops of the NEON kernels, as they were built, on paper.

Takes the loops that the built library names and gives each to llvm-mca for several cores. Prints instructions,
floating-point vector operations, loads, cycles per pass, the bound that the floating-point pipes set, and cycles over
that bound. Where a limit is set, fails for a hot loop that spills (touches the stack) or micro-kernel that misses it.

llvm-mca knows no cache: every load hits L1.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from arm_code import Code, Loop


@dataclass(frozen=True)
class Core:
    """A core as llvm-mca knows it.

    `model` is the core whose model it takes, `pipes` how many 128-bit floating-point operations it starts in a cycle,
    `width` its dispatch width (0: the model's own), `limit` the most that the cycles of the micro-kernel's whole tile
    may be over the bound (0: none is set).
    """

    name: str
    model: str
    product: str
    pipes: int
    width: int
    limit: float


# LLVM 19 has no model of cortex-x1 or x2 (it lends them Cortex-A57's and Neoverse N2's, both with two pipes of four);
# Neoverse V1 is Cortex-X1 with SVE.
# Its model of Cortex-A55 starts two 128-bit FMLAs a cycle; the core has two pipes of 64 bits, so it starts one.
CORES = [
    Core("cortex-a55", "cortex-a55", "float32_neon_a55", 1, 0, 1.25),
    Core("neoverse-n1", "neoverse-n1", "float32_neon", 2, 4, 1.10),
    Core("neoverse-n2", "neoverse-n2", "float32_neon", 2, 5, 0.0),
    Core("cortex-x1", "neoverse-v1", "float32_neon", 4, 8, 1.10),
    Core("neoverse-v1", "neoverse-v1", "float32_neon", 4, 8, 1.10),
    Core("neoverse-v2", "neoverse-v2", "float32_neon", 4, 8, 1.10),
    Core("cortex-a55", "cortex-a55", "float16_neon_fp16", 1, 0, 0.0),
    Core("neoverse-n1", "neoverse-n1", "float16_neon_fp16", 2, 4, 1.25),
    Core("cortex-x1", "neoverse-v1", "float16_neon_fp16", 4, 8, 1.25),
    Core("neoverse-v2", "neoverse-v2", "float16_neon_fp16", 4, 8, 1.25),
    Core("cortex-a55", "cortex-a55", "int8_neon_dotprod", 1, 0, 0.0),
    Core("neoverse-n1", "neoverse-n1", "int8_neon_dotprod", 2, 4, 1.10),
    Core("cortex-x1", "neoverse-v1", "int8_neon_dotprod", 4, 8, 1.10),
    Core("neoverse-n2", "neoverse-n2", "int8_neon_i8mm", 2, 5, 1.10),
    Core("neoverse-v1", "neoverse-v1", "int8_neon_i8mm", 4, 8, 1.10),
    Core("neoverse-v2", "neoverse-v2", "int8_neon_i8mm", 4, 8, 1.10),
    Core("neoverse-n2", "neoverse-n2", "bfloat16_neon_bfmmla", 2, 5, 1.10),
    Core("neoverse-v1", "neoverse-v1", "bfloat16_neon_bfmmla", 4, 8, 1.10),
    Core("neoverse-v2", "neoverse-v2", "bfloat16_neon_bfmmla", 4, 8, 1.10),
    Core("neoverse-n1", "neoverse-n1", "int8_neon", 2, 4, 0.0),
]
COLUMNS = {"float16_neon_fp16": 32}  # of a tile; all others have 8
ROW_KERNELS = "neon"


def title(loop: Loop, product: str) -> str:
    """The loop's name; with its tile's size where it has one."""
    rows = re.search(r"::tile<(\d+)>\(", loop.function)
    return f"{loop.name} {rows[1]} x {COLUMNS.get(product, 8)}" if rows else loop.name


def hot_loops(code: Code, unit: str) -> list[tuple[str, Loop]]:
    """(title, loop) of a product or of the row kernels.

    The sums at each height of the tile, and of each other loop its longest copy; of a product in low precision the sums
    alone, since its GELU is float32's.

    Raises RuntimeError where a name is left of which no loop is straight code.
    """
    namespace = f"squeezebert::{unit}::"
    sums_only = unit != ROW_KERNELS and not unit.startswith("float32")
    longest: dict[str, Loop] = {}
    for loop in code.loops:
        if namespace not in loop.function or (sums_only and loop.name != "micro-kernel"):
            continue
        name = title(loop, unit) if loop.name == "micro-kernel" else loop.name
        if name not in longest or len(loop.body) > len(longest[name].body):
            longest[name] = loop
    lost = {name for function, name in code.names if namespace in function} - {loop.name for loop in longest.values()}
    if lost and not (sums_only and longest):
        raise RuntimeError(f"{unit}: expected a loop of straight code for {', '.join(sorted(lost))}; none was built")
    return sorted(longest.items(), key=lambda item: (len(item[0]), item[0]), reverse=True)


def cycles(loop: Loop, core: Core, mca: str, passes: int = 100) -> float:
    """Cycles per pass of the loop, of many passes."""
    code = "\n".join(["again:", *(re.sub(r"[0-9a-f]+ <.*", "0", i.text) for i in loop.body[:-1]), "b.ne again", ""])
    command = [mca, "-mtriple=aarch64", f"-mcpu={core.model}", f"-iterations={passes}"]
    if core.width:
        command.append(f"-dispatch={core.width}")
    report = subprocess.run(command, input=code, check=True, capture_output=True, text=True).stdout
    total = re.search(r"Total Cycles:\s+(\d+)", report)
    if not total:
        raise RuntimeError(f"{mca}: expected a report with its total of cycles, got {report[:200]!r}")
    return int(total[1]) / passes


def main() -> int:
    """Prints the table; returns 1 if a hot loop spills or the micro-kernel is above its limit."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("library", type=Path, help="libsqueezebert.so for aarch64, not stripped")
    parser.add_argument("--mca", default="llvm-mca")
    parser.add_argument("--objdump", default="aarch64-linux-gnu-objdump")
    arguments = parser.parse_args()
    version = subprocess.run([arguments.mca, "--version"], check=True, capture_output=True, text=True).stdout
    print("llvm-mca of LLVM", re.findall(r"version (\S+)", version)[0], end="\n\n")
    row = "| {:12} | {:17} | {:20} | {:>5} | {:>5} | {:>5} | {:>7} | {:>6} | {:>5} |"
    print(row.format("core", "product", "loop", "insns", "float", "loads", "cycles", "bound", "ratio"))
    print(row.format(*(["---"] * 9)))
    code = Code(arguments.library, arguments.objdump)
    failures = []
    for core in CORES:
        loops = hot_loops(code, core.product)
        if core.product.startswith("float32"):
            loops += hot_loops(code, ROW_KERNELS)
        whole_tile = next(name for name, loop in loops if loop.name == "micro-kernel")
        for name, loop in loops:
            floats = sum(i.is_vector_arithmetic for i in loop.body)
            loads = sum(i.is_load for i in loop.body)
            took, bound = cycles(loop, core, arguments.mca), floats / core.pipes
            figures = f"{took:.2f}", f"{bound:.2f}", f"{took / bound:.2f}"
            print(row.format(core.name, core.product, name, len(loop.body), floats, loads, *figures))
            if core.limit and any(i.is_spill for i in loop.body):
                failures.append(f"{core.product}, {name}: a hot loop spills")
            if core.limit and name == whole_tile and took > core.limit * bound:
                failures.append(f"{core.name}, {name}: {took / bound:.3f} of its bound, expected {core.limit}")
    for failure in failures:
        print(failure, file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
