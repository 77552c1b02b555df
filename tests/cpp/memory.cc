// Working memory: within its bound at SqueezeBERT's size, no larger after a second call, given back when asked; and a
// call that has been made before allocates nothing.
#include <errno.h>
#include <stdlib.h>

#include <atomic>
#include <thread>

#include "support.h"

namespace {

using namespace tests;

constexpr int64_t kHidden = 768, kWide = 3072;
constexpr int64_t kSqueezeBert[6] = {4, 4, 4, 1, 4, 4}, kBert[6] = {1, 1, 1, 1, 1, 1};

}  // namespace

#if defined(__GLIBC__) && !defined(SQUEEZEBERT_SANITIZED)  // sanitizers bring an allocator of their own
#define COUNTS_ALLOCATIONS

static std::atomic<int64_t> allocations{0};

// Every allocation of this program and of the library goes through here first.
#pragma GCC visibility push(default)
extern "C" {
void* __libc_malloc(size_t size);
void* __libc_calloc(size_t count, size_t size);
void* __libc_realloc(void* memory, size_t size);
void* __libc_memalign(size_t alignment, size_t size);

void* malloc(size_t size) {
  ++allocations;
  return __libc_malloc(size);
}
void* calloc(size_t count, size_t size) {
  ++allocations;
  return __libc_calloc(count, size);
}
void* realloc(void* memory, size_t size) {
  ++allocations;
  return __libc_realloc(memory, size);
}
void* aligned_alloc(size_t alignment, size_t size) {
  ++allocations;
  return __libc_memalign(alignment, size);
}
void* memalign(size_t alignment, size_t size) {
  ++allocations;
  return __libc_memalign(alignment, size);
}
int posix_memalign(void** memory, size_t alignment, size_t size) {
  ++allocations;
  *memory = __libc_memalign(alignment, size);
  return *memory ? 0 : ENOMEM;
}
}
#pragma GCC visibility pop

#endif

namespace {

// A host that does no work, for memory is asked for before any is done.
void idle(void*, int32_t, void (*)(void*, int32_t), void*) {}

struct Model {
  std::vector<EncoderLayer> layers;
  std::vector<squeezebert_layer> get;
  Model(const int64_t (&groups)[6], int count, int64_t hidden, int64_t wide) {
    for (int l = 0; l < count; ++l) layers.emplace_back(hidden, wide, groups, static_cast<uint32_t>(l));
    for (EncoderLayer& layer : layers) {
      layer.pack();
      get.push_back(layer.get());
    }
  }
};

Offsets batch_of(int64_t sequences, int64_t length) {
  Offsets offsets = {0};
  for (int64_t s = 1; s <= sequences; ++s) offsets.push_back(static_cast<int32_t>(s * length));
  return offsets;
}

void encode(squeezebert_context* context, const Model& model, const Offsets& offsets, bool first_token_only,
            const Floats& input, Floats* output, squeezebert_status expected = SQUEEZEBERT_OK) {
  const int64_t hidden = model.layers[0].query.shape.in_channels;
  const squeezebert_encoder_shape shape = {sizeof(squeezebert_encoder_shape), static_cast<int64_t>(offsets.size()) - 1,
                                           offsets.data(), hidden / 64, first_token_only};
  CHECK(squeezebert_encoder(context, &shape, model.get.data(), static_cast<int64_t>(model.get.size()), input.data(),
                            hidden, nullptr, output->data(), hidden) == expected);
}

// The bound: 8 x tokens x 768 floats, and 4 MiB for every worker.
void test_bound() {
  // One worker is the calling thread, which cannot leave the work out: too much of it for an emulator or a sanitizer.
  double gflops = 0.0;
  OK(squeezebert_measure_peak(SQUEEZEBERT_FLOAT32, 0.01, &gflops));
#ifdef SQUEEZEBERT_SANITIZED
  gflops = 0.0;
#endif
  const int64_t most_tokens = gflops > 20.0 ? 1024 : 8;
  for (const auto* groups : {&kSqueezeBert, &kBert}) {
    Model model(*groups, 2, kHidden, kWide);
    for (const auto& [sequences, length] :
         {std::pair<int64_t, int64_t>{1, 8}, {1, 128}, {8, 128}, {1, 512}, {64, 16}}) {
      const int64_t tokens = sequences * length;
      const Floats input(static_cast<size_t>(tokens * kHidden), 0.5f);
      Floats output(input.size());
      for (const int32_t workers : {1, 2, 4, 16}) {
        if (workers == 1 && tokens > most_tokens) continue;
        for (const bool first_token_only : {false, true}) {
          const Context context(workers, idle);
          const squeezebert_status status = workers == 1 ? SQUEEZEBERT_OK : SQUEEZEBERT_HOST_ERROR;
          encode(context, model, batch_of(sequences, length), first_token_only, input, &output, status);
          const size_t held = squeezebert_context_memory(context);
          const auto bound = static_cast<size_t>(8 * tokens * kHidden * 4 + (int64_t{4} << 20) * workers);
          if (held > bound) {
            fprintf(stderr, "%d x %d tokens, %d workers, groups %d: %zu bytes, expected at most %zu\n",
                    static_cast<int>(sequences), static_cast<int>(length), workers, static_cast<int>((*groups)[0]),
                    held, bound);
          }
          CHECK(held > 0 && held <= bound);
          encode(context, model, batch_of(sequences, length), first_token_only, input, &output, status);
          CHECK(squeezebert_context_memory(context) == held);
        }
      }
    }
  }
}

// Memory follows the largest call, is used again by smaller ones, and is given back.
void test_growth() {
  Model model(kSqueezeBert, 1, kHidden, kWide);
  const Floats input(16 * kHidden, 0.5f);
  Floats output(input.size());
  const Context context;
  CHECK(squeezebert_context_memory(context) == 0);
  encode(context, model, {0, 4}, false, input, &output);
  const size_t small = squeezebert_context_memory(context);
  encode(context, model, {0, 16}, false, input, &output);
  const size_t large = squeezebert_context_memory(context);
  encode(context, model, {0, 4}, false, input, &output);
  CHECK(small < large && squeezebert_context_memory(context) == large);
  squeezebert_context_release_memory(context);
  CHECK(squeezebert_context_memory(context) == 0);
  encode(context, model, {0, 4}, false, input, &output);
  CHECK(squeezebert_context_memory(context) == small);
}

// Of all contexts at once, whoever's they are, but not what a call is using; and beside calls that go on.
void test_release_all() {
  Model model(kSqueezeBert, 1, kHidden, kWide);
  const Floats input(16 * kHidden, 0.5f);
  Floats expected(input.size());
  encode(Context(), model, {0, 16}, false, input, &expected);
  squeezebert_release_memory();
  CHECK(squeezebert_release_memory() == 0);

  const Context mine, other;
  const auto use = [&](squeezebert_context* context, int32_t tokens) {
    Floats output(input.size());
    encode(context, model, {0, tokens}, false, input, &output);
    if (tokens == 16) CHECK(same_bits(output, expected));
  };
  use(mine, 4);
  use(other, 8);
  const size_t held = squeezebert_context_memory(mine) + squeezebert_context_memory(other);
  CHECK(held > 0 && squeezebert_release_memory() == held);
  CHECK(squeezebert_context_memory(mine) == 0 && squeezebert_context_memory(other) == 0);

  const auto releasing = [](void*, int32_t workers, void (*body)(void*, int32_t), void* argument) {
    squeezebert_release_memory();
    forwards(nullptr, workers, body, argument);
  };
  const Context busy(3, releasing);
  use(mine, 4);
  use(busy, 16);
  CHECK(squeezebert_context_memory(mine) == 0 && squeezebert_context_memory(busy) > 0);

  std::atomic<bool> stop{false};
  std::thread beside([&] {
    while (!stop) squeezebert_release_memory();
  });
  for (int round = 0; round < 10; ++round) use(mine, 16);
  stop = true;
  beside.join();
}

// Every function, a second time, with one worker and with the pool's.
void test_steady_state() {
#ifdef COUNTS_ALLOCATIONS
  constexpr int64_t kChannels = 128, kTokens = 70;
  Model model(kSqueezeBert, 2, kChannels, 256);
  EncoderLayer& layer = model.layers[0];
  Conv taps(kChannels, kChannels, 4, 9, 3);
  taps.pack();
  const squeezebert_linear query = layer.query.linear(), up = layer.intermediate.linear(), down = layer.output.linear(),
                           wide_kernel = taps.linear();
  const squeezebert_layer_norm norm = layer.output_norm.get();
  const Offsets offsets = {0, 9, 9, 30, kTokens}, full = {0, 9, 30, kTokens};
  const squeezebert_attention_shape shape = {sizeof(squeezebert_attention_shape),
                                             4,
                                             offsets.data(),
                                             offsets.data(),
                                             2,
                                             64,
                                             0.125f,
                                             SQUEEZEBERT_FLOAT32,
                                             SQUEEZEBERT_FLOAT32};
  const Floats x = random(kTokens * kChannels, 1);
  const std::vector<int64_t> ids(kTokens, 3);
  const squeezebert_embeddings tables = {
      sizeof(squeezebert_embeddings), x.data(), 10, x.data(), 10, x.data(), 2, kChannels, norm};
  Floats y(kTokens * 256);
  for (const int32_t workers : {1, 3}) {
    const Context context(workers);
    const auto all = [&] {
      OK(squeezebert_grouped_conv1x1(context, kTokens, x.data(), kChannels, &query, y.data(), kChannels));
      OK(squeezebert_grouped_conv1x1_gelu(context, kTokens, x.data(), kChannels, &up, y.data(), 256));
      OK(squeezebert_grouped_conv1x1_add_layer_norm(context, kTokens, x.data(), kChannels, &query, x.data(), kChannels,
                                                    &norm, y.data(), kChannels));
      OK(squeezebert_grouped_conv1d(context, 4, offsets.data(), x.data(), kChannels, &wide_kernel, y.data(),
                                    kChannels));
      OK(squeezebert_attention(context, &shape, x.data(), kChannels, x.data(), kChannels, x.data(), kChannels, nullptr,
                               y.data(), kChannels));
      OK(squeezebert_grouped_qkv_attention(context, &shape, x.data(), kChannels, &query, &query, &query, nullptr,
                                           y.data(), kChannels));
      OK(squeezebert_grouped_ffn(context, kTokens, x.data(), kChannels, &up, &down, &norm, y.data(), kChannels));
      OK(squeezebert_embedding_layer_norm(context, kTokens, ids.data(), nullptr, ids.data(), &tables, y.data(),
                                          kChannels));
      encode(context, model, offsets, false, x, &y);
      encode(context, model, full, true, x, &y);
      CHECK(squeezebert_grouped_conv1x1(context, -1, x.data(), kChannels, &query, y.data(), kChannels) !=
            SQUEEZEBERT_OK);
    };
    all();
    const int64_t before = allocations;
    CHECK(before > 0);
    all();
    CHECK(allocations == before);
  }
#endif
}

}  // namespace

int main() {
  test_bound();
  test_growth();
  test_release_all();
  test_steady_state();
  return check_result();
}
