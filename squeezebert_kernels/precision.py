"""Which dtype each part of a model is computed in: one for all, and exceptions by name.

The parts of an encoder layer are named alike in every model: `layer.11.query`, `.key`, `.value` (the projections),
`.attention` (queries by keys, probabilities by values), `.post_attention`, `.intermediate` and `.output`; `pooler` is
beside them. In transformers' BERT, `post_attention` is `attention.output.dense`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase

import torch

# Of an encoder layer: its linears in the operators' order, then what is between them.
LINEARS = ("query", "key", "value", "post_attention", "intermediate", "output")
PARTS = (*LINEARS, "attention")
POOLER = "pooler"
DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.int8)

Dtype = torch.dtype | str


def as_dtype(argument: str, value: Dtype) -> torch.dtype:
    """A dtype, or its name. Raises ValueError, naming `argument`, for one that the kernels do not compute in."""
    dtype = getattr(torch, value.removeprefix("torch."), None) if isinstance(value, str) else value
    if dtype not in DTYPES:
        raise ValueError(f"{argument}: expected {', '.join(map(str, DTYPES[:-1]))} or {DTYPES[-1]}, got {value!r}")
    return dtype


@dataclass(frozen=True)
class Precision:
    """dtype: of all parts but those that `keep` names: patterns and dtypes, of which the last that fits counts."""

    dtype: torch.dtype = torch.float32
    keep: tuple[tuple[str, torch.dtype], ...] = ()

    @staticmethod
    def of(dtype: Dtype, keep: Mapping[str, Dtype] | None = None) -> Precision:
        """Raises ValueError for what is no dtype of the kernels."""
        exceptions = tuple((name, as_dtype(f"keep[{name!r}]", value)) for name, value in (keep or {}).items())
        return Precision(as_dtype("dtype", dtype), exceptions)

    @property
    def dtypes(self) -> set[torch.dtype]:
        return {self.dtype, *(dtype for _, dtype in self.keep)}

    def dtype_of(self, part: str) -> torch.dtype:
        """`part`: "layer.11.output", "pooler"."""
        return next((dtype for pattern, dtype in reversed(self.keep) if _fits(part, pattern)), self.dtype)

    def check(self, layers: int, has_pooler: bool) -> None:
        """Raises ValueError for a name in `keep` that a model of so many layers does not have."""
        parts = [f"layer.{index}.{part}" for index in range(layers) for part in PARTS] + [POOLER] * has_pooler
        for pattern, _ in self.keep:
            if not any(_fits(part, pattern) for part in parts):
                pooler = f", {POOLER}" if has_pooler else ""
                raise ValueError(
                    f"keep: expected layer.0 to layer.{layers - 1}, a part of one (layer.0.output) or of all of them "
                    f"({', '.join(PARTS)}){pooler}, or a pattern of such names, got {pattern!r}"
                )


def _fits(part: str, pattern: str) -> bool:
    """The pattern is of the part itself, of its layer, or of that part of all layers."""
    layer, _, last = part.rpartition(".")
    return any(fnmatchcase(name, pattern) for name in (part, layer, last))
