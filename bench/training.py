"""Step time of fine-tuning: a classifier's forward, backward and fused AdamW step, ours beside transformers eager.

    python bench/training.py [--rounds 3] [--threads 1] [--workload full text] [--peer ours squeezebert bert]

One process, base size, dropout 0.1, random weights. Peers take turns, step by step; the best step of each counts, in
CPU time of the process (wall time with more threads), so that a busy machine does not decide. `full`: 8 sequences of
128 tokens. `text`: 8 of 9 to 128 tokens, padded to the longest. Share of peak: 3 times the encoder's forward operations
on real tokens, over the time of forward and backward, over the measured rate of multiply-adds. Memory: the growth of
the process's peak in a child that runs one peer's steps alone.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
import transformers

import squeezebert_kernels
from squeezebert_kernels import _native
from squeezebert_kernels.compare.flops import EncoderShape, encoder_flops

LENGTHS = {"full": [128] * 8, "text": [9, 20, 33, 47, 60, 40, 41, 128]}
PEERS = ("ours", "recompute", "squeezebert", "bert", "ours on bert")


def make(peer: str) -> Any:
    """The peer's classifier in train mode."""
    torch.manual_seed(0)
    model: Any = transformers.AutoModelForSequenceClassification.from_config(_config(peer)).train()
    if peer.startswith("ours") or peer == "recompute":
        squeezebert_kernels.optimize(model, training=True, recompute=peer == "recompute")
    return model


def _config(peer: str) -> Any:
    return transformers.BertConfig() if peer in ("bert", "ours on bert") else transformers.SqueezeBertConfig()


def batch(lengths: list[int]) -> dict[str, torch.Tensor]:
    longest = max(lengths)
    mask = (torch.arange(longest) < torch.tensor(lengths).unsqueeze(1)).long()
    ids = torch.randint(1000, 30000, mask.shape) * mask
    return {"input_ids": ids, "attention_mask": mask, "labels": torch.arange(len(lengths)) % 2}


def stepper(peer: str, lengths: list[int]) -> Callable[[], tuple[float, float]]:
    """A function that makes a step and returns the seconds of forward and backward, and of all."""
    model, given = make(peer), batch(lengths)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)

    def step() -> tuple[float, float]:
        start = now()
        model(**given).loss.backward()
        between = now()
        optimizer.step()
        optimizer.zero_grad()
        return between - start, now() - start

    return step


def now() -> float:
    return time.process_time() if torch.get_num_threads() == 1 else time.perf_counter()


def peak_memory(peer: str, workload: str) -> float:
    """Mebibytes by which two steps of the peer raise the peak of a process of their own."""
    code = (
        "import resource, sys; sys.path.insert(0, 'bench'); import training as b; import torch;"
        "torch.set_num_threads(1); before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss;"
        f"step = b.stepper({peer!r}, b.LENGTHS[{workload!r}]); step(); step();"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    return int(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--workload", nargs="+", choices=LENGTHS, default=list(LENGTHS))
    parser.add_argument("--peer", nargs="+", choices=PEERS, default=["ours", "squeezebert", "bert"])
    parser.add_argument("--memory", action="store_true", help="the peak memory of each peer instead")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    for workload in options.workload:
        lengths = LENGTHS[workload]
        if options.memory:
            for peer in options.peer:
                print(json.dumps({"workload": workload, "peer": peer, "MiB": round(peak_memory(peer, workload))}))
            continue
        steps = {peer: stepper(peer, lengths) for peer in options.peer}
        best = {peer: (float("inf"), float("inf")) for peer in steps}
        for _ in range(options.rounds + 1):
            for peer, step in steps.items():
                best[peer] = min(best[peer], step(), key=lambda times: times[1])
        peak = _native.measure_peak() * options.threads
        for peer, (passes, whole) in best.items():
            operations = 3 * encoder_flops(EncoderShape.of(_config(peer)), lengths)
            ours = best.get("ours", best[peer])[1]
            row = {"workload": workload, "threads": options.threads, "peer": peer, "step ms": round(1e3 * whole)}
            row |= {"share of peak": round(operations / passes / peak / 1e9, 3), "over ours": round(whole / ours, 2)}
            print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
