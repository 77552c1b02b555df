"""Where SqueezeBERT-base loses accuracy, layer by layer, on weights with outlier channels as real BERTs have them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from squeezebert_kernels import ops
from squeezebert_kernels.compare.model import load_model
from squeezebert_kernels.compare.token_major import FAMILY_OF
from squeezebert_kernels.nn.tokenizer import load_tokenizer

from .emulated import per_tensor

# Those of BERT-base: Kovaleva et al. 2021, "BERT Busters", arXiv 2105.06990. Both are in the second of four groups.
OUTLIER_CHANNELS = (308, 381)
# Of every LayerNorm; carried on by the residual connections they grow to 30 times the other channels' spread. Tens of
# times are what Bondarenko et al. 2021, arXiv 2109.12948, found, and more in deeper layers.
OUTLIER_BIASES = (1.0, -1.0)
PER_TENSOR = "int8, one scale per tensor"
PACKED = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16, "int8": torch.int8}

# One layer, by its place in the encoder: [1, S, C] -> [1, S, C].
RunLayer = Callable[[int, Tensor], Tensor]


@dataclass(frozen=True)
class LayerErrors:
    """Root mean square error over tokens and the channels that are no outliers, as a share of the values' root mean
    square: of each layer alone, given float32's input, and of its output after all the layers before it."""

    alone: list[float]
    accumulated: list[float]


@torch.inference_mode()
def measure(texts: Sequence[str], dtypes: Sequence[str]) -> dict[str, LayerErrors]:
    """The errors in each format on the kernels, and with int8 emulated at one scale per tensor. By sequences alone, so
    that no padding counts."""
    model = with_outliers()
    layers = list(model.encoder.layers)
    plain = _plain(layers)
    states = []
    for encoded in load_tokenizer(None).encode_batch(list(texts)):
        states.append([model.embeddings(input_ids=torch.tensor([encoded.ids]))])
        for index in range(len(layers)):
            states[-1].append(plain(index, states[-1][index]))
    errors = {dtype: _errors(_on_kernels(model, dtype), states) for dtype in dtypes}
    with per_tensor(model):
        errors[PER_TENSOR] = _errors(plain, states)
    return errors


def with_outliers() -> Any:
    """SqueezeBERT-base with seeded weights and OUTLIER_BIASES."""
    model = load_model(None)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.LayerNorm):
                module.bias[list(OUTLIER_CHANNELS)] = torch.tensor(OUTLIER_BIASES)
    return model


def _plain(layers: list[nn.Module]) -> RunLayer:
    def run(index: int, state: Tensor) -> Tensor:
        return layers[index](state.transpose(1, 2), None, False)["feature_map"].transpose(1, 2)

    return run


def _on_kernels(model: Any, dtype: str) -> RunLayer:
    family = FAMILY_OF[model.config.model_type]
    params, groups = [], []
    for layer in model.encoder.layers:
        linears = [layer.get_submodule(path) for path in family.linears]
        norms = iter([layer.get_submodule(path) for path in family.norms])
        groups = [linear.groups for linear in linears]
        params.append([])
        for index, linear in enumerate(linears):
            params[-1] += [ops.pack_grouped_conv1x1(linear.weight, linear.groups, PACKED[dtype]), linear.bias]
            if index in (3, 5):
                norm = next(norms)
                params[-1] += [norm.weight, norm.bias]
        eps = norm.eps

    def run(index: int, state: Tensor) -> Tensor:
        return ops.encoder_layer(state, params[index], model.config.num_attention_heads, groups, eps)

    return run


def _errors(run: RunLayer, states: list[list[Tensor]]) -> LayerErrors:
    count = len(states[0]) - 1
    ordinary = [channel for channel in range(states[0][0].shape[-1]) if channel not in OUTLIER_CHANNELS]
    values, alone, accumulated = ([0.0] * count for _ in range(3))
    for expected in states:
        given = expected[0]
        for index in range(count):
            exact = expected[index + 1][..., ordinary]
            given = run(index, given)
            values[index] += exact.square().sum().item()
            alone[index] += (run(index, expected[index])[..., ordinary] - exact).square().sum().item()
            accumulated[index] += (given[..., ordinary] - exact).square().sum().item()

    def shares(errors: list[float]) -> list[float]:
        return [math.sqrt(error / value) for error, value in zip(errors, values, strict=True)]

    return LayerErrors(shares(alone), shares(accumulated))
