// encoder_layer_training and its backward.
#include <torch/csrc/stable/ops.h>

#include "torch/context.h"
#include "torch/layers.h"
#include "torch/operators.h"

namespace squeezebert::torch_ops {
namespace {

using bindings::kTensorsPerLayer;

/// The arguments that both passes have, checked; the layer's weights packed for this call, transposed in the backward.
class Call {
 public:
  Call(const char* op, bool backward, const Tensor& input, const std::vector<Tensor>& params, int64_t num_heads,
       const std::vector<int64_t>& groups, double eps, const OptionalTensor& mask, const OptionalTensor& cu_seqlens,
       double hidden_dropout, double attention_dropout, const OptionalTensor& seed)
      : op_(op),
        sequences_(AsSequences({op, "input"}, input, cu_seqlens)),
        layers_(op, params, groups, eps, channels(), std::nullopt,
                backward ? LayerUse::kBackward : LayerUse::kTraining),
        inner_(params[10].size(0)) {
    CheckHeads(op, num_heads, channels());
    if (layers_.count() != 1) Fail({op, "params"}, "the 16 tensors of one layer", std::to_string(params.size()));
    mask_ = AsSelfMask(op, mask, cu_seqlens, input, sequences_.count(), num_heads);
    training_ = {.struct_size = sizeof(squeezebert_training),
                 .sequences = sequences_.count(),
                 .cu_seqlens = sequences_.offsets.data(),
                 .heads = num_heads,
                 .hidden_dropout = static_cast<float>(hidden_dropout),
                 .attention_dropout = static_cast<float>(attention_dropout),
                 .seed = 0};
    if (seed.has_value()) {
      CheckCpu({op, "seed"}, *seed, ScalarType::Long);
      if (seed->numel() != 1) Fail({op, "seed"}, "one element", Describe(*seed));
      training_.seed = static_cast<uint64_t>(*seed->const_data_ptr<int64_t>());
    } else if (hidden_dropout != 0.0 || attention_dropout != 0.0) {
      Fail({op, "seed"}, "a seed beside dropout", "None");
    }
  }

  int64_t channels() const { return sequences_.rows.channels; }

  int64_t SavedFloats() const {
    size_t floats = 0;
    CheckStatus(op_, squeezebert_training_saved_floats(sequences_.rows.rows, channels(), inner_, &floats));
    return static_cast<int64_t>(floats);
  }

  void Forward(Tensor& output, Tensor& saved) const {
    const Rows& rows = sequences_.rows;
    CheckStatus(
        op_, squeezebert_encoder_layer_training(ThreadContext(op_), &training_, layers_.data(), rows.data, rows.stride,
                                                mask_.get(), output.mutable_data_ptr<float>(), channels(),
                                                saved.mutable_data_ptr<float>(), static_cast<size_t>(saved.numel())));
  }

  void Backward(const Rows& grad_output, const Tensor& saved, const squeezebert_layer_gradients& gradients) const {
    const Rows& rows = sequences_.rows;
    CheckStatus(op_, squeezebert_encoder_layer_backward(ThreadContext(op_), &training_, layers_.data(), rows.data,
                                                        rows.stride, mask_.get(), saved.const_data_ptr<float>(),
                                                        static_cast<size_t>(saved.numel()), grad_output.data,
                                                        grad_output.stride, &gradients));
  }

 private:
  const char* op_;
  Sequences sequences_;
  Layers layers_;
  int64_t inner_;
  Mask mask_;
  squeezebert_training training_{};
};

}  // namespace

std::tuple<Tensor, Tensor> EncoderLayerTraining(const Tensor& input, const std::vector<Tensor>& params,
                                                int64_t num_heads, const std::vector<int64_t>& groups, double eps,
                                                const OptionalTensor& mask, const OptionalTensor& cu_seqlens,
                                                double hidden_dropout, double attention_dropout,
                                                const OptionalTensor& seed, bool recompute) {
  const Call call("encoder_layer_training", /*backward=*/false, input, params, num_heads, groups, eps, mask, cu_seqlens,
                  hidden_dropout, attention_dropout, seed);
  Tensor output = EmptyRows(input, call.channels());
  Tensor saved = torch::stable::new_empty(input, {call.SavedFloats()});
  call.Forward(output, saved);
  if (recompute) saved = torch::stable::new_empty(input, {0});
  return {output, saved};
}

std::vector<Tensor> EncoderLayerTrainingBackward(const Tensor& grad_output, const Tensor& saved, const Tensor& input,
                                                 const std::vector<Tensor>& params, int64_t num_heads,
                                                 const std::vector<int64_t>& groups, double eps,
                                                 const OptionalTensor& mask, const OptionalTensor& cu_seqlens,
                                                 double hidden_dropout, double attention_dropout,
                                                 const OptionalTensor& seed, const std::vector<int64_t>& needs_grad) {
  const char* op = "encoder_layer_training_backward";
  if (needs_grad.size() != kTensorsPerLayer + 1)
    Fail({op, "needs_grad"}, "17 numbers, for input and params", std::to_string(needs_grad.size()));
  const Call call(op, /*backward=*/true, input, params, num_heads, groups, eps, mask, cu_seqlens, hidden_dropout,
                  attention_dropout, seed);
  if (Sizes(grad_output) != Sizes(input))
    Fail({op, "grad_output"}, "the shape of input, " + Text(Sizes(input)), Describe(grad_output));
  const Rows grad_rows = AsRows({op, "grad_output"}, grad_output);
  CheckCpu({op, "saved"}, saved, ScalarType::Float);
  Tensor kept = saved;
  if (saved.numel() == 0 && call.SavedFloats() > 0) {
    kept = torch::stable::new_empty(input, {call.SavedFloats()});
    Tensor output = EmptyRows(input, call.channels());
    Call(op, /*backward=*/false, input, params, num_heads, groups, eps, mask, cu_seqlens, hidden_dropout,
         attention_dropout, seed)
        .Forward(output, kept);
  }

  std::vector<Tensor> wanted;
  const auto gradient = [&](int64_t index, const Tensor& like) -> float* {
    if (!needs_grad[index]) return nullptr;
    wanted.push_back(torch::stable::new_empty(like, Sizes(like)));
    return wanted.back().mutable_data_ptr<float>();
  };
  squeezebert_layer_gradients gradients = SQUEEZEBERT_LAYER_GRADIENTS_INIT;
  gradients.input = gradient(0, input);
  squeezebert_gradient* const in_order[kTensorsPerLayer / 2] = {&gradients.query,
                                                                &gradients.key,
                                                                &gradients.value,
                                                                &gradients.post_attention,
                                                                &gradients.post_attention_layer_norm,
                                                                &gradients.intermediate,
                                                                &gradients.output,
                                                                &gradients.output_layer_norm};
  for (int64_t i = 0; i < kTensorsPerLayer / 2; ++i)
    *in_order[i] = {gradient(2 * i + 1, params[2 * i]), gradient(2 * i + 2, params[2 * i + 1])};
  call.Backward(grad_rows, kept, gradients);
  return wanted;
}

}  // namespace squeezebert::torch_ops
