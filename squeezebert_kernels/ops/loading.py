"""Finds and loads the compiled operators."""

from pathlib import Path

import torch

from ..building import BUILD_COMMAND


def load_operators() -> Path:
    """Registers ``torch.ops.squeezebert.*`` and returns the path of the library they came from.

    Raises:
        ImportError: the library was not built, or does not fit this torch.
    """
    path = Path(__file__).parents[1] / "libsqueezebert_torch.so"
    if not path.exists():
        raise ImportError(f"{path} is missing: build it with `{BUILD_COMMAND}` in the source tree", path=str(path))
    try:
        torch.ops.load_library(path)
    except OSError as error:
        raise ImportError(
            f"{path} does not load with torch {torch.__version__} (it needs torch 2.10 or later): {error}; "
            f"rebuild it with `{BUILD_COMMAND}` in the source tree",
            path=str(path),
        ) from error
    return path
