// What the pool's threads do to the process that they live in: they take no signals, end when nobody wants them or when
// told to, and are not asked for again and again where there are none.
#include <dirent.h>
#include <pthread.h>
#include <signal.h>
#include <time.h>
#include <unistd.h>

#include <atomic>
#include <thread>

#if defined(__GLIBC__) && !defined(SQUEEZEBERT_SANITIZED)  // sanitizers start threads in a way of their own
#include <dlfcn.h>
#include <errno.h>
#define COUNTS_THREADS_STARTED

static std::atomic<bool> no_threads{false};
static std::atomic<int> threads_asked_for{0};

// Every thread that this program or the library starts goes through here first.
#pragma GCC visibility push(default)
extern "C" int pthread_create(pthread_t* thread, const pthread_attr_t* attributes, void* (*start)(void*),
                              void* argument) {
  ++threads_asked_for;
  if (no_threads) return EAGAIN;
  static const auto real = reinterpret_cast<decltype(&pthread_create)>(dlsym(RTLD_NEXT, "pthread_create"));
  return real(thread, attributes, start, argument);
}
#pragma GCC visibility pop
#endif

#include "support.h"

namespace {

using namespace tests;

constexpr int64_t kTokens = 16, kChannels = 16, kWide = 1024;  // work for 32 workers on every ISA

struct Work {
  Conv conv{kWide, kChannels, 1, 1};
  Floats input = random(kTokens * kChannels, 2);
  Floats expected;
  Work() {
    conv.pack();
    expected = run(Context());
  }
  Floats run(squeezebert_context* context) const {
    const squeezebert_linear layer = conv.linear();
    Floats output(kTokens * kWide);
    OK(squeezebert_grouped_conv1x1(context, kTokens, input.data(), kChannels, &layer, output.data(), kWide));
    return output;
  }
  void check(squeezebert_context* context) const { CHECK(same_bits(run(context), expected)); }
};

// Threads of this process, 0 where the system does not tell.
int threads() {
  int count = 0;
  DIR* const folder = opendir("/proc/self/task");
  if (!folder) return 0;
  while (const dirent* entry = readdir(folder)) count += entry->d_name[0] != '.';
  closedir(folder);
  return count;
}

// Waits until at most `most` threads are left, working meanwhile.
template <class Meanwhile>
bool falls_to(int most, const Meanwhile& meanwhile) {
  for (int tenths = 0; tenths < 600; ++tenths) {
    if (threads() <= most) return true;
    meanwhile();
    const timespec pause = {0, 100'000'000};
    nanosleep(&pause, nullptr);
  }
  return false;
}

void test_shutdown(const Work& work) {
  OK(squeezebert_pool_shutdown());  // nothing to end
  work.check(Context(2));
  OK(squeezebert_pool_shutdown());
  const int before = threads();  // a sanitizer's own, if any, is started with the first
  for (int round = 0; round < 20; ++round) {
    work.check(Context(2 + round));
    OK(squeezebert_pool_shutdown());
    CHECK(falls_to(before, [] {}));  // the system may count a thread that was joined for a moment
  }
  work.check(Context(5));
  OK(squeezebert_pool_shutdown());
  OK(squeezebert_pool_shutdown());
  work.check(Context(5));
}

// Beside callers it finds the pool at work or not; either way they get their results.
void test_shutdown_while_busy(const Work& work) {
  std::atomic<bool> stop{false};
  std::atomic<int> wrong{0};
  std::vector<std::thread> callers;
  for (int c = 0; c < 2; ++c) {
    callers.emplace_back([&] {
      const Context context(3);
      while (!stop) wrong += !same_bits(work.run(context), work.expected);
    });
  }
  int ended = 0, refused = 0;
  for (int round = 0; round < 2000; ++round) {
    const squeezebert_status status = squeezebert_pool_shutdown();
    ended += status == SQUEEZEBERT_OK;
    refused +=
        status == SQUEEZEBERT_INVALID_ARGUMENT &&
        strcmp(squeezebert_last_error(), "pool: expected no call that is computing on its threads, got one") == 0;
    CHECK(ended + refused == round + 1);
  }
  stop = true;
  for (std::thread& caller : callers) caller.join();
  CHECK(wrong == 0);
}

// A signal for the process that the host's own thread blocks waits for that thread: the pool's do not take it.
std::atomic<int> g_handled{0};
void test_signals(const Work& work) {
  struct sigaction action = {}, old = {};
  action.sa_handler = [](int) { ++g_handled; };
  CHECK(sigaction(SIGUSR1, &action, &old) == 0);
  const Context context(4);
  work.check(context);  // now there are threads
  sigset_t blocked, before, pending;
  sigemptyset(&blocked);
  sigaddset(&blocked, SIGUSR1);
  CHECK(pthread_sigmask(SIG_BLOCK, &blocked, &before) == 0);
  CHECK(sigismember(&before, SIGUSR1) == 0);  // the caller's mask is as it was
  for (int round = 0; round < 20; ++round) {
    CHECK(kill(getpid(), SIGUSR1) == 0);
    work.check(context);
    CHECK(g_handled == 0 && sigpending(&pending) == 0 && sigismember(&pending, SIGUSR1) == 1);
  }
  CHECK(pthread_sigmask(SIG_SETMASK, &before, nullptr) == 0);
  CHECK(g_handled == 1);
  CHECK(sigaction(SIGUSR1, &old, nullptr) == 0);
}

// Threads that a job does not need are not woken for it, and end although there are jobs; in the end all do.
void test_shrinking(const Work& work) {
  OK(squeezebert_pool_shutdown());
  const int before = threads();
  work.check(Context(32));
  if (before == 0) return;
  CHECK(threads() > before + 8);
  const Context two(2);
  CHECK(falls_to(before + 1, [&] { work.check(two); }));
  CHECK(falls_to(before, [] {}));
  work.check(Context(32));
  CHECK(threads() > before + 8);
}

void test_no_threads([[maybe_unused]] const Work& work) {
#ifdef COUNTS_THREADS_STARTED
  OK(squeezebert_pool_shutdown());
  no_threads = true;
  threads_asked_for = 0;
  const Context context(4);
  for (int round = 0; round < 100; ++round) work.check(context);
  CHECK(threads_asked_for >= 1 && threads_asked_for < 20);  // one, unless this took seconds
  no_threads = false;
  const int before = threads_asked_for;
  for (int tenths = 0; tenths < 600 && threads_asked_for < before + 3; ++tenths) {
    work.check(context);
    const timespec pause = {0, 100'000'000};
    nanosleep(&pause, nullptr);
  }
  CHECK(threads_asked_for == before + 3);
#endif
}

}  // namespace

int main() {
  const Work work;
  test_shutdown(work);
  test_shutdown_while_busy(work);
  test_signals(work);
  test_shrinking(work);
  test_no_threads(work);
  OK(squeezebert_pool_shutdown());  // joins the last, too: the thread sanitizer counts
  return check_result();
}
