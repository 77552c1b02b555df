"""The one table of block sizes, a row for each architecture, operator, arithmetic and size of batch.

`make gpu-tune` measures candidates on the GPU at hand and rewrites the rows between the marks below; nothing is tuned
while a model runs. `make gpu-compile` compiles every row for its architecture and reports what came out.

A row of tokens has the same bits in every batch, so rows of the table that serve one model add up in the same order:

- A dot product is summed along the reduction, one matrix instruction's depth at a time (16 elements of 16 bits), into
  one accumulator. Block sizes only cut that order. The instruction is of one kind in all rows: wgmma, tcgen05 or
  mma.sync. Swapped, its operands change places; products commute, and an element's sum knows nothing of its place in
  the tile. (So the instructions are known to work; NVIDIA does not promise it. `make gpu-test` compares the bits.)
- Softmax rescales after `block_columns` keys, the same number in all rows, and one warp has the whole row of scores.
- LayerNorm's sums depend on how Triton lays a row of channels out over the threads: see `Tile.norm_rows` and `tile`.

`make gpu-compile` reads the kind of instruction and the layouts of all sums out of the compiled rows and compares them.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Tile:
    """How one kernel cuts its work.

    block_rows: tokens of a program (queries, for attention). block_columns: output channels of a program (keys of a
    step, for attention; intermediate channels of a step, for grouped_ffn). block_depth: input channels of a step. Both
    are 0 where channels are not cut. swap: the matrix product is computed transposed, weights times tokens, so that as
    few as 16 tokens fill a matrix instruction, whose long side is then along the channels. reason: why these. split:
    programs that share a group's output channels, for grouped_ffn.
    """

    block_rows: int
    block_columns: int
    block_depth: int
    warps: int
    stages: int
    swap: bool
    reason: str
    split: int = 1

    @property
    def norm_rows(self) -> int:
        """Rows that LayerNorm holds at a time: 1024 channels in float32 are then 64 registers a thread. As many for
        each warp whatever the row of the table, so that a thread always has as many of a token's channels."""
        return 2 * self.warps


# Rows of a batch up to which a size class reaches, in order.
SIZES = {"few": 256, "some": 2048, "many": 2**62}

# What an architecture's rows are written for. The main rows are those of 16-bit arithmetic: they may not spill.
ARCHITECTURES = ("sm_80", "sm_90", "sm_100")
ARITHMETICS = ("16bit", "tf32", "float32")

# What the fused kernels have room for on every chip; wider models take the general path. (A model takes the same path
# in every batch: the two need not have the same bits.)
MAX_DEPTH = 256  # input channels of a group that it pays to project again for each block of queries: SqueezeBERT's 192
MAX_HEAD_SIZE = 64  # channels of a head beside whose projections keys and values fit into registers: SqueezeBERT's
MAX_WIDTH = 192  # channels of a group whose sums grouped_ffn keeps in registers: SqueezeBERT's

# (architecture, operator, arithmetic, size) -> tile.
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
    ("sm_80", "embedding_layer_norm", "16bit", "any"): Tile(
        4, 0, 0, 4, 1, False, "bound by memory; 32 programs for 128 tokens, 32 registers a thread for 1024 channels"
    ),
    ("sm_80", "grouped_conv1d", "16bit", "any"): Tile(
        64, 64, 64, 4, 2, False, "rows of one sequence: 128 tokens x 768 channels make 24 programs; no main path"
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
    ("sm_90", "embedding_layer_norm", "16bit", "any"): Tile(
        4, 0, 0, 4, 1, False, "bound by memory; 32 programs for 128 tokens, 32 registers a thread for 1024 channels"
    ),
    ("sm_90", "grouped_conv1d", "16bit", "any"): Tile(
        64, 64, 64, 4, 3, False, "rows of one sequence: 128 tokens x 768 channels make 24 programs; no main path"
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
    ("sm_100", "embedding_layer_norm", "16bit", "any"): Tile(
        4, 0, 0, 4, 1, False, "bound by memory; 32 programs for 128 tokens, 32 registers a thread for 1024 channels"
    ),
    ("sm_100", "grouped_conv1d", "16bit", "any"): Tile(
        64, 64, 64, 4, 3, False, "rows of one sequence: 128 tokens x 768 channels make 24 programs; no main path"
    ),
    ("sm_100", "attention", "16bit", "any"): Tile(
        64, 64, 64, 4, 3, False, "one warpgroup; a row's softmax stays in one warp"
    ),
    ("sm_100", "grouped_qkv_attention", "16bit", "any"): Tile(
        64, 64, 64, 4, 2, False, "24 programs for 128 tokens, and two to a processor for many"
    ),
}
# table: end

# Not main rows. float32 has no matrix instruction: a tile's sums and both its operands are in registers, so it is
# small. tf32 operands are twice as wide as 16-bit ones, so tiles are half as deep.
_GATHER = Tile(4, 0, 0, 4, 1, False, "as in 16 bit: sums are float32 there too")
_FLOAT32 = {
    "grouped_conv1x1": Tile(32, 32, 32, 4, 1, False, "sums and operands of 32 x 32 are 123 registers a thread at most"),
    "grouped_ffn": Tile(
        32, 16, 16, 4, 1, False, "sums of 32 x 192 take 48 registers a thread; steps of 32 spill on sm_80"
    ),
    "attention": Tile(32, 32, 32, 4, 1, False, "eight rows for each warp, so a row's softmax stays in one"),
    "grouped_qkv_attention": Tile(32, 32, 16, 4, 1, False, "a depth of 32 spills on sm_80"),
    "grouped_conv1d": Tile(32, 32, 32, 4, 1, False, "as grouped_conv1x1, whose product it is"),
    "embedding_layer_norm": _GATHER,
}
_TF32 = Tile(64, 32, 32, 4, 2, False, "half of the 16-bit depth")
for _architecture in ARCHITECTURES:
    for _operator, _tile in _FLOAT32.items():
        TABLE[_architecture, _operator, "float32", "any"] = _tile
        TABLE[_architecture, _operator, "tf32", "any"] = _GATHER if _tile is _GATHER else _TF32
TABLE |= {
    ("sm_80", "attention", "float32", "any"): Tile(32, 16, 32, 4, 1, False, "as the others, but 32 keys spill"),
    ("sm_100", "grouped_qkv_attention", "float32", "any"): Tile(
        32, 32, 16, 8, 1, False, "as the others, but four warps spill"
    ),
    ("sm_100", "grouped_ffn", "float32", "any"): Tile(32, 16, 16, 8, 1, False, "as the others, but four warps spill"),
}


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


def tile(architecture: str, operator: str, arithmetic: str, rows: int, norm_channels: int | None = None) -> Tile:
    """The row of the table for a batch of `rows` tokens: its own size class, else the next one up, else "any".

    norm_channels: those that a LayerNorm goes over, if one does. A thread holds 16 bytes of consecutive ones, at most,
    32 threads a warp, and further warps follow along the row, as many as it takes. Where it takes more than four, those
    of eight would add up in another order than those of four: then one row of the table serves every batch.
    """
    if norm_channels is not None:
        vector = min(8 if arithmetic == "16bit" else 4, norm_channels & -norm_channels)
        if norm_channels > 4 * 32 * vector:
            rows = SIZES["some"]
    names = list(SIZES)
    for name in (*names[names.index(size(rows)) :], "any"):
        found = TABLE.get((architecture, operator, arithmetic, name))
        if found is not None:
            return found
    raise KeyError(f"no block sizes for {operator} in {arithmetic} on {architecture}")
