// Outputs that share memory with inputs: refused exactly where a float is in both, and where a function allows it,
// right.
#include <set>
#include <string>

#include "support.h"

namespace {

using namespace tests;

constexpr squeezebert_status kInvalid = SQUEEZEBERT_INVALID_ARGUMENT;

// Every way in which a few rows of 3 can lie beside a few rows of 2 in the same small memory.
void test_exact() {
  constexpr int64_t kIn = 3, kOut = 2;
  const Context context;
  Conv conv(kOut, kIn, 1, 1);
  conv.pack();
  const squeezebert_linear layer = conv.linear();
  Floats memory(64);
  const auto floats = [](int64_t begin, int64_t rows, int64_t channels, int64_t stride) {
    std::set<int64_t> all;
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t c = 0; c < channels; ++c) all.insert(begin + r * stride + c);
    return all;
  };
  int wrong = 0, refused = 0, accepted = 0;
  for (int64_t tokens = 0; tokens <= 4; ++tokens) {
    for (int64_t in_stride = kIn; in_stride <= 7; ++in_stride) {
      for (int64_t out_stride = kOut; out_stride <= 7; ++out_stride) {
        const std::set<int64_t> in = floats(30, tokens, kIn, in_stride);
        for (int64_t begin = 0; begin < 56 - 3 * out_stride; ++begin) {
          bool expected = false;
          for (const int64_t f : floats(begin, tokens, kOut, out_stride)) expected = expected || in.count(f) > 0;
          const squeezebert_status status = squeezebert_grouped_conv1x1(context, tokens, memory.data() + 30, in_stride,
                                                                        &layer, memory.data() + begin, out_stride);
          wrong += status != (expected ? kInvalid : SQUEEZEBERT_OK);
          ++(expected ? refused : accepted);
        }
      }
    }
  }
  CHECK(wrong == 0 && refused > 500 && accepted > 500);
}

// The same by way of the encoder's two numbers of rows: output's are fewer, at another stride.
void test_operators() {
  constexpr int64_t kChannels = 8, kTokens = 6;
  const int64_t groups[6] = {2, 2, 2, 1, 2, 2};
  const Context context;
  EncoderLayer layers(kChannels, 2 * kChannels, groups, 1);
  layers.pack();
  Conv taps(kChannels, kChannels, 2, 1, 3);
  taps.pack();
  const squeezebert_layer layer = layers.get();
  const squeezebert_linear wide = taps.linear(), &same = layer.query;
  const squeezebert_layer_norm norm = layer.output_layer_norm;
  const Offsets offsets = {0, 2, kTokens};
  const Floats values = random(kTokens * kChannels, 2);
  Floats x = values, other = values;
  const squeezebert_attention_shape shape = {sizeof(squeezebert_attention_shape),
                                             2,
                                             offsets.data(),
                                             offsets.data(),
                                             2,
                                             kChannels / 2,
                                             1.0f,
                                             SQUEEZEBERT_FLOAT32,
                                             SQUEEZEBERT_FLOAT32};
  const auto refused = [&](squeezebert_status status, const char* output, const char* input) {
    const std::string text =
        std::string(output) + ": expected memory that is not " + input + "'s, got rows that overlap";
    CHECK(status == kInvalid && squeezebert_last_error() == text);
    CHECK(x == values);
  };
  float* const y = x.data();
  const float *const in = x.data(), *const apart = other.data();
  refused(squeezebert_grouped_conv1x1(context, kTokens, in, kChannels, &same, y, kChannels), "output", "input");
  refused(squeezebert_grouped_conv1x1_gelu(context, kTokens, in, kChannels, &same, y, kChannels), "output", "input");
  refused(squeezebert_grouped_conv1x1_add_layer_norm(context, kTokens, apart, kChannels, &same, in, kChannels, &norm, y,
                                                     kChannels),
          "output", "residual");
  refused(squeezebert_grouped_conv1d(context, 2, offsets.data(), in, kChannels, &wide, y, kChannels), "output",
          "input");
  refused(
      squeezebert_attention(context, &shape, in, kChannels, apart, kChannels, apart, kChannels, nullptr, y, kChannels),
      "output", "query");
  refused(
      squeezebert_attention(context, &shape, apart, kChannels, apart, kChannels, in, kChannels, nullptr, y, kChannels),
      "output", "value");
  refused(squeezebert_grouped_qkv_attention(context, &shape, in, kChannels, &same, &same, &same, nullptr, y, kChannels),
          "output", "input");
  refused(
      squeezebert_grouped_ffn(context, kTokens, in, kChannels, &layer.intermediate, &layer.output, &norm, y, kChannels),
      "output", "input");
  const squeezebert_mask mask = {sizeof(squeezebert_mask), in, 0, 0, 4};
  refused(
      squeezebert_attention(context, &shape, apart, kChannels, apart, kChannels, apart, kChannels, &mask, y, kChannels),
      "output", "mask");
  std::vector<int64_t> ids(static_cast<size_t>(kTokens * kChannels));
  auto* const over_ids = reinterpret_cast<float*>(ids.data());
  const squeezebert_embeddings tables = {sizeof(squeezebert_embeddings), apart, 2, apart, 2, apart, 2, kChannels, norm};
  CHECK(squeezebert_embedding_layer_norm(context, kTokens, ids.data(), nullptr, ids.data(), &tables, over_ids,
                                         kChannels) == kInvalid);
  const squeezebert_embeddings own = {sizeof(squeezebert_embeddings), apart, 2, in, 2, apart, 2, kChannels, norm};
  refused(squeezebert_embedding_layer_norm(context, kTokens, ids.data(), nullptr, ids.data(), &own, y, kChannels),
          "output", "position");
}

// Weights, biases and layer norms are inputs as well: `at` is where in the output they lie, here its second row.
void test_parameters() {
  constexpr int64_t kChannels = 8, kTokens = 300;
  const Context context;
  EncoderLayer layers(kChannels, kChannels, {1, 1, 1, 1, 1, 1}, 1);
  layers.pack();
  const squeezebert_layer layer = layers.get();
  const Offsets offsets = {0, kTokens};
  const Floats input = random(kTokens * kChannels, 2);
  const std::vector<int64_t> ids(kTokens);
  Floats y(kTokens * kChannels);
  const float* const x = input.data();
  float* const at = y.data() + kChannels;
  memcpy(at, layer.query.packed, layer.query.packed_bytes);
  const squeezebert_linear biased = {layer.query.packed, layer.query.packed_bytes, at};
  const squeezebert_linear within = {at, layer.query.packed_bytes, nullptr};
  const squeezebert_layer_norm norm = {layer.output_layer_norm.weight, at, 0.0f};
  const auto refused = [&](squeezebert_status status, const std::string& input_name) {
    CHECK(status == kInvalid && squeezebert_last_error() ==
                                    "output: expected memory that is not " + input_name + "'s, got rows that overlap");
  };
  for (const squeezebert_linear& linear : {biased, within}) {
    refused(squeezebert_grouped_conv1x1(context, kTokens, x, kChannels, &linear, y.data(), kChannels), "layer");
    refused(squeezebert_grouped_conv1d(context, 1, offsets.data(), x, kChannels, &linear, y.data(), kChannels),
            "layer");
    refused(squeezebert_grouped_ffn(context, kTokens, x, kChannels, &layer.intermediate, &linear,
                                    &layer.output_layer_norm, y.data(), kChannels),
            "output_layer");
    squeezebert_attention_shape attention = SQUEEZEBERT_ATTENTION_SHAPE_INIT;
    attention.sequences = attention.heads = 1;
    attention.head_size = kChannels;
    attention.query_offsets = attention.key_offsets = offsets.data();
    refused(squeezebert_grouped_qkv_attention(context, &attention, x, kChannels, &layer.query, &linear, &layer.value,
                                              nullptr, y.data(), kChannels),
            "key");
    squeezebert_layer two[] = {layer, layer};
    two[1].post_attention = linear;
    const squeezebert_encoder_shape shape = {sizeof shape, 1, offsets.data(), 1, 0};
    refused(squeezebert_encoder(context, &shape, two, 2, x, kChannels, nullptr, y.data(), kChannels), "post_attention");
  }
  refused(squeezebert_grouped_conv1x1_add_layer_norm(context, kTokens, x, kChannels, &layer.query, x, kChannels, &norm,
                                                     y.data(), kChannels),
          "layer_norm");
  const squeezebert_embeddings tables = {sizeof tables, x, 2, x, 2, x, 2, kChannels, norm};
  refused(
      squeezebert_embedding_layer_norm(context, kTokens, ids.data(), nullptr, ids.data(), &tables, y.data(), kChannels),
      "layer_norm");
}

// A weight is not packed, or unpacked, where it lies.
void test_packing() {
  Conv conv(8, 8, 1, 1);
  conv.pack();
  Floats memory(conv.packed.size() / sizeof(float) + conv.weight.size());
  float* const last = memory.data() + conv.packed.size() / sizeof(float) - 1;
  CHECK(squeezebert_pack(&conv.shape, SQUEEZEBERT_FLOAT32, last, memory.data(), conv.packed.size()) == kInvalid);
  CHECK(std::string(squeezebert_last_error()).find("packed: expected memory that is not weight's") == 0);
  memcpy(memory.data(), conv.packed.data(), conv.packed.size());
  const size_t bytes = conv.weight.size() * sizeof(float);
  CHECK(squeezebert_unpack(memory.data(), conv.packed.size(), last, bytes) == kInvalid);
  CHECK(std::string(squeezebert_last_error()).find("weight: expected memory that is not packed's") == 0);
  OK(squeezebert_unpack(memory.data(), conv.packed.size(), last + 1, bytes));
  OK(squeezebert_pack(&conv.shape, SQUEEZEBERT_FLOAT32, last + 1, memory.data(), conv.packed.size()));
}

// The encoder may write over its input, row for row, and in no other way.
void test_encoder() {
  constexpr int64_t kChannels = 8, kTokens = 6, kStride = 10;
  const int64_t groups[6] = {2, 2, 2, 1, 2, 2};
  EncoderLayer layers(kChannels, 2 * kChannels, groups, 1);
  layers.pack();
  const squeezebert_layer layer = layers.get();
  const Offsets offsets = {0, 2, kTokens};
  const auto run = [&](int32_t first_token_only, const float* in, int64_t in_stride, float* out, int64_t out_stride) {
    const squeezebert_encoder_shape shape = {sizeof(squeezebert_encoder_shape), 2, offsets.data(), 2, first_token_only};
    return squeezebert_encoder(Context(2), &shape, &layer, 1, in, in_stride, nullptr, out, out_stride);
  };
  const Floats values = random(kTokens * kStride, 2);
  Floats x = values, expected = values;
  OK(run(0, values.data(), kStride, expected.data(), kStride));
  OK(run(0, x.data(), kStride, x.data(), kStride));
  CHECK(same_bits(x, expected));
  x = values;
  CHECK(run(0, x.data(), kStride, x.data(), kChannels) == kInvalid);
  CHECK(run(0, x.data(), kStride, x.data() + 1, kStride) == kInvalid);
  CHECK(run(1, x.data(), kStride, x.data(), kStride) == kInvalid);
  CHECK(run(1, x.data(), kStride, x.data() + 4 * kStride, kChannels) == kInvalid);
  CHECK(x == values);
}

}  // namespace

int main() {
  test_exact();
  test_operators();
  test_parameters();
  test_packing();
  test_encoder();
  return check_result();
}
