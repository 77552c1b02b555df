// The built-in thread pool: what a context without a parallel_for of its own runs on.
//
// One job at a time. A caller that finds the pool busy (another context, or a call from inside a task) does all its
// workers' parts itself, so nothing ever waits for a thread that waits for it. Threads are started when first asked for
// and sleep between jobs; a forked child, in which they do not exist, starts with a pool of its own.
#include <pthread.h>

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <new>
#include <system_error>
#include <thread>

#include "engine/context.h"

namespace squeezebert {

namespace {

class Pool {
 public:
  void run(int32_t workers, void (*body)(void*, int32_t), void* argument) {
    std::unique_lock<std::mutex> busy(busy_, std::try_to_lock);
    if (busy.owns_lock()) start_threads(workers - 1);
    if (!busy.owns_lock() || threads_ == 0) {
      for (int32_t worker = 0; worker < workers; ++worker) body(argument, worker);
      return;
    }
    body_ = body;
    argument_ = argument;
    workers_.store(workers, std::memory_order_relaxed);
    finished_.store(0, std::memory_order_relaxed);
    const uint64_t job = (ticket_.load(std::memory_order_relaxed) >> 32) + 1;
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      ticket_.store(job << 32, std::memory_order_release);
    }
    wake_.notify_all();
    take_parts(job);
    // Every part is taken; what is left is at most one per thread, so look rather than sleep.
    for (int look = 0; finished_.load(std::memory_order_acquire) != workers; ++look) {
      if (look < kLooks) {
        pause();
      } else {
        std::this_thread::yield();
      }
    }
  }

 private:
  void start_threads(int32_t wanted) {
    for (; threads_ < wanted; ++threads_) {
      try {
        std::thread([this] { serve(); }).detach();
      } catch (const std::system_error&) {
        return;  // no more threads to be had: go on with those there are
      }
    }
  }

  // A ticket is the job's number above the next part's. A thread that wakes late finds another number, or no part left,
  // and touches nothing: nobody waits for it. Once it holds a part, the job stays until that part is finished.
  void take_parts(uint64_t job) {
    uint64_t ticket = ticket_.load(std::memory_order_acquire);
    while (ticket >> 32 == job) {
      const auto part = static_cast<int32_t>(ticket & 0xffffffff);
      if (part >= workers_.load(std::memory_order_relaxed)) return;
      if (!ticket_.compare_exchange_weak(ticket, ticket + 1, std::memory_order_acq_rel)) continue;
      body_(argument_, part);
      finished_.fetch_add(1, std::memory_order_release);
      ticket = ticket_.load(std::memory_order_acquire);
    }
  }

  // An encoder pass hands out some 70 jobs a few tens of microseconds apart; a thread that slept in between would wake
  // too late for many of them, so it looks for the next job a while before it sleeps.
  void serve() {
    uint64_t seen = 0;
    const auto another = [&] { return ticket_.load(std::memory_order_acquire) >> 32 != seen; };
    for (;;) {
      for (int look = 0; look < kLooks && !another(); ++look) pause();
      if (!another()) {
        std::unique_lock<std::mutex> lock(mutex_);
        wake_.wait(lock, another);
      }
      seen = ticket_.load(std::memory_order_acquire) >> 32;
      take_parts(seen);
    }
  }

  static void pause() {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
  }

  static constexpr int kLooks = 5000;  // some 50 us on current cores

  std::mutex busy_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::atomic<uint64_t> ticket_{0};
  std::atomic<int32_t> workers_{0};
  std::atomic<int32_t> finished_{0};
  void (*body_)(void*, int32_t) = nullptr;
  void* argument_ = nullptr;
  int32_t threads_ = 0;
};

// Never destroyed: its threads are detached and may outlive every static. After a fork the child leaves the parent's
// pool where it is, for its threads and perhaps its locks are the parent's, and makes another.
std::atomic<Pool*> g_pool{nullptr};
std::once_flag g_fork_handler;

Pool* pool() {
  std::call_once(g_fork_handler, [] { pthread_atfork(nullptr, nullptr, [] { g_pool.store(nullptr); }); });
  Pool* current = g_pool.load(std::memory_order_acquire);
  if (current) return current;
  Pool* made = new (std::nothrow) Pool;
  if (g_pool.compare_exchange_strong(current, made, std::memory_order_acq_rel)) return made;
  delete made;
  return current;
}

}  // namespace

void pool_parallel_for(void*, int32_t workers, void (*body)(void*, int32_t), void* argument) {
  if (Pool* threads = pool()) return threads->run(workers, body, argument);
  for (int32_t worker = 0; worker < workers; ++worker) body(argument, worker);
}

}  // namespace squeezebert
