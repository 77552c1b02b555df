"""The encoder on a GPU beside its peers: median times by CUDA events, in one process, into JSON and a plot.

    python -m bench.gpu.bench [--quick] [--only N ...] [--out FOLDER]

Peers are compiled for each batch, which takes minutes, so gpu.json is written after every measurement. No network is
needed: without transformers the peers are the same shapes in plain PyTorch, without matplotlib there is no plot; both
are then said.
"""

from __future__ import annotations

import argparse
import gc
import json
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
import triton

import squeezebert_kernels
from squeezebert_kernels.integration.classes import state_of
from squeezebert_kernels.nn.config import SqueezeBertConfig

from . import workloads
from .timing import copy_rate, matmul_rate, time_us
from .workloads import Batch

DTYPE = torch.bfloat16
OURS, GRAPH, PADDED = "this library", "this library, graph replay alone", "this library, padding computed"


def our_model() -> Any:
    """Our own model of the published shape on the kernels; needs no transformers."""
    config = SqueezeBertConfig(vocab_size=workloads.VOCABULARY)
    model = squeezebert_kernels.SqueezeBertModel(config).eval().cuda()
    return squeezebert_kernels.optimize(model, dtype=DTYPE)


def replay(model: Any, batch: Batch) -> Callable[[], object]:
    """A replay of the batch's graph, and nothing else."""
    model(**batch.inputs()[0])
    graphs = state_of(model).bind(model).graphs
    return next(reversed(graphs._graphs.values()))._graph.replay


def our_times(batch: Batch) -> Iterator[tuple[str, float]]:
    model, inputs = our_model(), batch.inputs()
    yield GRAPH, time_us([replay(model, batch)], repeats=200)
    yield OURS, time_us([lambda given=given: model(**given) for given in inputs])
    if batch.padded:
        full = Batch(batch.name, (batch.longest,) * len(batch.lengths), batch.longest)
        yield PADDED, time_us([lambda given=given: model(**given) for given in full.inputs()])


def peer_times(batch: Batch) -> Iterator[tuple[str, str, float]]:
    for name, (architecture, make) in workloads.peers(DTYPE).items():
        torch.compiler.reset()
        try:
            model, inputs = make(), batch.inputs()
            yield name, architecture, time_us([lambda m=model, given=given: m(**given) for given in inputs])
        except Exception as error:  # a peer that fails is left out of the comparison, and said to be
            print(f"  {name}: left out, {type(error).__name__}: {str(error).splitlines()[0]}")
        model = inputs = None
        gc.collect()
        torch.cuda.empty_cache()


def measure(batches: list[Batch], with_peers: bool, save: Callable[[list[dict[str, Any]]], None]) -> None:
    """Ours for every batch, then the peers; `save` gets what there is after each, so that nothing is lost."""
    ceiling, copies = matmul_rate(DTYPE), copy_rate()
    print(f"matrix product {ceiling / 1e12:.0f} TFLOP/s, copy {copies / 1e12:.2f} TB/s")
    results: list[dict[str, Any]] = []

    def add(batch: Batch, name: str, architecture: str, microseconds: float) -> None:
        tokens = sum(batch.lengths)
        rate = workloads.flops(architecture, batch.lengths) / (microseconds * 1e-6)
        least = workloads.least_bytes(architecture, tokens, DTYPE) / (microseconds * 1e-6)
        results.append(
            {
                "batch": batch.name,
                "name": name,
                "us": microseconds,
                "tflops": rate / 1e12,
                "share_of_matrix_product": rate / ceiling,
                "share_of_copy": least / copies,
                "tokens_per_s": tokens / (microseconds * 1e-6),
            }
        )
        print(f"  {name:44} {microseconds:10.1f} us  {rate / 1e12:6.1f} TFLOP/s  {rate / ceiling:6.1%}", flush=True)
        save(results)

    for batch in batches:
        print(f"{batch.name}: {sum(batch.lengths)} tokens", flush=True)
        for name, microseconds in our_times(batch):
            add(batch, name, "squeezebert", microseconds)
    for batch in batches if with_peers else []:
        print(f"{batch.name}: the peers", flush=True)
        for name, architecture, microseconds in peer_times(batch):
            add(batch, name, architecture, microseconds)


def ratios(results: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """For each batch, how many times as long every peer takes as we do."""
    table: dict[str, dict[str, float]] = {}
    for result in results:
        ours = [r["us"] for r in results if r["batch"] == result["batch"] and r["name"] == OURS]
        if ours:
            table.setdefault(result["batch"], {})[result["name"]] = result["us"] / ours[0]
    return table


def plot(results: list[dict[str, Any]], path: Path) -> None:
    try:
        import matplotlib
    except ImportError:
        print("matplotlib is not installed: no plot")
        return
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    names = list(dict.fromkeys(r["name"] for r in results))
    batches = list(dict.fromkeys(r["batch"] for r in results))
    figure, axes = plt.subplots(figsize=(11, 5))
    width = 0.8 / len(names)
    for index, name in enumerate(names):
        values = {r["batch"]: r["tokens_per_s"] / 1e6 for r in results if r["name"] == name}
        places = [batches.index(batch) + index * width for batch in values]
        axes.bar(places, list(values.values()), width, label=name)
    axes.set_xticks([place + 0.4 - width / 2 for place in range(len(batches))], batches)
    axes.set_yscale("log")
    axes.set_ylabel("million tokens per second")
    axes.set_title(f"bfloat16 on {torch.cuda.get_device_name()}")
    axes.legend(fontsize="small")
    figure.tight_layout()
    figure.savefig(path)
    print(path)


def main() -> None:
    known = workloads.batches()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="only (1, 128) and (128, 128), and no peers")
    names = ", ".join(str(number) + " " + batch.name for number, batch in enumerate(known))
    parser.add_argument(
        "--only", nargs="+", type=int, choices=range(len(known)), metavar="N", help=f"only these batches: {names}"
    )
    parser.add_argument("--out", type=Path, default=Path("out"), help="where gpu.json and gpu.svg go (default: out)")
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        raise SystemExit("gpu-bench needs an NVIDIA GPU, and torch built for CUDA; see the output of nvidia-smi")
    if find_spec("transformers") is None and not arguments.quick:
        print("transformers is not installed: the peers are the same shapes in plain PyTorch")
    chosen = arguments.only or ([0, 4] if arguments.quick else range(len(known)))
    arguments.out.mkdir(parents=True, exist_ok=True)
    report: dict[str, Any] = {
        "device": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "triton": triton.__version__,
        "dtype": str(DTYPE),
    }

    def save(results: list[dict[str, Any]]) -> None:
        report.update(results=results, times_as_long_as_ours=ratios(results))
        (arguments.out / "gpu.json").write_text(json.dumps(report, indent=2) + "\n")

    with torch.inference_mode():
        measure([known[number] for number in chosen], with_peers=not arguments.quick, save=save)
    plot(report["results"], arguments.out / "gpu.svg")
    for batch, table in report["times_as_long_as_ours"].items():
        print(batch, ", ".join(f"{name}: {ratio:.2f}x" for name, ratio in table.items()))


if __name__ == "__main__":
    main()
