// Hosts whose parallel_for does not keep its promise, and contexts that are in use: told, not computed with.
#include <atomic>
#include <string>
#include <thread>

#include "support.h"

namespace {

using namespace tests;

constexpr int64_t kTokens = 300, kChannels = 16;

// Calls the workers whose numbers it holds.
struct Host {
  std::vector<int32_t> workers;
  static void run(void* host, int32_t, void (*body)(void*, int32_t), void* argument) {
    for (const int32_t worker : static_cast<Host*>(host)->workers) body(argument, worker);
  }
};

struct Work {
  Conv conv{kChannels, kChannels, 2, 1};
  Floats input = random(kTokens * kChannels, 2);
  Floats output = Floats(kTokens * kChannels);
  Work() { conv.pack(); }

  squeezebert_status run(squeezebert_context* context) {
    const squeezebert_linear layer = conv.linear();
    return squeezebert_grouped_conv1x1(context, kTokens, input.data(), kChannels, &layer, output.data(), kChannels);
  }
};

void test_workers_called() {
  Work work;
  OK(work.run(Context()));
  const Floats expected = work.output;
  const auto status_of = [&](std::vector<int32_t> workers) {
    Host host{std::move(workers)};
    squeezebert_context* context = nullptr;
    OK(squeezebert_context_create(Host::run, &host, 3, &context));
    std::fill(work.output.begin(), work.output.end(), 0.0f);
    const squeezebert_status status = work.run(context);
    if (status != SQUEEZEBERT_OK) {
      CHECK(strcmp(squeezebert_last_error(),
                   "parallel_for: expected one call of the body for every worker, got one left out, repeated or "
                   "unknown") == 0);
      host.workers = {1, 0, 2};  // the context is as good as before
      OK(work.run(context));
    }
    CHECK(same_bits(work.output, expected));
    squeezebert_context_destroy(context);
    return status;
  };
  CHECK(status_of({0, 1, 2}) == SQUEEZEBERT_OK);
  CHECK(status_of({2, 0, 1}) == SQUEEZEBERT_OK);
  const std::vector<int32_t> wrong[] = {{},        {0},          {0, 1},       {1, 2},        {0, 0, 1},
                                        {2, 2, 2}, {0, 1, 2, 0}, {0, 1, 2, 3}, {0, 1, 2, -1}, {0, 1, INT32_MAX}};
  for (const std::vector<int32_t>& workers : wrong) CHECK(status_of(workers) == SQUEEZEBERT_HOST_ERROR);
}

// Every operator tells, whichever of its steps was left out.
void test_operators() {
  const int64_t groups[6] = {2, 2, 2, 1, 2, 2};
  EncoderLayer layers(kChannels, 2 * kChannels, groups, 1);
  layers.pack();
  Conv taps(kChannels, kChannels, 2, 1, 3);
  taps.pack();
  const squeezebert_layer layer = layers.get();
  const squeezebert_linear wide = taps.linear(), &same = layer.query;
  const squeezebert_layer_norm norm = layer.output_layer_norm;
  const Offsets offsets = {0, 100, kTokens};
  const Floats x = random(kTokens * kChannels, 2);
  Floats y(x.size());
  const std::vector<int64_t> ids(kTokens);
  const squeezebert_attention_shape shape = {sizeof(squeezebert_attention_shape),
                                             2,
                                             offsets.data(),
                                             offsets.data(),
                                             2,
                                             kChannels / 2,
                                             1.0f,
                                             SQUEEZEBERT_FLOAT32,
                                             SQUEEZEBERT_FLOAT32};
  const squeezebert_encoder_shape encoder = {sizeof(squeezebert_encoder_shape), 2, offsets.data(), 2, 0};
  const squeezebert_embeddings tables = {
      sizeof(squeezebert_embeddings), x.data(), 2, x.data(), 2, x.data(), 2, kChannels, norm};
  const auto idle = [](void*, int32_t, void (*)(void*, int32_t), void*) {};
  const Context context(2, idle);
  constexpr int64_t kC = kChannels;
  const float* const in = x.data();
  float* const out = y.data();
  const squeezebert_status all[] = {
      squeezebert_grouped_conv1x1(context, kTokens, in, kC, &same, out, kC),
      squeezebert_grouped_conv1x1_gelu(context, kTokens, in, kC, &same, out, kC),
      squeezebert_grouped_conv1x1_add_layer_norm(context, kTokens, in, kC, &same, in, kC, &norm, out, kC),
      squeezebert_grouped_conv1d(context, 2, offsets.data(), in, kC, &wide, out, kC),
      squeezebert_attention(context, &shape, in, kC, in, kC, in, kC, nullptr, out, kC),
      squeezebert_grouped_qkv_attention(context, &shape, in, kC, &same, &same, &same, nullptr, out, kC),
      squeezebert_grouped_ffn(context, kTokens, in, kC, &layer.intermediate, &layer.output, &norm, out, kC),
      squeezebert_embedding_layer_norm(context, kTokens, ids.data(), nullptr, ids.data(), &tables, out, kC),
      squeezebert_encoder(context, &encoder, &layer, 1, in, kC, nullptr, out, kC)};
  for (const squeezebert_status status : all) CHECK(status == SQUEEZEBERT_HOST_ERROR);
}

// A call from inside a task of the same context, and one from another thread meanwhile.
void test_in_use() {
  static Work work;
  static squeezebert_context* context;
  static std::atomic<int> refused;
  const auto nested = [](void*, int32_t workers, void (*body)(void*, int32_t), void* argument) {
    for (int32_t worker = 0; worker < workers; ++worker) {
      const auto check = [](squeezebert_status status) {
        refused += status == SQUEEZEBERT_INVALID_ARGUMENT &&
                   strcmp(squeezebert_last_error(), "context: expected one that no call is using, got one in use") == 0;
      };
      check(Work().run(context));
      check(squeezebert_context_set_workers(context, 7));
      std::thread([&] { check(Work().run(context)); }).join();
      body(argument, worker);
    }
  };
  OK(work.run(Context()));
  const Floats expected = work.output;
  OK(squeezebert_context_create(nested, nullptr, 2, &context));
  for (int round = 0; round < 2; ++round) {
    refused = 0;
    std::fill(work.output.begin(), work.output.end(), 0.0f);
    OK(work.run(context));
    CHECK(refused == 6 && same_bits(work.output, expected) && squeezebert_context_workers(context) == 2);
  }
  OK(squeezebert_context_set_workers(context, 3));
  squeezebert_context_destroy(context);
}

}  // namespace

int main() {
  test_workers_called();
  test_operators();
  test_in_use();
  return check_result();
}
