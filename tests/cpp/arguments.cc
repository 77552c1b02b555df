// Arguments that cannot be meant: strides, masks, tables and addresses that no memory is laid out by.
#include <string>

#include "support.h"

namespace {

using namespace tests;

constexpr int64_t kChannels = 8, kTokens = 4;
constexpr squeezebert_status kInvalid = SQUEEZEBERT_INVALID_ARGUMENT;
const Offsets kOffsets = {0, kTokens};

void check_refused(squeezebert_status status, const std::string& text, int line) {
  if (status == kInvalid && squeezebert_last_error() == text) return;
  fprintf(stderr, "arguments.cc:%d: status %d\n  got:      %s\n  expected: %s\n", line, status,
          squeezebert_last_error(), text.c_str());
  ++check_failures;
}
#define REFUSED(call, text) check_refused(call, text, __LINE__)

squeezebert_status attend(float scale, const squeezebert_mask* mask) {
  const Floats x = random(kTokens * kChannels, 1);
  Floats y(x.size());
  const squeezebert_attention_shape shape = {sizeof(squeezebert_attention_shape),
                                             1,
                                             kOffsets.data(),
                                             kOffsets.data(),
                                             2,
                                             kChannels / 2,
                                             scale,
                                             SQUEEZEBERT_FLOAT32,
                                             SQUEEZEBERT_FLOAT32};
  return squeezebert_attention(Context(), &shape, x.data(), kChannels, x.data(), kChannels, x.data(), kChannels, mask,
                               y.data(), kChannels);
}

squeezebert_status encode(int32_t first_token_only, const squeezebert_mask* mask) {
  const int64_t groups[6] = {2, 2, 2, 1, 2, 2};
  EncoderLayer layer(kChannels, 16, groups, 1);
  layer.pack();
  const squeezebert_layer one = layer.get();
  const Floats x = random(kTokens * kChannels, 1);
  Floats y(x.size());
  const squeezebert_encoder_shape shape = {sizeof(squeezebert_encoder_shape), 1, kOffsets.data(), 2, first_token_only};
  return squeezebert_encoder(Context(), &shape, &one, 1, x.data(), kChannels, mask, y.data(), kChannels);
}

void test_scale() {
  OK(attend(-0.0f, nullptr));
  CHECK(attend(NAN, nullptr) == kInvalid);  // which C libraries print with or without a sign
  CHECK(strstr(squeezebert_last_error(), "scale: expected a finite number, got ") != nullptr);
  REFUSED(attend(INFINITY, nullptr), "scale: expected a finite number, got inf");
  REFUSED(attend(-INFINITY, nullptr), "scale: expected a finite number, got -inf");
  Conv conv(kChannels, kChannels, 2, 1);
  conv.pack();
  const squeezebert_linear layer = conv.linear();
  const squeezebert_attention_shape shape = {sizeof(squeezebert_attention_shape),
                                             1,
                                             kOffsets.data(),
                                             kOffsets.data(),
                                             2,
                                             kChannels / 2,
                                             INFINITY,
                                             SQUEEZEBERT_FLOAT32,
                                             SQUEEZEBERT_FLOAT32};
  const Floats x(kTokens * kChannels);
  Floats y(x.size());
  REFUSED(squeezebert_grouped_qkv_attention(Context(), &shape, x.data(), kChannels, &layer, &layer, &layer, nullptr,
                                            y.data(), kChannels),
          "scale: expected a finite number, got inf");
}

void test_mask() {
  const Floats data(2 * kTokens * kTokens);
  const auto refused = [&](int64_t sequence, int64_t head, int64_t query, const std::string& text) {
    const squeezebert_mask mask = {sizeof(squeezebert_mask), data.data(), sequence, head, query};
    REFUSED(attend(1.0f, &mask), text);
    REFUSED(encode(0, &mask), text);
  };
  const auto strides = [](const char* name, const char* got) {
    return "mask: expected a " + std::string(name) + " of 0 or at least the 4 keys of the longest sequence, got " + got;
  };
  refused(-16, 0, 4, strides("sequence_stride", "-16"));
  refused(0, -16, 4, strides("head_stride", "-16"));
  refused(0, 0, -4, strides("query_stride", "-4"));
  refused(0, 0, 1, strides("query_stride", "1"));
  refused(0, INT64_MIN, 4, strides("head_stride", "-9223372036854775808"));
  refused(0, INT64_MAX, 4, "mask: expected strides that fit into memory, got 0, 9223372036854775807 and 4");
  const squeezebert_mask good[] = {{sizeof(squeezebert_mask), data.data(), 0, 0, 0},
                                   {sizeof(squeezebert_mask), data.data(), 0, 16, 4},
                                   {sizeof(squeezebert_mask), data.data(), INT64_MAX, 4, 8}};
  for (const squeezebert_mask& mask : good) {
    OK(attend(1.0f, &mask));
    OK(encode(0, &mask));
  }
}

void test_first_token_only() {
  for (const int32_t value : {-7, -1, 2, INT32_MAX}) {
    REFUSED(encode(value, nullptr), "first_token_only: expected 0 or 1, got " + std::to_string(value));
  }
}

void test_embeddings() {
  const Floats table(4 * kChannels);
  const Norm norm(kChannels);
  const squeezebert_embeddings good = {
      sizeof(squeezebert_embeddings), table.data(), 4, table.data(), 4, table.data(), 2, kChannels, norm.get()};
  Floats y(kChannels);
  const int64_t id = 0;
  const auto run = [&](int64_t tokens, int64_t squeezebert_embeddings::* field, int64_t value, int64_t stride) {
    squeezebert_embeddings embeddings = good;
    embeddings.*field = value;
    return squeezebert_embedding_layer_norm(Context(), tokens, &id, nullptr, &id, &embeddings, y.data(), stride);
  };
  using Fields = squeezebert_embeddings;
  const std::string expected = "embeddings: expected at least one channel, word, position and token type, got ";
  for (const int64_t tokens : {0, 1}) {
    REFUSED(run(tokens, &Fields::vocabulary, -3, kChannels), expected + "8, -3, 4 and 2");
    REFUSED(run(tokens, &Fields::vocabulary, INT64_MIN, kChannels), expected + "8, -9223372036854775808, 4 and 2");
    REFUSED(run(tokens, &Fields::positions, 0, kChannels), expected + "8, 4, 0 and 2");
    REFUSED(run(tokens, &Fields::token_types, -1, kChannels), expected + "8, 4, 4 and -1");
    REFUSED(run(tokens, &Fields::channels, INT64_MAX, INT64_MAX),
            "word: expected rows that fit into memory, got a stride of 9223372036854775807");
    REFUSED(run(tokens, &Fields::vocabulary, INT64_MAX, kChannels),
            "word: expected rows that fit into memory, got a stride of 8");
  }
}

// A float, an id or an offset that lies across two.
void test_alignment() {
  const auto past = [](const char* name, int by, int of) {
    return std::string(name) + ": expected memory aligned to " + std::to_string(of) + " bytes, got an address " +
           std::to_string(by) + " past that";
  };
  const auto moved = [](auto* pointer, int bytes) {
    return reinterpret_cast<decltype(pointer)>(reinterpret_cast<uintptr_t>(pointer) + static_cast<uintptr_t>(bytes));
  };
  Conv conv(kChannels, kChannels, 2, 1);
  conv.pack();
  const squeezebert_linear layer = conv.linear();
  const Norm norm(kChannels);
  const squeezebert_layer_norm plain = norm.get();
  const Floats x(16 * kChannels);
  Floats y(x.size());
  const auto run = [&](int in, int out, int bias, int residual, int weight) {
    const squeezebert_linear own = {layer.packed, layer.packed_bytes, moved(layer.bias, bias)};
    const squeezebert_layer_norm after = {moved(plain.weight, weight), plain.bias, plain.epsilon};
    return squeezebert_grouped_conv1x1_add_layer_norm(Context(), kTokens, moved(x.data(), in), kChannels, &own,
                                                      moved(x.data(), residual), kChannels, &after,
                                                      moved(y.data(), out), kChannels);
  };
  OK(run(0, 0, 0, 0, 0));
  REFUSED(run(1, 0, 0, 0, 0), past("input", 1, 4));
  REFUSED(run(0, 2, 0, 0, 0), past("output", 2, 4));
  REFUSED(run(0, 0, 3, 0, 0), past("layer", 3, 4));
  REFUSED(run(0, 0, 0, 1, 0), past("residual", 1, 4));
  REFUSED(run(0, 0, 0, 0, 2), past("layer_norm", 2, 4));
  const squeezebert_mask mask = {sizeof(squeezebert_mask), moved(x.data(), 2), 0, 0, 0};
  REFUSED(attend(1.0f, &mask), past("mask", 2, 4));
  REFUSED(squeezebert_grouped_conv1d(Context(), 1, moved(kOffsets.data(), 2), x.data(), kChannels, &layer, y.data(),
                                     kChannels),
          past("cu_seqlens", 2, 4));
  const int64_t ids[2] = {};
  const squeezebert_embeddings tables = {
      sizeof(squeezebert_embeddings), x.data(), 4, x.data(), 4, x.data(), 2, kChannels, plain};
  REFUSED(squeezebert_embedding_layer_norm(Context(), 1, moved(ids, 4), nullptr, ids, &tables, y.data(), kChannels),
          past("input_ids", 4, 8));
  std::vector<unsigned char> packed(conv.packed);
  REFUSED(
      squeezebert_pack(&conv.shape, SQUEEZEBERT_FLOAT32, moved(conv.weight.data(), 1), packed.data(), packed.size()),
      past("weight", 1, 4));
}

}  // namespace

int main() {
  test_scale();
  test_mask();
  test_first_token_only();
  test_embeddings();
  test_alignment();
  return check_result();
}
