#include "python/operators.h"

#include <cmath>

#include "bindings/layout.h"
#include "python/context.h"

namespace squeezebert::python {
namespace {

/// Calls a function of the C API with this thread's context and without the GIL.
template <typename... Parameters, typename... Arguments>
void Run(squeezebert_status (*function)(squeezebert_context*, Parameters...), const Arguments&... arguments) {
  squeezebert_context* context = ThreadContext();
  squeezebert_status status;
  {
    const py::gil_scoped_release release;
    status = function(context, arguments...);
  }
  CheckStatus(status);
}

int64_t HeadSize(int64_t num_heads, int64_t channels) {
  if (num_heads < 1 || channels % num_heads != 0) {
    Fail("num_heads: expected a number that divides ", channels, " channels, got ", num_heads);
  }
  return channels / num_heads;
}

float ScaleOr(std::optional<float> scale, int64_t head_size) {
  return scale ? *scale : 1.0f / std::sqrt(static_cast<float>(head_size));
}

Mask SequenceMask(const OptionalArray& mask, const OptionalArray& cu_seqlens, const Sequences& sequences,
                  int64_t num_heads) {
  if (mask && cu_seqlens) Fail("mask: expected None with cu_seqlens (packed tokens hold no padding)");
  return AsMask(mask, sequences.count(), num_heads, sequences.longest(), sequences.longest());
}

using Conv1x1 = squeezebert_status(squeezebert_context*, int64_t, const float*, int64_t, const squeezebert_linear*,
                                   float*, int64_t);

Output RunConv1x1(Conv1x1* function, const py::array& input, const PackedWeight& weight, const OptionalArray& bias) {
  const Rows in = AsRows("input", input);
  const Linear layer = AsLinear("weight", weight, "bias", bias, in.channels);
  Output output = EmptyRows(input, layer.out_channels);
  Run(function, in.rows, in.data, in.stride, &layer.view, output.mutable_data(), layer.out_channels);
  return output;
}

/// One of the encoder's params, which are 16 per layer.
template <typename T>
T Param(const std::vector<py::object>& params, size_t index, const char* expected) {
  try {
    return params[index].cast<T>();
  } catch (const py::cast_error&) {
    Fail("params[", index, "]: expected ", expected, ", got ", std::string(py::str(py::type::of(params[index]))));
  }
}

std::string ParamName(size_t index) { return "params[" + std::to_string(index) + "]"; }

Linear LinearParam(const std::vector<py::object>& params, size_t index, int64_t in_channels) {
  const auto* weight = Param<const PackedWeight*>(params, index, "a PackedWeight");
  if (weight == nullptr) Fail(ParamName(index), ": expected a PackedWeight, got None");
  const auto bias = Param<OptionalArray>(params, index + 1, "an array or None");
  return AsLinear(ParamName(index), *weight, ParamName(index + 1), bias, in_channels);
}

LayerNorm LayerNormParam(const std::vector<py::object>& params, size_t index, int64_t channels, float eps) {
  const auto weight = Param<py::array>(params, index, "an array");
  const auto bias = Param<py::array>(params, index + 1, "an array");
  return AsLayerNorm(ParamName(index), weight, ParamName(index + 1), bias, channels, eps);
}

void CheckOut(const std::string& name, const Linear& linear, int64_t channels) {
  if (linear.out_channels != channels) {
    Fail(name, ": expected ", channels, " output channels, got ", linear.out_channels);
  }
}

/// The parameters of one encoder layer, held alive; 16 of params from `first` on.
struct Layer {
  static constexpr auto kParams = static_cast<size_t>(bindings::kTensorsPerLayer);

  Layer(const std::vector<py::object>& params, size_t first, int64_t channels, float eps)
      : query(LinearParam(params, first, channels)),
        key(LinearParam(params, first + 2, channels)),
        value(LinearParam(params, first + 4, channels)),
        post_attention(LinearParam(params, first + 6, value.out_channels)),
        post_attention_norm(LayerNormParam(params, first + 8, channels, eps)),
        intermediate(LinearParam(params, first + 10, channels)),
        output(LinearParam(params, first + 12, intermediate.out_channels)),
        output_norm(LayerNormParam(params, first + 14, channels, eps)) {
    CheckOut(ParamName(first), query, channels);
    CheckOut(ParamName(first + 2), key, channels);
    CheckOut(ParamName(first + 4), value, channels);
    CheckOut(ParamName(first + 6), post_attention, channels);
    CheckOut(ParamName(first + 12), output, channels);
  }

  squeezebert_layer View() const {
    return {.struct_size = sizeof(squeezebert_layer),
            .query = query.view,
            .key = key.view,
            .value = value.view,
            .post_attention = post_attention.view,
            .post_attention_layer_norm = post_attention_norm.view,
            .intermediate = intermediate.view,
            .output = output.view,
            .output_layer_norm = output_norm.view,
            .key_format = query.format,
            .value_format = query.format};
  }

  Linear query;
  Linear key;
  Linear value;
  Linear post_attention;
  LayerNorm post_attention_norm;
  Linear intermediate;
  Linear output;
  LayerNorm output_norm;
};

}  // namespace

Output GroupedConv1x1(const py::array& input, const PackedWeight& weight, const OptionalArray& bias) {
  return RunConv1x1(squeezebert_grouped_conv1x1, input, weight, bias);
}

Output GroupedConv1x1Gelu(const py::array& input, const PackedWeight& weight, const OptionalArray& bias) {
  return RunConv1x1(squeezebert_grouped_conv1x1_gelu, input, weight, bias);
}

Output GroupedConv1x1AddLayerNorm(const py::array& input, const PackedWeight& weight, const OptionalArray& bias,
                                  const py::array& residual, const py::array& ln_weight, const py::array& ln_bias,
                                  float eps) {
  const Rows in = AsRows("input", input);
  const Linear layer = AsLinear("weight", weight, "bias", bias, in.channels);
  const Rows added = AsRows("residual", residual, layer.out_channels);
  if (added.rows != in.rows) Fail("residual: expected ", in.rows, " rows as input has, got ", Describe(residual));
  const LayerNorm norm = AsLayerNorm("ln_weight", ln_weight, "ln_bias", ln_bias, layer.out_channels, eps);
  Output output = EmptyRows(input, layer.out_channels);
  Run(squeezebert_grouped_conv1x1_add_layer_norm, in.rows, in.data, in.stride, &layer.view, added.data, added.stride,
      &norm.view, output.mutable_data(), layer.out_channels);
  return output;
}

Output GroupedConv1d(const py::array& input, const PackedWeight& weight, const OptionalArray& bias,
                     const OptionalArray& cu_seqlens) {
  const Sequences in = AsSequences("input", input, cu_seqlens);
  const Linear layer = AsLinear("weight", weight, "bias", bias, in.rows.channels);
  Output output = EmptyRows(input, layer.out_channels);
  Run(squeezebert_grouped_conv1d, in.count(), in.offsets.data(), in.rows.data, in.rows.stride, &layer.view,
      output.mutable_data(), layer.out_channels);
  return output;
}

Output Attention(const py::array& query, const py::array& key, const py::array& value, int64_t num_heads,
                 const OptionalArray& mask, std::optional<float> scale, const std::string& dtype) {
  const squeezebert_format format = FormatNamed("dtype", dtype);
  const Sequences queries = AsSequences("query", query, std::nullopt);
  const Sequences keys = AsSequences("key", key, std::nullopt);
  const Sequences values = AsSequences("value", value, std::nullopt);
  const int64_t channels = queries.rows.channels;
  const int64_t head_size = HeadSize(num_heads, channels);
  if (keys.rows.channels != channels || keys.count() != queries.count() || key.ndim() != query.ndim()) {
    Fail("key: expected as many sequences and channels as query ", Describe(query), ", got ", Describe(key));
  }
  if (!value.attr("shape").equal(key.attr("shape"))) {
    Fail("value: expected the sizes of key ", Describe(key), ", got ", Describe(value));
  }
  const Mask additive = AsMask(mask, queries.count(), num_heads, queries.longest(), keys.longest());
  const squeezebert_attention_shape shape{.struct_size = sizeof(squeezebert_attention_shape),
                                          .sequences = queries.count(),
                                          .query_offsets = queries.offsets.data(),
                                          .key_offsets = keys.offsets.data(),
                                          .heads = num_heads,
                                          .head_size = head_size,
                                          .scale = ScaleOr(scale, head_size),
                                          .key_format = format,
                                          .value_format = format};
  Output output = EmptyRows(query, channels);
  Run(squeezebert_attention, &shape, queries.rows.data, queries.rows.stride, keys.rows.data, keys.rows.stride,
      values.rows.data, values.rows.stride, additive.get(), output.mutable_data(), channels);
  return output;
}

Output GroupedQkvAttention(const py::array& input, const PackedWeight& query_weight, const OptionalArray& query_bias,
                           const PackedWeight& key_weight, const OptionalArray& key_bias,
                           const PackedWeight& value_weight, const OptionalArray& value_bias, int64_t num_heads,
                           const OptionalArray& mask, const OptionalArray& cu_seqlens, std::optional<float> scale,
                           const std::optional<std::string>& attention_dtype) {
  const squeezebert_format format =
      attention_dtype ? FormatNamed("attention_dtype", *attention_dtype) : query_weight.format();
  const Sequences in = AsSequences("input", input, cu_seqlens);
  const Linear query = AsLinear("query_weight", query_weight, "query_bias", query_bias, in.rows.channels);
  const Linear key = AsLinear("key_weight", key_weight, "key_bias", key_bias, in.rows.channels);
  const Linear value = AsLinear("value_weight", value_weight, "value_bias", value_bias, in.rows.channels);
  CheckOut("key_weight", key, query.out_channels);
  CheckOut("value_weight", value, query.out_channels);
  const int64_t head_size = HeadSize(num_heads, query.out_channels);
  const Mask additive = SequenceMask(mask, cu_seqlens, in, num_heads);
  const squeezebert_attention_shape shape{.struct_size = sizeof(squeezebert_attention_shape),
                                          .sequences = in.count(),
                                          .query_offsets = in.offsets.data(),
                                          .key_offsets = in.offsets.data(),
                                          .heads = num_heads,
                                          .head_size = head_size,
                                          .scale = ScaleOr(scale, head_size),
                                          .key_format = format,
                                          .value_format = format};
  Output output = EmptyRows(input, query.out_channels);
  Run(squeezebert_grouped_qkv_attention, &shape, in.rows.data, in.rows.stride, &query.view, &key.view, &value.view,
      additive.get(), output.mutable_data(), query.out_channels);
  return output;
}

Output GroupedFfn(const py::array& input, const PackedWeight& intermediate_weight,
                  const OptionalArray& intermediate_bias, const PackedWeight& output_weight,
                  const OptionalArray& output_bias, const py::array& ln_weight, const py::array& ln_bias, float eps) {
  const Rows in = AsRows("input", input);
  const Linear intermediate =
      AsLinear("intermediate_weight", intermediate_weight, "intermediate_bias", intermediate_bias, in.channels);
  const Linear last = AsLinear("output_weight", output_weight, "output_bias", output_bias, intermediate.out_channels);
  CheckOut("output_weight", last, in.channels);
  const LayerNorm norm = AsLayerNorm("ln_weight", ln_weight, "ln_bias", ln_bias, in.channels, eps);
  Output output = EmptyRows(input, in.channels);
  Run(squeezebert_grouped_ffn, in.rows, in.data, in.stride, &intermediate.view, &last.view, &norm.view,
      output.mutable_data(), in.channels);
  return output;
}

Output EmbeddingLayerNorm(const py::array& input_ids, const OptionalArray& token_type_ids,
                          const OptionalArray& position_ids, const py::array& word_embeddings,
                          const py::array& position_embeddings, const py::array& token_type_embeddings,
                          const py::array& ln_weight, const py::array& ln_bias, float eps) {
  if (input_ids.ndim() < 1) Fail("input_ids: expected [..., S], got a scalar");
  const Table word = AsTable("word_embeddings", word_embeddings);
  const Table position = AsTable("position_embeddings", position_embeddings, word.channels);
  const Table token_type = AsTable("token_type_embeddings", token_type_embeddings, word.channels);
  const LayerNorm norm = AsLayerNorm("ln_weight", ln_weight, "ln_bias", ln_bias, word.channels, eps);
  const auto ids = AsIds("input_ids", input_ids, input_ids);
  const auto positions = AsIds("position_ids", position_ids ? *position_ids : PositionsOf(input_ids), input_ids);
  const auto types = token_type_ids ? AsIds("token_type_ids", *token_type_ids, input_ids) : py::array_t<int64_t>();
  const squeezebert_embeddings embeddings{sizeof(squeezebert_embeddings),
                                          word.data,
                                          word.rows,
                                          position.data,
                                          position.rows,
                                          token_type.data,
                                          token_type.rows,
                                          word.channels,
                                          norm.view};
  std::vector<py::ssize_t> sizes(input_ids.shape(), input_ids.shape() + input_ids.ndim());
  sizes.push_back(word.channels);
  Output output(sizes);
  Run(squeezebert_embedding_layer_norm, ids.size(), ids.data(), token_type_ids ? types.data() : nullptr,
      positions.data(), &embeddings, output.mutable_data(), word.channels);
  return output;
}

Output Encoder(const py::array& input, const std::vector<py::object>& params, int64_t num_heads, float eps,
               const OptionalArray& mask, const OptionalArray& cu_seqlens, bool first_token_only) {
  const Sequences in = AsSequences("input", input, cu_seqlens);
  const int64_t channels = in.rows.channels;
  HeadSize(num_heads, channels);
  if (params.empty() || params.size() % Layer::kParams != 0) {
    Fail("params: expected ", Layer::kParams, " for each of one or more layers, got ", params.size());
  }
  std::vector<Layer> owners;
  std::vector<squeezebert_layer> layers;
  for (size_t first = 0; first < params.size(); first += Layer::kParams) {
    layers.push_back(owners.emplace_back(params, first, channels, eps).View());
  }
  const Mask additive = SequenceMask(mask, cu_seqlens, in, num_heads);
  const squeezebert_encoder_shape shape{sizeof(squeezebert_encoder_shape), in.count(), in.offsets.data(), num_heads,
                                        first_token_only ? 1 : 0};
  Output output = first_token_only ? Output({in.count(), channels}) : EmptyRows(input, channels);
  Run(squeezebert_encoder, &shape, layers.data(), static_cast<int64_t>(layers.size()), in.rows.data, in.rows.stride,
      additive.get(), output.mutable_data(), channels);
  return output;
}

}  // namespace squeezebert::python
