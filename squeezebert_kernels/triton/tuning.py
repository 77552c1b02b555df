"""The one table of block sizes, a row for each architecture, operator, arithmetic and size of batch.

`make gpu-tune` measures candidates on the GPU at hand and rewrites the rows between the marks below; nothing is tuned
while a model runs. `make gpu-compile` compiles every row for its architecture and reports what came out.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Tile:
    """How one kernel cuts its work.

    block_rows: tokens of a program (queries, for attention). block_columns: output channels of a program (keys of a
    step, for attention; intermediate channels of a step, for grouped_ffn). block_depth: input channels of a step.
    swap: the matrix product is computed transposed, weights times tokens, so that as few as 16 tokens fill a matrix
    instruction, whose long side is then along the channels. reason: why these.
    """

    block_rows: int
    block_columns: int
    block_depth: int
    warps: int
    stages: int
    swap: bool
    reason: str


# Rows of a batch up to which a size class reaches, in order.
SIZES = {"few": 256, "some": 2048, "many": 2**62}

# What an architecture's rows are written for. The main rows are those of 16-bit arithmetic: they may not spill.
ARCHITECTURES = ("sm_80", "sm_90", "sm_100")
ARITHMETICS = ("16bit", "tf32", "float32")

# (architecture, operator, arithmetic, size) -> tile. Rows of one architecture, operator and arithmetic agree on what
# decides a row's bits: the matrix instruction, the keys of a step, and the threads that LayerNorm sums with.
Key = tuple[str, str, str, str]

# fmt: off
# table: begin
TABLE: dict[Key, Tile] = {
    # Compute capability 8.x, and 12.x: mma.sync. Shared memory may be as small as 99 KiB (8.6, 8.9, 12.0).
    ("sm_80", "grouped_conv1x1", "16bit", "few"): Tile(16, 64, 64, 4, 4, False, "128 tokens x 768 channels make 96 programs"),
    ("sm_80", "grouped_conv1x1", "16bit", "some"): Tile(64, 64, 64, 4, 3, False, "1024 tokens x 768 channels make 192 programs"),
    ("sm_80", "grouped_conv1x1", "16bit", "many"): Tile(128, 64, 64, 4, 3, False, "each weight serves 128 rows; 72 KiB of stages, so two programs share a multiprocessor where it has 164"),
    ("sm_80", "grouped_ffn", "16bit", "few"): Tile(16, 64, 64, 4, 2, False, "128 tokens x 4 groups make 32 programs; fewer rows do not fill mma.sync"),
    ("sm_80", "grouped_ffn", "16bit", "some"): Tile(32, 64, 64, 4, 2, False, "1024 tokens x 4 groups make 128 programs"),
    ("sm_80", "grouped_ffn", "16bit", "many"): Tile(64, 64, 64, 4, 2, False, "accumulators of 64 x 192 take 96 registers a thread; 128 rows would need more shared memory than 99 KiB"),
    ("sm_80", "attention", "16bit", "any"): Tile(64, 64, 64, 4, 2, False, "a head of 64: 16 rows for each warp, so a row's softmax stays in one"),
    ("sm_80", "grouped_qkv_attention", "16bit", "any"): Tile(64, 64, 64, 4, 1, False, "both weights of a head, 48 KiB, stay in shared memory beside one tile of tokens"),
    # Compute capability 9.0: wgmma, which wants 64 rows on its long side and four warps.
    ("sm_90", "grouped_conv1x1", "16bit", "few"): Tile(16, 64, 64, 4, 4, True, "128 tokens x 768 channels make 96 programs for 132 multiprocessors"),
    ("sm_90", "grouped_conv1x1", "16bit", "some"): Tile(64, 64, 64, 4, 4, True, "1024 tokens x 768 channels make 192 programs"),
    ("sm_90", "grouped_conv1x1", "16bit", "many"): Tile(128, 128, 64, 8, 3, False, "64 multiply-adds for each byte from L2; 96 KiB of stages, so two programs share a multiprocessor"),
    ("sm_90", "grouped_ffn", "16bit", "few"): Tile(16, 64, 64, 4, 3, True, "128 tokens x 4 groups make 32 programs, each bound by reading its group's 590 KB"),
    ("sm_90", "grouped_ffn", "16bit", "some"): Tile(32, 64, 64, 4, 3, True, "1024 tokens x 4 groups make 128 programs for 132 multiprocessors"),
    ("sm_90", "grouped_ffn", "16bit", "many"): Tile(128, 64, 64, 8, 2, False, "a group's weights serve 128 rows: 128 operations for each byte from L2; accumulators of 128 x 192 take 96 registers a thread"),
    ("sm_90", "attention", "16bit", "any"): Tile(64, 64, 64, 4, 3, False, "a head of 64: one warpgroup, 16 rows for each warp, so a row's softmax stays in one"),
    ("sm_90", "grouped_qkv_attention", "16bit", "few"): Tile(64, 64, 64, 4, 2, False, "12 heads x 2 blocks of queries make 24 programs for 128 tokens"),
    ("sm_90", "grouped_qkv_attention", "16bit", "many"): Tile(128, 64, 64, 8, 2, False, "up to 128 tokens, keys and values are projected once"),
    # Compute capability 10.x: tcgen05, 128 rows on the long side, accumulators in tensor memory.
    ("sm_100", "grouped_conv1x1", "16bit", "few"): Tile(16, 64, 64, 4, 4, True, "as on sm_90, until measured"),
    ("sm_100", "grouped_conv1x1", "16bit", "some"): Tile(64, 64, 64, 4, 4, True, "as on sm_90, until measured"),
    ("sm_100", "grouped_conv1x1", "16bit", "many"): Tile(128, 128, 64, 8, 3, False, "as on sm_90, until measured"),
    ("sm_100", "grouped_ffn", "16bit", "few"): Tile(16, 64, 64, 4, 3, True, "as on sm_90, until measured"),
    ("sm_100", "grouped_ffn", "16bit", "some"): Tile(32, 64, 64, 4, 3, True, "as on sm_90, until measured"),
    ("sm_100", "grouped_ffn", "16bit", "many"): Tile(128, 64, 64, 8, 2, False, "as on sm_90, until measured"),
    ("sm_100", "attention", "16bit", "any"): Tile(64, 64, 64, 4, 3, False, "as on sm_90, until measured"),
    ("sm_100", "grouped_qkv_attention", "16bit", "any"): Tile(64, 64, 64, 4, 2, False, "as on sm_90, until measured"),
}
# table: end
# fmt: on

# float32 without tf32 has no matrix instruction: a tile's operands and sums all live in registers, whatever the chip.
_FLOAT32 = "no matrix instruction: sums and both operands are in registers, and more rows spill"
# tf32 has the matrix instruction at twice the bytes: half the depth of the 16-bit rows.
_TF32 = "tf32 operands are twice as wide as 16-bit ones, so half as deep; not a main row, not tuned for size"
for _architecture in ARCHITECTURES:
    for _operator in ("grouped_conv1x1", "grouped_ffn", "attention", "grouped_qkv_attention"):
        TABLE[_architecture, _operator, "float32", "any"] = Tile(32, 32, 32, 4, 1, False, _FLOAT32)
        TABLE[_architecture, _operator, "tf32", "any"] = Tile(64, 32, 32, 4, 2, False, _TF32)


def architecture(capability: tuple[int, int]) -> str:
    """The rows that serve a compute capability. 12.x has neither wgmma nor tcgen05 and is served as 8.x is.

    Raises RuntimeError for a capability below 8.0.
    """
    major, minor = capability
    if major < 8:
        raise RuntimeError(
            f"squeezebert: device: expected compute capability 8.0 or higher (Ampere), got {major}.{minor}"
        )
    return {9: "sm_90", 10: "sm_100"}.get(major, "sm_80")


def arithmetic(dtype: torch.dtype) -> str:
    """How products of `dtype` are computed. float32 is exact unless torch.backends.cuda.matmul.allow_tf32."""
    if dtype != torch.float32:
        return "16bit"
    return "tf32" if torch.backends.cuda.matmul.allow_tf32 else "float32"


def size(rows: int) -> str:
    """The class of a batch of `rows` tokens."""
    return next(name for name, most in SIZES.items() if rows <= most)


def tile(architecture: str, operator: str, arithmetic: str, rows: int) -> Tile:
    """The row of the table for a batch of `rows` tokens: its own size class, else the next one up, else "any"."""
    names = list(SIZES)
    for name in (*names[names.index(size(rows)) :], "any"):
        found = TABLE.get((architecture, operator, arithmetic, name))
        if found is not None:
            return found
    raise KeyError(f"no block sizes for {operator} in {arithmetic} on {architecture}")
