#include "engine/status.h"

#include <cstdarg>
#include <cstdint>
#include <cstdio>

namespace squeezebert {

namespace {
thread_local char g_error[512] = "";
}

squeezebert_status fail(squeezebert_status status, const char* format, ...) {
  va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(g_error, sizeof g_error, format, arguments);
  va_end(arguments);
  return status;
}

const char* last_error() { return g_error; }

squeezebert_status check_alignment(const char* argument, const void* memory, size_t alignment) {
  const size_t past = reinterpret_cast<uintptr_t>(memory) % alignment;
  if (past == 0) return SQUEEZEBERT_OK;
  return fail(SQUEEZEBERT_INVALID_ARGUMENT, "%s: expected memory aligned to %zu bytes, got an address %zu past that",
              argument, alignment, past);
}

}  // namespace squeezebert
