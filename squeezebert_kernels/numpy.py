"""The kernels for NumPy arrays: the operators of ``torch.ops.squeezebert.*`` on float32 arrays, with channels last.

Weights, float32 or float16, are packed once, by `pack`, which is also where their group count and, if it is to be
another, their number format is told::

    weight = pack(numpy.random.randn(768, 192).astype("float32"), groups=4)
    output = grouped_conv1x1(input, weight)  # [tokens, 768] -> [tokens, 768]

Every function documents its shapes; ``help(squeezebert_kernels.numpy.encoder)``. A `PackedWeight` can be copied and
pickled; where another instruction set is active, unpickling it is a ValueError. This module needs no torch.

Raises ImportError when the compiled module is missing.
"""

from .building import BUILD_COMMAND

try:
    from ._native import (
        PackedWeight,
        active_isa,
        active_product,
        attention,
        embedding_layer_norm,
        encoder,
        force_isa,
        force_product,
        formats,
        get_num_threads,
        grouped_conv1d,
        grouped_conv1x1,
        grouped_conv1x1_add_layer_norm,
        grouped_conv1x1_gelu,
        grouped_ffn,
        grouped_qkv_attention,
        isas,
        measure_peak,
        pack,
        pack_quantized,
        product_reasons,
        products,
        quantize_weight,
        release_memory,
        set_num_threads,
        unpack,
        unpack_quantized,
        version,
    )
except ModuleNotFoundError as error:
    raise ImportError(
        f"squeezebert_kernels._native is missing: build it with `{BUILD_COMMAND}` in the source tree"
    ) from error

__all__ = [
    "PackedWeight",
    "active_isa",
    "active_product",
    "attention",
    "embedding_layer_norm",
    "encoder",
    "force_isa",
    "force_product",
    "formats",
    "get_num_threads",
    "grouped_conv1d",
    "grouped_conv1x1",
    "grouped_conv1x1_add_layer_norm",
    "grouped_conv1x1_gelu",
    "grouped_ffn",
    "grouped_qkv_attention",
    "isas",
    "measure_peak",
    "pack",
    "pack_quantized",
    "product_reasons",
    "products",
    "quantize_weight",
    "release_memory",
    "set_num_threads",
    "unpack",
    "unpack_quantized",
    "version",
]
