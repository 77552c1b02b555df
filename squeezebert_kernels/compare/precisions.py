"""The number formats that a comparison can be run in, by their names in this library."""

from __future__ import annotations

from typing import Any

import torch

# Bytes of a weight.
WEIGHT_SIZES = {"float32": 4, "float16": 2, "bfloat16": 2, "int8": 1}
DTYPES = tuple(WEIGHT_SIZES)
# What `optimize`, and `Module.to` where it can, take for each.
TORCH_DTYPES: dict[str, Any] = {
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "int8": "int8",
}


def parse_dtypes(text: str) -> tuple[str, ...]:
    """Names with commas between them, or `all`."""
    return DTYPES if text == "all" else tuple(dict.fromkeys(text.split(",")))


def check_dtypes(names: tuple[str, ...]) -> None:
    """Raises ValueError for a name that is none."""
    if unknown := [name for name in names if name not in DTYPES]:
        raise ValueError(f"dtype: expected all, or names out of {', '.join(DTYPES)}, got {', '.join(unknown)}")
