// Sizes that no memory has: refused before anything is read, never wrapped; and work that is none, done at once.
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "engine/size.h"
#include "support.h"

namespace {

using namespace tests;

constexpr const char* kNoSuchMemory = "context: could not get more working memory than there are addresses";

void check_refused(squeezebert_status status, int line) {
  if (status == SQUEEZEBERT_OUT_OF_MEMORY && strcmp(squeezebert_last_error(), kNoSuchMemory) == 0) return;
  fprintf(stderr, "sizes.cc:%d: status %d: %s\n", line, status, squeezebert_last_error());
  ++check_failures;
}
#define REFUSED(call) check_refused(call, __LINE__)

// Addresses without memory, except that the first page of `shared` ones is there.
class Addresses {
 public:
  explicit Addresses(size_t bytes, bool shared = false) : bytes_(bytes) {
    const int flags = (shared ? MAP_SHARED : MAP_PRIVATE) | MAP_ANONYMOUS | MAP_NORESERVE;
    data_ = mmap(nullptr, bytes_, PROT_NONE, flags, -1, 0);
    if (data_ == MAP_FAILED) data_ = nullptr;
    if (data_ && shared)
      CHECK(mprotect(data_, static_cast<size_t>(sysconf(_SC_PAGESIZE)), PROT_READ | PROT_WRITE) == 0);
  }
  ~Addresses() {
    if (data_) munmap(data_, bytes_);
  }
  Addresses(const Addresses&) = delete;
  Addresses& operator=(const Addresses&) = delete;

  void* get() const { return data_; }
  float* floats() const { return static_cast<float*>(data_); }
  size_t bytes() const { return bytes_; }

 private:
  size_t bytes_;
  void* data_;
};

// The header of a pack whose panels are not there. A child packs into the memory; it ends where that does.
class HugeLayer {
 public:
  HugeLayer(int64_t out, int64_t in, int64_t groups) : shape_{out, in, groups, 1}, packed_(size(), true) {
    const Addresses weight(static_cast<size_t>(out * in / groups) * sizeof(float));
    CHECK(packed_.get() != nullptr && weight.get() != nullptr);
    CHECK(mprotect(weight.get(), weight.bytes(), PROT_READ) == 0);
    const pid_t child = fork();
    if (child == 0) {
      CHECK(freopen("/dev/null", "w", stderr) != nullptr);  // where emulators and sanitizers tell of the child's end
      squeezebert_pack(&shape_, SQUEEZEBERT_FLOAT32, weight.floats(), packed_.get(), packed_.bytes());
      _exit(0);
    }
    CHECK(child > 0 && waitpid(child, nullptr, 0) == child);
    squeezebert_conv_shape got{};
    OK(squeezebert_packed_shape(packed_.get(), packed_.bytes(), &got, nullptr));
    CHECK(got.out_channels == out && got.in_channels == in);
  }
  squeezebert_linear linear() const { return {packed_.get(), packed_.bytes(), nullptr}; }

 private:
  size_t size() const {
    size_t bytes = 0;
    OK(squeezebert_packed_size(&shape_, SQUEEZEBERT_FLOAT32, &bytes));
    return bytes;
  }

  squeezebert_conv_shape shape_;
  Addresses packed_;
};

void test_arithmetic() {
  using squeezebert::Size;
  static_assert((Size(3) * 4 + 5).count() == 17 && !(Size(3) * 4 + 5).too_large());
  static_assert(Size(17).rounded_up(16).count() == 32 && Size(16).rounded_up(16).count() == 16);
  constexpr Size kMost = INT64_MAX - 1;
  static_assert(!kMost.too_large() && (kMost + 1).too_large() && (kMost * 2).too_large());
  static_assert((Size(int64_t{1} << 32) * (int64_t{1} << 32)).too_large());  // 2^64, which would wrap to 0
  static_assert((kMost + 1 + 1).too_large() && ((kMost + 1) * 3 + kMost).too_large());
  static_assert(kMost.rounded_up(64).too_large() && (kMost + 1).rounded_up(64).too_large());
  static_assert(Size(SIZE_MAX).too_large() && Size(UINT64_MAX).too_large());
  static_assert(Size(5) < kMost && kMost < kMost * 2);
}

// Rows that do not exist, for none is read, behind all memory that does. 8 GiB and less, if the bytes of these were
// computed modulo 2^64.
void test_layers_and_rows() {
  constexpr int64_t kTokens = (int64_t{1} << 31) - 15, kWide = (int64_t{1} << 31) - 2, kProjected = int64_t{1} << 30;
  float *const input = address(int64_t{1} << 56), *const output = address(int64_t{1} << 55);
  const HugeLayer widen(kWide, 2, 1), narrow(2, kWide, 2), query(kProjected, 2, 1), key(kProjected, 2, 2);
  const squeezebert_linear up = widen.linear(), down = narrow.linear(), q = query.linear(), k = key.linear();
  Conv square(2, 2, 1, 1);
  square.pack();
  const Norm norm(2);
  const squeezebert_layer_norm layer_norm = norm.get();
  const squeezebert_linear same = square.linear();
  [[maybe_unused]] const squeezebert_layer layer = {
      sizeof(squeezebert_layer), same, same, same, same, layer_norm, up, down, layer_norm, SQUEEZEBERT_FLOAT32,
      SQUEEZEBERT_FLOAT32};
  const int32_t offsets[] = {0, kTokens};
  [[maybe_unused]] const squeezebert_encoder_shape shape = {sizeof(squeezebert_encoder_shape), 1, offsets, 1, 0};
  const squeezebert_attention_shape heads = {sizeof(squeezebert_attention_shape),
                                             1,
                                             offsets,
                                             offsets,
                                             1,
                                             kProjected,
                                             1.0f,
                                             SQUEEZEBERT_FLOAT32,
                                             SQUEEZEBERT_FLOAT32};
  for (const int32_t workers : {1, 4096}) {
    const Context context(workers);
    REFUSED(squeezebert_grouped_ffn(context, kTokens, input, 2, &up, &down, &layer_norm, output, 2));
    REFUSED(squeezebert_grouped_qkv_attention(context, &heads, output, 2, &q, &k, &q, nullptr, input, kProjected));
    CHECK(squeezebert_context_memory(context) == 0);
  }
#ifndef SQUEEZEBERT_SANITIZED  // which stop the program there
  // An encoder's second region goes by blocks of rows, whose memory is merely more than anybody has.
  CHECK(squeezebert_encoder(Context(4096), &shape, &layer, 1, input, 2, nullptr, output, 2) ==
        SQUEEZEBERT_OUT_OF_MEMORY);
#endif
}

void test_attention() {
  constexpr int32_t kKeys = 1 << 20, kHeadSize = INT32_MAX;
  float *const keys = address(int64_t{1} << 45), *const y = address(1 << 20);
  const int32_t query_offsets[] = {0, 1}, key_offsets[] = {0, kKeys};
  const squeezebert_attention_shape shape = {sizeof(squeezebert_attention_shape),
                                             1,
                                             query_offsets,
                                             key_offsets,
                                             1,
                                             kHeadSize,
                                             1.0f,
                                             SQUEEZEBERT_FLOAT32,
                                             SQUEEZEBERT_FLOAT32};
  const Context context(4096);
  REFUSED(
      squeezebert_attention(context, &shape, keys, kHeadSize, keys, kHeadSize, keys, kHeadSize, nullptr, y, kHeadSize));
}

// Two million million tasks, each of them nothing.
void test_empty_sequences() {
  const Offsets none(1001);
  Offsets last = none;
  last.back() = 1;
  const Floats x = {2.0f};
  Floats y = {7.0f};
  for (const int32_t workers : {1, 3}) {
    const Context context(workers);
    squeezebert_attention_shape shape = {sizeof(squeezebert_attention_shape),
                                         1000,
                                         none.data(),
                                         none.data(),
                                         INT32_MAX,
                                         1,
                                         1.0f,
                                         SQUEEZEBERT_FLOAT32,
                                         SQUEEZEBERT_FLOAT32};
    OK(squeezebert_attention(context, &shape, x.data(), INT32_MAX, x.data(), INT32_MAX, x.data(), INT32_MAX, nullptr,
                             y.data(), INT32_MAX));
    shape.key_offsets = last.data();  // keys without a query are not read
    OK(squeezebert_attention(context, &shape, x.data(), INT32_MAX, x.data(), INT32_MAX, x.data(), INT32_MAX, nullptr,
                             y.data(), INT32_MAX));
    CHECK(y[0] == 7.0f);
  }
}

// One row, and as far to the next as a stride can be: no address of that next row is computed, where sequences of no
// tokens follow either.
void test_one_row() {
  constexpr int64_t kFar = INT64_MAX / 4;
  const int32_t rows[] = {0, 0, 1, 1, 1}, none[] = {0, 0, 0, 0, 0};
  Conv conv(4, 4, 1, 1);
  const Floats x = random(4, 2);
  for_each_isa([&] {
    conv.pack();
    const squeezebert_linear layer = conv.linear();
    for (const int32_t workers : {1, 3}) {
      const Context context(workers);
      squeezebert_attention_shape shape = {
          sizeof(squeezebert_attention_shape), 4, rows, rows, 2, 2, 1.0f, SQUEEZEBERT_FLOAT32, SQUEEZEBERT_FLOAT32};
      Floats expected(4), got(4);
      const auto both = [&](auto run) {
        run(4, expected.data());
        run(kFar, got.data());
        CHECK(same_bits(got, expected));
      };
      both([&](int64_t stride, float* y) {
        OK(squeezebert_attention(context, &shape, x.data(), stride, x.data(), stride, x.data(), stride, nullptr, y,
                                 stride));
      });
      both([&](int64_t stride, float* y) {
        OK(squeezebert_grouped_qkv_attention(context, &shape, x.data(), stride, &layer, &layer, &layer, nullptr, y,
                                             stride));
      });
      both([&](int64_t stride, float* y) {
        OK(squeezebert_grouped_conv1d(context, 4, rows, x.data(), stride, &layer, y, stride));
      });
      shape.key_offsets = none;
      both([&](int64_t stride, float* y) {
        OK(squeezebert_attention(context, &shape, x.data(), stride, nullptr, stride, nullptr, stride, nullptr, y,
                                 stride));
      });
      CHECK(got == Floats(4));
    }
  });
}

}  // namespace

int main() {
  test_arithmetic();
  test_layers_and_rows();
  test_attention();
  test_empty_sequences();
  test_one_row();
  return check_result();
}
