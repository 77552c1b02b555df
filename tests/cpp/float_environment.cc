// Hosts that flush denormals to zero, or round upwards: the bits are those of the default environment, on the caller's
// thread, a host's and the pool's, whenever those were started; and everybody keeps their own.
#include <cfenv>
#include <thread>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "support.h"

namespace {

using namespace tests;

constexpr int64_t kTokens = 140, kChannels = 64;
constexpr int64_t kGroups[6] = {4, 4, 4, 1, 4, 4};

// What the thread computes in: MXCSR without the exceptions that have happened, or FPCR.
#if defined(__x86_64__)
constexpr uint64_t kFlush = 0x8040, kUpward = 0x4000, kTrap = 0x1000;  // trapping is a mask bit cleared
uint64_t environment() { return _mm_getcsr() & ~0x3fu; }
void set_environment(uint64_t value) { _mm_setcsr(static_cast<unsigned>(value)); }
uint64_t with(uint64_t bits) { return (0x1f80 | (bits & ~kTrap)) & ~(bits & kTrap); }
#elif defined(__aarch64__)
constexpr uint64_t kFlush = uint64_t{1} << 24, kUpward = uint64_t{1} << 22, kTrap = 0;  // few cores can trap
uint64_t environment() {
  uint64_t value;
  __asm__ volatile("mrs %0, fpcr" : "=r"(value));
  return value;
}
void set_environment(uint64_t value) { __asm__ volatile("msr fpcr, %0" : : "r"(value) : "memory"); }
uint64_t with(uint64_t bits) { return bits; }
#else
constexpr uint64_t kFlush = 0, kUpward = FE_UPWARD, kTrap = 0;
uint64_t environment() { return static_cast<uint64_t>(fegetround()); }
void set_environment(uint64_t value) { fesetround(static_cast<int>(value)); }
uint64_t with(uint64_t bits) { return bits; }
#endif

struct Work {
  EncoderLayer layer{kChannels, 96, kGroups, 1};
  Floats input = random(kTokens * kChannels, 2);
  Offsets offsets = {0, 3, 50, kTokens};
  std::vector<int64_t> ids = std::vector<int64_t>(kTokens, 1);

  Work() {
    const Floats small = denormals(kTokens * kChannels, 3);
    for (size_t i = 0; i < input.size(); i += 2) input[i] = small[i];
  }

  // Everything that computes, packing included, one after the other.
  Floats run(squeezebert_context* context) {
    layer.pack();
    const squeezebert_layer one = layer.get();
    const squeezebert_encoder_shape shape = {sizeof(squeezebert_encoder_shape), 3, offsets.data(), 4, 0};
    const squeezebert_embeddings tables = {
        sizeof(squeezebert_embeddings), input.data(), 2, input.data(), 2, input.data(), 2, kChannels,
        one.output_layer_norm};
    Floats all(static_cast<size_t>(4 * kTokens * kChannels));
    float* y = all.data();
    OK(squeezebert_grouped_conv1x1(context, kTokens, input.data(), kChannels, &one.query, y, kChannels));
    y += kTokens * kChannels;
    OK(squeezebert_grouped_ffn(context, kTokens, input.data(), kChannels, &one.intermediate, &one.output,
                               &one.output_layer_norm, y, kChannels));
    y += kTokens * kChannels;
    OK(squeezebert_encoder(context, &shape, &one, 1, input.data(), kChannels, nullptr, y, kChannels));
    y += kTokens * kChannels;
    OK(squeezebert_embedding_layer_norm(context, kTokens, ids.data(), nullptr, ids.data(), &tables, y, kChannels));
    return all;
  }
};

// The first test, whose pool is the first: its threads begin with the environment of here.
void test_pool_started_in(uint64_t own) {
  Work work;
  const uint64_t before = environment();
  set_environment(own);
  const Floats first = work.run(Context(8));
  CHECK(environment() == own);
  set_environment(before);
  CHECK(same_bits(work.run(Context(8)), first));
  CHECK(same_bits(work.run(Context(1)), first));
}

// A host's thread with an environment of its own.
void on_odd_threads(void*, int32_t workers, void (*body)(void*, int32_t), void* argument) {
  for (int32_t worker = 0; worker < workers; ++worker) {
    std::thread([&] {
      const uint64_t own = with(worker % 2 ? kFlush : kUpward);
      set_environment(own);
      body(argument, worker);
      CHECK(environment() == own);
    }).join();
  }
}

void test_every_environment() {
  Work work;
  const uint64_t before = environment();
  for_each_kernels([&] {
    const Floats expected = work.run(Context(1));
    for (const uint64_t own : {with(kFlush), with(kUpward), with(kFlush | kUpward), with(kTrap)}) {
      const Context one(1), pool(8), host(3, forwards), odd(3, on_odd_threads);
      for (squeezebert_context* context :
           {static_cast<squeezebert_context*>(one), static_cast<squeezebert_context*>(pool),
            static_cast<squeezebert_context*>(host), static_cast<squeezebert_context*>(odd)}) {
        set_environment(own);
        const Floats got = work.run(context);
        const uint64_t after = environment();
        set_environment(before);
        CHECK(after == own);
        CHECK(same_bits(got, expected));
      }
    }
  });
}

// Its sums are not exact, which must stop nobody.
void test_peak() {
  const uint64_t before = environment();
  set_environment(with(kTrap));
  double gflops = 0.0;
  const squeezebert_status status = squeezebert_measure_peak(SQUEEZEBERT_FLOAT32, 0.001, &gflops);
  const uint64_t after = environment();
  set_environment(before);
  OK(status);
  CHECK(after == with(kTrap));
}

}  // namespace

int main() {
  test_pool_started_in(with(kFlush | kUpward));
  test_every_environment();
  test_peak();
  return check_result();
}
