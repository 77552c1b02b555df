// Past 2^31 elements: rows and tables so far apart that 32-bit arithmetic would wrap, in memory that is reserved and
// never touched between them.
#include <sys/mman.h>

#include "support.h"

namespace {

using namespace tests;

constexpr int64_t kStride = (int64_t{1} << 31) + 7;  // floats

// Zeros, of which only the touched pages exist.
class Reserved {
 public:
  explicit Reserved(int64_t floats) : bytes_(static_cast<size_t>(floats) * sizeof(float)) {
    void* memory = mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    data_ = memory == MAP_FAILED ? nullptr : static_cast<float*>(memory);
  }
  ~Reserved() {
    if (data_) munmap(data_, bytes_);
  }
  Reserved(const Reserved&) = delete;
  Reserved& operator=(const Reserved&) = delete;

  float* data() const { return data_; }
  void put_rows(const Floats& rows, int64_t channels, int64_t stride) const {
    for (int64_t r = 0; r * channels < static_cast<int64_t>(rows.size()); ++r) {
      memcpy(data_ + r * stride, &rows[static_cast<size_t>(r * channels)],
             static_cast<size_t>(channels) * sizeof(float));
    }
  }
  Floats rows(int64_t count, int64_t channels, int64_t stride) const {
    Floats all;
    for (int64_t r = 0; r < count; ++r) all.insert(all.end(), data_ + r * stride, data_ + r * stride + channels);
    return all;
  }

 private:
  size_t bytes_;
  float* data_;
};

// An encoder layer, and grouped_conv1x1 in it: every matrix of the caller has its rows 8 GiB apart.
void test_strides(const Reserved& far_input, const Reserved& far_output) {
  constexpr int64_t kChannels = 24, kTokens = 3;
  const int64_t groups[6] = {4, 4, 4, 1, 4, 4};
  EncoderLayer layer(kChannels, 48, groups, 1);
  const Floats input = random(kTokens * kChannels, 2);
  const int32_t offsets[] = {0, 2, kTokens};
  const squeezebert_encoder_shape shape = {sizeof(squeezebert_encoder_shape), 2, offsets, 4, 0};
  far_input.put_rows(input, kChannels, kStride);
  for_each_isa([&] {
    layer.pack();
    const squeezebert_layer one = layer.get();
    for (const int32_t workers : {1, 2}) {
      Floats expected(kTokens * kChannels);
      const Context context(workers);
      OK(squeezebert_encoder(context, &shape, &one, 1, input.data(), kChannels, nullptr, expected.data(), kChannels));
      OK(squeezebert_encoder(context, &shape, &one, 1, far_input.data(), kStride, nullptr, far_output.data(), kStride));
      CHECK(same_bits(far_output.rows(kTokens, kChannels, kStride), expected));
      OK(squeezebert_grouped_conv1x1(context, kTokens, input.data(), kChannels, &one.query, expected.data(),
                                     kChannels));
      OK(squeezebert_grouped_conv1x1(context, kTokens, far_input.data(), kStride, &one.query, far_output.data(),
                                     kStride));
      CHECK(same_bits(far_output.rows(kTokens, kChannels, kStride), expected));
    }
  });
}

void test_mask(const Reserved& far_mask) {
  constexpr int64_t kQueries = 2, kKeys = 5;
  const Floats x = random(kKeys * 8, 3), near = random(kQueries * kKeys, 4);
  const int32_t queries[] = {0, kQueries}, keys[] = {0, kKeys};
  const squeezebert_attention_shape shape = {
      sizeof(squeezebert_attention_shape), 1, queries, keys, 2, 4, 0.5f, SQUEEZEBERT_FLOAT32, SQUEEZEBERT_FLOAT32};
  far_mask.put_rows(near, kKeys, kStride);
  for_each_isa([&] {
    Floats expected(kQueries * 8), got(kQueries * 8);
    const squeezebert_mask masks[] = {{sizeof(squeezebert_mask), near.data(), 0, 0, kKeys},
                                      {sizeof(squeezebert_mask), far_mask.data(), 0, 0, kStride}};
    for (int i = 0; i < 2; ++i) {
      OK(squeezebert_attention(Context(), &shape, x.data(), 8, x.data(), 8, x.data(), 8, &masks[i],
                               i ? got.data() : expected.data(), 8));
    }
    CHECK(same_bits(got, expected));
  });
}

// A vocabulary whose last row begins beyond 2^31 floats.
void test_table(const Reserved& words) {
  constexpr int64_t kChannels = 1024, kVocabulary = kStride / kChannels + 2;
  const Floats row = random(kChannels, 5), zeros(kChannels), ones(kChannels, 1.0f);
  memcpy(words.data() + (kVocabulary - 1) * kChannels, row.data(), row.size() * sizeof(float));
  const squeezebert_layer_norm norm = {ones.data(), zeros.data(), 1e-12f};
  const squeezebert_embeddings far = {
      sizeof(squeezebert_embeddings), words.data(), kVocabulary, zeros.data(), 1, zeros.data(), 1, kChannels, norm};
  const squeezebert_embeddings near = {
      sizeof(squeezebert_embeddings), row.data(), 1, zeros.data(), 1, zeros.data(), 1, kChannels, norm};
  const int64_t last = kVocabulary - 1, first = 0;
  for_each_isa([&] {
    Floats expected(kChannels), got(kChannels);
    OK(squeezebert_embedding_layer_norm(Context(), 1, &first, nullptr, &first, &near, expected.data(), kChannels));
    OK(squeezebert_embedding_layer_norm(Context(), 1, &last, nullptr, &first, &far, got.data(), kChannels));
    CHECK(same_bits(got, expected));
  });
}

}  // namespace

int main() {
  const Reserved one(3 * kStride), other(3 * kStride);
  if (!one.data() || !other.data()) {
    fprintf(stderr, "skipped: 48 GiB of addresses are not to be had here\n");
    return CHECK_SKIPPED;
  }
  test_strides(one, other);
  test_mask(one);
  test_table(other);
  return check_result();
}
