"""The operators, `torch.ops.squeezebert.*`, as typed functions.

Importing this module loads the compiled operators and registers their fakes (`torch.compile`, `torch.export`),
gradients and CPU autocast. `formulas` has them in plain PyTorch. The architecture is that of
Iandola et al. 2020, SqueezeBERT, arXiv 2006.11316, section 3.

What holds for all of them:

- Layout is token-major: the last dimension is channels. Any strides are taken; a tensor is copied only if its channels
  are not next to each other or its rows not one stride apart.
- On the CPU activations, biases and LayerNorm parameters are float32, and each weight float32, float16, bfloat16, or
  packed as one of these or as int8. The 16-bit ones take half the memory, int8 a quarter. With a query weight of lower
  precision, attention takes keys and values in its format as well. What each format rounds, and where instruction sets
  differ in that (float16 and bfloat16 only), says csrc/include/squeezebert.h, squeezebert_format; all that follows a
  product is float32. With int8, NaN or infinity among a token's channels of a group makes all of that token's outputs
  of that group NaN. ``torch.autocast("cpu")`` casts lower precisions to float32; otherwise another dtype is an error.
  Outputs are fresh contiguous tensors.
- On CUDA (with Triton, compute capability 8.0 and later) they are float32, float16 or bfloat16, all of one dtype, and
  sums are float32; float32 products are exact unless ``torch.backends.cuda.matmul.allow_tf32``.
  ``torch.autocast("cuda")`` casts to its dtype. Plain weights are as fast as packed ones. A mask is boolean, float32 or
  of that dtype. cu_seqlens stays on the CPU. While a CUDA graph is captured, cu_seqlens is an error, and an id outside
  its table gives a row of NaN.
- A weight is plain, ``[out_channels, in_channels / groups]`` or ``[out_channels, in_channels / groups, 1]`` (as
  `torch.nn.Conv1d` has it), or packed by `pack_grouped_conv1x1`. Plain weights are packed again on every call, and are
  the ones to train with; packed weights are fast and serve inference only. Results are bit-identical.
- A bias is ``[out_channels]`` or None.
- ``groups`` divides input and output channels; group g of the output reads group g of the input and nothing else.
- A row's bits depend neither on the batch around it, nor on padding, nor on ``torch.set_num_threads``.
- Operators that look along a sequence take ``[N, S, C]`` (N sequences of S tokens), ``[S, C]`` (one sequence) or, with
  ``cu_seqlens``, packed tokens ``[T, C]``: int32 offsets ``[N + 1]`` on the CPU, the first 0, never decreasing, the
  last T; sequence n is rows ``cu_seqlens[n]`` to ``cu_seqlens[n + 1]``. Empty batches and sequences are valid.
- ``mask`` broadcasts to ``[N, num_heads, Sq, Sk]``. float32: added to the scaled scores. Boolean (True = attend): the
  most negative float32 is added where False, so a row that is False throughout attends uniformly, as in Hugging Face; a
  row of -infinity throughout gives zeros.
- Gradients flow to every floating-point tensor; they are those of `formulas`. A second derivative is an error, but
  under `torch.func`'s transforms, which like forward mode (`torch.autograd.forward_ad`) run `formulas` in the kernels'
  place: plain weights only, and other last bits. `torch.vmap` is the calls one after the other.
- ValueError (IndexError for an id outside its table) names the argument, what was expected and what came.
"""

import torch

from ..triton import registration as cuda
from . import autocast, autograd, batching, fakes, training
from .functions import (
    attention,
    embedding_layer_norm,
    encoder,
    encoder_layer,
    grouped_conv1d,
    grouped_conv1x1,
    grouped_conv1x1_add_layer_norm,
    grouped_conv1x1_gelu,
    grouped_ffn,
    grouped_qkv_attention,
    pack_encoder_layer,
    pack_grouped_conv1d,
    pack_grouped_conv1x1,
    pack_quantized,
    quantize_weight,
    repack_encoder_layer,
    unpack_encoder_layer,
    unpack_grouped_conv1x1,
    unpack_quantized,
)
from .loading import load_operators
from .training import encoder_layer_training

__all__ = [
    "attention",
    "embedding_layer_norm",
    "encoder",
    "encoder_layer",
    "encoder_layer_training",
    "grouped_conv1d",
    "grouped_conv1x1",
    "grouped_conv1x1_add_layer_norm",
    "grouped_conv1x1_gelu",
    "grouped_ffn",
    "grouped_qkv_attention",
    "pack_encoder_layer",
    "pack_grouped_conv1d",
    "pack_grouped_conv1x1",
    "pack_quantized",
    "quantize_weight",
    "repack_encoder_layer",
    "unpack_encoder_layer",
    "unpack_grouped_conv1x1",
    "unpack_quantized",
]

_path = load_operators()
_registrations = torch.library.Library("squeezebert", "FRAGMENT")  # they live as long as this object
fakes.register(_registrations, _path.with_name("libsqueezebert.so"))
autograd.register(_registrations)
autocast.register(_registrations)
training.register(_registrations)
batching.register(_registrations)
cuda.register(_registrations)
