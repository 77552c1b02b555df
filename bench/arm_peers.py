"""The peers' side of `make arm-count-peers`: SqueezeBERT's and BERT-base's encoder, 1 x 128 tokens, float32.

    python bench/arm_peers.py export FOLDER        on the host: the ONNX graphs
    python bench/arm_peers.py PEER MODEL FOLDER    in aarch64 Python, under QEMU with the plugin of arm_count.c

Each encoder runs with 1 and with 12 layers on one thread, is warmed up, and then runs once between the marks that the
plugin counts between. What the numbers are does not matter to the count, as long as no two weights are the same.
"""

from __future__ import annotations

import gc
import itertools
import math
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

TOKENS, HIDDEN = 128, 768
LAYERS = (1, 12)
BEGIN, END = 1397440817, 1397440818  # as arm_count.c has them
TENSORS = itertools.count()
WARM_UPS = 3  # TorchScript compiles what it has seen, ONNX Runtime plans its memory anew


def numbers(*shape: int):
    """A tensor of small numbers, soon made; no two alike, or TorchScript would take Q, K and V for the same."""
    import torch

    return (((torch.arange(math.prod(shape)) + next(TENSORS)) % 251 - 125) * 0.0004).reshape(shape)


def encoder(model: str, layers: int):
    """A module (x [1, 128, 768], mask [1, 1, 1, 128] to be added to the scores) -> [1, 128, 768], of transformers."""
    import torch
    from transformers import BertConfig, SqueezeBertConfig
    from transformers.models.bert.modeling_bert import BertEncoder
    from transformers.models.squeezebert.modeling_squeezebert import SqueezeBertEncoder

    class Encoder(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            with torch.device("meta"):  # transformers' own random numbers take minutes under QEMU
                if model == "squeezebert":
                    inner = SqueezeBertEncoder(SqueezeBertConfig(num_hidden_layers=layers, embedding_size=HIDDEN))
                else:
                    inner = BertEncoder(BertConfig(num_hidden_layers=layers, attn_implementation="eager"))
            self.inner = inner.to_empty(device="cpu")
            for weight in self.parameters():
                weight.data = numbers(*weight.shape)

        def forward(self, x, mask):
            return self.inner(x, mask)[0]

    return Encoder().eval().requires_grad_(False)


def graph(folder: Path, model: str, layers: int) -> Path:
    return folder / f"{model}-{layers}.onnx"


def export(folder: Path) -> None:
    """The graphs as torch.onnx.export makes them."""
    import torch

    example = torch.zeros(1, TOKENS, HIDDEN), torch.zeros(1, 1, 1, TOKENS)
    for model in ("squeezebert", "bert"):
        for layers in LAYERS:
            torch.onnx.export(
                encoder(model, layers),
                example,
                graph(folder, model, layers),
                input_names=("x", "mask"),
                dynamo=True,
                verbose=False,
            )


def pytorch(model: str, layers: int, folder: Path) -> Callable[[], object]:
    """Eager PyTorch."""
    import torch

    x, mask, module = numbers(1, TOKENS, HIDDEN), torch.zeros(1, 1, 1, TOKENS), encoder(model, layers)
    return lambda: module(x, mask)


def xnnpack(model: str, layers: int, folder: Path) -> Callable[[], object]:
    """Traced, and given to optimize_for_mobile, which hands convolutions and linear layers to XNNPACK."""
    import torch
    from torch.utils.mobile_optimizer import optimize_for_mobile

    x, mask = numbers(1, TOKENS, HIDDEN), torch.zeros(1, 1, 1, TOKENS)
    traced = optimize_for_mobile(torch.jit.trace(encoder(model, layers), (x, mask)))
    if "prepacked::" not in str(traced.graph):
        raise RuntimeError(f"expected XNNPACK's operators in the traced {model}, got\n{traced.graph}")
    return lambda: traced(x, mask)


def xnnpack_products(model: str, layers: int, folder: Path) -> Callable[[], object]:
    """XNNPACK's share alone: the six position-wise layers of each layer, on rows in the order it likes best."""
    import torch

    groups = 4 if model == "squeezebert" else 1
    shapes = [(HIDDEN, HIDDEN, groups)] * 3
    shapes += [(HIDDEN, HIDDEN, 1), (4 * HIDDEN, HIDDEN, groups), (HIDDEN, 4 * HIDDEN, groups)]

    def packed(outputs: int, inputs: int, groups: int):
        weight, bias = numbers(outputs, inputs // groups, 1, 1), numbers(outputs)
        return torch.ops.prepacked.conv2d_clamp_prepack(weight, bias, [1, 1], [0, 0], [1, 1], groups)

    products = [
        (numbers(1, inputs, 1, TOKENS).contiguous(memory_format=torch.channels_last), packed(outputs, inputs, g))
        for _ in range(layers)
        for outputs, inputs, g in shapes
    ]

    def run() -> None:
        for x, weight in products:
            torch.ops.prepacked.conv2d_clamp_run(x, weight)

    return run


def onnxruntime(model: str, layers: int, folder: Path) -> Callable[[], object]:
    import numpy
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(graph(folder, model, layers), options, providers=["CPUExecutionProvider"])
    x = numpy.arange(TOKENS * HIDDEN, dtype=numpy.float32).reshape(1, TOKENS, HIDDEN) % 251 / 125 - 1
    feed = {"x": x, "mask": numpy.zeros((1, 1, 1, TOKENS), numpy.float32)}
    return lambda: session.run(None, feed)


PEERS = {"pytorch": pytorch, "xnnpack": xnnpack, "xnnpack_products": xnnpack_products, "onnxruntime": onnxruntime}


def mark(which: int) -> None:
    with suppress(OSError):  # there is no such process
        os.getpriority(os.PRIO_PROCESS, which)


def count(peer: str, model: str, folder: Path) -> None:
    for layers in LAYERS:
        work = PEERS[peer](model, layers, folder)
        for _ in range(WARM_UPS):
            work()
        gc.collect()
        gc.disable()
        print(f"region {layers}", file=sys.stderr, flush=True)
        mark(BEGIN)
        work()
        mark(END)
        gc.enable()


def main() -> None:
    if sys.argv[1] == "export":
        return export(Path(sys.argv[2]))
    peer, model, folder = sys.argv[1:]
    if peer != "onnxruntime":
        import torch

        torch.set_num_threads(1)
        torch.set_grad_enabled(False)
    return count(peer, model, Path(folder))


if __name__ == "__main__":
    main()
