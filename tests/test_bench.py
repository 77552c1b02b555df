"""The benchmarks themselves: runs of two implementations really compare, and every operator has one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench.markers import splice, spliced
from squeezebert_kernels import ops

pytest.importorskip("pytest_benchmark")

ROOT = Path(__file__).resolve().parent.parent
QUICK = ("--benchmark-max-time=0.01", "--benchmark-min-rounds=2", "--benchmark-warmup=off")


def run_bench(*arguments: str, expected: int = 0) -> str:
    command = [sys.executable, "-m", "pytest", str(ROOT / "bench"), "-q", "-p", "no:cacheprovider", *arguments]
    # The runner's own settings, such as a worker's id under pytest-xdist, are not for the benchmarks.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment)
    assert done.returncode == expected, done.stdout + done.stderr
    return done.stderr if expected else done.stdout


def test_a_saved_run_is_compared_with_another_implementation(tmp_path: Path) -> None:
    storage = f"--benchmark-storage=file://{tmp_path}"
    chosen = ("-k", "grouped_qkv_attention and 1x8", *QUICK, storage)
    run_bench("--impl", "torch", "--benchmark-save=torch", *chosen)
    table = run_bench("--impl", "squeezebert", "--benchmark-compare=0001", *chosen)
    assert "benchmark 'grouped_qkv_attention 1x8': 2 tests" in table
    assert "bench_grouped_qkv_attention[1x8] (0001_torch)" in table
    assert "bench_grouped_qkv_attention[1x8] (NOW)" in table

    (saved,) = json.loads(next(tmp_path.glob("*/0001_torch.json")).read_text())["benchmarks"]
    info = saved["extra_info"]
    assert info["impl"] == "torch"
    assert info["threads"] == 1
    assert info["flops"] == 2 * 8 * 3 * 768 * 192 + 4 * 768 * 8 * 8
    assert info["bytes"] == 4 * (3 * 768 * 192 + 2 * 8 * 768)
    assert info["gflops"] == pytest.approx(info["flops"] / saved["stats"]["median"] / 1e9)
    assert info["percent_of_peak"] > 0
    assert info["isa"]


def test_a_comparison_that_would_say_nothing_is_refused(tmp_path: Path) -> None:
    """Before anything is timed. A run that is named may be another implementation's."""
    storage = f"--benchmark-storage=file://{tmp_path}"
    chosen = ("-k", "grouped_qkv_attention and 1x8", *QUICK, storage)
    fail = "--benchmark-compare-fail=median:100000%"
    ours = ("--impl", "squeezebert", *chosen, fail)
    refused = run_bench(*ours, expected=pytest.ExitCode.USAGE_ERROR)
    assert "--benchmark-compare-fail: expected a saved run to compare with (--benchmark-compare), got none" in refused
    run_bench("--impl", "torch", "--benchmark-save=torch", *chosen)
    refused = run_bench(*ours, "--benchmark-compare", expected=pytest.ExitCode.USAGE_ERROR)
    assert "expected the last saved run to be of --impl squeezebert, got torch in " in refused
    run_bench(*ours, "--benchmark-compare=0001")
    refused = run_bench(*chosen, fail, "--benchmark-compare=0001", expected=pytest.ExitCode.USAGE_ERROR)
    assert "expected benchmarks in common with " in refused
    assert "bench_grouped_qkv_attention[1x8]" in refused


def test_all_implementations_stand_side_by_side() -> None:
    table = run_bench("-k", "bench_grouped_ffn and 1x8", *QUICK)
    assert "benchmark 'grouped_ffn 1x8': 3 tests" in table
    assert all(f"bench_grouped_ffn[{name}-1x8]" in table for name in ("dense", "torch", "squeezebert"))


def test_every_operator_of_inference_has_a_benchmark() -> None:
    listing = run_bench("--collect-only", "--impl", "squeezebert")
    prepare = ("pack_", "quantize_", "repack_", "unpack_")
    operators = [name for name in ops.__all__ if not name.startswith(prepare) and not name.endswith("_training")]
    assert "grouped_ffn" in operators
    assert [name for name in operators if f"::bench_{name}[" not in listing] == []


def test_documents_are_changed_between_the_markers_only(tmp_path: Path) -> None:
    begin, end = "<!-- compare: begin -->\n", "<!-- compare: end -->\n"
    path = tmp_path / "README.md"
    path.write_text(f"a\n{begin}old\n{end}b\n")
    splice(path, "compare", "new\n")
    assert path.read_text() == f"a\n{begin}new\n{end}b\n"
    for document in ("", begin, f"{end}{begin}", f"{begin}{begin}{end}", f"{begin}{end}{end}"):
        with pytest.raises(ValueError, match=r"README\.md: expected <!-- compare: begin --> and then"):
            spliced(document, "compare", "new\n", "README.md")


def test_readme_has_the_markers() -> None:
    spliced((ROOT / "README.md").read_text(), "compare", "", "README.md")
