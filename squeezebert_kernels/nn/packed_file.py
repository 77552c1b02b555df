"""One file that holds a model as it is computed: weights rounded or quantized, its config, its precision.

It is a safetensors file and portable: int8 weights are whole numbers and scales, as `ops.quantize_weight` gives them,
`<name>.values` and `<name>.scale`; 16-bit ones have their dtype; all else is float32. What the instruction set in use
wants interleaved is so after loading, and the loaded model gives the bits of the saved one (on other instruction sets
too, where its formats do that: float32 and int8).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .. import _native, ops
from ..integration.architectures import Family
from ..integration.classes import state_of
from ..integration.forward import BaseState, original_class
from ..integration.optimize import attach, restore
from ..precision import LINEARS, POOLER, Precision
from . import checkpoint, models
from .config import SqueezeBertConfig

FORMAT = "squeezebert_kernels.packed"
VERSION = 1
_VALUES, _SCALE = ".values", ".scale"


def save_packed(model: nn.Module, path: str | Path) -> None:
    """Writes `model` to the file `path`, in the precision that it is computed in.

    model: a SqueezeBERT model or one of its heads, this library's or transformers', that `optimize(model, dtype=...)`
    or `from_pretrained(..., dtype=...)` made. An int8 encoder takes a quarter of what it takes in float32.

    Raises ImportError where safetensors is not installed (`pip install 'squeezebert_kernels[hf]'`), TypeError for
    another model, or one that is not optimized.
    """
    save_file = checkpoint.safetensors().save_file
    name = original_class(model).__name__
    found = [(path, base) for path, base in model.named_modules() if isinstance(state_of(base), BaseState)]
    if name not in models.HEADS or len(found) != 1:
        raise TypeError(
            f"model: expected an optimized {', '.join(models.HEADS[:-1])} or {models.HEADS[-1]}, got "
            f"{'an optimized' if found else 'a'} {name}{'' if found else ' that is not optimized'}"
        )
    prefix, base = found[0]
    precision: Precision = state_of(base).precision
    family: Family = state_of(base).family
    dtypes = _dtypes(base, f"{prefix}." if prefix else "", family, precision)
    state: Any = model.state_dict()
    tensors: dict[str, Tensor] = {}
    for parameter, _ in model.named_parameters():  # each once
        tensors.update(_stored(parameter, state[parameter].detach(), dtypes.get(parameter, torch.float32)))
    config: Any = model.config
    header = {
        "version": VERSION,
        "numerics": _native.numerics(),
        "class": name,
        "config": config.to_dict(),
        "dtype": _name(precision.dtype),
        "keep": {pattern: _name(dtype) for pattern, dtype in precision.keep},
    }
    save_file(tensors, path, metadata={FORMAT: json.dumps(header)})  # one entry: several would come in any order


def load_packed(path: str | Path) -> Any:
    """The model in the file `path` that `save_packed` wrote, in eval mode, on the CPU: one of this library's classes.

    Its parameters are float32: rounded, or those that quantize to what was saved.

    Raises ImportError where safetensors is not installed, FileNotFoundError, and ValueError, which names the file, for
    one that is truncated, foreign, or of another version, and for tensors that do not fit.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: expected a file that save_packed wrote")
    metadata, tensors = checkpoint.read_file(path)
    if FORMAT not in metadata:
        raise ValueError(
            f"{path}: expected a file that save_packed wrote, got a safetensors file without its metadata; "
            "from_pretrained reads checkpoints"
        )
    try:
        header = json.loads(metadata[FORMAT])
        if header["version"] != VERSION:
            raise ValueError(f"expected version {VERSION} of the format, got {header['version']}")
        kind = getattr(models, models.HEADS[models.HEADS.index(header["class"])])
        config = SqueezeBertConfig.from_dict(header["config"])
        precision = Precision.of(header["dtype"], header["keep"])
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"{path}: its metadata are not save_packed's: {error}") from error
    with torch.device("meta"):
        model = kind(config)
    unused = checkpoint.load_into(model, _restored(tensors, path), config, path)
    if unused:
        raise ValueError(f"{path}: {', '.join(unused)}: in no {kind.__name__}")
    attach(restore(model), precision)
    return model.eval()


def _dtypes(base: nn.Module, prefix: str, family: Family, precision: Precision) -> dict[str, torch.dtype]:
    """What the kernels pack each weight as, by the parameter's name."""
    layers: Any = base.get_submodule(family.layers)
    dtypes = {
        f"{prefix}{family.layers}.{index}.{path}.weight": precision.dtype_of(f"layer.{index}.{part}")
        for index in range(len(layers))
        for part, path in zip(LINEARS, family.linears, strict=True)
    }
    return {**dtypes, f"{prefix}pooler.dense.weight": precision.dtype_of(POOLER)}


def _stored(name: str, value: Tensor, dtype: torch.dtype) -> dict[str, Tensor]:
    if dtype != torch.int8:
        return {name: value.to("cpu", dtype).contiguous()}
    values, scale = ops.quantize_weight(value.to("cpu", torch.float32))
    return {name + _VALUES: values, name + _SCALE: scale}


def _restored(stored: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """The tensors by the parameters' names."""
    tensors = {}
    for name, value in stored.items():
        if name.endswith(_SCALE):
            continue
        if name.endswith(_VALUES):
            name = name.removesuffix(_VALUES)
            scale = stored.get(name + _SCALE)
            if scale is None:
                raise ValueError(f"{path}: {name}{_SCALE} is missing")
            expected = [value.shape[0], 1, *value.shape[2:]] if value.dim() > 1 else None
            if value.dtype != torch.int8 or scale.dtype != torch.float32 or list(scale.shape) != expected:
                raise ValueError(
                    f"{path}: {name}{_SCALE}: expected float32 {expected} beside int8 values, got {scale.dtype} "
                    f"{list(scale.shape)} beside {value.dtype} {list(value.shape)}"
                )
            # It quantizes to what was saved: 127 * scale divides to the very scale where that was m / 127.
            value = value * scale
        tensors[name] = value
    return tensors


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
