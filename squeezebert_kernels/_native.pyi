"""Types of the pybind11 module; its docstrings give the shapes. C is channels, N sequences, S and T tokens."""

from collections.abc import Sequence
from typing import Any

from numpy import bool_, float16, float32, int8, int32, integer
from numpy.typing import NDArray

Floats = NDArray[float32]
Ids = NDArray[integer[Any]]
Mask = NDArray[float32] | NDArray[bool_]
Offsets = NDArray[int32]

class PackedWeight:
    @property
    def out_channels(self) -> int: ...
    @property
    def in_channels(self) -> int: ...
    @property
    def groups(self) -> int: ...
    @property
    def kernel_size(self) -> int: ...
    @property
    def dtype(self) -> str: ...
    @property
    def nbytes(self) -> int: ...

def version() -> str: ...
def isas() -> list[str]: ...
def active_isa() -> str: ...
def formats() -> list[str]: ...
def products() -> list[str]: ...
def active_product(format: str = "float32") -> str: ...
def force_product(name: str | None) -> None: ...
def force_isa(name: str | None) -> None: ...
def get_num_threads() -> int: ...
def set_num_threads(threads: int) -> None: ...
def release_memory() -> int: ...
def unchanged(places: tuple[Any, ...], objects: tuple[Any, ...]) -> bool: ...
def measure_peak(seconds: float = 0.2, format: str = "float32") -> float: ...
def pack(weight: Floats | NDArray[float16], groups: int = 1, dtype: str | None = None) -> PackedWeight: ...
def unpack(weight: PackedWeight) -> Floats: ...
def quantize_weight(weight: Floats | NDArray[float16]) -> tuple[NDArray[int8], Floats]: ...
def pack_quantized(values: NDArray[int8], scale: Floats, groups: int = 1) -> PackedWeight: ...
def unpack_quantized(weight: PackedWeight) -> tuple[NDArray[int8], Floats]: ...
def grouped_conv1x1(input: Floats, weight: PackedWeight, bias: Floats | None = None) -> Floats: ...
def grouped_conv1x1_gelu(input: Floats, weight: PackedWeight, bias: Floats | None = None) -> Floats: ...
def grouped_conv1x1_add_layer_norm(
    input: Floats,
    weight: PackedWeight,
    bias: Floats | None,
    residual: Floats,
    ln_weight: Floats,
    ln_bias: Floats,
    eps: float = 1e-12,
) -> Floats: ...
def grouped_conv1d(
    input: Floats, weight: PackedWeight, bias: Floats | None = None, cu_seqlens: Offsets | None = None
) -> Floats: ...
def attention(
    query: Floats,
    key: Floats,
    value: Floats,
    num_heads: int,
    mask: Mask | None = None,
    scale: float | None = None,
    dtype: str = "float32",
) -> Floats: ...
def grouped_qkv_attention(
    input: Floats,
    query_weight: PackedWeight,
    query_bias: Floats | None,
    key_weight: PackedWeight,
    key_bias: Floats | None,
    value_weight: PackedWeight,
    value_bias: Floats | None,
    num_heads: int,
    mask: Mask | None = None,
    cu_seqlens: Offsets | None = None,
    scale: float | None = None,
    attention_dtype: str | None = None,
) -> Floats: ...
def grouped_ffn(
    input: Floats,
    intermediate_weight: PackedWeight,
    intermediate_bias: Floats | None,
    output_weight: PackedWeight,
    output_bias: Floats | None,
    ln_weight: Floats,
    ln_bias: Floats,
    eps: float = 1e-12,
) -> Floats: ...
def embedding_layer_norm(
    input_ids: Ids,
    token_type_ids: Ids | None,
    position_ids: Ids | None,
    word_embeddings: Floats,
    position_embeddings: Floats,
    token_type_embeddings: Floats,
    ln_weight: Floats,
    ln_bias: Floats,
    eps: float = 1e-12,
) -> Floats: ...
def encoder(
    input: Floats,
    params: Sequence[PackedWeight | Floats | None],
    num_heads: int,
    eps: float = 1e-12,
    mask: Mask | None = None,
    cu_seqlens: Offsets | None = None,
    first_token_only: bool = False,
) -> Floats: ...
