"""Checks of arguments: every error names the argument, what was expected and what came."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from torch import Tensor


def check(condition: bool, message: str) -> None:
    """Raises ValueError(message) unless `condition` holds."""
    if not condition:
        raise ValueError(message)


def check_tensor(name: str, value: object, instead: str = "") -> None:
    """Raises TypeError unless `value` is a tensor. instead: what else it might be."""
    if not isinstance(value, Tensor):
        raise TypeError(f"{name}: expected a tensor{instead}, got {type(value).__name__}")


def check_broadcasts(name: str, tensor: Tensor, shape: Sequence[int]) -> None:
    """`tensor` broadcasts to `shape`, and does not widen it."""
    sizes = [1] * (len(shape) - tensor.dim()) + list(tensor.shape)
    fits = len(sizes) == len(shape) and all(s in (1, e) for s, e in zip(sizes, shape, strict=True))
    check(fits, f"{name}: expected a shape that broadcasts to {list(shape)}, got {list(tensor.shape)}")


@contextmanager
def naming_ids(name: str, ids: Tensor, rows: int) -> Iterator[None]:
    """Around a look-up of `ids` in a table: its IndexError names the argument, and says what it may hold and held."""
    try:
        yield
    except IndexError as error:
        low, high = int(ids.min()), int(ids.max())
        raise IndexError(f"{name}: expected ids from 0 to {rows - 1}, got ids from {low} to {high}") from error
