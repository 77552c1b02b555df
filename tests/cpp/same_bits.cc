// The same bits on every instruction set: outputs are equal between those that this machine has, and to the hashes that
// stand here, which are therefore true of every machine. Inputs are made of integers, by no library's random generator.
//
// A hash may change only together with SQUEEZEBERT_NUMERICS (CONTRIBUTING.md).
#include <array>

#include "support.h"

namespace {

using namespace tests;

static_assert(SQUEEZEBERT_NUMERICS == 1, "the hashes below are of this number");

uint64_t hash_of(const Floats& x) {  // FNV-1a
  uint64_t hash = 14695981039346656037u;
  for (const float value : x) {
    uint32_t bits = 0x7fc00000;  // any NaN: sign and payload are not promised
    if (value == value) memcpy(&bits, &value, sizeof bits);
    for (int byte = 0; byte < 4; ++byte) hash = (hash ^ (bits >> 8 * byte & 0xff)) * 1099511628211u;
  }
  return hash;
}

// By squeezebert_format.
using Hashes = std::array<uint64_t, 4>;

// Runs `compute` with every product but the one whose products are float16.
void check_hash(const char* what, const Hashes& hashes, const std::function<Floats()>& compute) {
  for_each_kernels([&] {
    if (multiplies_half() || multiplies_bfloat()) return;
    const uint64_t expected = hashes.at(g_format), got = hash_of(compute());
    CHECK(got == expected);
    if (got != expected) {
      fprintf(stderr, "%s: %s: 0x%016llx\n", what, squeezebert_format_name(g_format),
              static_cast<unsigned long long>(got));
    }
  });
}

// Every scale that floats have, both zeros, denormals.
Floats any_floats(int64_t count, uint32_t seed) {
  Floats values = random(count, seed);
  for (size_t i = 0; i < values.size(); ++i) values[i] = ldexpf(values[i], static_cast<int>(i % 7) * 24 - 140);
  for (size_t i = 0; i < values.size(); i += 11) values[i] = i % 2 ? -0.0f : 0.0f;
  return values;
}

void test_convolutions() {
  Conv conv(40, 36, 4, 2);
  check_hash("conv1x1", {0x4fb37f52c369620f, 0x244d88f954d97537, 0x0815c4bcc4ade20b, 0x4d6f21ea6a2acee0}, [&] {
    conv.pack();
    const squeezebert_linear layer = conv.linear();
    Floats all;
    for (const Floats& x : {random(17 * 36, 1), any_floats(17 * 36, 2)}) {
      Floats y(17 * 40);
      OK(squeezebert_grouped_conv1x1(Context(), 17, x.data(), 36, &layer, y.data(), 40));
      all.insert(all.end(), y.begin(), y.end());
      OK(squeezebert_grouped_conv1x1_gelu(Context(), 17, x.data(), 36, &layer, y.data(), 40));
      all.insert(all.end(), y.begin(), y.end());
    }
    return all;
  });
  Conv wide(24, 24, 3, 5, 5);
  const Offsets offsets = {0, 1, 1, 3, 14};
  const Floats x = random(14 * 24, 6);
  check_hash("conv1d", {0x98a90ae9ced4b19c, 0x3887f94ebd023ccb, 0x72414a95f878a850, 0x716ff237bdb827a2}, [&] {
    wide.pack();
    const squeezebert_linear layer = wide.linear();
    Floats y(14 * 24);
    OK(squeezebert_grouped_conv1d(Context(), 4, offsets.data(), x.data(), 24, &layer, y.data(), 24));
    return y;
  });
}

// GELU's own bits, from an identity: zeros of both signs, denormals, its bound at 8, infinities, NaN.
void test_gelu() {
  Conv identity(1, 1, 1, 1);
  identity.weight = {1.0f};
  identity.bias.clear();
  Floats x = any_floats(5000, 9);
  for (int i = -4000; i <= 4000; ++i) x.push_back(static_cast<float>(i) / 441.0f);
  for (const float special : {INFINITY, -INFINITY, NAN, 8.0f, -8.0f}) x.push_back(special);
  check_hash("gelu", {0x6a0f67ac286bcddc, 0x6a0f67ac286bcddc, 0x6a0f67ac286bcddc, 0xf72034d87994009c}, [&] {
    identity.pack();
    const squeezebert_linear layer = identity.linear();
    Floats y(x.size());
    OK(squeezebert_grouped_conv1x1_gelu(Context(), static_cast<int64_t>(x.size()), x.data(), 1, &layer, y.data(), 1));
    return y;
  });
}

// Every width up to two turns of the sum's 64 lanes and past it.
void test_layer_norm() {
  check_hash("embedding_layer_norm", {0xed56a958790be334, 0xed56a958790be334, 0xed56a958790be334, 0xed56a958790be334},
             [&] {
               Floats all;
               for (int64_t channels = 1; channels <= 150; ++channels) {
                 const Norm norm(channels);
                 const Floats word = random(3 * channels, 3), one = any_floats(channels, 4);
                 const squeezebert_embeddings tables = {.struct_size = sizeof(squeezebert_embeddings),
                                                        .word = word.data(),
                                                        .vocabulary = 3,
                                                        .position = one.data(),
                                                        .positions = 1,
                                                        .token_type = one.data(),
                                                        .token_types = 1,
                                                        .channels = channels,
                                                        .layer_norm = norm.get()};
                 const int64_t ids[] = {0, 1, 2}, zeros[] = {0, 0, 0};
                 Floats y(static_cast<size_t>(3 * channels));
                 OK(squeezebert_embedding_layer_norm(Context(), 3, ids, nullptr, zeros, &tables, y.data(), channels));
                 all.insert(all.end(), y.begin(), y.end());
               }
               return all;
             });
}

// Lengths from none to past the sum's lanes; without a mask, with one that hides keys, with one that hides all.
void test_attention() {
  const Offsets offsets = {0, 0, 1, 3, 16, 33, 100, 165, 294};
  constexpr int64_t kHeads = 2, kHeadSize = 20, kChannels = kHeads * kHeadSize, kLongest = 129;
  const Floats query = random(294 * kChannels, 1), key = random(294 * kChannels, 2), value = random(294 * kChannels, 3);
  Floats data(8 * kLongest);
  for (size_t i = 0; i < data.size(); ++i) data[i] = i % 5 == 0 ? -3.4028234664e38f : static_cast<float>(i % 7) - 3.0f;
  for (int j = 0; j < kLongest; ++j) data[static_cast<size_t>(6 * kLongest + j)] = -INFINITY;
  const squeezebert_mask mask = {sizeof(squeezebert_mask), data.data(), kLongest, 0, 0};
  for (const squeezebert_mask* given : {static_cast<const squeezebert_mask*>(nullptr), &mask}) {
    const Hashes unmasked = {0x1a31f0351cca9bf0, 0x4e96b9b161fffda0, 0xc2efcca798ec3e55, 0x0b59af40a79135cc},
                 masked = {0x7764d733b33fd986, 0xbd3b099a8adf2f0a, 0x312efd7f54363aca, 0x5ebac418ae666e3f};
    check_hash(given ? "attention, masked" : "attention", given ? masked : unmasked, [&] {
      const squeezebert_attention_shape shape = {.struct_size = sizeof(squeezebert_attention_shape),
                                                 .sequences = 8,
                                                 .query_offsets = offsets.data(),
                                                 .key_offsets = offsets.data(),
                                                 .heads = kHeads,
                                                 .head_size = kHeadSize,
                                                 .scale = 0.7f,
                                                 .key_format = g_format,
                                                 .value_format = g_format};
      Floats y(query.size());
      OK(squeezebert_attention(Context(), &shape, query.data(), kChannels, key.data(), kChannels, value.data(),
                               kChannels, given, y.data(), kChannels));
      return y;
    });
  }
}

// A whole encoder: odd sizes, groups that line up and groups that do not, all rows and first tokens.
void test_encoder() {
  const Offsets offsets = {0, 1, 10, 43, 108};
  constexpr int64_t kChannels = 72, kWide = 132;
  const int64_t all_groups[][6] = {{4, 4, 4, 1, 4, 4}, {2, 4, 1, 3, 4, 2}};
  const Floats x = random(offsets.back() * kChannels, 5);
  check_hash("encoder", {0xfdd0aa6b8ac061df, 0x9b5a8317206309d8, 0x51829b8d18d99d4f, 0xeec4f675fd896502}, [&] {
    Floats all;
    for (const auto& groups : all_groups) {
      EncoderLayer layers[] = {{kChannels, kWide, groups, 100}, {kChannels, kWide, groups, 200}};
      for (EncoderLayer& layer : layers) layer.pack();
      const squeezebert_layer both[] = {layers[0].get(), layers[1].get()};
      for (const int32_t first_only : {0, 1}) {
        const squeezebert_encoder_shape shape = {.struct_size = sizeof(squeezebert_encoder_shape),
                                                 .sequences = 4,
                                                 .cu_seqlens = offsets.data(),
                                                 .heads = 12,
                                                 .first_token_only = first_only};
        Floats y(static_cast<size_t>((first_only ? 4 : offsets.back()) * kChannels));
        OK(squeezebert_encoder(Context(), &shape, both, 2, x.data(), kChannels, nullptr, y.data(), kChannels));
        all.insert(all.end(), y.begin(), y.end());
      }
    }
    return all;
  });
}

}  // namespace

int main() {
  CHECK(squeezebert_numerics() == SQUEEZEBERT_NUMERICS);
  test_convolutions();
  test_gelu();
  test_layer_norm();
  test_attention();
  test_encoder();
  return check_result();
}
