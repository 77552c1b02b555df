"""The operators on CUDA tensors, as Triton kernels: one file for each operator.

How the files build on each other:

- `registration` gives torch.ops.squeezebert.* their CUDA bodies; Triton is imported by the first call that needs it.
- `arguments` checks what an operator is given, in the words of the CPU operators, and says it in the kernels' terms.
- `tuning` is the one table of block sizes. `launch` picks a row of it and starts a kernel.
- `tiles` holds what kernels share: a tile's matrix product, GELU, LayerNorm, a step of softmax.
- `grouped_conv1x1`, `grouped_conv1d`, `attention`, `grouped_qkv_attention`, `grouped_ffn`, `embedding_layer_norm`,
  `encoder_layer`, `encoder`: a kernel, the function that launches it, and the operator. `pack`: packed weights, in
  the form of `packed_format`.
- `forward` and `graph` serve `squeezebert_kernels.optimize`: a whole model as one CUDA graph per bucket of shapes.
  `turns` orders what threads and streams do with its memory; `bad_ids` makes errors of what only the GPU has seen.

A layer takes three launches where its groups line up (grouped_qkv_attention, grouped_conv1x1_add_layer_norm,
grouped_ffn), and up to seven where they do not.

A row's bits do not depend on the batch around it; `tuning` says what decides them.
"""
