// torch.ops.squeezebert.*: the schemas, and the CPU bodies behind them. Fakes, autograd and autocast are registered in
// Python (squeezebert_kernels/ops), because the stable ABI has none of them.
#include <torch/csrc/stable/library.h>

#include "torch/operators.h"

namespace squeezebert::torch_ops {

STABLE_TORCH_LIBRARY(squeezebert, library) {
  library.def("pack_grouped_conv1x1(Tensor weight, int groups, ScalarType? dtype=None) -> Tensor");
  library.def("pack_grouped_conv1d(Tensor weight, int groups, ScalarType? dtype=None) -> Tensor");
  library.def("quantize_weight(Tensor weight) -> (Tensor values, Tensor scale)");
  library.def("pack_quantized(Tensor values, Tensor scale, int groups) -> Tensor");
  library.def(
      "unpack_quantized(Tensor weight, int in_channels, int groups, int kernel_size=1) -> (Tensor values, Tensor "
      "scale)");
  library.def("unpack_grouped_conv1x1(Tensor weight, int in_channels, int groups) -> Tensor");
  library.def(
      "pack_encoder_layer(Tensor[] params, int[] groups, float eps, ScalarType? attention_dtype=None) -> Tensor");
  library.def("repack_encoder_layer(Tensor(a!) packed, Tensor[] params) -> ()");
  library.def("unpack_encoder_layer(Tensor layer, int channels, int intermediate_channels, int[] groups) -> Tensor[]");
  library.def("grouped_conv1x1(Tensor input, Tensor weight, Tensor? bias, int groups) -> Tensor");
  library.def("grouped_conv1x1_gelu(Tensor input, Tensor weight, Tensor? bias, int groups) -> Tensor");
  library.def(
      "grouped_conv1x1_add_layer_norm(Tensor input, Tensor weight, Tensor? bias, int groups, Tensor residual, "
      "Tensor ln_weight, Tensor ln_bias, float eps) -> Tensor");
  library.def(
      "grouped_conv1d(Tensor input, Tensor weight, Tensor? bias, int groups, Tensor? cu_seqlens=None) -> Tensor");
  library.def(
      "attention(Tensor query, Tensor key, Tensor value, int num_heads, Tensor? mask=None, float? scale=None, "
      "ScalarType? dtype=None) -> Tensor");
  library.def(
      "grouped_qkv_attention(Tensor input, Tensor query_weight, Tensor? query_bias, Tensor key_weight, "
      "Tensor? key_bias, Tensor value_weight, Tensor? value_bias, int num_heads, int[] groups, Tensor? mask=None, "
      "Tensor? cu_seqlens=None, float? scale=None, ScalarType? attention_dtype=None) -> Tensor");
  library.def(
      "grouped_ffn(Tensor input, Tensor intermediate_weight, Tensor? intermediate_bias, Tensor output_weight, "
      "Tensor? output_bias, int[] groups, Tensor ln_weight, Tensor ln_bias, float eps) -> Tensor");
  library.def(
      "embedding_layer_norm(Tensor input_ids, Tensor? token_type_ids, Tensor? position_ids, Tensor word_embeddings, "
      "Tensor position_embeddings, Tensor token_type_embeddings, Tensor ln_weight, Tensor ln_bias, float eps) "
      "-> Tensor");
  library.def(
      "encoder_layer(Tensor input, Tensor[] params, int num_heads, int[] groups, float eps, Tensor? mask=None, "
      "Tensor? cu_seqlens=None) -> Tensor");
  library.def(
      "encoder(Tensor input, Tensor[] params, int num_heads, int[] groups, float eps, Tensor? mask=None, "
      "Tensor? cu_seqlens=None, bool first_token_only=False) -> Tensor");
  library.def(
      "encoder_layer_training(Tensor input, Tensor[] params, int num_heads, int[] groups, float eps, "
      "Tensor? mask, Tensor? cu_seqlens, float hidden_dropout, float attention_dropout, Tensor? seed, bool recompute) "
      "-> (Tensor output, Tensor saved)");
  library.def(
      "encoder_layer_training_backward(Tensor grad_output, Tensor saved, Tensor input, Tensor[] params, int num_heads, "
      "int[] groups, float eps, Tensor? mask, Tensor? cu_seqlens, float hidden_dropout, float attention_dropout, "
      "Tensor? seed, int[] needs_grad) -> Tensor[]");
}

STABLE_TORCH_LIBRARY_IMPL(squeezebert, CPU, library) {
  library.impl("pack_grouped_conv1x1", TORCH_BOX(&PackGroupedConv1x1));
  library.impl("pack_grouped_conv1d", TORCH_BOX(&PackGroupedConv1d));
  library.impl("quantize_weight", TORCH_BOX(&QuantizeWeight));
  library.impl("pack_quantized", TORCH_BOX(&PackQuantized));
  library.impl("unpack_quantized", TORCH_BOX(&UnpackQuantized));
  library.impl("unpack_grouped_conv1x1", TORCH_BOX(&UnpackGroupedConv1x1));
  library.impl("pack_encoder_layer", TORCH_BOX(&PackEncoderLayer));
  library.impl("repack_encoder_layer", TORCH_BOX(&RepackEncoderLayer));
  library.impl("unpack_encoder_layer", TORCH_BOX(&UnpackEncoderLayer));
  library.impl("grouped_conv1x1", TORCH_BOX(&GroupedConv1x1));
  library.impl("grouped_conv1x1_gelu", TORCH_BOX(&GroupedConv1x1Gelu));
  library.impl("grouped_conv1x1_add_layer_norm", TORCH_BOX(&GroupedConv1x1AddLayerNorm));
  library.impl("grouped_conv1d", TORCH_BOX(&GroupedConv1d));
  library.impl("attention", TORCH_BOX(&Attention));
  library.impl("grouped_qkv_attention", TORCH_BOX(&GroupedQkvAttention));
  library.impl("grouped_ffn", TORCH_BOX(&GroupedFfn));
  library.impl("embedding_layer_norm", TORCH_BOX(&EmbeddingLayerNorm));
  library.impl("encoder_layer", TORCH_BOX(&EncoderLayer));
  library.impl("encoder", TORCH_BOX(&Encoder));
  library.impl("encoder_layer_training", TORCH_BOX(&EncoderLayerTraining));
  library.impl("encoder_layer_training_backward", TORCH_BOX(&EncoderLayerTrainingBackward));
}

}  // namespace squeezebert::torch_ops
