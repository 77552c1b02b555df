// Every mistake that the C API knows: its status, its whole text (which argument, what was expected, what came), and
// that nothing was written.
#include <stdlib.h>

#include <climits>
#include <string>

#include "support.h"

namespace {

using namespace tests;

constexpr int64_t kTokens = 5, kChannels = 24, kWide = 48;
constexpr squeezebert_status kInvalid = SQUEEZEBERT_INVALID_ARGUMENT;

void check_refused(squeezebert_status got, squeezebert_status expected, const std::string& text, int line) {
  const std::string error = squeezebert_last_error();
  if (got == expected && error == text) return;
  fprintf(stderr, "errors.cc:%d: status %d, expected %d\n  got:      %s\n  expected: %s\n", line, got, expected,
          error.c_str(), text.c_str());
  ++check_failures;
}
#define REFUSED(call, status, text) check_refused(call, status, text, __LINE__)

Conv packed(int64_t out, int64_t in, int64_t groups, int64_t kernel_size = 1) {
  Conv conv(out, in, groups, 1, kernel_size);
  conv.pack();
  return conv;
}

std::string usable_isas() {
  std::string usable;
  for (int i = 0; const char* name = squeezebert_isa_name(i); ++i) usable += (i ? ", " : "") + std::string(name);
  return usable;
}

// The first number that is no format, and how it is refused.
squeezebert_format no_format() {
  int formats = 0;
  while (squeezebert_format_name(static_cast<squeezebert_format>(formats))) ++formats;
  return static_cast<squeezebert_format>(formats);
}
std::string expected_format(squeezebert_format got) {
  return "expected a squeezebert_format, 0 to " + std::to_string(no_format() - 1) + ", got " + std::to_string(got);
}

// The first test of the program, because the variable is read once. Everything that would run a kernel fails, until an
// ISA is forced.
void test_environment() {
  setenv("SQUEEZEBERT_FORCE_ISA", "sse9", 1);
  const std::string text =
      "SQUEEZEBERT_FORCE_ISA: expected an ISA that this CPU has (" + usable_isas() + "), got \"sse9\"";
  const squeezebert_conv_shape shape = {8, 8, 1, 1};
  const Floats x(64);
  Floats y(8);
  size_t bytes = 0;
  double gflops = 0.0;
  const char* name = "unchanged";
  const squeezebert_linear layer = {x.data(), 64, nullptr};
  const auto refused_everywhere = [&] {
    REFUSED(squeezebert_active_isa(&name), SQUEEZEBERT_UNSUPPORTED_ISA, text);
    CHECK(name == nullptr);
    REFUSED(squeezebert_measure_peak(SQUEEZEBERT_FLOAT32, 0.01, &gflops), SQUEEZEBERT_UNSUPPORTED_ISA, text);
    REFUSED(squeezebert_packed_size(&shape, SQUEEZEBERT_FLOAT32, &bytes), SQUEEZEBERT_UNSUPPORTED_ISA, text);
    REFUSED(squeezebert_pack(&shape, SQUEEZEBERT_FLOAT32, x.data(), y.data(), 32), SQUEEZEBERT_UNSUPPORTED_ISA, text);
    REFUSED(squeezebert_grouped_conv1x1(Context(), 1, x.data(), 8, &layer, y.data(), 8), SQUEEZEBERT_UNSUPPORTED_ISA,
            text);
  };
  refused_everywhere();
  OK(squeezebert_force_isa("scalar"));
  OK(squeezebert_packed_size(&shape, SQUEEZEBERT_FLOAT32, &bytes));
  REFUSED(squeezebert_force_isa(nullptr), SQUEEZEBERT_UNSUPPORTED_ISA, text);
  refused_everywhere();
  setenv("SQUEEZEBERT_FORCE_ISA", "scalar", 1);
  OK(squeezebert_force_isa(nullptr));
  OK(squeezebert_active_isa(&name));
  CHECK(strcmp(name, "scalar") == 0);
  unsetenv("SQUEEZEBERT_FORCE_ISA");
  OK(squeezebert_force_isa(nullptr));
  OK(squeezebert_active_isa(&name));
  CHECK(strcmp(name, squeezebert_isa_name(0)) == 0);
}

void test_isa() {
  const std::string usable = usable_isas();
  REFUSED(squeezebert_active_isa(nullptr), kInvalid, "name: expected where to put the name, got NULL");
  for (const std::string name : {"sse9", "", "AVX2", "scalar "}) {
    REFUSED(squeezebert_force_isa(name.c_str()), SQUEEZEBERT_UNSUPPORTED_ISA,
            "isa: expected an ISA that this CPU has (" + usable + "), got \"" + name + "\"");
  }
  double gflops = -1.0;
  REFUSED(squeezebert_measure_peak(SQUEEZEBERT_FLOAT32, 0.1, nullptr), kInvalid,
          "gflops: expected where to put the rate, got NULL");
  const squeezebert_format neither = no_format();
  const std::string formats = "format: " + expected_format(neither);
  CHECK(squeezebert_format_name(neither) == nullptr);
  REFUSED(squeezebert_measure_peak(neither, 0.01, &gflops), kInvalid, formats);
  const char* kernels = "unchanged";
  REFUSED(squeezebert_active_product(neither, &kernels), kInvalid, formats);
  CHECK(kernels == nullptr);
  REFUSED(squeezebert_active_product(SQUEEZEBERT_FLOAT16, nullptr), kInvalid,
          "name: expected where to put the name, got NULL");
  REFUSED(squeezebert_measure_peak(SQUEEZEBERT_FLOAT32, 0.0, &gflops), kInvalid,
          "seconds: expected more than 0 and at most 60, got 0");
  REFUSED(squeezebert_measure_peak(SQUEEZEBERT_FLOAT32, 61.0, &gflops), kInvalid,
          "seconds: expected more than 0 and at most 60, got 61");
  CHECK(squeezebert_measure_peak(SQUEEZEBERT_FLOAT32, NAN, &gflops) == kInvalid && gflops == -1.0);
}

void test_context() {
  squeezebert_context* context = nullptr;
  REFUSED(squeezebert_context_create(nullptr, nullptr, 1, nullptr), kInvalid,
          "context: expected where to put it, got NULL");
  REFUSED(squeezebert_context_create(nullptr, nullptr, 0, &context), kInvalid, "workers: expected 1 to 4096, got 0");
  REFUSED(squeezebert_context_create(nullptr, nullptr, -1, &context), kInvalid, "workers: expected 1 to 4096, got -1");
  REFUSED(squeezebert_context_create(nullptr, nullptr, 4097, &context), kInvalid,
          "workers: expected 1 to 4096, got 4097");
  CHECK(context == nullptr);
  REFUSED(squeezebert_context_set_workers(nullptr, 1), kInvalid, "context: expected a context, got NULL");
  const Context two(2);
  REFUSED(squeezebert_context_set_workers(two, INT_MIN), kInvalid, "workers: expected 1 to 4096, got -2147483648");
  CHECK(squeezebert_context_workers(two) == 2 && squeezebert_context_workers(nullptr) == 0);
  CHECK(squeezebert_context_memory(nullptr) == 0);
  squeezebert_context_release_memory(nullptr);
  squeezebert_context_destroy(nullptr);
}

void test_pack() {
  size_t bytes = 7;
  const auto refused = [&](squeezebert_conv_shape shape, const char* text) {
    REFUSED(squeezebert_packed_size(&shape, SQUEEZEBERT_FLOAT32, &bytes), kInvalid, text);
    CHECK(bytes == 7);
  };
  refused({0, 8, 1, 1}, "shape: expected 1 to 2^31 - 1 channels, got 8 in and 0 out");
  refused({8, -8, 1, 1}, "shape: expected 1 to 2^31 - 1 channels, got -8 in and 8 out");
  refused({8, int64_t{1} << 31, 1, 1}, "shape: expected 1 to 2^31 - 1 channels, got 2147483648 in and 8 out");
  refused({8, 8, 0, 1}, "groups: expected a divisor of 8 input and 8 output channels, got 0");
  refused({8, 8, 3, 1}, "groups: expected a divisor of 8 input and 8 output channels, got 3");
  refused({8, 12, 8, 1}, "groups: expected a divisor of 12 input and 8 output channels, got 8");
  refused({8, 8, INT64_MIN, 1},
          "groups: expected a divisor of 8 input and 8 output channels, got -9223372036854775808");
  refused({8, 8, 1, 2}, "kernel_size: expected an odd number, got 2");
  refused({8, 8, 1, -1}, "kernel_size: expected an odd number, got -1");
  refused({INT32_MAX, INT32_MAX, 1, 1}, "shape: the weight has more than 2^54 elements");
  const squeezebert_conv_shape shape = {8, 8, 1, 1};
  REFUSED(squeezebert_packed_size(&shape, no_format(), &bytes), kInvalid, "format: " + expected_format(no_format()));
  REFUSED(squeezebert_packed_size(nullptr, SQUEEZEBERT_FLOAT32, &bytes), kInvalid,
          "shape, bytes: expected both, got NULL");
  REFUSED(squeezebert_packed_size(&shape, SQUEEZEBERT_FLOAT32, nullptr), kInvalid,
          "shape, bytes: expected both, got NULL");
  OK(squeezebert_packed_size(&shape, SQUEEZEBERT_FLOAT32, &bytes));
  const Floats weight(64);
  std::vector<unsigned char> room(bytes);
  const std::string expected = "packed: expected room for " + std::to_string(bytes) + " bytes, got ";
  REFUSED(squeezebert_pack(&shape, SQUEEZEBERT_FLOAT32, nullptr, room.data(), bytes), kInvalid,
          "weight: expected a weight, got NULL");
  REFUSED(squeezebert_pack(&shape, SQUEEZEBERT_FLOAT32, weight.data(), room.data(), bytes - 1), kInvalid,
          expected + std::to_string(bytes - 1));
  REFUSED(squeezebert_pack(&shape, SQUEEZEBERT_FLOAT32, weight.data(), nullptr, bytes), kInvalid, expected + "0");
  CHECK(room == std::vector<unsigned char>(bytes));
  REFUSED(squeezebert_packed_shape(room.data(), bytes, nullptr, nullptr), kInvalid,
          "shape: expected where to put it, got NULL");
}

// What every operator checks, on the one that has least else.
void test_rows() {
  const Context context;
  const Conv conv = packed(kWide, kChannels, 4), wider = packed(kWide, kChannels, 4, 3);
  const squeezebert_linear layer = conv.linear(), wide_kernel = wider.linear();
  const Floats input(kTokens * kChannels);
  Floats output(kTokens * kWide, 7.0f);
  const auto run = [&](squeezebert_context* c, int64_t tokens, const float* x, int64_t x_stride,
                       const squeezebert_linear* l, float* y, int64_t y_stride) {
    return squeezebert_grouped_conv1x1(c, tokens, x, x_stride, l, y, y_stride);
  };
  float* const y = output.data();
  const float* const x = input.data();
  REFUSED(run(nullptr, kTokens, x, kChannels, &layer, y, kWide), kInvalid, "context: expected a context, got NULL");
  REFUSED(run(context, -1, x, kChannels, &layer, y, kWide), kInvalid, "tokens: expected 0 to 2^31 - 1, got -1");
  REFUSED(run(context, int64_t{1} << 31, x, kChannels, &layer, y, kWide), kInvalid,
          "tokens: expected 0 to 2^31 - 1, got 2147483648");
  REFUSED(run(context, kTokens, nullptr, kChannels, &layer, y, kWide), kInvalid, "input: expected 5 rows, got NULL");
  REFUSED(run(context, kTokens, x, kChannels, &layer, nullptr, kWide), kInvalid, "output: expected 5 rows, got NULL");
  REFUSED(run(context, kTokens, x, kChannels - 1, &layer, y, kWide), kInvalid,
          "input: expected a stride of at least its 24 channels, got 23");
  REFUSED(run(context, kTokens, x, kChannels, &layer, y, -kWide), kInvalid,
          "output: expected a stride of at least its 48 channels, got -48");
  REFUSED(run(context, kTokens, x, INT64_MAX / 2, &layer, y, kWide), kInvalid,
          "input: expected rows that fit into memory, got a stride of 4611686018427387903");
  REFUSED(run(context, kTokens, x, kChannels, nullptr, y, kWide), kInvalid, "layer: expected a layer, got NULL");
  const squeezebert_linear empty = {nullptr, 0, nullptr}, truncated = {layer.packed, layer.packed_bytes - 1, nullptr};
  REFUSED(run(context, kTokens, x, kChannels, &empty, y, kWide), kInvalid, "layer: expected a packed weight, got NULL");
  REFUSED(run(context, kTokens, x, kChannels, &truncated, y, kWide), SQUEEZEBERT_BAD_PACK,
          "layer: expected " + std::to_string(layer.packed_bytes) + " bytes of packed weight, got " +
              std::to_string(layer.packed_bytes - 1));
  REFUSED(run(context, kTokens, x, kChannels, &wide_kernel, y, kWide), SQUEEZEBERT_BAD_PACK,
          "layer: expected a weight of kernel_size 1, got 3");
  const squeezebert_linear tiny = {layer.packed, 63, nullptr};
  REFUSED(run(context, kTokens, x, kChannels, &tiny, y, kWide), SQUEEZEBERT_BAD_PACK,
          "layer: expected a packed weight, got 63 bytes, less than its header");
  const squeezebert_linear plain = {conv.weight.data(), 1000, nullptr};
  REFUSED(run(context, kTokens, x, kChannels, &plain, y, kWide), SQUEEZEBERT_BAD_PACK,
          "layer: expected a packed weight, got 1000 bytes that are not one");
  REFUSED(squeezebert_grouped_conv1x1_gelu(context, -1, x, kChannels, &layer, y, kWide), kInvalid,
          "tokens: expected 0 to 2^31 - 1, got -1");
  REFUSED(run(context, 1, x, 0, &layer, y, kWide), kInvalid,  // one row has a stride, too, and so have none
          "input: expected a stride of at least its 24 channels, got 0");
  REFUSED(run(context, 1, x, kChannels, &layer, y, INT64_MIN), kInvalid,
          "output: expected a stride of at least its 48 channels, got -9223372036854775808");
  REFUSED(run(context, 0, x, kChannels, &layer, y, INT64_MAX), kInvalid,
          "output: expected rows that fit into memory, got a stride of 9223372036854775807");
  CHECK(output == Floats(kTokens * kWide, 7.0f));
}

void test_add_layer_norm() {
  const Context context;
  const Conv conv = packed(kWide, kChannels, 4);
  const squeezebert_linear layer = conv.linear();
  const Floats input(kTokens * kChannels), residual(kTokens * kWide), ones(kWide, 1.0f);
  Floats output(kTokens * kWide, 7.0f);
  const auto run = [&](const float* r, int64_t r_stride, const squeezebert_layer_norm* norm) {
    return squeezebert_grouped_conv1x1_add_layer_norm(context, kTokens, input.data(), kChannels, &layer, r, r_stride,
                                                      norm, output.data(), kWide);
  };
  const squeezebert_layer_norm norm = {ones.data(), ones.data(), 1e-12f};
  REFUSED(run(nullptr, kWide, &norm), kInvalid, "residual: expected 5 rows, got NULL");
  REFUSED(run(residual.data(), kWide - 1, &norm), kInvalid,
          "residual: expected a stride of at least its 48 channels, got 47");
  const squeezebert_layer_norm no_weight = {nullptr, ones.data(), 0.0f}, no_bias = {ones.data(), nullptr, 0.0f};
  const squeezebert_layer_norm negative = {ones.data(), ones.data(), -1.0f};
  const squeezebert_layer_norm infinite = {ones.data(), ones.data(), INFINITY};
  const squeezebert_layer_norm nan = {ones.data(), ones.data(), NAN};
  for (const squeezebert_layer_norm* bad :
       {static_cast<const squeezebert_layer_norm*>(nullptr), &no_weight, &no_bias}) {
    REFUSED(run(residual.data(), kWide, bad), kInvalid, "layer_norm: expected a weight and a bias, got NULL");
  }
  REFUSED(run(residual.data(), kWide, &negative), kInvalid,
          "layer_norm: expected a finite epsilon of at least 0, got -1");
  REFUSED(run(residual.data(), kWide, &infinite), kInvalid,
          "layer_norm: expected a finite epsilon of at least 0, got inf");
  CHECK(run(residual.data(), kWide, &nan) == kInvalid);
  CHECK(output == Floats(kTokens * kWide, 7.0f));
}

void test_offsets() {
  const Context context;
  const Conv conv = packed(kChannels, kChannels, 4, 3);
  const squeezebert_linear layer = conv.linear();
  const Floats input(kTokens * kChannels);
  Floats output(kTokens * kChannels, 7.0f);
  const auto run = [&](int64_t sequences, const int32_t* offsets) {
    return squeezebert_grouped_conv1d(context, sequences, offsets, input.data(), kChannels, &layer, output.data(),
                                      kChannels);
  };
  const int32_t falling[] = {0, 3, 2, 5}, late[] = {1, 5}, negative[] = {0, -5};
  REFUSED(run(1, nullptr), kInvalid, "cu_seqlens: expected sequences + 1 offsets, got NULL");
  REFUSED(run(-1, falling), kInvalid, "sequences: expected 0 to 2^31 - 2, got -1");
  REFUSED(run(INT32_MAX, falling), kInvalid, "sequences: expected 0 to 2^31 - 2, got 2147483647");
  REFUSED(run(1, late), kInvalid, "cu_seqlens: expected the first offset to be 0, got 1");
  REFUSED(run(3, falling), kInvalid, "cu_seqlens: expected offsets that never decrease, got 2 after 3 at sequence 1");
  REFUSED(run(1, negative), kInvalid, "cu_seqlens: expected offsets that never decrease, got -5 after 0 at sequence 0");
  CHECK(output == Floats(kTokens * kChannels, 7.0f));
}

void test_attention() {
  const Context context;
  const Floats x(kTokens * kChannels);
  Floats output(kTokens * kChannels, 7.0f);
  const int32_t offsets[] = {0, 5}, shorter[] = {0, 4}, late[] = {2, 5};
  const auto run = [&](const squeezebert_attention_shape* shape, int64_t stride = kChannels,
                       const squeezebert_mask* mask = nullptr, const float* key = nullptr) {
    return squeezebert_attention(context, shape, x.data(), stride, key ? key : x.data(), kChannels, x.data(), kChannels,
                                 mask, output.data(), kChannels);
  };
  const squeezebert_attention_shape good = {
      sizeof(squeezebert_attention_shape), 1, offsets, offsets, 4, 6, 1.0f, SQUEEZEBERT_FLOAT32, SQUEEZEBERT_FLOAT32};
  const auto with = [&](auto squeezebert_attention_shape::* field, auto value) {
    squeezebert_attention_shape shape = good;
    shape.*field = value;
    return shape;
  };
  using Shape = squeezebert_attention_shape;
  const Shape late_queries = with(&Shape::query_offsets, late), late_keys = with(&Shape::key_offsets, late);
  const Shape no_heads = with(&Shape::heads, 0), no_size = with(&Shape::head_size, -6);
  const Shape huge = with(&Shape::heads, INT64_MAX);
  const Shape no_key_format = with(&Shape::key_format, no_format());
  const Shape no_value_format = with(&Shape::value_format, static_cast<squeezebert_format>(-1));
  REFUSED(run(nullptr), kInvalid, "shape: expected a struct, got NULL");
  REFUSED(run(&no_key_format), kInvalid, "key_format: " + expected_format(no_format()));
  REFUSED(run(&no_value_format), kInvalid, "value_format: " + expected_format(static_cast<squeezebert_format>(-1)));
  REFUSED(run(&late_queries), kInvalid, "query_offsets: expected the first offset to be 0, got 2");
  REFUSED(run(&late_keys), kInvalid, "key_offsets: expected the first offset to be 0, got 2");
  REFUSED(run(&no_heads), kInvalid, "heads: expected at least one head of at least one channel, got 0 heads of 6");
  REFUSED(run(&no_size), kInvalid, "heads: expected at least one head of at least one channel, got 4 heads of -6");
  REFUSED(run(&huge), kInvalid,
          "heads: expected at least one head of at least one channel, got 9223372036854775807 heads of 6");
  REFUSED(run(&good, 23), kInvalid, "query: expected a stride of at least its 24 channels, got 23");
  const squeezebert_mask empty = {sizeof(squeezebert_mask), nullptr, 0, 0, 0};
  REFUSED(run(&good, kChannels, &empty), kInvalid, "mask: expected its data, got NULL");
  REFUSED(squeezebert_attention(context, &good, x.data(), kChannels, nullptr, kChannels, x.data(), kChannels, nullptr,
                                output.data(), kChannels),
          kInvalid, "key: expected 5 rows, got NULL");
  REFUSED(squeezebert_attention(context, &good, x.data(), kChannels, x.data(), kChannels, x.data(), 2, nullptr,
                                output.data(), kChannels),
          kInvalid, "value: expected a stride of at least its 24 channels, got 2");

  const Conv square = packed(kChannels, kChannels, 4), narrow = packed(kChannels - 4, kChannels, 4),
             other = packed(kChannels, kWide, 4);
  const squeezebert_linear layer = square.linear(), few_out = narrow.linear(), many_in = other.linear();
  const auto project = [&](const squeezebert_attention_shape* shape, const squeezebert_linear* q,
                           const squeezebert_linear* k, const squeezebert_linear* v) {
    return squeezebert_grouped_qkv_attention(context, shape, x.data(), kChannels, q, k, v, nullptr, output.data(),
                                             kChannels);
  };
  const Shape fewer_queries = with(&Shape::query_offsets, shorter);
  REFUSED(project(nullptr, &layer, &layer, &layer), kInvalid, "shape: expected a struct, got NULL");
  REFUSED(project(&fewer_queries, &layer, &layer, &layer), kInvalid,
          "key_offsets: expected the same offsets as query_offsets, got others");
  REFUSED(project(&good, &few_out, &layer, &layer), SQUEEZEBERT_BAD_PACK,
          "query: expected a weight of 24 output channels, got 20");
  REFUSED(project(&good, &layer, &few_out, &layer), SQUEEZEBERT_BAD_PACK,
          "key: expected a weight of 24 output channels, got 20");
  REFUSED(project(&good, &layer, &layer, &many_in), SQUEEZEBERT_BAD_PACK,
          "value: expected a weight of 24 input channels, got 48");
  REFUSED(project(&good, &layer, &layer, nullptr), kInvalid, "value: expected a layer, got NULL");
  CHECK(output == Floats(kTokens * kChannels, 7.0f));
}

void test_ffn() {
  const Context context;
  const Conv widen = packed(kWide, kChannels, 4), narrow = packed(kChannels, kWide, 4), square = packed(24, 24, 4);
  const squeezebert_linear up = widen.linear(), down = narrow.linear(), same = square.linear();
  const Norm norm(kChannels);
  const squeezebert_layer_norm layer_norm = norm.get();
  const Floats x(kTokens * kChannels);
  Floats output(kTokens * kChannels, 7.0f);
  const auto run = [&](const squeezebert_linear* first, const squeezebert_linear* second,
                       const squeezebert_layer_norm* n) {
    return squeezebert_grouped_ffn(context, kTokens, x.data(), kChannels, first, second, n, output.data(), kChannels);
  };
  REFUSED(run(nullptr, &down, &layer_norm), kInvalid, "intermediate: expected a layer, got NULL");
  REFUSED(run(&up, nullptr, &layer_norm), kInvalid, "output_layer: expected a layer, got NULL");
  REFUSED(run(&up, &same, &layer_norm), SQUEEZEBERT_BAD_PACK,
          "output_layer: expected a weight of 48 input channels, got 24");
  REFUSED(run(&same, &up, &layer_norm), SQUEEZEBERT_BAD_PACK,
          "output_layer: expected a weight of 24 output channels, got 48");
  REFUSED(run(&up, &down, nullptr), kInvalid, "layer_norm: expected a weight and a bias, got NULL");
  CHECK(output == Floats(kTokens * kChannels, 7.0f));
}

void test_embedding() {
  const Context context;
  const Floats tables(10 * kChannels);
  const Norm norm(kChannels);
  Floats output(3 * kChannels, 7.0f);
  const squeezebert_embeddings good = {
      sizeof(squeezebert_embeddings), tables.data(), 10, tables.data(), 4, tables.data(), 2, kChannels, norm.get()};
  const auto run = [&](std::vector<int64_t> ids, std::vector<int64_t> types, std::vector<int64_t> positions,
                       const squeezebert_embeddings* embeddings) {
    return squeezebert_embedding_layer_norm(context, 3, ids.data(), types.data(), positions.data(), embeddings,
                                            output.data(), kChannels);
  };
  REFUSED(run({0, 1, 10}, {0, 0, 0}, {0, 1, 2}, &good), kInvalid, "input_ids: expected 0 to 9, got 10 at token 2");
  REFUSED(run({0, -1, 9}, {0, 0, 0}, {0, 1, 2}, &good), kInvalid, "input_ids: expected 0 to 9, got -1 at token 1");
  REFUSED(run({0, 1, 9}, {0, 0, 2}, {0, 1, 2}, &good), kInvalid, "token_type_ids: expected 0 to 1, got 2 at token 2");
  REFUSED(run({0, 1, 9}, {0, 0, 1}, {4, 1, 2}, &good), kInvalid, "position_ids: expected 0 to 3, got 4 at token 0");
  REFUSED(run({INT64_MIN, 1, 9}, {0, 0, 1}, {4, 1, 2}, &good), kInvalid,
          "input_ids: expected 0 to 9, got -9223372036854775808 at token 0");
  REFUSED(run({}, {}, {0, 1, 2}, &good), kInvalid, "input_ids: expected 3 of them, got NULL");
  REFUSED(run({0, 1, 2}, {}, {}, &good), kInvalid, "position_ids: expected 3 of them, got NULL");
  REFUSED(run({0, 1, 2}, {}, {0, 1, 2}, nullptr), kInvalid, "embeddings: expected a struct, got NULL");
  squeezebert_embeddings bad = good;
  bad.token_type = nullptr;
  REFUSED(run({0, 1, 2}, {}, {0, 1, 2}, &bad), kInvalid, "embeddings: expected three tables, got NULL");
  bad = good;
  bad.channels = 0;
  REFUSED(run({0, 1, 2}, {}, {0, 1, 2}, &bad), kInvalid,
          "embeddings: expected at least one channel, word, position and token type, got 0, 10, 4 and 2");
  bad = good;
  bad.layer_norm.epsilon = -1.0f;
  REFUSED(run({0, 1, 2}, {}, {0, 1, 2}, &bad), kInvalid, "layer_norm: expected a finite epsilon of at least 0, got -1");
  CHECK(output == Floats(3 * kChannels, 7.0f));
}

void test_encoder() {
  const Context context;
  const int64_t groups[6] = {4, 4, 4, 1, 4, 4};
  EncoderLayer layer(kChannels, kWide, groups, 1);
  layer.pack();
  const squeezebert_layer good = layer.get();
  const Floats x(kTokens * kChannels);
  Floats output(kTokens * kChannels, 7.0f);
  const int32_t offsets[] = {0, 2, 2, 5};
  const squeezebert_encoder_shape shape = {sizeof(squeezebert_encoder_shape), 3, offsets, 4, 0},
                                  odd_heads = {sizeof(squeezebert_encoder_shape), 3, offsets, 5, 0},
                                  first = {sizeof(squeezebert_encoder_shape), 3, offsets, 4, 1},
                                  no_heads = {sizeof(squeezebert_encoder_shape), 3, offsets, 0, 0},
                                  no_offsets = {sizeof(squeezebert_encoder_shape), 3, nullptr, 4, 0};
  const auto run = [&](const squeezebert_encoder_shape* s, const squeezebert_layer* layers, int64_t count) {
    return squeezebert_encoder(context, s, layers, count, x.data(), kChannels, nullptr, output.data(), kChannels);
  };
  REFUSED(run(nullptr, &good, 1), kInvalid, "shape: expected a struct, got NULL");
  REFUSED(run(&no_offsets, &good, 1), kInvalid, "cu_seqlens: expected sequences + 1 offsets, got NULL");
  REFUSED(run(&shape, nullptr, 1), kInvalid, "layers: expected 1 to 2^20 layers, got NULL");
  REFUSED(run(&shape, &good, 0), kInvalid, "layers: expected 1 to 2^20 layers, got 0");
  REFUSED(run(&shape, &good, -3), kInvalid, "layers: expected 1 to 2^20 layers, got -3");
  REFUSED(run(&shape, &good, INT64_MAX), kInvalid, "layers: expected 1 to 2^20 layers, got 9223372036854775807");
  REFUSED(run(&odd_heads, &good, 1), kInvalid, "heads: expected a divisor of 24 channels, got 5");
  REFUSED(run(&no_heads, &good, 1), kInvalid, "heads: expected a divisor of 24 channels, got 0");
  REFUSED(run(&first, &good, 1), kInvalid,
          "cu_seqlens: first_token_only expects a token in every sequence, got none in sequence 1");
  squeezebert_layer two[] = {good, good};
  const auto refused = [&](squeezebert_status status, const char* text) {
    REFUSED(run(&shape, two, 2), status, text);
    two[1] = good;
  };
  two[1].key = good.intermediate;
  refused(SQUEEZEBERT_BAD_PACK, "layer 1: key: expected a weight of 24 output channels, got 48");
  two[1].output = good.query;
  refused(SQUEEZEBERT_BAD_PACK, "layer 1: output: expected a weight of 48 input channels, got 24");
  two[1].post_attention.packed = nullptr;
  refused(kInvalid, "layer 1: post_attention: expected a packed weight, got NULL");
  two[1].post_attention_layer_norm.bias = nullptr;
  refused(kInvalid, "layer 1: post_attention_layer_norm: expected a weight and a bias, got NULL");
  two[1].output_layer_norm.epsilon = NAN;
  CHECK(run(&shape, two, 2) == kInvalid);
  CHECK(strstr(squeezebert_last_error(), "layer 1: output_layer_norm: expected a finite epsilon") != nullptr);
  two[0].query.packed_bytes = 3;
  REFUSED(run(&shape, two, 1), SQUEEZEBERT_BAD_PACK,
          "layer 0: query: expected a packed weight, got 3 bytes, less than its header");
  CHECK(output == Floats(kTokens * kChannels, 7.0f));
}

// More memory than there is: refused, and the context is as good as before.
void test_out_of_memory() {
#ifndef SQUEEZEBERT_SANITIZED  // which stop the program there
  const Context context;
  const Conv conv = packed(4, 4, 1);
  const squeezebert_linear layer = conv.linear();
  const int32_t queries[] = {0, 1}, keys[] = {0, INT32_MAX};
  const squeezebert_attention_shape shape = {sizeof(squeezebert_attention_shape),
                                             1,
                                             queries,
                                             keys,
                                             1,
                                             1 << 24,
                                             1.0f,
                                             SQUEEZEBERT_FLOAT32,
                                             SQUEEZEBERT_FLOAT32};
  const Floats x(4);
  Floats y(4);
  // Refused before a row is read, so that the rows need not exist.
  constexpr int64_t kWidth = 1 << 24;
  float *const nowhere = address(1 << 20), *const elsewhere = address(int64_t{1} << 40);
  CHECK(squeezebert_attention(context, &shape, elsewhere, kWidth, elsewhere, kWidth, elsewhere, kWidth, nullptr,
                              nowhere, kWidth) == SQUEEZEBERT_OUT_OF_MEMORY);
  CHECK(strstr(squeezebert_last_error(), "context: could not get ") != nullptr);
  CHECK(squeezebert_context_memory(context) == 0);
  OK(squeezebert_grouped_conv1x1(context, 1, x.data(), 4, &layer, y.data(), 4));
#endif
}

}  // namespace

int main() {
  test_environment();
  test_isa();
  test_context();
  test_pack();
  test_rows();
  test_add_layer_norm();
  test_offsets();
  test_attention();
  test_ffn();
  test_embedding();
  test_encoder();
  test_out_of_memory();
  return check_result();
}
