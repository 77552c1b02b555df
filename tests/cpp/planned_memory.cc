// No step writes past the working memory that was planned for it, where a call's parts are of different sizes: a part
// of fewer rows may be cut into larger blocks than the largest part is.
#include <errno.h>
#include <stdlib.h>

#include "support.h"

using namespace tests;

#if defined(__GLIBC__) && !defined(SQUEEZEBERT_SANITIZED)  // the address sanitizer looks for itself
namespace {
constexpr size_t kBehind = 1 << 22;
constexpr int kMark = 0xa5;
unsigned char* behind = nullptr;  // the last block of memory that was asked for
}  // namespace

// A context's memory comes from here; some bytes more lie behind it, which nobody is to write.
#pragma GCC visibility push(default)
extern "C" {
void* __libc_memalign(size_t alignment, size_t size);
int posix_memalign(void** memory, size_t alignment, size_t size) {
  *memory = __libc_memalign(alignment, size + kBehind);
  if (!*memory) return ENOMEM;
  behind = static_cast<unsigned char*>(*memory) + size;
  memset(behind, kMark, kBehind);
  return 0;
}
}
#pragma GCC visibility pop

static bool kept_within() {
  return std::all_of(behind, behind + kBehind, [](unsigned char byte) { return byte == kMark; });
}
#else
static bool kept_within() { return true; }
#endif

namespace {

// The last worker, whose memory is the last, does all of the work.
void encode(const EncoderLayer& layer, const Offsets& offsets, int32_t workers, bool first_token_only) {
  const int64_t channels = layer.query.shape.in_channels, tokens = offsets.back();
  const squeezebert_encoder_shape shape = {.struct_size = sizeof shape,
                                           .sequences = static_cast<int64_t>(offsets.size()) - 1,
                                           .cu_seqlens = offsets.data(),
                                           .heads = 1,
                                           .first_token_only = first_token_only};
  const squeezebert_layer layers[] = {layer.get()};
  const Floats input = random(tokens * channels, 1);
  Floats output(input.size());
  const Context context(workers, backwards);
  OK(squeezebert_encoder(context, &shape, layers, 1, input.data(), channels, nullptr, output.data(), channels));
  CHECK(kept_within());
}

// The rows of a task of the second region are cut into blocks again where a group's intermediate values are many.
// Beside 256 KiB to 4 MiB of L2 these are blocks of 21 to 340 rows, tasks of one row more and as many.
void test_blocks_of_intermediate_values() {
  EncoderLayer layer(2, 6144, {1, 1, 1, 1, 1, 1}, 3);
  layer.pack();
  for (const int32_t block : {21, 42, 85, 170, 340}) encode(layer, {0, 2 * block + 1}, 1, false);
}

// The first tokens' queries are fewer rows than the tokens, and may be one block where those are two. Their left side
// takes memory where the product prepares it.
void test_left_sides_of_first_tokens() {
  EncoderLayer layer(256, 32, {1, 1, 1, 1, 1, 1}, 3);
  for_each_kernels([&] {
    layer.pack();
    for (const int32_t block : {32, 64, 128, 256, 512}) {
      Offsets offsets = {0};
      for (int32_t s = 1; s < block; ++s) offsets.push_back(s);
      offsets.push_back(block + 1);
      encode(layer, offsets, 8, true);
    }
  });
}

}  // namespace

int main() {
  test_blocks_of_intermediate_values();
  test_left_sides_of_first_tokens();
  return check_result();
}
