// Layers whose weights are of several formats in any mixture: an encoder, and each block of it, has the bits of single
// operators run one after the other, each with the format of its own weight.
#include "support.h"

namespace {

using namespace tests;

// A quarter of the channels is more than one panel of float32_neon's and less than one of float16_neon_fp16's.
constexpr int64_t kChannels = 48, kWide = 52, kHeads = 4, kHeadSize = kChannels / kHeads;
constexpr int kMixtures = 1 << 6;

// Bit i says which of two formats the i-th weight has.
struct Mixture {
  int bits;
  squeezebert_format formats[2];

  squeezebert_format of(int i) const { return formats[bits >> i & 1]; }
};

// The layer's weights in the order of EncoderLayer. Keys and values are packed as the query's and the intermediate
// weight are, so that theirs differ too.
void pack(EncoderLayer& layer, const Mixture& mixture) {
  layer.key_format = mixture.of(0);
  layer.value_format = mixture.of(4);
  int i = 0;
  for (Conv* conv :
       {&layer.query, &layer.key, &layer.value, &layer.post_attention, &layer.intermediate, &layer.output}) {
    g_format = mixture.of(i++);
    conv->pack();
  }
  g_format = SQUEEZEBERT_FLOAT32;
}

Floats convolve(const Conv& conv, const Floats& x, bool gelu = false) {
  const squeezebert_linear layer = conv.linear();
  const int64_t in = conv.shape.in_channels, out = conv.shape.out_channels;
  const auto tokens = static_cast<int64_t>(x.size()) / in;
  Floats y(static_cast<size_t>(tokens * out));
  OK((gelu ? squeezebert_grouped_conv1x1_gelu : squeezebert_grouped_conv1x1)(Context(), tokens, x.data(), in, &layer,
                                                                             y.data(), out));
  return y;
}

Floats convolve_add_layer_norm(const Conv& conv, const Norm& norm, const Floats& x, const Floats& residual) {
  const squeezebert_linear layer = conv.linear();
  const squeezebert_layer_norm layer_norm = norm.get();
  const int64_t in = conv.shape.in_channels, out = conv.shape.out_channels;
  Floats y(residual.size());
  OK(squeezebert_grouped_conv1x1_add_layer_norm(Context(), static_cast<int64_t>(x.size()) / in, x.data(), in, &layer,
                                                residual.data(), out, &layer_norm, y.data(), out));
  return y;
}

squeezebert_attention_shape attention_shape(const Offsets& offsets, const Mixture& mixture) {
  return {sizeof(squeezebert_attention_shape),
          static_cast<int64_t>(offsets.size()) - 1,
          offsets.data(),
          offsets.data(),
          kHeads,
          kHeadSize,
          1.0f / sqrtf(static_cast<float>(kHeadSize)),
          mixture.of(0),
          mixture.of(4)};
}

// Step by step.
Floats attend(const EncoderLayer& layer, const Mixture& mixture, const Offsets& offsets, const Floats& x) {
  const Floats query = convolve(layer.query, x), key = convolve(layer.key, x), value = convolve(layer.value, x);
  const squeezebert_attention_shape shape = attention_shape(offsets, mixture);
  Floats y(x.size());
  OK(squeezebert_attention(Context(), &shape, query.data(), kChannels, key.data(), kChannels, value.data(), kChannels,
                           nullptr, y.data(), kChannels));
  return y;
}

Floats feed_forward(const EncoderLayer& layer, const Floats& x) {
  return convolve_add_layer_norm(layer.output, layer.output_norm, convolve(layer.intermediate, x, true), x);
}

Floats in_steps(const EncoderLayer& layer, const Mixture& mixture, const Offsets& offsets, const Floats& x) {
  const Floats context = attend(layer, mixture, offsets, x);
  return feed_forward(layer, convolve_add_layer_norm(layer.post_attention, layer.post_attention_norm, context, x));
}

void check_blocks(const EncoderLayer& layer, const Mixture& mixture, const Offsets& offsets, const Floats& x) {
  const squeezebert_attention_shape shape = attention_shape(offsets, mixture);
  const squeezebert_linear query = layer.query.linear(), key = layer.key.linear(), value = layer.value.linear(),
                           intermediate = layer.intermediate.linear(), output = layer.output.linear();
  const squeezebert_layer_norm norm = layer.output_norm.get();
  const auto tokens = static_cast<int64_t>(x.size()) / kChannels;
  for (const int32_t workers : {1, 3}) {
    Floats y(x.size());
    OK(squeezebert_grouped_qkv_attention(Context(workers), &shape, x.data(), kChannels, &query, &key, &value, nullptr,
                                         y.data(), kChannels));
    CHECK(same_bits(y, attend(layer, mixture, offsets, x)));
    OK(squeezebert_grouped_ffn(Context(workers), tokens, x.data(), kChannels, &intermediate, &output, &norm, y.data(),
                               kChannels));
    CHECK(same_bits(y, feed_forward(layer, x)));
  }
}

void check_encoder(const EncoderLayer (&layers)[2], const Offsets& offsets, const Floats& x, const Floats& expected) {
  const squeezebert_layer both[] = {layers[0].get(), layers[1].get()};
  const auto sequences = static_cast<int64_t>(offsets.size()) - 1;
  for (const int32_t first_only : {0, 1}) {
    Floats wanted = expected;
    if (first_only) {
      wanted.clear();
      for (int64_t s = 0; s < sequences; ++s) {
        const int64_t row = offsets[static_cast<size_t>(s)];
        const Floats first = slice(expected, row * kChannels, (row + 1) * kChannels);
        wanted.insert(wanted.end(), first.begin(), first.end());
      }
    }
    const squeezebert_encoder_shape shape = {sizeof(squeezebert_encoder_shape), sequences, offsets.data(), kHeads,
                                             first_only};
    const Floats got = on_every_host([&](auto* context) {
      Matrix y(first_only ? sequences : offsets.back(), kChannels, 1);
      OK(squeezebert_encoder(context, &shape, both, 2, x.data(), kChannels, nullptr, y.data(), y.stride()));
      CHECK(y.edges_intact());
      return y.values();
    });
    CHECK(same_bits(got, wanted));
  }
}

// Groups that line up, which run fused whatever the formats, and groups that do not. Sevens make every mixture of
// query, key and value, and every one of the other three. `one` is in both layers, where the other does not have it.
void test_mixtures(squeezebert_format one, squeezebert_format first_other, squeezebert_format second_other) {
  const Offsets offsets = {0, 1, 20, 27};
  const Floats x = random(27 * kChannels, 1);
  const int64_t all_groups[][6] = {{4, 4, 4, 1, 4, 4}, {2, 4, 1, 3, 4, 2}};
  for (const auto& groups : all_groups) {
    EncoderLayer layers[] = {{kChannels, kWide, groups, 100}, {kChannels, kWide, groups, 200}};
    for (int bits = 0; bits < kMixtures; bits += 7) {
      const Mixture first = {bits, {first_other, one}}, second = {kMixtures - 1 - bits, {second_other, one}};
      g_format = one;
      for_each_isa([&] {
        g_format = SQUEEZEBERT_FLOAT32;
        pack(layers[0], first);
        pack(layers[1], second);
        check_blocks(layers[0], first, offsets, x);
        const Floats middle = in_steps(layers[0], first, offsets, x);
        check_encoder(layers, offsets, x, in_steps(layers[1], second, offsets, middle));
        g_format = one;
      });
      g_format = SQUEEZEBERT_FLOAT32;
    }
  }
}

}  // namespace

int main() {
  test_mixtures(SQUEEZEBERT_FLOAT16, SQUEEZEBERT_FLOAT32, SQUEEZEBERT_FLOAT32);
  test_mixtures(SQUEEZEBERT_BFLOAT16, SQUEEZEBERT_FLOAT32, SQUEEZEBERT_FLOAT16);
  test_mixtures(SQUEEZEBERT_INT8, SQUEEZEBERT_FLOAT32, SQUEEZEBERT_BFLOAT16);
  return check_result();
}
