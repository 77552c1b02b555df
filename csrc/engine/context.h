// The context: where work runs and the memory it uses.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "engine/float_environment.h"
#include "engine/size.h"
#include "engine/status.h"

namespace squeezebert {

// Memory that grows to the largest request seen and is then reused.
class Buffer {
 public:
  Buffer() = default;
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  ~Buffer() { release(); }

  // At least `bytes`, aligned to 64, its content undefined, valid until the next call. Null, with the error set, when
  // there is none to be had.
  void* reserve(Size bytes);
  void release();
  size_t bytes() const { return bytes_; }

 private:
  void* data_ = nullptr;
  size_t bytes_ = 0;
};

// Where tasks run: `count` workers through a parallel_for, or the calling thread alone.
struct Workers {
  squeezebert_parallel_for parallel_for = nullptr;
  void* host = nullptr;
  int32_t count = 1;
  bool* host_erred = nullptr;  // set when parallel_for does not call every worker once; wanted where count > 1
};

// The library's own threads, as a squeezebert_parallel_for (its host is not used).
void pool_parallel_for(void* host, int32_t workers, void (*body)(void*, int32_t), void* argument);

struct ContextList;

// Ends these threads until they are wanted again. False, and nothing done, while one of their jobs is running.
bool shut_down_pool();

// Which of the workers of a job were called. It costs a worker one store, to a byte of its own.
class RollCall {
 public:
  explicit RollCall(int32_t workers) : workers_(workers) { std::memset(called_, 0, static_cast<size_t>(workers)); }
  bool answer(int32_t worker) {
    const bool known = worker >= 0 && worker < workers_;
    __atomic_store_n(known ? &called_[worker] : &stranger_, true, __ATOMIC_RELAXED);
    return known;
  }
  bool complete() const { return !stranger_ && !std::memchr(called_, 0, static_cast<size_t>(workers_)); }

 private:
  const int32_t workers_;
  bool stranger_ = false;
  bool called_[SQUEEZEBERT_MAX_WORKERS];  // not std::atomic, whose constructor would clear them all
};

// Calls body(task, worker) once for every task in [0, tasks). Workers take the next task when they are done with one,
// so which worker runs a task is not fixed: a task's result must not depend on it.
template <class Body>
void for_each_task(const Workers& workers, int64_t tasks, const Body& body) {
  const int32_t count = tasks < workers.count ? static_cast<int32_t>(tasks) : workers.count;
  if (count <= 1) {
    for (int64_t task = 0; task < tasks; ++task) body(task, 0);
    return;
  }
  struct Shared {
    const Body& body;
    const int64_t tasks;
    RollCall called;
    std::atomic<int64_t> next{0};
  } shared{body, tasks, RollCall(count)};
  const auto run = [](void* argument, int32_t worker) {
    Shared& s = *static_cast<Shared*>(argument);
    if (!s.called.answer(worker)) return;
    const DefaultFloatEnvironment environment;
    for (int64_t task; (task = s.next.fetch_add(1, std::memory_order_relaxed)) < s.tasks;) s.body(task, worker);
  };
  workers.parallel_for(workers.host, count, run, &shared);
  // Every worker asks for tasks until there are none, so `next` tells how often any was called.
  if (!shared.called.complete() || shared.next.load(std::memory_order_relaxed) != tasks + count)
    *workers.host_erred = true;
}

}  // namespace squeezebert

struct squeezebert_context {
  squeezebert_context();
  ~squeezebert_context();
  squeezebert_context(const squeezebert_context&) = delete;
  squeezebert_context& operator=(const squeezebert_context&) = delete;

  // Takes the context for a call; false when it has one already.
  bool begin_call();
  void end_call() { use.store(Use::kNone, std::memory_order_release); }
  bool in_call() const { return use.load(std::memory_order_relaxed) == Use::kCall; }

  size_t memory() const { return working.bytes() + layers.bytes(); }
  // Returns the bytes given back: none while a call is using them.
  size_t release_memory();

  squeezebert::Workers workers;
  squeezebert::Buffer working;  // activations and scratch
  squeezebert::Buffer layers;   // the layers of an encoder call, checked and decoded
  bool host_erred = false;

 private:
  enum class Use : unsigned char { kNone, kCall, kRelease };
  std::atomic<Use> use{Use::kNone};

  friend struct squeezebert::ContextList;
  squeezebert_context* next = nullptr;  // in the list of all contexts
  squeezebert_context* previous = nullptr;
};

namespace squeezebert {

using Context = squeezebert_context;

// release_memory() of every context there is.
size_t release_all_memory();

}  // namespace squeezebert
