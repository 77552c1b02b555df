"""int8 graphs for the runtimes, made with each one's own tool as its manual recommends."""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from squeezebert_kernels.machine import cpu_flags


def dynamic_int8(path: Path) -> Path:
    """ONNX Runtime's dynamic quantization of the graph in `path`: beside it, made once.

    Weights have one scale each, since it runs batched products with no others; and 7 bits where the CPU has no VNNI,
    for the instructions that are used then saturate.
    """
    from onnxruntime.quantization import quantize_dynamic

    quantized = path.with_suffix(".int8.onnx")
    if not quantized.exists():
        has_vnni = bool(cpu_flags() & {"avx512_vnni", "avx_vnni", "asimddp"})
        with _quiet():
            quantize_dynamic(path, quantized, reduce_range=not has_vnni)
    return quantized


def post_training_int8(model: Any, feeds: list[dict[str, Any]]) -> Any:
    """NNCF's post-training quantization of an OpenVINO model for transformers, calibrated on `feeds`."""
    import nncf

    with _quiet():
        return nncf.quantize(model, nncf.Dataset(feeds), model_type=nncf.ModelType.TRANSFORMER, subset_size=len(feeds))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Both report their steps at length; their errors still surface."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.disable(disabled)
