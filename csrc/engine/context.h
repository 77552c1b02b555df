// The context: where work runs and the memory it uses.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

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
};

// The library's own threads, as a squeezebert_parallel_for (its host is not used).
void pool_parallel_for(void* host, int32_t workers, void (*body)(void*, int32_t), void* argument);

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
    int64_t tasks;
    std::atomic<int64_t> next;
  } shared{body, tasks, {0}};
  const auto run = [](void* argument, int32_t worker) {
    Shared& s = *static_cast<Shared*>(argument);
    for (int64_t task; (task = s.next.fetch_add(1, std::memory_order_relaxed)) < s.tasks;) s.body(task, worker);
  };
  workers.parallel_for(workers.host, count, run, &shared);
}

}  // namespace squeezebert

struct squeezebert_context {
  squeezebert::Workers workers;
  squeezebert::Buffer working;  // activations and scratch
  squeezebert::Buffer layers;   // the layers of an encoder call, checked and decoded
};

namespace squeezebert {
using Context = squeezebert_context;
}
