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

# table: begin
TABLE: dict[Key, Tile] = {
    # Compute capability 8.x, and 12.x: mma.sync. Shared memory may be as small as 99 KiB (8.6, 8.9, 12.0).
    ("sm_80", "grouped_conv1x1", "16bit", "few"): Tile(
        16, 64, 64, 4, 4, False, "128 tokens x 768 channels make 96 programs"
    ),
    ("sm_80", "grouped_conv1x1", "16bit", "some"): Tile(
        64, 64, 64, 4, 3, False, "1024 tokens x 768 channels make 192 programs"
    ),
    ("sm_80", "grouped_conv1x1", "16bit", "many"): Tile(
        128, 64, 64, 4, 3, False, "a weight serves 128 rows; two programs fit in 99 KiB"
    ),
    ("sm_80", "grouped_ffn", "16bit", "few"): Tile(
        16, 64, 64, 4, 2, False, "128 tokens x 4 groups make 32 programs; fewer rows waste mma.sync"
    ),
    ("sm_80", "grouped_ffn", "16bit", "some"): Tile(
        32, 64, 64, 4, 2, False, "1024 tokens x 4 groups make 128 programs"
    ),
    ("sm_80", "grouped_ffn", "16bit", "many"): Tile(
        64, 32, 64, 4, 2, False, "sums of 64 x 192 take 96 registers a thread; steps of 64 spill"
    ),
    ("sm_80", "attention", "16bit", "any"): Tile(
        64, 64, 64, 4, 2, False, "16 rows for each warp, so a row's softmax stays in one"
    ),
    ("sm_80", "grouped_qkv_attention", "16bit", "few"): Tile(
        64, 64, 32, 4, 2, False, "24 programs for 128 tokens; a depth of 64 spills"
    ),
    ("sm_80", "grouped_qkv_attention", "16bit", "many"): Tile(
        128, 64, 64, 8, 2, False, "up to 128 tokens, keys and values are projected once"
    ),
    # Compute capability 9.0: wgmma, which wants four warps, and 64 on the long side of their product.
    ("sm_90", "grouped_conv1x1", "16bit", "few"): Tile(
        16, 64, 64, 4, 4, True, "128 tokens x 768 channels: 96 programs for 132 processors"
    ),
    ("sm_90", "grouped_conv1x1", "16bit", "some"): Tile(
        64, 64, 64, 4, 4, True, "1024 tokens x 768 channels make 192 programs"
    ),
    ("sm_90", "grouped_conv1x1", "16bit", "many"): Tile(
        128, 128, 64, 8, 3, False, "64 multiply-adds for a byte from L2; 256 columns spill"
    ),
    ("sm_90", "grouped_ffn", "16bit", "few"): Tile(
        16, 64, 64, 4, 3, True, "128 tokens x 4 groups: 32 programs, each bound by its 590 KB of weights"
    ),
    ("sm_90", "grouped_ffn", "16bit", "some"): Tile(
        32, 64, 64, 4, 3, True, "1024 tokens x 4 groups: 128 programs for 132 processors"
    ),
    ("sm_90", "grouped_ffn", "16bit", "many"): Tile(
        128, 64, 64, 8, 2, False, "a group's weights serve 128 rows: 128 operations for a byte from L2"
    ),
    ("sm_90", "attention", "16bit", "any"): Tile(
        64, 64, 64, 4, 3, False, "one warpgroup, 16 rows for each warp, so a row's softmax stays in one"
    ),
    ("sm_90", "grouped_qkv_attention", "16bit", "few"): Tile(
        64, 64, 32, 4, 3, False, "24 programs for 128 tokens; a depth of 64 spills"
    ),
    ("sm_90", "grouped_qkv_attention", "16bit", "many"): Tile(
        128, 64, 64, 8, 2, False, "up to 128 tokens, keys and values are projected once"
    ),
    # Compute capability 10.x: tcgen05, with accumulators in tensor memory. As sm_90 until measured.
    ("sm_100", "grouped_conv1x1", "16bit", "few"): Tile(
        16, 64, 64, 4, 4, True, "128 tokens x 768 channels make 96 programs"
    ),
    ("sm_100", "grouped_conv1x1", "16bit", "some"): Tile(
        64, 64, 64, 4, 4, True, "1024 tokens x 768 channels make 192 programs"
    ),
    ("sm_100", "grouped_conv1x1", "16bit", "many"): Tile(
        128, 128, 64, 8, 3, False, "64 multiply-adds for a byte from L2"
    ),
    ("sm_100", "grouped_ffn", "16bit", "few"): Tile(16, 64, 64, 4, 3, True, "128 tokens x 4 groups make 32 programs"),
    ("sm_100", "grouped_ffn", "16bit", "some"): Tile(
        32, 64, 64, 4, 3, True, "1024 tokens x 4 groups make 128 programs"
    ),
    ("sm_100", "grouped_ffn", "16bit", "many"): Tile(
        128, 64, 64, 8, 2, False, "a group's weights serve 128 rows: 128 operations for a byte from L2"
    ),
    ("sm_100", "attention", "16bit", "any"): Tile(
        64, 64, 64, 4, 3, False, "one warpgroup; a row's softmax stays in one warp"
    ),
    ("sm_100", "grouped_qkv_attention", "16bit", "any"): Tile(
        64, 64, 64, 4, 2, False, "24 programs for 128 tokens, and two to a processor for many"
    ),
}
# table: end

# Not main rows, and the same for every chip. float32 has no matrix instruction: a tile's sums and both its operands are
# in registers, so it is small. tf32 operands are twice as wide as 16-bit ones, so tiles are half as deep.
for _architecture in ARCHITECTURES:
    for _operator, _block in (
        ("grouped_conv1x1", 32),
        ("attention", 32),
        ("grouped_qkv_attention", 32),
        ("grouped_ffn", 16),
    ):
        _depth = 16 if _operator in ("grouped_qkv_attention", "grouped_ffn") else 32
        TABLE[_architecture, _operator, "float32", "any"] = Tile(32, _block, _depth, 4, 1, False, "more spills")
        TABLE[_architecture, _operator, "tf32", "any"] = Tile(64, 32, 32, 4, 2, False, "half of the 16-bit depth")


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
    matmul = torch.backends.cuda.matmul
    try:
        allowed = matmul.allow_tf32
    except RuntimeError:  # PyTorch 2.9 and later, where the setting's newer name, fp32_precision, was set alone
        allowed = matmul.fp32_precision == "tf32"
    return "tf32" if allowed else "float32"


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
