"""The table of block sizes: complete, explained, and the same where a row's bits would tell the difference."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from squeezebert_kernels.triton.tuning import ARCHITECTURES, ARITHMETICS, SIZES, TABLE, Tile, arithmetic, size, tile

ROOT = Path(__file__).parents[2]
OPERATORS = [
    "grouped_conv1x1",
    "grouped_ffn",
    "attention",
    "grouped_qkv_attention",
    "grouped_conv1d",
    "embedding_layer_norm",
]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize("arithmetic", ARITHMETICS)
def test_rows_for_one_model_agree_on_the_order_of_sums(architecture: str, operator: str, arithmetic: str) -> None:
    agree(
        architecture, operator, arithmetic, [tile(architecture, operator, arithmetic, n) for n in (1, *SIZES.values())]
    )


def agree(architecture: str, operator: str, arithmetic: str, tiles: list[Tile]) -> None:
    """Rows of the table that could serve one model."""
    for row in tiles:
        assert row.warps >= 4  # LayerNorm's sums are spread over four warps, whatever comes on top
        if operator == "embedding_layer_norm":
            assert (architecture, operator, arithmetic, "any") in TABLE  # every batch is served by one row
            continue
        assert row.block_rows % row.norm_rows == 0
        long_side = row.block_columns if row.swap else row.block_rows
        if architecture != "sm_80" and arithmetic == "16bit":
            assert long_side >= 64  # one kind of matrix instruction
        if "attention" in operator:
            assert row.block_columns == tiles[0].block_columns  # keys between two rescalings of the softmax
            if arithmetic == "16bit":
                assert row.block_rows // row.warps >= 16  # a row's scores in one warp
        if arithmetic != "16bit":
            assert row == tiles[0]


def test_every_row_has_a_reason_and_is_used() -> None:
    used = {
        id(tile(*key, rows))
        for key in itertools.product(ARCHITECTURES, OPERATORS, ARITHMETICS)
        for rows in SIZES.values()
    }
    for row in TABLE.values():
        assert row.reason
        assert id(row) in used
        for block in (row.block_rows, row.block_columns, row.block_depth):
            assert block & (block - 1) == 0


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("operator", ["grouped_conv1x1", "grouped_ffn"])
def test_where_more_warps_would_add_up_differently_one_row_serves_every_batch(architecture: str, operator: str) -> None:
    """A warp takes 32 times 16 bytes of a row, less where rows are not aligned to that; four warps, four times that."""
    for channels, few_warps_do in [(768, True), (1024, True), (1032, False), (1536, False), (770, False), (250, True)]:
        served = {tile(architecture, operator, "16bit", rows, channels) for rows in SIZES.values()}
        if not few_warps_do:
            assert len(served) == 1
        else:
            assert served == {tile(architecture, operator, "16bit", rows) for rows in SIZES.values()}


COMPILE = """
from bench.gpu.compile import disagreements
from squeezebert_kernels.triton.tuning import Tile
{change}
print(*disagreements(["sm_90"], [64]), sep="\\n")
"""


@pytest.mark.parametrize("change", ["", "Tile.norm_rows = 8"])
def test_compiled_rows_add_up_in_one_order(change: str) -> None:
    """As Triton compiles them, in a process that does not interpret. Eight rows to LayerNorm at a time, whatever the
    warps, would not do: with eight warps, a thread has fewer channels of each."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    program = [sys.executable, "-c", COMPILE.format(change=change)]
    result = subprocess.run(program, capture_output=True, text=True, env=environment, cwd=ROOT)
    assert result.returncode == 0, result.stderr
    assert ("sm_90 grouped_conv1x1, 64 channels" in result.stdout) == bool(change), result.stdout
    if not change:
        assert result.stdout == "\n"


def test_sizes() -> None:
    assert [size(rows) for rows in (0, 128, 1024, 16384)] == ["few", "few", "some", "many"]


def test_tf32_only_where_pytorch_allows_it() -> None:
    before = torch.backends.cuda.matmul.allow_tf32
    try:
        for allowed in (False, True):
            torch.backends.cuda.matmul.allow_tf32 = allowed
            assert arithmetic(torch.float32) == ("tf32" if allowed else "float32")
            assert arithmetic(torch.bfloat16) == "16bit"
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before


@pytest.mark.skipif(not hasattr(torch.backends.cuda.matmul, "fp32_precision"), reason="PyTorch before 2.9")
def test_tf32_by_the_newer_name_of_the_setting() -> None:
    """In a process of its own: PyTorch refuses to read the older name after the newer one was set."""
    program = (
        "import torch\n"
        "from squeezebert_kernels.triton.tuning import arithmetic\n"
        "for precision in ('tf32', 'ieee'):\n"
        "    torch.backends.cuda.matmul.fp32_precision = precision\n"
        "    print(arithmetic(torch.float32))\n"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert result.stdout.split() == ["tf32", "float32"], result.stderr
