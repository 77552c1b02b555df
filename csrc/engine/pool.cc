// The built-in thread pool: what a context without a parallel_for of its own runs on.
//
// One job at a time. A caller that finds the pool busy (another context, or a call from inside a task) does all its
// workers' parts itself, so nothing ever waits for a thread that waits for it. A job of n parts is for the caller and
// the first n - 1 threads: these are started or woken for it if need be, the others sleep on, and one that nobody has
// wanted for kIdle ends. A forked child, in which the threads do not exist, starts with a pool of its own.
#include <pthread.h>
#include <signal.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <new>
#include <optional>
#include <thread>
#include <vector>

#include "engine/context.h"

namespace squeezebert {

namespace {

using Clock = std::chrono::steady_clock;

// An encoder pass hands out some 70 jobs a few tens of microseconds apart; a thread that slept in between would wake
// too late for many of them, so it looks for the next job a while before it sleeps.
constexpr auto kLook = std::chrono::microseconds(50);
// The caller waits for parts that are being computed, at most one for each thread: longer, but not as long as a thread
// may take to get a core from somebody else.
constexpr auto kPatience = std::chrono::milliseconds(1);
constexpr auto kIdle = std::chrono::seconds(3);
constexpr auto kRetry = std::chrono::seconds(1);  // after the system had no thread to give

void pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("yield");
#endif
}

// Looks for `done` until that long after `start`, and says whether it came.
template <class Done>
bool look(Clock::time_point start, Clock::duration limit, const Done& done) {
  constexpr int kLooksPerClock = 16;
  for (;;) {
    for (int i = 0; i < kLooksPerClock; ++i) {
      if (done()) return true;
      pause();
    }
    const Clock::duration passed = Clock::now() - start;
    if (passed >= limit) return false;
    if (passed >= kLook) std::this_thread::yield();
  }
}

// Faults must reach whoever handles them in this process; all other signals are for the host's own threads.
void block_signals(sigset_t* before) {
  sigset_t signals;
  sigfillset(&signals);
  for (const int fault : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGSYS, SIGABRT}) sigdelset(&signals, fault);
  pthread_sigmask(SIG_SETMASK, &signals, before);
}

class Pool {
 public:
  void run(int32_t workers, void (*body)(void*, int32_t), void* argument) {
    const bool mine = !busy_.exchange(true, std::memory_order_acquire);
    if (mine && start_threads(workers - 1)) {
      share(workers, body, argument);
    } else {
      for (int32_t worker = 0; worker < workers; ++worker) body(argument, worker);
    }
    if (mine) busy_.store(false, std::memory_order_release);
  }

  // Ends all threads, and returns when they are gone. False, and nothing done, while a job is running.
  bool shut_down() {
    if (busy_.exchange(true, std::memory_order_acquire)) return false;
    stopping_.store(true);
    for (const std::unique_ptr<Thread>& thread : threads_) thread->wake_up();
    {
      std::unique_lock<std::mutex> lock(mutex_);
      ended_.wait(lock, [this] { return running_ == 0; });
    }
    if (last_ended_) pthread_join(*last_ended_, nullptr);  // which has joined the one before it, and so on
    last_ended_.reset();
    threads_.clear();
    threads_.shrink_to_fit();
    stopping_.store(false);
    busy_.store(false, std::memory_order_release);
    return true;
  }

 private:
  // `asleep` is set before the last look for work, and looked at after work was handed out: one of the two sees the
  // other.
  struct Thread {
    Thread(Pool* owner, int32_t number) : pool(owner), index(number) {}
    void wake_up() {
      if (!asleep.load()) return;
      {
        const std::lock_guard<std::mutex> lock(mutex);
      }
      wake.notify_one();
    }

    Pool* const pool;
    const int32_t index;
    std::atomic<bool> running{false};
    std::atomic<bool> asleep{false};
    std::mutex mutex;
    std::condition_variable wake;
  };

  // Whether there is any of the first `wanted` threads.
  bool start_threads(int32_t wanted) {
    bool any = false;
    for (int32_t i = 0; i < wanted; ++i) {
      const bool there = static_cast<size_t>(i) < threads_.size();
      if ((there && threads_[static_cast<size_t>(i)]->running.load(std::memory_order_relaxed)) || start_thread(i)) {
        any = true;
      } else {
        break;
      }
    }
    return any;
  }

  bool start_thread(int32_t index) {
    if (retry_after_ != Clock::time_point() && Clock::now() < retry_after_) return false;
    try {
      if (static_cast<size_t>(index) == threads_.size()) threads_.push_back(std::make_unique<Thread>(this, index));
    } catch (const std::bad_alloc&) {
      return false;
    }
    Thread& thread = *threads_[static_cast<size_t>(index)];
    count(&thread, true);
    sigset_t before;
    block_signals(&before);
    pthread_t handle;
    const auto serve = [](void* argument) -> void* {
      Thread& self = *static_cast<Thread*>(argument);
      self.pool->serve(self);
      return nullptr;
    };
    const bool started = pthread_create(&handle, nullptr, serve, &thread) == 0;
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
    if (!started) {
      count(&thread, false);
      retry_after_ = Clock::now() + kRetry;
    }
    return started;
  }

  void count(Thread* thread, bool running) {
    const std::lock_guard<std::mutex> lock(mutex_);
    thread->running.store(running, std::memory_order_relaxed);
    running_ += running ? 1 : -1;
  }

  void share(int32_t workers, void (*body)(void*, int32_t), void* argument) {
    body_ = body;
    argument_ = argument;
    finished_.store(0, std::memory_order_relaxed);
    const uint64_t ticket = first_ticket(job_of(ticket_.load(std::memory_order_relaxed)) + 1, workers);
    ticket_.store(ticket);
    const size_t helpers = std::min(threads_.size(), static_cast<size_t>(workers - 1));
    for (size_t i = 0; i < helpers; ++i) threads_[i]->wake_up();
    take_parts(job_of(ticket));
    const auto finished = [&] { return finished_.load() == workers; };
    if (look(Clock::now(), kPatience, finished)) return;
    std::unique_lock<std::mutex> lock(mutex_);
    caller_asleep_.store(true);
    all_finished_.wait(lock, finished);
    caller_asleep_.store(false);
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
      const int32_t parts = parts_of(ticket);
      body_(argument_, next_part_of(ticket));
      // As with `asleep`: the caller says that it sleeps, then looks once more whether this was the last part.
      if (finished_.fetch_add(1) + 1 == parts && caller_asleep_.load()) {
        {
          const std::lock_guard<std::mutex> lock(mutex_);
        }
        all_finished_.notify_one();
      }
      ticket = ticket_.load(std::memory_order_acquire);
    }
  }

  void serve(Thread& self) {
    uint64_t seen = 0;
    // A job that is not for this thread does not keep it awake.
    const auto wanted = [&] {
      const uint64_t ticket = ticket_.load();
      return (job_of(ticket) != seen && self.index < parts_of(ticket) - 1) || stopping_.load();
    };
    for (;;) {
      if (!look(Clock::now(), kLook, wanted)) {
        std::unique_lock<std::mutex> lock(self.mutex);
        self.asleep.store(true);
        const bool woken = self.wake.wait_for(lock, kIdle, wanted);
        self.asleep.store(false);
        if (!woken) break;
      }
      if (stopping_.load()) break;
      seen = job_of(ticket_.load(std::memory_order_acquire));
      take_parts(seen);
    }
    end(self);
  }

  // A thread is joined by the one that ends after it, so that those which ended hold on to one stack and no more.
  void end(Thread& self) {
    std::optional<pthread_t> before = pthread_self();
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      before.swap(last_ended_);
      self.running.store(false, std::memory_order_relaxed);
      --running_;
      ended_.notify_all();
    }
    if (before) pthread_join(*before, nullptr);
  }

  std::atomic<bool> busy_{false};  // a job is running; who set it has to do with threads_ alone
  std::vector<std::unique_ptr<Thread>> threads_;
  Clock::time_point retry_after_{};

  std::atomic<uint64_t> ticket_{0};
  std::atomic<int32_t> finished_{0};
  std::atomic<bool> caller_asleep_{false};
  std::atomic<bool> stopping_{false};
  void (*body_)(void*, int32_t) = nullptr;
  void* argument_ = nullptr;

  std::mutex mutex_;
  std::condition_variable all_finished_;
  std::condition_variable ended_;
  int32_t running_ = 0;
  std::optional<pthread_t> last_ended_;
};

// In memory of its own that is never destroyed: its threads may outlive every static. After a fork the child makes it
// anew, for the threads, and perhaps the locks, are the parent's.
Pool& pool() {
  alignas(Pool) static unsigned char memory[sizeof(Pool)];
  static const auto make = [] { new (memory) Pool; };
  [[maybe_unused]] static const bool made = [] {
    make();
    return pthread_atfork(nullptr, nullptr, make) == 0;
  }();
  return *std::launder(reinterpret_cast<Pool*>(memory));
}

}  // namespace

void pool_parallel_for(void*, int32_t workers, void (*body)(void*, int32_t), void* argument) {
  pool().run(workers, body, argument);
}

bool shut_down_pool() { return pool().shut_down(); }

}  // namespace squeezebert
