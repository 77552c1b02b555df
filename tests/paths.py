"""Which path an optimized model took: the kernels, or its original forward."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

_LOGGER = logging.getLogger("squeezebert_kernels")


@contextmanager
def _recorded() -> Iterator[list[str]]:
    messages: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: messages.append(record.getMessage())  # type: ignore[method-assign]
    level = _LOGGER.level
    _LOGGER.addHandler(handler)
    _LOGGER.setLevel(logging.DEBUG)
    try:
        yield messages
    finally:
        _LOGGER.removeHandler(handler)
        _LOGGER.setLevel(level)


@contextmanager
def kernels() -> Iterator[None]:
    """Everything inside the block runs on the kernels."""
    with _recorded() as messages:
        yield
    assert not messages


@contextmanager
def original(reason: str) -> Iterator[None]:
    """Something inside the block takes the original path, for a reason that contains `reason`."""
    with _recorded() as messages:
        yield
    assert any(reason in message for message in messages), messages
