// pack_*, grouped_conv1x1, grouped_conv1x1_gelu, grouped_conv1x1_add_layer_norm, grouped_conv1d, grouped_ffn.
#include "torch/arguments.h"
#include "torch/context.h"
#include "torch/operators.h"

namespace squeezebert::torch_ops {
namespace {

LinearNames Names(const char* op) { return {{op, "weight"}, {op, "bias"}, {op, "groups"}}; }

using Conv1x1Function = decltype(&squeezebert_grouped_conv1x1);

Tensor RunConv1x1(const char* op, Conv1x1Function function, const Tensor& input, const Tensor& weight,
                  const OptionalTensor& bias, int64_t groups) {
  const Rows rows = AsRows({op, "input"}, input);
  const Linear layer = AsLinear(Names(op), weight, bias, groups, rows.channels, KernelSize::kOne);
  Tensor output = EmptyRows(input, layer.out_channels);
  if (rows.rows > 0) {
    CheckStatus(op, function(ThreadContext(op), rows.rows, rows.data, rows.stride, &layer.view,
                             output.mutable_data_ptr<float>(), layer.out_channels));
  }
  return output;
}

}  // namespace

Tensor PackGroupedConv1x1(const Tensor& weight, int64_t groups, OptionalDtype dtype) {
  return Pack("pack_grouped_conv1x1", weight, groups, KernelSize::kOne, dtype);
}

Tensor PackGroupedConv1d(const Tensor& weight, int64_t groups, OptionalDtype dtype) {
  return Pack("pack_grouped_conv1d", weight, groups, KernelSize::kAnyOdd, dtype);
}

Tensor GroupedConv1x1(const Tensor& input, const Tensor& weight, const OptionalTensor& bias, int64_t groups) {
  return RunConv1x1("grouped_conv1x1", squeezebert_grouped_conv1x1, input, weight, bias, groups);
}

Tensor GroupedConv1x1Gelu(const Tensor& input, const Tensor& weight, const OptionalTensor& bias, int64_t groups) {
  return RunConv1x1("grouped_conv1x1_gelu", squeezebert_grouped_conv1x1_gelu, input, weight, bias, groups);
}

Tensor GroupedConv1x1AddLayerNorm(const Tensor& input, const Tensor& weight, const OptionalTensor& bias, int64_t groups,
                                  const Tensor& residual, const Tensor& ln_weight, const Tensor& ln_bias, double eps) {
  const char* op = "grouped_conv1x1_add_layer_norm";
  const Rows rows = AsRows({op, "input"}, input);
  const Linear layer = AsLinear(Names(op), weight, bias, groups, rows.channels, KernelSize::kOne);
  Tensor output = EmptyRows(input, layer.out_channels);
  if (Sizes(residual) != Sizes(output))
    Fail({op, "residual"}, "the shape of the output, " + Text(Sizes(output)), Describe(residual));
  const Rows residual_rows = AsRows({op, "residual"}, residual);
  const LayerNorm layer_norm =
      AsLayerNorm({op, "ln_weight"}, ln_weight, {op, "ln_bias"}, ln_bias, AsEpsilon(op, eps), layer.out_channels);
  if (rows.rows > 0) {
    CheckStatus(op, squeezebert_grouped_conv1x1_add_layer_norm(
                        ThreadContext(op), rows.rows, rows.data, rows.stride, &layer.view, residual_rows.data,
                        residual_rows.stride, &layer_norm.view, output.mutable_data_ptr<float>(), layer.out_channels));
  }
  return output;
}

Tensor GroupedConv1d(const Tensor& input, const Tensor& weight, const OptionalTensor& bias, int64_t groups,
                     const OptionalTensor& cu_seqlens) {
  const char* op = "grouped_conv1d";
  const Sequences sequences = AsSequences({op, "input"}, input, cu_seqlens);
  const Rows& rows = sequences.rows;
  const Linear layer = AsLinear(Names(op), weight, bias, groups, rows.channels, KernelSize::kAnyOdd);
  Tensor output = EmptyRows(input, layer.out_channels);
  if (rows.rows > 0) {
    CheckStatus(
        op, squeezebert_grouped_conv1d(ThreadContext(op), sequences.count(), sequences.offsets.data(), rows.data,
                                       rows.stride, &layer.view, output.mutable_data_ptr<float>(), layer.out_channels));
  }
  return output;
}

Tensor GroupedFfn(const Tensor& input, const Tensor& intermediate_weight, const OptionalTensor& intermediate_bias,
                  const Tensor& output_weight, const OptionalTensor& output_bias, const std::vector<int64_t>& groups,
                  const Tensor& ln_weight, const Tensor& ln_bias, double eps) {
  const char* op = "grouped_ffn";
  const Rows rows = AsRows({op, "input"}, input);
  if (groups.size() != 2) Fail({op, "groups"}, "two group counts, [intermediate, output]", Text(groups));
  const Linear intermediate =
      AsLinear({{op, "intermediate_weight"}, {op, "intermediate_bias"}, {op, "groups[0]"}}, intermediate_weight,
               intermediate_bias, groups[0], rows.channels, KernelSize::kOne);
  const Linear last = AsLinear({{op, "output_weight"}, {op, "output_bias"}, {op, "groups[1]"}}, output_weight,
                               output_bias, groups[1], intermediate.out_channels, KernelSize::kOne);
  if (last.out_channels != rows.channels)
    Fail({op, "output_weight"}, std::to_string(rows.channels) + " output channels, as many as input has",
         std::to_string(last.out_channels));
  const LayerNorm layer_norm =
      AsLayerNorm({op, "ln_weight"}, ln_weight, {op, "ln_bias"}, ln_bias, AsEpsilon(op, eps), rows.channels);
  Tensor output = EmptyRows(input, rows.channels);
  if (rows.rows > 0) {
    CheckStatus(op,
                squeezebert_grouped_ffn(ThreadContext(op), rows.rows, rows.data, rows.stride, &intermediate.view,
                                        &last.view, &layer_norm.view, output.mutable_data_ptr<float>(), rows.channels));
  }
  return output;
}

}  // namespace squeezebert::torch_ops
