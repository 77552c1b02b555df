#include "torch/context.h"

#include <pthread.h>
#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <cstdint>
#include <memory>

#include "torch/check.h"

namespace squeezebert::torch_ops {
namespace {

/// squeezebert_parallel_for on the threads that libtorch already has.
void TorchParallelFor(void* /*host*/, int32_t workers, void (*body)(void* argument, int32_t worker), void* argument) {
  torch::stable::parallel_for(0, workers, /*grain_size=*/1, [&](int64_t begin, int64_t end) {
    for (int64_t worker = begin; worker < end; ++worker) body(argument, static_cast<int32_t>(worker));
  });
}

// libtorch's OpenMP threads do not survive fork(), and waiting for them in the child would never end. The child
// therefore computes on the core library's own pool, which starts anew there.
bool g_forked = false;
[[maybe_unused]] const int g_watch_fork = pthread_atfork(nullptr, nullptr, [] { g_forked = true; });

struct DestroyContext {
  void operator()(squeezebert_context* context) const { squeezebert_context_destroy(context); }
};

struct OwnedContext {
  std::unique_ptr<squeezebert_context, DestroyContext> context;
  bool forked = false;
};

}  // namespace

squeezebert_context* ThreadContext(const char* op) {
  thread_local OwnedContext owned;
  const auto workers =
      static_cast<int32_t>(std::min<int64_t>(torch::stable::get_num_threads(), SQUEEZEBERT_MAX_WORKERS));
  if (owned.context == nullptr || owned.forked != g_forked) {
    squeezebert_context* context = nullptr;
    CheckStatus(op,
                squeezebert_context_create(g_forked ? nullptr : TorchParallelFor, /*host=*/nullptr, workers, &context));
    owned.context.reset(context);
    owned.forked = g_forked;
  } else if (squeezebert_context_workers(owned.context.get()) != workers) {
    CheckStatus(op, squeezebert_context_set_workers(owned.context.get(), workers));
  }
  return owned.context.get();
}

}  // namespace squeezebert::torch_ops
