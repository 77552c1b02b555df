"""Reads and writes checkpoints in Hugging Face's format: a folder with config.json and model.safetensors."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .config import SqueezeBertConfig

CONFIG = "config.json"
SAFETENSORS = "model.safetensors"
INDEX = "model.safetensors.index.json"
PICKLE = "pytorch_model.bin"

_BASE_PREFIX = "transformer."  # before the base model's names in a head's checkpoint
_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")
_GROUP_FIELDS = {
    "attention.query": "q_groups",
    "attention.key": "k_groups",
    "attention.value": "v_groups",
    "post_attention.conv1d": "post_attention_groups",
    "intermediate.conv1d": "intermediate_groups",
    "output.conv1d": "output_groups",
}


def find(model: str | Path, revision: str | None = None, allow_pickle: bool = False) -> Path:
    """The folder of the checkpoint `model`: a folder, or a Hub id, which is downloaded or found in the Hub's cache.

    Raises FileNotFoundError for what is neither, ImportError for a Hub id without huggingface_hub, OSError when the
    download fails.
    """
    folder = Path(model)
    if folder.is_dir():
        return folder
    if folder.exists() or not _HUB_ID.fullmatch(str(model)):
        raise FileNotFoundError(
            f"model: expected a folder with {CONFIG} and {SAFETENSORS}, or a Hub id, got {str(model)!r}"
        )
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise ImportError(
            f"model: {str(model)!r} is no folder, and to look it up on the Hub takes huggingface_hub: "
            "pip install squeezebert_kernels[hf]"
        ) from error
    patterns = [CONFIG, SAFETENSORS, INDEX, "model-*.safetensors", *([PICKLE] if allow_pickle else [])]
    try:
        return Path(snapshot_download(str(model), revision=revision, allow_patterns=patterns))
    except Exception as error:  # huggingface_hub's own, the HTTP client's: all of them mean this
        raise OSError(f"model: {str(model)!r} is no folder, and could not be fetched from the Hub: {error}") from error


def read_config(folder: Path) -> SqueezeBertConfig:
    """The config.json in `folder`. Raises FileNotFoundError, or ValueError that names the file and the field."""
    path = folder / CONFIG
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: expected a checkpoint folder with {CONFIG} and {SAFETENSORS}")
    try:
        return SqueezeBertConfig.from_json_file(path)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path}: {error}") from error


def read_tensors(folder: Path, allow_pickle: bool = False) -> dict[str, Tensor]:
    """Every tensor of the checkpoint in `folder`, by name.

    allow_pickle: pytorch_model.bin is read (by torch.load with weights_only) when there are no safetensors.

    Raises FileNotFoundError for a missing file, ValueError for one that is truncated, foreign or refused.
    """
    if (folder / SAFETENSORS).is_file():
        return read_file(folder / SAFETENSORS)[1]
    if (folder / INDEX).is_file():
        return _read_shards(folder)
    if not (folder / PICKLE).is_file():
        raise FileNotFoundError(f"{folder / SAFETENSORS} is missing, and so is {INDEX}")
    if not allow_pickle:
        raise ValueError(
            f"{folder / PICKLE}: a pickle file is refused, for it can carry code: convert it to {SAFETENSORS}, or pass "
            "allow_pickle=True if you trust it (it is then read with torch.load(weights_only=True))"
        )
    try:
        tensors = torch.load(folder / PICKLE, map_location="cpu", weights_only=True)
    except Exception as error:  # of many kinds: zip, pickle and torch's own
        raise ValueError(f"{folder / PICKLE} is truncated, or not a checkpoint: {error}") from error
    if not isinstance(tensors, dict) or not all(isinstance(tensor, Tensor) for tensor in tensors.values()):
        raise ValueError(f"{folder / PICKLE}: expected a state_dict, names and tensors, got {type(tensors).__name__}")
    return tensors


def load_into(model: nn.Module, tensors: Mapping[str, Tensor], config: SqueezeBertConfig, source: Path) -> list[str]:
    """Gives `model` (on any device, meta too) float32 parameters on the CPU with the values in `tensors`.

    A base model takes its part of a head's checkpoint, and a head one that was saved under the base model's names.
    Parameters tied to each other need only one of their names. Returns the names in `tensors` that no parameter of
    `model` has, such as those of another task's head.

    Raises ValueError, naming every tensor, for those that are missing, of another shape or not floating point, and for
    names inside the base model that it does not have.
    """
    has_prefix = any(name.startswith(_BASE_PREFIX) for name in tensors)
    wants_prefix = hasattr(model, "transformer")
    if has_prefix and not wants_prefix:
        tensors = {name.removeprefix(_BASE_PREFIX): tensor for name, tensor in tensors.items()}
    elif wants_prefix and not has_prefix:
        base_model: Any = model.transformer
        inner = {name.partition(".")[0] for name, _ in base_model.named_parameters()}
        tensors = {
            _BASE_PREFIX + name if name.partition(".")[0] in inner else name: tensor for name, tensor in tensors.items()
        }

    places: dict[int, list[str]] = {}
    parameters = dict(model.named_parameters(remove_duplicate=False))
    for name, parameter in parameters.items():
        places.setdefault(id(parameter), []).append(name)
    problems = []
    for names in places.values():
        found = next((name for name in names if name in tensors), None)
        problem = (
            f"{names[0]} is missing" if found is None else _misfit(found, tensors[found], parameters[found], config)
        )
        if problem:
            problems.append(problem)
            continue
        assert found is not None
        # A copy: safetensors' own memory is the file, mapped, and a file can change.
        parameter = nn.Parameter(tensors[found].to("cpu", torch.float32, copy=True))
        for name in names:
            owner, _, leaf = name.rpartition(".")
            model.get_submodule(owner)._parameters[leaf] = parameter
    unused = [name for name in tensors if name not in parameters and not name.endswith(".position_ids")]
    base = {name.partition(".")[0] for name in parameters} if not wants_prefix else {"transformer"}
    problems += [f"{name} is in no {type(model).__name__}" for name in unused if name.partition(".")[0] in base]
    if problems:
        raise ValueError(f"{source} does not hold the weights of this {type(model).__name__}: {_some(problems)}")
    return unused


def save(model: nn.Module, config: SqueezeBertConfig, folder: str | Path) -> None:
    """Writes config.json and model.safetensors, as transformers reads them; tied parameters once."""
    from_torch = safetensors().save_file
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    names = [name for name, _ in model.named_parameters()]  # each parameter once
    state = model.state_dict()
    tensors = {name: state[name].detach().contiguous() for name in names}
    values = {**config.to_dict(), "architectures": [type(model).__name__], "dtype": "float32"}
    text = json.dumps(values, indent=2, sort_keys=True, ensure_ascii=False)
    (folder / CONFIG).write_text(text + "\n", encoding="utf-8")
    from_torch(tensors, folder / SAFETENSORS, metadata={"format": "pt"})


def safetensors() -> Any:
    """The module safetensors.torch. Raises ImportError that says what to install."""
    try:
        import safetensors.torch
    except ImportError as error:
        raise ImportError("checkpoints are read with safetensors: pip install squeezebert_kernels[hf]") from error
    return safetensors.torch


def read_file(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    """The metadata and the tensors of a safetensors file. Raises ValueError, which names it, for one that is none."""
    load_file = safetensors().load_file
    try:
        from safetensors import safe_open

        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
        return metadata, load_file(path)
    except Exception as error:  # SafetensorError, which derives from Exception
        raise ValueError(f"{path} is truncated, or not a safetensors file: {error}") from error


def _read_shards(folder: Path) -> dict[str, Tensor]:
    path = folder / INDEX
    try:
        places = json.loads(path.read_text(encoding="utf-8"))["weight_map"]
        files = sorted(set(places.values()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: expected a JSON object with a weight_map, names and files: {error!r}") from error
    tensors: dict[str, Tensor] = {}
    for file in files:
        if not isinstance(file, str) or Path(file).name != file:
            raise ValueError(f"{path}: expected file names, got {file!r}")
        if not (folder / file).is_file():
            raise FileNotFoundError(f"{folder / file} is missing: {path} names it")
        tensors.update(read_file(folder / file)[1])
    missing = [f"{name} is not in {file}" for name, file in places.items() if name not in tensors]
    if missing:
        raise ValueError(f"{path}: {_some(missing)}")
    return tensors


def _misfit(name: str, tensor: Tensor, parameter: Tensor, config: SqueezeBertConfig) -> str | None:
    """What is wrong with `tensor` as the values of `parameter`, if anything."""
    if not tensor.is_floating_point():
        return f"{name}: expected floating point, got {tensor.dtype}"
    if tensor.shape == parameter.shape:
        return None
    problem = f"{name}: expected shape {list(parameter.shape)}, got {list(tensor.shape)}"
    for path, field in _GROUP_FIELDS.items():
        if name.endswith(f"{path}.weight") and tensor.dim() == 3 and tensor.shape[0] == parameter.shape[0]:
            groups = getattr(config, field)
            fitting, rest = divmod(parameter.shape[1] * groups, max(tensor.shape[1], 1))
            if rest == 0:
                problem += f" ({field} is {groups} in {CONFIG}; this weight has {fitting} groups)"
    return problem


def _some(problems: list[str]) -> str:
    shown = "; ".join(problems[:8])
    return shown if len(problems) <= 8 else f"{shown}; and {len(problems) - 8} more"
