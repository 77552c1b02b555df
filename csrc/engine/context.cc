#include "engine/context.h"

#include <pthread.h>
#include <stdlib.h>

#include <algorithm>
#include <mutex>
#include <thread>

namespace squeezebert {

void* Buffer::reserve(Size bytes) {
  constexpr int64_t kLine = 64;
  const Size lines = std::max(bytes, Size(1)).rounded_up(kLine);
  if (lines.too_large() || !std::in_range<ptrdiff_t>(lines.count())) {
    fail(SQUEEZEBERT_OUT_OF_MEMORY, "context: could not get more working memory than there are addresses");
    return nullptr;
  }
  const auto rounded = static_cast<size_t>(lines.count());
  if (rounded > bytes_) {
    release();
    if (posix_memalign(&data_, kLine, rounded) != 0) {  // not aligned_alloc: Android has it from API level 28 on
      data_ = nullptr;
      fail(SQUEEZEBERT_OUT_OF_MEMORY, "context: could not get %zu bytes of working memory", rounded);
      return nullptr;
    }
    bytes_ = rounded;
  }
  return data_;
}

void Buffer::release() {
  free(data_);
  data_ = nullptr;
  bytes_ = 0;
}

// All contexts, for those which hold memory on threads that nobody can reach any more, or cannot reach now.
struct ContextList {
  static void add(Context* context) {
    const std::lock_guard<std::mutex> lock(mutex());
    context->next = first;
    if (first) first->previous = context;
    first = context;
  }
  static void remove(Context* context) {
    const std::lock_guard<std::mutex> lock(mutex());
    if (context->next) context->next->previous = context->previous;
    (context->previous ? context->previous->next : first) = context->next;
  }
  static size_t release_memory() {
    const std::lock_guard<std::mutex> lock(mutex());
    size_t bytes = 0;
    for (Context* context = first; context; context = context->next) bytes += context->release_memory();
    return bytes;
  }

 private:
  // Whoever forks holds it meanwhile, so that the child finds it free and the list whole.
  static std::mutex& mutex() {
    static std::mutex all;
    [[maybe_unused]] static const bool forks =
        pthread_atfork([] { all.lock(); }, [] { all.unlock(); }, [] { all.unlock(); }) == 0;
    return all;
  }

  static inline Context* first = nullptr;
};

size_t release_all_memory() { return ContextList::release_memory(); }

}  // namespace squeezebert

using namespace squeezebert;

squeezebert_context::squeezebert_context() { ContextList::add(this); }
squeezebert_context::~squeezebert_context() { ContextList::remove(this); }

bool squeezebert_context::begin_call() {
  for (;;) {
    Use before = Use::kNone;
    if (use.compare_exchange_weak(before, Use::kCall, std::memory_order_acquire)) return true;
    if (before == Use::kCall) return false;
    std::this_thread::yield();  // until its memory is released, which takes no time
  }
}

size_t squeezebert_context::release_memory() {
  Use before = Use::kNone;
  if (!use.compare_exchange_strong(before, Use::kRelease, std::memory_order_acquire)) return 0;
  const size_t bytes = memory();
  working.release();
  layers.release();
  use.store(Use::kNone, std::memory_order_release);
  return bytes;
}
