"""gpu-tune and gpu-bench, as far as they go without a GPU: what they try, run and write."""

from __future__ import annotations

import dataclasses
import json
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

pytest.importorskip("triton")
from bench.gpu import bench, tune
from bench.gpu.recording import prepare
from squeezebert_kernels.triton import tuning
from squeezebert_kernels.triton.tuning import TABLE, Key, Tile
from test_tuning import agree
from tolerances import REPORTED

MAIN = [key for key in TABLE if key[2] == "16bit"]


@pytest.mark.parametrize("key", MAIN, ids=" ".join)
def test_candidates_keep_the_order_of_sums(key: Key) -> None:
    tried = list(tune.candidates(key, TABLE[key]))
    assert len(tried) == len(set(tried)) > 5
    for tile in tried:
        agree(*key[:3], [TABLE[key], tile])


@pytest.mark.skipif(torch.cuda.is_available(), reason="in Triton's interpreter")
@pytest.mark.parametrize("operator", dict.fromkeys(key[1] for key in MAIN))
def test_what_is_measured_runs(operator: str) -> None:
    prepare(operator, torch.float32, "cpu", 20, 10, channels=192)()


def test_rows_are_rewritten_one_by_one() -> None:
    """What is written reads back as the new rows beside the untouched old ones."""
    source, expected = Path(tuning.__file__).read_text(), dict(TABLE)
    for number, key in enumerate(MAIN):
        reason = f"{number}.0 us on NVIDIA H200; 64 x 64 x 64 took 99.0"
        row = Tile(64, 128, 32, 8, number, bool(number % 2), reason, split=1 + number % 3)
        expected[key] = row
        source = tune.rewrite(source, {key: row})
    module: dict[str, Any] = {"__name__": "rewritten"}
    sys.modules["rewritten"] = tuning  # where dataclasses look
    try:
        exec(compile(source, "tuning.py", "exec"), module)
    finally:
        del sys.modules["rewritten"]
    rewritten = {key: dataclasses.astuple(row) for key, row in module["TABLE"].items()}
    assert rewritten == {key: dataclasses.astuple(row) for key, row in expected.items()}
    with pytest.raises(ValueError, match="expected a row for"):
        tune.rewrite("", {MAIN[0]: TABLE[MAIN[0]]})


@pytest.fixture
def pretend(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A GPU of compute capability 9.0 on which wider tiles are slower, and a copy of the table."""
    copy = tmp_path / "tuning.py"
    copy.write_text(Path(tuning.__file__).read_text())
    monkeypatch.setattr(tuning, "__file__", str(copy))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: (9, 0))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda *_: "a GPU that only pretends")
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda *_: SimpleNamespace(total_memory=141 * 10**9))
    monkeypatch.setattr(tune, "ProcessPoolExecutor", lambda workers, mp_context: ThreadPoolExecutor(1))
    monkeypatch.setattr(tune, "fits", lambda key, tile: tile.stages != 1)
    monkeypatch.setattr(tune, "prepare", lambda *_: lambda: None)
    monkeypatch.setattr(tune, "measure", lambda launches, tile: float(tile.block_rows + tile.stages))
    return copy


def test_the_fastest_that_fits_is_written(pretend: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["tune", "--only", "grouped_ffn"])
    before = pretend.read_text().splitlines()
    tune.main()
    changed = [line for line in pretend.read_text().splitlines() if line not in before]
    assert changed == [
        '        16, 64, 64, 4, 2, True, "18.0 us on a GPU that only pretends; 16 x 64 x 64 took 19.0"',
        '        16, 64, 64, 4, 2, True, "18.0 us on a GPU that only pretends; 32 x 64 x 64 took 35.0"',
        '        64, 64, 32, 4, 2, False, "66.0 us on a GPU that only pretends; 128 x 64 x 64 took 130.0"',
    ]


def test_a_dry_run_writes_nothing(pretend: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    before = pretend.read_text()
    monkeypatch.setattr(sys, "argv", ["tune", "--dry-run"])
    tune.main()
    assert pretend.read_text() == before
    said = capsys.readouterr().out.splitlines()
    assert len(said) == len([key for key in MAIN if key[0] == "sm_90"])


def test_gpu_bench_keeps_what_it_has_when_it_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ours on every batch come first; then a peer, and then somebody loses patience."""

    def peer_times(batch: Any) -> Any:
        yield "a peer", "bert", 5000.0
        raise KeyboardInterrupt

    monkeypatch.setattr(bench, "our_times", lambda batch: iter([(bench.GRAPH, 100.0), (bench.OURS, 200.0)]))
    monkeypatch.setattr(bench, "peer_times", peer_times)
    monkeypatch.setattr(bench, "matmul_rate", lambda dtype: 8e14)
    monkeypatch.setattr(bench, "copy_rate", lambda: 4e12)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda *_: "a GPU that only pretends")
    monkeypatch.setattr(sys, "argv", ["bench", "--only", "0", "4", "--out", str(tmp_path)])
    with pytest.raises(KeyboardInterrupt):
        bench.main()
    report = json.loads((tmp_path / "gpu.json").read_text())
    assert [(r["batch"], r["name"]) for r in report["results"]] == [
        ("(1, 128)", bench.GRAPH),
        ("(1, 128)", bench.OURS),
        ("(128, 128)", bench.GRAPH),
        ("(128, 128)", bench.OURS),
        ("(1, 128)", "a peer"),
    ]
    assert report["times_as_long_as_ours"]["(1, 128)"] == {bench.GRAPH: 0.5, bench.OURS: 1.0, "a peer": 25.0}
    first = report["results"][0]  # 7.40 GFLOP in 100 us
    assert first["tflops"] == pytest.approx(74.0, rel=REPORTED)
    assert first["share_of_matrix_product"] == pytest.approx(74.0 / 800, rel=REPORTED)
