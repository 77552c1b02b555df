// The built-in pool and several callers at once: jobs of every size one after another, threads with a context each,
// calls from inside a task, and fork() at any time.
#include <signal.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <atomic>
#include <thread>

#include "support.h"

namespace {

using namespace tests;

constexpr int64_t kTokens = 40, kChannels = 24;
constexpr int64_t kGroups[6] = {4, 4, 4, 1, 4, 4};
const Offsets kOffsets = {0, 3, 20, kTokens};

struct Work {
  EncoderLayer layer{kChannels, 60, kGroups, 1};
  Floats input = random(kTokens * kChannels, 2);
  Work() { layer.pack(); }

  Floats run(squeezebert_context* context) const {
    const squeezebert_layer one = layer.get();
    const squeezebert_encoder_shape shape = {sizeof(squeezebert_encoder_shape),
                                             static_cast<int64_t>(kOffsets.size()) - 1, kOffsets.data(), 4, 0};
    Floats output(input.size());
    OK(squeezebert_encoder(context, &shape, &one, 1, input.data(), kChannels, nullptr, output.data(), kChannels));
    return output;
  }
};

// Small jobs with few parts and with many, in turn: a thread that comes late to one meets the next half set up. Every
// part must run exactly once, and nobody may wait for a part that ran twice.
void test_jobs_of_changing_size() {
  constexpr int64_t kRows = 4, kOut = 512;
  const Context one(1), few(2), many(5);
  Conv conv(kOut, 16, 1, 3);
  conv.pack();
  const squeezebert_linear layer = conv.linear();
  const Floats input = random(kRows * 16, 4);
  const auto run = [&](const Context& context, Floats& output) {
    OK(squeezebert_grouped_conv1x1(context, kRows, input.data(), 16, &layer, output.data(), kOut));
  };
  Floats expected(kRows * kOut), output(kRows * kOut);
  run(one, expected);
  int wrong = 0;
  for (int round = 0; round < 20000; ++round) {
    std::fill(output.begin(), output.end(), -1.0f);
    run(round % 2 ? few : many, output);
    wrong += !same_bits(output, expected);
  }
  CHECK(wrong == 0);
}

void test_threads_at_once() {
  const Work work;
  const Floats expected = work.run(Context());
  std::atomic<int> wrong{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      const Context context(1 + t);
      for (int round = 0; round < 100; ++round) wrong += !same_bits(work.run(context), expected);
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK(wrong == 0);
}

// Each thread has its own last error.
void test_errors_are_per_thread() {
  const squeezebert_conv_shape uneven = {4, 4, 3, 1};
  size_t bytes = 0;
  CHECK(squeezebert_packed_size(&uneven, SQUEEZEBERT_FLOAT32, &bytes) == SQUEEZEBERT_INVALID_ARGUMENT);
  std::thread([] { CHECK(strcmp(squeezebert_last_error(), "") == 0); }).join();
  CHECK(strstr(squeezebert_last_error(), "groups") != nullptr);
}

// A host whose tasks call the library themselves, from the pool's threads as from its own.
void test_nested() {
  static const Work work;
  static const Floats expected = work.run(Context());
  static std::atomic<int> wrong;
  wrong = 0;
  const auto nested = [](void*, int32_t workers, void (*body)(void*, int32_t), void* argument) {
    for (int32_t worker = 0; worker < workers; ++worker) {
      wrong += !same_bits(work.run(Context(3)), expected);
      body(argument, worker);
    }
  };
  std::vector<std::thread> threads;
  for (int t = 0; t < 3; ++t) {
    threads.emplace_back([&] { wrong += !same_bits(work.run(Context(2, nested)), expected); });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK(wrong == 0);
}

#ifndef SQUEEZEBERT_SANITIZED_THREADS  // which does not know fork()

// Runs `child` in a forked child, which must return true within ten seconds.
void check_in_child(const std::function<bool()>& child) {
  const pid_t pid = fork();
  CHECK(pid >= 0);
  if (pid == 0) _exit(child() && check_failures == 0 ? 0 : 1);
  int status = -1;
  for (int waited = 0; waited < 1000; ++waited) {
    if (waitpid(pid, &status, WNOHANG) == pid) break;
    status = -1;
    const timespec pause = {0, 10'000'000};
    nanosleep(&pause, nullptr);
  }
  if (status == -1) {
    fprintf(stderr, "the child hangs\n");
    kill(pid, SIGKILL);
    waitpid(pid, &status, 0);
  }
  CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

void test_fork() {
  const Work work;
  const Context context(3);
  const Floats expected = work.run(context);  // the parent's pool has threads now
  check_in_child([&] { return same_bits(work.run(context), expected) && same_bits(work.run(Context(2)), expected); });
  check_in_child([&] {
    work.run(context);
    check_in_child([&] { return same_bits(work.run(context), expected); });  // and the child's, too
    return same_bits(work.run(context), expected);
  });
  CHECK(same_bits(work.run(context), expected));
}

// fork() while other threads are in the middle of a job.
void test_fork_while_busy() {
  const Work work;
  const Floats expected = work.run(Context());
  std::atomic<bool> stop{false};
  std::vector<std::thread> threads;
  for (int t = 0; t < 2; ++t) {
    threads.emplace_back([&] {
      const Context context(3);
      while (!stop) work.run(context);
    });
  }
  for (int round = 0; round < 40; ++round) check_in_child([&] { return same_bits(work.run(Context(3)), expected); });
  stop = true;
  for (std::thread& thread : threads) thread.join();
}

#endif

}  // namespace

int main() {
  test_jobs_of_changing_size();
  test_threads_at_once();
  test_errors_are_per_thread();
  test_nested();
#ifndef SQUEEZEBERT_SANITIZED_THREADS
  test_fork();
  test_fork_while_busy();
#endif
  return check_result();
}
