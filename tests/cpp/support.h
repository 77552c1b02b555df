// What the C++ tests of the C API share: numbers, matrices with watched edges, layers packed for the ISA in use, every
// ISA in turn and every kind of host.
#pragma once

#include <cstdint>
#include <cstring>
#include <functional>
#include <string>
#include <vector>

#include "check.h"

namespace tests {

using Floats = std::vector<float>;
using Offsets = std::vector<int32_t>;

#define OK(call)                                                                                                     \
  do {                                                                                                               \
    const squeezebert_status ok_status = (call);                                                                     \
    if (ok_status != SQUEEZEBERT_OK) {                                                                               \
      fprintf(stderr, "%s:%d: %s: status %d: %s\n", __FILE__, __LINE__, #call, ok_status, squeezebert_last_error()); \
      ++check_failures;                                                                                              \
    }                                                                                                                \
  } while (0)

// Numbers in [-1, 1) that are the same everywhere.
inline Floats random(int64_t count, uint32_t seed) {
  Floats values(static_cast<size_t>(count));
  for (float& value : values) {
    seed = seed * 1664525u + 1013904223u;
    value = static_cast<float>(seed >> 8) / static_cast<float>(1 << 23) - 1.0f;
  }
  return values;
}

// The same, divided by 2^127: nearly all are denormal.
inline Floats denormals(int64_t count, uint32_t seed) {
  Floats values = random(count, seed);
  for (float& value : values) value *= 0x1p-127f;
  return values;
}

// For rows that nobody may touch.
inline float* address(int64_t bytes) { return reinterpret_cast<float*>(static_cast<uintptr_t>(bytes)); }

inline Floats slice(const Floats& x, int64_t begin, int64_t end) { return Floats(x.data() + begin, x.data() + end); }

inline bool same_bits(const Floats& a, const Floats& b) {
  return a.size() == b.size() && (a.empty() || memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0);
}

// A matrix of rows `gap` floats apart, with more memory around it. What is not a row's holds one NaN: reading it spoils
// a result, writing it shows in edges_intact(). Sanitizers see more when the memory ends where the last row does.
class Matrix {
 public:
  Matrix(int64_t rows, int64_t channels, int64_t gap = 0)
      : rows_(rows), channels_(channels), stride_(channels + gap), memory_(size()) {
    for (float& value : memory_) memcpy(&value, &kEdge, sizeof value);
  }
  Matrix(const Floats& values, int64_t channels, int64_t gap = 0)
      : Matrix(static_cast<int64_t>(values.size()) / channels, channels, gap) {
    for (int64_t r = 0; r < rows_; ++r) {
      memcpy(data() + r * stride_, &values[static_cast<size_t>(r * channels)], static_cast<size_t>(channels) * 4);
    }
  }

  int64_t rows() const { return rows_; }
  int64_t stride() const { return stride_; }
  float* data() { return memory_.data() + kGuard; }
  const float* data() const { return memory_.data() + kGuard; }

  Floats values() const {
    Floats values;
    for (int64_t r = 0; r < rows_; ++r)
      values.insert(values.end(), data() + r * stride_, data() + r * stride_ + channels_);
    return values;
  }

  bool edges_intact() const {
    const auto last = static_cast<int64_t>(memory_.size()) - kGuard;
    for (int64_t i = -kGuard; i < last; ++i) {
      const bool in_row = i >= 0 && i % stride_ < channels_ && i / stride_ < rows_;
      if (!in_row && memcmp(data() + i, &kEdge, sizeof kEdge) != 0) return false;
    }
    return true;
  }

 private:
#ifdef SQUEEZEBERT_SANITIZED
  static constexpr int64_t kGuard = 0;
#else
  static constexpr int64_t kGuard = 64;
#endif
  static constexpr uint32_t kEdge = 0x7fc5a5a5;

  size_t size() const { return static_cast<size_t>(2 * kGuard + (rows_ > 0 ? (rows_ - 1) * stride_ + channels_ : 0)); }

  int64_t rows_, channels_, stride_;
  Floats memory_;
};

// What weights are packed as, and attention multiplies: for_each_kernels() sets it.
inline squeezebert_format g_format = SQUEEZEBERT_FLOAT32;

// A grouped convolution. Weights shrink with the number of terms, which keeps activations of order 1. pack() before
// use.
struct Conv {
  squeezebert_conv_shape shape;
  Floats weight, bias;
  std::vector<unsigned char> packed;

  Conv(int64_t out, int64_t in, int64_t groups, uint32_t seed, int64_t kernel_size = 1)
      : shape{out, in, groups, kernel_size},
        weight(random(out * (in / groups) * kernel_size, seed)),
        bias(random(out, seed + 1)) {
    for (float& w : weight) w /= sqrtf(static_cast<float>(in / groups * kernel_size) / 3.0f);
  }

  void pack() {
    size_t bytes = 0;
    OK(squeezebert_packed_size(&shape, g_format, &bytes));
    packed.assign(bytes, 0xff);
    OK(squeezebert_pack(&shape, g_format, weight.data(), packed.data(), bytes));
  }

  squeezebert_linear linear() const { return {packed.data(), packed.size(), bias.empty() ? nullptr : bias.data()}; }
};

struct Norm {
  Floats weight, bias;
  float epsilon = 1e-12f;
  explicit Norm(int64_t channels, uint32_t seed = 90)
      : weight(random(channels, seed)), bias(random(channels, seed + 1)) {}
  squeezebert_layer_norm get() const { return {weight.data(), bias.data(), epsilon}; }
};

// One encoder layer; groups in the order query, key, value, post_attention, intermediate, output.
struct EncoderLayer {
  Conv query, key, value, post_attention, intermediate, output;
  Norm post_attention_norm, output_norm;
  squeezebert_format key_format = SQUEEZEBERT_FLOAT32, value_format = SQUEEZEBERT_FLOAT32;  // pack() sets them

  EncoderLayer(int64_t channels, int64_t wide, const int64_t (&groups)[6], uint32_t seed)
      : query(channels, channels, groups[0], seed),
        key(channels, channels, groups[1], seed + 10),
        value(channels, channels, groups[2], seed + 20),
        post_attention(channels, channels, groups[3], seed + 30),
        intermediate(wide, channels, groups[4], seed + 40),
        output(channels, wide, groups[5], seed + 50),
        post_attention_norm(channels, seed + 60),
        output_norm(channels, seed + 70) {}

  void pack() {
    for (Conv* conv : {&query, &key, &value, &post_attention, &intermediate, &output}) conv->pack();
    key_format = value_format = g_format;
  }
  squeezebert_layer get() const {
    return {.struct_size = sizeof(squeezebert_layer),
            .query = query.linear(),
            .key = key.linear(),
            .value = value.linear(),
            .post_attention = post_attention.linear(),
            .post_attention_layer_norm = post_attention_norm.get(),
            .intermediate = intermediate.linear(),
            .output = output.linear(),
            .output_layer_norm = output_norm.get(),
            .key_format = key_format,
            .value_format = value_format};
  }
};

class Context {
 public:
  explicit Context(int32_t workers = 1, squeezebert_parallel_for parallel_for = nullptr) {
    OK(squeezebert_context_create(parallel_for, nullptr, workers, &handle_));
  }
  ~Context() { squeezebert_context_destroy(handle_); }
  Context(const Context&) = delete;
  Context& operator=(const Context&) = delete;
  operator squeezebert_context*() const { return handle_; }

 private:
  squeezebert_context* handle_ = nullptr;
};

inline void forwards(void*, int32_t workers, void (*body)(void*, int32_t), void* argument) {
  for (int32_t worker = 0; worker < workers; ++worker) body(argument, worker);
}
inline void backwards(void*, int32_t workers, void (*body)(void*, int32_t), void* argument) {
  for (int32_t worker = workers; worker-- > 0;) body(argument, worker);
}

// Sequences of 0, 1, 2, ... `longest` tokens, one after the other.
inline Offsets every_length(int32_t longest) {
  Offsets offsets = {0};
  for (int32_t length = 0; length <= longest; ++length) offsets.push_back(offsets.back() + length);
  return offsets;
}

// Runs `compute` with 1, 2, 3, 4 and 7 workers, on the library's threads and on hosts that run one part after the
// other: all must give the same bits. Returns them.
inline Floats on_every_host(const std::function<Floats(squeezebert_context*)>& compute) {
  const Floats expected = compute(Context());
  CHECK(same_bits(compute(Context(2)), expected));
  CHECK(same_bits(compute(Context(4)), expected));
  CHECK(same_bits(compute(Context(3, forwards)), expected));
  CHECK(same_bits(compute(Context(7, backwards)), expected));
  return expected;
}

// Forces the ISA of a product too: FORMAT_ISA or FORMAT_ISA_KIND is its name.
inline void force_product(const std::string& name) {
  const size_t end_of_format = name.find('_') + 1, end_of_isa = name.find('_', end_of_format);
  OK(squeezebert_force_isa(name.substr(end_of_format, end_of_isa - end_of_format).c_str()));
  OK(squeezebert_force_product(name.c_str()));
}

// Runs `body` with every product of g_format that this CPU has, on its ISA, and says with which a check failed.
inline void for_each_isa(const std::function<void()>& body) {
  const std::string format = std::string(squeezebert_format_name(g_format)) + "_";
  for (int i = 0; const char* name = squeezebert_product_name(i); ++i) {
    if (std::string(name).find(format) != 0) continue;
    const int before = check_failures;
    force_product(name);
    body();
    if (check_failures > before) fprintf(stderr, "(the above with %s)\n", name);
    OK(squeezebert_force_product(nullptr));
  }
  OK(squeezebert_force_isa(nullptr));
}

// The same for every format.
inline void for_each_kernels(const std::function<void()>& body) {
  for (int format = 0; squeezebert_format_name(static_cast<squeezebert_format>(format)); ++format) {
    g_format = static_cast<squeezebert_format>(format);
    for_each_isa(body);
  }
  g_format = SQUEEZEBERT_FLOAT32;
}

// Whether the product in use for g_format rounds what it multiplies to float16, and adds it up there.
inline bool multiplies_half() {
  const char* name = "";
  OK(squeezebert_active_product(g_format, &name));
  return strcmp(name, "float16_neon_fp16") == 0;
}

// The same of bfloat16, of which sums are float32.
inline bool multiplies_bfloat() {
  const char* name = "";
  OK(squeezebert_active_product(g_format, &name));
  return strcmp(name, "bfloat16_avx512_bf16") == 0 || strcmp(name, "bfloat16_neon_bfmmla") == 0;
}

}  // namespace tests
