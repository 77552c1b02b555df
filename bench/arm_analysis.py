"""`make arm-analysis`: the hot loops of the NEON kernels, as they were built, on paper.

Reads the disassembly of the object files, finds the innermost loops, and gives each to llvm-mca for several cores.
Prints instructions, floating-point vector operations, loads, cycles per pass, the bound that the floating-point pipes
set, and cycles over that bound. Fails where a hot loop spills (touches the
stack) and where the micro-kernel misses its limit.

llvm-mca knows no cache: every load hits L1. Its dispatch widths are set to the cores' own.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Core:
    """A core as llvm-mca knows it.

    `pipes` is how many 128-bit floating-point operations it starts in a cycle, `width` the dispatch width (0: the
    model's own), `limit` the most that the micro-kernel's cycles may be over the bound (0: none is set).
    """

    name: str
    kernels: str
    pipes: int
    width: int
    limit: float


# LLVM 19 has Cortex-A57's model for cortex-x1, and Neoverse N2's, with two pipes instead of four, for cortex-x2.
# Its model of Cortex-A55 starts two 128-bit FMLAs a cycle; the core has two pipes of 64 bits, so it starts one.
CORES = [
    Core("cortex-a55", "neon_a55", 1, 0, 1.25),
    Core("neoverse-n1", "neon", 2, 4, 1.10),
    Core("cortex-x2", "neon", 2, 5, 0.0),
    Core("neoverse-v1", "neon", 4, 8, 1.10),
    Core("neoverse-v2", "neon", 4, 8, 1.10),
]

ARITHMETIC = re.compile(r"f(mla|mls|mul|add|sub|abs|neg|min|max|rintn|cvtns|div|sqrt)$")
LOAD = re.compile(r"ld(r|p|1|ur)$")


@dataclass(frozen=True)
class Instruction:
    """One line of the disassembly; `target` is where a branch goes, else None."""

    address: int
    text: str
    target: int | None

    @property
    def name(self) -> str:
        return self.text.split()[0]

    @property
    def is_vector_arithmetic(self) -> bool:
        return bool(ARITHMETIC.match(self.name)) and ".4s" in self.text

    @property
    def is_spill(self) -> bool:
        return bool(re.search(r"\[(sp|x29)\b", self.text))


@dataclass(frozen=True)
class Loop:
    """A hot loop: what it computes, and its instructions without the branch back."""

    name: str
    body: list[Instruction]

    def count(self, predicate) -> int:
        return sum(1 for instruction in self.body if predicate(instruction))


def functions(object_file: Path, objdump: str) -> Iterator[tuple[str, list[Instruction]]]:
    """(name, instructions) of every function in the object file."""
    command = [objdump, "--disassemble", "--no-show-raw-insn", "--demangle", str(object_file)]
    listing = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    for part in re.split(r"\n(?=[0-9a-f]+ <.*>:\n)", listing):
        head = re.match(r"[0-9a-f]+ <(.*)>:\n", part)
        if not head:
            continue
        code = []
        for line in re.finditer(r"^ *([0-9a-f]+):\t([^\n]*)", part, re.MULTILINE):
            text = re.sub(r"\s*//.*", "", line[2]).replace("\t", " ")
            branch = re.match(r"(?:b|b\.\w+|cbn?z|tbn?z) (?:.*, )?([0-9a-f]+) <", text)
            code.append(Instruction(int(line[1], 16), text, int(branch[1], 16) if branch else None))
        yield head[1], code


def innermost_loops(code: list[Instruction]) -> list[list[Instruction]]:
    """Bodies of the loops that hold no other loop: straight code up to a branch back to its start."""
    index = {instruction.address: i for i, instruction in enumerate(code)}
    spans = [(index[c.target], i) for i, c in enumerate(code) if c.target in index and index[c.target] <= i]
    inner = [s for s in spans if not any(o != s and s[0] <= o[0] and o[1] <= s[1] for o in spans)]
    return [code[first:last] for first, last in inner]


def straight_runs(code: list[Instruction]) -> list[list[Instruction]]:
    """The code between branches and branch targets."""
    targets = {c.target for c in code}
    runs: list[list[Instruction]] = [[]]
    for instruction in code:
        if instruction.address in targets:
            runs.append([])
        if instruction.target is None:
            runs[-1].append(instruction)
        else:
            runs.append([])
    return runs


def hot_loops(object_file: Path, objdump: str) -> list[Loop]:
    """The micro-kernel at each height of the tile, GELU, and the loops of exp (softmax) and LayerNorm."""
    loops = []
    for name, code in functions(object_file, objdump):
        tile = re.search(r"::tile<(\d+)>\(", name)
        simple = [b for b in innermost_loops(code) if all(i.target is None for i in b)]
        if tile:
            body = max(simple, key=lambda b: sum(".s[" in i.text for i in b))
            loops.append(Loop(f"micro-kernel {tile[1]} x 8", body))
            if tile[1] == "8":  # GELU is one run of code for the whole tile; the heights differ in its length only
                runs = [r for r in straight_runs(code) if not any(".s[" in i.text for i in r)]
                loops.append(Loop("GELU of an 8 x 8 tile", max(runs, key=lambda r: sum("fml" in i.text for i in r))))
        else:
            found = re.search(r"::(attention|layer_norm_row|softmax_row)\(", name)
            for body in simple if found else []:
                if sum(i.is_vector_arithmetic for i in body) < 3:
                    continue
                if any(i.name == "frintn" for i in body):
                    loops.append(Loop("exp and sum of softmax", body))
                elif found and found[1] == "layer_norm_row":
                    squares = any(re.search(r"fmla (v\d+)\.4s, (v\d+)\.4s, \2\.4s", i.text) for i in body)
                    kind = "variance" if squares else "normalize" if any("fml" in i.text for i in body) else "mean"
                    loops.append(Loop(f"LayerNorm, {kind}", body))
    return sorted(loops, key=lambda loop: loop.name, reverse=True)


def cycles(loop: Loop, core: Core, mca: str, passes: int = 100) -> float:
    """Cycles per pass of the loop, of many passes."""
    code = "\n".join(["again:", *(re.sub(r" <.*", "", i.text) for i in loop.body), "b.ne again", ""])
    command = [mca, "-mtriple=aarch64", f"-mcpu={core.name}", f"-iterations={passes}"]
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
    parser.add_argument("build", type=Path, help="CMake's build folder for aarch64")
    parser.add_argument("--mca", default="llvm-mca")
    parser.add_argument("--objdump", default="aarch64-linux-gnu-objdump")
    arguments = parser.parse_args()
    version = subprocess.run([arguments.mca, "--version"], check=True, capture_output=True, text=True).stdout
    print("llvm-mca of LLVM", re.findall(r"version (\S+)", version)[0], end="\n\n")
    row = "| {:12} | {:9} | {:22} | {:>5} | {:>5} | {:>5} | {:>7} | {:>6} | {:>5} |"
    print(row.format("core", "kernels", "loop", "insns", "float", "loads", "cycles", "bound", "ratio"))
    print(row.format(*(["---"] * 9)))
    failures = []
    for core in CORES:
        for loop in hot_loops(
            arguments.build / f"CMakeFiles/squeezebert_{core.kernels}.dir/csrc/isa/{core.kernels}.cc.o",
            arguments.objdump,
        ):
            floats = loop.count(lambda i: i.is_vector_arithmetic)
            loads = loop.count(lambda i: bool(LOAD.match(i.name)))
            took, bound = cycles(loop, core, arguments.mca), floats / core.pipes
            print(
                row.format(
                    core.name,
                    core.kernels,
                    loop.name,
                    len(loop.body) + 1,
                    floats,
                    loads,
                    f"{took:.2f}",
                    f"{bound:.2f}",
                    f"{took / bound:.2f}",
                )
            )
            if loop.count(lambda i: i.is_spill):
                failures.append(f"{core.kernels}, {loop.name}: a hot loop spills")
            if core.limit and loop.name == "micro-kernel 8 x 8" and took > core.limit * bound:
                failures.append(f"{core.name}, {loop.name}: {took / bound:.3f} of its bound, expected {core.limit}")
    for failure in failures:
        print(failure, file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
