// The `params` of an encoder: 16 tensors for each layer, or one packed layer each.
#pragma once

#include <vector>

#include "bindings/layout.h"
#include "torch/arguments.h"

namespace squeezebert::torch_ops {

/// What layers are wanted for: inference; the forward or the backward pass of training, in plain float32 weights, which
/// the latter wants transposed.
enum class LayerUse { kInference, kTraining, kBackward };

/// The checked tensors of all layers, which take and give `channels`, and the C API's view of them. groups, eps,
/// attention (the format of keys and values; none: that of the query weight): of each layer of 16 tensors; a packed
/// layer has its own.
class Layers {
 public:
  Layers(const char* op, const std::vector<Tensor>& params, const std::vector<int64_t>& groups, double eps,
         int64_t channels, std::optional<squeezebert_format> attention = std::nullopt,
         LayerUse use = LayerUse::kInference);

  const squeezebert_layer* data() const { return views_.data(); }
  int64_t count() const { return static_cast<int64_t>(views_.size()); }

 private:
  void AddPacked(int64_t index);
  void AddPlain(int64_t first, float epsilon, std::optional<squeezebert_format> attention);
  const Linear& AddLinear(int64_t first, int64_t slot, int64_t group, int64_t in_channels,
                          std::optional<int64_t> out_channels);
  const LayerNorm& AddLayerNorm(int64_t first, int64_t slot, float epsilon);

  const char* op_;
  const std::vector<Tensor>& params_;
  const std::vector<int64_t>& groups_;
  int64_t channels_;
  LayerUse use_;
  std::vector<Tensor> packed_;
  std::vector<Linear> linears_;
  std::vector<LayerNorm> layer_norms_;
  std::vector<squeezebert_layer> views_;
};

/// One of the 16 tensors of a layer, by name; of the first layer.
Argument ParamOf(const char* op, int64_t slot);

/// What a packed layer holds. `owner` keeps it alive.
struct PackedLayer {
  Tensor owner;
  squeezebert_layer view;
};
PackedLayer AsPackedLayer(const Argument& argument, const Tensor& tensor);

/// The channels that a layer's query takes, by its header.
int64_t ChannelsOf(const char* op, const squeezebert_layer& layer);

}  // namespace squeezebert::torch_ops
