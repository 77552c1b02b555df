"""The layers of an encoder of transformers as `encoder_layer_training` takes them, read anew at every call."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..integration.architectures import Family


class Untrainable(Exception):
    """The kernels cannot train this. The message says why; the caller takes the original forward."""


@dataclass(frozen=True)
class TrainedLayer:
    """The arguments of `encoder_layer_training` that a layer holds. recompute: its own flag of checkpointing."""

    params: list[Tensor]
    heads: int
    groups: list[int]
    eps: float
    hidden_dropout: float
    attention_dropout: float
    recompute: bool


def read_layers(encoder: nn.Module, family: Family) -> list[TrainedLayer]:
    """Every layer of `encoder`. Raises Untrainable for one that computes something else than its class says."""
    layers: Any = encoder.get_submodule(family.layers.removeprefix("encoder."))
    return [_read(layer, family, f"{family.layers}.{index}") for index, layer in enumerate(layers)]


def _read(layer: nn.Module, family: Family, where: str) -> TrainedLayer:
    for path, module in layer.named_modules():
        if not path.startswith(family.activation):
            _check_known(module, family, f"{where}.{path}".rstrip("."))
    _check_activation(_at(layer, family.activation), f"{where}.{family.activation}")
    params: list[Tensor] = []
    groups, eps = [], set()
    for index, path in enumerate(family.linears):
        linear = _at(layer, path)
        params += _linear(linear, family, f"{where}.{path}")
        groups.append(getattr(linear, "groups", 1))
        if index in (3, 5):  # what ends in a LayerNorm
            path = family.norms[index == 5]
            norm = _at(layer, path)
            params += [_parameter(norm, "weight", f"{where}.{path}"), _parameter(norm, "bias", f"{where}.{path}")]
            eps.add(norm.eps)
    if len(eps) > 1:
        raise Untrainable(f"{where}: LayerNorms with different epsilons")
    parents = [family.linears[index].rpartition(".")[0] for index in (0, 3, 5)]
    attention, *hidden = (_dropout(_at(layer, f"{path}.dropout"), f"{where}.{path}.dropout") for path in parents)
    if hidden[0] != hidden[1]:
        raise Untrainable(f"{where}: dropout of {hidden[0]} and {hidden[1]}, not the same after both blocks")
    heads = getattr(_at(layer, parents[0]), family.heads)
    recompute = bool(getattr(layer, "gradient_checkpointing", False)) and layer.training
    return TrainedLayer(params, heads, groups, eps.pop(), hidden[0], attention, recompute)


def _at(module: nn.Module, path: str) -> Any:
    for name in filter(None, path.split(".")):
        module = getattr(module, name)
    return module


def _check_known(module: nn.Module, family: Family, where: str) -> None:
    if not family.knows(type(module)) and type(module) is not family.named(family.linear):
        raise Untrainable(f"{where} is a {type(module).__name__}, not a module of {family.base}")
    if module._forward_hooks or module._forward_pre_hooks or module._backward_hooks or "forward" in vars(module):
        raise Untrainable(f"{where} has hooks, or a forward of its own")


def _check_activation(act: Any, where: str) -> None:
    function = vars(act).get("act") if type(act).__name__ == "GELUActivation" else act
    if function is not F.gelu and not (type(act) is nn.GELU and act.approximate == "none"):
        raise Untrainable(f"{where}: expected the exact GELU, got {act}")


def _linear(module: nn.Module, family: Family, where: str) -> list[Tensor]:
    if type(module) is not family.named(family.linear):
        raise Untrainable(f"{where} is a {type(module).__name__}, not a {family.linear}")
    if isinstance(module, nn.Conv1d) and (module.kernel_size, module.stride, module.padding) != ((1,), (1,), (0,)):
        raise Untrainable(f"{where} is not a position-wise convolution")
    return [_parameter(module, "weight", where), _parameter(module, "bias", where)]


def _parameter(module: nn.Module, name: str, where: str) -> Tensor:
    value = getattr(module, name)
    if not isinstance(value, Tensor):
        raise Untrainable(f"{where}.{name} is missing")
    if value.dtype != torch.float32 or value.device.type not in ("cpu", "meta"):
        raise Untrainable(f"{where}.{name}: {value.dtype} on {value.device}, not torch.float32 on the CPU")
    return value


def _dropout(module: nn.Module, where: str) -> float:
    if type(module) is not nn.Dropout:
        raise Untrainable(f"{where} is a {type(module).__name__}, not a Dropout")
    if not module.training:
        return 0.0
    if module.p >= 1.0:
        raise Untrainable(f"{where} drops everything")
    return module.p
