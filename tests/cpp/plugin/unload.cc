// A program that loads the library as a plugin, computes on its thread pool, and unloads it: the pool's threads, which
// sleep in its code, must not fall out of it. With SQUEEZEBERT_LEAVES it is told to end them, and then is gone.
#include <dlfcn.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "support.h"

namespace {

template <class Function>
Function* find(void* library, const char* name, Function*) {
  void* const symbol = dlsym(library, name);
  CHECK(symbol != nullptr);
  return reinterpret_cast<Function*>(symbol);
}
#define FIND(library, name) find(library, #name, decltype (&name)(nullptr))

void compute(void* library) {
  constexpr int64_t kChannels = 256;
  const squeezebert_conv_shape shape = {kChannels, kChannels, 1, 1};
  size_t bytes = 0;
  CHECK(FIND(library, squeezebert_packed_size)(&shape, SQUEEZEBERT_FLOAT32, &bytes) == SQUEEZEBERT_OK);
  const tests::Floats weight(kChannels * kChannels, 1.0f), input(300 * kChannels, 1.0f);
  tests::Floats output(input.size());
  std::vector<unsigned char> packed(bytes);
  CHECK(FIND(library, squeezebert_pack)(&shape, SQUEEZEBERT_FLOAT32, weight.data(), packed.data(), bytes) ==
        SQUEEZEBERT_OK);
  const squeezebert_linear layer = {packed.data(), bytes, nullptr};
  squeezebert_context* context = nullptr;
  CHECK(FIND(library, squeezebert_context_create)(nullptr, nullptr, 3, &context) == SQUEEZEBERT_OK);
  CHECK(FIND(library, squeezebert_grouped_conv1x1)(context, 300, input.data(), kChannels, &layer, output.data(),
                                                   kChannels) == SQUEEZEBERT_OK);
  CHECK(output[0] == kChannels && output.back() == kChannels);
  FIND(library, squeezebert_context_destroy)(context);
}

}  // namespace

int main() {
  for (int round = 0; round < 3; ++round) {
    void* const library = dlopen(SQUEEZEBERT_LIBRARY, RTLD_NOW | RTLD_LOCAL);
    if (!library) fprintf(stderr, "%s\n", dlerror());
    CHECK(library != nullptr);
    if (!library) break;
    compute(library);
#ifdef SQUEEZEBERT_LEAVES
    CHECK(FIND(library, squeezebert_pool_shutdown)() == SQUEEZEBERT_OK);
#endif
    dlclose(library);
#if defined(SQUEEZEBERT_LEAVES) && defined(__GLIBC__)  // where dlclose() unloads
    CHECK(dlopen(SQUEEZEBERT_LIBRARY, RTLD_NOW | RTLD_NOLOAD) == nullptr);
#endif
    const pid_t child = fork();  // which calls nothing that was unloaded
    if (child == 0) _exit(0);
    int status = -1;
    CHECK(child > 0 && waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0);
    const timespec while_they_fall_asleep = {0, 50'000'000};
    nanosleep(&while_they_fall_asleep, nullptr);
  }
  return check_result();
}
