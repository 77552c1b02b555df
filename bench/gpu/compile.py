"""Compiles every row of the table of block sizes for its architecture, without a GPU, and writes bench/GPU.md.

Fails when a row spills registers or does not fit a multiprocessor, when a main row (16-bit arithmetic) does without its
architecture's matrix instruction, and when rows for batches of different sizes add up in different orders.
"""

from __future__ import annotations

import itertools
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from squeezebert_kernels.triton import tuning
from squeezebert_kernels.triton.tuning import ARCHITECTURES, MAX_WIDTH, SIZES, TABLE, Key, Tile

from .recording import CHANNELS, GROUPS, Launch, record
from .sums import orders

REPORT = Path(__file__).parents[1] / "GPU.md"
DTYPES = {"16bit": torch.bfloat16, "tf32": torch.float32, "float32": torch.float32}
POINTERS = {torch.bfloat16: "*bf16", torch.float32: "*fp32", torch.int32: "*i32", torch.int64: "*i64"}
# Tokens that a row is compiled for; any number of its class gives the same code.
TOKENS = {"few": 128, "some": 1024, "many": 16384, "any": 1024}
# Shared memory a program may have: 8.6, 8.9 and 12.0, which the rows of sm_80 also serve, have 99 KiB.
SHARED_LIMIT = {"sm_80": 99 * 1024, "sm_90": 227 * 1024, "sm_100": 227 * 1024}
# SASS mnemonics. HGMMA is wgmma, UTCHMMA tcgen05.
MATRIX = {"HGMMA": "wgmma", "UTCHMMA": "tcgen05", "HMMA": "mma.sync"}
WANTED = {"sm_80": "mma.sync", "sm_90": "wgmma", "sm_100": "tcgen05"}
WITHOUT_PRODUCTS = ("embedding_layer_norm",)
# Channels at which the order of LayerNorm's sums is compared: few, no power of two, SqueezeBERT's, many, odd, and too
# many for rows of different warps.
WIDTHS = (64, 100, 768, 1024, 1001, 1536)
WITH_NORM = ("grouped_conv1x1", "grouped_ffn")


@dataclass(frozen=True)
class Result:
    """What the compiler made of a row. spills: instructions that move registers to or from local memory."""

    registers: int
    stack: int
    spills: int
    shared: int
    matrix: dict[str, int]


def compiled_kernel(key: Key, tile: Tile, channels: int = CHANNELS) -> Any:
    """What Triton makes of a row."""
    architecture, operator, arithmetic, size = key
    launch = record(operator, DTYPES[arithmetic], tile, TOKENS[size], channels)
    if arithmetic == "tf32" and "PRECISION" in launch.constants:
        launch.constants["PRECISION"] = "tf32"
    target = GPUTarget("cuda", int(architecture.removeprefix("sm_")), 32)
    options = {"num_warps": tile.warps, "num_stages": tile.stages}
    return triton.compile(source(launch), target=target, options=options)


def compile_row(key: Key, tile: Tile) -> Result:
    compiled = compiled_kernel(key, tile)
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(compiled.asm["cubin"])
        file.flush()
        usage = _cuobjdump("-res-usage", file.name)
        sass = _cuobjdump("-sass", file.name)
    found = re.search(r"REG:(\d+) STACK:(\d+)", usage)
    assert found is not None, f"no resource usage in {usage!r}"
    matrix = {name: len(re.findall(rf"\b{mnemonic}\b", sass)) for mnemonic, name in MATRIX.items()}
    spills = len(re.findall(r"\b(?:STL|LDL)\b", sass))
    return Result(int(found[1]), int(found[2]), spills, compiled.metadata.shared, matrix)


def source(launch: Launch) -> ASTSource:
    """The kernel with the types and the known values of its arguments, as Triton itself would see them."""
    signature: dict[str, str] = {}
    constants: dict[tuple[int, ...], Any] = {}
    attributes: dict[tuple[int, ...], Any] = {}
    names = launch.kernel.arg_names
    values = [*launch.args, *(launch.constants[name] for name in names[len(launch.args) :])]
    for index, (name, value) in enumerate(zip(names, values, strict=True)):
        if isinstance(value, torch.Tensor):
            signature[name] = POINTERS[value.dtype]
            attributes[index,] = [["tt.divisibility", 16]]
        elif name in launch.constants or value is None or (isinstance(value, int) and value == 1):
            signature[name] = "constexpr"
            constants[index,] = value
        elif isinstance(value, float):
            signature[name] = "fp32"
        else:
            signature[name] = "i32"
            if value % 16 == 0:
                attributes[index,] = [["tt.divisibility", 16]]
    return ASTSource(launch.kernel, signature, constants, attributes)


def _cuobjdump(*arguments: str) -> str:
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    return subprocess.run([tool, *arguments], capture_output=True, text=True, check=True).stdout


def problems(key: Key, result: Result) -> list[str]:
    """What is wrong with a row."""
    architecture, operator, arithmetic, _ = key
    found = []
    if result.shared > SHARED_LIMIT[architecture]:
        found.append(f"{result.shared} bytes of shared memory, above {SHARED_LIMIT[architecture]}")
    if result.spills or result.stack:
        found.append(f"{result.spills} spill instructions, {result.stack} bytes of stack")
    if arithmetic == "16bit" and operator not in WITHOUT_PRODUCTS and not result.matrix[WANTED[architecture]]:
        found.append(f"no {WANTED[architecture]}: {result.matrix}")
    return found


def disagreements(
    architectures: Sequence[str] = ARCHITECTURES, widths: Sequence[int] = WIDTHS, arithmetic: str = "16bit"
) -> Iterator[str]:
    """Where batches of different sizes would get different bits: rows of one model that add up in different orders."""
    operators = dict.fromkeys(key[1] for key in TABLE)
    for architecture, operator in itertools.product(architectures, operators):
        normed = operator in WITH_NORM
        for channels in widths if normed else (CHANNELS,):
            width, rest = divmod(channels, GROUPS)
            if operator == "grouped_ffn" and (rest or width % 16 or width > MAX_WIDTH):
                continue  # two launches of grouped_conv1x1
            found: dict[Tile, set[str]] = {}
            for size, rows in SIZES.items():
                tile = tuning.tile(architecture, operator, arithmetic, rows, channels if normed else None)
                if tile not in found:
                    kernel = compiled_kernel((architecture, operator, arithmetic, size), tile, channels)
                    found[tile] = orders(kernel.asm["ttgir"])
            first, *others = found.values()
            for other in others:
                if other != first:
                    yield f"{architecture} {operator}, {channels} channels: {sorted(first ^ other)}"


def main() -> int:
    lines = [
        "| architecture | operator | arithmetic | batch | rows x columns x depth | warps, stages | registers | spills "
        "| shared KiB | matrix instructions |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    failed = []
    for key, tile in TABLE.items():
        result = compile_row(key, tile)
        blocks = f"{tile.block_rows} x {tile.block_columns} x {tile.block_depth}" + (", swapped" if tile.swap else "")
        blocks += f", split by {tile.split}" if tile.split > 1 else ""
        matrix = ", ".join(f"{count} {name}" for name, count in result.matrix.items() if count) or "none"
        row = f"{blocks} | {tile.warps}, {tile.stages} | {result.registers} | {result.spills}"
        lines.append(f"| {' | '.join(key)} | {row} | {result.shared / 1024:.0f} | {matrix} |")
        print(lines[-1], flush=True)
        failed += [f"{' '.join(key)}: {problem}" for problem in problems(key, result)]
    failed += [f"different orders of sums: {each}" for each in disagreements()]
    REPORT.write_text(_report(lines))
    for problem in failed:
        print(f"make gpu-compile: {problem}", file=sys.stderr)
    return 1 if failed else 0


def _report(lines: list[str]) -> str:
    return f"""# The Triton kernels, as compiled

Written by `make gpu-compile` with Triton {triton.__version__}: every row of `squeezebert_kernels/triton/tuning.py`,
compiled for its architecture with the shapes of SqueezeBERT (768 channels, 4 groups, 12 heads; bfloat16 for 16-bit
arithmetic). Registers are those of one thread; spills are instructions that move one to or from memory; the last column
counts matrix instructions in the machine code. No GPU takes part, so nothing here is a speed.

All rows have to come out without spills, and the main rows, those of 16-bit arithmetic, with their architecture's own
matrix instruction. Rows for batches of different sizes have to add up in the same order, by the same kind of matrix
instruction and with the same layout of every sum over a tile: at {", ".join(map(str, WIDTHS))} channels.
`make gpu-compile` fails when it is not so.

{chr(10).join(lines)}
"""


if __name__ == "__main__":
    sys.exit(main())
