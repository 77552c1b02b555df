#include "python/context.h"

#include <atomic>
#include <memory>

#include "python/arrays.h"

namespace squeezebert::python {
namespace {

std::atomic<int32_t> g_threads{squeezebert_default_workers()};

struct Destroy {
  void operator()(squeezebert_context* context) const { squeezebert_context_destroy(context); }
};

}  // namespace

int32_t NumThreads() { return g_threads; }

void SetNumThreads(int32_t threads) {
  if (threads < 1 || threads > SQUEEZEBERT_MAX_WORKERS)
    Fail("threads: expected 1 to ", SQUEEZEBERT_MAX_WORKERS, ", got ", threads);
  g_threads = threads;
}

squeezebert_context* ThreadContext() {
  thread_local std::unique_ptr<squeezebert_context, Destroy> context;
  if (context == nullptr) {
    squeezebert_context* created = nullptr;
    CheckStatus(squeezebert_context_create(/*parallel_for=*/nullptr, /*host=*/nullptr, NumThreads(), &created));
    context.reset(created);
  } else if (squeezebert_context_workers(context.get()) != NumThreads()) {
    CheckStatus(squeezebert_context_set_workers(context.get(), NumThreads()));
  }
  return context.get();
}

}  // namespace squeezebert::python
