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
#include <thread>

#include "engine/context.h"

namespace squeezebert {

namespace {

class Pool {
 public:
  void run(int32_t workers, void (*body)(void*, int32_t), void* argument) {
    const bool mine = !busy_.exchange(true, std::memory_order_acquire);
    if (mine) start_threads(workers - 1);
    if (!mine || threads_ == 0) {
      for (int32_t worker = 0; worker < workers; ++worker) body(argument, worker);
    } else {
      share(workers, body, argument);
    }
    if (mine) busy_.store(false, std::memory_order_release);
  }

 private:
  void start_threads(int32_t wanted) {
    for (; threads_ < wanted; ++threads_) {
      try {
        std::thread([this] { serve(); }).detach();
      } catch (...) {
        return;  // no thread or no memory for one: go on with those there are
      }
    }
  }

  void share(int32_t workers, void (*body)(void*, int32_t), void* argument) {
    body_ = body;
    argument_ = argument;
    finished_.store(0, std::memory_order_relaxed);
    const uint64_t ticket = first_ticket(job_of(ticket_.load(std::memory_order_relaxed)) + 1, workers);
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      ticket_.store(ticket, std::memory_order_release);
    }
    wake_.notify_all();
    take_parts(job_of(ticket));
    // Every part is taken; what is left is at most one per thread, so look rather than sleep.
    for (int look = 0; finished_.load(std::memory_order_acquire) != workers; ++look) {
      if (look < kLooks) {
        pause();
      } else {
        std::this_thread::yield();
      }
    }
  }

  // A ticket holds the job's number, its number of parts, and the next part to take, all in one word: a thread that
  // comes late, while the next job is being set up, still finds the last one, with no part left. It touches nothing,
  // and nobody waits for it. Once a thread holds a part, the job stays until that part is finished.
  static_assert(SQUEEZEBERT_MAX_WORKERS <= 0xffff);
  static uint64_t first_ticket(uint64_t job, int32_t parts) { return job << 32 | static_cast<uint64_t>(parts) << 16; }
  static uint64_t job_of(uint64_t ticket) { return ticket >> 32; }
  static int32_t parts_of(uint64_t ticket) { return static_cast<int32_t>(ticket >> 16 & 0xffff); }
  static int32_t next_part_of(uint64_t ticket) { return static_cast<int32_t>(ticket & 0xffff); }

  void take_parts(uint64_t job) {
    uint64_t ticket = ticket_.load(std::memory_order_acquire);
    while (job_of(ticket) == job && next_part_of(ticket) < parts_of(ticket)) {
      if (!ticket_.compare_exchange_weak(ticket, ticket + 1, std::memory_order_acq_rel)) continue;
      body_(argument_, next_part_of(ticket));
      finished_.fetch_add(1, std::memory_order_release);
      ticket = ticket_.load(std::memory_order_acquire);
    }
  }

  // An encoder pass hands out some 70 jobs a few tens of microseconds apart; a thread that slept in between would wake
  // too late for many of them, so it looks for the next job a while before it sleeps.
  void serve() {
    uint64_t seen = 0;
    const auto another = [&] { return job_of(ticket_.load(std::memory_order_acquire)) != seen; };
    for (;;) {
      for (int look = 0; look < kLooks && !another(); ++look) pause();
      if (!another()) {
        std::unique_lock<std::mutex> lock(mutex_);
        wake_.wait(lock, another);
      }
      seen = job_of(ticket_.load(std::memory_order_acquire));
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

  std::atomic<bool> busy_{false};  // a job is running
  std::mutex mutex_;
  std::condition_variable wake_;
  std::atomic<uint64_t> ticket_{0};
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
